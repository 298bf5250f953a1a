//! Volumes that become larger: on the array, on the node, and in the filesystem, while pods use them.

use anyhow::{Result, ensure};
use rds_csi_api::csi::VolumeUsage;
use rds_csi_integration::driver::{Driver, block, filesystem};
use rds_csi_integration::rig::Rig;

use super::MIB;

pub(crate) async fn volumes_grow_while_they_are_in_use(rig: &Rig) -> Result<()> {
    Driver::on(rig, async |driver| {
        let w1 = rig.worker("w1");
        for (name, capability, small, large) in [
            ("ext4", filesystem("ext4"), 64 * MIB, 192 * MIB + 4096),
            ("ext3", filesystem("ext3"), 64 * MIB, 192 * MIB),
            ("xfs", filesystem("xfs"), 320 * MIB, 512 * MIB),
            ("block", block(), 32 * MIB, 48 * MIB + 4096),
        ] {
            let volume = driver.create(&format!("growing-{name}"), capability, small).await?;
            let pod = driver.attach(&volume, w1).await?;
            let (file, device) = match name {
                "block" => (pod.path(), pod.path()),
                _ => (format!("{}/data", pod.path()), format!("$(findmnt -n -o SOURCE {})", pod.path())),
            };
            w1.sh(&format!("dd if=/dev/urandom of={file} bs=1M count=8 conv=fsync 2>/dev/null")).await?;
            let digest = format!("head -c 8388608 {file} | sha256sum");
            let written = w1.sh(&digest).await?;
            // Somebody has it open all the time.
            let pid = w1.sh(&format!("tail -f /dev/null <{file} >/dev/null 2>&1 & echo $!")).await?;

            ensure!(driver.expand(&volume, large).await? == large, "{name}: the array has another size");
            for _ in 0..2 {
                let told = pod.expand(large).await?;
                ensure!(told == large, "{name}: the node tells {told} instead of {large}");
            }
            let real = w1.sh(&format!("blockdev --getsize64 {device}")).await?;
            ensure!(real == large.to_string(), "{name}: the device has {real} instead of {large}");
            let total = pod.stats().await?.usage.first().map_or(0, |VolumeUsage { total, .. }| *total);
            // A filesystem keeps some for itself; the old one had less than the whole old device.
            ensure!(u64::try_from(total)? > small, "{name}: {total} bytes are told of {large}");
            ensure!(w1.sh(&digest).await? == written, "{name}: the data differs");
            if name != "block" {
                let more = format!(
                    "dd if=/dev/zero of={}/more bs=1M count={} 2>/dev/null",
                    pod.path(),
                    (large - small) / MIB / 2 + 60
                );
                w1.sh(&more).await?;
            }
            w1.sh(&format!("kill {pid}; while [ -e /proc/{pid} ]; do :; done")).await?;
            driver.detach(pod).await?;
            driver.delete(&volume).await?;
        }
        Ok(())
    })
    .await
}
