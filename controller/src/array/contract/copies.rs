//! Volumes that begin with what another volume or a snapshot holds.

use rds_csi_api::SnapshotId;

use super::snapshots::{discarded, snapshot_id, taken};
use super::{Bytes, Content, Error, id, made, removed, wanted};
use crate::array::{Array, Source, Subject, Wanted};

pub(super) async fn every_clause(array: &impl Array) {
    a_copy_is_as_large_as_its_source_or_larger(array).await;
    a_copy_is_never_larger_than_its_limit(array).await;
    a_repeated_copy_gives_the_same_volume_and_another_is_a_conflict(array).await;
    a_copy_outlives_its_source(array).await;
    nothing_is_made_of_what_is_not_there(array).await;
    nothing_is_made_of_a_snapshot_without_data(array).await;
}

async fn nothing_is_made_of_a_snapshot_without_data(array: &impl Array) {
    for text in [
        "snap-123e4567-e89b-12d3-a456-426614174000",
        "snap-123e4567-e89b-12d3-a456-426614174000-at-3a9f8c02d1",
    ] {
        let id: SnapshotId = text.parse().expect("it is a valid id");
        let copy = copy("contract copy", &Source::Snapshot(id.clone()), None, None);
        assert_eq!(array.create(&copy).await, Err(Error::NoData(id.clone())));
        assert_eq!(array.volume(&copy.id).await, Err(Error::Missing(copy.id.clone())));
        assert_eq!(array.delete_snapshot(&id).await, Ok(()));
    }
}

fn copy(name: &str, source: &Source, least: Option<Bytes>, most: Option<Bytes>) -> Wanted {
    let content = Content::CopyOf { source: source.clone(), least, most };
    Wanted { content, ..wanted(name, Bytes::gib(1)) }
}

/// A volume of 1 GiB, and the two ways to copy it.
async fn sources(array: &impl Array) -> [Source; 2] {
    let original = wanted("contract source", Bytes::gib(1));
    made(array, &original).await;
    let snapshot = taken(array, "contract source", &original.id).await;
    [Source::Volume(original.id), Source::Snapshot(snapshot.id)]
}

async fn gone(array: &impl Array) {
    discarded(array, &snapshot_id("contract source")).await;
    removed(array, &id("contract source")).await;
}

async fn a_copy_is_as_large_as_its_source_or_larger(array: &impl Array) {
    let odd = Bytes::new((1 << 30) + 4096);
    for source in sources(array).await {
        for (least, size) in
            [(None, Bytes::gib(1)), (Some(Bytes::new(4096)), Bytes::gib(1)), (Some(odd), odd)]
        {
            let copy = copy("contract copy", &source, least, None);
            let volume = made(array, &copy).await;
            assert_eq!((volume.size, volume.source.as_ref()), (size, Some(&source)));
            assert_eq!(volume.nqn, rds_csi_api::Nqn::of_volume(&copy.id));
            assert_eq!(array.volume(&copy.id).await, Ok(volume));
            removed(array, &copy.id).await;
        }
    }
    gone(array).await;
}

async fn a_copy_is_never_larger_than_its_limit(array: &impl Array) {
    for source in sources(array).await {
        let (least, size) = (Some(Bytes::new(4096)), Bytes::gib(1));
        let most = Bytes::new(size.get() - 1);
        let source_of = match &source {
            Source::Volume(id) => Subject::from(id),
            Source::Snapshot(id) => Subject::from(id),
        };
        let refused = array.create(&copy("contract copy", &source, least, Some(most))).await;
        assert_eq!(refused, Err(Error::SourceTooLarge { source_of, size, most }));
        let id = id("contract copy");
        assert_eq!(array.volume(&id).await, Err(Error::Missing(id.clone())));
        assert_eq!(made(array, &copy("contract copy", &source, least, Some(size))).await.size, size);
        removed(array, &id).await;
    }
    gone(array).await;
}

async fn a_repeated_copy_gives_the_same_volume_and_another_is_a_conflict(array: &impl Array) {
    let [volume, snapshot] = sources(array).await;
    for (source, other) in [(&volume, &snapshot), (&snapshot, &volume)] {
        let least = Some(Bytes::gib(2));
        let wanted = copy("contract copy", source, least, None);
        let first = made(array, &wanted).await;
        assert_eq!(made(array, &wanted).await, first);
        for conflicting in [
            copy("contract copy", other, least, None),
            copy("contract copy", source, Some(Bytes::gib(3)), None),
            copy("contract copy", source, None, None),
            Wanted { content: Content::Empty(Bytes::gib(2)), ..wanted.clone() },
        ] {
            let refused = array.create(&conflicting).await;
            assert!(matches!(refused, Err(Error::Conflict { .. })), "{conflicting:?}: {refused:?}");
            assert_eq!(array.volume(&wanted.id).await.as_ref(), Ok(&first));
        }
        removed(array, &wanted.id).await;
        let empty = Wanted { content: Content::Empty(Bytes::gib(2)), ..wanted.clone() };
        made(array, &empty).await;
        assert!(matches!(array.create(&wanted).await, Err(Error::Conflict { .. })));
        removed(array, &wanted.id).await;
    }
    gone(array).await;
}

async fn a_copy_outlives_its_source(array: &impl Array) {
    let mut copies = Vec::new();
    for (name, source) in ["contract clone", "contract restored"].into_iter().zip(sources(array).await) {
        let wanted = copy(name, &source, None, None);
        let volume = made(array, &wanted).await;
        copies.push((wanted, volume));
    }
    gone(array).await;
    for (wanted, volume) in copies {
        assert_eq!(array.volume(&wanted.id).await.as_ref(), Ok(&volume));
        // The answer to a repeat names a source that is no more.
        assert_eq!(made(array, &wanted).await, volume);
        removed(array, &wanted.id).await;
    }
}

async fn nothing_is_made_of_what_is_not_there(array: &impl Array) {
    let (volume, snapshot) = (id("contract nothing"), snapshot_id("contract nothing"));
    for (source, missing) in [
        (Source::Volume(volume.clone()), Error::Missing(volume)),
        (Source::Snapshot(snapshot.clone()), Error::MissingSnapshot(snapshot)),
    ] {
        let wanted = copy("contract copy", &source, None, None);
        assert_eq!(array.create(&wanted).await, Err(missing));
        assert_eq!(array.volume(&wanted.id).await, Err(Error::Missing(wanted.id)));
    }
}
