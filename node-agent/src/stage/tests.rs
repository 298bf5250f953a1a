use rds_csi_api::{Failure as _, Kind, Portal};
use rustix::io::Errno;

use super::*;
use crate::host::Use;
use crate::host::fake::{Act, Holds, Late};
use crate::world::{GIB, World, world};

const SMALL: Bytes = Bytes::mib(512);

fn as_filesystem(world: &World, fs: FsType, flags: &[&str]) -> Wanted {
    world.stage_as(Usage::Filesystem { fs, options: MountOptions::parse(flags).unwrap() })
}

fn device(size: Bytes) -> Device {
    Device {
        name: "nvme1n1".into(),
        number: "259:1".parse().unwrap(),
        size,
        nqn: rds_csi_api::Nqn::of_volume(&"pvc-a".parse().unwrap()),
    }
}

#[test]
fn every_state_has_its_step() {
    let world = world(Holds::Nothing);
    let filesystem = world.stage_filesystem();
    let block = world.stage_as(Usage::Block);
    let ext4_in = |state| Content::Has(Signature::Filesystem { fs: FsType::Ext4, size: GIB, state });
    let ready = |staged| Observed::Ready(device(GIB), staged);
    let unmounted = |content| ready(Staged::Unmounted(content, Mending::Done));
    let cut_off = |content| ready(Staged::Unmounted(content, Mending::Begun));
    for (wanted, observed, step) in [
        (&filesystem, Observed::Absent, "connect"),
        (&block, Observed::Absent, "connect"),
        (&block, Observed::Pending, "wait for the device"),
        (&block, ready(Staged::Block), "done"),
        (&block, Observed::Short(device(SMALL)), "refuse"),
        (&block, ready(Staged::Other("/dev/sda1".into())), "refuse"),
        (&filesystem, Observed::Short(device(SMALL)), "refuse"),
        (&filesystem, Observed::Elsewhere("/elsewhere".into()), "refuse"),
        (&filesystem, Observed::Renamed(world.managed(), Old::Idle), "end the old connection"),
        (&filesystem, Observed::Renamed(world.managed(), Old::Stuck), "abandon the old connection"),
        (&filesystem, Observed::Renamed(world.managed(), Old::InUse(Vec::new())), "refuse"),
        (&filesystem, Observed::Dead(world.staging()), "detach a dead mount"),
        (&filesystem, ready(Staged::Other("/dev/sda1".into())), "refuse"),
        (&filesystem, unmounted(ext4_in(State::Sound)), "mount"),
        (&filesystem, unmounted(ext4_in(State::Flawed)), "repair"),
        (&filesystem, cut_off(ext4_in(State::Sound)), "repair"),
        (&filesystem, unmounted(Content::Has(Signature::Foreign("gpt".into()))), "refuse"),
        (&filesystem, unmounted(Content::Unreadable("EIO".into())), "refuse"),
        (&filesystem, ready(Staged::Mounted(Fit::Smaller)), "grow"),
        (&filesystem, ready(Staged::Mounted(Fit::Fills)), "done"),
        (&filesystem, ready(Staged::Mounted(Fit::Unknown("EIO".into()))), "done"),
    ] {
        let text = format!("{observed:?}");
        assert_eq!(next(wanted, observed).name(), step, "{text}");
    }
}

#[test]
fn a_blank_volume_is_connected_formatted_and_mounted() {
    for fs in [FsType::Ext3, FsType::Ext4, FsType::Xfs] {
        let world = world(Holds::Nothing);
        stage(&world.volumes, &as_filesystem(&world, fs, &[])).unwrap();
        assert_eq!(world.host.holds(&world.nqn), Holds::Filesystem(fs, GIB));
        let mounts = world.host.mounts().unwrap();
        assert_eq!(mounts.top(&world.staging()).unwrap().filesystem, fs.as_str());
    }
}

