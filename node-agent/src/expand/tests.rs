use rds_csi_api::{Failure as _, Kind};
use rustix::io::Errno;

use super::*;
use crate::host::MountOptions;
use crate::host::fake::{Act, Holds};
use crate::stage::{self, Usage, stage};
use crate::world::{GIB, World, world};

const LARGER: Bytes = Bytes::gib(3);

fn wanted(world: &World, least: Bytes) -> Wanted {
    Wanted {
        volume: world.volume.clone(),
        path: world.staging().as_path().into(),
        staging: None,
        size: Range { least, most: None },
    }
}

fn staged(usage: fn(&World) -> stage::Wanted) -> World {
    let world = world(Holds::Nothing);
    stage(&world.volumes, &usage(&world)).unwrap();
    world
}

#[test]
fn a_mounted_filesystem_grows_with_its_device_and_a_repetition_changes_nothing() {
    for fs in [FsType::Ext3, FsType::Ext4, FsType::Xfs] {
        let world = world(Holds::Nothing);
        let options = MountOptions::parse(&["noatime"]).unwrap();
        stage(&world.volumes, &world.stage_as(Usage::Filesystem { fs, options })).unwrap();
        world.host.resize(&world.nqn, LARGER);
        assert_eq!(expand(&world.volumes, &wanted(&world, LARGER)).unwrap(), LARGER);
        assert_eq!(world.host.holds(&world.nqn), Holds::Filesystem(fs, LARGER));
        let before = world.everything();
        assert_eq!(expand(&world.volumes, &wanted(&world, LARGER)).unwrap(), LARGER);
        assert_eq!(world.everything(), before);
    }
}

#[test]
fn a_block_volume_shows_its_new_size_and_what_is_on_it_stays() {
    let world = world(Holds::Foreign("gpt"));
    stage(&world.volumes, &world.stage_as(Usage::Block)).unwrap();
    world.host.resize(&world.nqn, LARGER);
    assert_eq!(expand(&world.volumes, &wanted(&world, LARGER)).unwrap(), LARGER);
    assert_eq!(world.host.holds(&world.nqn), Holds::Foreign("gpt"));
}

#[test]
fn lesson_26_the_size_that_is_told_is_the_device_s_own() {
    let world = staged(World::stage_filesystem);
    world.host.resize(&world.nqn, LARGER);
    let asked = Bytes::new(GIB.get() + 1);
    assert_eq!(expand(&world.volumes, &wanted(&world, asked)).unwrap(), LARGER);
}

#[test]
fn a_device_that_does_not_grow_is_told_with_what_it_has() {
    let world = staged(World::stage_filesystem);
    let before = world.everything();
    let error = expand(&world.volumes, &wanted(&world, LARGER)).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsure, "kubelet comes again: {error}");
    let text = error.to_string();
    assert!(text.contains("1073741824 bytes") && text.contains("3221225472 bytes"), "{text}");
    assert_eq!(world.everything(), before);
}

#[test]
fn an_array_that_is_away_is_waited_for_and_then_told() {
    let world = staged(World::stage_filesystem);
    world.host.resize(&world.nqn, LARGER);
    world.host.unplug();
    let error = expand(&world.volumes, &wanted(&world, LARGER)).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsure);
    assert!(error.to_string().contains("no working device"), "{error}");
}

#[test]
fn growing_goes_on_where_it_was_cut_off() {
    let world = staged(World::stage_filesystem);
    world.host.resize(&world.nqn, LARGER);
    world.host.fail_once(Act::Grow, Errno::IO);
    assert!(expand(&world.volumes, &wanted(&world, LARGER)).is_err());
    expand(&world.volumes, &wanted(&world, LARGER)).unwrap();
    assert_eq!(world.host.holds(&world.nqn), Holds::Filesystem(FsType::Ext4, LARGER));
}

#[test]
fn without_a_size_the_filesystem_takes_what_the_device_has() {
    let world = staged(World::stage_filesystem);
    assert_eq!(expand(&world.volumes, &wanted(&world, Bytes::new(0))).unwrap(), GIB);
}

#[test]
fn a_volume_or_a_path_that_nobody_knows_is_missing() {
    let world = staged(World::stage_filesystem);
    let other = Wanted { volume: "pvc-other".parse().unwrap(), ..wanted(&world, GIB) };
    let elsewhere = Wanted { path: "some/path".into(), ..wanted(&world, GIB) };
    for (wanted, told) in [(other, "pvc-other"), (elsewhere, "some/path")] {
        let error = expand(&world.volumes, &wanted).unwrap_err();
        assert_eq!(error.kind(), Kind::Missing);
        assert!(error.to_string().contains(told), "{error}");
    }
}

