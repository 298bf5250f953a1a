//! Who holds a volume, as it is told to Kubernetes, which attaches again what is missing: the whole truth, or an error.

use rds_csi_api::{Failure, HostNqn, Kind, NodeName, VolumeId};

use crate::array::{Export, Volume};
use crate::attachments::{Fence, Record};
use crate::backends::topology::Segments;
use crate::condition::Condition;

/// The array lets hosts in that no record names: the record was lost, or never was, so it is not the whole truth.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unrecorded {
    /// It names them.
    #[error(
        "who holds volume {id} is not known: the array lets {} in, and no record names them; attach it again to the node that \
         has it, or detach it there",
        .strangers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
    )]
    Strangers {
        /// The volume.
        id: VolumeId,
        /// Whom no record names.
        strangers: Vec<HostNqn>,
    },
    /// It lets every host in, which this driver does not do where there is a fence.
    #[error(
        "who holds volume {0} is not known: the array lets every host in, and there is no record; once no node uses it, \
         switch its export off on the array"
    )]
    Open(VolumeId),
}

impl Failure for Unrecorded {
    fn kind(&self) -> Kind {
        Kind::Unreachable
    }
}

/// A volume as it is told: in a listing, or alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// As the array has it.
    pub volume: Volume,
    /// The nodes that hold it.
    pub holders: Vec<NodeName>,
    /// How it is by the array's word, and alone by its holders', too: a listing would wait for each node that is down.
    pub condition: Condition,
    /// The nodes that reach it.
    pub topology: Segments,
}

/// The volume's record from before the array was asked, and from after it.
#[derive(Debug, Clone, Copy)]
pub struct Around<'a> {
    /// Names whom a detach has taken off since, who may have been let in when the array was asked.
    pub before: &'a Record,
    /// Names whom an attach has let in since, and is what holds now.
    pub after: &'a Record,
}

/// The nodes that hold the volume by its record, if the array does not know of others. A node is in the record before the
/// array lets it in, and until the array does not any more.
pub fn holders(volume: &Volume, record: Around<'_>, fence: Fence) -> Result<Vec<NodeName>, Unrecorded> {
    let Around { before, after } = record;
    match (fence, &volume.export) {
        (Fence::Acl | Fence::Epoch, Export::Hosts(admitted)) => {
            let recorded: Vec<_> = before.hosts().chain(after.hosts()).collect();
            let strangers: Vec<_> =
                admitted.iter().filter(|host| !recorded.contains(host)).cloned().collect();
            if !strangers.is_empty() {
                return Err(Unrecorded::Strangers { id: volume.id.clone(), strangers });
            }
        }
        (Fence::Acl | Fence::Epoch, Export::AnyHost) if before.is_empty() && after.is_empty() => {
            return Err(Unrecorded::Open(volume.id.clone()));
        }
        // Without a fence every volume is open from the beginning, and that says nothing.
        (Fence::None, _) | (Fence::Acl | Fence::Epoch, Export::AnyHost | Export::Off) => {}
    }
    Ok(after.nodes().cloned().collect())
}
