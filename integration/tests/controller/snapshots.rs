//! Snapshots hold what their volume held, copies are volumes of their own, and both outlive what they were made of.

use rds_csi_api::csi;
use rds_csi_integration::simulator::FileDisk;
use tonic::Code;

use crate::world::{World, assert_refused, cloned, filesystem, map, restored, wanted};

const GIB: i64 = 1 << 30;

fn disk(world: &World, id: &str) -> FileDisk {
    let disks = world.simulator.state().unwrap().disks;
    disks.into_iter().find(|disk| disk.slot == id).unwrap()
}

#[tokio::test]
async fn a_snapshot_and_a_restore_take_one_round_trip_each() {
    let world = World::new().await;
    let volume = world.create(wanted("a", GIB)).await.unwrap();
    world.commands();
    let before = world.commands();
    let snapshot = world.snapshot("nightly", &volume.volume_id).await.unwrap();
    assert_eq!(world.commands() - before, 1);
    assert_eq!((snapshot.size_bytes, snapshot.ready_to_use), (GIB, true));
    assert_eq!(snapshot.source_volume_id, volume.volume_id);
    let copy = world.create(restored("b", &snapshot.snapshot_id, GIB)).await.unwrap();
    assert_eq!(world.commands() - before, 2);
    assert_eq!(copy.capacity_bytes, GIB);
    let state = world.simulator.state().unwrap();
    assert_eq!((state.subvolumes.len(), state.disks.len()), (3, 2));
    world.delete_snapshot(&snapshot.snapshot_id).await.unwrap();
    assert_eq!(world.commands() - before, 3);
    for id in [&volume.volume_id, &copy.volume_id] {
        world.delete(id).await.unwrap();
    }
    world.end().await;
}

#[tokio::test]
async fn every_repeat_gives_the_same_answer_content_source_included() {
    let world = World::new().await;
    let volume = world.create(wanted("a", GIB)).await.unwrap();
    let snapshot = world.snapshot("nightly", &volume.volume_id).await.unwrap();
    assert_eq!(world.snapshot("nightly", &volume.volume_id).await.unwrap(), snapshot);
    let mut ids = vec![volume.volume_id.clone()];
    for request in [restored("b", &snapshot.snapshot_id, 0), cloned("c", &volume.volume_id, 2 * GIB)] {
        let source = request.volume_content_source.clone();
        let copy = world.create(request.clone()).await.unwrap();
        assert_eq!(copy.content_source, source);
        assert_eq!(world.create(request.clone()).await.unwrap(), copy);
        let plain = csi::CreateVolumeRequest { volume_content_source: None, ..request };
        assert_refused(world.create(plain).await, Code::AlreadyExists, "content source");
        ids.push(copy.volume_id);
    }
    assert_refused(
        world.create(cloned("b", &volume.volume_id, 0)).await,
        Code::AlreadyExists,
        "content source",
    );
    assert_refused(world.snapshot("nightly", &ids[1]).await, Code::AlreadyExists, "source");
    world.delete_snapshot(&snapshot.snapshot_id).await.unwrap();
    for id in ids {
        world.delete(&id).await.unwrap();
    }
    world.end().await;
}

