//! `rds-csi-controller doctor`: examines an array before and after the driver is installed.
//!
//! It logs in as the driver does, looks at what the driver relies on, and tries it on a scratch volume: every [`Check`] is a
//! line of its report. Whatever it makes it removes, also when it is interrupted; what a run that was killed left behind
//! goes at the start of a later one, once nobody can be at work on it any more.

mod check;
mod device;
mod fence;
mod nvme_tcp;
mod report;
pub(crate) mod scratch;
mod trial;

use std::collections::BTreeSet;
use std::fs;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{Parser, ValueEnum};
use futures_util::future::OptionFuture;
use rds_csi_api::{BackendName, status};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::array::routeros::{Keeper, RouterOs};
use crate::array::{Error, Label};
use crate::config::{self, ArrayArgs, ArrayConfig, Fencing};
use check::Check;
use report::{Finished, Outcome, Report, Summary};
use scratch::{Found, Run, Scratch};

/// Examines arrays: whether each can be reached, is what the driver needs, and what its fences are worth. Makes a scratch
/// volume of 64 MiB there, and removes it. Exits with 0 if everything holds, 1 if something failed, 2 if it could not run, 3 if
/// nothing failed, but something could not be tried, such as NVMe/TCP without a route to the array's NVMe address.
#[derive(Debug, Parser)]
#[command(name = "rds-csi-controller doctor", version)]
pub struct Args {
    #[command(flatten)]
    array: ArrayArgs,
    /// Which array of the file to examine; without one all of them, one after the other
    #[arg(long, value_name = "NAME")]
    backend: Option<BackendName>,
    /// The fence that is configured for the array that flags describe, to compare with; a file tells each array's own
    #[arg(long, env = "RDS_CSI_FENCE", value_name = "none|acl@RELEASE|epoch@RELEASE")]
    fence: Option<Fencing>,
    /// How old what another run made must be to be removed as left behind; what is younger may belong to one that is still at work
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = config::time)]
    leftovers_after: Duration,
    /// Form of the report on standard output
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// For whom the report is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Table,
    /// For programs
    Json,
}

const NOT_RUN: u8 = 2;
const INCOMPLETE: u8 = 3;

/// Examines the array, and prints the report.
pub async fn run(args: Args) -> ExitCode {
    let outcome = match ArrayConfig::of(args.array, args.backend.as_ref(), args.fence.as_ref()) {
        Ok(configs) => examine(configs, args.leftovers_after).await,
        Err(error) => Err(NotRun::Configuration(error)),
    };
    let reports = match outcome {
        Ok(reports) => reports,
        Err(error) => {
            eprintln!("doctor: {}", status::chain(&error));
            return ExitCode::from(NOT_RUN);
        }
    };
    match args.output {
        Output::Table => print!("{}", reports.iter().map(Finished::table).collect::<Vec<_>>().join("\n")),
        Output::Json => println!("{}", report::json(&reports)),
    }
    match report::worst(&reports) {
        Summary::Good => ExitCode::SUCCESS,
        Summary::Incomplete => ExitCode::from(INCOMPLETE),
        Summary::Failed => ExitCode::FAILURE,
    }
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
enum NotRun {
    #[error("the configuration cannot be used")]
    Configuration(#[source] config::Error),
    #[error("no signals can be received")]
    Signals(#[source] std::io::Error),
    #[error("interrupted; what was made on the array is removed again")]
    Interrupted,
    #[error(
        "interrupted; what was made on the array could not be removed ({0}), and will be at the next run"
    )]
    InterruptedAndLeft(String),
}

/// One array after the other.
async fn examine(configs: Vec<ArrayConfig>, leftovers_after: Duration) -> Result<Vec<Finished>, NotRun> {
    let interrupted = CancellationToken::new();
    let mut ends = [SignalKind::interrupt(), SignalKind::terminate()]
        .map(signal)
        .into_iter()
        .collect::<Result<Vec<_>, _>>()
        .map_err(NotRun::Signals)?;
    let over = CancellationToken::new();
    let examinations = async {
        let _over = over.clone().drop_guard();
        let mut reports = Vec::new();
        for config in configs {
            let x = Examination::new(config, leftovers_after, interrupted.clone());
            let (report, removed) = Box::pin(x.run()).await;
            if interrupted.is_cancelled() {
                return Err(removed.map_or_else(NotRun::InterruptedAndLeft, |()| NotRun::Interrupted));
            }
            reports.push(report);
        }
        Ok(reports)
    };
    let signals = async {
        let [interrupt, terminate] = &mut ends[..] else { return };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = over.cancelled() => return,
        }
        // What is under way on the array comes to its end first: nothing can be removed that is still being made.
        eprintln!("doctor: interrupted; removing what was made");
        interrupted.cancel();
    };
    tokio::join!(examinations, signals).0
}

/// An examination under way.
struct Examination {
    array: RouterOs,
    config: ArrayConfig,
    keeper: Option<Keeper>,
    scratch: Scratch,
    /// What its disks say for people.
    label: Label,
    leftovers_after: Duration,
    report: Report,
    interrupted: CancellationToken,
}

/// What rests on the check that was just noted cannot be tried, or nobody wants to know any more.
struct Stopped;

impl Examination {
    fn new(config: ArrayConfig, leftovers_after: Duration, interrupted: CancellationToken) -> Self {
        let ArrayConfig { ssh, pool, cluster, .. } = &config;
        let (array, keeper) = RouterOs::new(ssh.clone(), pool.clone(), cluster.clone(), None);
        let scratch = Scratch::fresh(pool, cluster, SystemTime::now());
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let (label, report) = (Scratch::label(&host), Report::new());
        Self { array, config, keeper: Some(keeper), scratch, label, leftovers_after, report, interrupted }
    }

