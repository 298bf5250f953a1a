//! The control plane that all tests share, and the rights that the controller has in it: those of the manual, and no other.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod, ServiceAccount};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::discovery::ApiResource;
use kube::core::{GroupVersionKind, NamespaceResourceScope};
use kube::{Api, Client, Resource};
use rds_csi_integration::certificates::{Authority, CONTROLLER, Identity};
use rds_csi_integration::cluster::control_plane::ControlPlane;
use rds_csi_integration::rig::{World, eventually};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// What the manual tells people to install.
const MANUAL: &str = include_str!("../../../docs/kubernetes.md");

/// Where it puts the driver.
pub(crate) const NAMESPACE: &str = "rds-csi";

/// How long anything may take here, on a machine that does ten things at once.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A kubelet that is silent for 40 s is taken for dead.
const HEARTBEAT: Duration = Duration::from_secs(5);

pub(crate) struct Plane {
    control: ControlPlane,
    token: String,
    /// Who the agents and the controller are to each other.
    pub(crate) agent: Identity,
    pub(crate) controller: Identity,
    heartbeat: JoinHandle<()>,
    folder: TempDir,
}

impl Plane {
    pub(crate) fn client(&self) -> Client {
        self.control.client()
    }

    pub(crate) fn all<K: Resource<DynamicType = ()>>(&self) -> Api<K> {
        Api::all(self.client())
    }

    /// Objects of the namespace that the tests' claims and pods are in.
    pub(crate) fn here<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self) -> Api<K> {
        Api::namespaced(self.client(), "default")
    }

    /// Where the API server listens.
    pub(crate) fn address(&self) -> Result<SocketAddr> {
        let config = self.admin()?;
        let server = config["clusters"][0]["cluster"]["server"].as_str().context("a server")?;
        Ok(server.trim_start_matches("https://").parse()?)
    }

    /// A kubeconfig with the controller's rights that leads to that address.
    pub(crate) fn kubeconfig(&self, path: &Path, server: SocketAddr) -> Result<()> {
        let mut config = self.admin()?;
        config["clusters"][0]["cluster"]["server"] = json!(format!("https://{server}"));
        config["users"][0]["user"] = json!({ "token": self.token });
        Ok(std::fs::write(path, config.to_string())?)
    }

    fn admin(&self) -> Result<Value> {
        Ok(serde_json::from_slice(&std::fs::read(self.control.kubeconfig())?)?)
    }

    /// A folder for one test. It is there until the end, so that logs can be read after a failure.
    pub(crate) fn folder(&self) -> Result<PathBuf> {
        Ok(tempfile::Builder::new().prefix("site-").disable_cleanup(true).tempdir_in(&self.folder)?.keep())
    }

    /// Removes what a test that failed has left.
    pub(crate) async fn clear(&self) -> Result<()> {
        clear(&self.all::<VolumeAttachment>()).await?;
        clear(&self.here::<PersistentVolumeClaim>()).await?;
        clear(&self.all::<PersistentVolume>()).await?;
        clear(&self.here::<Pod>()).await?;
        clear(&Api::<Pod>::namespaced(self.client(), NAMESPACE)).await?;
        clear(&self.all::<Node>()).await
    }
}

impl World for Plane {
    type Plan = ();

