//! ListVolumes: every volume of every array, who holds it, and how it is. A part of the truth is none: one array that does
//! not answer is an error for the whole listing, since whoever reads it takes what is missing for gone.

use std::sync::Arc;

use futures_util::future::join_all;
use rds_csi_api::{BackendName, Failure, Kind, ManagedPrefix, NodeName, Nqn};

use crate::array::{self, Array, Volume};
use crate::attachments::Record;
use crate::attachments::store::{self, Store};
use crate::backends::topology::Segments;
use crate::backends::{Backend, Backends};
use crate::condition::{self, Condition};
use crate::doctor::scratch;
use crate::holders::{Around, Unrecorded, holders};
use crate::page::{Asked, Page};

/// A volume in the listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// As the array has it.
    pub volume: Volume,
    /// The nodes that hold it.
    pub holders: Vec<NodeName>,
    /// How it is on the array. Nodes are not asked: a listing would wait for each that is down.
    pub condition: Condition,
    /// The nodes that reach it.
    pub topology: Segments,
}

/// Why there is no listing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nobody knows who holds what.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The record is not the whole truth.
    #[error(transparent)]
    Unrecorded(#[from] Unrecorded),
    /// An array did not say what it has.
    #[error("what is on array {title} is not known, and without it there is no listing")]
    Array {
        /// The array.
        title: BackendName,
        /// Why not.
        #[source]
        source: array::Error,
    },
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Unrecorded(error) => error.kind(),
            Self::Array { source, .. } => source.kind(),
        }
    }
}

/// That part of the listing.
pub async fn list_volumes(
    backends: &Backends<impl Array>,
    store: &impl Store,
    prefix: &ManagedPrefix,
    asked: &Asked,
) -> Result<Page<Listed>, Error> {
    let before = store.list().await?;
    let all = inventories(backends.iter().cloned()).await?;
    let after = store.list().await?;
    let none = Record::default();
    let mut listed = Vec::new();
    for (backend, inventory) in all {
        // A node's own system may run from the same array, and nothing else tells it from a volume that has no owner.
        let ours = |volume: &Volume| {
            prefix.covers(&Nqn::of_volume(&volume.id)) && !scratch::is_scratch(volume.id.slot())
        };
        for volume in inventory.volumes.into_iter().filter(ours) {
            let before = before.get(&volume.id).unwrap_or(&none);
            let after = after.get(&volume.id).unwrap_or(&none);
            let holders = holders(&volume, Around { before, after }, backend.fence)?;
            let condition = condition::judge(&volume.soundness, &[]);
            let topology = backend.topology.clone();
            listed.push(Listed { volume, holders, condition, topology });
        }
    }
    Ok(asked.of(listed, |listed| listed.volume.id.as_str()))
}

/// What each of these arrays has; all are asked at once.
pub(crate) async fn inventories<A: Array>(
    backends: impl Iterator<Item = Arc<Backend<A>>>,
) -> Result<Vec<(Arc<Backend<A>>, array::Inventory)>, Error> {
    let asked = backends.map(async |backend| match backend.array.inventory().await {
        Ok(inventory) => Ok((backend, inventory)),
        Err(source) => Err(Error::Array { title: backend.title.clone(), source }),
    });
    join_all(asked).await.into_iter().collect()
}

#[cfg(test)]
mod tests;
