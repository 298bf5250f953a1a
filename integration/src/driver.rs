//! The whole driver on a rig: the controller's binary on this machine, a node agent on every worker, and volumes as a
//! cluster handles them.
//!
//! The calls come in the order, and with the paths, that Kubernetes would use; what each answers is for the test to judge.

mod controller;
mod volume;
mod writer;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rds_csi_api::csi;
use rds_csi_api::csi::node_client::NodeClient;
use rds_csi_api::csi::volume_content_source as content_source;
use rds_csi_api::node_agent::node_agent_client::NodeAgentClient;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity as TlsIdentity};
use tonic::{Code, Status};

pub use self::controller::{Controller, Settings};
pub use self::volume::{Pod, Volume, block, filesystem, shared_block};
pub use self::writer::Writer;
use crate::certificates::{self, Identity};
use crate::collector::Collector;
use crate::rig::{HOST, Rig, Worker};

/// The pause of a sidecar between two attempts.
const RETRY: Duration = Duration::from_millis(500);

/// How long an array may be away.
const ARRAY_BACK: Duration = Duration::from_mins(2);

/// Everything that runs when the driver is installed.
#[derive(Debug)]
pub struct Driver<'rig> {
    rig: &'rig Rig,
    controller: Controller,
    collector: Collector,
    identity: Identity,
}

impl<'rig> Driver<'rig> {
    /// Runs a test with the driver, and stops it.
    pub async fn on(rig: &'rig Rig, test: impl AsyncFnOnce(&Self) -> Result<()>) -> Result<()> {
        Self::fenced_by(rig, "acl", test).await
    }

    /// The same with that fence.
    pub async fn fenced_by(
        rig: &'rig Rig,
        fence: &'static str,
        test: impl AsyncFnOnce(&Self) -> Result<()>,
    ) -> Result<()> {
        let driver = Self::start_as(rig, fence, &[]).await?;
        let tested = test(&driver).await;
        let stopped = driver.stop().await;
        tested.and(stopped)
    }

    /// Starts the controller and the agents, with an OTLP endpoint that all of them export to.
    ///
    /// A test that failed may have left its agents running, a cable pulled or a node frozen: that ends here, and does
    /// not fail the tests after it.
    pub async fn start(rig: &'rig Rig) -> Result<Self> {
        Self::start_with(rig, &[]).await
    }

    /// As [`Self::start`], with arguments for the controller and for the agents beside those that they have here.
    pub async fn start_with(rig: &'rig Rig, more: &[&str]) -> Result<Self> {
        Self::start_as(rig, "acl", more).await
    }

    async fn start_as(rig: &'rig Rig, fence: &'static str, more: &[&str]) -> Result<Self> {
        let collector = Collector::start().await?;
        let endpoint = format!("http://{HOST}:{}", collector.port());
        for worker in rig.workers() {
            worker.recover().await?;
            worker.start_agent(&[&["--otlp-endpoint", &endpoint], more].concat()).await?;
        }
        let identity = rig.authority().issue(certificates::CONTROLLER)?;
        let controller = Controller::start(
            &rig.controller_directory(),
            &Settings {
                fence,
                otlp_endpoint: Some(format!("http://127.0.0.1:{}", collector.port())),
                flags: more.iter().map(ToString::to_string).collect(),
                ..Settings::of(rig, &identity)
            },
        )
        .await?;
        Ok(Self { rig, controller, collector, identity })
    }

    /// Stops all that was started, and tells the first thing that did not end well. The volumes stay.
    pub async fn stop(self) -> Result<()> {
        let mut stopped = self.controller.stop().await;
        for worker in self.rig.workers() {
            stopped = stopped.and(worker.stop_agent().await);
        }
        stopped
    }

