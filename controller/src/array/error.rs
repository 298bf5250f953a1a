//! Why the array did not do what it was asked.

use std::fmt;
use std::time::Duration;

use rds_csi_api::{Bytes, Failure, Kind, SnapshotId, VolumeId};

use super::Pool;

/// What an error is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A volume.
    Volume(VolumeId),
    /// A snapshot.
    Snapshot(SnapshotId),
    /// All of a pool.
    Pool(Pool),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Volume(id) => write!(f, "volume {id}"),
            Self::Snapshot(id) => write!(f, "snapshot {id}"),
            Self::Pool(name) => write!(f, "pool {name}"),
        }
    }
}

impl From<&VolumeId> for Subject {
    fn from(id: &VolumeId) -> Self {
        Self::Volume(id.clone())
    }
}

impl From<&SnapshotId> for Subject {
    fn from(id: &SnapshotId) -> Self {
        Self::Snapshot(id.clone())
    }
}

/// Why the array did not do what it was asked. Texts of the array are kept as they came, bounded in length.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The array answered, and has no such volume.
    #[error("volume {0} does not exist on the array")]
    Missing(VolumeId),
    /// The array answered, and has no such snapshot.
    #[error("snapshot {0} does not exist on the array")]
    MissingSnapshot(SnapshotId),
    /// It is there and differs from what was asked for.
    #[error(
        "{subject} exists on the array with {what} {found}, not {wanted}: \
         delete it, or ask for it as it is or under another name"
    )]
    Conflict {
        /// Which one.
        subject: Subject,
        /// Which of its properties.
        what: &'static str,
        /// As the array has it.
        found: String,
        /// As it was asked for.
        wanted: String,
    },
    /// What is there was not made by this driver for this cluster, so it is neither changed nor removed.
    #[error(
        "what the array has in the place of {subject} is none of this cluster's ({why}), so it is left \
         alone: look at slot, subvolume and files of that name on the array"
    )]
    Foreign {
        /// In whose place.
        subject: Subject,
        /// By what it was told.
        why: String,
    },
    /// The array lets hosts in by name that nobody spoke of.
    #[error(
        "the array lets hosts into volume {0} that no record names, so they may be writing: detach it from the node that \
         has it, or, if none has, switch its export off on the array"
    )]
    Strangers(VolumeId),
    /// The array lets every host in, so its list does not say who holds the volume.
    #[error(
        "the export of volume {0} is open to every host, so who is connected to it is not known: once no node uses it, \
         switch its export off on the array, then try again"
    )]
    Open(VolumeId),
    /// Another command made it, or was making it, at the same time.
    #[error("another command works at {subject} on the array at the same time ({text}): try again")]
    Concurrent {
        /// What both are about.
        subject: Subject,
        /// What the array said.
        text: String,
    },
    /// The array reported success, and its own disk says otherwise.
    #[error(
        "the array did not do what it was told: volume {id} has {what} {found}, not {wanted}; look at the disk of \
         that slot on the array"
    )]
    Disobeyed {
        /// Which volume.
        id: VolumeId,
        /// What of it.
        what: &'static str,
        /// As the array has it.
        found: String,
        /// As it was told.
        wanted: String,
    },
    /// A volume was fenced, and there is no evidence that nobody writes to it any more.
    #[error(
        "volume {id} is fenced, and {missing}: it does not count as detached before the array shows that nobody writes to it \
         any more; if that does not end by itself, look at the disk of that slot on the array"
    )]
    Unproved {
        /// Which volume.
        id: VolumeId,
        /// What is seen instead, or what cannot be seen.
        missing: String,
    },
    /// No disk of the array has that pool on it.
    #[error(
        "the array has no disk whose mount-point is {pool}: give the name of its btrfs pool without slashes, as it \
         stands under /disk"
    )]
    NoPool {
        /// The configured pool.
        pool: Pool,
    },
    /// A volume in a flat file has no subvolume to take a snapshot of.
    #[error(
        "volume {0} is a flat image file of the earlier driver, which can be neither snapshotted nor cloned: make a new \
         volume, copy the data into it in a pod that mounts both, and use that one"
    )]
    Flat(VolumeId),
    /// What the Go driver called a snapshot.
    #[error(
        "snapshot {0} is one of the earlier driver, whose snapshots hold the settings of their volume and none of its \
         data, so nothing can be made of it: delete it, and copy the data out of its volume, if that is still there, in a \
         pod that mounts both"
    )]
    NoData(SnapshotId),
    /// The array has the disk, and not what is on it.
    #[error(
        "{subject} is damaged on the array ({how}), so there is nothing to copy: bring its file back on the array, or delete it"
    )]
    Damaged {
        /// Which one.
        subject: Subject,
        /// How.
        how: String,
    },
    /// A copy cannot be smaller than what it is a copy of.
    #[error("{source_of} has {size}, more than limit_bytes of {most}: raise the limit to that")]
    SourceTooLarge {
        /// What was to be copied.
        source_of: Subject,
        /// How large it is.
        size: Bytes,
        /// How large the copy may be.
        most: Bytes,
    },
    /// An image file without a disk. It may hold somebody's data, so it is not used again.
    #[error(
        "the file {path} is there, but no disk that uses it: it may hold data of an earlier volume, so it is never \
         overwritten; keep or remove it on the array, then try again"
    )]
    Leftover {
        /// The file.
        path: String,
    },
    /// No space is left in the pool.
    #[error("the array has no space left for {subject} (it said: {text})")]
    Full {
        /// For what.
        subject: Subject,
        /// What the array said.
        text: String,
    },
    /// The user lacks a policy.
    #[error(
        "the array's user may not do this (it said: {text}): give its group the policies ssh, read and write"
    )]
    Denied {
        /// What the array said.
        text: String,
    },
    /// The array did not understand the command, and ran nothing of it.
    #[error("the array did not understand the command (it said: {text}): RouterOS 7.21 or newer is needed")]
    NotUnderstood {
        /// What the array said.
        text: String,
    },
    /// The command ran and failed in a way that has no name here.
    #[error("the array refused: {text}")]
    Refused {
        /// What the array said.
        text: String,
    },
    /// Nothing was sent.
    #[error("the array cannot be reached: {reason}")]
    Unreachable {
        /// What ssh said.
        reason: String,
    },
    /// The command was sent, and the connection broke before its answer was whole.
    #[error(
        "the connection to the array broke before it answered; whether the command ran is not known: {reason}"
    )]
    Lost {
        /// What is known of the break.
        reason: String,
    },
    /// The command was sent, and no whole answer came in time.
    #[error("the array did not answer within {} s; whether the command ran is not known", .after.as_secs())]
    Late {
        /// The deadline that passed.
        after: Duration,
    },
    /// The answer says neither that it was done nor that it failed.
    #[error(
        "the array's answer cannot be read ({why}); whether the command ran is not known; it said: {text:?}"
    )]
    Garbled {
        /// What is wrong with it.
        why: String,
        /// The answer.
        text: String,
    },
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Missing(_) | Self::MissingSnapshot(_) => Kind::Missing,
            Self::SourceTooLarge { .. } => Kind::OutOfRange,
            Self::Conflict { .. } => Kind::Conflict,
            Self::Foreign { .. }
            | Self::Strangers(_)
            | Self::Open(_)
            | Self::Flat(_)
            | Self::NoData(_)
            | Self::Damaged { .. }
            | Self::NoPool { .. }
            | Self::Leftover { .. }
            | Self::Denied { .. } => Kind::Refused,
            Self::Concurrent { .. } => Kind::Busy,
            Self::Full { .. } => Kind::Full,
            Self::Disobeyed { .. } | Self::NotUnderstood { .. } | Self::Refused { .. } => Kind::Bug,
            Self::Unreachable { .. } => Kind::Unreachable,
            Self::Unproved { .. } | Self::Lost { .. } | Self::Late { .. } | Self::Garbled { .. } => {
                Kind::Unsure
            }
        }
    }
}
