//! Volumes grow to the byte while they are used, never shrink, and are connected to as they were modified last.

use rds_csi_api::csi;
use tonic::Code;

use crate::world::{World, assert_refused, filesystem, map, wanted};

const GIB: i64 = 1 << 30;

#[tokio::test]
async fn a_volume_in_use_grows_in_one_round_trip_and_its_node_is_to_look() {
    let world = World::new().await;
    let volume = world.create(wanted("a", GIB)).await.unwrap();
    world.publish(&volume, "w1", filesystem()).await.unwrap();
    let before = world.commands();
    let grown = world.expand(&volume.volume_id, 2 * GIB + 1).await.unwrap();
    assert_eq!(world.commands() - before, 1);
    assert_eq!((grown.capacity_bytes, grown.node_expansion_required), (2 * GIB + 4096, true));
    let [disk] = &world.simulator.state().unwrap().disks[..] else { panic!("one volume") };
    assert_eq!(i64::try_from(disk.file_size), Ok(2 * GIB + 4096));
    assert!(disk.nvme_tcp_export, "its connection goes on");
    // A node that attaches it again is told the new size, and so is who asks for the same growth.
    let context = world.publish(&volume, "w1", filesystem()).await.unwrap().publish_context;
    assert_eq!(context["sizeBytes"], (2 * GIB + 4096).to_string());
    assert_eq!(world.expand(&volume.volume_id, 2 * GIB + 1).await.unwrap(), grown);
    assert_eq!(world.expand(&volume.volume_id, GIB).await.unwrap(), grown, "nothing shrinks");
    world.unpublish(&volume, "w1").await.unwrap();
    world.delete(&volume.volume_id).await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn growth_that_cannot_be_says_why_and_changes_nothing() {
    let world = World::new().await;
    let volume = world.create(wanted("a", GIB)).await.unwrap();
    let before = world.simulator.state().unwrap().disks;
    let id = volume.volume_id.as_str();
    assert_refused(world.expand(id, i64::MAX).await, Code::OutOfRange, "more than the largest volume");
    assert_refused(world.expand(id, 2 << 40).await, Code::ResourceExhausted, "no space left");
    assert_refused(world.expand("pvc-none", GIB).await, Code::NotFound, "pvc-none does not exist");
    assert_refused(world.expand("a b", GIB).await, Code::NotFound, "does not exist");
    assert_refused(world.expand("", GIB).await, Code::InvalidArgument, "volume_id is empty");
    let nothing = csi::ControllerExpandVolumeRequest { volume_id: id.into(), ..Default::default() };
    assert_refused(
        world.controller.csi().controller_expand_volume(nothing).await,
        Code::InvalidArgument,
        "capacity_range is missing",
    );
    assert_eq!(world.simulator.state().unwrap().disks, before);
    world.delete(id).await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn a_modified_policy_travels_with_the_next_attach() {
    let world = World::new().await;
    let request = csi::CreateVolumeRequest {
        parameters: map(&[("ctrlLossTmo", "600"), ("keepAliveTmo", "30")]),
        mutable_parameters: map(&[("reconnectDelay", "5")]),
        ..wanted("a", GIB)
    };
    let volume = world.create(request.clone()).await.unwrap();
    assert_eq!(volume.volume_context["reconnectDelay"], "5");
    let policy = async || {
        let context = world.publish(&volume, "w1", filesystem()).await.unwrap().publish_context;
        ["ctrlLossTmo", "reconnectDelay", "keepAliveTmo", "fastIoFailTmo"]
            .map(|key| context.get(key).cloned().unwrap_or_default())
    };
    assert_eq!(policy().await, ["", "", "", ""], "the volume's own context says it");
    for _ in 0..2 {
        world.modify(&volume.volume_id, &[("fastIoFailTmo", "20")]).await.unwrap();
        assert_eq!(policy().await, ["600", "5", "30", "20"]);
    }
    world.modify(&volume.volume_id, &[("ctrlLossTmo", "-1"), ("fastIoFailTmo", "off")]).await.unwrap();
    assert_eq!(policy().await, ["-1", "5", "30", "off"]);
    assert_eq!(world.create(request.clone()).await.unwrap(), volume, "what it was created as stays");
    let other = csi::CreateVolumeRequest { mutable_parameters: map(&[("reconnectDelay", "6")]), ..request };
    assert_refused(world.create(other).await, Code::AlreadyExists, "parameters");
    world.unpublish(&volume, "w1").await.unwrap();
    world.delete(&volume.volume_id).await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn what_cannot_be_modified_is_named() {
    let world = World::new().await;
    let volume = world.create(wanted("a", GIB)).await.unwrap();
    let id = volume.volume_id.as_str();
    let before = world.simulator.state().unwrap().disks;
    for (key, value, says) in [
        ("iops", "100", "\"iops\" cannot be changed: of a volume that exists only ctrlLossTmo"),
        ("keepAliveTmo", "5", "\"keepAliveTmo\" cannot be changed"),
        ("ctrlLossTmo", "soon", "ctrlLossTmo \"soon\""),
    ] {
        assert_refused(world.modify(id, &[(key, value)]).await, Code::InvalidArgument, says);
    }
    assert_refused(world.modify("pvc-none", &[]).await, Code::NotFound, "pvc-none does not exist");
    assert_eq!(world.simulator.state().unwrap().disks, before);
    world.delete(id).await.unwrap();
    world.end().await;
}
