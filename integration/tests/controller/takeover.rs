//! An array as the earlier driver filled it: flat images, ids of 40 characters, no comments, exports open to every host.

use rds_csi_api::csi;
use tonic::Code;

use crate::world::{self, World, assert_refused, cloned, filesystem, map};

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
    let world = World::new().await;
    left_behind(&world).await;
    let other = "/disk add type=file file-path=/storage-pool/metal-csi/notes.img file-size=16M slot=notes";
    world::shell(&world.site, other).await;
    world.delete(ID).await.unwrap();
    world.delete(ID).await.unwrap();
    let state = world.simulator.state().unwrap();
    assert_eq!((state.disks.len(), state.disks[0].slot.as_str()), (1, "notes"));
    assert!(!format!("{:?}", state.files).contains(ID), "{state:?}");
    world.end_with_leftovers().await;
}
