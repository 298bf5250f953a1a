//! What only one replica does, and whether it is this one.

use std::future::Future;

use kube::Client;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use super::lease::Candidate;
use crate::config::Kubernetes;

/// Who decides whether this replica leads.
pub enum Leadership {
    /// Nobody: it takes itself for the only one.
    Alone(Gauge),
    /// A Lease.
    Lease(Box<Candidate>),
}

impl Leadership {
    /// By a Lease in the namespace of the controller's pod; without that there is nowhere to look for others.
    pub fn new(kubernetes: &Kubernetes, client: Client, registry: &mut Registry) -> Self {
        let gauge = Gauge::default();
        let help = "Whether this replica does what only one does: the search for orphans, and reading what nodes tell";
        registry.register("rds_csi_leader", help, gauge.clone());
        let Some(pod) = &kubernetes.pod else {
            tracing::warn!(
                "without --pod-namespace and --pod-name this replica takes itself for the only one"
            );
            return Self::Alone(gauge);
        };
        let candidate = Candidate::new(client, &pod.namespace, &kubernetes.lease, &pod.name, gauge);
        Self::Lease(Box::new(candidate))
    }

    /// Does the work whenever this replica leads, until the token is cancelled.
    pub async fn run<F>(self, work: impl Fn() -> F, shutdown: CancellationToken)
    where
        F: Future<Output = ()>,
    {
        match self {
            Self::Lease(candidate) => candidate.run(work, shutdown).await,
            Self::Alone(gauge) => {
                gauge.set(1);
                shutdown.run_until_cancelled(work()).await;
            }
        }
    }
}
