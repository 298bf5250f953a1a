//! What external-attacher does, one step at a time.

use std::collections::HashMap;

use anyhow::Result;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::api::{DeleteParams, Patch, PatchParams};
use rds_csi_api::{DRIVER_NAME, csi};
use rds_csi_integration::driver::Volume;
use serde_json::json;
use tonic::Status;

use crate::plane::{make, remove};
use crate::site::{Claimed, Replica, Site};

/// It keeps a VolumeAttachment until it has detached the volume.
const FINALIZER: &str = "external-attacher/rds-csi-srvlab-io";

impl Site<'_> {
    fn attachment(volume: &Claimed, node: &str) -> String {
        format!("attach-{}-{node}", volume.claim)
    }

    /// Kubernetes wants the volume on the node.
    pub(crate) async fn want(&self, volume: &Claimed, node: &str) -> Result<()> {
        let attachments = self.plane.all::<VolumeAttachment>();
        let name = Self::attachment(volume, node);
        if attachments.get_opt(&name).await?.is_some() {
            return Ok(());
        }
        let object = json!({
            "metadata": { "name": name, "finalizers": [FINALIZER] },
            "spec": {
                "attacher": DRIVER_NAME, "nodeName": node,
                "source": { "persistentVolumeName": volume.persistent },
            },
        });
        make(&attachments, object).await?;
        Ok(())
    }

    /// ControllerPublishVolume, whatever Kubernetes says.
    pub(crate) async fn publish(
        &self,
        replica: &Replica,
        volume: &Claimed,
        node: &str,
    ) -> Result<HashMap<String, String>, Status> {
        let Volume { id, context, capability, .. } = volume.volume.clone();
        let request = csi::ControllerPublishVolumeRequest {
            volume_id: id,
            node_id: node.into(),
            volume_capability: Some(capability),
            volume_context: context,
            ..Default::default()
        };
        let answer = replica.controller.csi().controller_publish_volume(request).await?;
        Ok(answer.into_inner().publish_context)
    }

    pub(crate) async fn unpublish(
        &self,
        replica: &Replica,
        volume: &Claimed,
        node: &str,
    ) -> Result<(), Status> {
        let request = csi::ControllerUnpublishVolumeRequest {
            volume_id: volume.volume.id.clone(),
            node_id: node.into(),
            ..Default::default()
        };
        replica.controller.csi().controller_unpublish_volume(request).await.map(drop)
    }

    /// Wants, publishes, and says that it is attached.
    pub(crate) async fn attach(
        &self,
        replica: &Replica,
        volume: &Claimed,
        node: &str,
    ) -> Result<HashMap<String, String>> {
        self.want(volume, node).await?;
        let context = self.publish(replica, volume, node).await?;
        self.is_attached(volume, node, true).await?;
        Ok(context)
    }

    /// The VolumeAttachment says whether it is attached.
    pub(crate) async fn is_attached(&self, volume: &Claimed, node: &str, attached: bool) -> Result<()> {
        let status = json!({ "status": { "attached": attached } });
        let attachments = self.plane.all::<VolumeAttachment>();
        let name = Self::attachment(volume, node);
        attachments.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await?;
        Ok(())
    }

    /// Kubernetes wants it there no more; the attacher has not acted yet.
    pub(crate) async fn unwant(&self, volume: &Claimed, node: &str) -> Result<()> {
        let attachments = self.plane.all::<VolumeAttachment>();
        attachments.delete(&Self::attachment(volume, node), &DeleteParams::default()).await?;
        Ok(())
    }

    /// The VolumeAttachment is gone, whatever it stood for.
    pub(crate) async fn forget_attachment(&self, volume: &Claimed, node: &str) -> Result<()> {
        remove(&self.plane.all::<VolumeAttachment>(), &Self::attachment(volume, node)).await
    }

    /// Unwants, unpublishes, and lets the VolumeAttachment go.
    pub(crate) async fn detach(&self, replica: &Replica, volume: &Claimed, node: &str) -> Result<()> {
        self.unwant(volume, node).await?;
        self.unpublish(replica, volume, node).await?;
        self.forget_attachment(volume, node).await
    }
}
