//! Taking back what a failed call did, and nothing that was there before it.
//!
//! kubelet repeats calls freely. A driver that answered a failed repetition by cleaning up everything has disconnected
//! volumes that were in use.

use std::time::Duration;

use rds_csi_api::{Failure, Kind, VolumeId, status};

use super::{Record, Volumes, record};
use crate::host::{self, Holder, Host, KubeletPath, ManagedNqn};

const DISCONNECT_TIME: Duration = Duration::from_secs(30);

/// Something that a call did.
#[derive(Debug)]
pub enum Made {
    /// It wrote a record.
    Record {
        /// Of which volume.
        volume: VolumeId,
        /// What there was before.
        before: Option<Record>,
    },
    /// It connected.
    Connection(ManagedNqn),
    /// It mounted, or bound.
    Mount(KubeletPath),
    /// It made a directory.
    Directory(KubeletPath),
    /// It made a device node.
    Node(KubeletPath),
}

/// Why something is left.
#[derive(Debug, thiserror::Error)]
enum Left {
    #[error("{nqn} is in use: {holder}")]
    InUse { nqn: ManagedNqn, holder: Holder },
    #[error(transparent)]
    Host(#[from] host::Error),
    #[error(transparent)]
    Record(#[from] record::Error),
}

impl Failure for Left {
    fn kind(&self) -> Kind {
        match self {
            Self::InUse { .. } => Kind::InUse,
            Self::Host(error) => error.kind(),
            Self::Record(error) => error.kind(),
        }
    }
}

/// What a failed call leaves of its doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remains {
    /// All is as it was before.
    Nothing,
    /// Something could not be taken back.
    Something,
}

/// Takes it back, the last first, as far as it goes. What is left is in the record, for unstage or the next stage.
pub fn undo<H: Host>(volumes: &Volumes<H>, made: Vec<Made>) -> Remains {
    for made in made.into_iter().rev() {
        if let Err(left) = take_back(volumes, &made) {
            tracing::warn!(
                ?made,
                "what this failed call did is left for the next one: {}",
                status::chain(&left)
            );
            return Remains::Something;
        }
    }
    Remains::Nothing
}

fn take_back<H: Host>(volumes: &Volumes<H>, made: &Made) -> Result<(), Left> {
    let Volumes { host, records, .. } = volumes;
    match made {
        Made::Record { before: Some(record), .. } => records.write(record)?,
        Made::Record { volume, before: None } => records.remove(volume)?,
        Made::Mount(at) => host.unmount(at)?,
        Made::Directory(at) => host.remove_directory(at)?,
        Made::Node(at) => host.remove_node(at)?,
        Made::Connection(nqn) => {
            let attachment = host.attachment(nqn.as_nqn())?;
            let devices: Vec<_> = attachment.device().map(|device| device.number).into_iter().collect();
            if let Some(holder) = host.holders(&devices)?.pop() {
                return Err(Left::InUse { nqn: nqn.clone(), holder });
            }
            host.disconnect(nqn, DISCONNECT_TIME)?;
        }
    }
    Ok(())
}
