//! Volumes that the controller is asked for directly, and what stands for them in the cluster, as somebody makes it by hand who
//! brings volumes of his own: the PersistentVolume's name is not the volume's.

use anyhow::Result;
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::Api;
use rds_csi_api::DRIVER_NAME;
use rds_csi_api::csi;
use rds_csi_api::csi::volume_capability::AccessType;
use serde_json::json;

use super::{Access, gone, make, timed};
use crate::cluster::{Cluster, PATIENCE};
use crate::driver::Volume;
use crate::rig::eventually;

impl Cluster {
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
        let volume = self.controller().await?.create(request).await?;
        let capacity = volume.size.to_string();
        let fs_type = match &volume.capability.access_type {
            Some(AccessType::Mount(mount)) => Some(&mount.fs_type),
            _ => None,
        };
        let access = Access::of(&volume.capability);
        let persistent = json!({
            "metadata": { "name": name },
            "spec": {
                "capacity": { "storage": capacity },
                "accessModes": [access.access_mode()],
                "volumeMode": access.volume_mode(),
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
                "accessModes": [access.access_mode()],
                "volumeMode": access.volume_mode(),
                "storageClassName": "",
                "volumeName": name,
                "resources": { "requests": { "storage": capacity } },
            },
        });
        make(&self.claims(), claim).await?;
        Ok(volume)
    }

    /// Waits until nothing is attached, and deletes what `provision` made.
    pub async fn deprovision(&self, name: &str, volume: &Volume) -> Result<()> {
        let what = format!("{name} is detached");
        let detached = async || Ok(self.attached(name).await?.is_empty());
        timed(&what, eventually(&what, PATIENCE, detached)).await?;
        gone(&self.claims(), name).await?;
        gone(&self.persistent_volumes(), name).await?;
        Ok(self.controller().await?.delete(volume).await?)
    }

    pub(super) fn persistent_volumes(&self) -> Api<PersistentVolume> {
        Api::all(self.client())
    }
}
