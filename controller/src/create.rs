//! CreateVolume: an exact size out of a range, one command to the array, and the context that stays with the volume.
//!
//! The id follows from the name, so a repeat finds the volume of the first call, whatever became of its answer.

use rds_csi_api::{Bytes, Capability, Failure, Kind, ReconnectPolicy, VolumeContext, VolumeId};

use crate::array::{self, Array, Content, Export, Source, Volume, Wanted};
use crate::attachments::Fence;
use crate::backends::Backend;
use crate::backends::topology::Segments;
use crate::parameters::Parameters;
use crate::size::{self, CapacityRange, smallest};

/// A volume as the provisioner wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Its id, made from its name.
    pub id: VolumeId,
    /// How large.
    pub range: CapacityRange,
    /// What for.
    pub capabilities: Vec<Capability>,
    /// The StorageClass, and what a VolumeAttributesClass changes of it.
    pub parameters: Parameters,
    /// What it is to hold, if not nothing.
    pub source: Option<Source>,
}

/// A volume that was made, or found as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// As the array has it.
    pub volume: Volume,
    /// What its nodes need to know for ever.
    pub context: VolumeContext,
    /// Those that reach it.
    pub topology: Segments,
}

/// Why there is no volume.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It can have no such size.
    #[error(transparent)]
    Size(#[from] size::Error),
    /// The array did not make it.
    #[error(transparent)]
    Array(#[from] array::Error),
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Size(error) => error.kind(),
            Self::Array(error) => error.kind(),
        }
    }
}

/// Makes the volume.
pub async fn create(backend: &Backend<impl Array>, request: Request) -> Result<Created, Error> {
    let Request { id, range, capabilities, parameters, source } = request;
    let Parameters { portal, volume_path, reconnect, migration_timeout, together, label, digest } =
        parameters;
    let wanted = Wanted {
        id,
        content: content(source, range, smallest(&capabilities))?,
        port: portal.port,
        // Behind a fence nobody may connect before the volume is published.
        export: match backend.fence {
            Fence::Acl | Fence::Epoch => Export::Off,
            Fence::None => Export::AnyHost,
        },
        reconnect: Some(reconnect).filter(|policy| *policy != ReconnectPolicy::STANDARD),
        parameters: digest,
        label,
    };
    let volume = backend.array.create(&wanted).await?;
    let context = VolumeContext {
        array_address: Some(backend.address.clone()),
        portal,
        nqn: volume.nqn.clone(),
        volume_path,
        reconnect,
        migration_timeout,
        together,
    };
    Ok(Created { volume, context, topology: backend.topology.clone() })
}

/// A copy is as large as what it is a copy of, or larger. How large that is only the array knows.
fn content(source: Option<Source>, range: CapacityRange, smallest: Bytes) -> Result<Content, size::Error> {
    Ok(match source {
        None => Content::Empty(range.size(smallest)?),
        Some(source) => Content::CopyOf { source, least: range.least(smallest)?, most: range.limit },
    })
}

#[cfg(test)]
mod tests;
