//! An array as the earlier driver filled it: flat images, ids of 40 characters, no comments, exports open to every host.

use rds_csi_api::csi;
use tonic::Code;

use crate::agent::connected;
use crate::attachments::with_agents;
use crate::world::{self, World, assert_refused, cloned, filesystem, map, restored};

const GIB: i64 = 1 << 30;
const ID: &str = "pvc-123e4567-e89b-12d3-a456-426614174000";

/// A volume of that driver, and what its PersistentVolume says of it.
async fn left_behind(world: &World) -> csi::Volume {
    world::shell(&world.site, "/file add name=storage-pool/metal-csi type=directory").await;
    let line = format!(
        "/disk add type=file file-path=/storage-pool/metal-csi/{ID}.img file-size=1G slot={ID} nvme-tcp-export=yes \
         nvme-tcp-server-port=4420 nvme-tcp-server-nqn=nqn.2000-02.com.mikrotik:{ID}"
    );
    world::shell(&world.site, &line).await;
    let nqn = format!("nqn.2000-02.com.mikrotik:{ID}");
    let volume_context = map(&[
        ("rdsAddress", "10.42.241.3"),
        ("nvmeAddress", "10.42.68.1"),
        ("nvmePort", "4420"),
        ("nqn", &nqn),
        ("volumePath", "/storage-pool/metal-csi"),
        ("ctrlLossTmo", "600"),
        ("storage.kubernetes.io/csiProvisionerIdentity", "1"),
    ]);
    csi::Volume { volume_id: ID.into(), volume_context, ..csi::Volume::default() }
}

#[tokio::test]
async fn a_volume_of_the_earlier_driver_is_listed_attached_grown_modified_and_deleted() {
    let world = World::with(|settings| settings.fence = "none").await;
    let volume = left_behind(&world).await;
    let listed = world.list_volumes(0, "").await.unwrap();
    let [entry] = &listed.entries[..] else { panic!("{listed:?}") };
    let found = entry.volume.clone().unwrap();
    assert_eq!((found.volume_id.as_str(), found.capacity_bytes), (ID, GIB));

    let context = world.publish(&volume, "w1", filesystem()).await.unwrap().publish_context;
    assert_eq!(
        (context["nvmeAddress"].as_str(), context["nqn"].as_str()),
        ("10.42.68.1", volume.volume_context["nqn"].as_str())
    );
    assert_eq!(world.expand(ID, 2 * GIB).await.unwrap().capacity_bytes, 2 * GIB);
    assert_refused(world.modify(ID, &[("fastIoFailTmo", "20")]).await, Code::InvalidArgument, "give all of");
    assert_refused(world.snapshot("nightly", ID).await, Code::FailedPrecondition, "copy the data");
    assert_refused(world.create(cloned("copy", ID, 0)).await, Code::FailedPrecondition, "copy the data");
    assert_refused(world.delete(ID).await, Code::FailedPrecondition, "attached to w1");
    let state = world.simulator.state().unwrap();
    assert_eq!((state.disks.len(), state.disks[0].file_size), (1, 2 << 30));
    world.end_with_leftovers().await;
}

#[tokio::test]
async fn deleting_a_volume_of_the_earlier_driver_takes_its_file_along_and_nothing_else() {
    let (world, mut agents) = with_agents("acl", 2).await;
    left_behind(&world).await;
    let other = "/disk add type=file file-path=/storage-pool/metal-csi/notes.img file-size=16M slot=notes";
    world::shell(&world.site, other).await;
    // That driver let every host in, and no record is left of who was attached: each node is asked.
    agents[0].say(Some(connected()));
    let refused = world.delete(ID).await;
    assert_refused(
        refused,
        Code::FailedPrecondition,
        "still in use on node w1: it is connected as /dev/nvme1n1",
    );
    agents[0].say(None);
    let silent = agents.pop();
    drop(silent);
    assert_refused(world.delete(ID).await, Code::FailedPrecondition, "node w2 does not say");
    world::shell(&world.site, &format!("/disk set [find slot={ID}] nvme-tcp-export=no")).await;
    world.delete(ID).await.unwrap();
    world.delete(ID).await.unwrap();
    let state = world.simulator.state().unwrap();
    assert_eq!((state.disks.len(), state.disks[0].slot.as_str()), (1, "notes"));
    assert!(!format!("{:?}", state.files).contains(ID), "{state:?}");
    world.end_with_leftovers().await;
}

