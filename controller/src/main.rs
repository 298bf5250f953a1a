//! `rds-csi-controller`: reads its configuration, then runs, or examines an array.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use rds_csi_controller::config::{Args, Config};
use rds_csi_controller::doctor;
use rds_csi_controller::run::run;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    // One word decides what the program is, and with that which flags it needs.
    if std::env::args_os().nth(1).is_some_and(|word| word == "doctor") {
        return Ok(doctor::run(doctor::Args::parse_from(std::env::args_os().skip(1))).await);
    }
    // One provider of cryptography for everything that speaks TLS; without it rustls has none.
    let installed = rustls::crypto::ring::default_provider().install_default();
    anyhow::ensure!(installed.is_ok(), "another provider of cryptography is installed already");
    let config = Config::try_from(Args::parse()).context("the configuration cannot be used")?;
    run(config).await?;
    Ok(ExitCode::SUCCESS)
}
