//! ControllerUnpublishVolume: a node lets a volume go by its agent's word, or is shut out by the array first.
//!
//! The array is changed before the record: cut off in between, the node still counts as a holder, and the repeat goes on.

use futures_util::future::join_all;
use rds_csi_api::{Failure, HostNqn, Kind, NodeName, Nqn, VolumeId};

use crate::array::{self, Array, Export, Volume};
use crate::attachments::Ledger;
use crate::attachments::decide::{self, Fence, Refusal, Release};
use crate::attachments::facts;
use crate::attachments::store::{self, Stored};
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
    /// Nobody knows who is to hold it.
    #[error(transparent)]
    Facts(#[from] facts::Error),
    /// The array did not shut the node out.
    #[error(transparent)]
    Array(#[from] array::Error),
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Refused { source, .. } => source.kind(),
            Self::Store(error) => error.kind(),
            Self::Facts(error) => error.kind(),
            Self::Array(error) => error.kind(),
        }
    }
}

/// Detaches the volume.
pub async fn unpublish(
    array: &impl Array,
    ledger: &impl Ledger,
    nodes: &impl Witness,
    fence: Fence,
    id: VolumeId,
    from: From,
) -> Result<(), Error> {
    let Stored { record, revision } = ledger.load(&id).await?;
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
    let staying = left.nodes().count();
    let release = asked(nodes, fence, &id, leaving, staying).await.map_err(|source| refused(&id, source))?;
    // Without a fence every host may connect as long as the volume is there.
    if fence != Fence::None {
        shut_out(array, release, &id, &admitted(fence, &record), &admitted(fence, &left)).await?;
    }
    ledger.replace(&id, revision, left).await?;
    Ok(())
}

/// A node that the record does not name may hold the volume all the same: attached by a program whose records are lost.
/// What its agent says and whom the array lets in are then all there is, and its silence proves nothing.
async fn forget(
    array: &impl Array,
    nodes: &impl Witness,
    fence: Fence,
    id: &VolumeId,
    node: NodeName,
) -> Result<(), Error> {
    let host = HostNqn::of(&node);
    let is_known = nodes.knows(&node);
    let release = match asked(nodes, fence, id, vec![node], 0).await {
        // No volume can be with a node that there is not.
        Err(Refusal::Unfenced { .. }) if !is_known => return Ok(()),
        // It may be connected still, unless nobody can be.
        Err(source @ Refusal::Unfenced { .. }) => {
            return match array.volume(id).await {
                Ok(Volume { export: Export::Off, .. }) => Ok(()),
                Ok(_) => Err(refused(id, source)),
                outcome => Ok(gone_or(outcome)?),
            };
        }
        release => release.map_err(|source| refused(id, source))?,
    };
    if fence == Fence::None {
        return Ok(());
    }
    match array.volume(id).await {
        Ok(Volume { export: Export::Hosts(present), .. }) if present.contains(&host) => {
            let left = Export::to_hosts(present.iter().filter(|other| **other != host).cloned());
            Ok(shut_out(array, release, id, &Export::Hosts(present), &left).await?)
        }
        // It may be connected like any other. To cut it off would cut off all of them.
        Ok(Volume { export: Export::AnyHost, .. }) if release == Release::BehindFence => {
            Err(array::Error::Open(id.clone()).into())
        }
        outcome => Ok(gone_or(outcome)?),
    }
}

/// Asks the nodes, and judges by what they say.
async fn asked(
    nodes: &impl Witness,
    fence: Fence,
    id: &VolumeId,
    leaving: Vec<NodeName>,
    staying: usize,
) -> Result<Release, Refusal> {
    let nqn = Nqn::of_volume(id);
    let testimonies = join_all(leaving.iter().map(|node| nodes.testify(node, id, &nqn))).await;
    decide::release(leaving.into_iter().zip(testimonies).collect(), fence, staying)
}

/// Takes nodes off the array's list by their word, or behind a fence.
async fn shut_out(
    array: &impl Array,
    release: Release,
    id: &VolumeId,
    before: &Export,
    left: &Export,
) -> Result<(), array::Error> {
    match release {
        Release::Clean => gone_or(array.dismiss(id, before, left).await),
        Release::BehindFence => {
            tracing::warn!(volume = %id, "a node gave no answer, and is shut out by the array");
            // As it is called now: nobody is let in before the record says that these are out.
            match array.volume(id).await {
                Ok(Volume { nqn, .. }) => gone_or(array.fence(id, &nqn, before, left).await),
                gone => gone_or(gone),
            }
        }
    }
}

fn refused(id: &VolumeId, source: Refusal) -> Error {
    Error::Refused { id: id.clone(), source }
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
