//! A group of tests that share one world, such as a rig: a test binary with `harness = false` whose `main` is one expression.
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

/// What tests of a group share.
#[expect(async_fn_in_trait, reason = "a group runs one future at a time, on its own thread")]
pub trait World: Send + Sync + Sized + 'static {
    /// What it is booted by.
    type Plan: Copy + Send + Sync;

    /// Makes it.
    async fn boot(plan: Self::Plan) -> Result<Self>;

    /// What a person needs to see after a failure.
    async fn diagnosis(&self) -> String;

    /// How a person reaches what is in it.
    fn directions(&self) -> String;

    /// Ends it, and fails if a test left something behind.
    async fn teardown(self) -> Result<()>;
}

impl World for Rig {
    type Plan = Plan;

    async fn boot(plan: Plan) -> Result<Self> {
        Self::boot(plan).await
    }

    async fn diagnosis(&self) -> String {
        self.diagnosis().await
    }

    fn directions(&self) -> String {
        self.directions()
    }

    async fn teardown(self) -> Result<()> {
        self.teardown().await
    }
}

/// Tests in one world, in the order in which they are added.
pub struct Group<W: World = Rig> {
    arguments: Arguments,
    shared: Arc<Shared<W>>,
    trials: Vec<Trial>,
}

/// What all tests of a group use.
struct Shared<W: World> {
    plan: W::Plan,
    runtime: Runtime,
    /// The world, or why there is none. Booted by the first test that runs.
    world: OnceCell<Result<W, String>>,
    failed: OnceLock<()>,
}

/// A group of tests in a world that is booted as planned.
///
/// # Panics
/// If this process cannot have threads.
pub fn group<W: World>(plan: W::Plan) -> Group<W> {
    let mut arguments = Arguments::from_args();
    // The rig is one world: two tests at once would see each other.
    arguments.test_threads = Some(1);
    let runtime = Runtime::new().expect("a process may have threads");
    let shared = Shared { plan, runtime, world: OnceCell::new(), failed: OnceLock::new() };
    Group { arguments, shared: Arc::new(shared), trials: Vec::new() }
}

impl<W: World> Group<W> {
    /// Adds a test; its name is a sentence with underscores.
    #[must_use]
    pub fn test<T>(mut self, name: &str, test: T) -> Self
    where
        T: AsyncFn(&W) -> Result<()> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        self.trials.push(Trial::test(name, move || shared.runtime.block_on(shared.run(test))));
        self
    }

    /// Leaves the tests out unless they are asked for by `--ignored` or `--include-ignored`.
    #[must_use]
    pub fn only_if_asked_for(mut self) -> Self {
        self.trials = self.trials.into_iter().map(|trial| trial.with_ignored_flag(true)).collect();
        self
    }

    /// Runs the tests that the arguments ask for, then the teardown.
    pub fn run(self) -> ExitCode {
        let conclusion = libtest_mimic::run(&self.arguments, self.trials);
        let Some(shared) = Arc::into_inner(self.shared) else {
            eprintln!("rig: a test still holds it");
            return ExitCode::FAILURE;
        };
        let Some(Ok(world)) = shared.world.into_inner() else { return conclusion.exit_code() };
        if shared.failed.get().is_some() && env::var_os("RDS_CSI_RIG_KEEP").is_some_and(|keep| keep == "1") {
            keep(&shared.runtime, &world);
        }
        let began = Instant::now();
        match shared.runtime.block_on(world.teardown()) {
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

impl<W: World> Shared<W> {
    async fn run(&self, test: impl AsyncFn(&W) -> Result<()>) -> Result<(), Failed> {
        let boot = || async { W::boot(self.plan).await.map_err(|error| format!("{error:#}")) };
        let world = self.world.get_or_init(boot).await;
        let world = world.as_ref().map_err(|error| Failed::from(error.as_str()))?;
        let tested = AssertUnwindSafe(test(world)).catch_unwind();
        let tested = match tokio::time::timeout(LIMIT, tested).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(panic)) => Err(anyhow!("{}", message(panic.as_ref()))),
            Err(_) => Err(anyhow!("it is not done after {LIMIT:?}")),
        };
        if let Err(error) = tested {
            let _ = self.failed.set(());
            let diagnosis = world.diagnosis().await;
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
fn keep<W: World>(runtime: &Runtime, world: &W) {
    eprintln!("rig: kept as it is; Ctrl-C ends it\n{}", world.directions());
    // Without a way to hear of Ctrl-C there is nothing to wait for.
    let _ = runtime.block_on(tokio::signal::ctrl_c());
}