const SNAPSHOT: &str = "snap-123e4567-e89b-12d3-a456-426614174000-at-3a9f8c02d1";

/// What that driver called a snapshot: a disk in a slot of that name, over the file of that name, and more of its properties.
async fn snapshot_left_behind(world: &World, id: &str, more: &str) {
    let line = format!(
        "/disk add type=file file-path=/storage-pool/metal-csi/{id}.img file-size=1G slot={id} {more}"
    );
    world::shell(&world.site, &line).await;
}

#[tokio::test]
async fn a_snapshot_of_the_earlier_driver_gives_no_data_and_goes_with_its_file() {
    let (world, _agents) = with_agents("acl", 1).await;
    left_behind(&world).await;
    let older = "snap-00000000-e89b-12d3-a456-426614174000";
    for id in [SNAPSHOT, older] {
        snapshot_left_behind(&world, id, "").await;
        let refused = world.create(restored("copy", id, GIB)).await;
        assert_refused(refused, Code::FailedPrecondition, "none of its data");
        let asked = csi::ListSnapshotsRequest { snapshot_id: id.into(), ..Default::default() };
        assert!(world.list_snapshots(asked).await.unwrap().entries.is_empty());
    }
    assert!(world.list_snapshots(csi::ListSnapshotsRequest::default()).await.unwrap().entries.is_empty());
    for id in [SNAPSHOT, older, SNAPSHOT] {
        world.delete_snapshot(id).await.unwrap();
        assert!(!format!("{:?}", world.simulator.state().unwrap()).contains(id));
    }
    let disks = world.simulator.state().unwrap().disks;
    assert_eq!((disks.len(), disks[0].slot.as_str()), (1, ID));
    world.delete(ID).await.unwrap();
    world.end_with_leftovers().await;
}

#[tokio::test]
async fn what_only_looks_like_a_snapshot_of_the_earlier_driver_stays() {
    let world = World::new().await;
    left_behind(&world).await;
    let named = "nvme-tcp-export=yes nvme-tcp-server-allow-host-name=nqn.2014-08.org.nvmexpress:uuid:1";
    let elsewhere = "/disk add type=file file-size=1G file-path=/storage-pool/metal-csi/data.img slot=";
    for (more, says) in [
        (Some(named), "by name"),
        (Some("comment=\"rds-csi:green\""), "another cluster"),
        (None, "of its name"),
    ] {
        match more {
            Some(more) => snapshot_left_behind(&world, SNAPSHOT, more).await,
            None => world::shell(&world.site, &format!("{elsewhere}{SNAPSHOT}")).await,
        }
        let before = world.simulator.state().unwrap();
        assert_refused(world.delete_snapshot(SNAPSHOT).await, Code::FailedPrecondition, says);
        let after = world.simulator.state().unwrap();
        assert_eq!(
            format!("{:?} {:?}", after.disks, after.files),
            format!("{:?} {:?}", before.disks, before.files)
        );
        world::shell(&world.site, &format!("/disk remove [find slot={SNAPSHOT}]")).await;
    }
    // A file that another disk is made of is that disk's.
    let other = format!(
        "/disk set [find slot={ID}] nvme-tcp-export=no; /disk add type=file slot=other file-path=/storage-pool/metal-csi/{SNAPSHOT}.img file-size=1G"
    );
    world::shell(&world.site, &other).await;
    world.delete_snapshot(SNAPSHOT).await.unwrap();
    let state = format!("{:?}", world.simulator.state().unwrap().files);
    assert!(state.contains(SNAPSHOT), "{state}");
    world.end_with_leftovers().await;
}
