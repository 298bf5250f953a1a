//! Requests from the wire, checked and in the words of the verbs.

use std::collections::HashMap;

use rds_csi_api::bytes::Negative;
use rds_csi_api::text::Malformed;
use rds_csi_api::{
    Access, Bytes, Capability, Failure, Kind, ManagedPrefix, Nqn, Portal, VolumeContext, VolumeId,
    capability, context, csi,
};

use crate::array::Pool;
use crate::attachments::{Claim, Rights, Shape};
use crate::create::{self, CapacityRange};
use crate::parameters::{self, Parameters};
use crate::publish;
use crate::unpublish::From;

/// What is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    #[error("the request is malformed")]
    Malformed(#[from] Malformed),
    #[error(
        "volume {id} is not the driver's: its NQN {nqn} does not begin with {prefix}; if it is a volume of this cluster, \
         correct --managed-nqn-prefix, else remove the PersistentVolume that names it"
    )]
    NotManaged { id: VolumeId, nqn: Nqn, prefix: ManagedPrefix },
    #[error("{field} is malformed")]
    Size { field: &'static str, source: Negative },
    #[error("volume_capabilities is empty: say what the volume is for")]
    NoCapabilities,
    #[error("the volume cannot be used so")]
    Capability(#[from] capability::Error),
    #[error(transparent)]
    Parameters(#[from] parameters::Error),
    #[error(transparent)]
    Context(#[from] context::Error),
    #[error("{field} is not supported: {fix}")]
    Unsupported { field: &'static str, fix: &'static str },
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Malformed(_)
            | Self::NotManaged { .. }
            | Self::Size { .. }
            | Self::NoCapabilities
            | Self::Capability(_)
            | Self::Context(_)
            | Self::Unsupported { .. } => Kind::Invalid,
            Self::Parameters(error) => error.kind(),
        }
    }
}

pub(super) fn create(
    request: &csi::CreateVolumeRequest,
    portal: Portal,
    pool: &Pool,
    prefix: &ManagedPrefix,
) -> Result<create::Request, Error> {
    if request.volume_content_source.is_some() {
        let fix = "snapshots and clones are not served; create an empty volume and copy the data";
        return Err(Error::Unsupported { field: "volume_content_source", fix });
    }
    if !request.mutable_parameters.is_empty() {
        let fix = "volumes are not modified; leave the VolumeAttributesClass out";
        return Err(Error::Unsupported { field: "mutable_parameters", fix });
    }
    let name = request.name.parse()?;
    managed(VolumeId::for_name(None, &name), prefix)?;
    Ok(create::Request {
        name,
        range: range(request.capacity_range)?,
        capabilities: capabilities(&request.volume_capabilities)?,
        parameters: Parameters::parse(&request.parameters, portal, pool)?,
    })
}

/// 0 is 'not given' (CSI 1.13, `CapacityRange`).
fn range(range: Option<csi::CapacityRange>) -> Result<CapacityRange, Error> {
    let bytes = |field, bytes: i64| match bytes {
        0 => Ok(None),
        bytes => Bytes::try_from(bytes).map(Some).map_err(|source| Error::Size { field, source }),
    };
    let csi::CapacityRange { required_bytes, limit_bytes } = range.unwrap_or_default();
    Ok(CapacityRange {
        required: bytes("capacity_range.required_bytes", required_bytes)?,
        limit: bytes("capacity_range.limit_bytes", limit_bytes)?,
    })
}

fn capabilities(capabilities: &[csi::VolumeCapability]) -> Result<Vec<Capability>, Error> {
    if capabilities.is_empty() {
        return Err(Error::NoCapabilities);
    }
    Ok(capabilities.iter().map(|capability| Capability::parse(Some(capability))).collect::<Result<_, _>>()?)
}

pub(super) fn publish(
    request: &csi::ControllerPublishVolumeRequest,
    portal: Portal,
    prefix: &ManagedPrefix,
) -> Result<publish::Request, Error> {
    let id = volume_id(&request.volume_id, prefix)?;
    let node = request.node_id.parse()?;
    let Capability { access, mode } = Capability::parse(request.volume_capability.as_ref())?;
    let claim = Claim {
        node,
        shape: match access {
            Access::Block => Shape::Block,
            Access::Filesystem { .. } => Shape::Filesystem,
        },
        mode,
        rights: if request.readonly { Rights::Read } else { Rights::Write },
    };
    let context = context(&request.volume_context)?;
    Ok(publish::Request { id, claim, portal: context.map_or(portal, |context| context.portal) })
}

/// A PV made by hand may have none; then the array itself says where it is.
fn context(map: &HashMap<String, String>) -> Result<Option<VolumeContext>, Error> {
    if map.is_empty() { Ok(None) } else { Ok(Some(VolumeContext::parse(map)?)) }
}

pub(super) fn unpublish(
    request: &csi::ControllerUnpublishVolumeRequest,
    prefix: &ManagedPrefix,
) -> Result<(VolumeId, From), Error> {
    let id = volume_id(&request.volume_id, prefix)?;
    let from = match request.node_id.as_str() {
        "" => From::Everywhere,
        node => From::Node(node.parse()?),
    };
    Ok((id, from))
}

/// Whether a volume could be used so, and could have been created so.
pub(super) fn usable(
    request: &csi::ValidateVolumeCapabilitiesRequest,
    portal: Portal,
    pool: &Pool,
) -> Result<(), Error> {
    capabilities(&request.volume_capabilities)?;
    context(&request.volume_context)?;
    Parameters::parse(&request.parameters, portal, pool)?;
    Ok(())
}

pub(super) fn volume_id(text: &str, prefix: &ManagedPrefix) -> Result<VolumeId, Error> {
    managed(text.parse()?, prefix)
}

/// A node's own system may run from a volume of the same array, and nothing on the array tells it from one of ours.
fn managed(id: VolumeId, prefix: &ManagedPrefix) -> Result<VolumeId, Error> {
    let nqn = Nqn::of_volume(&id);
    if prefix.covers(&nqn) { Ok(id) } else { Err(Error::NotManaged { id, nqn, prefix: prefix.clone() }) }
}

#[cfg(test)]
mod tests;
