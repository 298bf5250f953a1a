//! A node that is lost.

use anyhow::{Context as _, Result, ensure};
use rds_csi_integration::cluster::objects::{Access, DIRECTORY, PodPlan};
use rds_csi_integration::cluster::{Cluster, PATIENCE};
use rds_csi_integration::rig::eventually;

use super::MIB;
use super::claims::claim;
use super::pods::nothing_is_left;
use super::registration::becomes_registered;

/// The node freezes with a writer on it, as a hypervisor's nodes do, and is declared out of service; its pod goes on elsewhere.
/// Then it wakes up, with the writer in the middle of its work.
pub(crate) async fn a_node_that_is_out_of_service_is_fenced_and_its_pod_goes_on_elsewhere(
    cluster: &Cluster,
) -> Result<()> {
    cluster.claim(claim("precious", Access::Filesystem, 64 * MIB)).await?;
    cluster.make_set(&PodPlan::new("database", "precious", Access::Filesystem)).await?;
    cluster.pod_runs("database-0").await?;
    let volume = cluster.bound("precious").await?.metadata.name.context("a volume has a name")?;
    let lost = cluster.node(&cluster.node_of("database-0").await?);
    let other = if lost.name() == "w1" { "w2" } else { "w1" };
    cluster.exec("database-0", &format!("echo precious >{DIRECTORY}/file; sync")).await?;
    // It names whoever writes.
    let write = format!(
        "(while :; do echo zombie >>{DIRECTORY}/log; sync {DIRECTORY}/log; done) </dev/null >/dev/null 2>&1 &"
    );
    cluster.exec("database-0", &write).await?;

    lost.worker().pause().await?;
    lost.is_not_ready().await?;
    ensure!(cluster.attached(&volume).await? == [(lost.name().into(), true)], "moved on a mere suspicion");
    lost.out_of_service().await?;
    cluster.pod_runs_on("database-0", other).await?;
    cluster.is_attached(&volume, &[other]).await?;
    cluster.event("precious", "VolumeFenced").await?;
    let told = cluster.exec("database-0", &format!("cat {DIRECTORY}/file")).await?;
    ensure!(told == "precious", "{told}");
    let mark = format!("echo survivor >>{DIRECTORY}/log; sync; sha256sum {DIRECTORY}/log");
    let before = cluster.exec("database-0", &mark).await?;

    lost.worker().resume().await?;
    let what = "the zombie has no live connection";
    let cut = async || {
        let connections = lost.worker().nvme_connections().await?;
        Ok(connections.iter().all(|connection| connection.state != "live"))
    };
    eventually(what, PATIENCE, cut).await?;
    let read = format!("echo 3 >/proc/sys/vm/drop_caches; sha256sum {DIRECTORY}/log");
    let after = cluster.exec("database-0", &read).await?;
    ensure!(before == after, "the zombie wrote: {before} became {after}");

    // Whoever declares a node out of service sees to it that it is restarted before it may serve again.
    lost.reboot().await?;
    lost.in_service().await?;
    becomes_registered(cluster, lost.name(), true).await?;
    cluster.end_set("database").await?;
    cluster.unclaim("precious").await?;
    nothing_is_left(cluster).await
}
