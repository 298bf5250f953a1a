//! Who comes second.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use rds_csi_api::DRIVER_NAME;
use rds_csi_integration::cluster::objects::{Access, DIRECTORY, PodPlan};
use rds_csi_integration::cluster::{Cluster, PATIENCE};
use rds_csi_integration::rig::eventually;
use serde_json::json;

use super::MIB;
use super::claims::claim;
use super::pods::nothing_is_left;

pub(crate) async fn a_pod_on_a_second_node_waits_and_is_told_why(cluster: &Cluster) -> Result<()> {
    cluster.claim(claim("single", Access::Filesystem, 64 * MIB)).await?;
    cluster.run_pod(&PodPlan::new("first", "single", Access::Filesystem).on("w1")).await?;
    let volume = cluster.bound("single").await?.metadata.name.context("a volume has a name")?;
    cluster.make_pod(&PodPlan::new("second", "single", Access::Filesystem).on("w2")).await?;
    let told = cluster.event("second", "FailedAttachVolume").await?;
    ensure!(told.contains("Multi-Attach"), "{told}");

    // Kubernetes looks after this by itself; whoever passes it by meets the driver.
    let attachments: Api<VolumeAttachment> = Api::all(cluster.client());
    let forced = serde_json::from_value(json!({
        "metadata": { "name": "forced" },
        "spec": { "attacher": DRIVER_NAME, "nodeName": "w2", "source": { "persistentVolumeName": volume } },
    }))?;
    attachments.create(&PostParams::default(), &forced).await?;
    let refusal = async || {
        let status = attachments.get("forced").await?.status;
        anyhow::Ok(status.and_then(|status| status.attach_error?.message))
    };
    eventually("the driver refuses", PATIENCE, async || Ok(refusal().await?.is_some())).await?;
    let told = refusal().await?.unwrap_or_default();
    ensure!(told.contains("FailedPrecondition") && told.contains("w1"), "{told}");
    cluster.event("single", "AttachmentConflict").await?;
    attachments.delete("forced", &DeleteParams::default()).await?;
    let released = async || Ok(attachments.get_opt("forced").await?.is_none());
    eventually("the refused attachment is gone", PATIENCE, released).await?;
    ensure!(cluster.exec("first", &format!("touch {DIRECTORY}/still")).await?.is_empty());

    // Its turn comes once the first is gone.
    cluster.end_pod("first").await?;
    cluster.pod_runs("second").await?;
    cluster.exec("second", &format!("cat {DIRECTORY}/still")).await?;
    cluster.end_pod("second").await?;
    cluster.unclaim("single").await?;
    nothing_is_left(cluster).await
}
