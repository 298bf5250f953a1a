//! NodeStageVolume: from an attached volume to a device that is connected, and a filesystem that is mounted.
//!
//! (1) What is left of an earlier attachment is ended: a connection under another name that nobody uses, and at the staging path a
//! mount whose device is gone for good. (2) The record is written. (3) The subsystem is connected and its device waited for.
//! (4) The device is checked: it is the one, and large enough. A block volume is staged then. (5) The device is probed, and
//! formatted only if proven blank; a format that was cut off is wiped first. (6) It is mounted, and repaired only if it does not
//! mount, or says itself that it is flawed. (7) The filesystem grows if it is smaller than the device.

mod error;

use std::path::{Path, PathBuf};
use std::time::Duration;

use rds_csi_api::{Bytes, Failure, FsType, Kind, Portal, VolumeId};

use crate::host::{
    self, Attachment, Blank, Connected, Content, Device, Fit, Holder, Host, KubeletPath, ManagedNqn,
    MountOptions, Signature, State, Target, Unfinished, Use,
};
use crate::storm;
use crate::volumes::Volumes;
use crate::volumes::record::{Form, Record};
use crate::volumes::undo::{self, Remains};

pub use error::Error;

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
    Renamed(ManagedNqn, Old),
    /// The topmost mount at this path is of a device that is gone for good.
    Dead(KubeletPath),
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

/// How the connection of an earlier attachment is.
#[derive(Debug)]
enum Old {
    /// Nothing uses it.
    Idle,
    /// It does not work, and nothing uses it but mounts that were made for kubelet. What they have not written must not reach the
    /// volume any more: somebody else may have written to it since.
    Stuck,
    /// Something uses it.
    InUse(Vec<Holder>),
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
    Disconnect(ManagedNqn),
    Abandon(ManagedNqn),
    DetachDead(KubeletPath),
    Connect,
    Await,
    Wipe(Unfinished),
    Format(Blank, FsType),
    Repair(Device, FsType),
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

/// Whether an earlier call, or an earlier driver, staged the volume at this path. Not knowing counts as yes.
fn is_staged<H: Host>(volumes: &Volumes<H>, wanted: &Wanted) -> bool {
    match volumes.records.read(&wanted.volume) {
        Ok(Some(record)) => {
            record.staging == wanted.staging.as_path()
                && !matches!(volumes.host.attachment(&record.nqn), Ok(Attachment::Absent))
        }
        // An earlier driver wrote no records. A connection to somewhere else is not this volume's.
        Ok(None) => volumes.connections(&wanted.volume).map_or(true, |connections| {
            let leads_there = |live: Vec<_>| live.iter().all(|live| *live == wanted.target.portal);
            connections.iter().any(|nqn| volumes.host.portals(nqn.as_nqn()).map_or(true, leads_there))
        }),
        Err(_) => true,
    }
}

fn advance<H: Host>(volumes: &Volumes<H>, wanted: &Wanted, made: &mut Vec<undo::Made>) -> Result<(), Error> {
    let host = &volumes.host;
    storm::check(volumes, &wanted.volume)?;
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
            Step::Wipe(unfinished) => {
                remember(volumes, wanted, made)?;
                check_unused(host, wanted, unfinished.device())?;
                tracing::warn!(device = %unfinished.device(), "a format that was cut off is wiped, and begun again");
                host.wipe(unfinished)?;
            }
            Step::Format(blank, fs) => {
                remember(volumes, wanted, made)?;
                check_unused(host, wanted, blank.device())?;
                tracing::info!(device = %blank.device(), fs = fs.as_str(), "the device is proven blank and is formatted");
                host.format(blank, fs)?;
            }
            Step::Repair(device, fs) => {
                remember(volumes, wanted, made)?;
                check_unused(host, wanted, &device)?;
                tracing::warn!(%device, "the filesystem has recorded errors and is checked before it is mounted");
                host.repair(&device, fs)?;
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
    let holders = host.holders(&[device.number])?;
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
    let record = records.read(&wanted.volume)?;
    for old in volumes.connections(&wanted.volume)? {
        if old != wanted.target.nqn
            && let Some(how) = earlier(volumes, wanted, record.as_ref(), &old)?
        {
            return Ok(Observed::Renamed(old, how));
        }
    }
    let mounts = host.mounts()?;
    if volumes.is_dead(&mounts, &wanted.staging)? {
        return Ok(Observed::Dead(wanted.staging.clone()));
    }
    if let Some(record) = record.clone() {
        if let Some(staging) = volumes.path(&record.staging)
            && volumes.is_dead(&mounts, &staging)?
        {
            return Ok(Observed::Dead(staging));
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

/// How a connection of the volume is that is not the one asked for; none if it is over, whatever is still held of it: without a
/// controller nothing of it can be written anywhere.
fn earlier<H: Host>(
    volumes: &Volumes<H>,
    wanted: &Wanted,
    record: Option<&Record>,
    old: &ManagedNqn,
) -> Result<Option<Old>, Error> {
    let host = &volumes.host;
    let attachment = host.attachment(old.as_nqn())?;
    let devices: Vec<_> = attachment.device().map(|device| device.number).into_iter().collect();
    let mut holders = host.holders(&devices)?;
    let idle = match attachment {
        Attachment::Absent | Attachment::Lost => return Ok(None),
        Attachment::Live(_) => Old::Idle,
        Attachment::Connecting(_) => {
            let ours = |path: &Path| {
                path == wanted.staging.as_path() || record.is_some_and(|record| record.names(path))
            };
            let all = holders.len();
            holders.retain(|holder| holder.how != Use::Mount || !ours(&holder.path));
            if holders.len() < all { Old::Stuck } else { Old::Idle }
        }
    };
    Ok(Some(if holders.is_empty() { idle } else { Old::InUse(holders) }))
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
        Content::Has(Signature::Filesystem { fs, state: State::Flawed, .. })
            if fs == wanted && !options.is_read_only() =>
        {
            Step::Repair(device, fs)
        }
        Content::Has(Signature::Filesystem { fs, .. }) if fs == wanted => {
            Step::Mount(device, fs, options.clone())
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
