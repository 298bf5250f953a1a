use super::*;
use crate::host::Use;
use crate::host::fake::Holds;
use crate::world::{World, world};
use crate::{publish, stage};

fn published() -> World {
    let world = world(Holds::Nothing);
    stage::stage(&world.volumes, &world.stage_filesystem()).unwrap();
    let usage = publish::Usage::Filesystem(publish::Writing::Allowed);
    publish::publish(&world.volumes, &world.publish_as(usage)).unwrap();
    world
}

#[test]
fn a_published_volume_is_told_with_everything_about_it() {
    let world = published();
    world.host.open_file(&world.nqn, 4711, "postgres", "/data/base");
    let found = all(&world.volumes).unwrap();
    assert_eq!(found.len(), 1);
    let volume = &found[0];
    assert_eq!((volume.volume.as_str(), volume.connection), ("pvc-a", Connection::Live));
    assert_eq!(volume.device.as_deref(), Some("/dev/nvme1n1".as_ref()));
    assert_eq!(volume.staging_path.as_deref(), Some(world.staging().as_path()));
    assert_eq!(volume.publish_paths, [world.target().as_path()]);
    let uses: Vec<_> = volume.holders.iter().map(|holder| holder.how).collect();
    assert_eq!(uses, [Use::Mount, Use::Mount, Use::OpenFile]);
    assert_eq!(one(&world.volumes, &world.volume).unwrap().as_ref(), Some(volume));
}

#[test]
fn a_volume_of_which_nothing_is_left_is_none() {
    let world = world(Holds::Nothing);
    assert_eq!(one(&world.volumes, &world.volume).unwrap(), None);
    assert_eq!(all(&world.volumes).unwrap(), []);
}

#[test]
fn a_connection_that_no_record_knows_is_told() {
    let world = published();
    world.volumes.records.remove(&world.volume).unwrap();
    let volume = one(&world.volumes, &world.volume).unwrap().unwrap();
    assert_eq!((volume.connection, volume.staging_path), (Connection::Live, None));
    assert_eq!(all(&world.volumes).unwrap().len(), 1);
}

#[test]
fn what_a_reboot_took_away_is_not_told_as_there() {
    let world = published();
    world.host.reboot();
    let volume = one(&world.volumes, &world.volume).unwrap().unwrap();
    assert_eq!((volume.connection, volume.staging_path.as_ref()), (Connection::Absent, None));
    assert!(volume.publish_paths.is_empty() && volume.holders.is_empty());
}

#[test]
fn a_connection_that_is_down_is_told_as_connecting() {
    let world = published();
    world.host.unplug();
    let volume = one(&world.volumes, &world.volume).unwrap().unwrap();
    assert_eq!(volume.connection, Connection::Connecting);
}

#[test]
fn not_knowing_who_holds_it_is_an_error_and_not_an_empty_list() {
    let world = published();
    world.host.fail_once(crate::host::fake::Act::Holders, rustix::io::Errno::ACCESS);
    assert!(one(&world.volumes, &world.volume).is_err());
}

#[test]
fn a_namesake_s_connection_and_holders_are_not_told_as_the_volume_s() {
    let world = published();
    world.host.open_file(&world.nqn, 4711, "postgres", "/data/base");
    let namesake = "rack-2/pvc-a".parse().unwrap();
    assert_eq!(one(&world.volumes, &namesake).unwrap(), None);
    assert_eq!(world.volumes.holders(&namesake).unwrap(), []);
    assert_eq!(one(&world.volumes, &world.volume).unwrap().unwrap().holders.len(), 3);
}

#[test]
fn a_damaged_record_is_its_own_volume_s_trouble_only() {
    let world = published();
    world.damage_record("pvc-b");
    let told = all(&world.volumes).unwrap();
    let told: Vec<_> = told.iter().map(|volume| (volume.volume.as_str(), volume.damage.is_some())).collect();
    assert_eq!(told, [("pvc-a", false), ("pvc-b", true)]);
    assert!(one(&world.volumes, &world.volume).unwrap().is_some());
    assert!(one(&world.volumes, &"pvc-b".parse().unwrap()).is_err());
}

#[test]
fn an_odd_connection_is_its_own_volume_s_trouble_only() {
    let world = published();
    let odd = "nqn.2000-02.com.mikrotik:pvc-odd".parse().unwrap();
    world.host.connect_by_hand(&odd);
    world.host.confuse(&odd);
    let all = all(&world.volumes).unwrap();
    let [ours, other] = &all[..] else { panic!("{all:?}") };
    assert_eq!(Some(ours), one(&world.volumes, &world.volume).unwrap().as_ref());
    assert!(other.damage.as_ref().unwrap().contains("has several devices"), "{other:?}");
    assert_eq!(other.connection, Connection::Connecting, "not knowing is no reason to take it for gone");
    assert!(one(&world.volumes, &"pvc-odd".parse().unwrap()).is_err());
}

#[test]
fn what_holds_a_device_that_is_gone_is_told() {
    let world = published();
    world.host.open_file(&world.nqn, 4711, "postgres", "/data/base");
    world.host.give_up();
    let volume = one(&world.volumes, &world.volume).unwrap().unwrap();
    assert_eq!((volume.connection, volume.holders.len()), (Connection::Absent, 3));
}

#[test]
fn a_volume_is_found_under_the_name_of_whichever_epoch() {
    for epoch in ["", ":e2", ":e17"] {
        let world = world(Holds::Nothing);
        let nqn: Nqn = format!("{}{epoch}", world.nqn).parse().unwrap();
        world.host.connect_by_hand(&nqn);
        world.host.open_file(&nqn, 4711, "qemu", "/dev/vda");
        let volume = one(&world.volumes, &world.volume).unwrap().unwrap();
        assert_eq!((volume.nqn, volume.connection, volume.holders.len()), (nqn, Connection::Live, 1));
    }
}
