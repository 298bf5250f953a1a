//! What one replica does for all of them, for as long as it leads.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::select_all;
use kube::Client;
use rds_csi_api::status;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::joined::JoinedDriver;
use crate::array::routeros::RouterOs;
use crate::attachments::reconcile;
use crate::cluster::agents::Directory;
use crate::cluster::ledger::Ledger;
use crate::cluster::{breakers, node_events};
use crate::orphans::Search;

/// The search for orphans of a controller that has Kubernetes.
pub(super) type OrphanSearch = Search<RouterOs, Ledger, Directory, Client>;

/// What there is to do.
#[derive(Clone)]
pub(super) struct Led {
    pub(super) driver: Arc<JoinedDriver>,
    pub(super) reconcile_interval: Duration,
    /// The search for orphans, and how often.
    pub(super) search: Option<(Arc<Mutex<OrphanSearch>>, Duration)>,
    pub(super) shutdown: CancellationToken,
}

impl Led {
    /// Does it until the token is cancelled. Dropped, it does no more.
    pub(super) async fn run(self) {
        let Self { driver, reconcile_interval, search, shutdown } = self;
        let (ledger, agents) = (&driver.store, &driver.nodes);
        let searching = async {
            if let Some((search, interval)) = search {
                search.lock().await.run(interval, shutdown.clone()).await;
            }
        };
        let all = async {
            tokio::join!(
                searching,
                reconcile(&driver, reconcile_interval),
                breakers::pass_on_resets(ledger, agents),
                node_events::pass_on(ledger, agents),
            )
        };
        Box::pin(shutdown.run_until_cancelled(all)).await;
    }
}

/// Does what is due, now and again, and when an array comes back: somebody may have changed it meanwhile.
async fn reconcile(driver: &JoinedDriver, interval: Duration) {
    let mut arrays: Vec<_> = driver.backends.iter().map(|backend| backend.array.clone()).collect();
    loop {
        let passed = reconcile::pass(
            &driver.backends,
            &driver.prefix,
            &driver.store,
            &driver.nodes,
            SystemTime::now(),
        );
        if let Err(error) = passed.await {
            let why = status::chain(&error);
            tracing::warn!(why, "nobody looked for what is due, since it is not known who holds what");
        }
        let changes = select_all(arrays.iter_mut().map(|array| Box::pin(array.comes_or_goes())));
        let _ = tokio::time::timeout(interval, changes).await;
    }
}
