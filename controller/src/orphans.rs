//! Orphans: what lies on an array and nobody claims. They are reported; a volume is removed only if that is switched on, and
//! only after all of this: Kubernetes claims it nowhere, the array itself lets nobody connect to it, it carries this
//! cluster's id, nothing depends on it, and all that has been so for a while.
//!
//! An absence that is not proven is no absence: a list that cannot be had ends the report, and the last one counts no more.

mod judge;
mod removal;
mod report;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use kube::Client;
use prometheus_client::registry::Registry;
use rds_csi_api::serve::call::{Call, Calls};
use rds_csi_api::{Rpc, VolumeId, status};
use tokio_util::sync::CancellationToken;

use crate::array::{Array, Inventory};
use crate::attachments::store::Store;
use crate::backends::Backend;
use crate::cluster::claims::{self, Claims};
use crate::cluster::events::Herald;
use crate::csi::Driver;
use crate::node_agents::Witness;

pub use judge::{Kind, Orphan, Policy, Reason, Removal, Seen, Verdict, judge};
pub use report::Reports;

/// The first report comes so long after the start, or after one interval if that is shorter.
const FIRST: Duration = Duration::from_mins(5);

/// The longest that Kubernetes may take to list all claims.
const LISTING: Duration = Duration::from_secs(30);

/// Who says which volumes and snapshots are claimed.
pub trait ClaimSource: Send + Sync + 'static {
    /// Every claim, or why it is not known.
    fn claims(&self, deadline: Duration) -> impl Future<Output = Result<Claims, claims::Error>> + Send;
}

/// Kubernetes is asked.
impl ClaimSource for Client {
    async fn claims(&self, deadline: Duration) -> Result<Claims, claims::Error> {
        claims::ask(self, deadline).await
    }
}

/// The search for orphans.
pub struct Search<A, S, W, C> {
    driver: Arc<Driver<A, S, W>>,
    claims: Arc<C>,
    calls: Calls,
    herald: Option<Herald>,
    policy: Policy,
    reports: Reports,
    seen: Vec<Seen>,
}

impl<A: Array, S: Store, W: Witness, C: ClaimSource> Search<A, S, W, C> {
    /// On every array of the driver. Reports go to the log, the registry, and the herald if there is one.
    pub fn new(
        driver: Arc<Driver<A, S, W>>,
        claims: C,
        calls: Calls,
        herald: Option<Herald>,
        policy: Policy,
        registry: &mut Registry,
    ) -> Self {
        let seen = driver.backends.iter().map(|_| Seen::default()).collect();
        let claims = Arc::new(claims);
        Self { driver, claims, calls, herald, policy, reports: Reports::registered(registry), seen }
    }

    /// Reports once per interval until the token is cancelled.
    pub async fn run(&mut self, interval: Duration, shutdown: CancellationToken) {
        // What was reported is known no more once nobody looks, here or on the replica that looked before.
        let _forgotten = Forgotten(self.reports.clone());
        self.seen.fill_with(Seen::default);
        let mut pause = FIRST.min(interval);
        while shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
            // A removal that has begun is a call like any other: it is finished by whoever ends the calls.
            if shutdown.run_until_cancelled(self.report(interval)).await.is_none() {
                return;
            }
            pause = interval;
        }
    }

    /// One report of each array. A list must be there before the next one is due.
    async fn report(&mut self, interval: Duration) {
        let driver = Arc::clone(&self.driver);
        // What the arrays have comes first: a volume that is made and claimed after that is in neither list, and one that is
        // made before it is claimed by the time Kubernetes is asked, or its claim is still waiting for it.
        let inventories =
            join_all(driver.backends.iter().map(async |backend| backend.array.inventory().await)).await;
        let claims = match self.claims.claims(LISTING.min(interval)).await {
            Ok(claims) => claims,
            Err(error) => {
                let error = status::chain(&error);
                tracing::warn!(error, "no report of orphans: it is not known who claims what");
                self.reports.forget_all();
                // What went on meanwhile is not known either, so no age runs on.
                self.seen.fill_with(Seen::default);
                return;
            }
        };
        for (index, (backend, inventory)) in driver.backends.iter().zip(inventories).enumerate() {
            match inventory {
                Ok(inventory) => self.judge(index, backend, &inventory, &claims).await,
                Err(error) => {
                    let error = status::chain(&error);
                    tracing::warn!(backend = %backend.title, error, "no report of orphans: the array does not list what it has");
                    self.reports.forget(&backend.title);
                    self.seen[index] = Seen::default();
                }
            }
        }
    }

    async fn judge(
        &mut self,
        index: usize,
        backend: &Arc<Backend<A>>,
        inventory: &Inventory,
        claims: &Claims,
    ) {
        let now = Instant::now();
        let seen = &mut self.seen[index];
        let orphans =
            judge(inventory, claims, backend.name.as_ref(), &self.driver.prefix, seen, now, self.policy);
        self.reports.keep(&backend.title, &orphans, claims);
        for orphan in &orphans {
            if orphan.new {
                tracing::warn!(backend = %backend.title, kind = orphan.kind.as_str(), name = orphan.name, "an orphan: {orphan}");
                self.tell("OrphanFound", format!("array {}: {orphan}", backend.title));
            }
            if let Verdict::Remove(id) = &orphan.verdict {
                self.remove(backend, orphan, id.volume()).await;
            }
        }
    }

    /// Removes one as DeleteVolume would, if it still is one while nobody else works on it.
    async fn remove(&self, backend: &Arc<Backend<A>>, orphan: &Orphan, id: &VolumeId) {
        // The record comes before the deed, so that there is one whatever happens then.
        tracing::warn!(backend = %backend.title, volume = %id, "removing an orphan: {orphan}");
        let (driver, claims) = (Arc::clone(&self.driver), Arc::clone(&self.claims));
        let (on, volume) = (Arc::clone(backend), id.clone());
        let work = async move { removal::remove(&on, &driver.store, &driver.nodes, &*claims, volume).await };
        match self.calls.run(Call::on(Rpc::DeleteVolume, id), work).await {
            Ok(_) => {
                tracing::warn!(backend = %backend.title, volume = %id, "removed an orphan");
                self.reports.removed(&backend.title);
                self.tell("OrphanRemoved", format!("array {}: removed {orphan}", backend.title));
            }
            Err(status) => {
                tracing::warn!(backend = %backend.title, volume = %id, error = status.message(), "an orphan was not removed");
            }
        }
    }

    fn tell(&self, reason: &str, note: String) {
        if let Some(herald) = &self.herald {
            herald.warn(reason, note);
        }
    }
}

/// Forgets all reports when it is dropped.
struct Forgotten(Reports);

impl Drop for Forgotten {
    fn drop(&mut self) {
        self.0.forget_all();
    }
}

#[cfg(test)]
mod tests;
