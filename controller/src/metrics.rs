//! Gauges that are read from state when they are asked for.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::array::routeros::RouterOs;
use crate::backends::Backends;

/// Whether each array is connected.
#[derive(Debug)]
pub struct ArrayConnected(pub Backends<RouterOs>);

impl Collector for ArrayConnected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let help = "Whether the array is connected";
        let mut metric =
            encoder.encode_descriptor("rds_csi_array_connected", help, None, MetricType::Gauge)?;
        for backend in self.0.iter() {
            let gauge = ConstGauge::new(i64::from(backend.array.is_connected()));
            gauge.encode(metric.encode_family(&[("backend", backend.title.as_str())])?)?;
        }
        Ok(())
    }
}
