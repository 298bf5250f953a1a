//! A node: a worker with containerd, kubelet and the node agent.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1 as core;
use kube::Api;
use serde_json::json;

use super::PATIENCE;
use super::access::node_user;
use super::control_plane::ControlPlane;
use super::objects::timed;
use crate::rig::{Exit, HOST, Target, Worker, eventually, last_lines};

const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";
pub(super) const KUBELET_PORT: u16 = 10250;
const FOLDER: &str = "/etc/kubernetes";

/// The image of all containers; it holds busybox.
pub(super) const IMAGE: &str = "rds-csi.test/busybox:1";

/// The namespace in containerd of what kubelet makes.
const CTR: &str = "/opt/kubernetes/bin/ctr -n k8s.io";

const SIGTERM: i32 = 15;

/// containerd looks for its shim there, kubelet for mount, losetup and mkfs.
const PATH: (&str, &str) = ("PATH", "/opt/kubernetes/bin:/bin");

/// A worker as a node of a cluster.
#[derive(Clone, Copy)]
pub struct Node<'cluster> {
    worker: &'cluster Worker,
    plane: &'cluster ControlPlane,
}

impl<'cluster> Node<'cluster> {
    pub(super) fn new(worker: &'cluster Worker, plane: &'cluster ControlPlane) -> Self {
        Self { worker, plane }
    }

    /// Its name.
    pub fn name(&self) -> &'cluster str {
        self.worker.name()
    }

    /// The worker it is.
    pub fn worker(&self) -> &'cluster Worker {
        self.worker
    }

    /// Starts all that runs on a node, as its boot does, and waits until the API server calls it ready.
    pub async fn start(&self) -> Result<()> {
        self.configure().await?;
        timed("containerd has its image", self.start_containerd()).await?;
        self.start_kubelet().await?;
        self.worker.start_agent(&[]).await?;
        timed(&format!("{} is ready", self.name()), self.ready()).await
    }

    /// Ends it in order; what runs in its pods goes on until its power goes.
    pub(super) async fn stop(&self) -> Result<()> {
        self.stop_kubelet().await?;
        self.worker.stop_agent().await?;
        self.end("containerd").await
    }

    /// A power cut, and all that comes after it.
    pub async fn reboot(&self) -> Result<()> {
        self.worker.kill().await?;
        self.worker.boot().await?;
        self.start().await
    }

    async fn configure(&self) -> Result<()> {
        let guest = self.worker.guest();
        let name = self.name();
        let certificate = self.plane.authority().issue_for(name, &[name, &self.worker.address()])?;
        for (from, to, mode) in [
            (&certificate.authority, "ca.crt", 0o644),
            (&certificate.certificate, "kubelet.crt", 0o644),
            (&certificate.key, "kubelet.key", 0o600),
        ] {
            guest.write(Path::new(FOLDER).join(to), mode, &std::fs::read(from)?).await?;
        }
        let authority = format!("{FOLDER}/ca.crt");
        let kubeconfig = self.plane.access().config(&node_user(name), HOST, Path::new(&authority));
        for (file, content) in [
            ("kubeconfig", kubeconfig.to_string()),
            ("kubelet.json", kubelet_config().to_string()),
            ("containerd.toml", containerd_config()),
        ] {
            guest.write(Path::new(FOLDER).join(file), 0o600, content.as_bytes()).await?;
        }
        guest.write("/etc/cni/net.d/10-pods.conflist", 0o644, network().to_string().as_bytes()).await
    }

    async fn start_containerd(&self) -> Result<()> {
        let guest = self.worker.guest();
        let config = format!("{FOLDER}/containerd.toml");
        guest.start("containerd", ["/opt/kubernetes/bin/containerd", "--config", &config], &[PATH]).await?;
        eventually("containerd serves", PATIENCE, async || {
            self.runs("containerd").await?;
            guest.listens(Target::Unix(CONTAINERD_SOCKET.into())).await
        })
        .await?;
        let import = format!("{CTR} images import --local /opt/kubernetes/images/busybox.tar");
        guest.run_for(PATIENCE, &import).await?.ok().context("the image of all containers").map(drop)
    }

    /// Starts kubelet.
    pub async fn start_kubelet(&self) -> Result<()> {
        let arguments = [
            "/opt/kubernetes/bin/kubelet".to_owned(),
            format!("--config={FOLDER}/kubelet.json"),
            format!("--kubeconfig={FOLDER}/kubeconfig"),
            format!("--hostname-override={}", self.name()),
            format!("--node-ip={}", self.worker.address()),
            "--v=2".to_owned(),
        ];
        self.worker.guest().start("kubelet", arguments, &[PATH]).await
    }

    /// Asks kubelet to end; the pods go on.
    pub async fn stop_kubelet(&self) -> Result<()> {
        self.end("kubelet").await
    }

    async fn end(&self, program: &str) -> Result<()> {
        self.worker.guest().signal(program, SIGTERM).await?;
        let exit = self.worker.guest().wait(program, Duration::from_secs(40)).await?;
        ensure!(matches!(exit, Exit::Code(0)), "{program} on {} ended with {exit:?}", self.name());
        Ok(())
    }

    /// Fails if that program has ended.
    async fn runs(&self, program: &str) -> Result<()> {
        if let Ok(exit) = self.worker.guest().wait(program, Duration::from_millis(50)).await {
            let log = self.worker.guest().log(program).await?;
            bail!("{program} on {} ended with {exit:?}:\n{log}", self.name());
        }
        Ok(())
    }

    /// Waits until the API server calls it ready.
    pub async fn ready(&self) -> Result<()> {
        let nodes: Api<core::Node> = Api::all(self.plane.client());
        eventually(&format!("node {} is ready", self.name()), PATIENCE, async || {
            self.runs("kubelet").await?;
            Ok(is_ready(nodes.get_opt(self.name()).await?))
        })
        .await
    }

    /// Waits until the API server has not heard of it for so long that it calls it not ready.
    pub async fn is_not_ready(&self) -> Result<()> {
        let nodes: Api<core::Node> = Api::all(self.plane.client());
        let what = format!("{} is not ready", self.name());
        let lost = async || Ok(!is_ready(nodes.get_opt(self.name()).await?));
        timed(&what, eventually(&what, PATIENCE, lost)).await
    }

    /// Declares it out of service, as whoever operates a cluster does who knows that it is down.
    pub async fn out_of_service(&self) -> Result<()> {
        let taint = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute";
        self.plane.kubectl(&["taint", "node", self.name(), taint]).await.map(drop)
    }

    /// Takes that back.
    pub async fn in_service(&self) -> Result<()> {
        let taint = "node.kubernetes.io/out-of-service-";
        self.plane.kubectl(&["taint", "node", self.name(), taint]).await.map(drop)
    }

    /// Runs a shell command in the only container of a pod here.
    pub async fn exec(&self, pod: &str, script: &str) -> Result<String> {
        let pods: Api<core::Pod> = Api::default_namespaced(self.plane.client());
        let statuses = pods.get(pod).await?.status.and_then(|status| status.container_statuses);
        let id = statuses.and_then(|statuses| statuses.into_iter().next()?.container_id);
        let id = id.with_context(|| format!("pod {pod} has no container"))?;
        let id = id.trim_start_matches("containerd://");
        let script = script.replace('\'', "'\\''");
        let exec = format!("{CTR} tasks exec --exec-id x$$ {id} sh -c '{script}'");
        self.worker.sh(&exec).await.with_context(|| format!("in pod {pod}"))
    }

    /// What is left here of volumes that CSI brought: mounts, connections, device nodes, loop devices, records.
    pub async fn volumes_left(&self) -> Result<Vec<String>> {
        let mut left = Vec::new();
        for mount in self.worker.mounts().await? {
            if mount.target.contains("kubernetes.io~csi") || mount.target.contains("kubernetes.io/csi") {
                left.push(format!("mount of {} at {}", mount.source, mount.target));
            }
        }
        for connection in self.worker.nvme_connections().await? {
            left.push(format!("connection {connection:?}"));
        }
        for (what, script) in [
            ("device node", "find /var/lib/kubelet /run -xdev -type b"),
            ("loop device", "losetup --noheadings --output NAME,BACK-FILE"),
            ("record", "find /var/lib/rds-csi -type f"),
        ] {
            let found = self.worker.sh(script).await?;
            left.extend(found.lines().map(|line| format!("{what} {line}")));
        }
        Ok(left)
    }

    pub(super) async fn diagnosis(&self) -> String {
        let mut told = String::new();
        for (program, lines) in [("containerd", 25), ("kubelet", 60)] {
            let log = self.worker.guest().log(program).await.unwrap_or_else(|error| format!("({error:#})"));
            let _ = writeln!(told, "--- {}: {program}\n{}", self.name(), last_lines(&log, lines));
        }
        told
    }
}

