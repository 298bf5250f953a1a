//! A burst of calls: few lines, no more sessions than allowed, and whatever goes wrong with one is its own affair.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use rds_csi_api::csi;
use rds_csi_integration::simulator::{Effect, Fault};
use tonic::{Code, Status};

use crate::outages::until_available;
use crate::world::{World, assert_refused, wanted};

const GIB: i64 = 1 << 30;

/// As many sessions as the controller opens unless told otherwise.
const SESSIONS: usize = 4;

/// A volume of the burst.
fn numbered(number: usize) -> csi::CreateVolumeRequest {
    wanted(&format!("burst-{number}"), GIB)
}

/// The id that it will have, which is how a fault finds it.
async fn id_of(world: &World, number: usize) -> String {
    let volume = world.create(numbered(number)).await.unwrap();
    world.delete(&volume.volume_id).await.unwrap();
    volume.volume_id
}

/// So many creates at once, each once.
async fn burst(world: &World, count: usize) -> Vec<Result<csi::Volume, Status>> {
    join_all((0..count).map(|number| world.create(numbered(number)))).await
}

/// As many volumes as there are ids, each with one disk and one subvolume.
#[track_caller]
fn assert_whole(world: &World, volumes: &[csi::Volume]) {
    let state = world.simulator.state().unwrap();
    let ids: BTreeSet<_> = volumes.iter().map(|volume| volume.volume_id.as_str()).collect();
    let slots: BTreeSet<_> = state.disks.iter().map(|disk| disk.slot.as_str()).collect();
    let subvolumes: BTreeSet<_> = state.subvolumes.iter().map(|subvolume| subvolume.name.as_str()).collect();
    assert_eq!((ids.len(), state.disks.len(), state.subvolumes.len()), (volumes.len(), ids.len(), ids.len()));
    assert!(ids == slots && ids == subvolumes, "{state:#?}");
}

/// Removes them, all at once.
async fn remove(world: &World, volumes: &[csi::Volume]) {
    for removed in join_all(volumes.iter().map(|volume| world.delete(&volume.volume_id))).await {
        removed.unwrap();
    }
}

#[tokio::test]
async fn a_hundred_creates_at_once_take_few_lines_and_no_further_session() {
    let world = World::new().await;
    world.simulator.inject(Fault::latency(Duration::from_millis(50)));
    let volumes: Vec<_> = burst(&world, 100).await.into_iter().map(Result::unwrap).collect();
    assert_whole(&world, &volumes);
    let lines = world.commands();
    assert!(lines <= 50, "{lines} lines");
    remove(&world, &volumes).await;
    let commands = world.simulator.commands();
    assert_eq!((commands.connections, commands.refused), (1, 0));
    assert_eq!(commands.most_at_once, SESSIONS);
    world.end().await;
}

#[tokio::test]
async fn an_array_that_reboots_amid_a_hundred_creates_ends_with_a_hundred_volumes() {
    let world = World::new().await;
    let amid = id_of(&world, 50).await;
    world.simulator.inject(Fault::latency(Duration::from_millis(20)));
    world
        .simulator
        .inject(Fault::new(Effect::Reboot { milliseconds: 700, seed: 7 }).times(1).containing(&amid));
    let creates = (0..100).map(|number| {
        let world = &world;
        until_available(move || world.create(numbered(number)))
    });
    let volumes: Vec<_> = join_all(creates).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(world.simulator.commands().connections, 2, "it did reboot");
    assert_whole(&world, &volumes);
    // Asked again, the same is there.
    let again: Vec<_> = burst(&world, 100).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(again, volumes);
    remove(&world, &volumes).await;
    world.end().await;
}

#[tokio::test]
async fn a_volume_that_hangs_holds_up_its_line_and_no_other() {
    let world = World::new().await;
    let slow = id_of(&world, 0).await;
    world.simulator.inject(Fault::latency(Duration::from_millis(50)));
    world.simulator.inject(Fault::new(Effect::Hold).containing(&slow));
    let about_it =
        || world.simulator.commands().lines.iter().filter(|sent| sent.line.contains(&slow)).count();
    let before = about_it();
    // Whatever shares its line waits with it, since the array may yet come to that; this one is alone in its line.
    let others = async {
        while about_it() == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        join_all((1..30).map(|number| world.create(numbered(number)))).await
    };
    let (hung, others) = tokio::join!(world.create(numbered(0)), others);
    assert_eq!(hung.unwrap_err().code(), Code::Unavailable);
    let mut volumes: Vec<_> = others.into_iter().map(Result::unwrap).collect();
    assert_whole(&world, &volumes);
    world.simulator.clear_faults();
    volumes.push(until_available(|| world.create(numbered(0))).await.unwrap());
    assert_whole(&world, &volumes);
    remove(&world, &volumes).await;
    world.end().await;
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_harms_its_line_once_and_nobody_twice() {
    let world = World::new().await;
    let odd = id_of(&world, 29).await;
    world.simulator.inject(Fault::latency(Duration::from_millis(50)));
    world.simulator.inject(Fault::new(Effect::Garbage).containing(&odd));
    let first = burst(&world, 30).await;
    assert!(first.iter().filter(|created| created.is_ok()).count() >= 30 - 16);
    for (number, created) in burst(&world, 30).await.into_iter().enumerate() {
        match number {
            29 => assert_refused(created, Code::Unavailable, "cannot be read"),
            _ => drop(created.unwrap()),
        }
    }
    world.simulator.clear_faults();
    let volumes: Vec<_> = burst(&world, 30).await.into_iter().map(Result::unwrap).collect();
    assert_whole(&world, &volumes);
    remove(&world, &volumes).await;
    world.end().await;
}
