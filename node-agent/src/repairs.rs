//! Permission to repair a filesystem though some of it may be lost: somebody gives it by name, for one attempt.
//!
//! Without it only what loses nothing is repaired, and a filesystem that needs more is refused for as long as nobody decides.
//! A restart forgets it: then it is given again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rds_csi_api::VolumeId;

/// Who allows it, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    /// A person, or a part of a program.
    pub asked_by: String,
    /// In their own words.
    pub reason: String,
}

/// Those that were given and not used yet. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Repairs(Arc<Mutex<BTreeMap<VolumeId, Permission>>>);

impl Repairs {
    /// The next repair of the volume may lose something.
    pub fn allow(&self, volume: &VolumeId, permission: Permission) {
        self.given().insert(volume.clone(), permission);
    }

    /// Uses the permission up, if there is one.
    pub fn take(&self, volume: &VolumeId) -> Option<Permission> {
        self.given().remove(volume)
    }

    /// A map stays whole if a thread panicked beside it.
    fn given(&self) -> MutexGuard<'_, BTreeMap<VolumeId, Permission>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
