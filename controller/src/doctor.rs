//! `rds-csi-controller doctor`: examines an array before and after the driver is installed.
//!
//! It logs in as the driver does, looks at what the driver relies on, and tries it on a scratch volume: every [`Check`] is a
//! line of its report. Whatever it makes it removes, also when it is interrupted; what a run that was killed left behind
//! goes at the start of the next.

mod check;
mod device;
mod nvme_tcp;
mod report;
pub(crate) mod scratch;
mod trial;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use rds_csi_api::{BackendName, status};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::array::Error;
use crate::array::routeros::RouterOs;
use crate::config::{self, ArrayArgs, ArrayConfig};
use check::Check;
use report::{Outcome, Report, Summary};
use scratch::Scratch;

/// Examines an array: whether it can be reached, is what the driver needs, and what its fences are worth. Makes a scratch
/// volume of 64 MiB there, and removes it. Exits with 0 if everything holds, 1 if something failed, 2 if it could not run, 3 if
/// nothing failed, but something could not be tried, such as NVMe/TCP without a route to the array's NVMe address.
#[derive(Debug, Parser)]
#[command(name = "rds-csi-controller doctor", version)]
pub struct Args {
    #[command(flatten)]
    array: ArrayArgs,
    /// Which array of the file to examine; without one the default one
    #[arg(long, value_name = "NAME")]
    backend: Option<BackendName>,
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
    let outcome = match ArrayConfig::of(args.array, args.backend.as_ref()) {
        Ok(config) => Box::pin(examine(config)).await,
        Err(error) => Err(NotRun::Configuration(error)),
    };
    let report = match outcome {
        Ok(report) => report,
        Err(error) => {
            eprintln!("doctor: {}", status::chain(&error));
            return ExitCode::from(NOT_RUN);
        }
    };
    match args.output {
        Output::Table => print!("{}", report.table()),
        Output::Json => println!("{}", report.json()),
    }
    match report.summary() {
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

async fn examine(config: ArrayConfig) -> Result<report::Finished, NotRun> {
    let interrupted = CancellationToken::new();
    let mut ends = [SignalKind::interrupt(), SignalKind::terminate()]
        .map(signal)
        .into_iter()
        .collect::<Result<Vec<_>, _>>()
        .map_err(NotRun::Signals)?;
    let (array, keeper) =
        RouterOs::new(config.ssh.clone(), config.pool.clone(), config.cluster.clone(), None);
    let scratch = Scratch::fresh(&config.pool, &config.cluster);
    let report = Report::new();
    let mut x = Examination { array, config, scratch, report, interrupted: interrupted.clone() };

    let over = CancellationToken::new();
    let examination = async {
        let reached = device::reach(&mut x).await;
        let mut removed = Ok(());
        if reached.is_ok() {
            // However it ends, what it made goes.
            let _ = x.everything().await;
            removed = x.nothing_is_left().await;
        }
        over.cancel();
        removed
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
    let (removed, (), ()) = tokio::join!(examination, signals, keeper.run(over.clone()));
    if !interrupted.is_cancelled() {
        return Ok(x.report.finish());
    }
    Err(removed.map_or_else(NotRun::InterruptedAndLeft, |()| NotRun::Interrupted))
}

/// An examination under way.
struct Examination {
    array: RouterOs,
    config: ArrayConfig,
    scratch: Scratch,
    report: Report,
    interrupted: CancellationToken,
}

/// What rests on the check that was just noted cannot be tried, or nobody wants to know any more.
struct Stopped;

impl Examination {
    async fn everything(&mut self) -> Result<(), Stopped> {
        device::abilities(self).await?;
        let before = self.ask(&self.scratch.list()).await;
        let removed = self.ask(&self.scratch.remove()).await;
        let told = before.and_then(|before| removed.map(|_| before)).map_err(|error| status::chain(&error));
        self.must(
            Check::Leftovers,
            told.map(|left| if left.is_empty() { "there was none".into() } else { left }),
        )?;
        trial::run(self).await
    }

    /// Removes what is left, whatever happened; an error is what stays, or why that is not known.
    async fn nothing_is_left(&mut self) -> Result<(), String> {
        let removed = self.ask(&self.scratch.remove()).await;
        let listed = self.ask(&self.scratch.list()).await;
        let left = match removed.and(listed) {
            Ok(left) if left.is_empty() => None,
            Ok(left) => Some(left),
            Err(error) => Some(status::chain(&error)),
        };
        match left {
            None => self.may(Check::NothingLeft, Ok("no disk, subvolume or file".into())),
            Some(why) => {
                self.may(Check::NothingLeft, Err(why.clone()));
                return Err(why);
            }
        }
        Ok(())
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
