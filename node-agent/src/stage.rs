//! NodeStageVolume: from an attached volume to a device that is connected, and a filesystem that is mounted.
//!
//! (1) What is left of an earlier attachment is ended: a connection under another name that nobody uses, and at the staging path a
//! mount whose device is gone for good. (2) The record is written. (3) The subsystem is connected and its device waited for.
//! (4) The device is checked: it is the one, and large enough. A block volume is staged then. (5) The device is probed, and
//! formatted only if proven blank; a format that was cut off is wiped first. (6) It is mounted, and repaired only if it does not
//! mount, or says itself that it is flawed. (7) The filesystem grows if it is smaller than the device.

mod error;
mod observed;

use std::time::Duration;

use rds_csi_api::{Bytes, Failure, FsType, Kind, ReconnectPolicy, VolumeId};

use crate::host::{
    self, Attachment, Blank, Connected, Content, Device, Fit, Host, KubeletPath, ManagedNqn, MountOptions,
    Repair, Signature, State, Subsystem, Target, Unfinished,
};
use crate::repairs::Permission;
use crate::volumes::Volumes;
use crate::volumes::record::{Form, Mending, Record};
use crate::volumes::undo::{self, Made, Remains};

use observed::{Observed, Old, Staged, namesake, observe};

pub use error::Error;
pub use observed::make_way;

/// How long a connection may take to become a device: nearly all of it is the array's.
const DEVICE_TIME: Duration = Duration::from_secs(30);

/// How long an old connection may take to go.
const DISCONNECT_TIME: Duration = Duration::from_secs(30);

/// More than any way through [`next`] has, with some layers of dead mounts.
const MOST_STEPS: usize = 16;

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

