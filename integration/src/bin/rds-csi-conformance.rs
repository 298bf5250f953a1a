//! `./just conformance`: csi-sanity against both binaries, on a rig. It exits with 1 if anything is off.

use std::path::PathBuf;

use clap::Parser;
use rds_csi_integration::conformance::{self, Order};

#[derive(Debug, Parser)]
#[command(version, about = "Run csi-sanity against the controller and a node agent on microVMs")]
struct Arguments {
    /// The program csi-sanity; `./just conformance` builds it
    #[arg(long, value_name = "PATH")]
    csi_sanity: PathBuf,
    /// Only the specs whose name matches
    #[arg(long, value_name = "REGEX")]
    focus: Option<String>,
    /// The seed of the specs' order, as a run before told it
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u32>,
    /// Where to keep Ginkgo's reports (JSON)
    #[arg(long, value_name = "FOLDER")]
    reports: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { csi_sanity, focus, seed, reports } = Arguments::parse();
    conformance::run(&Order { program: csi_sanity, focus, seed, reports }).await
}
