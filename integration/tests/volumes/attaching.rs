//! Who may hold a volume, and who is asked before it is taken away.

use anyhow::{Result, ensure};
use rds_csi_integration::driver::{Driver, Pod, block, filesystem, shared_block};
use rds_csi_integration::rig::Rig;
use tonic::Code;

use super::{MIB, expect_refusal};

pub(crate) async fn a_second_node_is_refused_by_name(rig: &Rig) -> Result<()> {
    Driver::on(rig, async |driver| {
        let (w1, w2) = (rig.worker("w1"), rig.worker("w2"));
        let volume = driver.create("exclusive", filesystem("ext4"), 64 * MIB).await?;
        let pod = driver.attach(&volume, w1).await?;
        expect_refusal(driver.publish(&volume, "w2").await, Code::FailedPrecondition, &["w1", &volume.id])?;
        expect_refusal(driver.delete(&volume).await, Code::FailedPrecondition, &["w1"])?;
        driver.detach(pod).await?;
        // No period of grace, and none of waiting either.
        let pod = driver.attach(&volume, w2).await?;
        driver.detach(pod).await?;
        driver.delete(&volume).await?;
        Ok(())
    })
    .await
}

pub(crate) async fn two_nodes_share_a_block_volume_and_a_third_is_refused(rig: &Rig) -> Result<()> {
    Driver::on(rig, async |driver| {
        let (w1, w2) = (rig.worker("w1"), rig.worker("w2"));
        let volume = driver.create("shared", shared_block(), 32 * MIB).await?;
        let source = driver.attach(&volume, w1).await?;
        let target = driver.attach(&volume, w2).await?;
        let device = source.path();
        w1.sh(&format!("echo from-w1 | dd of={device} bs=4096 conv=sync oflag=direct 2>/dev/null")).await?;
        let read =
            w2.sh(&format!("dd if={device} bs=4096 count=1 iflag=direct 2>/dev/null | head -c 7")).await?;
        ensure!(read == "from-w1", "w2 reads {read:?}");
        expect_refusal(driver.publish(&volume, "w3").await, Code::FailedPrecondition, &["w1", "w2"])?;
        driver.detach(source).await?;
        w2.sh(&format!("echo from-w2 | dd of={device} bs=4096 conv=sync oflag=direct 2>/dev/null")).await?;
        driver.detach(target).await?;
        driver.delete(&volume).await?;
        Ok(())
    })
    .await
}

/// Bookkeeping is not a fence: the array itself refuses whom the controller did not admit.
pub(crate) async fn a_node_that_was_not_admitted_cannot_connect(rig: &Rig) -> Result<()> {
    Driver::on(rig, async |driver| {
        let (w1, w2) = (rig.worker("w1"), rig.worker("w2"));
        let volume = driver.create("fenced", block(), 32 * MIB).await?;
        let pod = driver.attach(&volume, w1).await?;
        let intruder = Pod::new(w2, volume.clone(), pod.context.clone(), "intruder");
        expect_refusal(intruder.stage().await, Code::FailedPrecondition, &["refused the connection"])?;
        ensure!(w2.nvme_connections().await?.is_empty(), "the failed stage left a connection");
        intruder.unstage().await?;
        driver.detach(pod).await?;
        driver.delete(&volume).await?;
        Ok(())
    })
    .await
}

pub(crate) async fn a_detach_while_a_process_has_the_device_open_names_it(rig: &Rig) -> Result<()> {
    Driver::on(rig, async |driver| {
        let w1 = rig.worker("w1");
        let volume = driver.create("held", block(), 32 * MIB).await?;
        let pod = driver.attach(&volume, w1).await?;
        // By another path than ours, as a pod has it: a node of its own in its own /dev.
        let node = "/tmp/its-own-node";
        w1.sh(&format!("cp -R {} {node}", pod.path())).await?;
        let pid = w1.sh(&format!("tail -f /dev/null <{node} >/dev/null 2>&1 & echo $!")).await?;
        for refused in [driver.unpublish(&volume, "w1").await, pod.unstage().await] {
            expect_refusal(refused, Code::FailedPrecondition, &[&pid, "tail", node])?;
        }
        ensure!(w1.nvme_connections().await?.len() == 1, "the refused detach disconnected the device");
        w1.sh(&format!("kill {pid}; while [ -e /proc/{pid} ]; do :; done; rm {node}")).await?;
        driver.detach(pod).await?;
        driver.delete(&volume).await?;
        Ok(())
    })
    .await
}

pub(crate) async fn a_detach_while_the_volume_is_mounted_is_refused(rig: &Rig) -> Result<()> {
    Driver::on(rig, async |driver| {
        let w1 = rig.worker("w1");
        let volume = driver.create("mounted", filesystem("ext4"), 64 * MIB).await?;
        let pod = driver.attach(&volume, w1).await?;
        expect_refusal(
            driver.unpublish(&volume, "w1").await,
            Code::FailedPrecondition,
            &["w1", &pod.path()],
        )?;
        driver.detach(pod).await?;
        driver.delete(&volume).await?;
        Ok(())
    })
    .await
}

pub(crate) async fn one_trace_tells_of_attaching_staging_and_publishing(rig: &Rig) -> Result<()> {
    Driver::on(rig, async |driver| {
        let volume = driver.create("traced", filesystem("ext4"), 64 * MIB).await?;
        let pod = driver.attach(&volume, rig.worker("w1")).await?;
        let collector = driver.collector();
        let attach = collector.span("csi.v1.Controller/ControllerPublishVolume").await?;
        ensure!(attach.service == "rds-csi-controller", "{attach:?}");
        for name in ["csi.v1.Node/NodeStageVolume", "csi.v1.Node/NodePublishVolume"] {
            let span = collector.span(name).await?;
            ensure!(span.service == "rds-csi-node-agent", "{span:?}");
            ensure!(
                (&span.trace, &span.parent) == (&attach.trace, &attach.id),
                "{span:?} is no child of {attach:?}"
            );
        }
        driver.detach(pod).await?;
        driver.delete(&volume).await?;
        Ok(())
    })
    .await
}
