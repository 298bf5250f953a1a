use rds_csi_api::FsType;
use rustix::io::Errno;

use super::*;
use crate::host::fake::{Act, Holds};
use crate::host::{DeviceNumber, MountOptions};
use crate::stage;
use crate::world::{GIB, World, world};

const READ_WRITE: Usage = Usage::Filesystem(Writing::Allowed);
const READ_ONLY: Usage = Usage::Filesystem(Writing::Forbidden);

fn staged(usage: Usage) -> World {
    let world = world(Holds::Nothing);
    let wanted = match usage {
        Usage::Block => world.stage_as(stage::Usage::Block),
        Usage::Filesystem(_) => world.stage_filesystem(),
    };
    stage::stage(&world.volumes, &wanted).unwrap();
    world
}

#[test]
fn every_state_has_its_step() {
    let world = world(Holds::Nothing);
    let device = Device {
        name: "nvme1n1".into(),
        number: "259:1".parse().unwrap(),
        size: GIB,
        nqn: Nqn::of_volume(&"pvc-a".parse().unwrap()),
    };
    let stale = Found::Node(DeviceNumber { major: 259, minor: 9 });
    let (rw, ro) = (Staged::Filesystem(Writing::Allowed), Staged::Filesystem(Writing::Forbidden));
    let block = Staged::Block(device.clone());
    let is = Target::Unmounted;
    for (usage, staged, target, step) in [
        (READ_WRITE, Staged::Missing("x"), is(Found::Nothing), "refuse"),
        (READ_WRITE, Staged::Other(Form::Block), is(Found::Nothing), "refuse"),
        (READ_WRITE, Staged::Exclusive("/pods/q".into()), is(Found::Nothing), "refuse"),
        (READ_WRITE, rw.clone(), is(Found::Nothing), "make the directory"),
        (READ_WRITE, rw.clone(), is(Found::Directory), "bind"),
        (READ_WRITE, rw.clone(), is(Found::Other), "refuse"),
        (READ_WRITE, rw.clone(), is(stale), "refuse"),
        (READ_WRITE, rw.clone(), Target::Bound(Writing::Allowed), "done"),
        (READ_WRITE, rw.clone(), Target::Bound(Writing::Forbidden), "refuse"),
        (READ_WRITE, rw.clone(), Target::Other("/dev/sda1".into()), "refuse"),
        (READ_WRITE, ro.clone(), is(Found::Nothing), "refuse"),
        (READ_WRITE, ro.clone(), Target::Bound(Writing::Allowed), "refuse"),
        (READ_WRITE, ro.clone(), Target::Bound(Writing::Forbidden), "refuse"),
        (READ_ONLY, ro.clone(), Target::Bound(Writing::Forbidden), "done"),
        (READ_ONLY, rw.clone(), Target::Bound(Writing::Allowed), "make read-only"),
        (READ_ONLY, rw, Target::Bound(Writing::Forbidden), "done"),
        (READ_ONLY, ro, is(Found::Directory), "bind"),
        (Usage::Block, block.clone(), is(Found::Nothing), "make the device node"),
        (Usage::Block, block.clone(), is(Found::Node(device.number)), "done"),
        (Usage::Block, block.clone(), is(stale), "remove the stale node"),
        (Usage::Block, block.clone(), is(Found::EmptyFile), "remove the stale node"),
        (Usage::Block, block.clone(), is(Found::Directory), "refuse"),
        (Usage::Block, block.clone(), is(Found::Other), "refuse"),
        (Usage::Block, block, Target::Bound(Writing::Allowed), "refuse"),
    ] {
        let text = format!("{usage:?} {staged:?} {target:?}");
        assert_eq!(next(&world.publish_as(usage), staged, target).name(), step, "{text}");
    }
}

#[test]
fn a_filesystem_is_bound_and_a_block_device_gets_its_node() {
    let world = staged(READ_WRITE);
    publish(&world.volumes, &world.publish_as(READ_WRITE)).unwrap();
    let mounts = world.host.mounts().unwrap();
    let (staging, target) = (world.staging(), world.target());
    let (source, bound) = (mounts.top(&staging).unwrap(), mounts.top(&target).unwrap());
    assert_eq!((source.device, bound.is_read_only()), (bound.device, false));

    let world = staged(Usage::Block);
    publish(&world.volumes, &world.publish_as(Usage::Block)).unwrap();
    let number = world.host.attachment(&world.nqn).unwrap().device().unwrap().number;
    assert_eq!(world.host.found_at(&world.target()).unwrap(), Found::Node(number));
}

#[test]
fn lesson_15_a_block_volume_is_never_a_mount() {
    let world = staged(Usage::Block);
    publish(&world.volumes, &world.publish_as(Usage::Block)).unwrap();
    assert_eq!(world.host.mounts().unwrap().iter().count(), 0);
}

