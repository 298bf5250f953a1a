//! One RPC's life, the same for every RPC of both programs: span, lock, task, outcome, metric, log line, code.
//!
//! tonic drops a handler half-way when its client leaves, which would cut an operation in two between `connect` and `mount`.
//! So the work runs in a task of its own that owns the volume's lock, and the handler only waits for it.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use tonic::{Code, Response, Status};
use tracing::{Instrument as _, Span, field};

use crate::failure::Failure;
use crate::serve::locks::{Busy, VolumeGuard, VolumeLocks};
use crate::serve::telemetry;
use crate::status::{self, Rpc};
use crate::trace::TraceParent;
use crate::volume_id::VolumeId;

/// Seconds. From an array's answer within a LAN (0.2 s) to the longest wait that a caller would take.
const BUCKETS: [f64; 12] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];

/// Runs the calls of a program. Clones share everything.
#[derive(Debug, Clone)]
pub struct Calls {
    locks: VolumeLocks,
    tracker: TaskTracker,
    metrics: Arc<Metrics>,
    running: Running,
}

/// What a call is about: which RPC, which volume, and which trace it belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The RPC.
    pub rpc: Rpc,
    /// The volume that the call changes. It is locked for as long as the call's work runs.
    pub volume: Option<&'a VolumeId>,
    /// The span of another program that this call continues.
    pub parent: Option<&'a TraceParent>,
}

impl<'a> Call<'a> {
    /// A call that changes no volume.
    pub const fn new(rpc: Rpc) -> Self {
        Self { rpc, volume: None, parent: None }
    }

    /// A call that changes this volume.
    pub const fn on(rpc: Rpc, volume: &'a VolumeId) -> Self {
        Self { rpc, volume: Some(volume), parent: None }
    }

    /// The same call, as part of a trace.
    pub const fn continuing(self, parent: Option<&'a TraceParent>) -> Self {
        Self { parent, ..self }
    }
}

impl Calls {
    /// Counts and times into the registry.
    pub fn new(registry: &mut Registry) -> Self {
        Self {
            locks: VolumeLocks::default(),
            tracker: TaskTracker::new(),
            metrics: Arc::new(Metrics::register(registry)),
            running: Running::default(),
        }
    }