#[test]
fn a_block_volume_is_connected_and_nothing_more() {
    let world = world(Holds::Foreign("gpt"));
    stage(&world.volumes, &world.stage_as(Usage::Block)).unwrap();
    assert!(matches!(world.host.attachment(&world.nqn).unwrap(), Attachment::Live(Some(_))));
    assert_eq!(world.host.mounts().unwrap().iter().count(), 0);
    assert_eq!(world.host.holds(&world.nqn), Holds::Foreign("gpt"));
}

#[test]
fn lesson_1_only_a_proven_blank_device_is_formatted() {
    for (holds, told) in [
        (Holds::Foreign("crypto_LUKS"), "crypto_LUKS"),
        (Holds::Filesystem(FsType::Xfs, GIB), "xfs"),
        (Holds::BadSectors, "fails every read"),
    ] {
        let world = world(holds.clone());
        let error = stage(&world.volumes, &world.stage_filesystem()).unwrap_err();
        assert!(error.to_string().contains(told), "{error}");
        assert_eq!(error.kind(), Kind::Refused);
        assert_eq!(world.host.holds(&world.nqn), holds);
        assert!(world.is_clean(), "{holds:?}");
    }
}

#[test]
fn lesson_4_a_repeated_stage_is_a_no_op() {
    for usage in [
        Usage::Block,
        Usage::Filesystem { fs: FsType::Ext4, options: MountOptions::parse(&["noatime"]).unwrap() },
    ] {
        let world = world(Holds::Nothing);
        let wanted = world.stage_as(usage);
        stage(&world.volumes, &wanted).unwrap();
        let before = world.everything();
        stage(&world.volumes, &wanted).unwrap();
        assert_eq!(world.everything(), before);
    }
}

#[test]
fn lesson_4_a_failed_repetition_leaves_the_live_volume_alone() {
    let world = world(Holds::Nothing);
    stage(&world.volumes, &world.stage_filesystem()).unwrap();
    let before = world.everything();
    // Another staging path while it is mounted at the first, another size, another filesystem's probe that fails.
    let elsewhere = Wanted { staging: world.path("plugins/other"), ..world.stage_filesystem() };
    assert!(matches!(stage(&world.volumes, &elsewhere), Err(Error::StagedElsewhere { .. })));
    let larger = Wanted { size: Bytes::gib(2), ..world.stage_filesystem() };
    let error = stage(&world.volumes, &larger).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsure, "kubelet must not take the volume for unstaged: {error}");
    assert!(matches!(error, Error::Remains { cause, .. } if matches!(*cause, Error::TooSmall { .. })));
    let block = Wanted { usage: Usage::Block, ..world.stage_filesystem() };
    assert_eq!(stage(&world.volumes, &block).unwrap_err().kind(), Kind::Conflict);
    world.host.fail_once(Act::Probe, Errno::IO);
    assert!(stage(&world.volumes, &world.stage_filesystem()).is_err());
    assert_eq!(world.everything(), before);
}

#[test]
fn lesson_4_a_failed_repetition_of_what_an_earlier_driver_staged_does_not_say_that_nothing_is() {
    let world = world(Holds::Nothing);
    stage(&world.volumes, &world.stage_filesystem()).unwrap();
    world.volumes.records.remove(&world.volume).unwrap();
    let before = world.everything();
    let mut wanted = world.stage_filesystem();
    wanted.size = Bytes::new(GIB.get() + 1);
    let error = stage(&world.volumes, &wanted).unwrap_err();
    assert!(matches!(error, Error::Remains { cause, .. } if matches!(*cause, Error::TooSmall { .. })));
    assert_eq!(world.everything(), before);
}

#[test]
fn lesson_4_a_failed_stage_undoes_what_it_did() {
    for act in [Act::Connect, Act::Probe, Act::Format, Act::Mount] {
        let world = world(Holds::Nothing);
        world.host.fail_once(act, Errno::IO);
        assert!(stage(&world.volumes, &world.stage_filesystem()).is_err(), "{act:?}");
        assert!(world.is_clean(), "{act:?}: {:?}", world.everything());
        stage(&world.volumes, &world.stage_filesystem()).unwrap();
    }
}

