//! A volume, and its life on one node.

use std::collections::HashMap;

use rds_csi_api::csi;
use rds_csi_api::csi::node_client::NodeClient;
use rds_csi_api::csi::volume_capability::access_mode::Mode;
use rds_csi_api::csi::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::rig::Worker;

const PLUGIN: &str = "/var/lib/kubelet/plugins/kubernetes.io/csi";

/// A volume as Kubernetes remembers it.
#[derive(Debug, Clone)]
pub struct Volume {
    /// Its id.
    pub id: String,
    /// In bytes.
    pub size: u64,
    /// What CreateVolume told for everybody.
    pub context: HashMap<String, String>,
    /// How it is used.
    pub capability: csi::VolumeCapability,
}

/// ReadWriteOnce with a filesystem.
pub fn filesystem(fs_type: &str) -> csi::VolumeCapability {
    let mount = MountVolume { fs_type: fs_type.into(), ..MountVolume::default() };
    capability(AccessType::Mount(mount), Mode::SingleNodeWriter)
}

/// ReadWriteOnce as a block device.
pub fn block() -> csi::VolumeCapability {
    capability(AccessType::Block(BlockVolume {}), Mode::SingleNodeWriter)
}

/// ReadWriteMany as a block device.
pub fn shared_block() -> csi::VolumeCapability {
    capability(AccessType::Block(BlockVolume {}), Mode::MultiNodeMultiWriter)
}

fn capability(access: AccessType, mode: Mode) -> csi::VolumeCapability {
    csi::VolumeCapability { access_type: Some(access), access_mode: Some(AccessMode { mode: mode.into() }) }
}

/// A pod on a worker that uses a volume, with kubelet's part in it.
#[derive(Debug, Clone)]
pub struct Pod<'rig> {
    /// Where it runs.
    pub worker: &'rig Worker,
    /// What it uses.
    pub volume: Volume,
    /// What ControllerPublish told this node.
    pub context: HashMap<String, String>,
    name: String,
}

impl<'rig> Pod<'rig> {
    /// A pod of that name. Nothing is called yet.
    pub fn new(worker: &'rig Worker, volume: Volume, context: HashMap<String, String>, name: &str) -> Self {
        Self { worker, volume, context, name: name.into() }
    }

    /// Another pod on the same worker, with the same volume.
    pub fn beside(&self, name: &str) -> Self {
        Self { name: name.into(), ..self.clone() }
    }

    fn is_block(&self) -> bool {
        matches!(self.volume.capability.access_type, Some(AccessType::Block(_)))
    }

    /// Where kubelet has volumes staged.
    pub fn staging_path(&self) -> String {
        let id = &self.volume.id;
        if self.is_block() {
            format!("{PLUGIN}/volumeDevices/staging/{id}")
        } else {
            format!("{PLUGIN}/rds.csi.srvlab.io/{id}/globalmount")
        }
    }

    /// Where the pod finds the volume: a directory, or a device.
    pub fn path(&self) -> String {
        let (id, name) = (&self.volume.id, &self.name);
        if self.is_block() {
            format!("{PLUGIN}/volumeDevices/publish/{id}/{name}")
        } else {
            format!("/var/lib/kubelet/pods/{name}/volumes/kubernetes.io~csi/{id}/mount")
        }
    }

    /// NodeStageVolume, after kubelet made the staging directory. A directory that answers EIO it leaves to the driver.
    pub async fn stage(&self) -> Result<(), Status> {
        let made =
            format!("mkdir -p {0} 2>&1 || stat {0} 2>&1 | grep 'Input/output error'", self.staging_path());
        self.kubelet(&made).await?;
        let request = csi::NodeStageVolumeRequest {
            volume_id: self.volume.id.clone(),
            publish_context: self.context.clone(),
            staging_target_path: self.staging_path(),
            volume_capability: Some(self.volume.capability.clone()),
            volume_context: self.volume.context.clone(),
            ..Default::default()
        };
        node_client(self.worker).node_stage_volume(request).await.map(drop)
    }

    /// NodePublishVolume, after kubelet made the directory above the target.
    pub async fn publish(&self) -> Result<(), Status> {
        self.kubelet(&format!("mkdir -p $(dirname {})", self.path())).await?;
        let request = csi::NodePublishVolumeRequest {
            volume_id: self.volume.id.clone(),
            publish_context: self.context.clone(),
            staging_target_path: self.staging_path(),
            target_path: self.path(),
            volume_capability: Some(self.volume.capability.clone()),
            volume_context: self.volume.context.clone(),
            ..Default::default()
        };
        node_client(self.worker).node_publish_volume(request).await.map(drop)
    }

    /// NodeExpandVolume, as kubelet calls it for a volume in use; returns the size of the device.
    pub async fn expand(&self, size: u64) -> Result<u64, Status> {
        let request = csi::NodeExpandVolumeRequest {
            volume_id: self.volume.id.clone(),
            volume_path: self.path(),
            staging_target_path: self.staging_path(),
            capacity_range: Some(super::at_least(size)),
            volume_capability: Some(self.volume.capability.clone()),
            ..Default::default()
        };
        let grown = node_client(self.worker).node_expand_volume(request).await?.into_inner();
        Ok(u64::try_from(grown.capacity_bytes).unwrap_or_default())
    }

    /// NodeGetVolumeStats.
    pub async fn stats(&self) -> Result<csi::NodeGetVolumeStatsResponse, Status> {
        let request = csi::NodeGetVolumeStatsRequest {
            volume_id: self.volume.id.clone(),
            volume_path: self.path(),
            staging_target_path: self.staging_path(),
        };
        Ok(node_client(self.worker).node_get_volume_stats(request).await?.into_inner())
    }

    /// NodeUnpublishVolume.
    pub async fn unpublish(&self) -> Result<(), Status> {
        let request =
            csi::NodeUnpublishVolumeRequest { volume_id: self.volume.id.clone(), target_path: self.path() };
        node_client(self.worker).node_unpublish_volume(request).await.map(drop)
    }

    /// NodeUnstageVolume.
    pub async fn unstage(&self) -> Result<(), Status> {
        let request = csi::NodeUnstageVolumeRequest {
            volume_id: self.volume.id.clone(),
            staging_target_path: self.staging_path(),
        };
        node_client(self.worker).node_unstage_volume(request).await.map(drop)
    }

    /// Kubelet's own part: it is not what is tested, so a failure has no code of its own.
    async fn kubelet(&self, script: &str) -> Result<(), Status> {
        self.worker.sh(script).await.map(drop).map_err(|error| Status::unknown(format!("{error:#}")))
    }
}

/// A client of a worker's CSI socket, as kubelet is one.
pub(super) fn node_client(worker: &Worker) -> NodeClient<Channel> {
    let endpoint = Endpoint::from_shared(worker.csi_endpoint()).expect("an address with a port is a URI");
    NodeClient::new(endpoint.connect_lazy())
}