    /// Runs work that waits without blocking. The work goes on if the caller leaves.
    pub async fn run<T, E>(
        &self,
        call: Call<'_>,
        work: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<Response<T>, Status>
    where
        T: Send + 'static,
        E: Failure + Send + 'static,
    {
        let life = self.begin(call)?;
        let span = life.span.clone();
        ended(self.tracker.spawn(async move { life.end(work.await) }.instrument(span))).await
    }

    /// Runs work that blocks, on a thread of its own. After `deadline` the caller is told that the outcome is unknown; the
    /// thread, which nothing can stop, keeps the volume until its system call returns.
    pub async fn run_blocking<T, E>(
        &self,
        call: Call<'_>,
        deadline: Duration,
        work: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<Response<T>, Status>
    where
        T: Send + 'static,
        E: Failure + Send + 'static,
    {
        let life = self.begin(call)?;
        let span = life.span.clone();
        let thread = self.tracker.spawn_blocking(move || span.in_scope(|| life.end(work())));
        if let Ok(outcome) = tokio::time::timeout(deadline, ended(thread)).await {
            return outcome;
        }
        self.metrics.count(call.rpc, Code::DeadlineExceeded);
        let method = call.rpc.path().1;
        tracing::warn!(volume = call.volume.map(field::display), "{method} still runs after {deadline:?}");
        Err(Status::deadline_exceeded(format!(
            "{method} still runs after {} s and cannot be stopped: the volume stays busy until it ends; \
             look at the node's kernel log for a hung device",
            deadline.as_secs()
        )))
    }

    /// Keeps calls away from a volume while something else is done to it. Fails if a call runs on it now.
    pub fn hold(&self, volume: &VolumeId) -> Result<VolumeGuard, Busy> {
        self.locks.try_lock(volume)
    }

    /// The same, and waits for a call that runs on it, but no longer than that. It blocks its thread.
    pub fn hold_within(&self, volume: &VolumeId, limit: Duration) -> Result<VolumeGuard, Busy> {
        self.locks.lock_within(volume, limit)
    }

    /// Waits for the calls that still run. Nothing new should be let in any more.
    pub async fn drain(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// The calls that run now, the oldest first.
    pub fn running(&self) -> Vec<RunningCall> {
        self.running.calls().values().cloned().collect()
    }

    /// Says which calls are left where they are, when the process ends without them.
    pub fn tell_left(&self) {
        for RunningCall { rpc, volume, begun } in self.running() {
            let (_, method) = rpc.path();
            tracing::warn!(
                volume = volume.as_ref().map(field::display),
                seconds = begun.elapsed().as_secs(),
                "{method} still runs and is left: what it did stays, and its repeat goes on from there; \
                 look at the kernel log for a hung device"
            );
        }
    }

    fn begin(&self, call: Call<'_>) -> Result<Life, Status> {
        let (service, method) = call.rpc.path();
        let span = tracing::info_span!(
            "rpc",
            otel.name = format!("{service}/{method}"),
            otel.kind = "server",
            otel.status_code = field::Empty,
            rpc.system = "grpc",
            rpc.service = service,
            rpc.method = method,
            rpc.grpc.status_code = field::Empty,
            volume = call.volume.map(field::display),
        );
        if let Some(parent) = call.parent {
            telemetry::continue_trace(&span, parent);
        }
        let begun = Instant::now();
        let guard = match call.volume.map(|volume| self.locks.try_lock(volume)).transpose() {
            Ok(guard) => guard,
            Err(busy) => {
                let status = status::of(call.rpc, &busy);
                self.metrics.count(call.rpc, status.code());
                span.in_scope(|| tracing::debug!("{method}: {busy}"));
                return Err(status);
            }
        };
        self.metrics.running.get_or_create(&call.rpc.into()).inc();
        let running = self.running.add(RunningCall { rpc: call.rpc, volume: call.volume.cloned(), begun });
        Ok(Life {
            rpc: call.rpc,
            span,
            begun,
            metrics: self.metrics.clone(),
            _running: running,
            _guard: guard,
        })
    }
}

/// What every call ends as, a panic of its work included.
async fn ended<T>(task: JoinHandle<Result<Response<T>, Status>>) -> Result<Response<T>, Status> {
    task.await.unwrap_or_else(|error| Err(Status::internal(format!("the driver has a bug: {error}"))))
}

/// A call between its begin and its end. It owns the volume's lock.
struct Life {
    rpc: Rpc,
    span: Span,
    begun: Instant,
    metrics: Arc<Metrics>,
    _running: RunningGuard,
    _guard: Option<VolumeGuard>,
}

impl Life {
    fn end<T, E: Failure>(self, outcome: Result<T, E>) -> Result<Response<T>, Status> {
        let outcome = outcome.map(Response::new).map_err(|error| status::of(self.rpc, &error));
        let code = outcome.as_ref().map_or_else(Status::code, |_| Code::Ok);
        let elapsed = self.begun.elapsed();
        self.metrics.count(self.rpc, code);
        self.metrics.durations.get_or_create(&self.rpc.into()).observe(elapsed.as_secs_f64());
        self.span.record("rpc.grpc.status_code", code as i32);

        let (_, method) = self.rpc.path();
        let milliseconds = elapsed.as_millis();
        match &outcome {
            Ok(_) if self.rpc.only_reads() => tracing::debug!(milliseconds, "{method}: done"),
            Ok(_) => tracing::info!(milliseconds, "{method}: done"),
            Err(status) => {
                self.span.record("otel.status_code", "ERROR");
                tracing::warn!(milliseconds, ?code, "{method}: {}", status.message());
            }
        }
        outcome
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.metrics.running.get_or_create(&self.rpc.into()).dec();
    }
}

/// A call that runs.
#[derive(Debug, Clone)]
pub struct RunningCall {
    /// The RPC.
    pub rpc: Rpc,
    /// The volume that it changes.
    pub volume: Option<VolumeId>,
    /// Since when it runs.
    pub begun: Instant,
}

/// The calls that run, in the order in which they began.
#[derive(Debug, Clone, Default)]
struct Running(Arc<Mutex<BTreeMap<u64, RunningCall>>>);

impl Running {
    fn add(&self, call: RunningCall) -> RunningGuard {
        let mut calls = self.calls();
        let number = calls.last_key_value().map_or(0, |(last, _)| last + 1);
        calls.insert(number, call);
        RunningGuard { running: self.clone(), number }
    }

    /// A map stays whole if a thread panicked beside it.
    fn calls(&self) -> MutexGuard<'_, BTreeMap<u64, RunningCall>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends with the call.
struct RunningGuard {
    running: Running,
    number: u64,
}

impl Drop for RunningGuard {
    fn drop(&mut self) {
        self.running.calls().remove(&self.number);
    }
}

#[derive(Debug)]
struct Metrics {
    outcomes: Family<OutcomeLabels, Counter>,
    durations: Family<RpcLabels, Histogram, fn() -> Histogram>,
    running: Family<RpcLabels, Gauge>,
}

impl Metrics {
    fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            outcomes: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            running: Family::default(),
        };
        registry.register("rds_csi_operations", "Calls by their outcome", metrics.outcomes.clone());
        registry.register(
            "rds_csi_operation_duration_seconds",
            "How long calls took",
            metrics.durations.clone(),
        );
        registry.register("rds_csi_operations_running", "Calls that run now", metrics.running.clone());
        metrics
    }

    fn count(&self, rpc: Rpc, code: Code) {
        self.outcomes.get_or_create(&OutcomeLabels { rpc: RpcLabel(rpc), code: CodeLabel(code) }).inc();
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RpcLabels {
    rpc: RpcLabel,
}

impl From<Rpc> for RpcLabels {
    fn from(rpc: Rpc) -> Self {
        Self { rpc: RpcLabel(rpc) }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    rpc: RpcLabel,
    code: CodeLabel,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct RpcLabel(Rpc);

impl EncodeLabelValue for RpcLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.path().1.encode(encoder)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct CodeLabel(Code);

impl EncodeLabelValue for CodeLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        format!("{:?}", self.0).as_str().encode(encoder)
    }
}

#[cfg(test)]
mod tests;
