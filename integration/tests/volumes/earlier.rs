//! What an earlier attachment, an earlier connection or an earlier driver left on a node.

use std::collections::HashMap;

use anyhow::{Context as _, Result, ensure};
use rds_csi_integration::driver::{Driver, Pod, Volume, block, filesystem};
use rds_csi_integration::rig::disk::{Disk, shut_out};
use rds_csi_integration::rig::{PORTAL, Rig};
use tonic::Code;

use super::{MIB, expect_refusal};

fn context(nqn: &str) -> HashMap<String, String> {
    [("nvmeAddress", PORTAL), ("nvmePort", "4420"), ("nqn", nqn), ("sizeBytes", &(64 * MIB).to_string())]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

/// The old name is gone from the array, as after a fence, while the node has the volume mounted and something unwritten.
pub(crate) async fn a_zombie_ends_its_old_connection_before_it_has_the_volume_again(rig: &Rig) -> Result<()> {
    Driver::on(rig, async |driver| {
        let w1 = rig.worker("w1");
        let (old, new) = ("nqn.2000-02.com.mikrotik:pvc-zombie", "nqn.2000-02.com.mikrotik:pvc-zombie:e2");
        let disk = Disk::create(rig, "pvc-zombie", 64).await?;
        disk.export("").await?;
        let volume = Volume {
            id: "pvc-zombie".into(),
            size: 64 * MIB,
            context: HashMap::new(),
            capability: filesystem("ext4"),
        };
        let mut pod = Pod::new(w1, volume, context(old), "pod-1");
        pod.stage().await?;
        pod.publish().await?;
        w1.sh(&format!("echo precious >{0}/file; sync; echo unwritten >{0}/file", pod.path())).await?;
        let disk = disk.renamed(new).await?;
        shut_out(w1).await?;

        pod.context = context(new);
        let pid = w1.sh(&format!("tail -f {}/file >/dev/null 2>&1 & echo $!", pod.path())).await?;
        expect_refusal(pod.stage().await, Code::DeadlineExceeded, &[&pid, "tail", old])?;
        w1.sh(&format!("kill -9 {pid}; while [ -e /proc/{pid} ]; do :; done")).await?;
        pod.stage().await?;
        ensure!(w1.sh(&format!("cat {}/file", pod.staging_path())).await? == "precious");
        let connections = w1.nvme_connections().await?;
        ensure!(connections.len() == 1 && connections[0].nqn == new, "{connections:?}");
        pod.publish().await?;
        ensure!(w1.sh(&format!("cat {}/file", pod.path())).await? == "precious");
        pod.unpublish().await?;
        pod.unstage().await?;
        ensure!(w1.nvme_connections().await?.is_empty(), "w1 is still connected");
        let _ = driver;
        disk.remove().await
    })
    .await
}

pub(crate) async fn a_mount_whose_device_is_gone_for_good_is_told_and_recovered(rig: &Rig) -> Result<()> {
    Driver::on(rig, async |driver| {
        let w1 = rig.worker("w1");
        let volume = driver.create("stale", filesystem("xfs"), 320 * MIB).await?;
        let pod = driver.attach(&volume, w1).await?;
        w1.sh(&format!("echo precious >{0}/file; sync; echo unwritten >{0}/other", pod.path())).await?;
        let held = format!("tail -f {}/file >/dev/null 2>&1 & echo $!", pod.path());
        let pid = w1.sh(&held).await?;
        w1.sh("for c in /sys/class/nvme/nvme*; do echo 1 >$c/delete_controller; done").await?;
        let condition = pod.stats().await?.volume_condition.context("no condition is told")?;
        ensure!(condition.abnormal && condition.message.contains("given up"), "{condition:?}");
        // Who holds what is left is named, although the device itself is not there to be asked.
        expect_refusal(pod.unstage().await, Code::FailedPrecondition, &[&pid, "tail", &pod.path()])?;
        pod.stage().await?;
        pod.publish().await?;
        ensure!(w1.sh(&format!("cat {}/file", pod.path())).await? == "precious");
        let condition = pod.stats().await?.volume_condition.context("no condition is told")?;
        ensure!(!condition.abnormal, "{condition:?}");
        w1.sh(&format!("kill -9 {pid}; while [ -e /proc/{pid} ]; do :; done")).await?;
        driver.detach(pod).await?;
        driver.delete(&volume).await?;
        Ok(())
    })
    .await
}

/// An earlier driver leaves mounts and connections and no record; devices it bound out of devtmpfs.
pub(crate) async fn what_an_earlier_driver_staged_is_taken_over(rig: &Rig) -> Result<()> {
    Driver::on(rig, async |driver| {
        let w1 = rig.worker("w1");
        for capability in [filesystem("ext4"), block()] {
            let volume = driver.create("earlier", capability, 64 * MIB).await?;
            let mut pod = driver.attach(&volume, w1).await?;
            w1.sh("rm /var/lib/rds-csi/*.json").await?;
            let second = pod.beside("pod-2");
            second.publish().await?;
            second.unpublish().await?;
            w1.sh("rm /var/lib/rds-csi/*.json").await?;
            if pod.path().contains("volumeDevices") {
                let bound = "rm T; touch T; mount --bind /dev/nvme*n1 T; mount --bind /dev/nvme*n1 T";
                w1.sh(&bound.replace('T', &pod.path())).await?;
                pod.publish().await?;
                w1.sh("rm /var/lib/rds-csi/*.json").await?;
            }
            // That driver's controller tells the node nothing.
            pod.context.clear();
            pod.stage().await?;
            w1.sh("rm /var/lib/rds-csi/*.json").await?;
            pod.unpublish().await?;
            ensure!(!w1.run(&format!("test -e {}", pod.path())).await?.succeeded(), "the target is left");
            pod.unstage().await?;
            ensure!(w1.nvme_connections().await?.is_empty(), "w1 is still connected");
            driver.unpublish(&volume, w1.name()).await?;
            driver.delete(&volume).await?;
        }
        Ok(())
    })
    .await
}

pub(crate) async fn two_pods_of_a_node_share_a_device(rig: &Rig) -> Result<()> {
    Driver::on(rig, async |driver| {
        let w1 = rig.worker("w1");
        let volume = driver.create("two-devices", block(), 32 * MIB).await?;
        let first = driver.attach(&volume, w1).await?;
        let second = first.beside("pod-2");
        second.publish().await?;
        let write =
            format!("echo shared | dd of={} bs=4096 conv=sync oflag=direct 2>/dev/null", first.path());
        w1.sh(&write).await?;
        first.unpublish().await?;
        ensure!(!w1.run(&format!("test -e {}", first.path())).await?.succeeded(), "the first device is left");
        let read = format!("dd if={} bs=4096 count=1 iflag=direct 2>/dev/null | head -c 6", second.path());
        ensure!(w1.sh(&read).await? == "shared");
        driver.detach(second).await?;
        driver.delete(&volume).await?;
        Ok(())
    })
    .await
}
