//! `./just bench-array`: what the controller sends to an array and how long it takes. It exits with 1 if it sends more than
//! it should.

use clap::Parser;
use rds_csi_integration::bench::{self, Order};

#[derive(Debug, Parser)]
#[command(version, about = "Count and time what the controller sends to a simulated array")]
struct Arguments {
    /// Also watch for 65 s what is sent while nothing happens
    #[arg(long)]
    idle: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { idle } = Arguments::parse();
    bench::run(Order { idle }).await
}
