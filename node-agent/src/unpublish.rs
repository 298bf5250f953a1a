//! NodeUnpublishVolume: from a published path to nothing there.
//!
//! (1) Every layer at the target path is unmounted, and the mount table is read again after each. (2) What is left is removed if it
//! is an empty directory, a device node or an empty file. Nothing is ever deleted recursively: once that emptied volumes
//! through a mount that was still stacked there. (3) The target is forgotten. A target that is not there is unpublished already.

use rds_csi_api::status::chain;
use rds_csi_api::{Failure, Kind, VolumeId};

use crate::host::{self, Found, Holder, Host, KubeletPath, Use, in_use};
use crate::volumes::{self, Volumes, record};

/// Layers at the target path, the path itself, the record.
const MOST_STEPS: usize = 64;

/// What kubelet asks for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Which volume.
    pub volume: VolumeId,
    /// Where it is published.
    pub target: KubeletPath,
}

/// Why a volume is not unpublished.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something that we never make is there.
    #[error("{target} is neither a directory nor a device node: it is not ours to remove")]
    NotOurs {
        /// Where.
        target: KubeletPath,
    },
    /// Something within the mount is in use.
    #[error("{target} is in use and stays mounted: {}", in_use::told(holders))]
    InUse {
        /// Where.
        target: KubeletPath,
        /// What uses the volume's files.
        holders: Vec<Holder>,
    },
    /// The steps did not lead anywhere.
    #[error("unpublishing took more than {MOST_STEPS} steps: the mounts at the target path come back")]
    Endless,
    /// The machine did not do it.
    #[error(transparent)]
    Host(#[from] host::Error),
    /// The record could not be read or written.
    #[error(transparent)]
    Record(#[from] record::Error),
    /// The volume could not be looked at.
    #[error(transparent)]
    Volumes(#[from] volumes::Error),
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::NotOurs { .. } => Kind::Refused,
            Self::InUse { .. } => Kind::InUse,
            Self::Endless => Kind::Bug,
            Self::Host(error) => error.kind(),
            Self::Record(error) => error.kind(),
            Self::Volumes(error) => error.kind(),
        }
    }
}

/// What is at the target path, and whether it is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Observed {
    /// A mount, perhaps on others.
    Mounted,
    /// No mount, but this; written down or not.
    Unmounted(Found),
    /// Nothing, but it is written down.
    Recorded,
    /// Nothing.
    Gone,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Unmount,
    RemoveDirectory,
    RemoveNode,
    Forget,
    Done,
    Refuse,
}

/// Unpublishes a volume.
pub fn unpublish<H: Host>(volumes: &Volumes<H>, wanted: &Wanted) -> Result<(), Error> {
    let target = &wanted.target;
    for _ in 0..MOST_STEPS {
        match next(observe(volumes, wanted)?) {
            Step::Done => return Ok(()),
            Step::Refuse => return Err(Error::NotOurs { target: target.clone() }),
            Step::Unmount => unmount(volumes, wanted)?,
            Step::RemoveDirectory => volumes.host.remove_directory(target)?,
            Step::RemoveNode => volumes.host.remove_node(target)?,
            Step::Forget => {
                if let Some(mut record) = volumes.records.read(&wanted.volume)? {
                    record.published.remove(target.as_path());
                    if let Err(error) = volumes.records.write(&record) {
                        // On a full disk pods must end all the same. Whoever reads a path in a record looks at what is there, and
                        // kubelet gives it to no other volume.
                        tracing::warn!(%target, "it is unpublished, and stays written down: {}", chain(&error));
                        return Ok(());
                    }
                }
            }
        }
    }
    Err(Error::Endless)
}

/// The kernel only says that a mount is busy; a person needs to know with what.
fn unmount<H: Host>(volumes: &Volumes<H>, wanted: &Wanted) -> Result<(), Error> {
    match volumes.host.unmount(&wanted.target) {
        Err(host::Error::Busy { .. }) => {
            let mut holders = volumes.holders(&wanted.volume)?;
            holders.retain(|holder| holder.how == Use::OpenFile);
            Err(Error::InUse { target: wanted.target.clone(), holders })
        }
        outcome => Ok(outcome?),
    }
}

fn observe<H: Host>(volumes: &Volumes<H>, wanted: &Wanted) -> Result<Observed, Error> {
    let Volumes { host, records, .. } = volumes;
    // Before looking at the path itself: the root of a dead filesystem does not answer.
    if host.mounts()?.top(&wanted.target).is_some() {
        return Ok(Observed::Mounted);
    }
    Ok(match host.found_at(&wanted.target)? {
        Found::Nothing => {
            let record = records.read(&wanted.volume)?;
            let known = record.is_some_and(|record| record.published.contains(wanted.target.as_path()));
            if known { Observed::Recorded } else { Observed::Gone }
        }
        found => Observed::Unmounted(found),
    })
}

fn next(observed: Observed) -> Step {
    match observed {
        Observed::Mounted => Step::Unmount,
        Observed::Unmounted(Found::Directory) => Step::RemoveDirectory,
        Observed::Unmounted(Found::Node(_) | Found::EmptyFile) => Step::RemoveNode,
        Observed::Unmounted(Found::Other) => Step::Refuse,
        Observed::Recorded => Step::Forget,
        Observed::Unmounted(Found::Nothing) | Observed::Gone => Step::Done,
    }
}

#[cfg(test)]
mod tests;
