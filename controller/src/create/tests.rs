//! Sizes, and what a volume is made as.

use proptest::prelude::*;
use rds_csi_api::{AccessMode, Portal};

use super::*;
use crate::array::fake::{FakeArray, Fault};
use crate::backends::topology::Segments;

fn range(required: u64, limit: u64) -> CapacityRange {
    let some = |bytes: u64| (bytes > 0).then(|| Bytes::new(bytes));
    CapacityRange { required: some(required), limit: some(limit) }
}

fn of(required: u64, limit: u64) -> Result<u64, Error> {
    size(range(required, limit), SMALLEST).map(Bytes::get)
}

const GIB: u64 = 1 << 30;

#[test]
fn a_size_is_the_one_asked_for_or_the_next_whole_block() {
    assert_eq!(of(0, 0), Ok(GIB));
    assert_eq!(of(5 * GIB, 0), Ok(5 * GIB));
    assert_eq!(of(5 * GIB, 5 * GIB), Ok(5 * GIB));
    assert_eq!(of(1_649_267_441_664, 0), Ok(1_649_267_441_664));
    assert_eq!(of(GIB + 1, 0), Ok(GIB + 4096));
    assert_eq!(of(GIB + 1, GIB + 4096), Ok(GIB + 4096));
    assert_eq!(of(1, 0), Ok(SMALLEST.get()));
    // Only a limit: no more than it, and no more than usual.
    assert_eq!(of(0, 10 * GIB), Ok(GIB));
    assert_eq!(of(0, 100 << 20), Ok(100 << 20));
    assert_eq!(of(0, (100 << 20) + 1), Ok(100 << 20));
    assert_eq!(of(LARGEST.get(), 0), Ok(LARGEST.get()));
}

#[test]
fn a_range_that_cannot_be_met_is_refused_with_what_could_be() {
    assert!(matches!(of(2 * GIB, GIB), Err(Error::EmptyRange { .. })));
    let refused = of(GIB + 1, GIB + 4095).unwrap_err();
    assert_eq!(refused.kind(), Kind::OutOfRange);
    assert!(refused.to_string().contains("has 1073745920 bytes"), "{refused}");
    assert!(matches!(of(1, 4096), Err(Error::LimitTooLow { .. })));
    assert!(matches!(of(0, 4096), Err(Error::LimitTooLow { .. })));
    assert!(matches!(of(LARGEST.get() + 1, 0), Err(Error::TooLarge(_))));
    assert!(matches!(of(i64::MAX as u64, 0), Err(Error::TooLarge(_))));
}

#[test]
fn an_xfs_is_never_smaller_than_mkfs_makes_it() {
    let capability = |fs| Capability {
        access: Access::Filesystem { fs, mount_flags: vec![] },
        mode: AccessMode::SingleNodeWriter,
    };
    assert_eq!(smallest(&[capability(FsType::Ext4)]), SMALLEST);
    assert_eq!(smallest(&[capability(FsType::Ext4), capability(FsType::Xfs)]), SMALLEST_XFS);
}

proptest! {
    #[test]
    fn a_size_is_in_its_range_and_in_whole_blocks(required in 0..1_u64 << 50, limit in 0..1_u64 << 50) {
        if let Ok(size) = of(required, limit) {
            prop_assert!(size >= required && (limit == 0 || size <= limit));
            prop_assert_eq!(size % BLOCK, 0);
            prop_assert!(size < required + BLOCK || size == SMALLEST.get() || required == 0);
        }
    }
}

fn request(name: &str, required: u64) -> Request {
    let portal = Portal::parse("10.0.0.1", None).unwrap();
    Request {
        id: VolumeId::for_name(None, &name.parse().unwrap()),
        range: range(required, 0),
        capabilities: vec![],
        parameters: Parameters::parse(&[].into(), portal, &"pool".parse().unwrap()).unwrap(),
    }
}

fn backend(capacity: Bytes, fence: Fence) -> Backend<FakeArray> {
    let (pool, portal) = ("pool".parse().unwrap(), Portal::parse("10.0.0.1", None).unwrap());
    Backend {
        name: None,
        array: FakeArray::new(capacity),
        fence,
        pool,
        portal,
        address: "array.example".into(),
        title: "default".parse().unwrap(),
        topology: Segments::default(),
    }
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
