//! One test's array, nodes and controllers, and what the attacher, the provisioner and people do around them.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{Event, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{ListParams, Patch, PatchParams};
use rds_csi_api::{DRIVER_NAME, csi};
use rds_csi_integration::driver::{Controller, Settings, Volume};
use rds_csi_integration::rig::eventually;
use rds_csi_integration::simulator::{Options, Simulator, keys};
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::plane::{NAMESPACE, PATIENCE, Plane, make, remove};
use crate::proxy::Proxy;

const GIB: i64 = 1 << 30;

/// The annotation that the record is in.
const RECORD: &str = "rds.csi.srvlab.io/attachments";

pub(crate) struct Site<'plane> {
    pub(crate) plane: &'plane Plane,
    pub(crate) simulator: Simulator,
    agents: BTreeMap<String, Agent>,
    agents_port: u16,
    key: PathBuf,
    known_hosts: PathBuf,
    folder: PathBuf,
}

/// A controller, with its own way to the API server.
pub(crate) struct Replica {
    pub(crate) controller: Controller,
    pub(crate) proxy: Proxy,
}

/// A volume, with the names of what stands for it.
#[derive(Debug, Clone)]
pub(crate) struct Claimed {
    pub(crate) volume: Volume,
    /// Of the PersistentVolume.
    pub(crate) persistent: String,
    /// Of the PersistentVolumeClaim.
    pub(crate) claim: String,
}

impl<'plane> Site<'plane> {
    /// With nodes of these names, which are ready and have agents.
    pub(crate) async fn start(plane: &'plane Plane, nodes: &[&str]) -> Result<Self> {
        plane.clear().await?;
        let folder = plane.folder()?;
        let (key, known_hosts) = (folder.join("key"), folder.join("known_hosts"));
        let public = keys::load_or_create(&key)?.public_key().to_openssh()?;
        let simulator = Simulator::start(Options::in_memory(&public)?).await?;
        std::fs::write(&known_hosts, simulator.known_hosts())?;
        let agents_port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let agents = BTreeMap::new();
        let mut site = Self { plane, simulator, agents, agents_port, key, known_hosts, folder };
        for (number, node) in nodes.iter().enumerate() {
            site.add_node(node, number + 1).await?;
        }
        Ok(site)
    }

    /// All agents listen at one port, each at its pod's address, as in a cluster.
    async fn add_node(&mut self, name: &str, number: usize) -> Result<()> {
        make(&self.plane.all::<Node>(), json!({ "metadata": { "name": name } })).await?;
        self.node_status(name, json!({ "conditions": [ready("True")] })).await?;
        let address = format!("127.0.9.{number}");
        let agent = Agent::start(&self.plane.agent, &format!("{address}:{}", self.agents_port));
        self.agents.insert(name.into(), agent);
        let pod = json!({
            "metadata": { "name": format!("agent-{name}"), "labels": { "app": "rds-csi-node-agent" } },
            "spec": { "nodeName": name, "containers": [{ "name": "agent", "image": "none" }] },
        });
        let pods = kube::Api::<Pod>::namespaced(self.plane.client(), NAMESPACE);
        make(&pods, pod).await?;
        let status =
            json!({ "status": { "podIP": address, "podIPs": [{ "ip": address }], "phase": "Running" } });
        pods.patch_status(&format!("agent-{name}"), &PatchParams::default(), &Patch::Merge(&status)).await?;
        Ok(())
    }

    pub(crate) fn agent(&self, node: &str) -> &Agent {
        &self.agents[node]
    }

    /// From now on the node's agent does not answer.
    pub(crate) fn silence(&mut self, node: &str) {
        self.agents.remove(node);
    }

    /// From now on it does again, and knows nothing of what was before.
    pub(crate) fn answers(&mut self, name: &str, number: usize) {
        let agent = Agent::start(&self.plane.agent, &format!("127.0.9.{number}:{}", self.agents_port));
        self.agents.insert(name.into(), agent);
    }

    /// Changes a node's status.
    pub(crate) async fn node_status(&self, name: &str, status: Value) -> Result<()> {
        let status = json!({ "status": status });
        let nodes = self.plane.all::<Node>();
        nodes.patch_status(name, &PatchParams::default(), &Patch::Strategic(&status)).await?;
        Ok(())
    }

    /// The node's kubelet says which volumes are in use.
    pub(crate) async fn node_uses(&self, name: &str, volumes: &[&str]) -> Result<()> {
        let used: Vec<_> = volumes.iter().map(|id| format!("kubernetes.io/csi/{DRIVER_NAME}^{id}")).collect();
        self.node_status(name, json!({ "volumesInUse": used })).await
    }

