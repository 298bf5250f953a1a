//! Which volumes could not be mounted: kubelet comes again and again, and one event says it all.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rds_csi_api::{Failure, VolumeId, status};

use crate::events::{Events, Reason};

/// Tells of a volume that cannot be mounted once, until it was. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct MountFailures {
    events: Events,
    failing: Arc<Mutex<BTreeSet<VolumeId>>>,
}

impl MountFailures {
    /// Tells it there.
    pub(super) fn new(events: Events) -> Self {
        Self { events, failing: Arc::default() }
    }

    /// It cannot.
    pub(super) fn failed(&self, volume: &VolumeId, error: &impl Failure) {
        if self.failing().insert(volume.clone()) {
            self.events.record(volume, Reason::MountFailure, status::chain(error));
        }
    }

    /// It was, or nobody wants it any more.
    pub(super) fn ended(&self, volume: &VolumeId) {
        self.failing().remove(volume);
    }

    /// A set stays whole if a thread panicked beside it, so poison means nothing here.
    fn failing(&self) -> MutexGuard<'_, BTreeSet<VolumeId>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
