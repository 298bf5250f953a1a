//! What a volume in use says of itself, and what is changed about it meanwhile.

use anyhow::{Context as _, Result, ensure};
use rds_csi_api::ReconnectPolicy;
use rds_csi_integration::driver::{Driver, Pod, block, filesystem};
use rds_csi_integration::rig::{Rig, Worker};

use super::MIB;
use super::health::trouble;

pub(crate) async fn a_connection_in_use_follows_another_reconnect_policy(rig: &Rig) -> Result<()> {
    Driver::on(rig, async |driver| {
        let w1 = rig.worker("w1");
        let volume = driver.create("retuned", block(), 32 * MIB).await?;
        let mut pod = driver.attach(&volume, w1).await?;
        let controller = w1.nvme_connections().await?.pop().context("w1 is not connected")?.controller;
        let read = format!(
            "cd /sys/class/nvme/{controller} && echo $(cat ctrl_loss_tmo reconnect_delay fast_io_fail_tmo)"
        );
        ensure!(w1.sh(&read).await? == "off 2 off", "{}", w1.sh(&read).await?);
        // 600 s are 86 attempts, one each 7 s.
        for (policy, seen) in
            [("600,7,5,120", "602 7 120"), ("60,1,5,off", "60 1 off"), ("-1,3,5,0", "off 3 0")]
        {
            let policy: ReconnectPolicy = policy.parse()?;
            pod.context.extend(policy.to_pairs().map(|(key, value)| (key.to_owned(), value)));
            match seen {
                "60 1 off" => pod.publish().await?,
                _ => pod.stage().await?,
            }
            ensure!(w1.sh(&read).await? == seen, "{policy}: {}", w1.sh(&read).await?);
        }
        driver.detach(pod).await?;

        // A new connection begins with it.
        let context = driver.publish(&volume, "w1").await?;
        let mut pod = Pod::new(w1, volume.clone(), context, "pod-1");
        let policy: ReconnectPolicy = "600,5,5,20".parse()?;
        pod.context.extend(policy.to_pairs().map(|(key, value)| (key.to_owned(), value)));
        pod.stage().await?;
        let read = "cd /sys/class/nvme/nvme* && echo $(cat ctrl_loss_tmo reconnect_delay fast_io_fail_tmo)";
        ensure!(w1.sh(read).await? == "600 5 20", "{}", w1.sh(read).await?);
        pod.unstage().await?;
        driver.unpublish(&volume, "w1").await?;
        driver.delete(&volume).await?;
        Ok(())
    })
    .await
}

/// Waits until all the controllers of a worker are in that state.
async fn all_are(worker: &Worker, state: &str) -> Result<()> {
    let states = "cat /sys/class/nvme/*/state | sort -u";
    worker.sh(&format!("until [ \"$({states})\" = {state} ]; do sleep 0.1; done")).await.map(drop)
}

pub(crate) async fn a_volume_says_how_full_and_how_well_it_is(rig: &Rig) -> Result<()> {
    Driver::on(rig, async |driver| {
        let w1 = rig.worker("w1");
        let ext4 = driver.create("told-ext4", filesystem("ext4"), 64 * MIB).await?;
        let xfs = driver.create("told-xfs", filesystem("xfs"), 320 * MIB).await?;
        let (ext4, xfs) = (driver.attach(&ext4, w1).await?, driver.attach(&xfs, w1).await?);
        let used = async |pod: &Pod<'_>| {
            let usage = pod.stats().await?.usage;
            ensure!(usage.len() == 2 && usage[0].total > 0 && usage[1].total > 0, "{usage:?}");
            anyhow::Ok((u64::try_from(usage[0].used)?, usage[1].used))
        };
        for pod in [&ext4, &xfs] {
            ensure!(trouble(pod).await?.is_none(), "{:?}", trouble(pod).await?);
            let (bytes, inodes) = used(pod).await?;
            w1.sh(&format!("dd if=/dev/zero of={}/data bs=1M count=16 conv=fsync 2>/dev/null", pod.path()))
                .await?;
            let (more, more_inodes) = used(pod).await?;
            ensure!(more >= bytes + 16 * MIB && more < bytes + 18 * MIB, "{bytes} became {more}");
            ensure!(more_inodes == inodes + 1, "{inodes} inodes became {more_inodes}");
        }

        // Errors that the kernels' own developers test with.
        let device = format!("$(basename $(findmnt -n -o SOURCE {}))", ext4.path());
        w1.sh(&format!("echo rig >/sys/fs/ext4/{device}/trigger_fs_error")).await?;
        let told = trouble(&ext4).await?.context("an error of ext4 is not told")?;
        ensure!(told.contains("recorded 1 errors"), "{told}");
        w1.sh(&format!("xfs_io -x -c shutdown {}", xfs.path())).await?;
        let told = trouble(&xfs).await?.context("an XFS that shut itself down is not told")?;
        ensure!(told.contains("does not answer"), "{told}");

        w1.cut_network().await?;
        all_are(w1, "connecting").await?;
        let told = trouble(&ext4).await?.context("an array that is gone is not told")?;
        ensure!(told.contains("the array does not answer"), "{told}");
        w1.restore_network().await?;
        all_are(w1, "live").await?;
        for pod in [ext4, xfs] {
            let volume = pod.volume.clone();
            driver.detach(pod).await?;
            driver.delete(&volume).await?;
        }
        Ok(())
    })
    .await
}
