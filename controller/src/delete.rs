//! DeleteVolume: a volume that no node holds is removed; one that is not there is removed already.

use rds_csi_api::{Failure, Kind, VolumeId};

use crate::array::{self, Array};
use crate::attachments::store::{self, Store};

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
