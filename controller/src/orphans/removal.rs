//! The removal of one orphan. A report is old by the time that it is acted on: others were removed before this one, and each
//! takes its time. So all that can have changed since is asked once more, while the volume's lock is held.

use rds_csi_api::{Failure, Kind, VolumeId};

use super::{ClaimSource, LISTING};
use crate::array::{self, Array, Export, Owner};
use crate::attachments::store::Store;
use crate::backends::Backend;
use crate::cluster::claims::{self, Claimed};
use crate::delete;
use crate::node_agents::Witness;

/// Why it is still there.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The array did not say how it is.
    #[error(transparent)]
    Array(#[from] array::Error),
    /// It is not what was reported.
    #[error("volume {0} does not carry this cluster's id any more")]
    Foreign(VolumeId),
    /// Somebody may be connected.
    #[error("volume {0} can be connected to since it was reported")]
    Exported(VolumeId),
    /// Nobody knows who claims it now.
    #[error("whether volume {id} is still claimed by nobody is not known")]
    Unknown {
        /// The volume.
        id: VolumeId,
        /// Why not.
        #[source]
        source: claims::Error,
    },
    /// Somebody claims it.
    #[error("volume {0} is claimed since it was reported")]
    Claimed(VolumeId),
    /// It was not removed.
    #[error(transparent)]
    Delete(#[from] delete::Error),
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Array(error) => error.kind(),
            Self::Foreign(_) => Kind::Refused,
            Self::Exported(_) | Self::Claimed(_) => Kind::InUse,
            Self::Unknown { .. } => Kind::Unreachable,
            Self::Delete(error) => error.kind(),
        }
    }
}

/// Removes the volume and its data, if it still is nobody's. Whoever calls holds its lock.
pub(super) async fn remove(
    on: &Backend<impl Array>,
    store: &impl Store,
    nodes: &impl Witness,
    claims: &impl ClaimSource,
    id: VolumeId,
) -> Result<(), Error> {
    let volume = on.array.volume(&id).await?;
    if volume.owner != Owner::ThisCluster {
        return Err(Error::Foreign(id));
    }
    if volume.export != Export::Off {
        return Err(Error::Exported(id));
    }
    // Last, since nothing that Kubernetes does waits for the lock.
    let claims = match claims.claims(LISTING).await {
        Ok(claims) => claims,
        Err(source) => return Err(Error::Unknown { id, source }),
    };
    if claims.volume(&id, on.name.as_ref()) != Claimed::No {
        return Err(Error::Claimed(id));
    }
    Ok(delete::delete(&on.array, store, nodes, on.fence, id).await?)
}
