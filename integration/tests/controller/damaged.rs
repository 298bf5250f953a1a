//! What a filesystem lost under a volume: told by whoever tells of the volume, handed out as nothing, and deleted like any other.

use rds_csi_api::csi;
use rds_csi_integration::simulator::backend::PoolPath;
use tonic::Code;

use crate::world::{World, assert_refused, cloned, filesystem, restored, wanted};

const GIB: i64 = 1 << 30;

fn lose(world: &World, path: &str) {
    world.simulator.lose(&PoolPath::new(path).unwrap()).unwrap();
}

/// What is wrong with each volume that is listed.
async fn listed(world: &World) -> Vec<(String, Option<String>)> {
    let entries = world.list_volumes(0, "").await.unwrap().entries;
    let told = |entry: csi::list_volumes_response::Entry| {
        let condition = entry.status.unwrap().volume_condition.unwrap();
        (entry.volume.unwrap().volume_id, condition.abnormal.then_some(condition.message))
    };
    entries.into_iter().map(told).collect()
}

async fn told(world: &World, id: &str) -> (csi::VolumeCondition, Vec<String>) {
    let status = world.get_volume(id).await.unwrap().status.unwrap();
    (status.volume_condition.unwrap(), status.published_node_ids)
}

#[tokio::test]
async fn a_volume_whose_image_or_subvolume_is_gone_is_told_as_damaged_and_deleted() {
    for (part, missing) in [("/disk.img", "image"), ("", "subvolume")] {
        let world = World::new().await;
        let (sound, held, free) = (
            world.create(wanted("sound", GIB)).await.unwrap(),
            world.create(wanted("held", GIB)).await.unwrap(),
            world.create(wanted("free", GIB)).await.unwrap(),
        );
        let before = world.snapshot("before", &held.volume_id).await.unwrap();
        world.publish(&sound, "w1", filesystem()).await.unwrap();
        world.publish(&held, "w1", filesystem()).await.unwrap();
        for volume in [&held, &free] {
            lose(&world, &format!("{}{part}", volume.volume_id));
        }
        for (id, wrong) in listed(&world).await {
            match wrong {
                None => assert_eq!(id, sound.volume_id),
                Some(how) => assert!(id != sound.volume_id && how.contains(missing), "{how}"),
            }
        }
        for (volume, nodes) in [(&held, &["w1"][..]), (&free, &[])] {
            let id = volume.volume_id.as_str();
            let (condition, holders) = told(&world, id).await;
            assert!(
                condition.abnormal && condition.message.contains("missing on the array"),
                "{condition:?}"
            );
            assert_eq!(holders, nodes);
            assert_refused(world.snapshot("late", id).await, Code::FailedPrecondition, "damaged");
            assert_refused(world.create(cloned("copy", id, GIB)).await, Code::FailedPrecondition, "damaged");
            assert_refused(world.expand(id, 2 * GIB).await, Code::Internal, "no such file");
        }
        // Nobody is let in to nothing, and nobody is said to hold it.
        assert_refused(world.publish(&free, "w1", filesystem()).await, Code::Internal, "no such file");
        world.unpublish(&free, "w1").await.unwrap();
        assert_eq!(told(&world, &free.volume_id).await.1, [""; 0]);
        // A snapshot that was taken in time has what is lost.
        let rescued = world.create(restored("rescued", &before.snapshot_id, 0)).await.unwrap();
        assert!(!told(&world, &rescued.volume_id).await.0.abnormal);
        assert_refused(world.delete(&held.volume_id).await, Code::FailedPrecondition, "attached to w1");
        for volume in [&held, &sound] {
            world.unpublish(volume, "w1").await.unwrap();
        }
        world.delete_snapshot(&before.snapshot_id).await.unwrap();
        for volume in [&held, &free, &sound, &rescued] {
            world.delete(&volume.volume_id).await.unwrap();
        }
        world.end().await;
    }
}
