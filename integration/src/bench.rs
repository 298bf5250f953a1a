//! What the real controller sends to a simulated array, counted by the array, and how long it takes in command times: one is
//! what a bare `:put 1` takes over the same ssh, in the same run.
//!
//! Counts are the same on every machine, so a missed one is a failure. Times are not, and are only told.

mod site;
mod table;

use std::time::Duration;

use anyhow::{Result, ensure};
use futures_util::future::join_all;
use rds_csi_api::csi;
use tokio::time::Instant;
use tonic::{Code, Status};

use site::Site;
use table::{Figure, Goal, Table};

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    /// Also what is sent while nothing happens, which takes 65 s.
    pub idle: bool,
}

/// How long the array takes before it begins with a command.
const LATENCIES: [Duration; 3] = [Duration::ZERO, Duration::from_millis(20), Duration::from_millis(200)];

/// Volumes that each operation is done to, one after the other.
const ROUNDS: usize = 7;

/// Volumes that are made at once.
const BURST: usize = 100;

/// How long the connection is watched while nothing happens. A keep-alive is due every 60 s.
const IDLE: Duration = Duration::from_secs(65);

/// Measures, prints a table, and fails if a count is missed.
pub async fn run(Order { idle }: Order) -> Result<()> {
    let mut table = Table::default();
    for latency in LATENCIES {
        let site = Site::start(latency).await?;
        let command = site.command_time().await?;
        table.title(&format!(
            "{} ms per command: a bare :put 1 takes {:.1} ms",
            latency.as_millis(),
            command.as_secs_f64() * 1000.0
        ));
        // Where commands take no time, a create takes what the simulator needs for its script.
        let lone = if latency.is_zero() { Goal::None } else { Goal::AtMost(1.05) };
        one_by_one(&site, command, lone, &mut table).await?;
        // Where commands take no time, hardly any wait.
        let lines = if latency.is_zero() { BURST } else { BURST / 2 };
        // On this machine all of them have to be computed, too.
        let goal = if latency > Duration::from_millis(100) { Goal::AtMost(5.0) } else { Goal::None };
        at_once(&site, command, lines, goal, &mut table).await?;
        if idle && latency.is_zero() {
            while_nothing_happens(&site, &mut table).await;
        }
        site.end().await?;
    }
    table.print();
    ensure!(table.missed() == 0, "{} counts are more than they should be", table.missed());
    Ok(())
}

/// Each operation by itself.
async fn one_by_one(site: &Site, command: Duration, lone_create: Goal, table: &mut Table) -> Result<()> {
    let names = || (0..ROUNDS).map(|number| format!("bench-{number}"));
    let mut lone = Vec::new();
    let mut rounds = Rounds::of("create", site);
    for name in names() {
        lone.push(rounds.once(site.create(&name)).await?);
    }
    rounds.tell(command, lone_create, table);
    let volumes: Vec<csi::Volume> = lone.into_iter().flatten().collect();

    let mut rounds = Rounds::of("publish", site);
    for volume in &volumes {
        rounds.once(site.publish(volume)).await?;
    }
    rounds.tell(command, Goal::None, table);
    let mut rounds = Rounds::of("expand", site);
    for volume in &volumes {
        rounds.once(site.expand(volume)).await?;
    }
    rounds.tell(command, Goal::None, table);
    let mut rounds = Rounds::of("snapshot", site);
    let mut snapshots = Vec::new();
    for volume in &volumes {
        snapshots.extend(rounds.once(site.snapshot(volume)).await?);
    }
    rounds.tell(command, Goal::None, table);
    let mut rounds = Rounds::of("restore", site);
    let mut restored = Vec::new();
    for snapshot in &snapshots {
        restored.extend(rounds.once(site.restore(snapshot)).await?);
    }
    rounds.tell(command, Goal::None, table);
    let mut rounds = Rounds::of("unpublish", site);
    for volume in &volumes {
        rounds.once(site.unpublish(volume)).await?;
    }
    rounds.tell(command, Goal::None, table);
    let mut rounds = Rounds::of("delete snapshot", site);
    for snapshot in &snapshots {
        rounds.once(site.delete_snapshot(snapshot)).await?;
    }
    rounds.tell(command, Goal::None, table);
    let mut rounds = Rounds::of("delete", site);
    for volume in volumes.iter().chain(&restored) {
        rounds.once(site.delete(&volume.volume_id)).await?;
    }
    rounds.tell(command, Goal::None, table);
    Ok(())
}

/// One operation, several times.
struct Rounds<'site> {
    name: &'static str,
    site: &'site Site,
    most: usize,
    times: Vec<Duration>,
}

impl<'site> Rounds<'site> {
    fn of(name: &'static str, site: &'site Site) -> Self {
        Self { name, site, most: 0, times: Vec::new() }
    }

    /// Once more; nothing if the controller does not serve it.
    async fn once<T>(&mut self, call: impl Future<Output = Result<T, Status>>) -> Result<Option<T>> {
        let before = self.site.lines();
        let begun = Instant::now();
        let outcome = call.await;
        let took = begun.elapsed();
        match outcome {
            Err(status) if status.code() == Code::Unimplemented => Ok(None),
            outcome => {
                self.times.push(took);
                self.most = self.most.max(self.site.lines() - before);
                Ok(Some(outcome?))
            }
        }
    }

    fn tell(self, command: Duration, goal: Goal, table: &mut Table) {
        let median = site::median(self.times);
        table.add(Figure {
            name: self.name.into(),
            commands: median.map(|_| (self.most, 1)),
            took: median,
            command,
            goal,
        });
    }
}

/// Many creates at the same time.
async fn at_once(site: &Site, command: Duration, most: usize, goal: Goal, table: &mut Table) -> Result<()> {
    let before = site.lines();
    let begun = Instant::now();
    let created =
        join_all((0..BURST).map(|number| async move { site.create(&format!("burst-{number}")).await })).await;
    let took = begun.elapsed();
    let lines = site.lines() - before;
    let volumes: Vec<_> = created.into_iter().filter_map(Result::ok).collect();
    table.add(Figure {
        name: format!("{BURST} creates at once"),
        commands: Some((lines, most)),
        took: Some(took),
        command,
        goal,
    });
    ensure!(volumes.len() == BURST, "{} of {BURST} creates succeeded", volumes.len());
    let used = site.most_at_once();
    ensure!(used <= site::SESSIONS, "{used} sessions were used at once, not {}", site::SESSIONS);
    let removed = join_all(volumes.iter().map(|volume| site.delete(&volume.volume_id))).await;
    removed.into_iter().collect::<Result<Vec<()>, Status>>()?;
    Ok(())
}

/// What arrives at the array, keep-alives included.
async fn while_nothing_happens(site: &Site, table: &mut Table) {
    let (lines, arrivals) = (site.lines(), site.arrivals());
    tokio::time::sleep(IDLE).await;
    let arrived = usize::try_from(site.arrivals() - arrivals).unwrap_or(usize::MAX);
    for (name, count, goal) in [("commands", site.lines() - lines, 0), ("packets", arrived, 1)] {
        table.add(Figure {
            name: format!("{name} in {} idle seconds", IDLE.as_secs()),
            commands: Some((count, goal)),
            took: None,
            command: Duration::ZERO,
            goal: Goal::None,
        });
    }
}
