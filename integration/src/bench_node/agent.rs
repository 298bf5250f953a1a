//! The node agent as kubelet calls it, on the same node.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result};
use rds_csi_api::csi;
use rds_csi_api::csi::node_client::NodeClient;
use rds_csi_api::csi::volume_capability::AccessType;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use super::guest::{Programs, Step, Subject};
use crate::driver::{block, filesystem};
use crate::rig::CSI_SOCKET;

pub(super) struct Agent {
    client: NodeClient<Channel>,
    /// Of its process.
    stat: PathBuf,
    subject: Subject,
}

impl Agent {
    pub(super) fn find(subject: Subject) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("unix:{CSI_SOCKET}"))?;
        let client = NodeClient::new(endpoint.connect_lazy());
        for process in fs::read_dir("/proc")? {
            let process = process?.path();
            // The kernel keeps 15 characters of a name.
            if fs::read_to_string(process.join("comm")).is_ok_and(|name| name.trim_end() == "rds-csi-node-ag")
            {
                return Ok(Self { client, stat: process.join("stat"), subject });
            }
        }
        anyhow::bail!("no node agent runs here")
    }

    pub(super) async fn nothing(&mut self) -> Result<Step> {
        let mut client = self.client.clone();
        self.step(async || client.node_get_capabilities(csi::NodeGetCapabilitiesRequest {}).await.map(drop))
            .await
    }

    pub(super) async fn stage(&mut self) -> Result<Step> {
        let mut client = self.client.clone();
        let request = csi::NodeStageVolumeRequest {
            volume_id: self.subject.volume.clone(),
            publish_context: self.subject.publish_context.clone(),
            staging_target_path: self.subject.staging.display().to_string(),
            volume_capability: Some(self.capability()),
            volume_context: self.subject.volume_context.clone(),
            ..Default::default()
        };
        self.step(async || client.node_stage_volume(request).await.map(drop)).await
    }

    pub(super) async fn publish(&mut self) -> Result<Step> {
        let mut client = self.client.clone();
        let request = csi::NodePublishVolumeRequest {
            volume_id: self.subject.volume.clone(),
            publish_context: self.subject.publish_context.clone(),
            staging_target_path: self.subject.staging.display().to_string(),
            target_path: self.subject.target.display().to_string(),
            volume_capability: Some(self.capability()),
            volume_context: self.subject.volume_context.clone(),
            ..Default::default()
        };
        self.step(async || client.node_publish_volume(request).await.map(drop)).await
    }

    pub(super) async fn unpublish(&mut self) -> Result<Step> {
        let mut client = self.client.clone();
        let request = csi::NodeUnpublishVolumeRequest {
            volume_id: self.subject.volume.clone(),
            target_path: self.subject.target.display().to_string(),
        };
        self.step(async || client.node_unpublish_volume(request).await.map(drop)).await
    }

    pub(super) async fn unstage(&mut self) -> Result<Step> {
        let mut client = self.client.clone();
        let request = csi::NodeUnstageVolumeRequest {
            volume_id: self.subject.volume.clone(),
            staging_target_path: self.subject.staging.display().to_string(),
        };
        self.step(async || client.node_unstage_volume(request).await.map(drop)).await
    }

    fn capability(&self) -> csi::VolumeCapability {
        self.subject.fs.as_deref().map_or_else(block, filesystem)
    }

    async fn step(&self, call: impl AsyncFnOnce() -> Result<(), Status>) -> Result<Step> {
        let before = self.children()?;
        let begun = Instant::now();
        call().await?;
        let took = begun.elapsed();
        let programs = if self.children()? == before { Programs::None } else { Programs::Some };
        Ok(Step { took, programs })
    }

    /// The page faults of children that it has waited for (proc_pid_stat(5), cminflt): no program starts without one.
    fn children(&self) -> Result<u64> {
        let stat = fs::read_to_string(&self.stat)?;
        let (_, fields) = stat.rsplit_once(") ").context("proc/PID/stat has no name")?;
        let faults = fields.split(' ').nth(8).context("proc/PID/stat is short")?;
        Ok(faults.parse()?)
    }
}

impl crate::driver::Volume {
    /// Which filesystem it has; none if it is a block volume.
    pub(super) fn fs_type(&self) -> Option<&str> {
        match &self.capability.access_type {
            Some(AccessType::Mount(mount)) => Some(&mount.fs_type),
            Some(AccessType::Block(_)) | None => None,
        }
    }
}