    /// The rig it runs on.
    pub fn rig(&self) -> &'rig Rig {
        self.rig
    }

    /// The controller's process.
    pub fn controller(&self) -> &Controller {
        &self.controller
    }

    /// Where all programs send their spans.
    pub fn collector(&self) -> &Collector {
        &self.collector
    }

    /// The controller's certificate.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Creates a volume, as the provisioner does for a claim.
    pub async fn create(
        &self,
        name: &str,
        capability: csi::VolumeCapability,
        size: u64,
    ) -> Result<Volume, Status> {
        self.create_from(name, None, capability, size).await
    }

    async fn create_from(
        &self,
        name: &str,
        source: Option<content_source::Type>,
        capability: csi::VolumeCapability,
        size: u64,
    ) -> Result<Volume, Status> {
        let request = csi::CreateVolumeRequest {
            name: name.into(),
            capacity_range: Some(at_least(size)),
            volume_capabilities: vec![capability],
            volume_content_source: source.map(|source| csi::VolumeContentSource { r#type: Some(source) }),
            ..csi::CreateVolumeRequest::default()
        };
        self.controller.create(request).await
    }

    /// Creates a volume with the content of another or of a snapshot, used as `like`.
    pub async fn copy(
        &self,
        name: &str,
        source: content_source::Type,
        like: &Volume,
        size: u64,
    ) -> Result<Volume, Status> {
        self.create_from(name, Some(source), like.capability.clone(), size).await
    }

    /// Takes a snapshot, as the snapshotter does, and returns its id.
    pub async fn snapshot(&self, name: &str, volume: &Volume) -> Result<String, Status> {
        let request = csi::CreateSnapshotRequest {
            source_volume_id: volume.id.clone(),
            name: name.into(),
            ..Default::default()
        };
        let taken = self.controller.csi().create_snapshot(request).await?.into_inner().snapshot;
        let taken = taken.ok_or_else(|| Status::internal("CreateSnapshot answered without a snapshot"))?;
        Ok(taken.snapshot_id)
    }

    /// Deletes a snapshot.
    pub async fn delete_snapshot(&self, id: &str) -> Result<(), Status> {
        let request = csi::DeleteSnapshotRequest { snapshot_id: id.into(), ..Default::default() };
        self.controller.csi().delete_snapshot(request).await.map(drop)
    }

    /// ControllerExpandVolume, as the resizer calls it; returns the size that the array answers.
    pub async fn expand(&self, volume: &Volume, size: u64) -> Result<u64, Status> {
        let request = csi::ControllerExpandVolumeRequest {
            volume_id: volume.id.clone(),
            capacity_range: Some(at_least(size)),
            volume_capability: Some(volume.capability.clone()),
            ..Default::default()
        };
        let grown = self.controller.csi().controller_expand_volume(request).await?.into_inner();
        Ok(u64::try_from(grown.capacity_bytes).unwrap_or_default())
    }

    /// Deletes a volume.
    pub async fn delete(&self, volume: &Volume) -> Result<(), Status> {
        self.controller.delete(volume).await
    }

    /// ControllerPublishVolume, as the attacher calls it.
    pub async fn publish(&self, volume: &Volume, node: &str) -> Result<HashMap<String, String>, Status> {
        let request = csi::ControllerPublishVolumeRequest {
            volume_id: volume.id.clone(),
            node_id: node.into(),
            volume_capability: Some(volume.capability.clone()),
            volume_context: volume.context.clone(),
            ..Default::default()
        };
        Ok(self.controller.csi().controller_publish_volume(request).await?.into_inner().publish_context)
    }

    /// ControllerUnpublishVolume until it is no longer UNAVAILABLE, as the attacher does while the array is away; two
    /// minutes at most.
    pub async fn unpublish_once_available(&self, volume: &Volume, node: &str) -> Result<(), Status> {
        let deadline = Instant::now() + ARRAY_BACK;
        loop {
            match self.unpublish(volume, node).await {
                Err(status) if status.code() == Code::Unavailable && Instant::now() < deadline => {
                    tokio::time::sleep(RETRY).await;
                }
                answer => return answer,
            }
        }
    }

    /// ControllerUnpublishVolume, as the attacher calls it.
    pub async fn unpublish(&self, volume: &Volume, node: &str) -> Result<(), Status> {
        let request = csi::ControllerUnpublishVolumeRequest {
            volume_id: volume.id.clone(),
            node_id: node.into(),
            ..Default::default()
        };
        self.controller.csi().controller_unpublish_volume(request).await.map(drop)
    }

    /// Attaches a volume to a worker and gives it to a pod there: publish, stage, publish.
    pub async fn attach(&self, volume: &Volume, worker: &'rig Worker) -> Result<Pod<'rig>, Status> {
        let context = self.publish(volume, worker.name()).await?;
        let pod = Pod::new(worker, volume.clone(), context, "pod-1");
        pod.stage().await?;
        pod.publish().await?;
        Ok(pod)
    }

    /// Takes a volume from its pod and detaches it: unpublish, unstage, unpublish.
    pub async fn detach(&self, pod: Pod<'rig>) -> Result<(), Status> {
        pod.unpublish().await?;
        pod.unstage().await?;
        self.unpublish(&pod.volume, pod.worker.name()).await
    }

    /// A client of a worker's CSI socket, as kubelet is one.
    pub fn node(&self, worker: &Worker) -> NodeClient<Channel> {
        volume::node_client(worker)
    }

    /// A client of a worker's internal API that goes by this certificate.
    pub fn node_agent(&self, worker: &Worker, identity: &Identity) -> Result<NodeAgentClient<Channel>> {
        let read = |path| std::fs::read(path).context("cannot read a certificate");
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(read(&identity.authority)?))
            .identity(TlsIdentity::from_pem(read(&identity.certificate)?, read(&identity.key)?))
            .domain_name(certificates::agent_of(worker.name()));
        let endpoint = Endpoint::from_shared(format!("https://{}", worker.api_address()))?.tls_config(tls)?;
        Ok(NodeAgentClient::new(endpoint.connect_lazy()))
    }
}

/// The content of a volume.
pub fn volume_source(volume: &Volume) -> content_source::Type {
    content_source::Type::Volume(content_source::VolumeSource { volume_id: volume.id.clone() })
}

/// The content of a snapshot.
pub fn snapshot_source(id: &str) -> content_source::Type {
    content_source::Type::Snapshot(content_source::SnapshotSource { snapshot_id: id.into() })
}

fn at_least(size: u64) -> csi::CapacityRange {
    csi::CapacityRange { required_bytes: i64::try_from(size).unwrap_or(i64::MAX), limit_bytes: 0 }
}
