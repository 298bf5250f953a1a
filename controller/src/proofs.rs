//! Whether fences rest on a proof: what `doctor` proved on one release of RouterOS, another one may do otherwise.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use rds_csi_api::BackendName;
use tokio_util::sync::CancellationToken;

use crate::array::routeros::RouterOs;
use crate::config::{Fencing, Release};

/// An array with a fence, and the release that the configuration says it was proved on.
#[derive(Debug, Clone)]
pub struct Proof {
    /// Its name for people.
    pub title: BackendName,
    /// The array.
    pub array: RouterOs,
    /// Its fence, and where that was proved.
    pub fencing: Fencing,
}

impl Proof {
    /// Whether the array runs what the fence was proved on; nothing while it is not connected.
    fn holds(&self) -> Option<bool> {
        let running = self.array.version()?;
        Some(self.fencing.proved_on().is_some_and(|release| release.as_str() == running))
    }

    /// Tells whenever the array turns out to run another release, until cancelled.
    pub async fn watch(mut self, cancelled: CancellationToken) {
        let mut told = None;
        loop {
            let running = self.array.version();
            if self.holds() == Some(false) && running != told {
                tracing::warn!(
                    array = %self.title,
                    running = running.as_deref(),
                    fence = self.fencing.way().as_str(),
                    proved_on = self.fencing.proved_on().map(Release::as_str),
                    "the fence was not proved on the RouterOS release that the array runs: run rds-csi-controller doctor, \
                     and configure what it proves"
                );
                told = running;
            }
            if cancelled.run_until_cancelled(self.array.comes_or_goes()).await.is_none() {
                return;
            }
        }
    }
}

/// The proofs of all arrays that have a fence, as a gauge.
#[derive(Debug)]
pub struct FenceProved(pub Vec<Proof>);

impl Collector for FenceProved {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let help = "Whether the array runs the RouterOS release that its fence was proved on";
        let mut metric = encoder.encode_descriptor("rds_csi_fence_proved", help, None, MetricType::Gauge)?;
        for proof in &self.0 {
            if let Some(holds) = proof.holds() {
                let gauge = ConstGauge::new(i64::from(holds));
                gauge.encode(metric.encode_family(&[("backend", proof.title.as_str())])?)?;
            }
        }
        Ok(())
    }
}