    /// A controller that serves.
    pub(crate) async fn replica(&self, name: &str) -> Result<Replica> {
        self.replica_with(name, &[]).await
    }

    pub(crate) async fn replica_with(&self, name: &str, flags: &[&str]) -> Result<Replica> {
        let proxy = Proxy::before(self.plane.address()?).await?;
        let folder = self.folder.join(name);
        std::fs::create_dir_all(&folder)?;
        let kubeconfig = folder.join("kubeconfig");
        self.plane.kubeconfig(&kubeconfig, proxy.address)?;
        let mut own = vec![
            format!("--kubernetes={}", kubeconfig.display()),
            format!("--pod-namespace={NAMESPACE}"),
            format!("--pod-name={name}"),
            "--node-agent-pods=app=rds-csi-node-agent".into(),
            format!("--node-agent-port={}", self.agents_port),
            "--reconcile-interval=1s".into(),
        ];
        own.extend(flags.iter().map(ToString::to_string));
        let settings = Settings {
            array: self.simulator.address(),
            key: self.key.clone(),
            known_hosts: self.known_hosts.clone(),
            portal: "10.77.0.1".into(),
            fence: "acl",
            agents: vec![],
            identity: Some(self.plane.controller.clone()),
            otlp_endpoint: None,
            cluster: "rig",
            config: None,
            flags: own,
        };
        let controller = Controller::start(&folder, &settings).await?;
        let replica = Replica { controller, proxy };
        eventually("it is ready", PATIENCE, async || Ok(replica.admin("/readyz").await?.0 == 200)).await?;
        Ok(replica)
    }

    /// A volume with its PersistentVolume and its claim, as the provisioner makes them.
    pub(crate) async fn volume(
        &self,
        replica: &Replica,
        name: &str,
        capability: csi::VolumeCapability,
    ) -> Result<Claimed> {
        self.volume_with(replica, name, capability, HashMap::new()).await
    }

    pub(crate) async fn volume_with(
        &self,
        replica: &Replica,
        name: &str,
        capability: csi::VolumeCapability,
        parameters: HashMap<String, String>,
    ) -> Result<Claimed> {
        let request = csi::CreateVolumeRequest {
            name: name.into(),
            capacity_range: Some(csi::CapacityRange { required_bytes: GIB, limit_bytes: 0 }),
            volume_capabilities: vec![capability],
            parameters,
            ..csi::CreateVolumeRequest::default()
        };
        let volume = replica.controller.create(request).await?;
        self.claim(name, volume).await
    }

    /// What stands for a volume. The PersistentVolume's name is not the volume's.
    pub(crate) async fn claim(&self, name: &str, volume: Volume) -> Result<Claimed> {
        let is_block =
            matches!(volume.capability.access_type, Some(csi::volume_capability::AccessType::Block(_)));
        let (mode, access) =
            if is_block { ("Block", "ReadWriteMany") } else { ("Filesystem", "ReadWriteOnce") };
        let (persistent, claim) = (format!("static-{name}"), format!("claim-{name}"));
        let wanted = json!({
            "metadata": { "name": claim },
            "spec": {
                "accessModes": [access], "volumeMode": mode, "storageClassName": "", "volumeName": persistent,
                "resources": { "requests": { "storage": volume.size.to_string() } },
            },
        });
        let bound = make(&self.plane.here::<PersistentVolumeClaim>(), wanted).await?;
        let object = json!({
            "metadata": { "name": persistent },
            "spec": {
                "capacity": { "storage": volume.size.to_string() },
                "accessModes": [access],
                "volumeMode": mode,
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": "",
                "claimRef": {
                    "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": "default", "name": claim,
                    "uid": bound.metadata.uid,
                },
                "csi": {
                    "driver": DRIVER_NAME, "volumeHandle": volume.id, "volumeAttributes": volume.context,
                },
            },
        });
        make(&self.plane.all::<PersistentVolume>(), object).await?;
        Ok(Claimed { volume, persistent, claim })
    }

    /// The volume's record, as it is written.
    pub(crate) async fn record(&self, volume: &Claimed) -> Result<Option<String>> {
        self.annotation(volume, RECORD).await
    }

    pub(crate) async fn annotation(&self, volume: &Claimed, key: &str) -> Result<Option<String>> {
        let object = self.plane.all::<PersistentVolume>().get(&volume.persistent).await?;
        Ok(object.metadata.annotations.unwrap_or_default().remove(key))
    }

