//! Taking back what a failed call did, and nothing that was there before it.
//!
//! kubelet repeats calls freely. A driver that answered a failed repetition by cleaning up everything has disconnected
//! volumes that were in use.

use std::time::Duration;

use rds_csi_api::VolumeId;

use super::{Record, Volumes};
use crate::host::{Host, KubeletPath, ManagedNqn};

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

/// Takes it back, the last first, as far as it goes. What is left is in the record, for unstage or the next stage.
pub fn undo<H: Host>(volumes: &Volumes<H>, made: Vec<Made>) {
    for made in made.into_iter().rev() {
        if let Err(reason) = take_back(volumes, &made) {
            tracing::warn!(?made, "what this failed call did is left for the next one: {reason}");
            return;
        }
    }
}

fn take_back<H: Host>(volumes: &Volumes<H>, made: &Made) -> Result<(), String> {
    let Volumes { host, records, .. } = volumes;
    match made {
        Made::Record { before: Some(record), .. } => records.write(record).map_err(|error| error.to_string()),
        Made::Record { volume, before: None } => records.remove(volume).map_err(|error| error.to_string()),
        Made::Mount(at) => host.unmount(at).map_err(|error| error.to_string()),
        Made::Directory(at) => host.remove_directory(at).map_err(|error| error.to_string()),
        Made::Node(at) => host.remove_node(at).map_err(|error| error.to_string()),
        Made::Connection(nqn) => {
            let attachment = host.attachment(nqn.as_nqn()).map_err(|error| error.to_string())?;
            let devices: Vec<_> = attachment.device().into_iter().collect();
            let holders = host.holders(&devices).map_err(|error| error.to_string())?;
            if let Some(holder) = holders.first() {
                return Err(format!("{nqn} is in use: {holder}"));
            }
            host.disconnect(nqn, DISCONNECT_TIME).map_err(|error| error.to_string())
        }
    }
}