#[test]
fn a_kubelet_that_was_started_again_may_name_a_block_volume_by_its_staging_path() {
    let world = staged(|world| world.stage_as(Usage::Block));
    world.host.resize(&world.nqn, LARGER);
    let staging = Some(world.staging().as_path().into());
    let wanted = Wanted { path: "csi-0815".into(), staging, ..wanted(&world, LARGER) };
    assert_eq!(expand(&world.volumes, &wanted).unwrap(), LARGER);
}

#[test]
fn a_filesystem_that_became_read_only_does_not_grow_and_says_so() {
    let world = staged(World::stage_filesystem);
    world.host.resize(&world.nqn, LARGER);
    world.host.remount_read_only();
    let error = expand(&world.volumes, &wanted(&world, LARGER)).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.to_string().contains("read-only"), "{error}");
    assert_eq!(world.host.holds(&world.nqn), Holds::Filesystem(FsType::Ext4, GIB));
}

#[test]
fn a_read_only_filesystem_that_takes_all_of_its_device_has_nothing_to_grow() {
    let world = staged(World::stage_filesystem);
    world.host.remount_read_only();
    assert_eq!(expand(&world.volumes, &wanted(&world, GIB)).unwrap(), GIB);
}

#[test]
fn growth_that_nobody_can_vouch_for_is_not_reported_and_is_asked_for_again() {
    for (shown, told) in [
        (Holds::BadSectors, "fails every read"),
        (Holds::Foreign("crypto_LUKS"), "crypto_LUKS"),
        (Holds::Nothing, "no filesystem"),
    ] {
        let world = staged(World::stage_filesystem);
        world.host.export(&world.nqn, LARGER, shown.clone());
        let error = expand(&world.volumes, &wanted(&world, LARGER)).unwrap_err();
        assert_eq!(error.kind(), Kind::Unreachable, "kubelet comes again: {error}");
        assert!(error.to_string().contains(told), "{error}");
        assert_eq!(world.host.holds(&world.nqn), shown);
        world.host.export(&world.nqn, LARGER, Holds::Filesystem(FsType::Ext4, GIB));
        assert_eq!(expand(&world.volumes, &wanted(&world, LARGER)).unwrap(), LARGER);
        assert_eq!(world.host.holds(&world.nqn), Holds::Filesystem(FsType::Ext4, LARGER));
    }
}

#[test]
fn after_a_reboot_there_is_nothing_to_grow() {
    let world = staged(World::stage_filesystem);
    world.host.reboot();
    let error = expand(&world.volumes, &wanted(&world, GIB)).unwrap_err();
    assert!(matches!(error, Error::NotConnected { .. }), "{error}");
    stage(&world.volumes, &world.stage_filesystem()).unwrap();
    world.host.unmount(&world.staging()).unwrap();
    let error = expand(&world.volumes, &wanted(&world, GIB)).unwrap_err();
    assert!(matches!(error, Error::NotMounted { .. }), "{error}");
    world.host.mount_foreign(world.staging().as_path());
    let error = expand(&world.volumes, &wanted(&world, GIB)).unwrap_err();
    assert!(matches!(error, Error::OtherDevice { .. }), "{error}");
}

#[test]
fn more_than_the_limit_is_out_of_range() {
    let world = staged(|world| world.stage_as(Usage::Block));
    let size = Range { least: Bytes::new(1), most: Some(Bytes::mib(1)) };
    let error = expand(&world.volumes, &Wanted { size, ..wanted(&world, GIB) }).unwrap_err();
    assert_eq!(error.kind(), Kind::OutOfRange);
}

#[test]
fn a_volume_that_an_earlier_driver_staged_grows() {
    for usage in [World::stage_filesystem, |world: &World| world.stage_as(Usage::Block)] {
        let world = staged(usage);
        let form = world.volumes.records.read(&world.volume).unwrap().unwrap().form;
        if form == Form::Block {
            let usage = crate::publish::Usage::Block;
            crate::publish::publish(&world.volumes, &world.publish_as(usage)).unwrap();
        }
        world.volumes.records.remove(&world.volume).unwrap();
        world.host.resize(&world.nqn, LARGER);
        let path = if form == Form::Block { world.target() } else { world.staging() };
        let wanted = Wanted { path: path.as_path().into(), ..wanted(&world, LARGER) };
        assert_eq!(expand(&world.volumes, &wanted).unwrap(), LARGER);
        assert!(world.volumes.records.read(&world.volume).unwrap().is_none());
    }
}
