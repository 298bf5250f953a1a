//! One operation per volume at a time; different volumes never wait for each other.
//!
//! Volumes of two arrays that have the same slot count as one: they may share an NQN, and on a node only that tells them apart.

use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::failure::{Failure, Kind};
use crate::volume_id::VolumeId;

/// The volumes that an operation is running on. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct VolumeLocks(Arc<Locked>);

#[derive(Debug, Default)]
struct Locked {
    slots: Mutex<HashSet<String>>,
    /// Told whenever one is free again.
    freed: Condvar,
}

/// Another operation on the volume is still running.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("another operation on volume {0} is still running: try again when it has ended")]
pub struct Busy(VolumeId);

impl Failure for Busy {
    fn kind(&self) -> Kind {
        Kind::Busy
    }
}

/// Holds one volume until it is dropped. It moves into whatever does the work, a blocked thread included.
#[derive(Debug)]
pub struct VolumeGuard {
    locks: VolumeLocks,
    slot: String,
}

impl VolumeLocks {
    /// Takes the volume, or says at once that somebody else has it.
    pub fn try_lock(&self, volume: &VolumeId) -> Result<VolumeGuard, Busy> {
        self.lock_within(volume, Duration::ZERO)
    }

    /// Takes the volume, and waits for whoever has it, but no longer than that. It blocks its thread.
    pub fn lock_within(&self, volume: &VolumeId, limit: Duration) -> Result<VolumeGuard, Busy> {
        let slot = volume.slot().to_owned();
        let waited = self.0.freed.wait_timeout_while(self.slots(), limit, |slots| slots.contains(&slot));
        let (mut slots, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if slots.insert(slot.clone()) {
            Ok(VolumeGuard { locks: self.clone(), slot })
        } else {
            Err(Busy(volume.clone()))
        }
    }

    /// A set stays whole if a thread panicked beside it, so poison means nothing here.
    fn slots(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for VolumeGuard {
    fn drop(&mut self) {
        self.locks.slots().remove(&self.slot);
        self.locks.0.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_held_until_its_guard_is_dropped_and_others_are_free() {
        let locks = VolumeLocks::default();
        let (a, b): (VolumeId, VolumeId) = ("pvc-a".parse().unwrap(), "pvc-b".parse().unwrap());
        let guard = locks.try_lock(&a).unwrap();
        assert_eq!(locks.try_lock(&a).unwrap_err(), Busy(a.clone()));
        assert!(locks.try_lock(&b).is_ok());
        let namesake: VolumeId = "rack-2/pvc-a".parse().unwrap();
        assert_eq!(locks.try_lock(&namesake).unwrap_err(), Busy(namesake));
        drop(guard);
        assert!(locks.try_lock(&a).is_ok());
    }

    #[test]
    fn a_volume_is_waited_for_and_not_for_ever() {
        let locks = VolumeLocks::default();
        let volume: VolumeId = "pvc-a".parse().unwrap();
        let guard = locks.try_lock(&volume).unwrap();
        assert_eq!(locks.lock_within(&volume, Duration::from_millis(5)).unwrap_err(), Busy(volume.clone()));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| locks.lock_within(&volume, Duration::from_mins(5)).is_ok());
            drop(guard);
            assert!(waiting.join().unwrap());
        });
    }
}
