//! Live migrations, as pods of KubeVirt's kind prove them, and what is left of holders that are gone.

use std::collections::HashMap;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Patch, PatchParams};
use rds_csi_integration::driver::{filesystem, shared_block};
use rds_csi_integration::rig::eventually;
use serde_json::json;
use tonic::Code;

use crate::attachments::{is_recorded, refused};
use crate::plane::{PATIENCE, Plane, make};
use crate::site::{Claimed, Replica, Site, ready};

const ACTIVE: &str = "rds_csi_active_migrations";

/// A VM's pod on a node, which uses the volume; the one that it migrates to says so.
async fn launcher(site: &Site<'_>, volume: &Claimed, node: &str, migration: Option<&str>) -> Result<()> {
    let mut labels = json!({ "kubevirt.io": "virt-launcher", "kubevirt.io/created-by": "vm-uid" });
    if let Some(migration) = migration {
        labels["kubevirt.io/migrationJobUID"] = json!(migration);
    }
    let pod = json!({
        "metadata": { "name": format!("launcher-{node}"), "labels": labels },
        "spec": {
            "nodeName": node,
            "containers": [{ "name": "vm", "image": "none" }],
            "volumes": [{ "name": "disk", "persistentVolumeClaim": { "claimName": volume.claim } }],
        },
    });
    make(&site.plane.here::<Pod>(), pod).await?;
    Ok(())
}

async fn shows(replica: &Replica, metric: &str, value: f64) -> Result<()> {
    let what = format!("{metric} is {value}");
    eventually(&what, PATIENCE, async || Ok(replica.metric(metric).await? == Some(value))).await
}

/// One that must be proved.
async fn proven(site: &Site<'_>, replica: &Replica, name: &str) -> Result<Claimed> {
    let parameters = HashMap::from([("restrictToKubevirt".to_owned(), "true".to_owned())]);
    site.volume_with(replica, name, shared_block(), parameters).await
}

pub(crate) async fn a_vm_migrates_by_proof_and_a_restart_in_between_forgets_nothing(
    plane: &Plane,
) -> Result<()> {
    let site = Site::start(plane, &["w1", "w2"]).await?;
    let one = site.replica("one").await?;
    let volume = proven(&site, &one, "vm").await?;
    launcher(&site, &volume, "w1", None).await?;
    site.attach(&one, &volume, "w1").await?;
    shows(&one, "rds_csi_attachments", 1.0).await?;

    // Without a second pod of the VM nobody is let in; then the pod comes, and its volume after it.
    site.want(&volume, "w2").await?;
    refused(site.publish(&one, &volume, "w2").await, Code::FailedPrecondition, "no proof")?;
    launcher(&site, &volume, "w2", Some("job-uid")).await?;
    let attached = async || Ok(site.publish(&one, &volume, "w2").await.is_ok());
    eventually("the proof is heard of", PATIENCE, attached).await?;
    site.is_attached(&volume, "w2", true).await?;
    ensure!(site.admitted(&volume)?.len() == 2);
    site.is_told(&volume, "MigrationStarted", "w1 and w2").await?;
    shows(&one, ACTIVE, 1.0).await?;

    one.kill();
    let two = site.replica("two").await?;
    shows(&two, ACTIVE, 1.0).await?;
    shows(&two, "rds_csi_attachments", 2.0).await?;
    site.detach(&two, &volume, "w1").await?;
    site.is_told(&volume, "MigrationCompleted", "w2").await?;
    shows(&two, ACTIVE, 0.0).await?;
    ensure!(two.metric(r#"rds_csi_migrations_total{result="completed"}"#).await? == Some(1.0));
    is_recorded(&site, &volume, &["w2"]).await?;
    site.detach(&two, &volume, "w2").await?;
    is_recorded(&site, &volume, &[]).await?;
    site.forget(&two, volume).await?;
    site.end([two]).await
}

pub(crate) async fn a_node_that_is_not_ready_is_waited_for_unless_it_is_down_for_good(
    plane: &Plane,
) -> Result<()> {
    let mut site = Site::start(plane, &["w1", "w2"]).await?;
    let replica = site.replica("one").await?;
    let volume = site.volume(&replica, "unready", shared_block()).await?;
    site.attach(&replica, &volume, "w1").await?;
    site.node_uses("w1", &[&volume.volume.id]).await?;
    site.silence("w1");
    site.node_status("w1", json!({ "conditions": [ready("Unknown")] })).await?;
    site.want(&volume, "w2").await?;
    let unready = async || match site.publish(&replica, &volume, "w2").await {
        Err(status) => Ok(status.message().contains("not ready")),
        Ok(_) => Ok(false),
    };
    eventually("the second node is refused", PATIENCE, unready).await?;
    ensure!(site.admitted(&volume)?.len() == 1);

    let taint = json!({ "spec": { "taints": [
        { "key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute" },
    ] } });
    plane.all::<Node>().patch("w1", &PatchParams::default(), &Patch::Merge(&taint)).await?;
    let attached = async || Ok(site.publish(&replica, &volume, "w2").await.is_ok());
    eventually("the second node is let in", PATIENCE, attached).await?;
    // The array shuts the dead node out, and the attacher lets it go.
    site.detach(&replica, &volume, "w1").await?;
    site.is_told(&volume, "VolumeFenced", "w1").await?;
    ensure!(site.admitted(&volume)?.len() == 1);
    site.detach(&replica, &volume, "w2").await?;
    site.forget(&replica, volume).await?;
    site.end([replica]).await
}

pub(crate) async fn a_holder_that_nobody_wants_is_let_go_once_it_lets_go(plane: &Plane) -> Result<()> {
    let site = Site::start(plane, &["w1", "w2"]).await?;
    let replica = site.replica("one").await?;
    let volume = site.volume(&replica, "stale", filesystem("ext4")).await?;
    let id = volume.volume.id.clone();
    site.attach(&replica, &volume, "w1").await?;
    site.agent("w1").uses(&id);
    // Somebody removed the finalizer, so that nobody ever asks for a detach.
    site.forget_attachment(&volume, "w1").await?;
    let seen = async || Ok(replica.controller.log().contains("what is due is not done"));
    eventually("it is seen, and left alone", PATIENCE, seen).await?;
    is_recorded(&site, &volume, &["w1"]).await?;
    ensure!(site.admitted(&volume)?.len() == 1, "a node that uses the volume was cut off");
    site.agent("w1").lets_go(&id);
    site.is_told(&volume, "StaleAttachmentCleared", "w1").await?;
    is_recorded(&site, &volume, &[]).await?;
    ensure!(site.admitted(&volume)?.is_empty());
    shows(&replica, "rds_csi_stale_attachments_cleared_total", 1.0).await?;
    site.forget(&replica, volume).await?;
    site.end([replica]).await
}
