//! Who holds what, as numbers, from the records as they were heard of last. Nothing is asked for a scrape, and nothing is
//! shown before anything was heard: right after a restart in the middle of a migration they are what they were before it.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use rds_csi_api::VolumeId;

use super::record::Record;

/// The gauges over these records.
struct Gauges<F>(F);

impl<F> fmt::Debug for Gauges<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gauges").finish_non_exhaustive()
    }
}

/// Has the registry show them. What is seen is [`super::Store::seen`].
pub fn register(
    registry: &mut Registry,
    seen: impl Fn() -> Option<BTreeMap<VolumeId, Record>> + Send + Sync + 'static,
) {
    registry.register_collector(Box::new(Gauges(seen)));
}

impl<F: Fn() -> Option<BTreeMap<VolumeId, Record>> + Send + Sync + 'static> Collector for Gauges<F> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(records) = (self.0)() else { return Ok(()) };
        let attachments: usize = records.values().map(|record| record.nodes().count()).sum();
        let migrations = records.values().filter(|record| record.migration().is_some()).count();
        for (name, help, count) in [
            ("rds_csi_attachments", "Attachments of volumes to nodes, as they are recorded", attachments),
            ("rds_csi_active_migrations", "Volumes that two nodes hold for a migration", migrations),
        ] {
            let gauge = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        Ok(())
    }
}
