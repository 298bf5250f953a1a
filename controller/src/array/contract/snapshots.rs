//! Snapshots: taken once, found again, and independent of everything else.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rds_csi_api::{SnapshotId, SnapshotName, VolumeId};

use super::{Bytes, Error, made, removed, wanted};
use crate::array::{Array, Snapshot, Subject, WantedSnapshot};

pub(super) async fn every_clause(array: &impl Array) {
    a_snapshot_knows_its_source_its_size_and_its_time(array).await;
    a_repeated_snapshot_is_the_same_one(array).await;
    a_snapshot_outlives_its_source(array).await;
    what_is_not_there_is_missing_and_deleted_already(array).await;
}

pub(super) fn snapshot_id(name: &str) -> SnapshotId {
    let name: SnapshotName = name.parse().expect("the suite's names are valid");
    SnapshotId::for_name(None, &name)
}

/// A time with a fraction, which is dropped.
pub(super) fn noon() -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(1_764_000_007_750)
}

pub(super) async fn taken(array: &impl Array, name: &str, source: &VolumeId) -> Snapshot {
    let wanted = WantedSnapshot { id: snapshot_id(name), source: source.clone(), now: noon() };
    array.take_snapshot(&wanted).await.expect("the snapshot is taken")
}

pub(super) async fn discarded(array: &impl Array, id: &SnapshotId) {
    array.delete_snapshot(id).await.expect("the snapshot is removed");
    assert_eq!(array.snapshot(id).await, Err(Error::MissingSnapshot(id.clone())));
}

async fn a_snapshot_knows_its_source_its_size_and_its_time(array: &impl Array) {
    let size = Bytes::new((1 << 30) + 4096);
    let wanted = wanted("contract snapshot", size);
    made(array, &wanted).await;
    let snapshot = taken(array, "contract snapshot", &wanted.id).await;
    let expected = Snapshot {
        id: snapshot_id("contract snapshot"),
        source: wanted.id.clone(),
        size,
        taken: UNIX_EPOCH + Duration::from_secs(1_764_000_007),
    };
    assert_eq!(snapshot, expected);
    // The volume grows on, the snapshot does not.
    array.expand(&wanted.id, Bytes::gib(2)).await.expect("it grows");
    assert_eq!(array.snapshot(&expected.id).await.as_ref(), Ok(&expected));
    discarded(array, &expected.id).await;
    removed(array, &wanted.id).await;
}

async fn a_repeated_snapshot_is_the_same_one(array: &impl Array) {
    let (one, two) = (wanted("contract one", Bytes::gib(1)), wanted("contract two", Bytes::gib(1)));
    made(array, &one).await;
    made(array, &two).await;
    let first = taken(array, "contract repeat", &one.id).await;
    let later = WantedSnapshot {
        id: first.id.clone(),
        source: one.id.clone(),
        now: noon() + Duration::from_hours(1),
    };
    assert_eq!(array.take_snapshot(&later).await.as_ref(), Ok(&first));
    let conflict = Error::Conflict {
        subject: Subject::from(&first.id),
        what: "source volume",
        found: one.id.to_string(),
        wanted: two.id.to_string(),
    };
    let other = WantedSnapshot { source: two.id.clone(), ..later };
    assert_eq!(array.take_snapshot(&other).await, Err(conflict));
    discarded(array, &first.id).await;
    removed(array, &one.id).await;
    removed(array, &two.id).await;
}

async fn a_snapshot_outlives_its_source(array: &impl Array) {
    let wanted = wanted("contract outlived", Bytes::gib(1));
    made(array, &wanted).await;
    let snapshot = taken(array, "contract outliving", &wanted.id).await;
    removed(array, &wanted.id).await;
    assert_eq!(array.snapshot(&snapshot.id).await.as_ref(), Ok(&snapshot));
    // A repeat is answered although there is nothing left to take.
    assert_eq!(taken(array, "contract outliving", &wanted.id).await, snapshot);
    discarded(array, &snapshot.id).await;
}

async fn what_is_not_there_is_missing_and_deleted_already(array: &impl Array) {
    let (id, source) = (snapshot_id("contract missing"), super::id("contract missing"));
    assert_eq!(array.snapshot(&id).await, Err(Error::MissingSnapshot(id.clone())));
    for _ in 0..2 {
        assert_eq!(array.delete_snapshot(&id).await, Ok(()));
    }
    let wanted = WantedSnapshot { id: id.clone(), source: source.clone(), now: noon() };
    assert_eq!(array.take_snapshot(&wanted).await, Err(Error::Missing(source)));
    assert_eq!(array.snapshot(&id).await, Err(Error::MissingSnapshot(id)));
}
