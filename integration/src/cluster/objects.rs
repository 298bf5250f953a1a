//! Kubernetes objects, as manifests would have them: the driver's own, and volumes and pods for tests.

use std::fmt::Debug;
use std::future::Future;
use std::time::Instant;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::api::storage::v1::CSIDriver;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use rds_csi_api::DRIVER_NAME;
use rds_csi_api::csi::volume_capability::AccessType;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::access::ATTACHER;
use super::node::IMAGE;
use super::{Cluster, PATIENCE};
use crate::driver::Volume;
use crate::rig::eventually;

/// Where a pod finds a filesystem volume.
pub const DIRECTORY: &str = "/data";

/// Where a pod finds a block volume.
pub const DEVICE: &str = "/dev/volume";

/// Installs the driver: its CSIDriver, and the attacher's rights.
pub(super) async fn install(client: &Client) -> Result<()> {
    let driver = json!({
        "metadata": { "name": DRIVER_NAME },
        "spec": { "attachRequired": true, "podInfoOnMount": false, "fsGroupPolicy": "File" },
    });
    make(&Api::<CSIDriver>::all(client.clone()), driver).await?;
    let allow = |group: &str, resources: &[&str], verbs: &[&str]| json!({ "apiGroups": [group], "resources": resources, "verbs": verbs });
    let role = json!({
        "metadata": { "name": "csi-attacher" },
        "rules": [
            allow("", &["persistentvolumes"], &["get", "list", "watch", "patch"]),
            allow("storage.k8s.io", &["csinodes"], &["get", "list", "watch"]),
            allow("storage.k8s.io", &["volumeattachments"], &["get", "list", "watch", "patch"]),
            allow("storage.k8s.io", &["volumeattachments/status"], &["patch"]),
        ],
    });
    make(&Api::<ClusterRole>::all(client.clone()), role).await?;
    let binding = json!({
        "metadata": { "name": "csi-attacher" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "csi-attacher" },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": ATTACHER }],
    });
    make(&Api::<ClusterRoleBinding>::all(client.clone()), binding).await
}

