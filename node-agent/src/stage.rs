//! NodeStageVolume: from an attached volume to a device that is connected, and a filesystem that is mounted.
//!
//! (1) The record is written. (2) The subsystem is connected and its device waited for. (3) The device is checked: it is the one,
//! and large enough. A block volume is staged then. (4) The device is probed, and formatted only if proven blank. (5) It is
//! mounted, and repaired only if it does not mount. (6) The filesystem grows if it is smaller than the device.

mod error;

use std::path::PathBuf;
use std::time::Duration;

use rds_csi_api::{Bytes, Failure, FsType, Kind, Nqn, Portal, VolumeId};

use crate::host::{
    self, Attachment, Blank, Connected, Content, Device, Fit, Host, KubeletPath, MountOptions, Signature,
    Target,
};
use crate::volumes::Volumes;
use crate::volumes::record::{Form, Record};
use crate::volumes::undo::{self, Remains};

pub use error::Error;

/// How long a connection may take to become a device: nearly all of it is the array's.
const DEVICE_TIME: Duration = Duration::from_secs(30);

/// More than any way through [`next`] has.
const MOST_STEPS: usize = 8;

/// What kubelet asks for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Which volume.
    pub volume: VolumeId,
    /// What to connect to.
    pub target: Target,
    /// What the array says the device has, at least.
    pub size: Bytes,
    /// As what it is used.
    pub usage: Usage,
    /// Where it is staged.
    pub staging: KubeletPath,
}

/// As what a volume is staged.
#[derive(Debug, Clone)]
pub enum Usage {
    /// Connected, and nothing more.
    Block,
    /// Mounted.
    Filesystem {
        /// As which filesystem.
        fs: FsType,
        /// How.
        options: MountOptions,
    },
}

impl Usage {
    fn form(&self) -> Form {
        match self {
            Self::Block => Form::Block,
            Self::Filesystem { fs, .. } => Form::Filesystem(*fs),
        }
    }
}

/// What there is.
#[derive(Debug)]
enum Observed {
    /// No connection.
    Absent,
    /// A connection without a device that works.
    Pending,
    /// A device that is smaller than it should be. What is on it was not looked at.
    Short(Device),
    /// A device, and what is at the staging path.
    Ready(Device, Staged),
    /// The volume is connected under the name of an earlier attachment.
    Renamed(Nqn),
    /// A volume of another array, in the same slot, is on this node.
    Namesake(VolumeId),
    /// The volume is connected to where it was at an earlier attachment.
    Moved(Portal),
    /// Its NQN is connected to somewhere else.
    OtherPortal(Portal),
    /// The volume is mounted at another staging path.
    Elsewhere(PathBuf),
    /// The volume is staged as something else.
    OtherForm(Form),
}

/// What is at the staging path.
#[derive(Debug)]
enum Staged {
    /// Nothing, and a block volume needs nothing.
    Block,
    /// The volume, and how its filesystem fits its device.
    Mounted(Fit),
    /// Something else.
    Other(String),
    /// Nothing, and this is on the device.
    Unmounted(Content),
}

/// What to do next.
#[derive(Debug)]
enum Step {
    Connect,
    Await,
    Format(Blank, FsType),
    Mount(Device, FsType, MountOptions),
    Grow(Device, FsType),
    Done,
    Refuse(Error),
}

/// Stages a volume. A repetition finds everything done and changes nothing; a failure undoes what this very call did.
pub fn stage<H: Host>(volumes: &Volumes<H>, wanted: &Wanted) -> Result<(), Error> {
    let mut made = Vec::new();
    let Err(error) = advance(volumes, wanted, &mut made) else { return Ok(()) };
    let remains = undo::undo(volumes, made);
    // To kubelet most codes say that nothing is staged, and it would never unstage what is: the volume could not be detached.
    if error.kind() != Kind::Conflict && (remains == Remains::Something || is_staged(volumes, wanted)) {
        return Err(Error::Remains { volume: wanted.volume.clone(), cause: Box::new(error) });
    }
    Err(error)
}

/// Whether an earlier call staged the volume at this path. Not knowing counts as yes.
fn is_staged<H: Host>(volumes: &Volumes<H>, wanted: &Wanted) -> bool {
    let Ok(record) = volumes.records.read(&wanted.volume) else { return true };
    record
        .filter(|record| record.staging == wanted.staging.as_path())
        .is_some_and(|record| !matches!(volumes.host.attachment(&record.nqn), Ok(Attachment::Absent)))
}