/// What to do next.
#[derive(Debug)]
enum Step {
    Disconnect(ManagedNqn),
    Abandon(ManagedNqn),
    DetachDead(KubeletPath),
    Connect,
    Await,
    Wipe(Unfinished),
    Format(Blank, FsType),
    Repair(Device, FsType),
    Mount(Device, FsType, MountOptions, Fit),
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

/// Whether an earlier call, or an earlier driver, staged the volume at this path. Not knowing counts as yes.
fn is_staged<H: Host>(volumes: &Volumes<H>, wanted: &Wanted) -> bool {
    match volumes.records.read(&wanted.volume) {
        Ok(Some(record)) => {
            record.staging == wanted.staging.as_path()
                && !matches!(volumes.host.attachment(&record.nqn), Ok(Attachment::Absent))
        }
        // An earlier driver wrote no records. A connection to somewhere else is not this volume's.
        Ok(None) => volumes.connections(&wanted.volume, None).map_or(true, |connections| {
            let leads_there = |seen: Subsystem| seen.portals.iter().all(|live| *live == wanted.target.portal);
            connections.into_values().any(|seen| seen.map_or(true, leads_there))
        }),
        Err(_) => true,
    }
}

fn advance<H: Host>(volumes: &Volumes<H>, wanted: &Wanted, made: &mut Vec<Made>) -> Result<(), Error> {
    let host = &volumes.host;
    let mut tuned = false;
    for _ in 0..MOST_STEPS {
        let (record, observed) = observe(volumes, wanted)?;
        let step = next(wanted, observed);
        let target = target(wanted, record.as_ref());
        let _span = tracing::info_span!("stage", otel.name = step.name()).entered();
        if step.finds_a_connection() && !tuned {
            // Made by an earlier call, maybe under another policy.
            host.retune(&target)?;
            tuned = true;
        }
        if step.needs_a_record() {
            remember(volumes, wanted, record, made)?;
        }
        match step {
            Step::Refuse(error) => return Err(error),
            Step::Done => return Ok(()),
            Step::Disconnect(old) => {
                tracing::info!(%old, "the connection of an earlier attachment is ended");
                host.disconnect(&old, DISCONNECT_TIME)?;
            }
            Step::Abandon(old) => {
                tracing::warn!(%old, "the connection of an earlier attachment is ended, with what it had not written yet");
                host.abandon(&old, DISCONNECT_TIME)?;
            }
            Step::DetachDead(at) => {
                tracing::warn!(%at, "a mount whose device is gone for good is taken away");
                host.detach_dead(&at)?;
            }
            Step::Connect => {
                // Once more, now that our own record is there: of two namesakes that are staged at once, one at least sees the other.
                if let Some(other) = namesake(volumes, wanted)? {
                    return Err(Error::Namesake { volume: wanted.volume.clone(), other });
                }
                if host.connect(&target)? == Connected::Newly {
                    made.push(Made::Connection(wanted.target.nqn.clone()));
                    tuned = true;
                }
                host.wait_for_device(&wanted.target.nqn, DEVICE_TIME)?;
            }
            Step::Await => drop(host.wait_for_device(&wanted.target.nqn, DEVICE_TIME)?),
            Step::Wipe(unfinished) => {
                check_unused(host, wanted, unfinished.device())?;
                tracing::warn!(device = %unfinished.device(), "a format that was cut off is wiped, and begun again");
                host.wipe(unfinished)?;
            }
            Step::Format(blank, fs) => {
                check_unused(host, wanted, blank.device())?;
                tracing::info!(device = %blank.device(), fs = fs.as_str(), "the device is proven blank and is formatted");
                host.format(blank, fs)?;
            }
            Step::Repair(device, fs) => {
                tracing::warn!(%device, "the filesystem has recorded errors and is checked before it is mounted");
                repair(volumes, wanted, &device, fs)?;
            }
            Step::Mount(device, fs, options, fit) => {
                mount(volumes, wanted, &device, fs, &options)?;
                made.push(Made::Mount(wanted.staging.clone()));
                if fit == Fit::Fills || options.is_read_only() {
                    return Ok(());
                }
            }
            Step::Grow(device, fs) => {
                host.grow(&device, fs, &wanted.staging)?;
                // The superblock on the device follows in its own time: looking again would see the old size.
                return Ok(());
            }
        }
    }
    Err(Error::Endless)
}

/// What to connect to, under a policy that was changed after the attachment, if one was.
fn target(wanted: &Wanted, record: Option<&Record>) -> Target {
    let changed = record.and_then(|record| changed(wanted, record));
    Target { reconnect: changed.unwrap_or(wanted.target.reconnect), ..wanted.target.clone() }
}

/// The policy that the volume was given since this attachment. A newer one says the newest itself.
fn changed(wanted: &Wanted, record: &Record) -> Option<ReconnectPolicy> {
    record.policy.filter(|_| record.nqn == *wanted.target.nqn.as_nqn())
}

/// Mounting replays a journal or an XFS log, which is all that a crash needs. Only what does not mount is repaired.
fn mount<H: Host>(
    volumes: &Volumes<H>,
    wanted: &Wanted,
    device: &Device,
    fs: FsType,
    options: &MountOptions,
) -> Result<(), Error> {
    match volumes.host.mount(device, fs, &wanted.staging, options) {
        Err(error @ host::Error::Unmountable { .. }) if !options.is_read_only() => {
            tracing::warn!(%device, %error, "the filesystem does not mount and is repaired");
            repair(volumes, wanted, device, fs)?;
            Ok(volumes.host.mount(device, fs, &wanted.staging, options)?)
        }
        outcome => Ok(outcome?),
    }
}

/// Repairs a filesystem, and keeps in mind that it is not done until it is. It goes as far as nothing is lost, or once as far as it
/// must if somebody allowed that.
fn repair<H: Host>(volumes: &Volumes<H>, wanted: &Wanted, device: &Device, fs: FsType) -> Result<(), Error> {
    check_unused(&volumes.host, wanted, device)?;
    let volume = &wanted.volume;
    let how = match volumes.repairs.take(volume) {
        None => Repair::Safe,
        Some(Permission { asked_by, reason }) => {
            tracing::warn!(%volume, asked_by, reason, "the filesystem is repaired though some of it may be lost");
            Repair::Thorough
        }
    };
    note(volumes, volume, Mending::Begun)?;
    match volumes.host.repair(device, fs, how) {
        Err(source @ host::Error::Failed { .. }) if how == Repair::Safe => {
            return Err(Error::Unrepaired { volume: volume.clone(), source: Box::new(source) });
        }
        outcome => outcome?,
    }
    note(volumes, volume, Mending::Done)
}

/// The record was written before.
fn note<H: Host>(volumes: &Volumes<H>, volume: &VolumeId, mending: Mending) -> Result<(), Error> {
    match volumes.records.read(volume)? {
        Some(record) if record.mending != mending => {
            Ok(volumes.records.write(&Record { mending, ..record })?)
        }
        Some(_) | None => Ok(()),
    }
}

/// Nothing is formatted or repaired under anybody who has the device open: not every program claims it for itself.
fn check_unused<H: Host>(host: &H, wanted: &Wanted, device: &Device) -> Result<(), Error> {
    let holders = host.holders(&[device.number])?;
    if holders.is_empty() { Ok(()) } else { Err(Error::InUse { volume: wanted.volume.clone(), holders }) }
}

/// Writes the record, unless it says the same already. Where the volume is published stays known.
fn remember<H: Host>(
    volumes: &Volumes<H>,
    wanted: &Wanted,
    present: Option<Record>,
    made: &mut Vec<Made>,
) -> Result<(), Error> {
    let record = Record {
        volume: wanted.volume.clone(),
        nqn: wanted.target.nqn.as_nqn().clone(),
        portal: wanted.target.portal,
        form: wanted.usage.form(),
        staging: wanted.staging.as_path().into(),
        published: present.as_ref().map(|record| record.published.clone()).unwrap_or_default(),
        policy: present.as_ref().and_then(|record| changed(wanted, record)),
        mending: present.as_ref().map_or(Mending::Done, |record| record.mending),
    };
    if present.as_ref() != Some(&record) {
        volumes.records.write(&record)?;
        made.push(Made::Record { volume: wanted.volume.clone(), before: present });
    }
    Ok(())
}

fn next(wanted: &Wanted, observed: Observed) -> Step {
    let volume = wanted.volume.clone();
    let (device, staged) = match observed {
        Observed::Absent => return Step::Connect,
        Observed::Pending => return Step::Await,
        Observed::Renamed(old, Old::Idle) => return Step::Disconnect(old),
        Observed::Renamed(old, Old::Stuck) => return Step::Abandon(old),
        Observed::Renamed(old, Old::InUse(holders)) => {
            return Step::Refuse(Error::OtherConnection { volume, old, holders });
        }
        Observed::Dead(at) => return Step::DetachDead(at),
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
        (Staged::Unmounted(content, mending), Usage::Filesystem { fs, options }) => {
            prepare(volume, device, content, mending, *fs, options)
        }
    }
}

/// What an unmounted device needs. Only a proof of blankness leads to a format.
fn prepare(
    volume: VolumeId,
    device: Device,
    content: Content,
    mending: Mending,
    wanted: FsType,
    options: &MountOptions,
) -> Step {
    match content {
        Content::Has(Signature::Filesystem { fs, state, .. })
            if fs == wanted
                && (state == State::Flawed || mending == Mending::Begun)
                && !options.is_read_only() =>
        {
            Step::Repair(device, fs)
        }
        Content::Has(Signature::Filesystem { fs, .. }) if fs == wanted => {
            let fit = content.fit(device.size);
            Step::Mount(device, fs, options.clone(), fit)
        }
        Content::Has(Signature::Filesystem { fs, .. }) => {
            Step::Refuse(Error::Foreign { volume, device, found: fs.as_str().into(), wanted })
        }
        Content::Has(Signature::Foreign(found)) => {
            Step::Refuse(Error::Foreign { volume, device, found, wanted })
        }
        Content::Unfinished(unfinished) if options.is_read_only() => {
            Step::Refuse(Error::BlankReadOnly { volume, device: unfinished.device().clone() })
        }
        Content::Unfinished(unfinished) => Step::Wipe(unfinished),
        Content::Unreadable(reason) => Step::Refuse(Error::Unreadable { volume, reason }),
        Content::Blank(_) if options.is_read_only() => Step::Refuse(Error::BlankReadOnly { volume, device }),
        Content::Blank(blank) => Step::Format(blank, wanted),
    }
}

impl Step {
    /// Whether the volume is connected when this is to be done.
    fn finds_a_connection(&self) -> bool {
        match self {
            Self::Disconnect(_)
            | Self::Abandon(_)
            | Self::DetachDead(_)
            | Self::Connect
            | Self::Refuse(_) => false,
            Self::Await
            | Self::Wipe(_)
            | Self::Format(..)
            | Self::Repair(..)
            | Self::Mount(..)
            | Self::Grow(..)
            | Self::Done => true,
        }
    }

    /// Whether the volume must be written down before this is done: it changes the machine for it, or vouches that it did.
    fn needs_a_record(&self) -> bool {
        self.finds_a_connection() || matches!(self, Self::Connect)
    }

    /// As it is called in a trace.
    fn name(&self) -> &'static str {
        match self {
            Self::Disconnect(_) => "end the old connection",
            Self::Abandon(_) => "abandon the old connection",
            Self::DetachDead(_) => "detach a dead mount",
            Self::Connect => "connect",
            Self::Await => "wait for the device",
            Self::Wipe(_) => "wipe",
            Self::Format(..) => "format",
            Self::Repair(..) => "repair",
            Self::Mount(..) => "mount",
            Self::Grow(..) => "grow",
            Self::Done => "done",
            Self::Refuse(_) => "refuse",
        }
    }
}

#[cfg(test)]
mod tests;