impl Cluster {
    /// Makes the PersistentVolume and the claim that stand for a volume, both by that name, as the provisioner would.
    pub async fn claim(&self, name: &str, volume: &Volume) -> Result<()> {
        let capacity = volume.size.to_string();
        let (mode, fs_type) = match &volume.capability.access_type {
            Some(AccessType::Mount(mount)) => ("Filesystem", Some(&mount.fs_type)),
            _ => ("Block", None),
        };
        let persistent = json!({
            "metadata": { "name": name },
            "spec": {
                "capacity": { "storage": capacity },
                "accessModes": ["ReadWriteOnce"],
                "volumeMode": mode,
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": "",
                "claimRef": { "namespace": "default", "name": name },
                "csi": {
                    "driver": DRIVER_NAME,
                    "volumeHandle": volume.id,
                    "volumeAttributes": volume.context,
                    "fsType": fs_type,
                },
            },
        });
        make(&self.persistent_volumes(), persistent).await?;
        let claim = json!({
            "metadata": { "name": name },
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "volumeMode": mode,
                "storageClassName": "",
                "volumeName": name,
                "resources": { "requests": { "storage": capacity } },
            },
        });
        make(&self.claims(), claim).await
    }

    /// Deletes claim and PersistentVolume of that name.
    pub async fn unclaim(&self, name: &str) -> Result<()> {
        gone(&self.claims(), name).await?;
        gone(&self.persistent_volumes(), name).await
    }

    /// Makes a pod on a node that uses the claim of that name and does nothing by itself, and waits until it runs.
    pub async fn start_pod(&self, name: &str, node: &str, claim: &str, volume: &Volume) -> Result<()> {
        let uses = match &volume.capability.access_type {
            Some(AccessType::Mount(_)) => {
                ("volumeMounts", json!([{ "name": "volume", "mountPath": DIRECTORY }]))
            }
            _ => ("volumeDevices", json!([{ "name": "volume", "devicePath": DEVICE }])),
        };
        let mut container = json!({
            "name": "main",
            "image": IMAGE,
            "imagePullPolicy": "Never",
            // PID 1 hears of no signal that it does not ask for.
            "command": ["sh", "-c", "trap 'exit 0' TERM; sleep 2147483647 & wait"],
        });
        container[uses.0] = uses.1;
        let pod = json!({
            "metadata": { "name": name },
            "spec": {
                "nodeName": node,
                "automountServiceAccountToken": false,
                "enableServiceLinks": false,
                "terminationGracePeriodSeconds": 5,
                "containers": [container],
                "volumes": [{ "name": "volume", "persistentVolumeClaim": { "claimName": claim } }],
            },
        });
        make(&self.pods(), pod).await?;
        timed(&format!("pod {name} runs"), self.pod_runs(name)).await
    }

    /// Waits until the container of a pod runs.
    pub async fn pod_runs(&self, name: &str) -> Result<()> {
        self.runs(name, 0).await
    }

    /// Waits until the container of a pod has been started once more, and runs.
    pub async fn pod_runs_again(&self, name: &str) -> Result<()> {
        timed(&format!("pod {name} runs again"), self.runs(name, 1)).await
    }

    async fn runs(&self, name: &str, restarts: i32) -> Result<()> {
        let what = format!("pod {name} runs");
        let runs = eventually(&what, PATIENCE, async || {
            let status = self.pods().get(name).await?.status.unwrap_or_default();
            let mut containers = status.container_statuses.unwrap_or_default().into_iter();
            Ok(containers.next().is_some_and(|is| is.ready && is.restart_count >= restarts))
        });
        match runs.await {
            Ok(()) => Ok(()),
            Err(error) => Err(error.context(self.events().await)),
        }
    }

    /// Deletes a pod, and waits until kubelet has ended it.
    pub async fn end_pod(&self, name: &str) -> Result<()> {
        timed(&format!("pod {name} is gone"), gone(&self.pods(), name)).await
    }

    /// How often the container of a pod was started again.
    pub async fn restarts(&self, pod: &str) -> Result<i32> {
        let statuses = self.pods().get(pod).await?.status.and_then(|status| status.container_statuses);
        let first = statuses.and_then(|statuses| statuses.into_iter().next());
        Ok(first.with_context(|| format!("pod {pod} has no container"))?.restart_count)
    }

    fn pods(&self) -> Api<Pod> {
        Api::default_namespaced(self.client())
    }

    fn claims(&self) -> Api<PersistentVolumeClaim> {
        Api::default_namespaced(self.client())
    }

    fn persistent_volumes(&self) -> Api<PersistentVolume> {
        Api::all(self.client())
    }
}

/// Says how long something took: most of a test's time is spent waiting for one part of Kubernetes or another.
pub(super) async fn timed<T>(what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    let began = Instant::now();
    let outcome = work.await?;
    eprintln!("cluster: {what} ({:.1} s)", began.elapsed().as_secs_f32());
    Ok(outcome)
}

async fn make<K>(api: &Api<K>, object: Value) -> Result<()>
where
    K: Clone + Debug + Serialize + DeserializeOwned,
{
    let told = object["metadata"]["name"].to_string();
    let object = serde_json::from_value(object).with_context(|| format!("{told} is malformed"))?;
    api.create(&PostParams::default(), &object).await.with_context(|| format!("cannot make {told}"))?;
    Ok(())
}

/// Deletes an object, and waits until nobody holds it any more.
async fn gone<K>(api: &Api<K>, name: &str) -> Result<()>
where
    K: Clone + Debug + DeserializeOwned,
{
    api.delete(name, &DeleteParams::default()).await?;
    let what = format!("{name} is gone");
    eventually(&what, PATIENCE, async || Ok(api.get_opt(name).await?.is_none())).await
}