#[test]
fn lesson_3_what_cannot_be_undone_safely_stays_and_stays_known() {
    let world = world(Holds::Nothing);
    world.host.fail_once(Act::Mount, Errno::IO);
    world.host.fail_once(Act::Disconnect, Errno::BUSY);
    let error = stage(&world.volumes, &world.stage_filesystem()).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsure, "kubelet must not take the volume for unstaged: {error}");
    assert!(!world.host.is_clean());
    assert!(world.volumes.records.read(&world.volume).unwrap().is_some());
    crate::unstage::unstage(&world.volumes, &world.unstage()).unwrap();
    assert!(world.is_clean());
}

#[test]
fn a_device_that_comes_late_is_waited_for() {
    let world = world(Holds::Nothing);
    world.host.connect_late(Late::Device);
    stage(&world.volumes, &world.stage_filesystem()).unwrap();
    assert!(world.host.mounts().unwrap().top(&world.staging()).is_some());
}

#[test]
fn a_device_that_never_comes_is_unsure_and_its_connection_is_undone() {
    let world = world(Holds::Nothing);
    world.host.connect_late(Late::Never);
    let error = stage(&world.volumes, &world.stage_filesystem()).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsure);
    assert!(world.is_clean());
}

#[test]
fn an_array_that_is_away_is_unreachable() {
    let world = world(Holds::Nothing);
    let missing = "nqn.2000-02.com.mikrotik:pvc-gone".parse().unwrap();
    let mut wanted = world.stage_filesystem();
    wanted.target.nqn = crate::host::ManagedNqn::new(&world.volumes.prefix, missing).unwrap();
    assert_eq!(stage(&world.volumes, &wanted).unwrap_err().kind(), Kind::Unreachable);
    assert!(world.is_clean());
}

#[test]
fn lesson_5_a_device_that_is_one_byte_short_is_not_used() {
    let world = world(Holds::Nothing);
    let wanted = Wanted { size: Bytes::new(GIB.get() + 1), ..world.stage_filesystem() };
    let error = stage(&world.volumes, &wanted).unwrap_err();
    assert!(
        error.to_string().contains("1073741824 bytes (1 GiB), and the array says 1073741825 bytes"),
        "{error}"
    );
    assert_eq!(world.host.holds(&world.nqn), Holds::Nothing);
    assert!(world.is_clean());
}

#[test]
fn lesson_20_a_filesystem_is_mounted_first_and_repaired_only_if_that_fails() {
    let world = world(Holds::Damaged(FsType::Xfs, GIB));
    world.host.fail_once(Act::Repair, Errno::IO);
    let wanted = as_filesystem(&world, FsType::Xfs, &[]);
    assert!(stage(&world.volumes, &wanted).is_err());
    stage(&world.volumes, &wanted).unwrap();
    assert_eq!(world.host.holds(&world.nqn), Holds::Filesystem(FsType::Xfs, GIB));

    let sound = crate::world::world(Holds::Filesystem(FsType::Xfs, GIB));
    // A repair would fail: so none was tried.
    sound.host.fail_once(Act::Repair, Errno::IO);
    stage(&sound.volumes, &as_filesystem(&sound, FsType::Xfs, &[])).unwrap();
}

#[test]
fn lesson_18_a_repair_that_would_lose_something_waits_for_a_person_s_word_and_takes_it_once() {
    let world = world(Holds::Ruined(FsType::Ext4, GIB));
    let wanted = world.stage_filesystem();
    let error = stage(&world.volumes, &wanted).unwrap_err();
    let told = rds_csi_api::status::chain(&error);
    assert!(error.kind() == Kind::Refused && told.contains("AllowRepair") && told.contains("fsck"), "{told}");
    assert!(world.is_clean(), "and nothing is left behind");
    assert_eq!(world.host.holds(&world.nqn), Holds::Ruined(FsType::Ext4, GIB));
    let permission = Permission { asked_by: "ada".into(), reason: "there is no snapshot".into() };
    world.volumes.repairs.allow(&world.volume, permission);
    stage(&world.volumes, &wanted).unwrap();
    assert_eq!(world.host.holds(&world.nqn), Holds::Filesystem(FsType::Ext4, GIB));
    assert_eq!(world.volumes.repairs.take(&world.volume), None);
}

