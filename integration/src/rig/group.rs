//! A group of tests that share one rig: a test binary with `harness = false` whose `main` is one expression.
//! It takes cargo test's arguments, prints what cargo test prints, boots only if a test is to run, and tears down at
//! the end, which fails the run if something is left.

use std::{
    any::Any,
    env,
    panic::AssertUnwindSafe,
    process::ExitCode,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use futures_util::FutureExt as _;
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::{runtime::Runtime, sync::OnceCell};

use super::{Plan, Rig};

/// How long a test may take; the longest, with a reboot of the array, takes a minute or two.
const LIMIT: Duration = Duration::from_mins(5);

/// Tests on one rig, in the order in which they are added.
pub struct Group {
    arguments: Arguments,
    shared: Arc<Shared>,
    trials: Vec<Trial>,
}

/// What all tests of a group use.
struct Shared {
    plan: Plan,
    runtime: Runtime,
    /// The rig, or why there is none. Booted by the first test that runs.
    rig: OnceCell<Result<Rig, String>>,
    failed: OnceLock<()>,
}

/// A group of tests on a rig that is booted as planned.
///
/// # Panics
/// If this process cannot have threads.
pub fn group(plan: Plan) -> Group {
    let mut arguments = Arguments::from_args();
    // The rig is one world: two tests at once would see each other.
    arguments.test_threads = Some(1);
    let runtime = Runtime::new().expect("a process may have threads");
    let shared = Shared { plan, runtime, rig: OnceCell::new(), failed: OnceLock::new() };
    Group { arguments, shared: Arc::new(shared), trials: Vec::new() }
}

impl Group {
    /// Adds a test; its name is a sentence with underscores.
    #[must_use]
    pub fn test<T>(mut self, name: &str, test: T) -> Self
    where
        T: AsyncFn(&Rig) -> Result<()> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        self.trials.push(Trial::test(name, move || shared.runtime.block_on(shared.run(test))));
        self
    }

    /// Runs the tests that the arguments ask for, then the teardown.
    pub fn run(self) -> ExitCode {
        let conclusion = libtest_mimic::run(&self.arguments, self.trials);
        let Some(shared) = Arc::into_inner(self.shared) else {
            eprintln!("rig: a test still holds it");
            return ExitCode::FAILURE;
        };
        let Some(Ok(rig)) = shared.rig.into_inner() else { return conclusion.exit_code() };
        if shared.failed.get().is_some() && env::var_os("RDS_CSI_RIG_KEEP").is_some_and(|keep| keep == "1") {
            keep(&shared.runtime, &rig);
        }
        let began = Instant::now();
        match shared.runtime.block_on(rig.teardown()) {
            Ok(()) => {
                eprintln!("rig: nothing is left behind (teardown {:.1} s)", began.elapsed().as_secs_f32());
                conclusion.exit_code()
            }
            Err(error) => {
                eprintln!("rig: teardown FAILED: {error:#}");
                ExitCode::from(101)
            }
        }
    }
}

impl Shared {
    async fn run(&self, test: impl AsyncFn(&Rig) -> Result<()>) -> Result<(), Failed> {
        let boot = || async { Rig::boot(self.plan).await.map_err(|error| format!("{error:#}")) };
        let rig = self.rig.get_or_init(boot).await.as_ref().map_err(|error| Failed::from(error.as_str()))?;
        let tested = AssertUnwindSafe(test(rig)).catch_unwind();
        let tested = match tokio::time::timeout(LIMIT, tested).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(panic)) => Err(anyhow!("{}", message(panic.as_ref()))),
            Err(_) => Err(anyhow!("it is not done after {LIMIT:?}")),
        };
        if let Err(error) = tested {
            let _ = self.failed.set(());
            let diagnosis = rig.diagnosis().await;
            let place = place(&error.backtrace().to_string());
            return Err(Failed::from(format!("{error:#}{place}\n\n{diagnosis}")));
        }
        Ok(())
    }
}

/// What a failed assertion said.
fn message(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("panicked")
}

/// Where in a test an error arose, if `RUST_BACKTRACE` is set. The other fifty frames are the runtime's.
fn place(backtrace: &str) -> String {
    let frames = backtrace.lines().map(str::trim).filter(|line| line.starts_with("at ./tests/"));
    frames.flat_map(|frame| ["\n  ", frame]).collect()
}

/// Leaves a failed rig running for a person to look at.
fn keep(runtime: &Runtime, rig: &Rig) {
    eprintln!("rig: kept as it is; Ctrl-C ends it\n{}", rig.directions());
    // Without a way to hear of Ctrl-C there is nothing to wait for.
    let _ = runtime.block_on(tokio::signal::ctrl_c());
}
