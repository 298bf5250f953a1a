//! What runs on a node ends and starts again under pods that use volumes.

use anyhow::{Result, ensure};
use rds_csi_integration::cluster::Cluster;
use rds_csi_integration::cluster::objects::{DEVICE, DIRECTORY};
use rds_csi_integration::driver::{Volume, block, filesystem};

use super::MIB;
use super::pods::nothing_is_left;
use super::registration::becomes_registered;

/// One pod with a filesystem and one with a raw block, each with something in it.
struct Pods<'cluster> {
    cluster: &'cluster Cluster,
    files: Volume,
    blocks: Volume,
}

impl<'cluster> Pods<'cluster> {
    async fn start(cluster: &'cluster Cluster) -> Result<Self> {
        let files = cluster.provision("files", filesystem("xfs"), 320 * MIB).await?;
        let blocks = cluster.provision("blocks", block(), 64 * MIB).await?;
        cluster.start_pod("on-files", "w1", "files", &files).await?;
        cluster.start_pod("on-blocks", "w1", "blocks", &blocks).await?;
        let pods = Self { cluster, files, blocks };
        pods.write("first").await?;
        Ok(pods)
    }

    async fn write(&self, text: &str) -> Result<()> {
        let node = self.cluster.node("w1");
        node.exec("on-files", &format!("echo {text} >{DIRECTORY}/file && sync")).await?;
        let block = format!("echo {text} | dd of={DEVICE} bs=4096 conv=sync,fsync 2>/dev/null");
        node.exec("on-blocks", &block).await.map(drop)
    }

    async fn hold(&self, text: &str) -> Result<()> {
        let node = self.cluster.node("w1");
        let file = node.exec("on-files", &format!("cat {DIRECTORY}/file")).await?;
        let read = format!("dd if={DEVICE} bs=4096 count=1 2>/dev/null | head -n 1");
        let block = node.exec("on-blocks", &read).await?;
        ensure!((file.as_str(), block.as_str()) == (text, text), "{file} and {block}, not {text}");
        Ok(())
    }

    /// The pods' containers are those that were started first.
    async fn were_not_disturbed(&self) -> Result<()> {
        for pod in ["on-files", "on-blocks"] {
            ensure!(self.cluster.restarts(pod).await? == 0, "{pod} was started again");
        }
        Ok(())
    }

    async fn end(self) -> Result<()> {
        let Self { cluster, files, blocks } = self;
        for pod in ["on-files", "on-blocks"] {
            cluster.end_pod(pod).await?;
        }
        cluster.deprovision("files", &files).await?;
        cluster.deprovision("blocks", &blocks).await?;
        nothing_is_left(cluster).await
    }
}

pub(crate) async fn kubelet_restarts_under_pods_and_finds_the_driver_again(cluster: &Cluster) -> Result<()> {
    let pods = Pods::start(cluster).await?;
    let node = cluster.node("w1");
    node.stop_kubelet().await?;
    pods.hold("first").await?;
    node.start_kubelet().await?;
    // A kubelet that does not know the driver cannot give this pod its volume.
    let third = cluster.provision("third", filesystem("ext4"), 64 * MIB).await?;
    cluster.start_pod("on-third", "w1", "third", &third).await?;
    pods.hold("first").await?;
    pods.write("second").await?;
    pods.were_not_disturbed().await?;
    cluster.end_pod("on-third").await?;
    cluster.deprovision("third", &third).await?;
    pods.end().await
}

pub(crate) async fn a_killed_agent_disturbs_no_pod(cluster: &Cluster) -> Result<()> {
    let pods = Pods::start(cluster).await?;
    let worker = cluster.node("w1").worker();
    worker.kill_agent().await?;
    pods.write("without an agent").await?;
    worker.start_agent(&[]).await?;
    becomes_registered(cluster, "w1", true).await?;
    pods.hold("without an agent").await?;
    pods.were_not_disturbed().await?;
    pods.end().await
}

pub(crate) async fn a_node_that_lost_its_power_brings_its_pods_back_with_their_data(
    cluster: &Cluster,
) -> Result<()> {
    let pods = Pods::start(cluster).await?;
    let node = cluster.node("w1");
    node.reboot().await?;
    for pod in ["on-files", "on-blocks"] {
        cluster.pod_runs_again(pod).await?;
    }
    pods.hold("first").await?;
    pods.write("second").await?;
    pods.hold("second").await?;
    pods.end().await
}