#[test]
fn a_repair_that_was_cut_off_is_begun_again_before_anything_is_mounted() {
    let world = world(Holds::Flawed(FsType::Ext4, GIB));
    let wanted = world.stage_filesystem();
    // The agent is killed while its repair runs, which has put the superblock right already.
    stage(&world.volumes, &wanted).unwrap();
    let record = world.volumes.records.read(&world.volume).unwrap().unwrap();
    assert_eq!(record.mending, Mending::Done);
    world.host.reboot();
    world.volumes.records.write(&Record { mending: Mending::Begun, ..record }).unwrap();
    world.host.fail_once(Act::Repair, Errno::IO);
    stage(&world.volumes, &wanted).unwrap_err();
    assert!(world.host.mounts().unwrap().top(&world.staging()).is_none(), "it is not mounted unrepaired");
    stage(&world.volumes, &wanted).unwrap();
    let record = world.volumes.records.read(&world.volume).unwrap().unwrap();
    assert_eq!(record.mending, Mending::Done);
}

#[test]
fn a_filesystem_that_has_recorded_errors_is_repaired_before_it_is_mounted_and_under_nobody() {
    let flawed = Holds::Flawed(FsType::Ext4, GIB);
    let world = world(flawed.clone());
    let wanted = world.stage_filesystem();
    world.host.connect(&wanted.target).unwrap();
    world.host.open_file(&world.nqn, 4711, "dd", "/dev/nvme1n1");
    let error = stage(&world.volumes, &wanted).unwrap_err();
    assert!(rds_csi_api::status::chain(&error).contains("process 4711 (dd)"), "{error}");
    assert_eq!(world.host.holds(&world.nqn), flawed);

    let world = crate::world::world(flawed);
    world.host.fail_once(Act::Repair, Errno::IO);
    assert!(stage(&world.volumes, &world.stage_filesystem()).is_err(), "it is not mounted as it is");
    assert!(world.is_clean());
    stage(&world.volumes, &world.stage_filesystem()).unwrap();
    assert_eq!(world.host.holds(&world.nqn), Holds::Filesystem(FsType::Ext4, GIB));
    assert_eq!(world.host.mounts().unwrap().iter().count(), 1);
}

#[test]
fn what_is_to_be_read_only_is_neither_formatted_nor_repaired_nor_grown() {
    let blank = world(Holds::Nothing);
    let error = stage(&blank.volumes, &as_filesystem(&blank, FsType::Ext4, &["ro"])).unwrap_err();
    assert!(matches!(error, Error::BlankReadOnly { .. }), "{error}");
    assert!(blank.is_clean());

    for holds in [
        Holds::Damaged(FsType::Ext4, GIB),
        Holds::Flawed(FsType::Ext4, GIB),
        Holds::Filesystem(FsType::Ext4, SMALL),
    ] {
        let world = world(holds.clone());
        let _ = stage(&world.volumes, &as_filesystem(&world, FsType::Ext4, &["ro"]));
        assert_eq!(world.host.holds(&world.nqn), holds);
    }
}

#[test]
fn a_filesystem_that_is_smaller_than_its_device_grows() {
    let world = world(Holds::Filesystem(FsType::Ext4, SMALL));
    stage(&world.volumes, &world.stage_filesystem()).unwrap();
    assert_eq!(world.host.holds(&world.nqn), Holds::Filesystem(FsType::Ext4, GIB));
}

#[test]
fn a_growth_that_a_crash_cut_off_is_made_up_for() {
    let world = world(Holds::Filesystem(FsType::Ext4, SMALL));
    world.host.fail_once(Act::Grow, Errno::IO);
    assert!(stage(&world.volumes, &world.stage_filesystem()).is_err());
    stage(&world.volumes, &world.stage_filesystem()).unwrap();
    assert_eq!(world.host.holds(&world.nqn), Holds::Filesystem(FsType::Ext4, GIB));
}

