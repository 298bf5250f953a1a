//! Why a volume is not staged.

use std::path::PathBuf;

use rds_csi_api::{Bytes, Failure, FsType, Kind, Nqn, Portal, VolumeId};

use super::MOST_STEPS;
use crate::host::{self, Device, Holder, KubeletPath, ManagedNqn, in_use};
use crate::volumes;
use crate::volumes::record::{self, Form};
use crate::{breaker, reads, storm};

/// Why a volume is not staged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The device is smaller than the array says.
    #[error(
        "{device} of volume {volume} has {found}, and the array says {wanted}: it is not used; \
         look at the disk's file-size on the array"
    )]
    TooSmall {
        /// Which volume.
        volume: VolumeId,
        /// The device.
        device: Device,
        /// Its size.
        found: Bytes,
        /// What it should have at least.
        wanted: Bytes,
    },
    /// Something else is on the device.
    #[error(
        "{device} of volume {volume} holds {found}, and {wanted} is asked for: it is left as it is; \
         correct fsType; if nothing of value was ever on the volume, as after a format of an earlier driver that was cut off, \
         delete its claim and make it again, or write zeros over all of its image on the array",
        wanted = wanted.as_str()
    )]
    Foreign {
        /// Which volume.
        volume: VolumeId,
        /// The device.
        device: Device,
        /// What was found.
        found: String,
        /// What was asked for.
        wanted: FsType,
    },
    /// Nobody knows what is on the device.
    #[error("nobody knows what is on volume {volume}, so it is neither mounted nor formatted: {reason}")]
    Unreadable {
        /// Which volume.
        volume: VolumeId,
        /// Why not.
        reason: String,
    },
    /// A blank device is to be read only.
    #[error(
        "{device} of volume {volume} is blank and is to be read only, so it is not formatted: stage it for writing first"
    )]
    BlankReadOnly {
        /// Which volume.
        volume: VolumeId,
        /// The device.
        device: Device,
    },
    /// Something else is mounted where the volume belongs.
    #[error(
        "{source_device} is mounted at the staging path {staging}: unmount it, it is not volume {volume}"
    )]
    Taken {
        /// Which volume.
        volume: VolumeId,
        /// Where.
        staging: KubeletPath,
        /// What.
        source_device: String,
    },
    /// The volume is staged, elsewhere.
    #[error("volume {volume} is staged at {}: unstage it there first", at.display())]
    StagedElsewhere {
        /// Which volume.
        volume: VolumeId,
        /// Where.
        at: PathBuf,
    },
    /// The volume is connected under another name.
    #[error(
        "volume {volume} is still connected as {old}, and that connection is in use, so it is not ended: {}",
        in_use::told(holders)
    )]
    OtherConnection {
        /// Which volume.
        volume: VolumeId,
        /// Under which.
        old: ManagedNqn,
        /// What uses it.
        holders: Vec<Holder>,
    },
    /// Another array's volume of the same slot is on this node.
    #[error(
        "volume {other} of another array is staged on this node, and has the slot of volume {volume}, so the node cannot tell \
         them apart: run the pod on another node, or delete the pods that use {other} here first"
    )]
    Namesake {
        /// Which volume.
        volume: VolumeId,
        /// The one that is staged.
        other: VolumeId,
    },
    /// The volume is connected to where it was before.
    #[error("volume {volume} is still connected to {live}, and {wanted} is asked for: unstage it first")]
    Moved {
        /// Which volume.
        volume: VolumeId,
        /// Where it is connected.
        live: Portal,
        /// Where it should be.
        wanted: Portal,
    },
    /// The NQN is connected to somewhere else, and not for this volume.
    #[error(
        "{nqn} is connected to {live}, and volume {volume} is at {wanted}: the device may be another array's, so it is not \
         used; end that connection if nobody needs it, or run the pod on another node"
    )]
    OtherPortal {
        /// Which volume.
        volume: VolumeId,
        /// Its subsystem.
        nqn: Nqn,
        /// Where that is connected.
        live: Portal,
        /// Where it should be.
        wanted: Portal,
    },
    /// The volume is staged as something else.
    #[error("volume {volume} is staged as {staged}, which is not what is asked for: unstage it first")]
    OtherForm {
        /// Which volume.
        volume: VolumeId,
        /// As what.
        staged: Form,
    },
    /// Its filesystem needs a repair that loses something.
    #[error(
        "the filesystem of volume {volume} cannot be repaired without a decision: restore the volume from a snapshot, or allow one \
         repair that may lose some of it (AllowRepair, docs/node.md)"
    )]
    Unrepaired {
        /// Which volume.
        volume: VolumeId,
        /// What the repair said.
        #[source]
        source: Box<host::Error>,
    },
    /// Something uses the device that is to be formatted or repaired.
    #[error("volume {volume} is in use, so it is neither formatted nor repaired: {}", in_use::told(holders))]
    InUse {
        /// Which volume.
        volume: VolumeId,
        /// What uses it.
        holders: Vec<Holder>,
    },
    /// It failed, and something of the volume is on the node all the same.
    #[error(
        "staging failed, and volume {volume} is still connected here: it has to be staged again, or unstaged"
    )]
    Remains {
        /// Which volume.
        volume: VolumeId,
        /// Why it failed.
        #[source]
        cause: Box<Error>,
    },
    /// Staging it failed too often.
    #[error(transparent)]
    Breaker(#[from] breaker::Open),
    /// It is mounted too often.
    #[error(transparent)]
    Storm(#[from] storm::Error),
    /// Nobody could look.
    #[error(transparent)]
    Reads(#[from] reads::Error),
    /// The steps did not lead anywhere.
    #[error("staging took more than {MOST_STEPS} steps: the device or the mounts change under it")]
    Endless,
    /// The machine did not do it.
    #[error(transparent)]
    Host(#[from] host::Error),
    /// It could not be written down.
    #[error(transparent)]
    Record(#[from] record::Error),
    /// The volume could not be looked at.
    #[error(transparent)]
    Volumes(#[from] volumes::Error),
}

impl Error {
    /// Whether the volume is there, and cannot be mounted.
    pub fn is_of_mount(&self) -> bool {
        match self {
            Self::Foreign { .. } | Self::Unreadable { .. } | Self::Unrepaired { .. } => true,
            Self::Host(error) => error.is_of_mount(),
            Self::Remains { cause, .. } => cause.is_of_mount(),
            _ => false,
        }
    }
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::TooSmall { .. }
            | Self::Foreign { .. }
            | Self::Unreadable { .. }
            | Self::BlankReadOnly { .. }
            | Self::Taken { .. }
            | Self::StagedElsewhere { .. }
            | Self::OtherConnection { .. }
            | Self::Namesake { .. }
            | Self::Moved { .. }
            | Self::OtherPortal { .. }
            | Self::Unrepaired { .. } => Kind::Refused,
            Self::OtherForm { .. } => Kind::Conflict,
            Self::InUse { .. } => Kind::InUse,
            Self::Remains { .. } => Kind::Unsure,
            Self::Breaker(open) => open.kind(),
            Self::Storm(error) => error.kind(),
            Self::Reads(error) => error.kind(),
            Self::Endless => Kind::Bug,
            Self::Host(error) => error.kind(),
            Self::Record(error) => error.kind(),
            Self::Volumes(error) => error.kind(),
        }
    }
}
