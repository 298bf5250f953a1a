//! What the node agent adds to the system calls that it makes: both measured in turn, inside one worker, against one array.
//!
//! Programs that a call runs are counted, and one too many is a failure. Times are only told: as ratios within this run.

mod agent;
mod bare;
pub mod crowd;
pub mod guest;
mod table;

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rds_csi_api::csi;

use self::crowd::Pass;
use self::guest::{Measured, Order, Programs, Round, Subject};
use self::table::Table;
use crate::driver::{Driver, Pod, block, filesystem};
use crate::rig::{ArrayKind, NodeKind, Plan, Rig};

/// How often each is done. The first round is warmer for the array than for the node, and is left out.
const ROUNDS: usize = 21;

/// For all rounds of one volume, on a machine that does ten things at once.
const PATIENCE: Duration = Duration::from_mins(15);

const MIB: u64 = 1 << 20;

/// The driver's part, beside which the goal is set: staging and publishing take so many times what the bare system calls take.
const GOAL: f64 = 1.1;

/// For one look at who uses a device.
const LOOK_GOAL: Duration = Duration::from_millis(100);

/// Measures, prints a table, and fails if a program was run that should not be.
pub async fn run() -> Result<()> {
    let mut table = Table::default();
    let Pass { wall, cpu, processes, descriptors } = crowd::measure()?;
    table.title(&format!("one look at {processes} processes with {descriptors} open files"));
    table.time("who uses a device", wall, cpu, LOOK_GOAL);
    let plan = Plan { workers: 1, array: ArrayKind::RouterOs, nodes: NodeKind::Plain };
    let rig = Rig::boot(plan).await?;
    let measured = Driver::on(&rig, async |driver| node(driver, &mut table).await).await;
    let ended = rig.teardown().await;
    table.print();
    measured.and(ended)?;
    ensure!(table.missed() == 0, "{} calls ran programs that they should not run", table.missed());
    Ok(())
}

async fn node(driver: &Driver<'_>, table: &mut Table) -> Result<()> {
    for (name, capability, size) in [
        ("block", block(), 64 * MIB),
        ("ext4", filesystem("ext4"), 64 * MIB),
        ("xfs", filesystem("xfs"), 320 * MIB),
    ] {
        let measured = volume(driver, name, capability, size).await?;
        tell(name, &measured, table)?;
    }
    Ok(())
}

/// One volume, many times, by the program that runs in the worker.
async fn volume(
    driver: &Driver<'_>,
    name: &str,
    capability: csi::VolumeCapability,
    size: u64,
) -> Result<Measured> {
    let worker = driver.rig().worker("w1");
    let volume = driver.create(&format!("bench-{name}"), capability, size).await?;
    let context = driver.publish(&volume, worker.name()).await?;
    let pod = Pod::new(worker, volume.clone(), context, "pod-1");
    let order = Order { rounds: ROUNDS, subject: Subject::of(&pod)? };
    worker.guest().write("/run/order.json", 0o600, &serde_json::to_vec(&order)?).await?;
    let output = worker.guest().run_for(PATIENCE, "rds-csi-guest bench /run/order.json").await?.ok()?;
    let measured = serde_json::from_str(&output).with_context(|| format!("the worker printed {output}"))?;
    driver.unpublish(&volume, worker.name()).await?;
    driver.delete(&volume).await?;
    Ok(measured)
}

fn tell(name: &str, measured: &Measured, table: &mut Table) -> Result<()> {
    let Measured { idle, first, bare, driver } = measured;
    table.title(&format!("{name}: a call that does nothing takes {:.1} ms", millis(median(idle)?)));
    table.heads();
    let of = |rounds: &[Round], part: fn(&Round) -> Duration| {
        median(&rounds.iter().skip(1).map(part).collect::<Vec<_>>())
    };
    let whole = |round: &Round| round.stage.took + round.publish.took;
    for (what, part) in [
        ("stage", (|round| round.stage) as fn(&Round) -> guest::Step),
        ("publish", |round| round.publish),
        ("unpublish", |round| round.unpublish),
        ("unstage", |round| round.unstage),
    ] {
        let time = |rounds: &[Round]| {
            median(&rounds.iter().skip(1).map(|round| part(round).took).collect::<Vec<_>>())
        };
        // The first stage of all is told below.
        let programs = driver.iter().skip(1).map(|round| part(round).programs).max().unwrap_or_default();
        let goal = (what == "stage").then_some(GOAL);
        table.ratio(what, time(bare)?, time(driver)?, goal, programs);
    }
    table.ratio("stage and publish", of(bare, whole)?, of(driver, whole)?, Some(GOAL), Programs::None);
    let again = driver.iter().map(|round| round.again.programs).max().unwrap_or_default();
    table.alone("stage again", of(driver, |round| round.again.took)?, again, Programs::None);
    match (name, first.programs) {
        ("block", programs) => table.alone("first stage", first.took, programs, Programs::None),
        // That it is seen at all is what proves that the zeros above are zeros.
        (_, Programs::None) => {
            bail!("{name} was formatted without a program: programs are not counted right")
        }
        (_, Programs::Some) => {
            table.alone("stage of a blank (mkfs)", first.took, Programs::Some, Programs::Some);
        }
    }
    Ok(())
}

fn median(times: &[Duration]) -> Result<Duration> {
    let mut times = times.to_vec();
    times.sort_unstable();
    times.get(times.len() / 2).copied().context("nothing was measured")
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
