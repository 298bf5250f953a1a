//! ControllerUnpublishVolume: a node lets a volume go by its agent's word, or is shut out by the array first.
//!
//! The array is changed before the record: cut off in between, the node still counts as a holder, and the repeat goes on.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use rds_csi_api::{Failure, HostNqn, Kind, NodeName, Nqn, VolumeId};

use crate::array::{self, Array, Export, Volume};
use crate::attachments::decide::{self, Fence, Refusal, Release};
use crate::attachments::store::{self, Store, Stored};
use crate::node_agents::Witness;
use crate::publish::admitted;

/// Which nodes are to let the volume go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// This one.
    Node(NodeName),
    /// Every one that holds it (an empty `node_id`, CSI 1.13).
    Everywhere,
}

/// Why the volume is still attached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It must not be detached.
    #[error("volume {id} is not detached")]
    Refused {
        /// The volume.
        id: VolumeId,
        /// Why not.
        #[source]
        source: Refusal,
    },
    /// Nobody knows who holds it.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The array did not shut the node out.
    #[error(transparent)]
    Array(#[from] array::Error),
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Refused { source, .. } => source.kind(),
            Self::Store(error) => error.kind(),
            Self::Array(error) => error.kind(),
        }
    }
}

/// Detaches the volume.
pub async fn unpublish(
    array: &impl Array,
    store: &impl Store,
    nodes: &impl Witness,
    fence: Fence,
    id: VolumeId,
    from: From,
) -> Result<(), Error> {
    let Stored { record, revision } = store.load(&id).await?;
    let leaving: Vec<NodeName> = match from {
        From::Node(node) if record.of(&node).is_none() => {
            return forget(array, nodes, fence, &id, node).await;
        }
        From::Node(node) => vec![node],
        From::Everywhere => record.nodes().cloned().collect(),
    };
    if leaving.is_empty() {
        return Ok(());
    }
    let left = record.without(&leaving);
    let_go(array, nodes, fence, &id, leaving, &admitted(fence, &left)).await?;
    store.replace(&id, revision, left).await?;
    Ok(())
}

/// A node that the record does not name holds nothing, unless the array still lets it in: attached by a program whose
/// records are lost, it would keep every other node out.
async fn forget(
    array: &impl Array,
    nodes: &impl Witness,
    fence: Fence,
    id: &VolumeId,
    node: NodeName,
) -> Result<(), Error> {
    if fence == Fence::None {
        return Ok(());
    }
    let host = HostNqn::of(&node);
    match array.volume(id).await {
        Ok(Volume { export: Export::Hosts(hosts), .. }) if hosts.contains(&host) => {
            let hosts = hosts.into_iter().filter(|other| *other != host);
            let_go(array, nodes, fence, id, vec![node], &Export::to_hosts(hosts)).await
        }
        outcome => Ok(gone_or(outcome)?),
    }
}

/// Asks the nodes, and takes them off the array's list by their word, or behind a fence.
async fn let_go(
    array: &impl Array,
    nodes: &impl Witness,
    fence: Fence,
    id: &VolumeId,
    leaving: Vec<NodeName>,
    left: &Export,
) -> Result<(), Error> {
    let nqn = Nqn::of_volume(id);
    let testimonies = join_all(leaving.iter().map(|node| nodes.testify(node, id, &nqn))).await;
    let leaving: BTreeMap<_, _> = leaving.into_iter().zip(testimonies).collect();
    let release = decide::release(leaving, fence);
    match release.map_err(|source| Error::Refused { id: id.clone(), source })? {
        // Without a fence every host may connect as long as the volume is there.
        Release::Clean if fence == Fence::None => Ok(()),
        Release::Clean => Ok(gone_or(array.dismiss(id, left).await)?),
        Release::BehindFence => {
            tracing::warn!(volume = %id, "a node gave no answer, and is shut out by the array");
            Ok(gone_or(array.fence(id, left).await)?)
        }
    }
}

/// A volume that is gone lets nobody in.
fn gone_or<T>(outcome: Result<T, array::Error>) -> Result<(), array::Error> {
    match outcome {
        Ok(_) | Err(array::Error::Missing(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
