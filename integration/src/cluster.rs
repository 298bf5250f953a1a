//! A Kubernetes cluster: etcd, the API server, the controller manager and the attacher as processes on this machine, and the
//! rig's workers as its nodes, each with a real kubelet, containerd and our node agent. Nothing is pulled and nobody is root.

mod access;
pub mod control_plane;
mod node;
pub mod objects;
mod process;
mod sidecars;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{Event, PersistentVolume, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::api::ListParams;
use kube::{Api, Client};
use rds_csi_api::csi;

pub use self::node::Node;
use self::{control_plane::ControlPlane, process::Process};
use crate::certificates;
use crate::driver::{Controller, Settings, Volume};
use crate::rig::{NodeKind, Plan, Rig, World, eventually};

/// How long anything in a cluster may take on a slow machine: kubelet, attacher and controller manager each have pauses of
/// their own between two tries.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// A cluster on a rig, with the driver installed.
pub struct Cluster {
    // Those who call come before those who answer, and end before them.
    attacher: Process,
    controller: Controller,
    control_plane: ControlPlane,
    rig: Rig,
}

impl Cluster {
    /// Boots it with so many nodes, and returns when they are ready.
    pub async fn boot(nodes: u8) -> Result<Self> {
        let began = Instant::now();
        let rig = Rig::boot(Plan { workers: nodes, nodes: NodeKind::Kubernetes, ..Plan::default() }).await?;
        let names: Vec<_> = rig.workers().iter().map(|worker| worker.name().to_owned()).collect();
        let folder = rig.directory().join("cluster");
        let control_plane = ControlPlane::start(&folder, rig.keeper(), &names).await?;
        objects::install(&control_plane.client()).await?;
        let identity = rig.authority().issue(certificates::CONTROLLER)?;
        let controller =
            Controller::start(&rig.controller_directory(), &Settings::of(&rig, &identity)).await?;
        let attacher = sidecars::attacher(&control_plane, rig.keeper(), &controller.socket()).await?;
        let cluster = Self { attacher, controller, control_plane, rig };
        for node in cluster.nodes() {
            if let Err(error) = node.start().await {
                return Err(error.context(World::diagnosis(&cluster).await));
            }
        }
        eprintln!("cluster: its nodes are ready after {:.1} s", began.elapsed().as_secs_f32());
        Ok(cluster)
    }

    /// The rig it is on.
    pub fn rig(&self) -> &Rig {
        &self.rig
    }

    /// The driver's controller.
    pub fn controller(&self) -> &Controller {
        &self.controller
    }

    /// A client of its API server that may do everything.
    pub fn client(&self) -> Client {
        self.control_plane.client()
    }

    /// A node by its name, which is its worker's.
    pub fn node(&self, name: &str) -> Node<'_> {
        Node::new(self.rig.worker(name), &self.control_plane)
    }

    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = Node<'_>> {
        self.rig.workers().iter().map(|worker| Node::new(worker, &self.control_plane))
    }

    /// Makes a volume by the controller, and what stands for it in the cluster, by that name.
    pub async fn provision(
        &self,
        name: &str,
        capability: csi::VolumeCapability,
        size: u64,
    ) -> Result<Volume> {
        let range =
            csi::CapacityRange { required_bytes: i64::try_from(size)?, ..csi::CapacityRange::default() };
        let request = csi::CreateVolumeRequest {
            name: name.into(),
            capacity_range: Some(range),
            volume_capabilities: vec![capability],
            ..csi::CreateVolumeRequest::default()
        };
        let volume = self.controller.create(request).await?;
        self.claim(name, &volume).await?;
        Ok(volume)
    }

    /// Waits until nothing is attached, and deletes what `provision` made.
    pub async fn deprovision(&self, name: &str, volume: &Volume) -> Result<()> {
        let is_of = |attachment: &VolumeAttachment| {
            attachment.spec.source.persistent_volume_name.as_deref() == Some(name)
        };
        let what = format!("{name} is detached");
        let detached = async || Ok(!self.attachments().await?.iter().any(is_of));
        objects::timed(&what, eventually(&what, PATIENCE, detached)).await?;
        self.unclaim(name).await?;
        Ok(self.controller.delete(volume).await?)
    }

    /// All VolumeAttachments.
    pub async fn attachments(&self) -> Result<Vec<VolumeAttachment>> {
        Ok(Api::all(self.client()).list(&ListParams::default()).await?.items)
    }

    /// What the cluster's parts had to say, oldest first.
    async fn events(&self) -> String {
        let mut events = match Api::<Event>::all(self.client()).list(&ListParams::default()).await {
            Ok(events) => events.items,
            Err(error) => return format!("no events: {error}"),
        };
        events.sort_by_key(|event| event.metadata.creation_timestamp.clone());
        let mut told = String::from("events:");
        for event in events {
            let (of, reason, message) = (event.involved_object.name, event.reason, event.message);
            let [of, reason, message] = [of, reason, message].map(Option::unwrap_or_default);
            let _ = write!(told, "\n  {of} {reason}: {message}");
        }
        told
    }

    /// What tests have left in the API server, a sentence for each thing.
    async fn leftovers(&self) -> Result<Vec<String>> {
        let all = ListParams::default();
        let mut left = Vec::new();
        for attachment in self.attachments().await? {
            left.push(format!("VolumeAttachment of {:?}", attachment.spec.source.persistent_volume_name));
        }
        for volume in Api::<PersistentVolume>::all(self.client()).list(&all).await? {
            left.push(format!("PersistentVolume {:?}", volume.metadata.name));
        }
        for pod in Api::<Pod>::all(self.client()).list(&all).await? {
            left.push(format!("Pod {:?}", pod.metadata.name));
        }
        Ok(left)
    }
}

impl World for Cluster {
    /// How many nodes.
    type Plan = u8;

    async fn boot(nodes: u8) -> Result<Self> {
        Self::boot(nodes).await
    }

    async fn diagnosis(&self) -> String {
        let mut told = self.rig.diagnosis().await;
        for node in self.nodes() {
            told.push_str(&node.diagnosis().await);
        }
        for process in self.control_plane.processes().chain([&self.attacher]) {
            let _ = writeln!(told, "--- {}\n{}", process.name(), process.log_tail(20));
        }
        told.push_str(&self.events().await);
        told
    }

    fn directions(&self) -> String {
        let kubeconfig = self.control_plane.kubeconfig();
        format!("{}\nkubectl: KUBECONFIG={}", self.rig.directions(), kubeconfig.display())
    }

    async fn teardown(self) -> Result<()> {
        let left = self.leftovers().await.context("cannot ask the API server what is left")?;
        let mut stopped = Ok(());
        for node in self.nodes() {
            stopped = stopped.and(node.stop().await);
        }
        let Self { attacher, controller, control_plane, rig } = self;
        drop(attacher);
        let stopped = stopped.and(controller.stop().await);
        drop(control_plane);
        let gone = rig.teardown().await;
        ensure!(left.is_empty(), "left behind in the cluster:\n  {}", left.join("\n  "));
        stopped.and(gone)
    }
}
