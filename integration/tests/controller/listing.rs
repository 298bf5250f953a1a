//! What there is, who holds it, how it is, and what room is left: all of it, or an error.

use rds_csi_api::csi;
use tonic::Code;

use crate::world::{self, World, assert_refused, filesystem, map, wanted};

const GIB: i64 = 1 << 30;

fn told(response: &csi::ListVolumesResponse) -> Vec<(String, Vec<String>)> {
    let told = |entry: &csi::list_volumes_response::Entry| {
        let status = entry.status.clone().unwrap();
        assert_eq!(status.volume_condition.map(|condition| condition.abnormal), Some(false));
        (entry.volume.clone().unwrap().volume_id, status.published_node_ids)
    };
    response.entries.iter().map(told).collect()
}

#[tokio::test]
async fn volumes_are_listed_with_their_holders_page_by_page_one_command_each() {
    let world = World::new().await;
    let mut expected = Vec::new();
    for (name, node) in [("a", Some("w1")), ("b", None), ("c", Some("w2"))] {
        let volume = world.create(wanted(name, GIB)).await.unwrap();
        if let Some(node) = node {
            world.publish(&volume, node, filesystem()).await.unwrap();
        }
        expected.push((volume.volume_id, node.into_iter().map(Into::into).collect::<Vec<String>>()));
    }
    expected.sort();
    let before = world.commands();
    let whole = world.list_volumes(0, "").await.unwrap();
    assert_eq!(world.commands() - before, 1);
    assert_eq!((told(&whole), whole.next_token.as_str()), (expected.clone(), ""));
    let first = world.list_volumes(2, "").await.unwrap();
    // What came or went meanwhile changes nothing for what is still to be listed.
    let late = world.create(wanted("late", GIB)).await.unwrap();
    world.delete(&late.volume_id).await.unwrap();
    let second = world.list_volumes(2, &first.next_token).await.unwrap();
    assert_eq!(([told(&first), told(&second)].concat(), second.next_token.as_str()), (expected.clone(), ""));
    assert_refused(world.list_volumes(0, "invalid-token").await, Code::Aborted, "from the beginning");
    assert_refused(world.list_volumes(-1, "").await, Code::InvalidArgument, "max_entries");
    for (id, nodes) in expected {
        let volume = csi::Volume { volume_id: id, ..Default::default() };
        for node in nodes {
            world.unpublish(&volume, &node).await.unwrap();
        }
        world.delete(&volume.volume_id).await.unwrap();
    }
    world.end().await;
}

