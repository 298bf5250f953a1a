//! Gauges of the last look. Nothing is looked at when they are asked for, and what is not known is absent.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use super::LastLook;
use crate::inspect::Connection;
use crate::volumes::health::Ailment;
use crate::volumes::survey::{Seen, Survey};

/// How many volumes there are, and how they are.
#[derive(Debug)]
pub struct Gauges(pub LastLook);

/// The states of a connection, as the label `connection` has them. Of a volume whose record is damaged it is not known.
const STATES: [&str; 4] =
    [Connection::Live.as_str(), Connection::Connecting.as_str(), Connection::Absent.as_str(), UNKNOWN];

const UNKNOWN: &str = "unknown";

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let counts = self.0.read(|Survey { seen, unseen }| {
            let seen_states = seen.values().map(|seen| Connection::from(&seen.attachment).as_str());
            let states: Vec<_> = seen_states.chain(unseen.values().map(|_| UNKNOWN)).collect();
            let of = |state| states.iter().filter(|of| **of == state).count();
            let abnormal = seen.values().filter(|seen| seen.trouble.is_some()).count() + unseen.len();
            let is_storm =
                |seen: &&Seen| matches!(&seen.trouble, Some(trouble) if trouble.ailment == Ailment::Storm);
            (STATES.map(of), seen.values().filter(is_storm).count(), abnormal)
        });
        let Some((connected, storms, abnormal)) = counts else { return Ok(()) };
        let gauge = |count| ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
        let help = "Volumes of this node by the state of their connection";
        let mut volumes = encoder.encode_descriptor("rds_csi_volumes", help, None, MetricType::Gauge)?;
        for (state, count) in STATES.into_iter().zip(connected) {
            gauge(count).encode(volumes.encode_family(&[("connection", state)])?)?;
        }
        for (name, help, count) in [
            ("rds_csi_mount_storms", "Volumes of this node whose device is mounted too often", storms),
            ("rds_csi_volumes_abnormal", "Volumes of this node that something is known against", abnormal),
        ] {
            gauge(count).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        Ok(())
    }
}
