use prometheus_client::registry::Registry;
use rds_csi_api::Nqn;

use super::*;
use crate::host::fake::{Act, Holds};
use crate::host::{Attachment, Use};
use crate::publish::{self, publish};
use crate::stage::{self, stage};
use crate::unpublish::unpublish;
use crate::unstage::unstage;
use crate::world::{World, world};

const WRITING: publish::Usage = publish::Usage::Filesystem(publish::Writing::Allowed);

struct Forced {
    calls: Calls,
    breakers: Breakers,
    events: Events,
}

impl Forced {
    fn new() -> Self {
        let events = Events::new(10);
        let breakers = Breakers::new(events.clone());
        Self { calls: Calls::new(&mut Registry::default()), breakers, events }
    }

    fn detach(&self, world: &World) -> Result<Detached, Error> {
        let volume = world.volume.clone();
        let order = Order { volume, asked_by: "ada".into(), reason: "the pod hangs".into() };
        detach(&world.volumes, &self.calls, &self.breakers, &self.events, &order)
    }
}

fn published() -> World {
    let world = world(Holds::Nothing);
    stage(&world.volumes, &world.stage_filesystem()).unwrap();
    publish(&world.volumes, &world.publish_as(WRITING)).unwrap();
    world
}

#[test]
fn lesson_18_a_volume_in_use_is_taken_away_and_told_with_who_wanted_it_and_who_had_it() {
    let world = published();
    world.host.open_file(&world.nqn, 4711, "postgres", "/data/base");
    unstage(&world.volumes, &world.unstage()).unwrap_err();
    let forced = Forced::new();
    let detached = forced.detach(&world).unwrap();
    assert!(detached.holders.iter().any(|holder| holder.pid == 4711 && holder.how == Use::OpenFile));
    assert_eq!(detached.done.len(), 4, "a connection, two mounts and a record: {detached:?}");
    assert!(matches!(&detached.left[..], [left] if left.contains("postgres") && left.contains("gone")));
    assert_eq!(world.host.attachment(&world.nqn).unwrap(), Attachment::Lost, "the process has it open");
    assert!(world.host.mounts().unwrap().iter().next().is_none());

    let [event] = &forced.events.kept()[..] else { panic!("one event is told") };
    assert_eq!((event.reason, &event.volume), (Reason::DetachForced, &world.volume));
    for fact in ["ada", "the pod hangs", "ended the connection", "process 4711 (postgres)"] {
        assert!(event.message.contains(fact), "{fact} is missing: {}", event.message);
    }

    // kubelet goes on as ever, and the volume can be had again.
    unpublish(&world.volumes, &world.unpublish()).unwrap();
    world.host.close_files();
    unstage(&world.volumes, &world.unstage()).unwrap();
    assert!(world.is_clean());
    stage(&world.volumes, &world.stage_filesystem()).unwrap();
}

#[test]
fn a_device_node_goes_and_a_repetition_finds_nothing() {
    let world = world(Holds::Nothing);
    stage(&world.volumes, &world.stage_as(stage::Usage::Block)).unwrap();
    publish(&world.volumes, &world.publish_as(publish::Usage::Block)).unwrap();
    let forced = Forced::new();
    let detached = forced.detach(&world).unwrap();
    assert_eq!(detached.done.len(), 3, "a connection, a node and a record: {detached:?}");
    assert!(detached.left.is_empty() && world.is_clean(), "{detached:?}");
    assert_eq!(forced.detach(&world).unwrap(), Detached::default());
}

#[test]
fn lesson_17_nothing_of_another_volume_or_of_the_system_is_touched() {
    let world = published();
    let others = ["nqn.2000-02.com.mikrotik:nixos-var", "nqn.2000-02.com.mikrotik:pvc-aa"];
    let others: Vec<Nqn> = others.iter().map(|nqn| nqn.parse().unwrap()).collect();
    for other in &others {
        world.host.connect_by_hand(other);
    }
    // Somebody mounted the system's disk over the staging path.
    world.host.mount_foreign(world.staging().as_path());
    let detached = Forced::new().detach(&world).unwrap();
    for other in &others {
        assert!(matches!(world.host.attachment(other).unwrap(), Attachment::Live(Some(_))), "{other}");
    }
    assert!(world.host.mounts().unwrap().top(&world.staging()).unwrap().source.contains("sda1"));
    assert!(detached.left.iter().any(|left| left.contains("plugins/staging")), "{detached:?}");
    assert!(world.volumes.records.read(&world.volume).unwrap().is_some(), "what is left stays known");
}

#[test]
fn a_call_that_keeps_the_volume_keeps_its_mounts_and_not_its_connection() {
    let world = published();
    let forced = Forced::new();
    let held = forced.calls.hold(&world.volume).unwrap();
    let detached = forced.detach(&world).unwrap();
    assert!(detached.left[0].contains("ask again"), "{detached:?}");
    assert_eq!(world.host.attachment(&world.nqn).unwrap(), Attachment::Lost);
    drop(held);
    forced.detach(&world).unwrap();
    unpublish(&world.volumes, &world.unpublish()).unwrap();
    assert!(world.is_clean());
}

#[test]
fn a_damaged_record_and_a_look_that_fails_keep_nothing_connected() {
    let world = published();
    world.damage_record("pvc-a");
    world.host.fail_once(Act::Holders, rustix::io::Errno::ACCESS);
    let detached = Forced::new().detach(&world).unwrap();
    assert!(detached.left.iter().any(|left| left.contains("pvc-a.json")), "{detached:?}");
    assert!(detached.left.iter().any(|left| left.contains("nobody can say who used it")), "{detached:?}");
    assert_eq!(world.host.attachment(&world.nqn).unwrap(), Attachment::Lost);
}

#[test]
fn a_connection_that_does_not_end_is_an_error_that_is_told() {
    let world = published();
    world.host.fail_once(Act::Abandon, rustix::io::Errno::IO);
    let forced = Forced::new();
    forced.detach(&world).unwrap_err();
    assert!(forced.events.kept()[0].message.contains("it failed"));
    assert!(world.volumes.records.read(&world.volume).unwrap().is_some());
}
