//! Snapshots.

use anyhow::Result;
use kube::Api;
use kube::api::DynamicObject;
use serde_json::json;

use super::install::CLASS;
use super::{gone, make, snapshot_kind, timed};
use crate::cluster::{Cluster, PATIENCE};
use crate::rig::eventually;

impl Cluster {
    /// Takes a snapshot of a claim's volume, and waits until it can be used.
    pub async fn snapshot(&self, name: &str, claim: &str) -> Result<()> {
        let snapshot = json!({
            "apiVersion": "snapshot.storage.k8s.io/v1",
            "kind": "VolumeSnapshot",
            "metadata": { "name": name },
            "spec": { "volumeSnapshotClassName": CLASS, "source": { "persistentVolumeClaimName": claim } },
        });
        let snapshots = self.snapshots();
        make(&snapshots, snapshot).await?;
        let what = format!("snapshot {name} can be used");
        let ready = async || Ok(snapshots.get(name).await?.data["status"]["readyToUse"] == true);
        timed(&what, eventually(&what, PATIENCE, ready)).await
    }

    /// Deletes a snapshot, and waits until it is gone from the array, too, which its content's end tells.
    pub async fn delete_snapshot(&self, name: &str) -> Result<()> {
        let snapshots = self.snapshots();
        let bound = &snapshots.get(name).await?.data["status"]["boundVolumeSnapshotContentName"];
        let content = bound.as_str().unwrap_or_default().to_owned();
        gone(&snapshots, name).await?;
        let contents: Api<DynamicObject> =
            Api::all_with(self.client(), &snapshot_kind("VolumeSnapshotContent"));
        let what = format!("the content of snapshot {name} is gone");
        let is_gone = async || Ok(contents.get_opt(&content).await?.is_none());
        timed(&what, eventually(&what, PATIENCE, is_gone)).await
    }

    fn snapshots(&self) -> Api<DynamicObject> {
        Api::default_namespaced_with(self.client(), &snapshot_kind("VolumeSnapshot"))
    }
}
