//! One operation per volume at a time; different volumes never wait for each other.
//!
//! Volumes of two arrays that have the same slot count as one: they may share an NQN, and on a node only that tells them apart.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::failure::{Failure, Kind};
use crate::volume_id::VolumeId;

/// The volumes that an operation is running on. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct VolumeLocks(Arc<Mutex<HashSet<String>>>);

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
        let slot = volume.slot().to_owned();
        if self.slots().insert(slot.clone()) {
            Ok(VolumeGuard { locks: self.clone(), slot })
        } else {
            Err(Busy(volume.clone()))
        }
    }

    /// A set stays whole if a thread panicked beside it, so poison means nothing here.
    fn slots(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for VolumeGuard {
    fn drop(&mut self) {
        self.locks.slots().remove(&self.slot);
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
}
