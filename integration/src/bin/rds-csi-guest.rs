//! PID 1 of the rig's guests; `integration/guest/init` starts it. `rds-csi-guest bench ORDER` is the benchmark's part in a
//! worker, and `contract ORDER` that of the contract of a node's machine.

use std::path::PathBuf;

use rds_csi_integration::bench_node::guest;
use rds_csi_integration::kernel;
use rds_csi_integration::rig::init;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    match (arguments.next(), arguments.next()) {
        (Some(word), Some(order)) if word == "bench" => guest::run(&PathBuf::from(order)).await,
        (Some(word), Some(order)) if word == "contract" => kernel::run(&PathBuf::from(order)),
        _ => Ok(init::serve().await?),
    }
}