#[test]
fn what_is_mounted_at_the_staging_path_by_others_is_left_there() {
    let world = world(Holds::Nothing);
    world.host.mount_foreign(world.staging().as_path());
    let error = stage(&world.volumes, &world.stage_filesystem()).unwrap_err();
    assert!(matches!(error, Error::Taken { .. }), "{error}");
    assert_eq!(world.host.holds(&world.nqn), Holds::Nothing);
    assert_eq!(world.host.mounts().unwrap().iter().count(), 1);
}

/// The same volume under another name, as after a fence.
fn renamed(world: &World, wanted: Wanted) -> Wanted {
    let new: rds_csi_api::Nqn = format!("{}:e2", world.nqn).parse().unwrap();
    world.host.export(&new, GIB, world.host.holds(&world.nqn));
    let nqn = crate::host::ManagedNqn::new(&world.volumes.prefix, new).unwrap();
    Wanted { target: Target { nqn, ..wanted.target.clone() }, ..wanted }
}

fn publish_filesystem(world: &World) {
    let usage = crate::publish::Usage::Filesystem(crate::publish::Writing::Allowed);
    crate::publish::publish(&world.volumes, &world.publish_as(usage)).unwrap();
}

#[test]
fn an_old_connection_in_use_is_not_ended_for_a_new_one_and_says_by_whom() {
    let world = world(Holds::Nothing);
    stage(&world.volumes, &world.stage_as(Usage::Block)).unwrap();
    world.host.open_file(&world.nqn, 7, "qemu", "/dev/vda");
    let fenced = renamed(&world, world.stage_as(Usage::Block));
    let before = world.everything();
    let error = stage(&world.volumes, &fenced).unwrap_err();
    assert!(rds_csi_api::status::chain(&error).contains("process 7 (qemu)"), "{error:?}");
    assert!(matches!(error, Error::Remains { cause, .. } if matches!(*cause, Error::OtherConnection { .. })));
    assert_eq!(world.everything(), before);
    world.host.unplug();
    assert!(
        stage(&world.volumes, &fenced).is_err(),
        "a process may have an old device open that does not answer"
    );
}

#[test]
fn an_old_connection_that_works_and_is_mounted_is_not_ended() {
    let world = world(Holds::Nothing);
    stage(&world.volumes, &world.stage_filesystem()).unwrap();
    let fenced = renamed(&world, world.stage_filesystem());
    let before = world.everything();
    let error = stage(&world.volumes, &fenced).unwrap_err();
    assert!(rds_csi_api::status::chain(&error).contains("it is mounted at"), "{error:?}");
    assert_eq!(world.everything(), before);
}

#[test]
fn a_zombie_s_old_connection_is_ended_before_the_volume_is_staged_under_its_new_name() {
    let world = world(Holds::Nothing);
    stage(&world.volumes, &world.stage_filesystem()).unwrap();
    publish_filesystem(&world);
    let fenced = renamed(&world, world.stage_filesystem());
    world.host.withdraw(&world.nqn);
    stage(&world.volumes, &fenced).unwrap();
    // What the old device had not written has nowhere to go: it has no controller, and the new device is another.
    assert_eq!(world.host.attachment(&world.nqn).unwrap(), Attachment::Lost);
    let device = world.host.attachment(fenced.target.nqn.as_nqn()).unwrap().device().unwrap().number;
    assert_eq!(world.host.mounts().unwrap().top(&world.staging()).unwrap().device, device);
    crate::unpublish::unpublish(&world.volumes, &world.unpublish()).unwrap();
    crate::unstage::unstage(&world.volumes, &world.unstage()).unwrap();
    assert!(world.is_clean());
}

#[test]
fn a_zombie_s_mount_in_somebody_else_s_namespace_keeps_its_connection() {
    let world = world(Holds::Nothing);
    stage(&world.volumes, &world.stage_filesystem()).unwrap();
    world.host.use_device(&world.nqn, Use::MountElsewhere, 99, "postgres", "/data");
    let fenced = renamed(&world, world.stage_filesystem());
    world.host.withdraw(&world.nqn);
    let before = world.everything();
    let error = stage(&world.volumes, &fenced).unwrap_err();
    assert!(rds_csi_api::status::chain(&error).contains("process 99 (postgres)"), "{error:?}");
    assert_eq!(world.everything(), before);
}

