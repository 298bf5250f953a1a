//! What becomes of data: it is where it was written, whatever is called, and however often.

use anyhow::{Result, ensure};
use rds_csi_integration::driver::{Driver, block, filesystem};
use rds_csi_integration::rig::Rig;
use tonic::Code;

use super::{MIB, expect_refusal};

pub(crate) async fn a_filesystem_volume_moves_with_its_data(rig: &Rig) -> Result<()> {
    Driver::on(rig, async |driver| {
        let (w1, w2) = (rig.worker("w1"), rig.worker("w2"));
        for (fs, size) in [("ext4", 64 * MIB), ("xfs", 512 * MIB), ("ext3", 64 * MIB)] {
            let volume = driver.create(&format!("moving-{fs}"), filesystem(fs), size).await?;
            let pod = driver.attach(&volume, w1).await?;
            let file = format!("{}/data", pod.path());
            let written = w1
                .sh(&format!(
                    "dd if=/dev/urandom of={file} bs=1M count=8 2>/dev/null; sync; sha256sum <{file}"
                ))
                .await?;
            ensure!(w1.sh(&format!("findmnt -n -o FSTYPE {}", pod.path())).await? == fs);
            driver.detach(pod).await?;
            ensure!(w1.nvme_connections().await?.is_empty(), "w1 is still connected");

            let pod = driver.attach(&volume, w2).await?;
            ensure!(w2.sh(&format!("sha256sum <{file}")).await? == written, "{fs}: the data differs on w2");
            driver.detach(pod).await?;
            driver.delete(&volume).await?;
        }
        Ok(())
    })
    .await
}

pub(crate) async fn a_block_volume_moves_with_its_data(rig: &Rig) -> Result<()> {
    Driver::on(rig, async |driver| {
        let (w1, w2) = (rig.worker("w1"), rig.worker("w2"));
        let volume = driver.create("moving-block", block(), 32 * MIB).await?;
        let pod = driver.attach(&volume, w1).await?;
        let device = pod.path();
        let read = format!("dd if={device} bs=1M count=8 iflag=direct 2>/dev/null | sha256sum");
        ensure!(w1.sh(&format!("stat -c %F {device}")).await? == "block special file");
        w1.sh(&format!("dd if=/dev/urandom of={device} bs=1M count=8 oflag=direct 2>/dev/null")).await?;
        let written = w1.sh(&read).await?;
        driver.detach(pod).await?;
        ensure!(!w1.run(&format!("test -e {device}")).await?.succeeded(), "the device node is still there");

        let pod = driver.attach(&volume, w2).await?;
        ensure!(w2.sh(&read).await? == written, "the data differs on w2");
        driver.detach(pod).await?;
        driver.delete(&volume).await?;
        Ok(())
    })
    .await
}

pub(crate) async fn two_pods_of_a_node_share_a_volume(rig: &Rig) -> Result<()> {
    Driver::on(rig, async |driver| {
        let w1 = rig.worker("w1");
        let volume = driver.create("two-pods", filesystem("ext4"), 64 * MIB).await?;
        let first = driver.attach(&volume, w1).await?;
        let second = first.beside("pod-2");
        second.publish().await?;
        w1.sh(&format!("echo shared >{}/file", first.path())).await?;
        ensure!(w1.sh(&format!("cat {}/file", second.path())).await? == "shared");
        first.unpublish().await?;
        ensure!(w1.sh(&format!("cat {}/file", second.path())).await? == "shared");
        expect_refusal(second.unstage().await, Code::FailedPrecondition, &[&second.path()])?;
        driver.detach(second).await?;
        driver.delete(&volume).await?;
        Ok(())
    })
    .await
}

pub(crate) async fn sizes_are_exact_to_the_byte(rig: &Rig) -> Result<()> {
    Driver::on(rig, async |driver| {
        let w1 = rig.worker("w1");
        let size = 64 * MIB + 4096;
        let volume = driver.create("exact", block(), size).await?;
        let pod = driver.attach(&volume, w1).await?;
        ensure!(w1.sh(&format!("blockdev --getsize64 {}", pod.path())).await? == size.to_string());
        driver.detach(pod).await?;
        driver.delete(&volume).await?;
        Ok(())
    })
    .await
}

pub(crate) async fn repeating_every_call_changes_nothing(rig: &Rig) -> Result<()> {
    Driver::on(rig, async |driver| {
        let w1 = rig.worker("w1");
        let volume = driver.create("repeated", filesystem("ext4"), 64 * MIB).await?;
        let again = driver.create("repeated", filesystem("ext4"), 64 * MIB).await?;
        ensure!((again.id == volume.id) && (again.context == volume.context), "another volume: {again:?}");

        let pod = driver.attach(&volume, w1).await?;
        w1.sh(&format!("echo precious >{}/file; sync", pod.path())).await?;
        let mounts = w1.mounts().await?;
        let mut context = driver.publish(&volume, w1.name()).await?;
        // Each call has a span of its own.
        context.insert("traceparent".into(), pod.context["traceparent"].clone());
        ensure!(context == pod.context, "the second attach answered {context:?}");
        pod.stage().await?;
        pod.publish().await?;
        ensure!(w1.mounts().await? == mounts, "a repeated call changed the mounts: {:?}", w1.mounts().await?);
        ensure!(w1.sh(&format!("cat {}/file", pod.path())).await? == "precious");

        pod.unpublish().await?;
        pod.unpublish().await?;
        pod.unstage().await?;
        pod.unstage().await?;
        driver.unpublish(&volume, w1.name()).await?;
        driver.unpublish(&volume, w1.name()).await?;
        driver.delete(&volume).await?;
        driver.delete(&volume).await?;
        Ok(())
    })
    .await
}
