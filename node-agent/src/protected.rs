//! One proof for every way into the agent: what does not carry the managed prefix stays as it is.

use std::sync::Arc;

use prometheus_client::registry::Registry;
use rds_csi_api::Nqn;
use rds_csi_api::serve::call::Calls;
use tokio_util::sync::CancellationToken;

use crate::events::Events;
use crate::host::fake::Holds;
use crate::host::{Host as _, ManagedNqn};
use crate::orphans::Orphans;
use crate::stage::{self, stage};
use crate::unpublish::unpublish;
use crate::unstage::unstage;
use crate::world::world;
use crate::{inspect, publish};

/// Nodes without disks run from the same array, and their system's volumes look like ours but for the prefix.
#[test]
fn lesson_17_nothing_that_is_done_on_a_node_touches_a_subsystem_outside_the_managed_prefix() {
    let world = world(Holds::Nothing);
    let system: Nqn = "nqn.2000-02.com.mikrotik:nixos-var".parse().unwrap();
    world.host.connect_by_hand(&system);
    let before = world.host.attachment(&system).unwrap();
    // Whoever connects or disconnects needs one of these, and this is the only way to it.
    assert!(ManagedNqn::new(&world.volumes.prefix, system.clone()).is_err());

    // A record that somebody forged, for a volume of that name and for one of ours.
    stage(&world.volumes, &world.stage_as(stage::Usage::Block)).unwrap();
    let staged = world.host.snapshot();
    let genuine = world.volumes.records.read(&world.volume).unwrap().unwrap();
    for volume in [&world.volume, &"nixos-var".parse().unwrap()] {
        let (nqn, volume) = (system.clone(), volume.clone());
        let forged = crate::volumes::Record { nqn, volume: volume.clone(), ..genuine.clone() };
        world.volumes.records.write(&forged).unwrap();
        let usage = publish::Usage::Block;
        let published = publish::publish(
            &world.volumes,
            &publish::Wanted { volume: volume.clone(), ..world.publish_as(usage) },
        );
        published.unwrap_err();
        unpublish(&world.volumes, &crate::unpublish::Wanted { volume: volume.clone(), ..world.unpublish() })
            .unwrap();
        unstage(&world.volumes, &crate::unstage::Wanted { volume: volume.clone(), ..world.unstage() })
            .unwrap_err();
        inspect::one(&world.volumes, &volume).unwrap();
        assert_eq!(world.host.snapshot(), staged, "{volume}");
        world.volumes.records.remove(&volume).unwrap();
    }
    // Without any record unstaging is done, and that is all that it may be.
    unstage(
        &world.volumes,
        &crate::unstage::Wanted { volume: "nixos-var".parse().unwrap(), ..world.unstage() },
    )
    .unwrap();
    assert_eq!(world.host.snapshot(), staged);

    // What is left over of our own goes, and the system's does not, however often somebody looks.
    let mut registry = Registry::default();
    let calls = Calls::new(&mut registry);
    let volumes = Arc::new(world.volumes_again());
    let mut orphans = Orphans::new(volumes, calls, Events::new(10), &mut registry);
    for _ in 0..3 {
        orphans.look(&CancellationToken::new());
    }
    let known = world.host.subsystems(&|_| true).unwrap();
    assert_eq!(known.into_keys().collect::<Vec<_>>(), std::slice::from_ref(&system));
    assert!(inspect::all(&world.volumes).unwrap().is_empty(), "it is not even told of");
    assert_eq!(world.host.attachment(&system).unwrap(), before);
}
