//! What the last report of each array said, as metrics. An array whose last report failed has none.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use rds_csi_api::BackendName;

use super::{Kind, Orphan};
use crate::cluster::claims::Claims;

/// How many orphans of which kind.
type Counts = BTreeMap<Kind, i64>;

/// The last reports. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Reports {
    last: Arc<Mutex<BTreeMap<BackendName, Counts>>>,
    removed: Family<[(&'static str, String); 1], Counter>,
}

impl Reports {
    /// None yet, shown by the registry.
    pub fn registered(registry: &mut Registry) -> Self {
        let reports = Self::default();
        let help = "Volumes that nobody claimed and that were removed";
        registry.register("rds_csi_orphans_removed", help, reports.removed.clone());
        registry.register_collector(Box::new(reports.clone()));
        reports
    }

    /// An array's report is there.
    pub fn keep(&self, backend: &BackendName, orphans: &[Orphan], claims: &Claims) {
        // Snapshots that nobody can say anything about are not none.
        let known =
            Kind::ALL.into_iter().filter(|kind| *kind != Kind::Snapshot || claims.tell_of_snapshots());
        let mut counts: Counts = known.map(|kind| (kind, 0)).collect();
        for orphan in orphans {
            *counts.entry(orphan.kind).or_default() += 1;
        }
        self.last.lock().unwrap_or_else(PoisonError::into_inner).insert(backend.clone(), counts);
    }

    /// An array's report failed.
    pub fn forget(&self, backend: &BackendName) {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).remove(backend);
    }

    /// Every report failed.
    pub fn forget_all(&self) {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// One was removed.
    pub fn removed(&self, backend: &BackendName) {
        self.removed.get_or_create(&[("backend", backend.to_string())]).inc();
    }
}

impl Collector for Reports {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if last.is_empty() {
            return Ok(());
        }
        let help = "What the last report found on the array that nobody claims";
        let mut metric = encoder.encode_descriptor("rds_csi_orphans", help, None, MetricType::Gauge)?;
        for (backend, counts) in last {
            for (kind, count) in counts {
                let labels = [("backend", backend.as_str()), ("kind", kind.as_str())];
                ConstGauge::new(count).encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
