//! DeleteVolume: a volume that no node holds is removed; one that is not there is removed already.

use rds_csi_api::{Failure, Kind, ManagedPrefix, VolumeId};

use crate::array::{self, Array, Owner};
use crate::attachments::store::{self, Store};

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
            Self::Attached { .. } => Kind::InUse,
            Self::NotCovered(_) => Kind::Refused,
            Self::Store(error) => error.kind(),
            Self::Array(error) => error.kind(),
        }
    }
}

/// Removes the volume and its data.
pub async fn delete(array: &impl Array, store: &impl Store, id: VolumeId) -> Result<(), Error> {
    let record = store.load(&id).await?.record;
    if !record.is_empty() {
        let nodes = record.nodes().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        return Err(Error::Attached { id, nodes });
    }
    Ok(array.delete(&id).await?)
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
