//! A pod's life with a volume, from CreateVolume to DeleteVolume.

use anyhow::{Result, ensure};
use rds_csi_integration::cluster::objects::{DEVICE, DIRECTORY};
use rds_csi_integration::cluster::{Cluster, PATIENCE};
use rds_csi_integration::driver::{block, filesystem};
use rds_csi_integration::rig::eventually;

use super::MIB;

/// Waits until nothing of any volume is on the nodes and nothing is attached.
pub(crate) async fn nothing_is_left(cluster: &Cluster) -> Result<()> {
    for node in cluster.nodes() {
        let what = format!("nothing of a volume is left on {}", node.name());
        let clean = eventually(&what, PATIENCE, async || Ok(node.volumes_left().await?.is_empty()));
        if let Err(error) = clean.await {
            return Err(error.context(node.volumes_left().await?.join("\n")));
        }
    }
    ensure!(cluster.attachments().await?.is_empty(), "{:?}", cluster.attachments().await?);
    Ok(())
}

pub(crate) async fn a_pod_keeps_its_filesystem_and_nothing_is_left_after_it(cluster: &Cluster) -> Result<()> {
    let node = cluster.node("w1");
    let volume = cluster.provision("files", filesystem("ext4"), 64 * MIB).await?;
    cluster.start_pod("writer", "w1", "files", &volume).await?;
    let write = format!("echo precious >{DIRECTORY}/file && sync && stat -f -c %T {DIRECTORY}");
    let told = node.exec("writer", &write).await?;
    ensure!(told == "ext2/ext3", "{told}");
    cluster.end_pod("writer").await?;

    cluster.start_pod("reader", "w1", "files", &volume).await?;
    let told = node.exec("reader", &format!("cat {DIRECTORY}/file")).await?;
    ensure!(told == "precious", "{told}");
    cluster.end_pod("reader").await?;

    cluster.deprovision("files", &volume).await?;
    nothing_is_left(cluster).await
}

pub(crate) async fn a_pod_keeps_its_raw_block_and_nothing_is_left_after_it(cluster: &Cluster) -> Result<()> {
    let node = cluster.node("w1");
    let volume = cluster.provision("blocks", block(), 64 * MIB).await?;
    cluster.start_pod("writer", "w1", "blocks", &volume).await?;
    let told = node.exec("writer", &format!("blockdev --getsize64 {DEVICE}")).await?;
    ensure!(told == (64 * MIB).to_string(), "{told}");
    let write = format!("echo precious | dd of={DEVICE} bs=4096 seek=1000 conv=sync,fsync 2>/dev/null");
    node.exec("writer", &write).await?;
    cluster.end_pod("writer").await?;

    cluster.start_pod("reader", "w1", "blocks", &volume).await?;
    let read = format!("dd if={DEVICE} bs=4096 skip=1000 count=1 2>/dev/null | head -n 1");
    let told = node.exec("reader", &read).await?;
    ensure!(told == "precious", "{told}");
    cluster.end_pod("reader").await?;

    cluster.deprovision("blocks", &volume).await?;
    nothing_is_left(cluster).await
}
