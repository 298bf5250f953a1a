//! DeleteVolume: a volume that no node holds is removed; one that is not there is removed already.

use futures_util::future::join_all;
use rds_csi_api::{Failure, Kind, ManagedPrefix, NodeName, Nqn, VolumeId};

use crate::array::{self, Array, IfOpen, Owner};
use crate::attachments::store::{self, Store};
use crate::attachments::{Fence, Testimony};
use crate::node_agents::Witness;

/// A volume whose NQN the managed prefix does not cover.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotCovered {
    /// The volume.
    pub id: VolumeId,
    /// The prefix.
    pub prefix: ManagedPrefix,
}

/// Why the volume is still there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nodes hold it.
    #[error(
        "volume {id} is attached to {nodes}: delete the pods that use it, and it is detached before it is deleted"
    )]
    Attached {
        /// The volume.
        id: VolumeId,
        /// The nodes.
        nodes: String,
    },
    /// Every host may reach it, and a node says that it uses it.
    #[error("volume {id} is still in use on node {node}: {what}")]
    InUse {
        /// The volume.
        id: VolumeId,
        /// The node.
        node: NodeName,
        /// By what.
        what: String,
    },
    /// Every host may reach it, and not every node says that it does not use it.
    #[error(
        "every host may reach volume {id}, and whether one uses it is not known, since {why}: see to that, or, once no node \
         uses it, switch its export off on the array; then it is deleted"
    )]
    Unvouched {
        /// The volume.
        id: VolumeId,
        /// Who does not say so, and why.
        why: String,
    },
    /// The prefix hides a volume of this cluster.
    #[error(
        "volume {} is there and is this cluster's, but its NQN does not begin with {}, so it is not touched: correct \
         --managed-nqn-prefix, then it is deleted",
        .0.id, .0.prefix
    )]
    NotCovered(NotCovered),
    /// Nobody knows who holds it.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The array did not remove it.
    #[error(transparent)]
    Array(#[from] array::Error),
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Attached { .. } | Self::InUse { .. } => Kind::InUse,
            Self::Unvouched { .. } | Self::NotCovered(_) => Kind::Refused,
            Self::Store(error) => error.kind(),
            Self::Array(error) => error.kind(),
        }
    }
}

/// Removes the volume and its data.
///
/// The array knows whom it lets in by name. Of a volume that every host may reach only the nodes can tell that none uses it,
/// since the record may be lost: without a fence that is every volume, elsewhere one that the Go driver made.
pub async fn delete(
    array: &impl Array,
    store: &impl Store,
    nodes: &impl Witness,
    fence: Fence,
    id: VolumeId,
) -> Result<(), Error> {
    let record = store.load(&id).await?.record;
    if !record.is_empty() {
        let nodes = record.nodes().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        return Err(Error::Attached { id, nodes });
    }
    if fence != Fence::None {
        match array.delete(&id, IfOpen::Refuse).await {
            Err(array::Error::Open(_)) => {}
            outcome => return Ok(outcome?),
        }
    }
    let unused = unused(nodes, &id).await;
    let if_open = if unused.is_ok() { IfOpen::GoOn } else { IfOpen::Refuse };
    match (array.delete(&id, if_open).await, unused) {
        // Whatever the nodes say, nobody writes to what is not exported, and one node that is down keeps nothing else.
        (Err(array::Error::Open(_)), Err(why_not)) => Err(why_not),
        (outcome, _) => Ok(outcome?),
    }
}

/// Whether no node uses the volume, by the word of every one.
async fn unused(nodes: &impl Witness, id: &VolumeId) -> Result<(), Error> {
    let (named, nqn) = (nodes.named(), Nqn::of_volume(id));
    if named.is_empty() {
        return Err(Error::Unvouched { id: id.clone(), why: "no --node-agent names a node to ask".into() });
    }
    let asked = named.into_iter().map(async |node| {
        let testimony = nodes.testify(&node, id, &nqn).await;
        (node, testimony)
    });
    let mut unvouched = None;
    for (node, testimony) in join_all(asked).await {
        match testimony {
            Testimony::Gone => {}
            Testimony::InUse(what) => return Err(Error::InUse { id: id.clone(), node, what }),
            Testimony::Silent(why) | Testimony::Unasked(why) => {
                unvouched = Some(format!("the agent of node {node} does not say ({why})"));
            }
        }
    }
    match unvouched {
        None => Ok(()),
        Some(why) => Err(Error::Unvouched { id: id.clone(), why }),
    }
}

/// Whether what the prefix does not cover is none of this cluster's volumes, and so nothing of ours to remove. It only looks.
pub async fn is_nobodys(array: &impl Array, volume: NotCovered) -> Result<(), Error> {
    let NotCovered { id, prefix } = &volume;
    match array.volume(id).await {
        Ok(found) if found.owner == Owner::ThisCluster => return Err(Error::NotCovered(volume)),
        Ok(_) | Err(array::Error::Foreign { .. }) => {
            tracing::warn!(volume = %id, %prefix, "it is there, but neither its owner nor the prefix says that it is ours: not touched");
        }
        Err(array::Error::Missing(_)) => {
            tracing::warn!(volume = %id, %prefix, "the prefix does not cover it, and it is not there");
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rds_csi_api::Bytes;

    use super::*;
    use crate::array::Volume;
    use crate::array::fake::{FakeArray, Fault, wanted};

    fn not_covered(id: &str) -> NotCovered {
        NotCovered { id: id.parse().unwrap(), prefix: "nqn.2000-02.com.mikrotik:other-".parse().unwrap() }
    }

    #[tokio::test]
    async fn with_a_wrong_prefix_a_volume_of_this_cluster_is_not_called_deleted() {
        let array = FakeArray::new(Bytes::gib(10));
        let volume = array.create(&wanted("pvc-a", Bytes::gib(1))).await.unwrap();
        let refused = is_nobodys(&array, not_covered("pvc-a")).await.unwrap_err();
        assert!(
            refused.kind() == Kind::Refused && refused.to_string().contains("correct --managed-nqn-prefix")
        );
        assert_eq!(array.volumes(), [volume]);
    }

    #[tokio::test]
    async fn what_is_not_there_or_not_this_cluster_s_is_nothing_to_delete() {
        let array = FakeArray::new(Bytes::gib(10));
        let volume = array.create(&wanted("nixos-var", Bytes::gib(1))).await.unwrap();
        array.put(Volume { owner: Owner::Nobody, ..volume });
        let before = array.volumes();
        assert_eq!(is_nobodys(&array, not_covered("nixos-var")).await, Ok(()));
        assert_eq!(is_nobodys(&array, not_covered("pvc-none")).await, Ok(()));
        assert_eq!(array.volumes(), before);
        array.fail_once(Fault::Before(array::Error::Unreachable { reason: "down".into() }));
        let unknown = is_nobodys(&array, not_covered("pvc-none")).await.unwrap_err();
        assert_eq!(unknown.kind(), Kind::Unreachable, "not seen is not gone");
    }
}