    async fn boot((): ()) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let control = ControlPlane::alone(&folder.path().join("control-plane")).await?;
        let client = control.client();
        install(&client).await?;
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), NAMESPACE);
        let request = TokenRequest::default();
        let answer =
            accounts.create_token_request("rds-csi-controller", &PostParams::default(), &request).await?;
        let token = answer.status.and_then(|status| status.token).context("a token")?;
        let authority = Authority::new(&folder.path().join("certificates"))?;
        let (agent, controller) =
            (authority.issue_for_agents(&["w1", "w2", "w3"])?, authority.issue(CONTROLLER)?);
        let heartbeat = tokio::spawn(heartbeats(client));
        Ok(Self { control, token, agent, controller, heartbeat, folder })
    }

    async fn diagnosis(&self) -> String {
        let mut logs: Vec<_> = controllers(self.folder.path()).collect();
        logs.sort();
        let newest = logs.iter().rev().take(3).rev().map(|(_, path)| {
            let log = std::fs::read_to_string(path).unwrap_or_default();
            let lines: Vec<_> = log.lines().rev().take(25).collect();
            let lines: Vec<_> = lines.into_iter().rev().collect();
            format!("--- {}\n{}\n", path.display(), lines.join("\n"))
        });
        newest.collect::<String>() + &self.control.diagnosis()
    }

    fn directions(&self) -> String {
        format!("kubectl: KUBECONFIG={}", self.control.kubeconfig().display())
    }

    async fn teardown(self) -> Result<()> {
        self.heartbeat.abort();
        let all = ListParams::default();
        let mut left = Vec::new();
        left.extend(names(self.all::<PersistentVolume>().list(&all).await?.items));
        left.extend(names(self.all::<VolumeAttachment>().list(&all).await?.items));
        left.extend(names(self.all::<Pod>().list(&all).await?.items));
        left.extend(names(self.all::<Node>().list(&all).await?.items));
        ensure!(left.is_empty(), "left behind: {left:?}");
        Ok(())
    }
}

fn names<K: Resource>(objects: Vec<K>) -> impl Iterator<Item = String> {
    objects.into_iter().filter_map(|object| object.meta().name.clone())
}

async fn clear<K>(api: &Api<K>) -> Result<()>
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned,
{
    for name in names(api.list(&ListParams::default()).await?.items) {
        remove(api, &name).await?;
    }
    Ok(())
}

/// The logs of all controllers that there were, each with when it was written last.
fn controllers(folder: &Path) -> impl Iterator<Item = (std::time::SystemTime, PathBuf)> {
    let below =
        |path: PathBuf| std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let logs = below(folder.into()).flat_map(below).map(|path| path.join("log"));
    logs.filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)))
}

/// Installs what the manual says, as `kubectl apply` would.
async fn install(client: &Client) -> Result<()> {
    let manifest = MANUAL.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next());
    let params = PatchParams::apply("tests").force();
    for document in manifest.context("docs/kubernetes.md has a manifest")?.split("---\n") {
        let object: DynamicObject = serde_saphyr::from_str(document)?;
        let types = object.types.clone().context("an object has a kind")?;
        let (group, version) = types.api_version.split_once('/').unwrap_or(("", &types.api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &types.kind));
        let api: Api<DynamicObject> = match &object.metadata.namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        let name = object.metadata.name.clone().context("an object has a name")?;
        api.patch(&name, &params, &Patch::Apply(&object)).await.with_context(|| name)?;
    }
    Ok(())
}

/// Nodes without kubelets live on.
async fn heartbeats(client: Client) {
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    let params = PatchParams::apply("tests").force();
    loop {
        let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await;
        for name in nodes.into_iter().flat_map(|nodes| names(nodes.items)) {
            let now = MicroTime(Timestamp::now());
            let lease = json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": name },
                "spec": { "holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": now },
            });
            // The next one comes soon.
            let _ = leases.patch(&name, &params, &Patch::Apply(&lease)).await;
        }
        tokio::time::sleep(HEARTBEAT).await;
    }
}

/// Makes an object.
pub(crate) async fn make<K>(api: &Api<K>, object: Value) -> Result<K>
where
    K: Clone + std::fmt::Debug + Serialize + DeserializeOwned,
{
    let told = object["metadata"]["name"].to_string();
    let object = serde_json::from_value(object).with_context(|| format!("{told} is malformed"))?;
    api.create(&PostParams::default(), &object).await.with_context(|| format!("cannot make {told}"))
}

/// Deletes an object if it is there, whoever may still want it, and waits until it is gone.
pub(crate) async fn remove<K>(api: &Api<K>, name: &str) -> Result<()>
where
    K: Clone + std::fmt::Debug + DeserializeOwned,
{
    let at_once = kube::api::DeleteParams { grace_period_seconds: Some(0), ..Default::default() };
    match api.delete(name, &at_once).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    let bare = json!({ "metadata": { "finalizers": null } });
    match api.patch(name, &PatchParams::default(), &Patch::Merge(&bare)).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    eventually(&format!("{name} is gone"), PATIENCE, async || Ok(api.get_opt(name).await?.is_none())).await
}
