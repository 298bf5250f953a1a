//! Who holds a volume, as it is told to Kubernetes, which attaches again what is missing: the whole truth, or an error.

use rds_csi_api::{Failure, HostNqn, Kind, NodeName, VolumeId};

use crate::array::{Export, Volume};
use crate::attachments::{Fence, Record};

/// The array lets hosts in that no record names: the record was lost, so it is not the whole truth.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "who holds volume {id} is not known: the array lets {} in, and no record names them; attach it again to the node that \
     has it, or detach it there",
    .strangers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
)]
pub struct Unrecorded {
    /// The volume.
    pub id: VolumeId,
    /// Whom no record names.
    pub strangers: Vec<HostNqn>,
}

impl Failure for Unrecorded {
    fn kind(&self) -> Kind {
        Kind::Unreachable
    }
}

/// The nodes that hold the volume by its record, if the array does not know of others.
pub fn holders(volume: &Volume, record: &Record, fence: Fence) -> Result<Vec<NodeName>, Unrecorded> {
    if let (Fence::Acl, Export::Hosts(admitted)) = (fence, &volume.export) {
        let recorded: Vec<_> = record.hosts().collect();
        let strangers: Vec<_> = admitted.iter().filter(|host| !recorded.contains(host)).cloned().collect();
        if !strangers.is_empty() {
            return Err(Unrecorded { id: volume.id.clone(), strangers });
        }
    }
    Ok(record.nodes().cloned().collect())
}
