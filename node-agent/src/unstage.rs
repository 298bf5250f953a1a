//! NodeUnstageVolume: from a staged volume to nothing of it left in the kernel.
//!
//! (1) Whatever uses the volume apart from the staging mount itself refuses the call, by name. (2) Every layer at the staging path
//! is unmounted. (3) Now nothing at all may use the device, in any mount namespace. (4) The subsystem is disconnected, and
//! gone from sysfs. (5) The record is removed. A volume that nobody knows is unstaged already.

use std::collections::BTreeSet;
use std::time::Duration;

use rds_csi_api::{Failure, Kind, VolumeId};

use crate::host::{self, DeviceNumber, Holder, Host, KubeletPath, ManagedNqn, NotManaged, Use, in_use};
use crate::storm;
use crate::volumes::{self, Volumes, record};

const DISCONNECT_TIME: Duration = Duration::from_secs(30);

/// Layers at the staging path, connections, the record: whatever needs more is not a volume of ours.
const MOST_STEPS: usize = 64;

/// What kubelet asks for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Which volume.
    pub volume: VolumeId,
    /// Where it is staged.
    pub staging: KubeletPath,
}

/// Why a volume is not unstaged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something uses it.
    #[error("volume {volume} is in use and stays connected: {}", in_use::told(holders))]
    InUse {
        /// Which volume.
        volume: VolumeId,
        /// What uses it.
        holders: Vec<Holder>,
    },
    /// Another volume is staged at the path.
    #[error("{staging} belongs to {owner}, not to volume {volume}: nothing is unmounted")]
    OtherVolume {
        /// Which volume.
        volume: VolumeId,
        /// Where.
        staging: KubeletPath,
        /// Whose it is.
        owner: ManagedNqn,
    },
    /// The record names a subsystem that is not ours any more.
    #[error(transparent)]
    NotManaged(#[from] NotManaged),
    /// It is mounted too often.
    #[error(transparent)]
    Storm(#[from] storm::Error),
    /// The steps did not lead anywhere.
    #[error("unstaging took more than {MOST_STEPS} steps: the mounts at the staging path come back")]
    Endless,
    /// The machine did not do it.
    #[error(transparent)]
    Host(#[from] host::Error),
    /// The record could not be read or removed.
    #[error(transparent)]
    Record(#[from] record::Error),
    /// The volume could not be looked at.
    #[error(transparent)]
    Volumes(#[from] volumes::Error),
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::InUse { .. } => Kind::InUse,
            Self::OtherVolume { .. } | Self::NotManaged(_) => Kind::Refused,
            Self::Storm(error) => error.kind(),
            Self::Endless => Kind::Bug,
            Self::Host(error) => error.kind(),
            Self::Record(error) => error.kind(),
            Self::Volumes(error) => error.kind(),
        }
    }
}

/// What there is.
#[derive(Debug, Clone, Default)]
struct Observed {
    /// How many mounts are at the staging path.
    layers: usize,
    /// Another volume's subsystem, whose device is mounted at the staging path.
    owner: Option<ManagedNqn>,
    /// The volume's subsystems that the kernel knows.
    connections: Vec<ManagedNqn>,
    /// What uses their devices, the mounts at the staging path among it.
    holders: Vec<Holder>,
    /// Whether we wrote the volume down.
    record: Recorded,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Recorded {
    #[default]
    No,
    Yes,
}

/// What to do next.
#[derive(Debug)]
enum Step {
    Unmount,
    Disconnect(ManagedNqn),
    Forget,
    Done,
    Refuse(Error),
}

/// Unstages a volume.
pub fn unstage<H: Host>(volumes: &Volumes<H>, wanted: &Wanted) -> Result<(), Error> {
    for _ in 0..MOST_STEPS {
        match next(wanted, observe(volumes, wanted)?) {
            Step::Refuse(error) => return Err(error),
            Step::Done => return Ok(()),
            Step::Unmount => volumes.host.unmount(&wanted.staging)?,
            Step::Disconnect(nqn) => volumes.host.disconnect(&nqn, DISCONNECT_TIME)?,
            Step::Forget => volumes.records.remove(&wanted.volume)?,
        }
    }
    Err(Error::Endless)
}

fn observe<H: Host>(volumes: &Volumes<H>, wanted: &Wanted) -> Result<Observed, Error> {
    let Volumes { host, records, prefix, .. } = volumes;
    let record = records.read(&wanted.volume)?;
    if let Some(record) = &record {
        ManagedNqn::new(prefix, record.nqn.clone())?;
    }
    let mounts = host.mounts()?;
    storm::check(volumes, &wanted.volume, &mounts)?;
    let layers: Vec<_> = mounts.layers(wanted.staging.as_path()).collect();
    let mut unexplained: BTreeSet<_> = layers.iter().map(|layer| layer.device).collect();
    let (mut connections, mut devices) = (Vec::new(), Vec::new());
    for (nqn, seen) in volumes.connections(&wanted.volume, record.as_ref())? {
        devices.extend(seen?.attachment.device().map(|device| device.number));
        connections.push(nqn);
    }
    unexplained.retain(|device| !devices.contains(device));
    if let Some(record) = &record {
        devices.extend(volumes.dead(record, &mounts)?);
    }
    Ok(Observed {
        layers: layers.len(),
        owner: owner(volumes, &connections, unexplained)?,
        holders: host.holders(&devices)?,
        connections,
        record: if record.is_some() { Recorded::Yes } else { Recorded::No },
    })
}

/// The other volume that one of these devices is of. What is odd about a third one matters only if it may be that.
fn owner<H: Host>(
    volumes: &Volumes<H>,
    own: &[ManagedNqn],
    devices: BTreeSet<DeviceNumber>,
) -> Result<Option<ManagedNqn>, Error> {
    let Volumes { host, prefix, .. } = volumes;
    if devices.is_empty() {
        return Ok(None);
    }
    let mut odd = None;
    for (nqn, seen) in host.subsystems(&|nqn| prefix.covers(nqn))? {
        let Ok(nqn) = ManagedNqn::new(prefix, nqn) else { continue };
        if own.contains(&nqn) {
            continue;
        }
        match seen.map(|seen| seen.attachment) {
            Ok(attachment) if attachment.device().is_some_and(|device| devices.contains(&device.number)) => {
                return Ok(Some(nqn));
            }
            Ok(_) => {}
            Err(error) => odd = Some(error),
        }
    }
    let Some(odd) = odd else { return Ok(None) };
    // A device that is gone for good is nobody's.
    let mut there = false;
    for device in devices {
        there |= host.device_is_there(device)?;
    }
    if there { Err(odd.into()) } else { Ok(None) }
}

fn next(wanted: &Wanted, observed: Observed) -> Step {
    let Observed { layers, owner, connections, mut holders, record } = observed;
    if let Some(owner) = owner {
        let Wanted { volume, staging } = wanted.clone();
        return Step::Refuse(Error::OtherVolume { volume, staging, owner });
    }
    if layers > 0 {
        // The staging mount itself is what we are about to unmount; its copies in other mount namespaces go with it if they
        // are bound to ours, and refuse the disconnect below if they are not.
        holders.retain(|holder| match holder.how {
            Use::Mount => holder.path != wanted.staging.as_path(),
            Use::MountElsewhere => false,
            Use::OpenFile | Use::BlockDevice => true,
        });
    }
    if !holders.is_empty() {
        return Step::Refuse(Error::InUse { volume: wanted.volume.clone(), holders });
    }
    match (layers, connections.into_iter().next(), record) {
        (1.., _, _) => Step::Unmount,
        (0, Some(nqn), _) => Step::Disconnect(nqn),
        (0, None, Recorded::Yes) => Step::Forget,
        (0, None, Recorded::No) => Step::Done,
    }
}

#[cfg(test)]
mod tests;
