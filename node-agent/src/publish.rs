//! NodePublishVolume: from a staged volume to a path that kubelet gives to a pod.
//!
//! A filesystem is bound from the staging path. A block device gets a node of its own at the target path, made by mknod.
//! (1) The volume is staged, as what is asked for, under the name the controller says. One that an earlier driver staged has no
//! record, and is taken over if it is exactly this one. (2) The target is written down. (3) The
//! directory or node is made; what is stale there is replaced. (4) A read-only bind is made read-only.

use std::collections::BTreeSet;
use std::path::PathBuf;

use rds_csi_api::{Failure, Kind, Nqn, Portal, VolumeId};

use crate::host::{self, Device, DeviceNumber, Found, Host, KubeletPath, Subsystem};
use crate::storm;
use crate::volumes::record::{self, Form, Mending, Record};
use crate::volumes::undo::{self, Made};
use crate::volumes::{self, Volumes};

/// More than any way through [`next`] has.
const MOST_STEPS: usize = 8;

/// What kubelet asks for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Which volume.
    pub volume: VolumeId,
    /// What the controller says it is exported as.
    pub nqn: Nqn,
    /// And where.
    pub portal: Portal,
    /// Where it is staged.
    pub staging: KubeletPath,
    /// Where the pod is to find it.
    pub target: KubeletPath,
    /// As what.
    pub usage: Usage,
    /// Whether it may be published elsewhere on the node at the same time.
    pub sharing: Sharing,
    /// How its connection is to be held on to from now on, if the attachment says it.
    pub connection: Option<host::Target>,
}

/// Whether a volume may be published at several paths of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// It may.
    Shared,
    /// It may not (ReadWriteOncePod).
    Exclusive,
}

/// As what a volume is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// As a device node. Whether the pod may write is for the container runtime, which makes its own node from it.
    Block,
    /// As a directory.
    Filesystem(Writing),
}

/// Whether a pod may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writing {
    /// It may, and a staged filesystem that does not let it is not enough.
    Allowed,
    /// It may not, whatever the staged filesystem lets others do.
    Forbidden,
}

/// Why a volume is not published.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not staged.
    #[error("volume {volume} is not staged at {staging}: {reason}")]
    NotStaged {
        /// Which volume.
        volume: VolumeId,
        /// Where it should be.
        staging: KubeletPath,
        /// What is missing.
        reason: &'static str,
    },
    /// It is staged as something else.
    #[error("volume {volume} is staged as {staged}, which cannot be published as asked: unstage it first")]
    OtherForm {
        /// Which volume.
        volume: VolumeId,
        /// As what.
        staged: Form,
    },
    /// It was to be written to, and cannot be.
    #[error(
        "the filesystem staged at {staging} is read-only, as the kernel makes it after an error; delete the pods that \
         use the volume, so that it is unstaged and its filesystem can be checked, and see the node's kernel log"
    )]
    StagedReadOnly {
        /// Where it is staged.
        staging: KubeletPath,
    },
    /// It is published there already, in another way.
    #[error("the volume is published read-only at {target}, and not so is asked for: unpublish it first")]
    OtherMode {
        /// Where.
        target: KubeletPath,
    },
    /// It is published elsewhere.
    #[error("volume {volume} is for one pod at a time, and is published at {}: unpublish it there first", at.display())]
    PublishedElsewhere {
        /// Which volume.
        volume: VolumeId,
        /// Where.
        at: PathBuf,
    },
    /// Something else is there.
    #[error("{what} is at the target path {target}: it is not ours to remove")]
    Taken {
        /// Where.
        target: KubeletPath,
        /// What.
        what: String,
    },
    /// The target path cannot be looked at.
    #[error("target_path cannot be used")]
    Target(#[source] host::Error),
    /// It is mounted too often.
    #[error(transparent)]
    Storm(#[from] storm::Error),
    /// The steps did not lead anywhere.
    #[error("publishing took more than {MOST_STEPS} steps: the target path changes under it")]
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

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::NotStaged { .. }
            | Self::OtherForm { .. }
            | Self::StagedReadOnly { .. }
            | Self::PublishedElsewhere { .. }
            | Self::Taken { .. } => Kind::Refused,
            Self::OtherMode { .. } => Kind::Conflict,
            Self::Storm(error) => error.kind(),
            Self::Endless => Kind::Bug,
            Self::Host(error) | Self::Target(error) => error.kind(),
            Self::Record(error) => error.kind(),
            Self::Volumes(error) => error.kind(),
        }
    }
}

