//! `rds-csi-node-agent`: reads its configuration, then runs, or shows how the node's volumes are.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use rds_csi_node_agent::config::{Args, Config};
use rds_csi_node_agent::privilege;
use rds_csi_node_agent::run::run;
use rds_csi_node_agent::status;

fn main() -> anyhow::Result<ExitCode> {
    // One word decides what the program is, and with that which flags it needs.
    if std::env::args_os().nth(1).is_some_and(|word| word == "status") {
        return Ok(status::run(status::Args::parse_from(std::env::args_os().skip(1))));
    }
    // One provider of cryptography for everything that speaks TLS; without it rustls has none.
    let installed = rustls::crypto::ring::default_provider().install_default();
    anyhow::ensure!(installed.is_ok(), "another provider of cryptography is installed already");
    let config = Config::try_from(Args::parse()).context("the configuration cannot be used")?;
    // Before the runtime has threads: each thread has its own.
    let reduced = privilege::reduce().context("privileges that are not used cannot be given up")?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let outcome = runtime.block_on(run(config, &reduced));
    // Dropping the runtime would wait for every thread, and so for ever if one is in a hung system call.
    runtime.shutdown_background();
    outcome.map(|()| ExitCode::SUCCESS)
}
