//! Which of the replicas does what only one must do: the one whose name is in a Lease.
//!
//! Clocks of replicas are never compared. A Lease that others hold has run out when this replica itself has seen it
//! unchanged for its whole length; one's own is over well before that, counted from before it was written last.

use std::future::Future;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use prometheus_client::metrics::gauge::Gauge;
use rds_csi_api::status;
use tokio_util::sync::CancellationToken;

/// How long a Lease holds that nobody renews.
const LENGTH: Duration = Duration::from_secs(15);

/// How long its holder relies on it. The rest is for what it is just doing.
const RELIED_ON: Duration = Duration::from_secs(10);

/// Between two looks at it, or renewals.
const PAUSE: Duration = Duration::from_secs(2);

/// How long the API server may take.
const DEADLINE: Duration = Duration::from_secs(3);

/// A replica that would like to hold the Lease.
pub struct Candidate {
    api: Api<Lease>,
    name: String,
    /// Another with each start of the program: a holder that restarted is not the one that it was.
    identity: String,
    /// 1 while it does.
    leads: Gauge,
}

/// What somebody else wrote, and when that was seen first.
struct Seen {
    version: Option<String>,
    at: Instant,
}

impl Candidate {
    /// For the Lease of that name.
    pub fn new(client: Client, namespace: &str, name: &str, pod: &str, leads: Gauge) -> Self {
        let identity = format!("{pod}_{}", uuid::Uuid::new_v4());
        Self { api: Api::namespaced(client, namespace), name: name.into(), identity, leads }
    }

    /// Does the work whenever the Lease is ours, and drops it before it may be another's, until the token is cancelled.
    pub async fn run<F>(self, work: impl Fn() -> F, shutdown: CancellationToken)
    where
        F: Future<Output = ()>,
    {
        let mut seen = Seen { version: None, at: Instant::now() };
        while let Some(won) = shutdown.run_until_cancelled(self.win(&mut seen)).await {
            tracing::info!(lease = self.name, "this replica leads");
            self.leads.set(1);
            let end = tokio::select! {
                end = self.keep(won) => end,
                () = work() => End::Done,
                () = shutdown.cancelled() => End::Done,
            };
            self.leads.set(0);
            if let End::Done = end {
                self.resign().await;
                return;
            }
            tracing::warn!(lease = self.name, "this replica leads no more");
            seen = Seen { version: None, at: Instant::now() };
        }
    }

    /// Waits until the Lease is ours; since when it is relied on, and which one it is.
    async fn win(&self, seen: &mut Seen) -> (Instant, Lease) {
        loop {
            match self.attempt(seen).await {
                Ok(Some(won)) => return won,
                Ok(None) => {}
                Err(why) => tracing::debug!(lease = self.name, why, "the lease is not known"),
            }
            tokio::time::sleep(jittered(PAUSE)).await;
        }
    }

    /// Takes the Lease, if it is nobody's.
    async fn attempt(&self, seen: &mut Seen) -> Result<Option<(Instant, Lease)>, String> {
        let Some(found) = answer(self.api.get_opt(&self.name)).await? else {
            let began = Instant::now();
            let lease = self.lease(None);
            let made = answer(self.api.create(&PostParams::default(), &lease)).await?;
            return Ok(Some((began, made)));
        };
        let holder = found.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        if seen.version != found.metadata.resource_version {
            *seen = Seen { version: found.metadata.resource_version.clone(), at: Instant::now() };
        }
        // Nobody else writes this replica's name: then a renewal arrived whose answer did not.
        if !holder.is_empty() && holder != self.identity && seen.at.elapsed() < LENGTH {
            return Ok(None);
        }
        let began = Instant::now();
        let taken =
            answer(self.api.replace(&self.name, &PostParams::default(), &self.lease(Some(&found)))).await?;
        Ok(Some((began, taken)))
    }

    /// Renews the Lease until it cannot be relied on any more.
    async fn keep(&self, (mut since, mut lease): (Instant, Lease)) -> End {
        loop {
            let left = RELIED_ON.saturating_sub(since.elapsed());
            let renewal = async {
                tokio::time::sleep(jittered(PAUSE)).await;
                let (began, ours) = (Instant::now(), self.lease(Some(&lease)));
                let params = PostParams::default();
                (began, tokio::time::timeout(DEADLINE, self.api.replace(&self.name, &params, &ours)).await)
            };
            match tokio::time::timeout(left, renewal).await {
                Err(_) => return End::Lost,
                Ok((began, Ok(Ok(renewed)))) => (since, lease) = (began, renewed),
                // Another one wrote it, or removed it; or we did, and the answer was lost.
                Ok((_, Ok(Err(kube::Error::Api(refusal))))) if matches!(refusal.code, 404 | 409) => {
                    return End::Lost;
                }
                Ok((_, Ok(Err(error)))) => {
                    tracing::debug!(
                        lease = self.name,
                        why = status::chain(&error),
                        "the lease is not renewed"
                    );
                }
                Ok((_, Err(_))) => {
                    tracing::debug!(lease = self.name, "the lease is not renewed within {DEADLINE:?}");
                }
            }
        }
    }

    /// Lets others have it at once.
    async fn resign(&self) {
        let Ok(Some(mut lease)) = answer(self.api.get_opt(&self.name)).await else { return };
        let Some(spec) =
            lease.spec.as_mut().filter(|spec| spec.holder_identity.as_ref() == Some(&self.identity))
        else {
            return;
        };
        spec.holder_identity = Some(String::new());
        if let Err(why) = answer(self.api.replace(&self.name, &PostParams::default(), &lease)).await {
            tracing::debug!(lease = self.name, why, "the lease was not given back");
        }
    }

    /// The Lease as ours: a new one, or the one that was found, which must not have changed meanwhile.
    fn lease(&self, found: Option<&Lease>) -> Lease {
        let now = MicroTime(Timestamp::now());
        let metadata = found.map_or_else(
            || ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
            |found| found.metadata.clone(),
        );
        let before = found.and_then(|found| found.spec.clone()).unwrap_or_default();
        let is_ours = before.holder_identity.as_ref() == Some(&self.identity);
        let acquired = if is_ours { before.acquire_time.clone() } else { Some(now.clone()) };
        let transitions = before.lease_transitions.unwrap_or_default() + i32::from(!is_ours);
        let spec = LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(LENGTH.as_secs()).ok(),
            acquire_time: acquired,
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..before
        };
        Lease { metadata, spec: Some(spec) }
    }
}

/// Why a replica leads no more.
enum End {
    /// The work is done, or the program ends.
    Done,
    /// The Lease may be another's soon.
    Lost,
}

async fn answer<T>(question: impl Future<Output = Result<T, kube::Error>>) -> Result<T, String> {
    match tokio::time::timeout(DEADLINE, question).await {
        Ok(answer) => answer.map_err(|error| status::chain(&error)),
        Err(_) => Err(format!("no answer within {DEADLINE:?}")),
    }
}

/// Up to half as much again, so that replicas do not ask in step.
fn jittered(pause: Duration) -> Duration {
    let random = u32::from(uuid::Uuid::new_v4().as_bytes()[0]);
    pause + pause * random / 512
}
