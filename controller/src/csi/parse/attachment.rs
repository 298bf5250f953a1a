//! Requests about who holds a volume.

use rds_csi_api::{Access, Capability, ManagedPrefix, VolumeId, csi};

use super::{Error, On, id, volume};
use crate::attachments::{Claim, Rights, Second, Shape};
use crate::backends::Backends;
use crate::publish;
use crate::unpublish::From;

pub(in crate::csi) fn publish<A>(
    request: &csi::ControllerPublishVolumeRequest,
    backends: &Backends<A>,
    prefix: &ManagedPrefix,
) -> Result<On<A, publish::Request>, Error> {
    if request.node_id.is_empty() {
        return Err(Error::Empty("node_id"));
    }
    let Capability { access, mode } = Capability::parse(request.volume_capability.as_ref())?;
    let (backend, id) = id::volume(&request.volume_id, backends, prefix)?;
    let no_such_node = |source| Error::NoSuchId { what: "the node", source };
    let context = volume::context(&request.volume_context)?;
    let second = context.as_ref().map_or_else(Second::default, |context| Second {
        together: context.together,
        timeout: context.migration_timeout,
    });
    let claim = Claim {
        node: request.node_id.parse().map_err(no_such_node)?,
        shape: match access {
            Access::Block => Shape::Block,
            Access::Filesystem { .. } => Shape::Filesystem,
        },
        mode,
        rights: if request.readonly { Rights::Read } else { Rights::Write },
        second,
    };
    let portal = context.as_ref().map_or(backend.portal, |context| context.portal);
    let reconnect = context.map(|context| context.reconnect);
    Ok((backend, publish::Request { id, claim, portal, reconnect }))
}

pub(in crate::csi) fn unpublish<A>(
    request: &csi::ControllerUnpublishVolumeRequest,
    backends: &Backends<A>,
    prefix: &ManagedPrefix,
) -> Result<On<A, (VolumeId, From)>, Error> {
    let (backend, id) = id::volume(&request.volume_id, backends, prefix)?;
    let from = match request.node_id.as_str() {
        "" => From::Everywhere,
        node => From::Node(node.parse()?),
    };
    Ok((backend, (id, from)))
}
