//! Where records are kept. A record is replaced only if nobody else replaced it meanwhile.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::{Mutex, PoisonError};

use rds_csi_api::{Failure, Kind, VolumeId};

use super::record::Record;

/// Keeps one record per volume. A volume without one has an empty record.
pub trait Store: Send + Sync + 'static {
    /// The record as it is. Not being able to look is an error, never an empty record.
    fn load(&self, volume: &VolumeId) -> impl Future<Output = Result<Stored, Error>> + Send;

    /// Every record that is not empty. Not being able to look at all of them is an error, never a shorter list.
    fn list(&self) -> impl Future<Output = Result<BTreeMap<VolumeId, Record>, Error>> + Send;

    /// The records as they were heard of last, without asking anybody; nothing if none was heard of yet. For what is shown.
    fn seen(&self) -> Option<BTreeMap<VolumeId, Record>>;

    /// Replaces the record that was loaded. [`Error::Changed`] if it is not that one any more.
    fn replace(
        &self,
        volume: &VolumeId,
        loaded: Revision,
        record: Record,
    ) -> impl Future<Output = Result<Revision, Error>> + Send;
}

/// A record, and which one it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The record.
    pub record: Record,
    /// What [`Store::replace`] is to be told.
    pub revision: Revision,
}

/// Tells two states of one record apart, even if they read the same. What it says is the store's own affair.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Revision(String);

impl Revision {
    /// As the store spells it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The same.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a record was not read or not replaced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Somebody else was quicker.
    #[error("the attachments of volume {0} were changed by somebody else at the same time: try again")]
    Changed(VolumeId),
    /// There is nothing that its record could be kept with.
    #[error(
        "volume {0} has no PersistentVolume, so who holds it cannot be written down: make one that names it"
    )]
    NoSuchVolume(VolumeId),
    /// It was written by somebody else, or by a later version.
    #[error(
        "the record of who holds volume {id} cannot be read: {why}; correct it, or remove it once no node uses the volume"
    )]
    Unreadable {
        /// The volume.
        id: VolumeId,
        /// What is wrong with it.
        why: String,
    },
    /// It could not be asked for, or nobody knows whether it was written.
    #[error("who holds the volumes is not known, and nothing is changed until it is: {why}")]
    Unreachable {
        /// Why not.
        why: String,
    },
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Changed(_) => Kind::Busy,
            Self::NoSuchVolume(_) => Kind::Missing,
            Self::Unreadable { .. } => Kind::Refused,
            Self::Unreachable { .. } => Kind::Unreachable,
        }
    }
}

/// Records in memory, for one controller that runs alone. They are lost with it: after a restart nobody holds anything as
/// far as it knows, until Kubernetes' objects become the authority.
#[derive(Debug, Default)]
pub struct InMemory(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    records: HashMap<VolumeId, (Revision, Record)>,
    last: u64,
}

impl Store for InMemory {
    async fn load(&self, volume: &VolumeId) -> Result<Stored, Error> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (revision, record) = state.records.get(volume).cloned().unwrap_or_default();
        Ok(Stored { record, revision })
    }

    async fn list(&self) -> Result<BTreeMap<VolumeId, Record>, Error> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(state.records.iter().map(|(id, (_, record))| (id.clone(), record.clone())).collect())
    }

    fn seen(&self) -> Option<BTreeMap<VolumeId, Record>> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Some(state.records.iter().map(|(id, (_, record))| (id.clone(), record.clone())).collect())
    }

    async fn replace(&self, volume: &VolumeId, loaded: Revision, record: Record) -> Result<Revision, Error> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let present =
            state.records.get(volume).map_or_else(Revision::default, |(revision, _)| revision.clone());
        if present != loaded {
            return Err(Error::Changed(volume.clone()));
        }
        if record.is_empty() {
            state.records.remove(volume);
            return Ok(Revision::default());
        }
        state.last += 1;
        let revision = Revision(state.last.to_string());
        state.records.insert(volume.clone(), (revision.clone(), record));
        Ok(revision)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use rds_csi_api::AccessMode;

    use super::*;
    use crate::attachments::{Attachment, Rights, Shape};

    fn held_by(node: &str) -> Record {
        let attachment = Attachment {
            shape: Shape::Block,
            mode: AccessMode::MultiNodeWriter,
            rights: Rights::Write,
            since: SystemTime::UNIX_EPOCH,
        };
        Record::default().with(node.parse().unwrap(), attachment)
    }

    #[tokio::test]
    async fn of_two_that_loaded_the_same_record_one_replaces_it() {
        let (store, volume) = (InMemory::default(), "pvc-a".parse().unwrap());
        let loaded = store.load(&volume).await.unwrap();
        assert!(loaded.record.is_empty());
        store.replace(&volume, loaded.revision.clone(), held_by("w1")).await.unwrap();
        let late = store.replace(&volume, loaded.revision, held_by("w2")).await;
        assert_eq!(late, Err(Error::Changed(volume.clone())));
        assert_eq!(store.load(&volume).await.unwrap().record, held_by("w1"));
    }

    #[tokio::test]
    async fn a_record_that_came_back_to_what_it_was_is_another() {
        let (store, volume) = (InMemory::default(), "pvc-a".parse().unwrap());
        let first = store.replace(&volume, Revision::default(), held_by("w1")).await.unwrap();
        let second = store.replace(&volume, first.clone(), held_by("w2")).await.unwrap();
        store.replace(&volume, second, held_by("w1")).await.unwrap();
        assert_eq!(
            store.replace(&volume, first, Record::default()).await,
            Err(Error::Changed(volume.clone()))
        );
    }

    #[tokio::test]
    async fn an_empty_record_is_as_good_as_none() {
        let (store, volume) = (InMemory::default(), "pvc-a".parse().unwrap());
        let revision = store.replace(&volume, Revision::default(), held_by("w1")).await.unwrap();
        assert_eq!(store.list().await, Ok([(volume.clone(), held_by("w1"))].into()));
        store.replace(&volume, revision, Record::default()).await.unwrap();
        assert!(store.list().await.unwrap().is_empty());
        assert_eq!(
            store.load(&volume).await.unwrap(),
            Stored { record: Record::default(), revision: Revision::default() }
        );
    }
}
