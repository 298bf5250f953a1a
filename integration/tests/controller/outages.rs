//! The array away, slow, cut off, garbled: the program serves on, says so, and goes on when the array is back.

use std::time::Duration;

use rds_csi_integration::simulator::{Effect, Fault, Version, keys};
use tokio::time::{Instant, sleep};
use tonic::{Code, Status};

use crate::world::{self, Site, World, assert_refused, filesystem, wanted};

const GIB: i64 = 1 << 30;

/// Repeats a call as a sidecar does, as long as it is unavailable.
pub(crate) async fn until_available<T, F>(mut call: impl FnMut() -> F) -> Result<T, Status>
where
    F: Future<Output = Result<T, Status>>,
{
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match call().await {
            Err(status) if status.code() == Code::Unavailable && Instant::now() < deadline => {
                sleep(Duration::from_millis(50)).await;
            }
            outcome => return outcome,
        }
    }
}

#[tokio::test]
async fn the_program_starts_and_serves_while_the_array_is_away() {
    let site = Site::vacant();
    let controller = world::controller(&site, |_| {}).await;
    assert_refused(
        world::create(&controller, wanted("a", GIB)).await,
        Code::Unavailable,
        "Connection refused",
    );
    assert_eq!(world::admin(&controller, "/healthz").await, (200, "ok\n".into()));
    assert_eq!(world::admin(&controller, "/readyz").await, (503, "array default is not connected\n".into()));
    let simulator = site.occupy(|_| {}).await;
    let world = World { simulator, controller, site };
    let volume = until_available(|| world.create(wanted("a", GIB))).await.unwrap();
    assert_eq!(world::admin(&world.controller, "/readyz").await.0, 200);
    let (_, metrics) = world::admin(&world.controller, "/metrics").await;
    assert!(metrics.contains(r#"rds_csi_array_connected{backend="default"} 1"#), "{metrics}");
    assert!(metrics.contains(r#"rds_csi_operations_total{rpc="CreateVolume",code="Ok"} 1"#), "{metrics}");
    world.delete(&volume.volume_id).await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn a_wrong_host_key_is_never_talked_to() {
    let (simulator, site) = world::simulator(|_| {}).await;
    let stranger = keys::generate().public_key().to_openssh().unwrap();
    let address = site.address;
    std::fs::write(&site.known_hosts, format!("[{}]:{} {stranger}\n", address.ip(), address.port())).unwrap();
    let controller = world::controller(&site, |_| {}).await;
    let refused = world::create(&controller, wanted("a", GIB)).await;
    assert_refused(refused, Code::Unavailable, "Host key verification failed");
    assert_eq!(simulator.commands().connections, 0);
    // The right one in its place, it goes on by itself.
    std::fs::write(&site.known_hosts, simulator.known_hosts()).unwrap();
    let world = World { simulator, controller, site };
    let volume = until_available(|| world.create(wanted("a", GIB))).await.unwrap();
    world.delete(&volume.volume_id).await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn a_release_that_is_too_old_reads_so_and_is_sent_nothing_else() {
    let (simulator, site) = world::simulator(|options| options.dialect.version = Version::new(7, 18)).await;
    let controller = world::controller(&site, |_| {}).await;
    let refused = world::create(&controller, wanted("a", GIB)).await;
    assert_refused(refused, Code::Unavailable, "RouterOS 7.18 is too old: 7.21 or newer is needed");
    let sent = simulator.commands().lines;
    assert!(sent.iter().all(|line| line.line == ":put [/system/resource get version]"), "{sent:#?}");
    // A newer release after an upgrade, it goes on by itself.
    simulator.stop().await.unwrap();
    let simulator = site.occupy(|_| {}).await;
    let world = World { simulator, controller, site };
    let volume = until_available(|| world.create(wanted("a", GIB))).await.unwrap();
    world.delete(&volume.volume_id).await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn an_answer_that_is_no_version_is_told_as_it_came() {
    let (simulator, site) = world::simulator(|_| {}).await;
    simulator.inject(Fault::new(Effect::Garbage));
    let controller = world::controller(&site, |_| {}).await;
    let refused = world::create(&controller, wanted("a", GIB)).await;
    assert_refused(refused, Code::Unavailable, "asked for its RouterOS version, the array said");
    controller.stop().await.unwrap();
}

#[tokio::test]
async fn a_user_that_the_array_does_not_know_reads_so() {
    let (simulator, site) = world::simulator(|_| {}).await;
    let mut stranger = Site::vacant();
    stranger.address = site.address;
    std::fs::write(&stranger.known_hosts, simulator.known_hosts()).unwrap();
    let controller = world::controller(&stranger, |_| {}).await;
    let refused = world::create(&controller, wanted("a", GIB)).await;
    assert_refused(refused, Code::Unavailable, "Permission denied");
    controller.stop().await.unwrap();
}

#[tokio::test]
async fn an_array_that_goes_away_and_comes_back_is_found_again() {
    let world = World::new().await;
    let volume = world.create(wanted("a", GIB)).await.unwrap();
    world.simulator.inject(Fault::new(Effect::RefuseConnections));
    world.simulator.inject(Fault::new(Effect::DropBefore).times(1));
    let lost = world.publish(&volume, "w1", filesystem()).await;
    assert_refused(lost, Code::Unavailable, "whether the command ran is not known");
    assert_refused(world.publish(&volume, "w1", filesystem()).await, Code::Unavailable, "ssh to 127.0.0.1");
    world.simulator.clear_faults();
    until_available(|| world.publish(&volume, "w1", filesystem())).await.unwrap();
    // Nobody can ask the node, so it is shut out.
    world.unpublish(&volume, "w1").await.unwrap();
    world.delete(&volume.volume_id).await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn a_call_that_is_cut_off_before_or_after_its_effect_succeeds_when_repeated() {
    let world = World::new().await;
    for effect in [Effect::DropBefore, Effect::DropAfter, Effect::Garbage] {
        let cut = || world.simulator.inject(Fault::new(effect).times(1));
        cut();
        assert_refused(world.create(wanted("a", GIB)).await, Code::Unavailable, "is not known");
        let volume = until_available(|| world.create(wanted("a", GIB))).await.unwrap();
        assert_eq!(world.simulator.state().unwrap().disks.len(), 1);

        cut();
        assert_refused(world.publish(&volume, "w1", filesystem()).await, Code::Unavailable, "is not known");
        assert_refused(world.publish(&volume, "w2", filesystem()).await, Code::FailedPrecondition, "node w1");
        until_available(|| world.publish(&volume, "w1", filesystem())).await.unwrap();

        cut();
        assert_refused(world.unpublish(&volume, "w1").await, Code::Unavailable, "is not known");
        assert_refused(world.delete(&volume.volume_id).await, Code::FailedPrecondition, "attached to w1");
        until_available(|| world.unpublish(&volume, "w1")).await.unwrap();

        cut();
        assert_refused(world.delete(&volume.volume_id).await, Code::Unavailable, "is not known");
        until_available(|| world.delete(&volume.volume_id)).await.unwrap();
    }
    world.end().await;
}

#[tokio::test]
async fn a_disk_that_finds_no_room_takes_its_subvolume_with_it() {
    let world = World::new().await;
    world.simulator.inject(Fault::new(Effect::DiskFull).times(1));
    assert_refused(world.create(wanted("a", GIB)).await, Code::ResourceExhausted, "not enough space");
    world::assert_bare(&world.simulator);
    let volume = world.create(wanted("a", GIB)).await.unwrap();
    world.delete(&volume.volume_id).await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn a_user_without_the_policy_to_write_reads_which_one_is_missing() {
    let world = World::new().await;
    world.simulator.inject(Fault::new(Effect::ReadOnlyUser).times(1));
    let refused = world.create(wanted("a", GIB)).await;
    assert_refused(refused, Code::FailedPrecondition, "the policies ssh, read and write");
    world.end().await;
}

#[tokio::test]
async fn one_volume_is_worked_on_once_and_others_do_not_wait_for_it() {
    let world = World::new().await;
    world.simulator.inject(Fault::new(Effect::Hold).times(1));
    let first = tokio::spawn({
        let mut client = world.controller.csi();
        async move { client.create_volume(wanted("slow", GIB)).await }
    });
    world.receives_a_command().await;
    assert_refused(world.create(wanted("slow", GIB)).await, Code::Aborted, "still running");
    let quick = world.create(wanted("quick", GIB)).await.unwrap();
    assert!(!first.is_finished());
    world.simulator.clear_faults();
    let slow = first.await.unwrap().unwrap().into_inner().volume.unwrap();
    for volume in [quick, slow] {
        world.delete(&volume.volume_id).await.unwrap();
    }
    world.end().await;
}

#[tokio::test]
async fn a_program_that_is_told_to_end_finishes_what_it_is_doing() {
    let world = World::new().await;
    world.simulator.inject(Fault::new(Effect::Hold).times(1));
    let call = tokio::spawn({
        let mut client = world.controller.csi();
        async move { client.create_volume(wanted("a", GIB)).await }
    });
    world.receives_a_command().await;
    let World { simulator, controller, .. } = world;
    let ended = tokio::spawn(controller.stop());
    // Long enough for a program that would not wait.
    sleep(Duration::from_millis(500)).await;
    assert!(!ended.is_finished() && !call.is_finished(), "it does not wait for what it is doing");
    simulator.clear_faults();
    call.await.unwrap().unwrap();
    ended.await.unwrap().unwrap();
    assert_eq!(simulator.state().unwrap().disks.len(), 1);
}
