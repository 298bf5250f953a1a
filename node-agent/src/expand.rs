//! NodeExpandVolume: a volume that grew on the array is as large on the node, while it is in use.
//!
//! (1) The volume and the path are ones that we know. (2) The device is waited for until it shows the size that is asked for: the
//! array tells the kernel, and where it does not, the kernel is made to ask. (3) A filesystem that is smaller than its
//! device grows, at the staging path, since a pod's own mount may be read-only.

use std::path::PathBuf;
use std::time::Duration;

use rds_csi_api::{Bytes, Failure, FsType, Kind, Nqn, VolumeId};

use crate::host::{self, Attachment, Device, Fit, Host, KubeletPath, ManagedNqn, NotManaged};
use crate::volumes::record::{self, Form};
use crate::volumes::{self, Volumes};

/// How long a device may take to show a size that the array has already.
const GROWTH_TIME: Duration = Duration::from_secs(30);

/// More than any way through [`next`] has.
const MOST_STEPS: usize = 4;

/// What kubelet asks for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Which volume.
    pub volume: VolumeId,
    /// Where it is said to be. Nothing is done there: the record says where the volume is.
    pub path: PathBuf,
    /// Where it is said to be staged, if anybody says so. A kubelet that was started again knows no device path of a block volume,
    /// and sends something else for `path`.
    pub staging: Option<PathBuf>,
    /// How large it is to be.
    pub size: Range,
}

/// Between which sizes a volume is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// At least so large. Nothing, if whatever the device has is enough.
    pub least: Bytes,
    /// At most so large.
    pub most: Option<Bytes>,
}

/// Why a volume does not grow.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody staged it.
    #[error("volume {volume} is not staged on this node: it grows by itself when it is staged")]
    Unknown {
        /// Which volume.
        volume: VolumeId,
    },
    /// It is somewhere else.
    #[error("volume {volume} is neither staged nor published at {}", path.display())]
    Elsewhere {
        /// Which volume.
        volume: VolumeId,
        /// Where it should be.
        path: PathBuf,
    },
    /// Its record names a subsystem that is not to be touched.
    #[error(transparent)]
    NotManaged(#[from] NotManaged),
    /// The kernel has no controller for it.
    #[error(
        "volume {volume} is no longer connected ({nqn}): delete the pods that use it, so that it is staged again"
    )]
    NotConnected {
        /// Which volume.
        volume: VolumeId,
        /// As what it was connected.
        nqn: Nqn,
    },
    /// It is staged as a filesystem, and is not mounted.
    #[error("nothing of volume {volume} is mounted at its staging path {}: stage it again", staging.display())]
    NotMounted {
        /// Which volume.
        volume: VolumeId,
        /// Where.
        staging: PathBuf,
    },
    /// Its filesystem is not on the device that it has now.
    #[error(
        "the filesystem mounted at {} is not on {device}, the device of volume {volume}: delete the pods that use it, so \
         that it is staged again",
        staging.display()
    )]
    OtherDevice {
        /// Which volume.
        volume: VolumeId,
        /// Where.
        staging: PathBuf,
        /// The device it has now.
        device: Device,
    },
    /// Its filesystem cannot be written to.
    #[error(
        "{device} of volume {volume} has {}, and its filesystem, mounted read-only at {}, cannot grow: it does when it is \
         staged for writing; if it became read-only by itself, delete the pods that use it, and see the node's kernel log",
        device.size, staging.display()
    )]
    ReadOnly {
        /// Which volume.
        volume: VolumeId,
        /// Its device.
        device: Device,
        /// Where.
        staging: PathBuf,
    },
    /// How large its filesystem is cannot be told.
    #[error(
        "{device} of volume {volume} has {}, and whether its filesystem takes all of it cannot be told: {reason}; \
         it is looked at again when kubelet comes again",
        device.size
    )]
    Unprobed {
        /// Which volume.
        volume: VolumeId,
        /// Its device.
        device: Device,
        /// What was seen instead.
        reason: String,
    },
    /// It is larger than it may be.
    #[error("{device} of volume {volume} has {found}, more than the {most} of capacity_range.limit_bytes")]
    Beyond {
        /// Which volume.
        volume: VolumeId,
        /// Its device.
        device: Device,
        /// What it has.
        found: Bytes,
        /// What it may have.
        most: Bytes,
    },
    /// The steps did not lead anywhere.
    #[error("growing took more than {MOST_STEPS} steps: the device or the mounts change under it")]
    Endless,
    /// The machine did not do it.
    #[error(transparent)]
    Host(#[from] host::Error),
    /// What was written down cannot be read.
    #[error(transparent)]
    Record(#[from] record::Error),
    /// The volume could not be looked at.
    #[error(transparent)]
    Volumes(#[from] volumes::Error),
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Unknown { .. } | Self::Elsewhere { .. } | Self::NotMounted { .. } => Kind::Missing,
            Self::NotManaged(_)
            | Self::NotConnected { .. }
            | Self::OtherDevice { .. }
            | Self::ReadOnly { .. } => Kind::Refused,
            // Nothing was begun, and kubelet has to come again: after a success it never would.
            Self::Unprobed { .. } => Kind::Unreachable,
            Self::Beyond { .. } => Kind::OutOfRange,
            Self::Endless => Kind::Bug,
            Self::Host(error) => error.kind(),
            Self::Record(error) => error.kind(),
            Self::Volumes(error) => error.kind(),
        }
    }
}

/// What there is.
#[derive(Debug)]
enum Observed {
    /// No record.
    Unknown,
    /// A record that names neither of the paths.
    Elsewhere,
    /// No connection, or none that will come back.
    Unconnected(Nqn),
    /// No device that works, or one that does not show the size yet.
    Pending(ManagedNqn),
    /// A device that is large enough, and what is staged of it.
    Ready(Device, Staged),
}

