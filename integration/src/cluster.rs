//! A Kubernetes cluster: etcd, the API server, the controller manager, the scheduler and the sidecars as processes on this
//! machine, and the rig's workers as its nodes, each with a real kubelet, containerd and our node agent. Nothing is pulled and
//! nobody is root.

mod access;
pub mod control_plane;
mod node;
pub mod objects;
mod process;
mod replica;
mod rights;
mod sidecars;
mod tunnel;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{Event, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::sync::MappedMutexGuard;

pub use self::node::Node;
use self::{control_plane::ControlPlane, process::Process, replica::Replica};
use crate::certificates;
use crate::driver::{Controller, Settings};
use crate::programs;
use crate::rig::{NodeKind, Plan, Rig, World};

/// How long anything in a cluster may take on a slow machine: kubelet, attacher and controller manager each have pauses of
/// their own between two tries.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// How many replicas the controller has.
const REPLICAS: usize = 2;

/// A cluster on a rig, with the driver installed.
pub struct Cluster {
    // Those who call come before those who answer, and end before them.
    snapshot_controller: Process,
    replicas: Vec<Replica>,
    control_plane: ControlPlane,
    rig: Rig,
}

impl Cluster {
    /// Boots it with so many nodes, and returns when they are ready.
    pub async fn boot(nodes: u8) -> Result<Self> {
        let began = Instant::now();
        let rig = Rig::boot(Plan { workers: nodes, nodes: NodeKind::Kubernetes, ..Plan::default() }).await?;
        let control_plane =
            ControlPlane::start(&rig.directory().join("cluster"), rig.keeper(), rig.workers()).await?;
        objects::install(&control_plane).await?;
        let identity = rig.authority().issue(certificates::CONTROLLER)?;
        let kubeconfig = control_plane.access().kubeconfig(&access::service_account(rights::CONTROLLER))?;
        let mut settings = Settings::of(&rig, &identity);
        settings.flags = vec!["--kubernetes".into(), kubeconfig.display().to_string()];
        let mut replicas = Vec::new();
        for number in 0..REPLICAS {
            replicas.push(Replica::start(number, &control_plane, rig.keeper(), settings.clone()).await?);
        }
        let snapshot_controller = sidecars::snapshot_controller(&control_plane, rig.keeper()).await?;
        let cluster = Self { snapshot_controller, replicas, control_plane, rig };
        let started = futures_util::future::try_join_all(
            cluster.nodes().map(async |node| node.start().await).collect::<Vec<_>>(),
        );
        if let Err(error) = started.await {
            return Err(error.context(World::diagnosis(&cluster).await));
        }
        eprintln!("cluster: its nodes are ready after {:.1} s", began.elapsed().as_secs_f32());
        Ok(cluster)
    }

    /// The rig it is on.
    pub fn rig(&self) -> &Rig {
        &self.rig
    }

    /// The driver's controller, as its first replica.
    pub async fn controller(&self) -> Result<MappedMutexGuard<'_, Controller>> {
        self.replicas[0].controller().await
    }

    /// Does something while controllers are killed at random moments and started again.
    pub async fn while_controllers_die<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        replica::while_they_die(&self.replicas, work).await
    }

    /// The kubeconfig of one who may do everything.
    pub fn kubeconfig(&self) -> PathBuf {
        self.control_plane.kubeconfig()
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
        for claim in Api::<PersistentVolumeClaim>::all(self.client()).list(&all).await? {
            left.push(format!("PersistentVolumeClaim {:?}", claim.metadata.name));
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
        let beside = self.replicas.iter().flat_map(Replica::processes).chain([&self.snapshot_controller]);
        for process in self.control_plane.processes().chain(beside) {
            let _ = writeln!(told, "--- {}\n{}", process.name(), process.log_tail(20));
        }
        for replica in &self.replicas {
            let _ = writeln!(told, "{}", replica.log_tail(200));
        }
        told.push_str(&self.events().await);
        told
    }

    fn directions(&self) -> String {
        let kubectl = programs::kubernetes().map(|folder| folder.display().to_string()).unwrap_or_default();
        let kubeconfig = self.kubeconfig();
        format!(
            "{}\nin another shell:\n  export KUBECONFIG={}\n  export PATH={kubectl}:$PATH\n  kubectl get nodes,storageclasses",
            self.rig.directions(),
            kubeconfig.display()
        )
    }

    async fn teardown(self) -> Result<()> {
        let left = self.leftovers().await.context("cannot ask the API server what is left")?;
        let mut stopped = Ok(());
        for node in self.nodes() {
            stopped = stopped.and(node.stop().await);
        }
        let Self { snapshot_controller, replicas, control_plane, rig } = self;
        drop(snapshot_controller);
        for replica in replicas {
            stopped = stopped.and(replica.stop().await);
        }
        drop(control_plane);
        let gone = rig.teardown().await;
        ensure!(left.is_empty(), "left behind in the cluster:\n  {}", left.join("\n  "));
        stopped.and(gone)
    }
}