#[tokio::test]
async fn a_copy_is_as_large_as_its_source_or_larger_and_has_its_own_name() {
    let world = World::new().await;
    let volume = world.create(wanted("a", GIB)).await.unwrap();
    let snapshot = world.snapshot("nightly", &volume.volume_id).await.unwrap().snapshot_id;
    for (asked, made) in [(0, GIB), (GIB, GIB), (1, GIB), (GIB + 1, GIB + 4096), (3 * GIB, 3 * GIB)] {
        let copy = world.create(restored("copy", &snapshot, asked)).await.unwrap();
        assert_eq!(copy.capacity_bytes, made);
        let on_array = disk(&world, &copy.volume_id);
        assert_eq!(i64::try_from(on_array.file_size), Ok(made));
        assert_eq!(on_array.nqn(), copy.volume_context["nqn"]);
        assert_ne!(copy.volume_context["nqn"], volume.volume_context["nqn"]);
        world.delete(&copy.volume_id).await.unwrap();
    }
    let too_small = csi::CreateVolumeRequest {
        capacity_range: Some(csi::CapacityRange { required_bytes: 0, limit_bytes: GIB / 2 }),
        ..restored("copy", &snapshot, 0)
    };
    assert_refused(world.create(too_small).await, Code::OutOfRange, "limit_bytes");
    world.delete_snapshot(&snapshot).await.unwrap();
    world.delete(&volume.volume_id).await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn what_was_copied_lives_on_without_its_source() {
    let world = World::new().await;
    let volume = world.create(wanted("a", GIB)).await.unwrap();
    let snapshot = world.snapshot("nightly", &volume.volume_id).await.unwrap();
    let copy = world.create(restored("b", &snapshot.snapshot_id, GIB)).await.unwrap();
    let clone = world.create(cloned("c", &volume.volume_id, GIB)).await.unwrap();
    world.delete(&volume.volume_id).await.unwrap();
    let request = csi::GetSnapshotRequest { snapshot_id: snapshot.snapshot_id.clone(), ..Default::default() };
    let found = world.controller.csi().get_snapshot(request).await.unwrap().into_inner().snapshot;
    assert_eq!(found.as_ref(), Some(&snapshot));
    world.delete_snapshot(&snapshot.snapshot_id).await.unwrap();
    for volume in [&copy, &clone] {
        world.publish(volume, "w1", filesystem()).await.unwrap();
        world.unpublish(volume, "w1").await.unwrap();
        world.delete(&volume.volume_id).await.unwrap();
    }
    world.end().await;
}

#[tokio::test]
async fn a_volume_in_use_is_snapshotted_and_cloned_and_nobody_is_let_into_the_copy() {
    let world = World::new().await;
    let volume = world.create(wanted("a", GIB)).await.unwrap();
    world.publish(&volume, "w1", filesystem()).await.unwrap();
    let snapshot = world.snapshot("nightly", &volume.volume_id).await.unwrap().snapshot_id;
    let clone = world.create(cloned("c", &volume.volume_id, GIB)).await.unwrap();
    assert!(disk(&world, &volume.volume_id).nvme_tcp_export);
    assert!(!disk(&world, &clone.volume_id).nvme_tcp_export);
    assert_refused(world.delete(&volume.volume_id).await, Code::FailedPrecondition, "attached to w1");
    world.delete_snapshot(&snapshot).await.unwrap();
    world.unpublish(&volume, "w1").await.unwrap();
    for id in [&volume.volume_id, &clone.volume_id] {
        world.delete(id).await.unwrap();
    }
    world.end().await;
}

#[tokio::test]
async fn what_cannot_be_snapshotted_or_copied_says_why() {
    let world = World::new().await;
    for (name, source, code, says) in [
        ("", "pvc-a", Code::InvalidArgument, "snapshot name"),
        ("a", "", Code::InvalidArgument, "source_volume_id is empty"),
        ("a", "pvc-none", Code::NotFound, "pvc-none does not exist"),
        ("a", "nixos-var", Code::NotFound, "not the driver's"),
    ] {
        assert_refused(world.snapshot(name, source).await, code, says);
    }
    let request = csi::CreateSnapshotRequest {
        name: "a".into(),
        source_volume_id: "pvc-a".into(),
        parameters: map(&[("incremental", "yes")]),
        ..Default::default()
    };
    assert_refused(
        world.controller.csi().create_snapshot(request).await,
        Code::InvalidArgument,
        "parameter \"incremental\" is not known",
    );
    for (request, code, says) in [
        (restored("a", "", 0), Code::InvalidArgument, "snapshot_id is empty"),
        (restored("a", "snap-none", 0), Code::NotFound, "snap-none does not exist"),
        (restored("a", "a b", 0), Code::NotFound, "the snapshot does not exist"),
        (cloned("a", "", 0), Code::InvalidArgument, "volume_id is empty"),
        (cloned("a", "pvc-none", 0), Code::NotFound, "pvc-none does not exist"),
        (cloned("a", "rack-9/pvc-none", 0), Code::FailedPrecondition, "backend rack-9 is not configured"),
    ] {
        assert_refused(world.create(request).await, code, says);
    }
    world.delete_snapshot("snap-none").await.unwrap();
    world.delete_snapshot("a b").await.unwrap();
    assert_refused(world.delete_snapshot("").await, Code::InvalidArgument, "snapshot_id is empty");
    assert_refused(world.delete_snapshot("rack-9/snap-a").await, Code::FailedPrecondition, "rack-9");
    world.end().await;
}
