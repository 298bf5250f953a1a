//! What a volume is made as, of nothing or of another.

use std::time::SystemTime;

use rds_csi_api::Portal;

use super::*;
use crate::array::fake::{FakeArray, Fault};
use crate::backends::fake;
use crate::snapshot::take;

const GIB: u64 = 1 << 30;

fn range(required: u64, limit: u64) -> CapacityRange {
    let some = |bytes: u64| (bytes > 0).then(|| Bytes::new(bytes));
    CapacityRange { required: some(required), limit: some(limit) }
}

fn parameters(pairs: &[(&str, &str)]) -> Parameters {
    let map = pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    let portal = Portal::parse("10.0.0.1", None).unwrap();
    Parameters::parse(&map, &[].into(), portal, &"pool".parse().unwrap()).unwrap()
}

fn request(name: &str, required: u64) -> Request {
    Request {
        id: VolumeId::for_name(None, &name.parse().unwrap()),
        range: range(required, 0),
        capabilities: vec![],
        parameters: parameters(&[]),
        source: None,
    }
}

fn copy(name: &str, source: &Source, required: u64, limit: u64) -> Request {
    Request { range: range(required, limit), source: Some(source.clone()), ..request(name, 0) }
}

fn backend(capacity: Bytes, fence: Fence) -> Backend<FakeArray> {
    Backend { fence, ..fake::backend(None, FakeArray::new(capacity)) }
}

#[tokio::test]
async fn behind_a_fence_a_new_volume_lets_nobody_in() {
    for (fence, export) in [(Fence::Acl, Export::Off), (Fence::None, Export::AnyHost)] {
        let backend = backend(Bytes::gib(10), fence);
        assert_eq!(create(&backend, request("pvc-a", GIB)).await.unwrap().volume.export, export);
    }
}

#[tokio::test]
async fn an_answer_that_was_lost_is_given_again() {
    let backend = backend(Bytes::gib(10), Fence::Acl);
    let lost = array::Error::Lost { reason: "reset".into() };
    backend.array.fail_once(Fault::After(lost.clone()));
    assert_eq!(create(&backend, request("pvc-a", GIB)).await, Err(Error::Array(lost)));
    let first = create(&backend, request("pvc-a", GIB)).await.unwrap();
    assert_eq!(create(&backend, request("pvc-a", GIB)).await.unwrap(), first);
    assert_eq!(backend.array.volumes(), [first.volume]);
}

#[tokio::test]
async fn the_same_name_with_another_size_is_a_conflict() {
    let backend = backend(Bytes::gib(10), Fence::Acl);
    create(&backend, request("pvc-a", GIB)).await.unwrap();
    assert_eq!(create(&backend, request("pvc-a", 2 * GIB)).await.unwrap_err().kind(), Kind::Conflict);
}

#[tokio::test]
async fn a_full_array_is_full() {
    let backend = backend(Bytes::gib(1), Fence::Acl);
    assert_eq!(create(&backend, request("pvc-a", 2 * GIB)).await.unwrap_err().kind(), Kind::Full);
    assert!(backend.array.volumes().is_empty());
}

#[tokio::test]
async fn the_same_name_with_other_parameters_is_a_conflict() {
    let backend = backend(Bytes::gib(10), Fence::Acl);
    let wish = |pairs| Request { parameters: parameters(pairs), ..request("pvc-a", GIB) };
    let first = create(&backend, wish(&[("ctrlLossTmo", "600")])).await.unwrap();
    assert_eq!(first.context.reconnect.to_string(), "600,2,5,off");
    for other in [&[][..], &[("ctrlLossTmo", "601")]] {
        assert_eq!(create(&backend, wish(other)).await.unwrap_err().kind(), Kind::Conflict);
    }
    assert_eq!(create(&backend, wish(&[("ctrlLossTmo", "600")])).await.unwrap(), first);
}

/// A backend with a volume of 1 GiB, and a snapshot of it.
async fn with_sources() -> (Backend<FakeArray>, [Source; 2]) {
    let backend = backend(Bytes::gib(100), Fence::Acl);
    let volume = create(&backend, request("pvc-a", GIB)).await.unwrap().volume;
    let snapshot = "snap-a".parse().unwrap();
    let snapshot = take(&backend.array, snapshot, volume.id.clone(), SystemTime::now()).await.unwrap();
    (backend, [Source::Volume(volume.id), Source::Snapshot(snapshot.id)])
}

#[tokio::test]
async fn a_copy_has_the_size_of_its_source_or_more_and_says_what_it_was_made_of() {
    let (backend, sources) = with_sources().await;
    for (n, source) in sources.iter().enumerate() {
        for (required, limit, size) in
            [(0, 0, GIB), (1, 0, GIB), (0, 2 * GIB, GIB), (2 * GIB + 1, 0, 2 * GIB + 4096)]
        {
            let wish = || copy(&format!("pvc-{n}-{required}-{limit}"), source, required, limit);
            let made = create(&backend, wish()).await.unwrap();
            assert_eq!((made.volume.size.get(), made.volume.source.as_ref()), (size, Some(source)));
            assert_eq!(create(&backend, wish()).await.unwrap(), made);
        }
    }
}

#[tokio::test]
async fn a_copy_that_cannot_be_says_why() {
    let (backend, [volume, snapshot]) = with_sources().await;
    let missing =
        [Source::Volume("pvc-none".parse().unwrap()), Source::Snapshot("snap-none".parse().unwrap())];
    for source in &missing {
        let refused = create(&backend, copy("pvc-b", source, 0, 0)).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Missing);
    }
    for source in [&volume, &snapshot] {
        let refused = create(&backend, copy("pvc-b", source, 0, GIB / 2)).await.unwrap_err();
        assert!(refused.kind() == Kind::OutOfRange && refused.to_string().contains("more than limit_bytes"));
    }
    create(&backend, copy("pvc-b", &volume, 0, 0)).await.unwrap();
    for other in [copy("pvc-b", &snapshot, 0, 0), request("pvc-b", GIB), copy("pvc-a", &volume, 0, 0)] {
        let refused = create(&backend, other).await.unwrap_err();
        assert!(refused.kind() == Kind::Conflict, "{refused}");
    }
}
