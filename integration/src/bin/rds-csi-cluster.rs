//! A Kubernetes cluster with the driver, to try it by kubectl: boots it, says how to reach it, and ends it on Ctrl-C.

use anyhow::Result;
use clap::Parser;
use rds_csi_integration::cluster::Cluster;
use rds_csi_integration::rig::World as _;

#[derive(Debug, Parser)]
#[command(version, about = "Boot a Kubernetes cluster on microVMs, with the driver installed")]
struct Arguments {
    /// How many nodes
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=8))]
    nodes: u8,
}

#[tokio::main]
async fn main() -> Result<()> {
    let Arguments { nodes } = Arguments::parse();
    let cluster = Cluster::boot(nodes).await?;
    println!("{}\nCtrl-C ends it", cluster.directions());
    tokio::signal::ctrl_c().await?;
    // Whatever was made by hand may lie about: this is no test, so nothing is asserted.
    drop(cluster);
    Ok(())
}