fn advance<H: Host>(volumes: &Volumes<H>, wanted: &Wanted, made: &mut Vec<undo::Made>) -> Result<(), Error> {
    let host = &volumes.host;
    for _ in 0..MOST_STEPS {
        let step = next(wanted, observe(volumes, wanted)?);
        let _span = tracing::info_span!("stage", otel.name = step.name()).entered();
        if step.finds_a_connection() {
            // Made by an earlier call, maybe under another policy.
            host.retune(&wanted.target)?;
        }
        match step {
            Step::Refuse(error) => return Err(error),
            Step::Done => return remember(volumes, wanted, made),
            Step::Connect => {
                remember(volumes, wanted, made)?;
                // Once more, now that our own record is there: of two namesakes that are staged at once, one at least sees the other.
                if let Some(other) = namesake(volumes, wanted)? {
                    return Err(Error::Namesake { volume: wanted.volume.clone(), other });
                }
                if host.connect(&wanted.target)? == Connected::Newly {
                    made.push(undo::Made::Connection(wanted.target.nqn.clone()));
                }
            }
            Step::Await => {
                remember(volumes, wanted, made)?;
                host.wait_for_device(&wanted.target.nqn, DEVICE_TIME)?;
            }
            Step::Format(blank, fs) => {
                remember(volumes, wanted, made)?;
                check_unused(host, wanted, blank.device())?;
                tracing::info!(device = %blank.device(), fs = fs.as_str(), "the device is proven blank and is formatted");
                host.format(blank, fs)?;
            }
            Step::Mount(device, fs, options) => {
                remember(volumes, wanted, made)?;
                mount(host, wanted, &device, fs, &options)?;
                made.push(undo::Made::Mount(wanted.staging.clone()));
            }
            Step::Grow(device, fs) => {
                remember(volumes, wanted, made)?;
                host.grow(&device, fs, &wanted.staging)?;
                // The superblock on the device follows in its own time: looking again would see the old size.
                return Ok(());
            }
        }
    }
    Err(Error::Endless)
}

/// Mounting replays a journal or an XFS log, which is all that a crash needs. Only what does not mount is repaired.
fn mount<H: Host>(
    host: &H,
    wanted: &Wanted,
    device: &Device,
    fs: FsType,
    options: &MountOptions,
) -> Result<(), Error> {
    match host.mount(device, fs, &wanted.staging, options) {
        Err(error @ host::Error::Unmountable { .. }) if !options.is_read_only() => {
            check_unused(host, wanted, device)?;
            tracing::warn!(%device, %error, "the filesystem does not mount and is repaired");
            host.repair(device, fs)?;
            Ok(host.mount(device, fs, &wanted.staging, options)?)
        }
        outcome => Ok(outcome?),
    }
}

/// Nothing is formatted or repaired under anybody who has the device open: not every program claims it for itself.
fn check_unused<H: Host>(host: &H, wanted: &Wanted, device: &Device) -> Result<(), Error> {
    let holders = host.holders(&[device])?;
    if holders.is_empty() { Ok(()) } else { Err(Error::InUse { volume: wanted.volume.clone(), holders }) }
}

/// Writes the record, unless it says the same already. Where the volume is published stays known.
fn remember<H: Host>(volumes: &Volumes<H>, wanted: &Wanted, made: &mut Vec<undo::Made>) -> Result<(), Error> {
    let present = volumes.records.read(&wanted.volume)?;
    let record = Record {
        volume: wanted.volume.clone(),
        nqn: wanted.target.nqn.as_nqn().clone(),
        portal: wanted.target.portal,
        form: wanted.usage.form(),
        staging: wanted.staging.as_path().into(),
        published: present.as_ref().map(|record| record.published.clone()).unwrap_or_default(),
    };
    if present.as_ref() != Some(&record) {
        volumes.records.write(&record)?;
        made.push(undo::Made::Record { volume: wanted.volume.clone(), before: present });
    }
    Ok(())
}

/// Another array's volume that has the same slot, and so maybe the same NQN, and is on this node.
fn namesake<H: Host>(volumes: &Volumes<H>, wanted: &Wanted) -> Result<Option<VolumeId>, Error> {
    Ok(volumes.records.namesakes(&wanted.volume)?.pop().map(|record| record.volume))
}

