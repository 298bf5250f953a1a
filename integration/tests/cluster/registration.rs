//! What kubelet learns from the agent, and writes down for the cluster.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::storage::v1::{CSINode, CSINodeDriver};
use kube::Api;
use rds_csi_api::DRIVER_NAME;
use rds_csi_integration::cluster::{Cluster, PATIENCE};
use rds_csi_integration::rig::eventually;

/// The driver in a node's CSINode.
pub(crate) async fn registered(cluster: &Cluster, node: &str) -> Result<Option<CSINodeDriver>> {
    let found = Api::<CSINode>::all(cluster.client()).get_opt(node).await?;
    let mut drivers = found.map(|node| node.spec.drivers).unwrap_or_default();
    drivers.retain(|driver| driver.name == DRIVER_NAME);
    Ok(drivers.pop())
}

/// Waits until it is there, or is not.
pub(crate) async fn becomes_registered(cluster: &Cluster, node: &str, wanted: bool) -> Result<()> {
    let what = format!("the driver on {node} is registered: {wanted}");
    eventually(&what, PATIENCE, async || Ok(registered(cluster, node).await?.is_some() == wanted)).await
}

pub(crate) async fn kubelet_registers_the_driver(cluster: &Cluster) -> Result<()> {
    let w1 = cluster.node("w1").worker();
    // kubelet writes CSINode first, and then tells the agent.
    let ready = async || {
        let is_ready = async || Ok(reqwest::get(format!("{}/readyz", w1.admin_url())).await?.status() == 200);
        eventually("the agent on w1 is ready", PATIENCE, is_ready).await
    };
    becomes_registered(cluster, "w1", true).await?;
    let driver = registered(cluster, "w1").await?.context("just there")?;
    ensure!(driver.node_id == "w1", "{driver:?}");
    ensure!(driver.topology_keys.unwrap_or_default().is_empty(), "no topology was given");
    ensure!(
        driver.allocatable.and_then(|limit| limit.count) == Some(128),
        "the limit is the agent's default"
    );
    ready().await?;

    // The end of the agent is the driver's end on this node, until it is back, this time with a place.
    w1.stop_agent().await?;
    becomes_registered(cluster, "w1", false).await?;
    w1.start_agent(&["--topology", "topology.rds.csi.srvlab.io/rack=r1", "--max-volumes-per-node", "16"])
        .await?;
    becomes_registered(cluster, "w1", true).await?;
    let driver = registered(cluster, "w1").await?.context("just there")?;
    ensure!(driver.topology_keys == Some(vec!["topology.rds.csi.srvlab.io/rack".to_owned()]));
    ensure!(driver.allocatable.and_then(|limit| limit.count) == Some(16));
    ready().await?;
    let metrics = reqwest::get(format!("{}/metrics", w1.admin_url())).await?.text().await?;
    ensure!(metrics.contains("rds_csi_registered 1"), "{metrics}");
    w1.stop_agent().await?;
    w1.start_agent(&[]).await?;
    becomes_registered(cluster, "w1", true).await
}
