//! What nobody claims.

use anyhow::Result;
use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::ListParams;
use rds_csi_integration::driver::filesystem;
use rds_csi_integration::rig::eventually;

use crate::plane::{NAMESPACE, PATIENCE, Plane};
use crate::site::Site;

pub(crate) async fn what_nobody_claims_is_told_of(plane: &Plane) -> Result<()> {
    let site = Site::start(plane, &[]).await?;
    let replica = site.replica_with("one", &["--orphan-report-interval=1s"]).await?;
    let volume = site.volume(&replica, "orphan", filesystem("ext4")).await?;
    let orphans = || replica.metric(r#"rds_csi_orphans{backend="default",kind="volume"}"#);
    eventually("a volume with a claim is no orphan", PATIENCE, async || Ok(orphans().await? == Some(0.0)))
        .await?;
    site.unclaim(&volume).await?;
    eventually("it is one without", PATIENCE, async || Ok(orphans().await? == Some(1.0))).await?;
    let events: Api<Event> = Api::namespaced(plane.client(), NAMESPACE);
    let told = async || {
        let events = events.list(&ListParams::default()).await?.items;
        let tells = |event: &Event| {
            event.reason.as_deref() == Some("OrphanFound")
                && event.involved_object.name.as_deref() == Some("one")
        };
        Ok(events.iter().any(tells))
    };
    eventually("people are told", PATIENCE, told).await?;
    replica.controller.delete(&volume.volume).await?;
    site.end([replica]).await
}
