//! `./just demo`: the main job on microVMs, told as a story. It exits with 1 if anything is off.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    rds_csi_integration::demo::run().await
}