#[test]
fn a_stale_mount_is_recovered() {
    let world = world(Holds::Nothing);
    stage(&world.volumes, &world.stage_filesystem()).unwrap();
    world.host.open_file(&world.nqn, 7, "postgres", "/data/base");
    world.host.give_up();
    stage(&world.volumes, &world.stage_filesystem()).unwrap();
    let device = world.host.attachment(&world.nqn).unwrap().device().unwrap().number;
    let mounts = world.host.mounts().unwrap();
    assert_eq!(
        mounts.layers(world.staging().as_path()).map(|mount| mount.device).collect::<Vec<_>>(),
        [device]
    );
}

#[test]
fn a_format_that_was_cut_off_is_begun_again_unless_somebody_is_still_at_it() {
    let world = world(Holds::Unfinished);
    let block = world.stage_as(Usage::Block);
    stage(&world.volumes, &block).unwrap();
    world.volumes.records.remove(&world.volume).unwrap();
    world.host.open_file(&world.nqn, 7, "mkfs.ext4", "/dev/nvme1n1");
    let error = stage(&world.volumes, &world.stage_filesystem()).unwrap_err();
    assert!(rds_csi_api::status::chain(&error).contains("process 7 (mkfs.ext4)"), "{error:?}");
    assert_eq!(world.host.holds(&world.nqn), Holds::Unfinished);
    world.host.close_files();
    let read_only = as_filesystem(&world, FsType::Ext4, &["ro"]);
    assert!(stage(&world.volumes, &read_only).is_err());
    assert_eq!(world.host.holds(&world.nqn), Holds::Unfinished);
    stage(&world.volumes, &world.stage_filesystem()).unwrap();
    assert_eq!(world.host.holds(&world.nqn), Holds::Filesystem(FsType::Ext4, GIB));
}

/// The volume of another array whose slot, and so whose NQN, is the same.
fn namesake(world: &World) -> Wanted {
    let mut wanted = world.stage_as(Usage::Block);
    wanted.volume = "rack-2/pvc-a".parse().unwrap();
    wanted.target.portal = Portal::parse("10.77.0.2", None).unwrap();
    wanted.staging = world.path("plugins/other");
    wanted
}

#[test]
fn another_array_s_volume_of_the_same_name_is_neither_used_nor_cut() {
    let world = world(Holds::Nothing);
    stage(&world.volumes, &world.stage_as(Usage::Block)).unwrap();
    let before = world.everything();
    let other = namesake(&world);
    let error = stage(&world.volumes, &other).unwrap_err();
    assert!(matches!(&error, Error::Namesake { other, .. } if *other == world.volume), "{error}");
    assert_eq!(error.kind(), Kind::Refused);
    let unwanted = crate::unstage::Wanted { volume: other.volume.clone(), staging: other.staging.clone() };
    crate::unstage::unstage(&world.volumes, &unwanted).unwrap();
    assert_eq!(world.everything(), before);
    crate::unstage::unstage(&world.volumes, &world.unstage()).unwrap();
    assert!(world.is_clean());
    stage(&world.volumes, &other).unwrap();
}

#[test]
fn a_connection_to_another_array_is_not_taken_for_the_volume_s() {
    let world = world(Holds::Nothing);
    stage(&world.volumes, &world.stage_as(Usage::Block)).unwrap();
    world.volumes.records.remove(&world.volume).unwrap();
    let before = world.everything();
    let error = stage(&world.volumes, &namesake(&world)).unwrap_err();
    assert!(matches!(error, Error::OtherPortal { .. }), "{error}");
    assert!(error.to_string().contains("10.77.0.1:4420") && error.to_string().contains("10.77.0.2:4420"));
    assert_eq!(error.kind(), Kind::Refused);
    assert_eq!(world.everything(), before);
}