    /// Somebody writes another record.
    pub(crate) async fn write_record(&self, volume: &Claimed, record: Option<&str>) -> Result<()> {
        self.annotate(volume, RECORD, record).await
    }

    pub(crate) async fn annotate(&self, volume: &Claimed, key: &str, value: Option<&str>) -> Result<()> {
        let patch = json!({ "metadata": { "annotations": { key: value } } });
        let volumes = self.plane.all::<PersistentVolume>();
        volumes.patch(&volume.persistent, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(())
    }

    /// Reasons and messages of the events on a claim.
    pub(crate) async fn events(&self, volume: &Claimed) -> Result<Vec<(String, String)>> {
        let all = self.plane.here::<Event>().list(&ListParams::default()).await?;
        let here = all.items.into_iter().filter(|event| {
            let of = &event.involved_object;
            of.kind.as_deref() == Some("PersistentVolumeClaim") && of.name.as_ref() == Some(&volume.claim)
        });
        Ok(here.map(|event| (event.reason.unwrap_or_default(), event.message.unwrap_or_default())).collect())
    }

    /// Waits for an event on the claim whose message says this.
    pub(crate) async fn is_told(&self, volume: &Claimed, reason: &str, says: &str) -> Result<()> {
        let told = async || {
            let events = self.events(volume).await?;
            Ok(events.iter().any(|(is, message)| is == reason && message.contains(says)))
        };
        let waited = eventually(&format!("{reason} {says:?}"), PATIENCE, told).await;
        let events = self.events(volume).await?;
        waited.with_context(|| format!("there is {events:?}"))
    }

    /// Whom the array lets in.
    pub(crate) fn admitted(&self, volume: &Claimed) -> Result<Vec<String>> {
        let state = self.simulator.state()?;
        let disk = state.disks.iter().find(|disk| disk.slot == volume.volume.id).context("a disk")?;
        let hosts = disk.nvme_tcp_server_allow_host_name.split(',').filter(|host| !host.is_empty());
        Ok(if disk.nvme_tcp_export { hosts.map(ToOwned::to_owned).collect() } else { vec![] })
    }

    /// Deletes what stands for a volume, and the volume.
    pub(crate) async fn forget(&self, replica: &Replica, volume: Claimed) -> Result<()> {
        self.unclaim(&volume).await?;
        Ok(replica.controller.delete(&volume.volume).await?)
    }

    pub(crate) async fn unclaim(&self, volume: &Claimed) -> Result<()> {
        remove(&self.plane.here::<PersistentVolumeClaim>(), &volume.claim).await?;
        remove(&self.plane.all::<PersistentVolume>(), &volume.persistent).await
    }

    /// Ends everything that this test began.
    pub(crate) async fn end(self, replicas: impl IntoIterator<Item = Replica>) -> Result<()> {
        for Replica { controller, proxy } in replicas {
            controller.stop().await?;
            drop(proxy);
        }
        self.end_with_leftovers().await
    }

    pub(crate) async fn end_with_leftovers(self) -> Result<()> {
        let claims = self.plane.here::<PersistentVolumeClaim>().list(&ListParams::default()).await?;
        ensure!(claims.items.is_empty(), "claims are left");
        self.plane.clear().await?;
        let state = self.simulator.state()?;
        ensure!(state.disks.is_empty(), "left on the array: {:#?}", state.disks);
        Ok(self.simulator.stop().await?)
    }
}

/// A node's condition.
pub(crate) fn ready(status: &str) -> Value {
    let now = k8s_openapi::jiff::Timestamp::now().to_string();
    json!({ "type": "Ready", "status": status, "reason": "Test", "lastHeartbeatTime": now })
}

impl Replica {
    /// What the admin server answers; where it listens stands in the log.
    pub(crate) async fn admin(&self, path: &str) -> Result<(u16, String)> {
        let log = self.controller.log();
        let told = log.rsplit_once("admin=").context("it says where it listens")?.1;
        let address = told.split_whitespace().next().context("an address")?;
        let response = reqwest::get(format!("http://{address}{path}")).await?;
        Ok((response.status().as_u16(), response.text().await?))
    }

    /// A metric's value, by its name with labels.
    pub(crate) async fn metric(&self, name: &str) -> Result<Option<f64>> {
        let text = self.admin("/metrics").await?.1;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.map(str::parse).transpose()?)
    }

    /// Ends at once, as if its machine had lost its power.
    pub(crate) fn kill(self) {
        drop(self);
    }
}