    /// The report, and whether everything that was made is removed.
    async fn run(mut self) -> (Finished, Result<(), String>) {
        let over = CancellationToken::new();
        let connection = self.keeper.take().map(|keeper| keeper.run(over.clone()));
        let examination = async {
            let _over = over.clone().drop_guard();
            if device::reach(&mut self).await.is_err() {
                return Ok(());
            }
            // However it ends, what it made goes.
            let _ = self.everything().await;
            let removed = self.nothing_is_left().await;
            fence::compare(&mut self);
            removed
        };
        let (removed, _) = tokio::join!(examination, OptionFuture::from(connection));
        (self.report.finish(self.config.title), removed)
    }

    async fn everything(&mut self) -> Result<(), Stopped> {
        device::abilities(self).await?;
        let others = self.others().await;
        let others = self.tell(Check::Leftovers, others)?;
        self.nobody_else(&others)?;
        let runs: BTreeSet<Run> = others.iter().map(|found| found.run.clone()).collect();
        let runs: Vec<Run> = runs.into_iter().collect();
        let removed = self.ask(&self.scratch.remove(&runs)).await;
        let told = if others.is_empty() { "there was none".into() } else { listed(&others) };
        self.must(Check::Leftovers, removed.map(|_| told).map_err(|error| status::chain(&error)))?;
        trial::run(self).await
    }

    /// What other runs of this cluster have made.
    async fn others(&self) -> Result<Vec<Found>, String> {
        let listed = self.ask(&self.scratch.list()).await.map_err(|error| status::chain(&error))?;
        let mut found = self.scratch.read(&listed);
        found.retain(|found| found.run != self.scratch.run);
        Ok(found)
    }

    /// Two that began at the same time see each other once both have made something: neither goes on then.
    async fn alone(&mut self) -> Result<(), Stopped> {
        let others = self.others().await;
        let others = self.tell(Check::Alone, others)?;
        self.nobody_else(&others)?;
        self.must(Check::Alone, Ok("nobody else's scratch volume is there".into()))
    }

    /// Stops if another run may still be at work.
    fn nobody_else(&mut self, others: &[Found]) -> Result<(), Stopped> {
        let now = SystemTime::now();
        let young = others.iter().filter(|found| found.run.is_younger(self.leftovers_after, now));
        let Some(found) = young.max_by_key(|found| found.host.is_some()) else { return Ok(()) };
        let host = found.host.as_deref().unwrap_or("a machine that is not known");
        let minutes = found.run.age(now).as_secs() / 60;
        let told = format!("{found} was made by another run on {host}, which began {minutes} min ago");
        self.must(Check::Alone, Err(told))
    }

    /// That nothing is there that this run has made.
    async fn left(&self) -> Result<String, String> {
        let listed_now = self.ask(&self.scratch.list()).await.map_err(|error| status::chain(&error))?;
        let mut left = self.scratch.read(&listed_now);
        left.retain(|found| found.run == self.scratch.run);
        if left.is_empty() { Ok("no disk, subvolume or file".into()) } else { Err(listed(&left)) }
    }

    /// Removes what is left, whatever happened; an error is what stays, or why that is not known.
    async fn nothing_is_left(&mut self) -> Result<(), String> {
        let removed = self.ask(&self.scratch.remove(std::slice::from_ref(&self.scratch.run))).await;
        let left = match removed {
            Ok(_) => self.left().await,
            Err(error) => Err(status::chain(&error)),
        };
        self.may(Check::NothingLeft, left.clone());
        left.map(drop)
    }

    /// Runs statements, with the scratch volume's id in `$volume`.
    async fn ask(&self, statements: &str) -> Result<String, Error> {
        self.array.ask(&self.scratch.volume, statements).await
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted.is_cancelled()
    }

    fn go_on(&self) -> Result<(), Stopped> {
        if self.is_interrupted() { Err(Stopped) } else { Ok(()) }
    }

    /// Notes a check that nothing else rests on.
    fn may(&mut self, check: Check, outcome: Result<String, String>) {
        match outcome {
            Ok(evidence) => self.report.note(check, Outcome::Proved, evidence),
            Err(why) => self.report.note(check, Outcome::Failed, why),
        }
    }

    /// Notes a check that others rest on.
    fn must(&mut self, check: Check, outcome: Result<String, String>) -> Result<(), Stopped> {
        let held = outcome.is_ok();
        self.may(check, outcome);
        if held { self.go_on() } else { Err(Stopped) }
    }

    /// What a check found, if anything; why not, noted.
    fn tell<T>(&mut self, check: Check, outcome: Result<T, String>) -> Result<T, Stopped> {
        self.go_on()?;
        outcome.map_err(|why| {
            self.may(check, Err(why));
            Stopped
        })
    }

    /// A step on the array on the way to a check.
    fn done<T>(&mut self, check: Check, outcome: Result<T, Error>) -> Result<T, Stopped> {
        self.tell(check, outcome.map_err(|error| status::chain(&error)))
    }

    /// A step on the array that is the check.
    fn held<T>(
        &mut self,
        check: Check,
        outcome: Result<T, Error>,
        evidence: impl FnOnce(&T) -> String,
    ) -> Result<T, Stopped> {
        let held = self.done(check, outcome)?;
        self.may(check, Ok(evidence(&held)));
        Ok(held)
    }

    /// A step over NVMe/TCP on the way to a check.
    fn heard<T>(&mut self, check: Check, outcome: Result<T, nvme_tcp::Error>) -> Result<T, Stopped> {
        self.tell(check, outcome.map_err(|error| status::chain(&error)))
    }
}

fn listed(found: &[Found]) -> String {
    found.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
