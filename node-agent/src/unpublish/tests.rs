use rustix::io::Errno;

use super::*;
use crate::host::fake::{Act, Holds};
use crate::world::{World, world};
use crate::{publish, stage};

fn published(usage: publish::Usage) -> World {
    let world = world(Holds::Nothing);
    let wanted = match usage {
        publish::Usage::Block => world.stage_as(stage::Usage::Block),
        publish::Usage::Filesystem(_) => world.stage_filesystem(),
    };
    stage::stage(&world.volumes, &wanted).unwrap();
    publish::publish(&world.volumes, &world.publish_as(usage)).unwrap();
    world
}

const FILESYSTEM: publish::Usage = publish::Usage::Filesystem(publish::Writing::Allowed);

#[test]
fn every_state_has_its_step() {
    let node = Found::Node("259:1".parse().unwrap());
    for (observed, step) in [
        (Observed::Mounted, Step::Unmount),
        (Observed::Unmounted(Found::Directory), Step::RemoveDirectory),
        (Observed::Unmounted(node), Step::RemoveNode),
        (Observed::Unmounted(Found::EmptyFile), Step::RemoveNode),
        (Observed::Unmounted(Found::Other), Step::Refuse),
        (Observed::Recorded, Step::Forget),
        (Observed::Gone, Step::Done),
    ] {
        assert_eq!(next(observed), step, "{observed:?}");
    }
}

#[test]
fn nothing_is_left_at_the_target_and_the_volume_stays_staged() {
    for usage in [FILESYSTEM, publish::Usage::Block] {
        let world = published(usage);
        unpublish(&world.volumes, &world.unpublish()).unwrap();
        assert_eq!(world.host.found_at(&world.target()).unwrap(), Found::Nothing);
        let record = world.volumes.records.read(&world.volume).unwrap().unwrap();
        assert!(record.published.is_empty());
        assert_eq!(world.connected().len(), 1);
        unpublish(&world.volumes, &world.unpublish()).unwrap();
    }
}

#[test]
fn lesson_2_every_layer_is_unmounted_and_nothing_is_deleted_recursively() {
    let world = published(FILESYSTEM);
    world.host.bind(&world.staging(), &world.target()).unwrap();
    world.host.mount_foreign(world.target().as_path());
    world.host.place(&world.target().as_path().join("precious"), Found::Other);
    let error = unpublish(&world.volumes, &world.unpublish()).unwrap_err();
    assert!(error.to_string().contains("target"), "{error}");
    assert!(world.host.mounts().unwrap().top(&world.target()).is_none());
    assert_eq!(world.host.found_at(&world.path("pods/p/target/precious")).unwrap(), Found::Other);
}

#[test]
fn lesson_2_a_layer_that_cannot_be_unmounted_stops_it() {
    let world = published(FILESYSTEM);
    world.host.fail_once(Act::Unmount, Errno::BUSY);
    assert!(unpublish(&world.volumes, &world.unpublish()).is_err());
    assert_eq!(world.host.found_at(&world.target()).unwrap(), Found::Directory);
    unpublish(&world.volumes, &world.unpublish()).unwrap();
}

#[test]
fn what_we_never_make_is_not_removed() {
    let world = world(Holds::Nothing);
    world.host.place(world.target().as_path(), Found::Other);
    let error = unpublish(&world.volumes, &world.unpublish()).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert_eq!(world.host.found_at(&world.target()).unwrap(), Found::Other);
}

#[test]
fn a_target_that_is_not_there_is_unpublished_already() {
    let world = world(Holds::Nothing);
    unpublish(&world.volumes, &world.unpublish()).unwrap();
}

#[test]
fn after_a_reboot_only_the_empty_directory_is_removed() {
    let world = published(FILESYSTEM);
    world.host.reboot();
    unpublish(&world.volumes, &world.unpublish()).unwrap();
    assert!(world.host.is_clean());
}

/// A directory where the new record would be written fails the write for everybody, root too.
#[test]
fn a_record_that_cannot_be_written_keeps_no_pod_from_ending() {
    for usage in [FILESYSTEM, publish::Usage::Block] {
        let world = published(usage);
        let obstacle = world.state().join("pvc-a.json.new");
        std::fs::create_dir(&obstacle).unwrap();
        unpublish(&world.volumes, &world.unpublish()).unwrap();
        assert_eq!(world.host.found_at(&world.target()).unwrap(), Found::Nothing);
        // What is still written down claims nothing.
        let record = world.volumes.records.read(&world.volume).unwrap().unwrap();
        assert_eq!(
            world.volumes.published(&record, &world.host.mounts().unwrap()).unwrap(),
            [""; 0].map(std::path::PathBuf::from)
        );
        std::fs::remove_dir(&obstacle).unwrap();
        unpublish(&world.volumes, &world.unpublish()).unwrap();
        assert!(world.volumes.records.read(&world.volume).unwrap().unwrap().published.is_empty());
        crate::unstage::unstage(&world.volumes, &world.unstage()).unwrap();
        assert!(world.is_clean());
    }
}

#[test]
fn lesson_18_a_process_that_keeps_the_mount_busy_is_named() {
    let world = published(FILESYSTEM);
    world.host.open_file(&world.nqn, 4711, "postgres", "/var/lib/kubelet/pods/p/target/base");
    let error = unpublish(&world.volumes, &world.unpublish()).unwrap_err();
    assert_eq!(error.kind(), Kind::InUse);
    assert!(error.to_string().contains("process 4711 (postgres)"), "{error}");
    assert!(world.host.mounts().unwrap().top(&world.target()).is_some());
    world.host.close_files();
    unpublish(&world.volumes, &world.unpublish()).unwrap();
}
