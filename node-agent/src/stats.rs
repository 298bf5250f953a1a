//! NodeGetVolumeStats: how full a volume is, and whether it is well.
//!
//! It changes nothing and takes no lock, so it answers while the volume is being staged; and nothing makes it wait for long: a
//! filesystem that does not answer is told as what is wrong with the volume.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rds_csi_api::status::chain;
use rds_csi_api::{Bytes, Failure, Kind, VolumeId};
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::timeout;

use crate::host::{self, Attachment, DeviceNumber, Found, Host, KubeletPath, Usage};
use crate::reads;
use crate::volumes::health::{self, Condition, Facts, Used};
use crate::volumes::record::{self, Form};
use crate::volumes::{self, Volumes};

/// How long the kernel's own tables may take. They do not wait for any device.
pub(crate) const LOOK_TIME: Duration = Duration::from_secs(10);

/// What kubelet asks for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Which volume.
    pub volume: VolumeId,
    /// Where it is staged or published.
    pub path: PathBuf,
}

/// What there is to say about a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// How full it is.
    pub fullness: Fullness,
    /// Whether it is well.
    pub condition: Condition,
    /// How it is connected.
    pub attachment: Attachment,
}

/// How full a volume is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fullness {
    /// Of a filesystem.
    Filesystem(Usage),
    /// A block volume has a size, and what of it is used is only its user's knowledge.
    Block(Bytes),
    /// Nobody can say now.
    Unknown,
}