fn observe<H: Host>(volumes: &Volumes<H>, wanted: &Wanted) -> Result<Observed, Error> {
    let Volumes { host, records, .. } = volumes;
    if let Some(other) = namesake(volumes, wanted)? {
        return Ok(Observed::Namesake(other));
    }
    let mounts = host.mounts()?;
    let record = records.read(&wanted.volume)?;
    if let Some(record) = record.clone() {
        if record.nqn != *wanted.target.nqn.as_nqn() && host.attachment(&record.nqn)? != Attachment::Absent {
            return Ok(Observed::Renamed(record.nqn));
        }
        if record.staging != wanted.staging.as_path() && mounts.layers(&record.staging).next().is_some() {
            return Ok(Observed::Elsewhere(record.staging));
        }
        if record.form != wanted.usage.form() && host.attachment(&record.nqn)? != Attachment::Absent {
            return Ok(Observed::OtherForm(record.form));
        }
    }
    let nqn = wanted.target.nqn.as_nqn();
    // Another array may export the same NQN: a connection is this volume's only if it leads to where the volume is.
    if let Some(live) = host.portals(nqn)?.into_iter().find(|live| *live != wanted.target.portal) {
        let known = record.is_some_and(|record| record.nqn == *nqn && record.portal == live);
        return Ok(if known { Observed::Moved(live) } else { Observed::OtherPortal(live) });
    }
    let device = match host.attachment(nqn)? {
        Attachment::Absent | Attachment::Lost => return Ok(Observed::Absent),
        Attachment::Connecting(_) | Attachment::Live(None) => return Ok(Observed::Pending),
        Attachment::Live(Some(device)) if device.size < wanted.size => return Ok(Observed::Short(device)),
        Attachment::Live(Some(device)) => device,
    };
    let staged = match (&wanted.usage, mounts.top(&wanted.staging)) {
        (Usage::Block, None) => Staged::Block,
        (Usage::Filesystem { .. }, None) => Staged::Unmounted(host.probe(&device)?),
        (Usage::Filesystem { .. }, Some(mount)) if mount.device == device.number => {
            // What is mounted read-only does not grow, however it fits.
            Staged::Mounted(if mount.is_read_only() {
                Fit::Fills
            } else {
                host.probe(&device)?.fit(device.size)
            })
        }
        (_, Some(mount)) => Staged::Other(mount.source.clone()),
    };
    Ok(Observed::Ready(device, staged))
}

fn next(wanted: &Wanted, observed: Observed) -> Step {
    let volume = wanted.volume.clone();
    let (device, staged) = match observed {
        Observed::Absent => return Step::Connect,
        Observed::Pending => return Step::Await,
        Observed::Renamed(old) => return Step::Refuse(Error::OtherConnection { volume, old }),
        Observed::Namesake(other) => return Step::Refuse(Error::Namesake { volume, other }),
        Observed::Moved(live) => {
            return Step::Refuse(Error::Moved { volume, live, wanted: wanted.target.portal });
        }
        Observed::OtherPortal(live) => {
            let Target { nqn, portal, .. } = wanted.target.clone();
            return Step::Refuse(Error::OtherPortal {
                volume,
                nqn: nqn.as_nqn().clone(),
                live,
                wanted: portal,
            });
        }
        Observed::Elsewhere(at) => return Step::Refuse(Error::StagedElsewhere { volume, at }),
        Observed::OtherForm(staged) => return Step::Refuse(Error::OtherForm { volume, staged }),
        Observed::Short(device) => {
            return Step::Refuse(Error::TooSmall { volume, found: device.size, wanted: wanted.size, device });
        }
        Observed::Ready(device, staged) => (device, staged),
    };
    match (staged, &wanted.usage) {
        (Staged::Other(source_device), _) => {
            Step::Refuse(Error::Taken { volume, staging: wanted.staging.clone(), source_device })
        }
        // A mounted volume is staged, whatever can be read of its superblock now: growing it is what NodeExpandVolume vouches for.
        (_, Usage::Block) | (Staged::Block | Staged::Mounted(Fit::Fills | Fit::Unknown(_)), _) => Step::Done,
        (Staged::Mounted(Fit::Smaller), Usage::Filesystem { fs, .. }) => Step::Grow(device, *fs),
        (Staged::Unmounted(content), Usage::Filesystem { fs, options }) => {
            prepare(volume, device, content, *fs, options)
        }
    }
}

/// What an unmounted device needs. Only a proof of blankness leads to a format.
fn prepare(
    volume: VolumeId,
    device: Device,
    content: Content,
    wanted: FsType,
    options: &MountOptions,
) -> Step {
    match content {
        Content::Has(Signature::Filesystem { fs, .. }) if fs == wanted => {
            Step::Mount(device, fs, options.clone())
        }
        Content::Has(Signature::Filesystem { fs, .. }) => {
            Step::Refuse(Error::Foreign { volume, device, found: fs.as_str().into(), wanted })
        }
        Content::Has(Signature::Foreign(found)) => {
            Step::Refuse(Error::Foreign { volume, device, found, wanted })
        }
        Content::Unreadable(reason) => Step::Refuse(Error::Unreadable { volume, reason }),
        Content::Blank(_) if options.is_read_only() => Step::Refuse(Error::BlankReadOnly { volume, device }),
        Content::Blank(blank) => Step::Format(blank, wanted),
    }
}

impl Step {
    /// Whether the volume is connected when this is to be done.
    fn finds_a_connection(&self) -> bool {
        match self {
            Self::Connect | Self::Refuse(_) => false,
            Self::Await | Self::Format(..) | Self::Mount(..) | Self::Grow(..) | Self::Done => true,
        }
    }

    /// As it is called in a trace.
    fn name(&self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Await => "wait for the device",
            Self::Format(..) => "format",
            Self::Mount(..) => "mount",
            Self::Grow(..) => "grow",
            Self::Done => "done",
            Self::Refuse(_) => "refuse",
        }
    }
}

#[cfg(test)]
mod tests;