#[tokio::test]
async fn holders_that_are_not_known_are_an_error_and_no_shorter_list() {
    let world = World::new().await;
    let volume = world.create(wanted("a", GIB)).await.unwrap();
    world.publish(&volume, "w1", filesystem()).await.unwrap();
    // Its records are lost with it.
    let world = world.restart().await;
    assert_refused(world.list_volumes(0, "").await, Code::Unavailable, "no record names them");
    assert_refused(world.get_volume(&volume.volume_id).await, Code::Unavailable, "no record names them");
    world.publish(&volume, "w1", filesystem()).await.unwrap();
    let found = world.get_volume(&volume.volume_id).await.unwrap();
    assert_eq!(found.status.unwrap().published_node_ids, ["w1"]);
    world.unpublish(&volume, "w1").await.unwrap();
    world.delete(&volume.volume_id).await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn systems_of_nodes_on_the_same_array_are_not_listed() {
    let world = World::new().await;
    let volume = world.create(wanted("a", GIB)).await.unwrap();
    let line = "/disk add type=file file-path=/storage-pool/nixos-var.img file-size=16M slot=nixos-var \
                nvme-tcp-export=yes nvme-tcp-server-nqn=nqn.2000-02.com.mikrotik:nixos-var";
    world::shell(&world.site, line).await;
    let listed = told(&world.list_volumes(0, "").await.unwrap());
    assert_eq!(listed, [(volume.volume_id.clone(), vec![])]);
    assert_refused(world.get_volume("nixos-var").await, Code::NotFound, "not the driver's");
    world.delete("nixos-var").await.unwrap();
    assert_eq!(world.simulator.state().unwrap().disks.len(), 2);
    world.delete(&volume.volume_id).await.unwrap();
    world.end_with_leftovers().await;
}

#[tokio::test]
async fn a_volume_is_told_with_its_condition_and_one_that_is_not_there_is_missing() {
    let world = World::new().await;
    let volume = world.create(wanted("a", GIB)).await.unwrap();
    let found = world.get_volume(&volume.volume_id).await.unwrap();
    assert_eq!(found.volume.unwrap().capacity_bytes, GIB);
    let condition = found.status.unwrap().volume_condition.unwrap();
    assert!(!condition.abnormal && condition.message.contains("the array has all of it"), "{condition:?}");
    assert_refused(world.get_volume("pvc-none").await, Code::NotFound, "pvc-none does not exist");
    assert_refused(world.get_volume("").await, Code::InvalidArgument, "volume_id is empty");
    world.delete(&volume.volume_id).await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn snapshots_are_listed_all_by_volume_or_one() {
    let world = World::new().await;
    let (a, b) =
        (world.create(wanted("a", GIB)).await.unwrap(), world.create(wanted("b", GIB)).await.unwrap());
    let mut all = Vec::new();
    for (name, volume) in [("1", &a), ("2", &b), ("3", &a)] {
        all.push(world.snapshot(name, &volume.volume_id).await.unwrap());
    }
    let of = |source_volume_id: &str| csi::ListSnapshotsRequest {
        source_volume_id: source_volume_id.into(),
        ..Default::default()
    };
    let one = |snapshot_id: &str| csi::ListSnapshotsRequest {
        snapshot_id: snapshot_id.into(),
        ..Default::default()
    };
    let list = async |request| {
        let listed = world.list_snapshots(request).await.unwrap().entries;
        listed.into_iter().map(|entry| entry.snapshot.unwrap()).collect::<Vec<_>>()
    };
    let sorted = |chosen: &[usize]| {
        let mut chosen: Vec<_> = chosen.iter().map(|index| all[*index].clone()).collect();
        chosen.sort_by(|one, other| one.snapshot_id.cmp(&other.snapshot_id));
        chosen
    };
    assert_eq!(list(csi::ListSnapshotsRequest::default()).await, sorted(&[0, 1, 2]));
    assert_eq!(list(of(&a.volume_id)).await, sorted(&[0, 2]));
    assert_eq!(list(one(&all[1].snapshot_id)).await, sorted(&[1]));
    for nothing in [of("pvc-none"), of("a b"), one("snap-none"), one("a b")] {
        assert!(list(nothing.clone()).await.is_empty(), "{nothing:?}");
    }
    let page =
        |starting_token| csi::ListSnapshotsRequest { max_entries: 2, starting_token, ..Default::default() };
    let first = world.list_snapshots(page(String::new())).await.unwrap();
    let second = world.list_snapshots(page(first.next_token.clone())).await.unwrap();
    assert_eq!((first.entries.len(), second.entries.len(), second.next_token.as_str()), (2, 1, ""));
    assert_refused(world.list_snapshots(page("x".into())).await, Code::Aborted, "starting_token");
    for snapshot in &all {
        world.delete_snapshot(&snapshot.snapshot_id).await.unwrap();
    }
    for volume in [a, b] {
        world.delete(&volume.volume_id).await.unwrap();
    }
    world.end().await;
}

#[tokio::test]
async fn the_room_that_is_told_is_there() {
    let world = World::new().await;
    let capacity = async |parameters: &[(&str, &str)]| {
        let request = csi::GetCapacityRequest { parameters: map(parameters), ..Default::default() };
        world.controller.csi().get_capacity(request).await.map(tonic::Response::into_inner)
    };
    let before = capacity(&[]).await.unwrap();
    let largest = before.maximum_volume_size.unwrap();
    assert!(largest > 0 && largest <= before.available_capacity, "{before:?}");
    assert_eq!(before.minimum_volume_size, Some(16 << 20));
    let volume = world.create(wanted("a", largest)).await.unwrap();
    assert_eq!(volume.capacity_bytes, largest);
    assert_refused(capacity(&[("colour", "red")]).await, Code::InvalidArgument, "\"colour\"");
    assert_refused(capacity(&[("backend", "rack-9")]).await, Code::InvalidArgument, "rack-9");
    world.delete(&volume.volume_id).await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn an_array_that_is_away_is_unavailable_and_never_empty() {
    let World { simulator, controller, site } = World::new().await;
    simulator.stop().await.unwrap();
    let mut client = controller.csi();
    let volumes = client.list_volumes(csi::ListVolumesRequest::default()).await;
    assert_refused(volumes, Code::Unavailable, "without it there is no listing");
    let snapshots = client.list_snapshots(csi::ListSnapshotsRequest::default()).await;
    assert_refused(snapshots, Code::Unavailable, "without it there is no listing");
    let one = csi::ListSnapshotsRequest { snapshot_id: "snap-a".into(), ..Default::default() };
    assert_refused(client.list_snapshots(one).await, Code::Unavailable, "cannot be reached");
    let request = csi::ControllerGetVolumeRequest { volume_id: "pvc-a".into() };
    assert_refused(client.controller_get_volume(request).await, Code::Unavailable, "cannot be reached");
    let capacity = client.get_capacity(csi::GetCapacityRequest::default()).await;
    assert_refused(capacity, Code::Unavailable, "cannot be reached");
    controller.stop().await.unwrap();
    drop(site);
}

#[tokio::test]
async fn the_health_calls_of_csi_1_13_are_served_only_if_they_are_asked_for() {
    use csi::controller_service_capability::rpc::Type as Rpc;
    use csi::controller_service_capability::{Rpc as Capability, Type};
    for asked in [false, true] {
        let flags = if asked { vec!["--csi-health".into(), "1.13".into()] } else { vec![] };
        let world = World::with(|settings| settings.flags = flags).await;
        let mut client = world.controller.csi();
        let served =
            client.controller_get_capabilities(csi::ControllerGetCapabilitiesRequest {}).await.unwrap();
        let served = served.into_inner().capabilities;
        for health in [Rpc::GetVolumeHealth, Rpc::ListVolumeHealth] {
            let capability = Some(Type::Rpc(Capability { r#type: health.into() }));
            assert_eq!(served.iter().any(|served| served.r#type == capability), asked, "{health:?}");
        }
        let volume = world.create(wanted("a", GIB)).await.unwrap();
        let of = |volume_id: &str| csi::ControllerGetVolumeHealthRequest {
            volume_id: volume_id.into(),
            ..Default::default()
        };
        let found = client.controller_get_volume_health(of(&volume.volume_id)).await;
        let listed =
            client.controller_list_volume_health(csi::ControllerListVolumeHealthRequest::default()).await;
        if asked {
            let health = csi::VolumeHealth { volume_id: volume.volume_id.clone(), health_statuses: vec![] };
            assert_eq!(found.unwrap().into_inner().volume_health, Some(health));
            assert_eq!(listed.unwrap().into_inner().entries, [], "those that are well are left out");
            assert_refused(
                client.controller_get_volume_health(of("pvc-none")).await,
                Code::NotFound,
                "pvc-none",
            );
        } else {
            assert_refused(found, Code::Unimplemented, "is not served");
            assert_refused(listed, Code::Unimplemented, "is not served");
        }
        world.delete(&volume.volume_id).await.unwrap();
        world.end().await;
    }
}
