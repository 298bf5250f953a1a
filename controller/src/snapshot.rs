//! CreateSnapshot, DeleteSnapshot, GetSnapshot: what a volume holds at one moment, kept by the array.
//!
//! A snapshot is taken at once, of a volume in use too: it then holds what a machine that lost power would find.

use std::time::SystemTime;

use rds_csi_api::{SnapshotId, VolumeId};

use crate::array::{Array, Error, Snapshot, WantedSnapshot};

/// Takes the snapshot. The id follows from the name, so a repeat finds the first call's, with its time.
pub async fn take(
    array: &impl Array,
    id: SnapshotId,
    source: VolumeId,
    now: SystemTime,
) -> Result<Snapshot, Error> {
    array.take_snapshot(&WantedSnapshot { id, source, now }).await
}

/// Removes the snapshot. Volumes that were made of it live on.
pub async fn delete(array: &impl Array, id: SnapshotId) -> Result<(), Error> {
    array.delete_snapshot(&id).await
}

/// The snapshot as the array has it.
pub async fn find(array: &impl Array, id: SnapshotId) -> Result<Snapshot, Error> {
    array.snapshot(&id).await
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use rds_csi_api::{Bytes, Failure, Kind};

    use super::*;
    use crate::array::fake::{FakeArray, Fault, wanted};
    use crate::array::{IfOpen, Layout, Volume};

    fn id(text: &str) -> SnapshotId {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn a_snapshot_keeps_its_time_and_size_whatever_becomes_of_its_volume() {
        let (array, volume) = (FakeArray::new(Bytes::gib(10)), wanted("pvc-a", Bytes::gib(1)));
        array.create(&volume).await.unwrap();
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let lost = Error::Lost { reason: "reset".into() };
        array.fail_once(Fault::After(lost.clone()));
        assert_eq!(take(&array, id("snap-a"), volume.id.clone(), at(1_000)).await, Err(lost));
        array.expand(&volume.id, Bytes::gib(2)).await.unwrap();
        let again = take(&array, id("snap-a"), volume.id.clone(), at(2_000)).await.unwrap();
        assert_eq!((again.size, again.taken), (Bytes::gib(1), at(1_000)));
        array.delete(&volume.id, IfOpen::Refuse).await.unwrap();
        assert_eq!(find(&array, id("snap-a")).await, Ok(again));
        for _ in 0..2 {
            delete(&array, id("snap-a")).await.unwrap();
        }
        assert_eq!(find(&array, id("snap-a")).await.unwrap_err().kind(), Kind::Missing);
    }

    #[tokio::test]
    async fn what_no_snapshot_can_be_taken_of_says_why() {
        let array = FakeArray::new(Bytes::gib(10));
        for name in ["pvc-a", "pvc-b", "pvc-flat"] {
            array.create(&wanted(name, Bytes::gib(1))).await.unwrap();
        }
        let flat = array.volumes().into_iter().find(|volume| volume.id.slot() == "pvc-flat").unwrap();
        array.put(Volume { layout: Layout::FlatFile, ..flat });
        let now = SystemTime::now();
        take(&array, id("snap-a"), "pvc-a".parse().unwrap(), now).await.unwrap();
        for (source, kind, says) in [
            ("pvc-b", Kind::Conflict, "source volume pvc-a, not pvc-b"),
            ("pvc-flat", Kind::Refused, "copy the data"),
            ("pvc-none", Kind::Missing, "pvc-none does not exist"),
        ] {
            let snapshot = if kind == Kind::Conflict { "snap-a" } else { "snap-b" };
            let refused = take(&array, id(snapshot), source.parse().unwrap(), now).await.unwrap_err();
            assert!(refused.kind() == kind && refused.to_string().contains(says), "{refused}");
        }
        assert_eq!(array.snapshots().len(), 1);
    }
}
