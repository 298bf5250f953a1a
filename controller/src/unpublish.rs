//! ControllerUnpublishVolume: a node lets a volume go by its agent's word, or is shut out by the array first.
//!
//! The array is changed before the record: cut off in between, the node still counts as a holder, and the repeat goes on.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use rds_csi_api::{Failure, Kind, NodeName, Nqn, VolumeId};

use crate::array::{self, Array};
use crate::attachments::decide::{self, Fence, Refusal, Unpublish};
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
        From::Node(node) => record.of(&node).map(|_| node).into_iter().collect(),
        From::Everywhere => record.nodes().cloned().collect(),
    };
    let nqn = Nqn::of_volume(&id);
    let testimonies = join_all(leaving.iter().map(|node| nodes.testify(node, &id, &nqn))).await;
    let leaving: BTreeMap<_, _> = leaving.into_iter().zip(testimonies).collect();
    let decision = decide::unpublish(&record, leaving, fence);
    let left = match decision.map_err(|source| Error::Refused { id: id.clone(), source })? {
        Unpublish::Nothing => return Ok(()),
        Unpublish::Detach(left) => {
            // Without a fence every host may connect as long as the volume is there.
            if fence == Fence::Acl {
                gone_or(array.admit(&id, &admitted(fence, &left)).await)?;
            }
            left
        }
        Unpublish::FenceAndDetach(left) => {
            tracing::warn!(volume = %id, "a node gave no answer, and is shut out by the array");
            gone_or(array.fence(&id, &admitted(fence, &left)).await)?;
            left
        }
    };
    store.replace(&id, revision, left).await?;
    Ok(())
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
