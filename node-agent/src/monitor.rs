//! Watches over the volumes of this node: looks whenever the kernel says that something changed, and each second for what it does not say.
//!
//! It tells what changed as events, and keeps the last look for the gauges. It changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rds_csi_api::VolumeId;
use rds_csi_api::serve::tasks::TaskError;
use rds_csi_api::status::chain;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::events::{Events, Reason};
use crate::host::{Host, Watch};
use crate::volumes::health::{Ailment, Trouble};
use crate::volumes::survey::{InUse, Seen, Survey, survey};
use crate::volumes::{self, Volumes};

mod gauges;

pub use gauges::Gauges;

/// The kernel announces that a controller is connected again, and not that it was lost; nor does it announce that a filesystem
/// became read-only. This is shorter than the pause before a reconnect is tried, and a look reads some thirty small files of the
/// kernel's per volume: a few milliseconds for a full node.
const UNANNOUNCED: Duration = Duration::from_secs(1);

/// How long a look may take. The kernel's own tables do not wait for any device.
const LOOK_TIME: Duration = Duration::from_secs(10);

/// The last look; nothing if it failed, or does not end. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct LastLook(Arc<Mutex<Option<Survey>>>);

impl LastLook {
    fn set(&self, look: Option<Survey>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = look;
    }

    fn read<T>(&self, read: impl FnOnce(&Survey) -> T) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(read)
    }
}

/// What it knows between two looks.
#[derive(Debug)]
pub struct Monitor<H> {
    volumes: Arc<Volumes<H>>,
    events: Events,
    last: LastLook,
    /// The trouble of each volume in use when it was last seen.
    before: BTreeMap<VolumeId, Option<Ailment>>,
    /// What the log says of that which cannot be seen.
    unseen: BTreeSet<String>,
}

impl<H: Host> Monitor<H> {
    /// Of these volumes.
    pub fn new(volumes: Arc<Volumes<H>>, events: Events) -> Self {
        Self { volumes, events, last: LastLook::default(), before: BTreeMap::new(), unseen: BTreeSet::new() }
    }

    /// What the gauges read.
    pub fn last_look(&self) -> LastLook {
        self.last.clone()
    }

    /// Looks on until the process ends.
    pub async fn run(mut self, mut watch: Watch, shutdown: CancellationToken) -> Result<(), TaskError> {
        loop {
            let volumes = Arc::clone(&self.volumes);
            let mut look = spawn_blocking(move || survey(&volumes));
            let looked = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                looked = &mut look => looked?,
                () = sleep(LOOK_TIME) => {
                    self.cannot_see(["no look has ended in time: see the kernel's log for hung tasks".into()].into());
                    self.last.set(None);
                    tokio::select! {
                        () = shutdown.cancelled() => return Ok(()),
                        looked = look => looked?,
                    }
                }
            };
            self.take(looked);
            let change = spawn_blocking(move || watch.next(UNANNOUNCED).map(|()| watch));
            watch = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                changed = change => changed??,
            };
        }
    }

    fn take(&mut self, looked: Result<Survey, volumes::Error>) {
        let survey = match looked {
            Ok(survey) => survey,
            Err(error) => {
                self.cannot_see([chain(&error)].into());
                self.last.set(None);
                return;
            }
        };
        let Survey { seen, unseen } = &survey;
        // A volume that cannot be seen now keeps what was known of it.
        self.before.retain(|volume, _| seen.contains_key(volume) || unseen.contains_key(volume));
        for (volume, seen) in seen.iter().filter(|(_, seen)| seen.in_use == InUse::Yes) {
            let before = self.before.insert(volume.clone(), ailment(seen)).flatten();
            for (reason, message) in changes(volume, before, seen.trouble.as_ref()) {
                self.events.record(volume, reason, message);
            }
        }
        let told = unseen.iter().map(|(volume, error)| format!("volume {volume}: {}", chain(error)));
        self.cannot_see(told.collect());
        self.last.set(Some(survey));
    }

    /// Tells the log what it does not know yet.
    fn cannot_see(&mut self, told: BTreeSet<String>) {
        for what in told.difference(&self.unseen) {
            tracing::warn!("nobody can say how the volumes of this node are: {what}");
        }
        self.unseen = told;
    }
}

fn ailment(seen: &Seen) -> Option<Ailment> {
    seen.trouble.as_ref().map(|trouble| trouble.ailment)
}

/// What there is to tell of a volume in use.
pub(crate) fn changes(
    volume: &VolumeId,
    before: Option<Ailment>,
    now: Option<&Trouble>,
) -> Vec<(Reason, String)> {
    let is_lost = |ailment| matches!(ailment, Some(Ailment::GivenUp | Ailment::Unanswered));
    // Given up while something is mounted: that mount never works again.
    let is_stale = |ailment| matches!(ailment, Some(Ailment::GivenUp | Ailment::Stale));
    let is_read_only = |ailment| ailment == Some(Ailment::ReadOnly);
    let ailment = now.map(|trouble| trouble.ailment);
    let told = now.map(|trouble| trouble.told.clone()).unwrap_or_default();
    let mut changes = Vec::new();
    if is_lost(ailment) && !is_lost(before) {
        changes.push((Reason::ConnectionLost, told.clone()));
    }
    if is_lost(before) && !is_lost(ailment) {
        changes.push((Reason::ConnectionRecovered, format!("the array answers again for volume {volume}")));
    }
    if is_stale(ailment) && !is_stale(before) {
        changes.push((Reason::StaleMountDetected, told.clone()));
    }
    if is_read_only(ailment) && !is_read_only(before) {
        changes.push((Reason::VolumeReadOnly, told.clone()));
    }
    if ailment == Some(Ailment::Storm) && before != ailment {
        changes.push((Reason::MountStorm, told));
    }
    changes
}

#[cfg(test)]
mod tests;
