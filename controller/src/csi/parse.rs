//! Requests from the wire, checked and in the words of the verbs.

use std::collections::HashMap;

use rds_csi_api::bytes::Negative;
use rds_csi_api::text::Malformed;
use rds_csi_api::{
    Access, Bytes, Capability, Failure, Kind, Portal, VolumeContext, VolumeId, capability, context, csi,
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
) -> Result<create::Request, Error> {
    if request.volume_content_source.is_some() {
        let fix = "snapshots and clones are not served; create an empty volume and copy the data";
        return Err(Error::Unsupported { field: "volume_content_source", fix });
    }
    if !request.mutable_parameters.is_empty() {
        let fix = "volumes are not modified; leave the VolumeAttributesClass out";
        return Err(Error::Unsupported { field: "mutable_parameters", fix });
    }
    Ok(create::Request {
        name: request.name.parse()?,
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
) -> Result<publish::Request, Error> {
    let id = request.volume_id.parse()?;
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

pub(super) fn unpublish(request: &csi::ControllerUnpublishVolumeRequest) -> Result<(VolumeId, From), Error> {
    let id = request.volume_id.parse()?;
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

pub(super) fn volume_id(text: &str) -> Result<VolumeId, Error> {
    Ok(text.parse()?)
}

#[cfg(test)]
mod tests;
