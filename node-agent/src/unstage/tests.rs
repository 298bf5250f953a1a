use rds_csi_api::Nqn;
use rustix::io::Errno;

use super::*;
use crate::host::fake::{Act, Holds};
use crate::world::{World, world};
use crate::{publish, stage, unpublish};

fn staged(usage: impl Fn(&World) -> stage::Wanted) -> World {
    let world = world(Holds::Nothing);
    stage::stage(&world.volumes, &usage(&world)).unwrap();
    world
}

fn filesystem() -> World {
    staged(World::stage_filesystem)
}

fn block() -> World {
    staged(|world| world.stage_as(stage::Usage::Block))
}

#[test]
fn every_state_has_its_step() {
    let world = world(Holds::Nothing);
    let nqn = world.managed();
    let holder = |how, path: &str| Holder {
        device: "259:1".parse().unwrap(),
        how,
        pid: 7,
        command: "qemu".into(),
        pod: None,
        path: path.into(),
    };
    let at_staging = |how| holder(how, "/var/lib/kubelet/plugins/staging");
    let connected = Observed { connections: vec![nqn.clone()], record: Recorded::Yes, ..Observed::default() };
    let mounted = Observed { layers: 1, holders: vec![at_staging(Use::Mount)], ..connected.clone() };
    for (observed, step) in [
        (Observed::default(), "Done"),
        (Observed { record: Recorded::Yes, ..Observed::default() }, "Forget"),
        (connected.clone(), "Disconnect"),
        (mounted.clone(), "Unmount"),
        // A copy of the staging mount elsewhere goes with it, or else refuses the disconnect.
        (
            Observed {
                holders: vec![at_staging(Use::Mount), at_staging(Use::MountElsewhere)],
                ..mounted.clone()
            },
            "Unmount",
        ),
        (Observed { holders: vec![at_staging(Use::MountElsewhere)], ..connected.clone() }, "Refuse"),
        (
            Observed {
                holders: vec![at_staging(Use::Mount), holder(Use::Mount, "/pods/p")],
                ..mounted.clone()
            },
            "Refuse",
        ),
        (Observed { holders: vec![holder(Use::OpenFile, "/x")], ..mounted.clone() }, "Refuse"),
        (Observed { holders: vec![holder(Use::OpenFile, "/x")], ..connected.clone() }, "Refuse"),
        (Observed { holders: vec![holder(Use::BlockDevice, "/dev/dm-0")], ..connected }, "Refuse"),
        (Observed { owner: Some(nqn), ..mounted }, "Refuse"),
    ] {
        let chosen = format!("{:?}", next(&world.unstage(), observed.clone()));
        assert!(chosen.starts_with(step), "{observed:?}: {chosen}");
    }
}

#[test]
fn nothing_is_left_of_an_unstaged_volume() {
    for world in [filesystem(), block()] {
        unstage(&world.volumes, &world.unstage()).unwrap();
        assert!(world.is_clean());
        unstage(&world.volumes, &world.unstage()).unwrap();
    }
}

#[test]
fn every_layer_at_the_staging_path_is_unmounted() {
    let world = filesystem();
    world.host.place(world.staging().as_path(), crate::host::Found::Directory);
    world.host.bind(&world.staging(), &world.staging()).unwrap();
    unstage(&world.volumes, &world.unstage()).unwrap();
    assert_eq!(world.host.mounts().unwrap().iter().count(), 0);
}

#[test]
fn lesson_3_a_volume_that_is_held_stays_connected_and_mounted() {
    for (how, told) in [(Use::OpenFile, "process 4711 (postgres)"), (Use::BlockDevice, "/dev/held")] {
        for world in [filesystem(), block()] {
            world.host.use_device(&world.nqn, how, 4711, "postgres", "/dev/held");
            let before = world.everything();
            let error = unstage(&world.volumes, &world.unstage()).unwrap_err();
            assert_eq!(error.kind(), Kind::InUse);
            assert!(error.to_string().contains(told), "{error}");
            assert_eq!(world.everything(), before);
            world.host.close_files();
            unstage(&world.volumes, &world.unstage()).unwrap();
            assert!(world.is_clean());
        }
    }
}

#[test]
fn lesson_3_a_mount_in_another_namespace_keeps_the_connection() {
    let world = filesystem();
    world.host.use_device(&world.nqn, Use::MountElsewhere, 99, "node-exporter", "/host/staging");
    let error = unstage(&world.volumes, &world.unstage()).unwrap_err();
    assert!(error.to_string().contains("mount namespace of process 99 (node-exporter)"), "{error}");
    assert_eq!(world.connected(), [world.managed()]);
}

#[test]
fn lesson_3_not_knowing_who_holds_it_is_no_reason_to_disconnect() {
    let world = block();
    world.host.fail_once(Act::Holders, Errno::ACCESS);
    let before = world.connected();
    assert!(unstage(&world.volumes, &world.unstage()).is_err());
    assert_eq!(world.connected(), before);
}

