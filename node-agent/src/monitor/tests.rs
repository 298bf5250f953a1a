use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use rustix::io::Errno;

use super::*;
use crate::host::fake::{Act, FakeHost, Holds};
use crate::world::{World, world};
use crate::{publish, stage, unpublish, unstage};

/// A node whose volume is published, and its monitor.
struct Watched {
    world: World,
    monitor: Monitor<FakeHost>,
    registry: Registry,
}

fn watched() -> Watched {
    let world = world(Holds::Nothing);
    stage::stage(&world.volumes, &world.stage_filesystem()).unwrap();
    let usage = publish::Usage::Filesystem(publish::Writing::Allowed);
    publish::publish(&world.volumes, &world.publish_as(usage)).unwrap();
    let monitor = Monitor::new(Arc::new(world.volumes_again()), Events::new(100));
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Gauges(monitor.last_look())));
    Watched { world, monitor, registry }
}

impl Watched {
    /// Looks, and returns all events there have been.
    fn look(&mut self) -> Vec<&'static str> {
        let looked = survey(&self.monitor.volumes);
        self.monitor.take(looked);
        self.monitor.events.kept().iter().map(|event| event.reason.as_str()).collect()
    }

    fn gauges(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("; ")
    }
}

#[test]
fn a_lost_connection_is_told_once_and_so_is_its_return() {
    let mut watched = watched();
    assert!(watched.look().is_empty());
    watched.world.host.unplug();
    assert_eq!(watched.look(), ["ConnectionLost"]);
    assert_eq!(watched.look(), ["ConnectionLost"]);
    watched.world.host.plug();
    assert_eq!(watched.look(), ["ConnectionLost", "ConnectionRecovered"]);
    assert_eq!(watched.look(), ["ConnectionLost", "ConnectionRecovered"]);
}

#[test]
fn what_was_wrong_before_the_agent_started_is_told() {
    let mut watched = watched();
    watched.world.host.remount_read_only();
    assert_eq!(watched.look(), ["VolumeReadOnly"]);
    let message = &watched.monitor.events.kept()[0].message;
    assert!(message.contains("pvc-a") && message.contains("delete the pods"), "{message}");
}

#[test]
fn unstaging_is_no_loss() {
    let mut watched = watched();
    watched.look();
    unpublish::unpublish(&watched.world.volumes, &watched.world.unpublish()).unwrap();
    unstage::unstage(&watched.world.volumes, &watched.world.unstage()).unwrap();
    assert!(watched.look().is_empty());
    assert!(watched.monitor.before.is_empty());
}

#[test]
fn a_connection_that_is_given_up_leaves_a_stale_mount() {
    let mut watched = watched();
    watched.look();
    watched.world.host.unplug();
    watched.look();
    watched.world.host.give_up();
    assert_eq!(watched.look(), ["ConnectionLost", "StaleMountDetected"]);
    assert!(watched.gauges().contains(r#"{connection="absent"} 1"#), "{}", watched.gauges());
}

#[test]
fn a_damaged_record_is_abnormal_and_counted() {
    let mut watched = watched();
    std::fs::write(watched.world.state().join("pvc-b.json"), "null").unwrap();
    assert!(watched.look().is_empty());
    let gauges = watched.gauges();
    assert!(gauges.contains(r#"{connection="live"} 1"#) && gauges.contains(r#"{connection="unknown"} 1"#));
    assert!(gauges.ends_with("abnormal 1"), "{gauges}");
}

#[test]
fn every_change_of_trouble_has_its_events() {
    use Ailment::{Errors, GivenUp, NoDevice, ReadOnly, Stale, Unanswered};
    let volume = "pvc-a".parse().unwrap();
    for (before, now, told) in [
        (None, None, &[][..]),
        (None, Some(Unanswered), &["ConnectionLost"]),
        (Some(ReadOnly), Some(Unanswered), &["ConnectionLost"]),
        (Some(Unanswered), Some(GivenUp), &["StaleMountDetected"]),
        (None, Some(GivenUp), &["ConnectionLost", "StaleMountDetected"]),
        (Some(GivenUp), Some(Stale), &["ConnectionRecovered"]),
        (Some(Unanswered), Some(Stale), &["ConnectionRecovered", "StaleMountDetected"]),
        (Some(Unanswered), None, &["ConnectionRecovered"]),
        (Some(Unanswered), Some(ReadOnly), &["ConnectionRecovered", "VolumeReadOnly"]),
        (Some(GivenUp), Some(NoDevice), &["ConnectionRecovered"]),
        (Some(Errors), Some(ReadOnly), &["VolumeReadOnly"]),
        (Some(ReadOnly), Some(Errors), &[]),
        (None, Some(NoDevice), &[]),
    ] {
        let trouble = now.map(|ailment| Trouble { ailment, told: "trouble".into() });
        let changes = changes(&volume, before, trouble.as_ref());
        let names: Vec<_> = changes.iter().map(|(reason, _)| reason.as_str()).collect();
        assert_eq!(names, told, "{before:?} to {now:?}");
    }
}

#[test]
fn lesson_23_gauges_come_from_state_and_a_failed_reading_is_absent() {
    let mut watched = watched();
    assert_eq!(watched.gauges(), "");
    watched.look();
    let live = r#"rds_csi_volumes{connection="live"} 1; rds_csi_volumes{connection="connecting"} 0; rds_csi_volumes{connection="absent"} 0; rds_csi_volumes{connection="unknown"} 0"#;
    assert_eq!(watched.gauges(), format!("{live}; rds_csi_mount_storms 0; rds_csi_volumes_abnormal 0"));
    watched.world.host.unplug();
    assert!(watched.gauges().ends_with("abnormal 0"), "nothing is looked at when they are asked for");
    watched.look();
    assert!(watched.gauges().contains(r#"{connection="connecting"} 1"#), "{}", watched.gauges());
    assert!(watched.gauges().ends_with("abnormal 1"), "{}", watched.gauges());
    watched.world.host.fail_once(Act::Subsystems, Errno::IO);
    assert_eq!(watched.look(), ["ConnectionLost"], "not knowing is no change");
    assert_eq!(watched.gauges(), "");
    watched.look();
    assert!(watched.gauges().ends_with("abnormal 1"));
}
