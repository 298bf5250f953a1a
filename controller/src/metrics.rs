//! Gauges that are read from state when they are asked for.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;

use crate::array::routeros::RouterOs;

/// Whether the array is connected.
#[derive(Debug)]
pub struct ArrayConnected(pub RouterOs);

impl Collector for ArrayConnected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let gauge = ConstGauge::new(i64::from(self.0.is_connected()));
        let help = "Whether the array is connected";
        let metric = encoder.encode_descriptor("rds_csi_array_connected", help, None, gauge.metric_type())?;
        gauge.encode(metric)
    }
}