/// Why there is nothing to say.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody staged it.
    #[error("volume {volume} is not staged on this node")]
    Unknown {
        /// Which volume.
        volume: VolumeId,
    },
    /// It is not there.
    #[error("nothing of volume {volume} is at {}", path.display())]
    Elsewhere {
        /// Which volume.
        volume: VolumeId,
        /// Where it should be.
        path: PathBuf,
    },
    /// The machine does not say.
    #[error(transparent)]
    Reads(#[from] reads::Error),
    /// A thread ended before its work was done.
    #[error("the driver has a bug")]
    Thread(#[from] JoinError),
    /// The machine could not be read.
    #[error(transparent)]
    Host(#[from] host::Error),
    /// The record could not be read.
    #[error(transparent)]
    Record(#[from] record::Error),
    /// The volume could not be looked at.
    #[error(transparent)]
    Volumes(#[from] volumes::Error),
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Unknown { .. } | Self::Elsewhere { .. } => Kind::Missing,
            Self::Reads(error) => error.kind(),
            Self::Thread(_) => Kind::Bug,
            Self::Host(error) => error.kind(),
            Self::Record(error) => error.kind(),
            Self::Volumes(error) => error.kind(),
        }
    }
}

/// The measurements that run now. A system call that hangs keeps its thread for ever, and kubelet asks again each minute: so a
/// volume whose filesystem does not answer is not measured once more. Clones are the same.
#[derive(Debug, Clone)]
pub struct Measuring {
    limit: Duration,
    running: Arc<Mutex<HashMap<VolumeId, Vec<Instant>>>>,
}

impl Measuring {
    /// A filesystem may take so long to answer.
    pub fn new(limit: Duration) -> Self {
        Self { limit, running: Arc::default() }
    }

    /// Begins one, unless an earlier one hangs: then since when.
    fn begin(&self, volume: &VolumeId) -> Result<Measurement, Duration> {
        let mut running = self.running();
        let begun = running.entry(volume.clone()).or_default();
        if let Some(elapsed) = begun.iter().map(Instant::elapsed).find(|elapsed| *elapsed > self.limit) {
            return Err(elapsed);
        }
        let now = Instant::now();
        begun.push(now);
        Ok(Measurement { measuring: self.clone(), volume: volume.clone(), begun: now })
    }

    fn running(&self) -> MutexGuard<'_, HashMap<VolumeId, Vec<Instant>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A measurement that runs. It moves into the thread that may hang.
struct Measurement {
    measuring: Measuring,
    volume: VolumeId,
    begun: Instant,
}

impl Drop for Measurement {
    fn drop(&mut self) {
        let mut running = self.measuring.running();
        if let Some(begun) = running.get_mut(&self.volume) {
            if let Some(place) = begun.iter().position(|begun| *begun == self.begun) {
                begun.remove(place);
            }
            if begun.is_empty() {
                running.remove(&self.volume);
            }
        }
    }
}

/// Says how a volume is.
pub async fn stats<H: Host>(
    volumes: Arc<Volumes<H>>,
    measuring: &Measuring,
    wanted: Wanted,
) -> Result<Report, Error> {
    let volume = wanted.volume.clone();
    let look = {
        let (volumes, wanted) = (Arc::clone(&volumes), wanted.clone());
        move || observe(&volumes, &wanted)
    };
    let Seen { facts, place } = volumes.reads.run(format!("volume {volume}"), LOOK_TIME, look).await?;
    let condition = health::judge(&facts);
    let Facts { attachment, used, .. } = facts;
    let mount = match used {
        Used::Nothing | Used::Block(_) => {
            let fullness =
                attachment.device().map_or(Fullness::Unknown, |device| Fullness::Block(device.size));
            return Ok(Report { fullness, condition, attachment });
        }
        Used::Filesystem { mount, .. } => mount,
    };
    let (fullness, condition) = match measure(volumes, measuring, &volume, place, mount.device).await? {
        Measured::Usage(usage) => (Fullness::Filesystem(usage), condition),
        Measured::Unmounted => return Err(Error::Elsewhere { volume, path: wanted.path }),
        Measured::Nothing(reason) => match condition {
            Condition::Sound => (Fullness::Unknown, Condition::Abnormal(reason)),
            known @ Condition::Abnormal(_) => (Fullness::Unknown, known),
        },
    };
    Ok(Report { fullness, condition, attachment })
}

/// What a measurement came to.
enum Measured {
    Usage(Usage),
    Unmounted,
    Nothing(String),
}

async fn measure<H: Host>(
    volumes: Arc<Volumes<H>>,
    measuring: &Measuring,
    volume: &VolumeId,
    place: KubeletPath,
    device: DeviceNumber,
) -> Result<Measured, Error> {
    let silent = |since: Duration| {
        Measured::Nothing(format!(
            "the filesystem of volume {volume} does not answer for {} s: see the node's kernel log",
            since.as_secs()
        ))
    };
    let measurement = match measuring.begin(volume) {
        Ok(measurement) => measurement,
        Err(since) => return Ok(silent(since)),
    };
    let thread = spawn_blocking(move || {
        let _measurement = measurement;
        volumes.host.usage(&place, device)
    });
    let Ok(outcome) = timeout(measuring.limit, thread).await else {
        return Ok(silent(measuring.limit));
    };
    Ok(match outcome? {
        Ok(Some(usage)) => Measured::Usage(usage),
        Ok(None) => Measured::Unmounted,
        // XFS that has shut itself down says so to everybody who asks.
        Err(error) => Measured::Nothing(format!(
            "the filesystem of volume {volume} does not answer: {}; see the node's kernel log",
            chain(&error)
        )),
    })
}

/// What was seen, and where to measure.
struct Seen {
    facts: Facts,
    place: KubeletPath,
}

fn observe<H: Host>(volumes: &Volumes<H>, wanted: &Wanted) -> Result<Seen, Error> {
    let Volumes { host, records, .. } = volumes;
    let Wanted { volume, path } = wanted;
    let elsewhere = || Error::Elsewhere { volume: volume.clone(), path: path.clone() };
    let record = match (records.read(volume)?, volumes.path(path)) {
        (None, Some(place)) => volumes.unrecorded(volume, &place)?,
        (record, _) => record,
    };
    let record = record.ok_or_else(|| Error::Unknown { volume: volume.clone() })?;
    let place = volumes.path(path).filter(|_| record.names(path)).ok_or_else(elsewhere)?;
    let attachment = host.attachment(&record.nqn)?;
    let used = match record.form {
        // A staged block volume has nothing at its path but its connection.
        Form::Block if record.staging == *path && attachment != Attachment::Absent => Used::Block(None),
        Form::Block => match host.found_at(&place)? {
            Found::Node(number) => Used::Block(Some(number)),
            Found::Nothing | Found::Directory | Found::EmptyFile | Found::Other => return Err(elsewhere()),
        },
        Form::Filesystem(fs) => {
            let mounts = host.mounts()?;
            let here = mounts.top(&place).ok_or_else(elsewhere)?;
            let mount = mounts.layers(&record.staging).next_back().unwrap_or(here).clone();
            let errors = match attachment.device() {
                Some(device) => host.recorded_errors(device, fs)?,
                None => 0,
            };
            Used::Filesystem { mount, errors }
        }
    };
    Ok(Seen { facts: Facts { volume: volume.clone(), attachment, used }, place })
}

#[cfg(test)]
mod tests;
