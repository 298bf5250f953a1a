//! Requests about volumes themselves: made, grown, modified, judged, and the room for them.

use std::collections::HashMap;

use rds_csi_api::csi::volume_content_source::Type;
use rds_csi_api::{Bytes, Capability, ManagedPrefix, VolumeContext, VolumeId, csi};

use super::{Error, On, capabilities, id};
use crate::array::Source;
use crate::backends::topology::Accessibility;
use crate::backends::{Backend, Backends, Beside, Misplaced};
use crate::create::Request;
use crate::modify;
use crate::parameters::Parameters;
use crate::size::CapacityRange;
use crate::validate::Known;

pub(in crate::csi) fn create<A>(
    request: &csi::CreateVolumeRequest,
    backends: &Backends<A>,
    prefix: &ManagedPrefix,
) -> Result<On<A, Request>, Error> {
    let name = request.name.parse()?;
    if request.volume_capabilities.is_empty() {
        return Err(Error::NoCapabilities);
    }
    let source = request.volume_content_source.as_ref();
    let source = source.map(|source| content(source, backends, prefix)).transpose()?;
    let there = source.as_ref().map(|source| match source {
        Source::Snapshot(id) => id.backend(),
        Source::Volume(id) => id.backend(),
    });
    let beside = there.as_ref().map_or(Beside::Nothing, |there| Beside::Source(there.as_ref()));
    let from = Accessibility::from_wire(request.accessibility_requirements.as_ref());
    let backend = backends.choose(Parameters::backend(&request.parameters)?.as_ref(), beside, &from)?;
    let id = VolumeId::for_name(backend.name.as_ref(), &name);
    let request = Request {
        id: id::managed(id, prefix).map_err(misconfigured)?,
        range: range(request.capacity_range)?,
        capabilities: capabilities(&request.volume_capabilities)?,
        parameters: parameters(&request.parameters, &request.mutable_parameters, &backend)?,
        source,
    };
    Ok((backend, request))
}

/// No volume that is to be made is missing; only the prefix can be wrong.
fn misconfigured(error: Error) -> Error {
    match error {
        Error::NotManaged { id, nqn, prefix } => Error::NeverManaged { id, nqn, prefix },
        error => error,
    }
}

fn content<A>(
    source: &csi::VolumeContentSource,
    backends: &Backends<A>,
    prefix: &ManagedPrefix,
) -> Result<Source, Error> {
    match source.r#type.as_ref().ok_or(Error::NoSource)? {
        Type::Snapshot(snapshot) => Ok(Source::Snapshot(id::snapshot(&snapshot.snapshot_id, backends)?.1)),
        Type::Volume(volume) => Ok(Source::Volume(id::volume(&volume.volume_id, backends, prefix)?.1)),
    }
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

fn parameters<A>(
    given: &HashMap<String, String>,
    changes: &HashMap<String, String>,
    backend: &Backend<A>,
) -> Result<Parameters, Error> {
    Ok(Parameters::parse(given, changes, backend.portal, &backend.pool)?)
}

pub(in crate::csi) fn expand<A>(
    request: &csi::ControllerExpandVolumeRequest,
    backends: &Backends<A>,
    prefix: &ManagedPrefix,
) -> Result<On<A, (VolumeId, CapacityRange)>, Error> {
    let (backend, id) = id::volume(&request.volume_id, backends, prefix)?;
    let range = range(Some(request.capacity_range.ok_or(Error::NoRange)?))?;
    if request.volume_capability.is_some() {
        Capability::parse(request.volume_capability.as_ref())?;
    }
    Ok((backend, (id, range)))
}

pub(in crate::csi) fn modify<A>(
    request: csi::ControllerModifyVolumeRequest,
    backends: &Backends<A>,
    prefix: &ManagedPrefix,
) -> Result<On<A, modify::Request>, Error> {
    let (backend, id) = id::volume(&request.volume_id, backends, prefix)?;
    Ok((backend, modify::Request { id, changes: request.mutable_parameters }))
}

/// A volume, and what is known of it to whoever asks whether it is so. What cannot be is no error but the answer (CSI 1.13).
#[derive(Debug)]
pub(in crate::csi) struct Validation {
    pub(in crate::csi) id: VolumeId,
    pub(in crate::csi) known: Result<Known, Error>,
}

pub(in crate::csi) fn validate<A>(
    request: &csi::ValidateVolumeCapabilitiesRequest,
    backends: &Backends<A>,
    prefix: &ManagedPrefix,
) -> Result<On<A, Validation>, Error> {
    if request.volume_capabilities.is_empty() {
        return Err(Error::NoCapabilities);
    }
    let (backend, id) = id::volume(&request.volume_id, backends, prefix)?;
    let known = known(request, &backend);
    Ok((backend, Validation { id, known }))
}

fn known<A>(request: &csi::ValidateVolumeCapabilitiesRequest, backend: &Backend<A>) -> Result<Known, Error> {
    let csi::ValidateVolumeCapabilitiesRequest { parameters: given, mutable_parameters, .. } = request;
    capabilities(&request.volume_capabilities)?;
    let parameters = parameters(given, mutable_parameters, backend)?;
    if let Some(named) = Parameters::backend(given)?.filter(|named| *named != backend.title) {
        return Err(Error::OnAnother { named, is_on: backend.title.clone() });
    }
    Ok(Known {
        context: context(&request.volume_context)?,
        parameters: Some(parameters).filter(|_| !given.is_empty()),
        changes: mutable_parameters.clone(),
    })
}

/// A PV made by hand may have none; then the array itself says where it is.
pub(super) fn context(map: &HashMap<String, String>) -> Result<Option<VolumeContext>, Error> {
    if map.is_empty() { Ok(None) } else { Ok(Some(VolumeContext::parse(map)?)) }
}

/// Whose room is asked for, and for what; nobody's, if no array is reached from there.
pub(in crate::csi) fn capacity<A>(
    request: &csi::GetCapacityRequest,
    backends: &Backends<A>,
) -> Result<Option<On<A, Vec<Capability>>>, Error> {
    let capabilities = capabilities(&request.volume_capabilities)?;
    let from = Accessibility::only(request.accessible_topology.as_ref());
    let named = Parameters::backend(&request.parameters)?;
    let backend = match backends.choose(named.as_ref(), Beside::Nothing, &from) {
        Ok(backend) => backend,
        Err(Misplaced::OutOfReach { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    parameters(&request.parameters, &[].into(), &backend)?;
    Ok(Some((backend, capabilities)))
}
