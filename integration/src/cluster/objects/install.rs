//! What installing the driver puts into a cluster.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use k8s_openapi::api::storage::v1::{CSIDriver, StorageClass};
use kube::Api;
use kube::api::DynamicObject;
use rds_csi_api::DRIVER_NAME;
use serde_json::json;

use super::{make, snapshot_kind};
use crate::cluster::control_plane::ControlPlane;
use crate::cluster::rights;
use crate::programs;

/// The name of the classes: of storage for anything, and of snapshots.
pub(super) const CLASS: &str = "rds-csi";

/// The class of storage for virtual machines.
pub(super) const VM_CLASS: &str = "rds-csi-vm";

/// Installs the driver: its CSIDriver, everybody's rights, the kinds of snapshots, and the classes.
pub(crate) async fn install(plane: &ControlPlane) -> Result<()> {
    let client = plane.client();
    let driver = json!({
        "metadata": { "name": DRIVER_NAME },
        "spec": { "attachRequired": true, "podInfoOnMount": false, "fsGroupPolicy": "File" },
    });
    make(&Api::<CSIDriver>::all(client.clone()), driver).await?;
    let manifest = rights::MANUAL.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next());
    let path = plane.folder().join("manual.yaml");
    fs::write(&path, manifest.context("the manual has a manifest")?)?;
    create(plane, &path).await?;
    rights::grant(&client).await?;
    let only_kubevirt = json!({ "restrictToKubevirt": "true" });
    for (name, binding, parameters) in
        [(CLASS, "WaitForFirstConsumer", json!({})), (VM_CLASS, "Immediate", only_kubevirt)]
    {
        let class = json!({
            "metadata": { "name": name },
            "provisioner": DRIVER_NAME,
            "parameters": parameters,
            "volumeBindingMode": binding,
            "allowVolumeExpansion": true,
            "reclaimPolicy": "Delete",
        });
        make(&Api::<StorageClass>::all(client.clone()), class).await?;
    }

    create(plane, &programs::sidecars()?.join("crds")).await?;
    plane.kubectl(&["wait", "--for=condition=established", "--all", "crd"]).await?;
    let class = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshotClass",
        "metadata": { "name": CLASS },
        "driver": DRIVER_NAME,
        "deletionPolicy": "Delete",
    });
    make(&Api::<DynamicObject>::all_with(client, &snapshot_kind("VolumeSnapshotClass")), class).await
}

/// Makes what is in a manifest, or in a folder of them.
async fn create(plane: &ControlPlane, manifests: &Path) -> Result<()> {
    let path = manifests.to_str().context("the cache's path is text")?;
    plane.kubectl(&["create", "--filename", path]).await.map(drop)
}
