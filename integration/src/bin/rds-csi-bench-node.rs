//! `./just bench-node`: what the node agent adds to the system calls that it makes. It exits with 1 if a call runs a program that
//! it should not run.

use rds_csi_integration::bench_node::{self, crowd};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    if std::env::args().nth(1).as_deref() == Some(crowd::LOOK) {
        return crowd::look();
    }
    bench_node::run().await
}