#[test]
fn lesson_18_a_published_volume_says_where() {
    let world = filesystem();
    let wanted = world.publish_as(publish::Usage::Filesystem(publish::Writing::Allowed));
    publish::publish(&world.volumes, &wanted).unwrap();
    let error = unstage(&world.volumes, &world.unstage()).unwrap_err();
    assert!(error.to_string().contains("mounted at /var/lib/kubelet/pods/p/target"), "{error}");
    unpublish::unpublish(&world.volumes, &world.unpublish()).unwrap();
    unstage(&world.volumes, &world.unstage()).unwrap();
    assert!(world.is_clean());
}

#[test]
fn a_connection_that_is_down_still_counts() {
    let world = block();
    world.host.unplug();
    unstage(&world.volumes, &world.unstage()).unwrap();
    assert!(world.is_clean());
}

#[test]
fn a_disconnect_that_fails_is_no_success_and_is_made_up_for() {
    let world = filesystem();
    world.host.fail_once(Act::Disconnect, Errno::IO);
    assert!(unstage(&world.volumes, &world.unstage()).is_err());
    assert!(world.volumes.records.read(&world.volume).unwrap().is_some());
    unstage(&world.volumes, &world.unstage()).unwrap();
    assert!(world.is_clean());
}

#[test]
fn a_volume_without_a_record_is_found_by_its_nqn() {
    let world = block();
    world.volumes.records.remove(&world.volume).unwrap();
    unstage(&world.volumes, &world.unstage()).unwrap();
    assert!(world.is_clean());
}

#[test]
fn a_volume_that_nobody_knows_is_unstaged_already() {
    let world = world(Holds::Nothing);
    unstage(&world.volumes, &world.unstage()).unwrap();
}

#[test]
fn lesson_17_a_record_cannot_make_us_disconnect_what_is_not_ours() {
    let world = block();
    let mut record = world.volumes.records.read(&world.volume).unwrap().unwrap();
    record.nqn = "nqn.2000-02.com.mikrotik:nixos-var".parse::<Nqn>().unwrap();
    world.volumes.records.write(&record).unwrap();
    let error = unstage(&world.volumes, &world.unstage()).unwrap_err();
    assert!(matches!(error, Error::NotManaged(_)), "{error}");
    assert!(!world.is_clean());
}

#[test]
fn the_staging_path_of_another_volume_is_not_touched() {
    let world = filesystem();
    let other = Wanted { volume: "pvc-other".parse().unwrap(), staging: world.staging() };
    let before = world.everything();
    let error = unstage(&world.volumes, &other).unwrap_err();
    assert!(matches!(error, Error::OtherVolume { .. }), "{error}");
    assert_eq!(world.everything(), before);
}

#[test]
fn after_a_reboot_there_is_only_the_record_to_remove() {
    let world = filesystem();
    world.host.reboot();
    unstage(&world.volumes, &world.unstage()).unwrap();
    assert!(world.is_clean());
}

#[test]
fn lesson_18_what_holds_a_device_that_is_gone_is_named() {
    let world = filesystem();
    let wanted = world.publish_as(publish::Usage::Filesystem(publish::Writing::Allowed));
    publish::publish(&world.volumes, &wanted).unwrap();
    world.host.open_file(&world.nqn, 4711, "postgres", "/data/base");
    world.host.give_up();
    let error = unstage(&world.volumes, &world.unstage()).unwrap_err();
    assert_eq!(error.kind(), Kind::InUse);
    assert!(error.to_string().contains("process 4711 (postgres)"), "{error}");
    assert!(error.to_string().contains("mounted at /var/lib/kubelet/pods/p/target"), "{error}");
    world.host.close_files();
    unpublish::unpublish(&world.volumes, &world.unpublish()).unwrap();
    unstage(&world.volumes, &world.unstage()).unwrap();
    assert!(world.is_clean());
}

#[test]
fn a_volume_that_an_earlier_driver_staged_and_published_is_taken_away() {
    for usage in [publish::Usage::Filesystem(publish::Writing::Allowed), publish::Usage::Block] {
        let world = match usage {
            publish::Usage::Block => block(),
            publish::Usage::Filesystem(_) => filesystem(),
        };
        publish::publish(&world.volumes, &world.publish_as(usage)).unwrap();
        world.volumes.records.remove(&world.volume).unwrap();
        unpublish::unpublish(&world.volumes, &world.unpublish()).unwrap();
        unstage(&world.volumes, &world.unstage()).unwrap();
        assert!(world.is_clean());
    }
}

#[test]
fn lesson_19_a_volume_is_let_go_while_the_array_is_away() {
    let world = block();
    world.host.unplug();
    unstage(&world.volumes, &world.unstage()).unwrap();
    assert!(world.is_clean());
}

#[test]
fn an_odd_subsystem_keeps_no_other_volume_staged_unless_it_may_own_the_mount() {
    for world in [filesystem(), block()] {
        let odd = "nqn.2000-02.com.mikrotik:pvc-odd".parse().unwrap();
        world.host.connect_by_hand(&odd);
        world.host.confuse(&odd);
        unstage(&world.volumes, &world.unstage()).unwrap();
        assert_eq!(world.connected(), []);

        world.host.mount_again(&odd, world.staging().as_path());
        let before = world.everything();
        let error = unstage(&world.volumes, &world.unstage()).unwrap_err();
        assert!(error.to_string().contains("has several devices"), "{error}");
        assert_eq!(world.everything(), before);
    }
}
