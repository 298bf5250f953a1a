//! Filesystems that something went wrong with: mounted if they can be, checked if they say so, repaired if they must be.

use anyhow::{Result, ensure};
use rds_csi_integration::driver::{Driver, Pod, block, filesystem};
use rds_csi_integration::rig::Rig;

use super::MIB;

/// Writes something that is to be there afterwards.
async fn write(pod: &Pod<'_>) -> Result<()> {
    let file = format!("{}/file", pod.path());
    pod.worker.sh(&format!("echo precious >{file}; sync -f {file}")).await.map(drop)
}

async fn read(pod: &Pod<'_>) -> Result<String> {
    pod.worker.sh(&format!("cat {}/file", pod.path())).await
}

pub(crate) async fn a_filesystem_that_recorded_an_error_is_checked_before_it_is_mounted(
    rig: &Rig,
) -> Result<()> {
    Driver::on(rig, async |driver| {
        let w1 = rig.worker("w1");
        for fs in ["ext4", "ext3"] {
            let volume = driver.create(&format!("flawed-{fs}"), filesystem(fs), 64 * MIB).await?;
            let pod = driver.attach(&volume, w1).await?;
            write(&pod).await?;
            let errors = |pod: &Pod<'_>, what: &str| {
                format!("cd /sys/fs/ext4/$(basename $(findmnt -n -o SOURCE {})) && {what}", pod.path())
            };
            w1.sh(&errors(&pod, "echo rig >trigger_fs_error")).await?;
            ensure!(w1.sh(&errors(&pod, "cat errors_count")).await? == "1", "{fs}: no error was recorded");
            driver.detach(pod).await?;

            let messages = w1.kernel_messages(&format!("{fs} comes back")).await?;
            let pod = driver.attach(&volume, w1).await?;
            ensure!(read(&pod).await? == "precious", "{fs}: the data differs");
            let told = w1.sh(&messages).await?;
            ensure!(!told.contains("with errors"), "{fs} was mounted as it was: {told}");
            ensure!(w1.sh(&errors(&pod, "cat errors_count")).await? == "0", "{fs}: the error is still there");
            let condition = pod.stats().await?.volume_condition;
            ensure!(condition.as_ref().is_some_and(|condition| !condition.abnormal), "{fs}: {condition:?}");
            driver.detach(pod).await?;
            driver.delete(&volume).await?;
        }
        Ok(())
    })
    .await
}

pub(crate) async fn a_filesystem_that_does_not_mount_is_repaired(rig: &Rig) -> Result<()> {
    Driver::on(rig, async |driver| {
        let w1 = rig.worker("w1");
        let volume = driver.create("broken", filesystem("ext4"), 64 * MIB).await?;
        let pod = driver.attach(&volume, w1).await?;
        write(&pod).await?;
        driver.detach(pod).await?;

        let mut raw = volume.clone();
        raw.capability = block();
        let pod = driver.attach(&raw, w1).await?;
        // The first group's count of free blocks: its descriptor, in the second block of 4 KiB, has a checksum.
        w1.sh(&format!(
            "printf '\\377\\377' | dd of={} bs=1 seek=4108 conv=notrunc,fsync 2>/dev/null",
            pod.path()
        ))
        .await?;
        driver.detach(pod).await?;

        let messages = w1.kernel_messages("the broken one comes back").await?;
        let pod = driver.attach(&volume, w1).await?;
        ensure!(read(&pod).await? == "precious", "the data differs");
        let told = w1.sh(&messages).await?;
        ensure!(told.contains("group descriptors corrupted"), "it was not tried to mount it first: {told}");
        driver.detach(pod).await?;
        driver.delete(&volume).await?;
        Ok(())
    })
    .await
}

/// LESSONS of others: xfs_repair takes a log that is to be replayed for damage.
pub(crate) async fn the_log_of_an_xfs_is_replayed_by_its_mount(rig: &Rig) -> Result<()> {
    Driver::on(rig, async |driver| {
        let w1 = rig.worker("w1");
        let volume = driver.create("replayed", filesystem("xfs"), 320 * MIB).await?;
        let pod = driver.attach(&volume, w1).await?;
        write(&pod).await?;
        // As a power cut leaves it: what is in the log is nowhere else.
        w1.sh(&format!("mkdir {0}/directory; xfs_io -x -c 'shutdown -f' {0}", pod.path())).await?;
        driver.detach(pod).await?;

        let messages = w1.kernel_messages("the log is dirty").await?;
        let pod = driver.attach(&volume, w1).await?;
        ensure!(read(&pod).await? == "precious", "the data differs");
        w1.sh(&format!("test -d {}/directory", pod.path())).await?;
        let told = w1.sh(&messages).await?;
        ensure!(told.contains("Ending recovery"), "there was no log to replay: {told}");
        driver.detach(pod).await?;
        driver.delete(&volume).await?;
        Ok(())
    })
    .await
}