fn is_ready(node: Option<core::Node>) -> bool {
    let conditions = node.and_then(|node| node.status?.conditions).unwrap_or_default();
    conditions.iter().any(|is| is.type_ == "Ready" && is.status == "True")
}

fn kubelet_config() -> serde_json::Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "port": KUBELET_PORT,
        "tlsCertFile": format!("{FOLDER}/kubelet.crt"),
        "tlsPrivateKeyFile": format!("{FOLDER}/kubelet.key"),
        "authentication": { "anonymous": { "enabled": true }, "webhook": { "enabled": false } },
        "authorization": { "mode": "AlwaysAllow" },
        "containerRuntimeEndpoint": format!("unix://{CONTAINERD_SOCKET}"),
        "cgroupDriver": "cgroupfs",
        "enforceNodeAllocatable": [],
        "failSwapOn": false,
        "resolvConf": "",
        "makeIPTablesUtilChains": false,
        // A node's status tells which volumes are in use; a detach waits for it.
        "nodeStatusUpdateFrequency": "2s",
        // Renewed at a quarter of it: a node that is gone is known to be sooner than after 40 s.
        "nodeLeaseDurationSeconds": 8,
        "evictionHard": { "memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%" },
        "imageGCHighThresholdPercent": 100,
    })
}

fn containerd_config() -> String {
    format!(
        r#"version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "{CONTAINERD_SOCKET}"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{IMAGE}"
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["/opt/kubernetes/cni"]
  conf_dir = "/etc/cni/net.d"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  BinaryName = "/opt/kubernetes/bin/runc"
"#
    )
}

/// A bridge on the node; nothing leads out of it, and no pod here wants to go there.
fn network() -> serde_json::Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [{
            "type": "bridge",
            "bridge": "pods0",
            "ipam": { "type": "host-local", "ranges": [[{ "subnet": "10.244.0.0/24" }]] },
        }],
    })
}