/// What is staged.
#[derive(Debug)]
enum Staged {
    /// The device itself.
    Block,
    /// Its filesystem, and whether there is room for more.
    Filesystem(FsType, KubeletPath, Fit),
    /// Its filesystem, which cannot be written to, and whether it would have to be.
    ReadOnly(PathBuf, Fit),
    /// Nothing.
    Nothing(PathBuf),
    /// Something else.
    Other(PathBuf),
}

/// What to do next.
#[derive(Debug)]
enum Step {
    Await(ManagedNqn),
    Grow(Device, FsType, KubeletPath),
    Done(Bytes),
    Refuse(Error),
}

/// Lets a volume grow, and says how large its device is. A repetition finds it grown.
pub fn expand<H: Host>(volumes: &Volumes<H>, wanted: &Wanted) -> Result<Bytes, Error> {
    let host = &volumes.host;
    for _ in 0..MOST_STEPS {
        let step = next(wanted, observe(volumes, wanted)?);
        let _span = tracing::info_span!("expand", otel.name = step.name()).entered();
        match step {
            Step::Refuse(error) => return Err(error),
            Step::Done(size) => return Ok(size),
            Step::Await(nqn) => {
                host.wait_for_size(&nqn, wanted.size.least, GROWTH_TIME)?;
            }
            Step::Grow(device, fs, staging) => {
                host.grow(&device, fs, &staging)?;
                tracing::info!(%device, size = %device.size, fs = fs.as_str(), "the filesystem takes all of its device");
                // The superblock on the device follows in its own time: looking again would see the old size.
                return Ok(device.size);
            }
        }
    }
    Err(Error::Endless)
}

fn observe<H: Host>(volumes: &Volumes<H>, wanted: &Wanted) -> Result<Observed, Error> {
    let Volumes { host, records, prefix, .. } = volumes;
    let mut record = records.read(&wanted.volume)?;
    for path in wanted.staging.iter().chain([&wanted.path]) {
        if let (None, Some(place)) = (&record, volumes.path(path)) {
            record = volumes.unrecorded(&wanted.volume, &place)?;
        }
    }
    let Some(record) = record else { return Ok(Observed::Unknown) };
    let staged_there = wanted.staging.as_ref() == Some(&record.staging);
    if !staged_there && !record.names(&wanted.path) {
        return Ok(Observed::Elsewhere);
    }
    // By the NQN, each time: the device may have another number than when the volume was staged.
    let device = match host.attachment(&record.nqn)? {
        Attachment::Absent | Attachment::Lost => return Ok(Observed::Unconnected(record.nqn)),
        Attachment::Live(Some(device)) if device.size >= wanted.size.least => device,
        Attachment::Connecting(_) | Attachment::Live(_) => {
            return Ok(Observed::Pending(ManagedNqn::of_volume(prefix, record.nqn, &wanted.volume)?));
        }
    };
    let staged = match record.form {
        Form::Block => Staged::Block,
        Form::Filesystem(fs) => match volumes.path(&record.staging) {
            None => Staged::Nothing(record.staging),
            Some(staging) => match host.mounts()?.top(&staging) {
                None => Staged::Nothing(record.staging),
                Some(mount) if mount.device != device.number => Staged::Other(record.staging),
                Some(mount) => {
                    let fit = host.probe(&device)?.fit(device.size);
                    if mount.is_read_only() {
                        Staged::ReadOnly(record.staging, fit)
                    } else {
                        Staged::Filesystem(fs, staging, fit)
                    }
                }
            },
        },
    };
    Ok(Observed::Ready(device, staged))
}

fn next(wanted: &Wanted, observed: Observed) -> Step {
    let volume = wanted.volume.clone();
    let (device, staged) = match observed {
        Observed::Unknown => return Step::Refuse(Error::Unknown { volume }),
        Observed::Elsewhere => return Step::Refuse(Error::Elsewhere { volume, path: wanted.path.clone() }),
        Observed::Unconnected(nqn) => return Step::Refuse(Error::NotConnected { volume, nqn }),
        Observed::Pending(nqn) => return Step::Await(nqn),
        Observed::Ready(device, staged) => (device, staged),
    };
    if let Some(most) = wanted.size.most.filter(|most| device.size > *most) {
        return Step::Refuse(Error::Beyond { volume, found: device.size, device, most });
    }
    match staged {
        Staged::Block | Staged::Filesystem(_, _, Fit::Fills) | Staged::ReadOnly(_, Fit::Fills) => {
            Step::Done(device.size)
        }
        Staged::Filesystem(_, _, Fit::Unknown(reason)) | Staged::ReadOnly(_, Fit::Unknown(reason)) => {
            Step::Refuse(Error::Unprobed { volume, device, reason })
        }
        Staged::Filesystem(fs, staging, Fit::Smaller) => Step::Grow(device, fs, staging),
        Staged::ReadOnly(staging, Fit::Smaller) => Step::Refuse(Error::ReadOnly { volume, device, staging }),
        Staged::Nothing(staging) => Step::Refuse(Error::NotMounted { volume, staging }),
        Staged::Other(staging) => Step::Refuse(Error::OtherDevice { volume, staging, device }),
    }
}

impl Step {
    /// As it is called in a trace.
    fn name(&self) -> &'static str {
        match self {
            Self::Await(_) => "wait for the size",
            Self::Grow(..) => "grow",
            Self::Done(_) => "done",
            Self::Refuse(_) => "refuse",
        }
    }
}

#[cfg(test)]
mod tests;
