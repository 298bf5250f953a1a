//! The machine that a node agent works on keeps the contract that its stand-in in memory keeps.

use anyhow::{Context as _, Result};
use rds_csi_integration::driver::{Driver, block};
use rds_csi_integration::kernel::Order;
use rds_csi_integration::rig::Rig;

use super::MIB;

pub(crate) async fn a_worker_s_kernel_keeps_the_contract(rig: &Rig) -> Result<()> {
    Driver::on(rig, async |driver| {
        let w1 = rig.worker("w1");
        let volume = driver.create("contract", block(), 64 * MIB).await?;
        let context = driver.publish(&volume, w1.name()).await?;
        let told = |key: &str| {
            let told = context.get(key).or_else(|| volume.context.get(key)).cloned();
            told.with_context(|| format!("no {key} is told"))
        };
        let order = Order {
            node: w1.name().into(),
            nqn: told("nqn")?,
            address: told("nvmeAddress")?,
            port: told("nvmePort")?,
            size: volume.size,
        };
        w1.guest().write("/run/contract.json", 0o600, &serde_json::to_vec(&order)?).await?;
        w1.sh("rds-csi-guest contract /run/contract.json").await?;
        driver.unpublish(&volume, w1.name()).await?;
        Ok(driver.delete(&volume).await?)
    })
    .await
}
