//! ListVolumes: every volume of every array, who holds it, and how it is. A part of the truth is none: one array that does
//! not answer is an error for the whole listing, since whoever reads it takes what is missing for gone.

use std::sync::Arc;

use futures_util::future::join_all;
use rds_csi_api::{BackendName, Failure, Kind, ManagedPrefix, Nqn};

use crate::array::{self, Array, Volume};
use crate::attachments::Record;
use crate::attachments::store::{self, Store};
use crate::backends::{Backend, Backends};
use crate::condition::{self, Condition};
use crate::doctor::scratch;
use crate::holders::{Around, Told, Unrecorded, holders};
use crate::page::{Asked, Page};

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
) -> Result<Page<Told>, Error> {
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
            listed.push(Told { volume, holders, condition, topology });
        }
    }
    Ok(asked.of(listed, |listed| listed.volume.id.as_str()))
}

/// That part of the listing of those that somebody should look at.
pub async fn list_unwell(
    backends: &Backends<impl Array>,
    store: &impl Store,
    prefix: &ManagedPrefix,
    asked: &Asked,
) -> Result<Page<Told>, Error> {
    let mut all = list_volumes(backends, store, prefix, &Asked::default()).await?.entries;
    all.retain(|told| matches!(told.condition, Condition::Abnormal(_)));
    Ok(asked.of(all, |told| told.volume.id.as_str()))
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