#[test]
fn a_volume_whose_array_has_another_address_is_unstaged_first() {
    let world = world(Holds::Nothing);
    stage(&world.volumes, &world.stage_filesystem()).unwrap();
    let before = world.everything();
    let mut moved = world.stage_filesystem();
    moved.target.portal = Portal::parse("10.77.0.2", None).unwrap();
    let error = stage(&world.volumes, &moved).unwrap_err();
    assert!(
        matches!(&error, Error::Remains { cause, .. } if matches!(**cause, Error::Moved { .. })),
        "{error}"
    );
    assert_eq!(world.everything(), before);
    crate::unstage::unstage(&world.volumes, &world.unstage()).unwrap();
    stage(&world.volumes, &moved).unwrap();
}

#[test]
fn after_a_reboot_the_same_call_brings_the_volume_back() {
    let world = world(Holds::Nothing);
    stage(&world.volumes, &world.stage_filesystem()).unwrap();
    world.host.reboot();
    stage(&world.volumes, &world.stage_filesystem()).unwrap();
    assert!(world.host.mounts().unwrap().top(&world.staging()).is_some());
    assert_eq!(world.host.holds(&world.nqn), Holds::Filesystem(FsType::Ext4, GIB));
}

#[test]
fn a_device_that_somebody_has_open_is_not_formatted() {
    let world = world(Holds::Nothing);
    stage(&world.volumes, &world.stage_as(Usage::Block)).unwrap();
    world.host.open_file(&world.nqn, 7, "qemu", "/dev/vda");
    world.volumes.records.remove(&world.volume).unwrap();
    let error = stage(&world.volumes, &world.stage_filesystem()).unwrap_err();
    assert!(rds_csi_api::status::chain(&error).contains("process 7 (qemu)"), "{error:?}");
    assert!(world.host.mounts().unwrap().iter().next().is_none());
}

/// It lives on when its agent is killed, and before its first write the device is still blank.
#[test]
fn nothing_is_formatted_beside_the_mkfs_of_an_agent_that_was_killed() {
    let world = world(Holds::Nothing);
    stage(&world.volumes, &world.stage_as(Usage::Block)).unwrap();
    world.volumes.records.remove(&world.volume).unwrap();
    world.host.open_file(&world.nqn, 7, "mkfs.ext4", "/dev/nvme1n1");
    let error = stage(&world.volumes_again(), &world.stage_filesystem()).unwrap_err();
    assert!(rds_csi_api::status::chain(&error).contains("process 7 (mkfs.ext4)"), "{error:?}");
    assert_eq!(world.host.holds(&world.nqn), Holds::Nothing);
    world.host.close_files();
    stage(&world.volumes_again(), &world.stage_filesystem()).unwrap();
    assert_eq!(world.host.holds(&world.nqn), Holds::Filesystem(FsType::Ext4, GIB));
}

#[test]
fn a_volume_that_is_connected_already_follows_the_policy_of_a_later_attachment() {
    for usage in [
        Usage::Block,
        Usage::Filesystem { fs: FsType::Ext4, options: MountOptions::parse::<&str>(&[]).unwrap() },
    ] {
        let world = world(Holds::Nothing);
        let mut wanted = world.stage_as(usage);
        stage(&world.volumes, &wanted).unwrap();
        assert_eq!(world.host.policy(&world.nqn).to_string(), "-1,2,5,off");
        wanted.target.reconnect = "600,5,30,20".parse().unwrap();
        stage(&world.volumes, &wanted).unwrap();
        assert_eq!(
            world.host.policy(&world.nqn).to_string(),
            "600,5,5,20",
            "the kernel keeps its keep-alive"
        );
    }
}

#[test]
fn lesson_4_what_is_refused_changes_no_policy() {
    let world = world(Holds::Nothing);
    stage(&world.volumes, &world.stage_filesystem()).unwrap();
    let before = world.everything();
    let mut block = world.stage_as(Usage::Block);
    block.target.reconnect = "0,1,5,0".parse().unwrap();
    assert_eq!(stage(&world.volumes, &block).unwrap_err().kind(), Kind::Conflict);
    assert_eq!(world.everything(), before);
}