#[test]
fn read_only_is_honoured_and_only_there() {
    let world = staged(READ_WRITE);
    publish(&world.volumes, &world.publish_as(READ_ONLY)).unwrap();
    let mounts = world.host.mounts().unwrap();
    assert!(mounts.top(&world.target()).unwrap().is_read_only());
    assert!(!mounts.top(&world.staging()).unwrap().is_read_only());
    let error = publish(&world.volumes, &world.publish_as(READ_WRITE)).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
}

#[test]
fn a_repeated_publish_is_a_no_op() {
    for usage in [READ_WRITE, READ_ONLY, Usage::Block] {
        let world = staged(usage);
        publish(&world.volumes, &world.publish_as(usage)).unwrap();
        let before = world.everything();
        publish(&world.volumes, &world.publish_as(usage)).unwrap();
        assert_eq!(world.everything(), before, "{usage:?}");
    }
}

#[test]
fn lesson_8_a_stale_node_is_replaced() {
    let world = staged(Usage::Block);
    publish(&world.volumes, &world.publish_as(Usage::Block)).unwrap();
    world.host.renumber();
    publish(&world.volumes, &world.publish_as(Usage::Block)).unwrap();
    let number = world.host.attachment(&world.nqn).unwrap().device().unwrap().number;
    assert_eq!(world.host.found_at(&world.target()).unwrap(), Found::Node(number));
}

#[test]
fn lesson_8_a_staging_mount_of_another_device_is_not_handed_out() {
    let world = staged(READ_WRITE);
    world.host.mount_foreign(world.staging().as_path());
    let error = publish(&world.volumes, &world.publish_as(READ_WRITE)).unwrap_err();
    assert!(error.to_string().contains("another device"), "{error}");
}

#[test]
fn what_is_at_the_target_and_not_ours_stays() {
    for found in [Found::Directory, Found::Other] {
        let world = staged(Usage::Block);
        world.host.place(world.target().as_path(), found);
        let error = publish(&world.volumes, &world.publish_as(Usage::Block)).unwrap_err();
        assert!(matches!(error, Error::Taken { .. }), "{error}");
        assert_eq!(world.host.found_at(&world.target()).unwrap(), found);
    }
}

#[test]
fn a_failed_publish_undoes_what_it_did() {
    for (usage, act) in [
        (READ_WRITE, Act::MakeDirectory),
        (READ_WRITE, Act::Bind),
        (READ_ONLY, Act::MakeReadOnly),
        (Usage::Block, Act::MakeNode),
    ] {
        let world = staged(usage);
        let (_, records) = world.everything();
        world.host.fail_once(act, Errno::IO);
        assert!(publish(&world.volumes, &world.publish_as(usage)).is_err(), "{act:?}");
        assert_eq!(world.host.found_at(&world.target()).unwrap(), Found::Nothing, "{act:?}");
        assert!(world.host.mounts().unwrap().top(&world.target()).is_none(), "{act:?}");
        assert_eq!(world.everything().1, records, "{act:?}");
        publish(&world.volumes, &world.publish_as(usage)).unwrap();
    }
}

#[test]
fn what_is_not_staged_is_not_published() {
    let world = world(Holds::Nothing);
    let error = publish(&world.volumes, &world.publish_as(READ_WRITE)).unwrap_err();
    assert!(error.to_string().contains("never staged"), "{error}");
    stage::stage(&world.volumes, &world.stage_filesystem()).unwrap();
    let other = Wanted { nqn: format!("{}:e2", world.nqn).parse().unwrap(), ..world.publish_as(READ_WRITE) };
    assert!(publish(&world.volumes, &other).unwrap_err().to_string().contains("earlier attachment"));
    assert!(matches!(publish(&world.volumes, &world.publish_as(Usage::Block)), Err(Error::OtherForm { .. })));
}

#[test]
fn two_pods_of_one_node_have_their_own_targets() {
    let world = staged(READ_WRITE);
    let second = Wanted { target: world.path("pods/q/target"), ..world.publish_as(READ_WRITE) };
    publish(&world.volumes, &world.publish_as(READ_WRITE)).unwrap();
    publish(&world.volumes, &second).unwrap();
    let record = world.volumes.records.read(&world.volume).unwrap().unwrap();
    assert_eq!(record.published.len(), 2);
    crate::unpublish::unpublish(&world.volumes, &world.unpublish()).unwrap();
    assert!(world.host.mounts().unwrap().top(&second.target).is_some());
}

#[test]
fn a_volume_that_is_staged_for_reading_is_published_for_reading() {
    let world = world(Holds::Filesystem(FsType::Ext4, GIB));
    let options = MountOptions::parse(&["ro"]).unwrap();
    stage::stage(&world.volumes, &world.stage_as(stage::Usage::Filesystem { fs: FsType::Ext4, options }))
        .unwrap();
    publish(&world.volumes, &world.publish_as(READ_ONLY)).unwrap();
    assert!(world.host.mounts().unwrap().top(&world.target()).unwrap().is_read_only());
}

