//! `rds-csi-controller`: reads its configuration, then runs.

use anyhow::Context as _;
use clap::Parser as _;
use rds_csi_controller::config::{Args, Config};
use rds_csi_controller::run::run;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // One provider of cryptography for everything that speaks TLS; without it rustls has none.
    let installed = rustls::crypto::ring::default_provider().install_default();
    anyhow::ensure!(installed.is_ok(), "another provider of cryptography is installed already");
    let config = Config::try_from(Args::parse()).context("the configuration cannot be used")?;
    run(config).await
}
