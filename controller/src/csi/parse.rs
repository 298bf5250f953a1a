//! Requests from the wire, checked and in the words of the verbs.

use std::collections::HashMap;
use std::sync::Arc;

use rds_csi_api::bytes::Negative;
use rds_csi_api::text::Malformed;
use rds_csi_api::{
    Access, Bytes, Capability, Failure, Kind, ManagedPrefix, Nqn, VolumeContext, VolumeId, capability,
    context, csi,
};

use crate::attachments::{Claim, Rights, Shape};
use crate::backends::{Backend, Backends, Unknown};
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
    Backend(#[from] Unknown),
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
            Self::Backend(error) => error.kind(),
        }
    }
}

/// A request, and the array that it is about.
type On<A, T> = (Arc<Backend<A>>, T);

pub(super) fn create<A>(
    request: &csi::CreateVolumeRequest,
    backends: &Backends<A>,
    prefix: &ManagedPrefix,
) -> Result<On<A, create::Request>, Error> {
    if request.volume_content_source.is_some() {
        let fix = "snapshots and clones are not served; create an empty volume and copy the data";
        return Err(Error::Unsupported { field: "volume_content_source", fix });
    }
    if !request.mutable_parameters.is_empty() {
        let fix = "volumes are not modified; leave the VolumeAttributesClass out";
        return Err(Error::Unsupported { field: "mutable_parameters", fix });
    }
    let backend = backends.of(None)?;
    let id = VolumeId::for_name(backend.name.as_ref(), &request.name.parse()?);
    let request = create::Request {
        id: managed(id, prefix)?,
        range: range(request.capacity_range)?,
        capabilities: capabilities(&request.volume_capabilities)?,
        parameters: Parameters::parse(&request.parameters, backend.portal, &backend.pool)?,
    };
    Ok((backend, request))
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

pub(super) fn publish<A>(
    request: &csi::ControllerPublishVolumeRequest,
    backends: &Backends<A>,
    prefix: &ManagedPrefix,
) -> Result<On<A, publish::Request>, Error> {
    let (backend, id) = volume_id(&request.volume_id, backends, prefix)?;
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
    let portal = context.map_or(backend.portal, |context| context.portal);
    Ok((backend, publish::Request { id, claim, portal }))
}

/// A PV made by hand may have none; then the array itself says where it is.
fn context(map: &HashMap<String, String>) -> Result<Option<VolumeContext>, Error> {
    if map.is_empty() { Ok(None) } else { Ok(Some(VolumeContext::parse(map)?)) }
}

pub(super) fn unpublish<A>(
    request: &csi::ControllerUnpublishVolumeRequest,
    backends: &Backends<A>,
    prefix: &ManagedPrefix,
) -> Result<On<A, (VolumeId, From)>, Error> {
    let (backend, id) = volume_id(&request.volume_id, backends, prefix)?;
    let from = match request.node_id.as_str() {
        "" => From::Everywhere,
        node => From::Node(node.parse()?),
    };
    Ok((backend, (id, from)))
}

/// Whether a volume could be used so, and could have been created so.
pub(super) fn usable<A>(
    request: &csi::ValidateVolumeCapabilitiesRequest,
    backend: &Backend<A>,
) -> Result<(), Error> {
    capabilities(&request.volume_capabilities)?;
    context(&request.volume_context)?;
    Parameters::parse(&request.parameters, backend.portal, &backend.pool)?;
    Ok(())
}

pub(super) fn volume_id<A>(
    text: &str,
    backends: &Backends<A>,
    prefix: &ManagedPrefix,
) -> Result<On<A, VolumeId>, Error> {
    let id = managed(text.parse()?, prefix)?;
    Ok((backends.of(id.backend().as_ref())?, id))
}

/// A node's own system may run from a volume of the same array, and nothing on the array tells it from one of ours.
fn managed(id: VolumeId, prefix: &ManagedPrefix) -> Result<VolumeId, Error> {
    let nqn = Nqn::of_volume(&id);
    if prefix.covers(&nqn) { Ok(id) } else { Err(Error::NotManaged { id, nqn, prefix: prefix.clone() }) }
}

#[cfg(test)]
mod tests;