#[test]
fn a_filesystem_that_became_read_only_is_not_published_for_writing() {
    let world = staged(READ_WRITE);
    world.host.make_read_only(&world.staging()).unwrap();
    let before = world.everything();
    let error = publish(&world.volumes, &world.publish_as(READ_WRITE)).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.to_string().contains("kernel log"), "{error}");
    assert_eq!(world.everything(), before);
    publish(&world.volumes, &world.publish_as(READ_ONLY)).unwrap();
}

#[test]
fn a_volume_for_one_pod_is_published_once_and_again_when_it_is_free() {
    for usage in [READ_WRITE, Usage::Block] {
        let world = staged(usage);
        let first = Wanted { sharing: Sharing::Exclusive, ..world.publish_as(usage) };
        let second = Wanted { target: world.path("pods/q/target"), ..first.clone() };
        publish(&world.volumes, &first).unwrap();
        publish(&world.volumes, &first).unwrap();
        let error = publish(&world.volumes, &second).unwrap_err();
        assert!(error.to_string().contains("published at /var/lib/kubelet/pods/p/target"), "{error}");
        crate::unpublish::unpublish(&world.volumes, &world.unpublish()).unwrap();
        publish(&world.volumes, &second).unwrap();
    }
}

#[test]
fn a_volume_that_an_earlier_driver_staged_is_taken_over() {
    for usage in [READ_WRITE, READ_ONLY, Usage::Block] {
        let world = staged(usage);
        let record = world.volumes.records.read(&world.volume).unwrap();
        world.volumes.records.remove(&world.volume).unwrap();
        publish(&world.volumes, &world.publish_as(usage)).unwrap();
        let mut taken_over = world.volumes.records.read(&world.volume).unwrap();
        taken_over.as_mut().unwrap().published.clear();
        assert_eq!(taken_over, record);
        crate::unpublish::unpublish(&world.volumes, &world.unpublish()).unwrap();
        crate::unstage::unstage(&world.volumes, &world.unstage()).unwrap();
        assert!(world.is_clean());
    }
}

#[test]
fn only_exactly_this_volume_is_taken_over() {
    let world = staged(READ_WRITE);
    world.volumes.records.remove(&world.volume).unwrap();
    let before = world.everything();
    let other_name =
        Wanted { nqn: format!("{}:e2", world.nqn).parse().unwrap(), ..world.publish_as(READ_WRITE) };
    let other_array =
        Wanted { portal: Portal::parse("10.77.0.2", None).unwrap(), ..world.publish_as(READ_WRITE) };
    let other_place = Wanted { staging: world.path("plugins/other"), ..world.publish_as(READ_WRITE) };
    let other_form = world.publish_as(Usage::Block);
    for wanted in [other_name, other_array, other_place, other_form] {
        let error = publish(&world.volumes, &wanted).unwrap_err();
        assert!(error.to_string().contains("never staged"), "{error}");
        assert_eq!(world.everything(), before);
    }
}

#[test]
fn a_device_file_that_an_earlier_driver_mounted_is_left_and_taken_away_layer_by_layer() {
    let world = staged(Usage::Block);
    let number = world.host.attachment(&world.nqn).unwrap().device().unwrap().number;
    world.host.place(world.target().as_path(), Found::Node(number));
    world.host.mount_device_file(world.target().as_path());
    publish(&world.volumes, &world.publish_as(Usage::Block)).unwrap();
    assert!(world.host.mounts().unwrap().top(&world.target()).is_some());
    world.host.mount_device_file(world.target().as_path());
    crate::unpublish::unpublish(&world.volumes, &world.unpublish()).unwrap();
    crate::unstage::unstage(&world.volumes, &world.unstage()).unwrap();
    assert!(world.is_clean());
}

#[test]
fn a_dead_mount_at_the_target_makes_way() {
    let world = staged(READ_WRITE);
    publish(&world.volumes, &world.publish_as(READ_WRITE)).unwrap();
    world.host.give_up();
    stage::stage(&world.volumes, &world.stage_filesystem()).unwrap();
    publish(&world.volumes, &world.publish_as(READ_WRITE)).unwrap();
    let number = world.host.attachment(&world.nqn).unwrap().device().unwrap().number;
    let mounts = world.host.mounts().unwrap();
    assert_eq!(
        mounts.layers(world.target().as_path()).map(|mount| mount.device).collect::<Vec<_>>(),
        [number]
    );
}

#[test]
fn a_second_block_target_lives_on_when_the_first_is_gone() {
    let world = staged(Usage::Block);
    let second = Wanted { target: world.path("pods/q/target"), ..world.publish_as(Usage::Block) };
    publish(&world.volumes, &world.publish_as(Usage::Block)).unwrap();
    publish(&world.volumes, &second).unwrap();
    crate::unpublish::unpublish(&world.volumes, &world.unpublish()).unwrap();
    assert!(matches!(world.host.found_at(&second.target).unwrap(), Found::Node(_)));
}
