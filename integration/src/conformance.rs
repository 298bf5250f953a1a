//! The upstream conformance suite, csi-sanity, against the binaries that users run: the controller on its socket, and the
//! node agent inside a worker guest, where NVMe/TCP and mounts are the kernel's own.
//!
//! A spec that is skipped has shown nothing, so each that may be is named here with its reason.

mod report;
mod suite;

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use self::report::{Allowance, Part, Report};
pub use self::suite::Order;
use self::suite::{Suite, Volumes};
use crate::driver::Driver;
use crate::rig::{Plan, Rig};

/// It takes about two minutes.
const LIMIT: Duration = Duration::from_mins(10);

/// A spec attaches as many volumes to the node as it may hold, and then one more.
const VOLUMES_PER_NODE: &str = "4";

/// The specs that may be skipped: how their names begin, and why. One that is not skipped any more comes off the list.
const ALLOWED: &[Allowance] = &[
    Allowance {
        specs: &["GroupController Service"],
        why: "group snapshots are not served: the array takes a snapshot of one volume at a time",
    },
    Allowance {
        specs: &["CreateSnapshot: should succeed when creating a snapshot with accessibility requirements"],
        why: "a snapshot has no topology of its own: it is on the array of its volume",
    },
];

/// Boots a rig with one worker, runs the suite with filesystems and, where that differs, with raw block volumes, says how each of its parts went, and takes everything down again. An error
/// says what did not pass.
pub async fn run(order: &Order) -> Result<()> {
    let rig = Rig::boot(Plan { workers: 1, ..Plan::default() }).await?;
    let judged = tokio::time::timeout(LIMIT, judge(&rig, order)).await;
    let judged = judged.unwrap_or_else(|_| bail!("the suite has not ended after {LIMIT:?}"));
    if judged.is_err() {
        eprintln!("{}", suite::complaints(&rig));
        eprintln!("{}", rig.diagnosis().await);
    }
    let gone = rig.teardown().await;
    judged.and(gone)
}

async fn judge(rig: &Rig, order: &Order) -> Result<()> {
    // All that can be asked for is asked for.
    let flags = ["--max-volumes-per-node", VOLUMES_PER_NODE, "--csi-health", "1.13"];
    let driver = Driver::start_with(rig, &flags).await?;
    let suite = Suite::prepare(&driver)?;
    let mut verdicts = Vec::new();
    for volumes in [Volumes::Filesystem, Volumes::Block] {
        let ran = suite.run(order, volumes).await?;
        if let Some(folder) = &order.reports {
            let path = folder.join(format!("{}.json", volumes.access_type()));
            fs::write(&path, &ran).with_context(|| format!("cannot write {}", path.display()))?;
        }
        let report = Report::parse(&ran)?;
        println!("\n\ncsi-sanity, {volumes} volumes\n{}\n", report.told(ALLOWED));
        let part = if volumes.focus(order).is_some() { Part::Some } else { Part::All };
        verdicts.push(report.verdict(ALLOWED, part));
    }
    let left = suite.leftovers().await?;
    driver.stop().await?;
    verdicts.into_iter().collect::<Result<()>>()?;
    ensure!(left.is_empty(), "the suite's directories are still there: {left}");
    Ok(())
}