/// What there is to publish.
#[derive(Debug, Clone)]
enum Staged {
    /// Nothing, and why.
    Missing(&'static str),
    /// A volume of another form than asked for.
    Other(Form),
    /// A volume that another pod has for itself.
    Exclusive(PathBuf),
    /// A device.
    Block(Device),
    /// A mounted filesystem.
    Filesystem(Writing),
}

/// What is at the target path.
#[derive(Debug, Clone)]
enum Target {
    /// No mount, but this.
    Unmounted(Found),
    /// The volume's filesystem.
    Bound(Writing),
    /// A device file that an earlier driver mounted there, of the device with this number.
    BoundNode(DeviceNumber),
    /// A filesystem whose device is gone for good.
    Dead,
    /// Another filesystem.
    Other(String),
}

/// What to do next.
#[derive(Debug)]
enum Step {
    MakeDirectory,
    Bind,
    MakeReadOnly,
    MakeNode(Device),
    Unmount,
    DetachDead,
    RemoveStale,
    Done,
    Refuse(Error),
}

/// Publishes a volume. A repetition finds everything done and changes nothing.
pub fn publish<H: Host>(volumes: &Volumes<H>, wanted: &Wanted) -> Result<(), Error> {
    let mut made = Vec::new();
    let outcome = advance(volumes, wanted, &mut made);
    if outcome.is_err() {
        undo::undo(volumes, made);
    }
    outcome
}

fn advance<H: Host>(volumes: &Volumes<H>, wanted: &Wanted, made: &mut Vec<Made>) -> Result<(), Error> {
    let Volumes { host, .. } = volumes;
    let target = &wanted.target;
    for _ in 0..MOST_STEPS {
        let written = volumes.records.read(&wanted.volume)?;
        let record = match &written {
            Some(record) => Some(record.clone()),
            None => unrecorded(volumes, wanted)?,
        };
        let (staged, at) = observe(volumes, wanted, record.as_ref())?;
        let step = next(wanted, staged, at);
        let _span = tracing::info_span!("publish", otel.name = step.name()).entered();
        if let (Some(record), false) = (record, matches!(step, Step::Refuse(_))) {
            let changed = record.policy.is_some();
            remember(volumes, wanted, record, written, made)?;
            // A policy that was changed meanwhile is newer than what the attachment says.
            if let (Some(target), false) = (&wanted.connection, changed) {
                host.retune(target)?;
            }
        }
        match step {
            Step::Refuse(error) => return Err(error),
            Step::Done => return Ok(()),
            Step::MakeDirectory => {
                host.make_directory(target)?;
                made.push(Made::Directory(target.clone()));
            }
            Step::Bind => {
                host.bind(&wanted.staging, target)?;
                made.push(Made::Mount(target.clone()));
            }
            Step::Unmount => host.unmount(target)?,
            Step::DetachDead => host.detach_dead(target)?,
            Step::MakeReadOnly => host.make_read_only(target)?,
            Step::RemoveStale => host.remove_node(target)?,
            Step::MakeNode(device) => {
                host.make_node(&device, target)?;
                made.push(Made::Node(target.clone()));
            }
        }
    }
    Err(Error::Endless)
}

/// Writes the target down, unless it is written down already.
fn remember<H: Host>(
    volumes: &Volumes<H>,
    wanted: &Wanted,
    mut record: Record,
    before: Option<Record>,
    made: &mut Vec<Made>,
) -> Result<(), Error> {
    if record.published.insert(wanted.target.as_path().into()) {
        volumes.records.write(&record)?;
        made.push(Made::Record { volume: wanted.volume.clone(), before });
    }
    Ok(())
}

/// The record of a volume that is staged and was never written down, as the driver before this one left it: its own subsystem,
/// connected to where the controller says, and at the staging path exactly what staging would make.
fn unrecorded<H: Host>(volumes: &Volumes<H>, wanted: &Wanted) -> Result<Option<Record>, Error> {
    let host = &volumes.host;
    let Wanted { volume, nqn, portal, staging, usage, .. } = wanted;
    let known = volumes.connections(volume, None)?.into_iter().find(|(known, _)| known.as_nqn() == nqn);
    let Some(Subsystem { attachment, portals }) = known.map(|(_, seen)| seen).transpose()? else {
        return Ok(None);
    };
    if portals.iter().any(|live| live != portal) {
        return Ok(None);
    }
    let (Some(device), mounts) = (attachment.device(), host.mounts()?) else { return Ok(None) };
    let form = match (usage, mounts.top(staging)) {
        (Usage::Block, None) => Form::Block,
        (Usage::Filesystem(_), Some(mount)) if mount.device == device.number => {
            match mount.filesystem.parse() {
                Ok(fs) => Form::Filesystem(fs),
                Err(_) => return Ok(None),
            }
        }
        _ => return Ok(None),
    };
    let (volume, nqn, staging) = (volume.clone(), nqn.clone(), staging.as_path().into());
    Ok(Some(Record {
        volume,
        nqn,
        portal: *portal,
        form,
        staging,
        published: BTreeSet::new(),
        policy: None,
        mending: Mending::Done,
    }))
}

fn observe<H: Host>(
    volumes: &Volumes<H>,
    wanted: &Wanted,
    record: Option<&Record>,
) -> Result<(Staged, Target), Error> {
    let host = &volumes.host;
    let mounts = host.mounts()?;
    storm::check(volumes, &wanted.volume, &mounts)?;
    let missing = |reason| Ok((Staged::Missing(reason), Target::Unmounted(Found::Nothing)));
    let Some(record) = record else {
        return missing("it was never staged on this node");
    };
    if record.nqn != wanted.nqn {
        return missing("it is staged from an earlier attachment");
    }
    if wanted.sharing == Sharing::Exclusive
        && let Some(at) =
            volumes.published(record, &mounts)?.into_iter().find(|path| path != wanted.target.as_path())
    {
        return Ok((Staged::Exclusive(at), Target::Unmounted(Found::Nothing)));
    }
    // By the NQN, each time: the device may have another number than when the volume was staged.
    let attachment = host.attachment(&record.nqn)?;
    let Some(device) = attachment.device() else {
        return missing("its device is not there");
    };
    let staged = match (record.form, wanted.usage) {
        (Form::Block, Usage::Block) => Staged::Block(device.clone()),
        (Form::Filesystem(_), Usage::Filesystem(_)) => match mounts.top(&wanted.staging) {
            Some(mount) if mount.device != device.number => {
                Staged::Missing("another device is mounted there")
            }
            Some(mount) if mount.is_read_only() => Staged::Filesystem(Writing::Forbidden),
            Some(_) => Staged::Filesystem(Writing::Allowed),
            None => Staged::Missing("nothing is mounted there"),
        },
        (form, _) => Staged::Other(form),
    };
    let target = match mounts.top(&wanted.target) {
        None => Target::Unmounted(host.found_at(&wanted.target).map_err(Error::Target)?),
        Some(mount) if mount.device != device.number => match host.found_at(&wanted.target) {
            _ if volumes.is_dead(&mounts, &wanted.target)? => Target::Dead,
            Ok(Found::Node(number)) => Target::BoundNode(number),
            _ => Target::Other(mount.source.clone()),
        },
        Some(mount) if mount.is_read_only() => Target::Bound(Writing::Forbidden),
        Some(_) => Target::Bound(Writing::Allowed),
    };
    Ok((staged, target))
}

fn next(wanted: &Wanted, staged: Staged, target: Target) -> Step {
    let taken = |what: &str| Step::Refuse(Error::Taken { target: wanted.target.clone(), what: what.into() });
    match (staged, target) {
        (Staged::Missing(reason), _) => {
            let Wanted { volume, staging, .. } = wanted.clone();
            Step::Refuse(Error::NotStaged { volume, staging, reason })
        }
        (Staged::Exclusive(at), _) => {
            Step::Refuse(Error::PublishedElsewhere { volume: wanted.volume.clone(), at })
        }
        (Staged::Other(staged), _) => {
            Step::Refuse(Error::OtherForm { volume: wanted.volume.clone(), staged })
        }
        (_, Target::Other(source)) => taken(&source),
        (_, Target::Dead) => Step::DetachDead,

        (Staged::Filesystem(Writing::Forbidden), _)
            if wanted.usage == Usage::Filesystem(Writing::Allowed) =>
        {
            Step::Refuse(Error::StagedReadOnly { staging: wanted.staging.clone() })
        }
        (Staged::Filesystem(_), Target::Bound(present)) => match (wanted.usage, present) {
            (Usage::Filesystem(asked), present) if asked == present => Step::Done,
            (_, Writing::Allowed) => Step::MakeReadOnly,
            (_, Writing::Forbidden) => Step::Refuse(Error::OtherMode { target: wanted.target.clone() }),
        },
        (Staged::Filesystem(_), Target::Unmounted(found)) => match found {
            Found::Nothing => Step::MakeDirectory,
            Found::Directory => Step::Bind,
            Found::Node(_) | Found::EmptyFile | Found::Other => taken("something that is no directory"),
        },

        (Staged::Filesystem(_), Target::BoundNode(_)) => taken("a mounted device file"),
        (Staged::Block(device), Target::BoundNode(number)) if number == device.number => Step::Done,
        (Staged::Block(_), Target::BoundNode(_)) => Step::Unmount,
        (Staged::Block(_), Target::Bound(_)) => taken("a mount of the volume, which is a block volume,"),
        (Staged::Block(device), Target::Unmounted(found)) => match found {
            Found::Node(number) if number == device.number => Step::Done,
            Found::Nothing => Step::MakeNode(device),
            // Of the time before a reboot or a reconnect: now it may be another volume.
            Found::Node(_) | Found::EmptyFile => Step::RemoveStale,
            Found::Directory => taken("a directory"),
            Found::Other => taken("something that is no block device"),
        },
    }
}

impl Step {
    /// As it is called in a trace.
    fn name(&self) -> &'static str {
        match self {
            Self::MakeDirectory => "make the directory",
            Self::Bind => "bind",
            Self::MakeReadOnly => "make read-only",
            Self::MakeNode(_) => "make the device node",
            Self::Unmount => "unmount the stale node",
            Self::DetachDead => "detach a dead mount",
            Self::RemoveStale => "remove the stale node",
            Self::Done => "done",
            Self::Refuse(_) => "refuse",
        }
    }
}

#[cfg(test)]
mod tests;
