//! CreateVolume: an exact size out of a range, one command to the array, and the context that stays with the volume.
//!
//! The id follows from the name, so a repeat finds the volume of the first call, whatever became of its answer.

use rds_csi_api::{
    Access, Bytes, Capability, Failure, FsType, Kind, ReconnectPolicy, VolumeContext, VolumeId,
};

use crate::array::{self, Array, Content, Digest, Export, Volume, Wanted};
use crate::attachments::Fence;
use crate::backends::Backend;
use crate::parameters::Parameters;

/// What is made if nothing is asked for.
const STANDARD: Bytes = Bytes::gib(1);

/// The block that Linux's NVMe target exports a file in: a rest beyond the last whole one would be lost to the node.
const BLOCK: u64 = 4096;

/// Below it not even an empty ext4 is of use.
const SMALLEST: Bytes = Bytes::mib(16);

/// mkfs.xfs makes nothing smaller (xfsprogs 5.19).
const SMALLEST_XFS: Bytes = Bytes::mib(300);

/// Beyond any pool. What asks for more has mistaken a unit.
const LARGEST: Bytes = Bytes::gib(256 << 10);

/// A volume as the provisioner wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Its id, made from its name.
    pub id: VolumeId,
    /// How large.
    pub range: CapacityRange,
    /// What for.
    pub capabilities: Vec<Capability>,
    /// The StorageClass.
    pub parameters: Parameters,
}

/// At least, and at most, so large.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CapacityRange {
    /// At least.
    pub required: Option<Bytes>,
    /// At most.
    pub limit: Option<Bytes>,
}

/// A volume that was made, or found as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// As the array has it.
    pub volume: Volume,
    /// What its nodes need to know for ever.
    pub context: VolumeContext,
}

/// Why there is no volume.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The range contradicts itself.
    #[error(
        "capacity_range asks for at least {required} and at most {limit}: raise limit_bytes or lower required_bytes"
    )]
    EmptyRange {
        /// At least.
        required: Bytes,
        /// At most.
        limit: Bytes,
    },
    /// No size that can be made lies in the range.
    #[error(
        "capacity_range.limit_bytes of {limit} cannot be kept: the smallest volume of this kind with at least \
         {required} has {size}, since sizes are whole blocks of {BLOCK} bytes; raise the limit to that"
    )]
    LimitTooLow {
        /// At least.
        required: Bytes,
        /// At most.
        limit: Bytes,
        /// What could be made.
        size: Bytes,
    },
    /// More than there can be.
    #[error("capacity_range.required_bytes of {0} is more than the largest volume, {LARGEST}: ask for less")]
    TooLarge(Bytes),
    /// The array did not make it.
    #[error(transparent)]
    Array(#[from] array::Error),
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::EmptyRange { .. } => Kind::Invalid,
            Self::LimitTooLow { .. } | Self::TooLarge(_) => Kind::OutOfRange,
            Self::Array(error) => error.kind(),
        }
    }
}

/// Makes the volume.
pub async fn create(backend: &Backend<impl Array>, request: Request) -> Result<Created, Error> {
    let Request { id, range, capabilities, parameters } = request;
    let Parameters { portal, volume_path, reconnect, migration_timeout, label } = parameters;
    let wanted = Wanted {
        id,
        content: Content::Empty(size(range, smallest(&capabilities))?),
        port: portal.port,
        // Behind a fence nobody may connect before the volume is published.
        export: match backend.fence {
            Fence::Acl => Export::Off,
            Fence::None => Export::AnyHost,
        },
        reconnect: Some(reconnect).filter(|policy| *policy != ReconnectPolicy::STANDARD),
        parameters: Digest::of([]),
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
    };
    Ok(Created { volume, context })
}

fn smallest(capabilities: &[Capability]) -> Bytes {
    let xfs =
        |capability: &Capability| matches!(capability.access, Access::Filesystem { fs: FsType::Xfs, .. });
    if capabilities.iter().any(xfs) { SMALLEST_XFS } else { SMALLEST }
}

/// The smallest size in the range that a node sees to its last byte.
fn size(range: CapacityRange, smallest: Bytes) -> Result<Bytes, Error> {
    let CapacityRange { required, limit } = range;
    if let (Some(required), Some(limit)) = (required, limit)
        && required > limit
    {
        return Err(Error::EmptyRange { required, limit });
    }
    // A limit without a requirement asks for as much of the standard size as it allows.
    let asked = required.unwrap_or_else(|| limit.map_or(STANDARD, |limit| limit.min(STANDARD)));
    if asked > LARGEST {
        return Err(Error::TooLarge(asked));
    }
    let blocks = match required {
        Some(_) => asked.get().div_ceil(BLOCK),
        None => asked.get() / BLOCK,
    };
    let size = Bytes::new(blocks * BLOCK).max(smallest);
    match limit {
        Some(limit) if size > limit => {
            Err(Error::LimitTooLow { required: required.unwrap_or(smallest), limit, size })
        }
        _ => Ok(size),
    }
}

#[cfg(test)]
mod tests;
