//! PID 1 of the rig's guests; `integration/guest/init` starts it.

use rds_csi_integration::rig::init;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    init::serve().await
}
