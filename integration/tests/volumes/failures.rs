//! What breaks while volumes are in use: cables, arrays, agents, nodes.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rds_csi_integration::driver::{Driver, Pod, filesystem};
use rds_csi_integration::rig::{Rig, Worker};

use super::MIB;

pub(crate) async fn a_cable_pulled_for_ten_seconds_loses_nothing(rig: &Rig) -> Result<()> {
    Driver::on(rig, async |driver| {
        let w1 = rig.worker("w1");
        let volume = driver.create("cable", filesystem("ext4"), 64 * MIB).await?;
        let pod = driver.attach(&volume, w1).await?;
        let writer = Writer::start(w1, &pod).await?;
        writer.acknowledges_more().await?;
        w1.cut_network().await?;
        // How long the cable is out is the test, and not a wait for something.
        tokio::time::sleep(Duration::from_secs(10)).await;
        w1.restore_network().await?;
        writer.acknowledges_more().await?;
        writer.finish(driver, pod).await?;
        driver.delete(&volume).await?;
        Ok(())
    })
    .await
}

pub(crate) async fn an_array_that_reboots_comes_back_to_its_mounts(rig: &Rig) -> Result<()> {
    Driver::on(rig, async |driver| {
        let w1 = rig.worker("w1");
        let volume = driver.create("rebooted", filesystem("ext4"), 64 * MIB).await?;
        let pod = driver.attach(&volume, w1).await?;
        let writer = Writer::start(w1, &pod).await?;
        writer.acknowledges_more().await?;
        rig.array().reboot().await?;
        writer.acknowledges_more().await?;
        writer.finish(driver, pod).await?;
        driver.delete(&volume).await?;
        Ok(())
    })
    .await
}

pub(crate) async fn a_killed_agent_goes_on_where_it_was(rig: &Rig) -> Result<()> {
    Driver::on(rig, async |driver| {
        let w1 = rig.worker("w1");
        let volume = driver.create("killed-agent", filesystem("ext4"), 64 * MIB).await?;
        let pod = driver.attach(&volume, w1).await?;
        w1.sh(&format!("echo precious >{}/file; sync", pod.path())).await?;
        w1.kill_agent().await?;
        w1.start_agent(&[]).await?;
        ensure!(w1.sh(&format!("cat {}/file", pod.path())).await? == "precious");
        pod.stage().await?;
        pod.publish().await?;
        driver.detach(pod).await?;
        ensure!(w1.nvme_connections().await?.is_empty(), "w1 is still connected");
        driver.delete(&volume).await?;
        Ok(())
    })
    .await
}

pub(crate) async fn a_dead_node_is_fenced_before_its_volume_moves(rig: &Rig) -> Result<()> {
    Driver::on(rig, async |driver| {
        let (w1, w2) = (rig.worker("w1"), rig.worker("w2"));
        let volume = driver.create("orphaned", filesystem("ext4"), 64 * MIB).await?;
        let pod = driver.attach(&volume, w1).await?;
        w1.sh(&format!("echo precious >{}/file; sync", pod.path())).await?;
        w1.pause().await?;
        driver.unpublish(&volume, w1.name()).await?;
        let moved = driver.attach(&volume, w2).await?;
        ensure!(w2.sh(&format!("cat {}/file", moved.path())).await? == "precious");

        w1.resume().await?;
        // The zombie writes, and not one byte of it may arrive, however long it tries.
        let late = format!(
            "(echo late | dd of={}/file conv=fsync && touch /run/late) >/dev/null 2>&1 &",
            pod.path()
        );
        w1.sh(&late).await?;
        tokio::time::sleep(Duration::from_secs(8)).await;
        ensure!(!w1.run("test -e /run/late").await?.succeeded(), "the fenced node could write");
        ensure!(w2.sh(&format!("cat {}/file", moved.path())).await? == "precious");
        driver.detach(moved).await?;

        w1.kill().await?;
        w1.boot().await?;
        w1.start_agent(&[]).await?;
        driver.delete(&volume).await?;
        Ok(())
    })
    .await
}

/// A program that appends numbers to a file on the volume, each with an fsync, and remembers elsewhere which the volume
/// acknowledged.
struct Writer<'rig> {
    worker: &'rig Worker,
    file: String,
}

impl<'rig> Writer<'rig> {
    async fn start(worker: &'rig Worker, pod: &Pod<'rig>) -> Result<Self> {
        let file = format!("{}/numbers", pod.path());
        let script = format!(
            "rm -f /run/acknowledged; n=0; \
             while n=$((n+1)); do \
             echo $n | dd of={file} oflag=append conv=notrunc,fsync 2>/dev/null && echo $n >/run/acknowledged || exit 1; done"
        );
        worker.guest().start("writer", ["sh", "-c", &script], &[]).await?;
        Ok(Self { worker, file })
    }

    /// Waits until twenty more numbers are acknowledged than now; a minute at most.
    async fn acknowledges_more(&self) -> Result<()> {
        let script = "n=/run/acknowledged; until [ -s $n ]; do sleep 0.1; done; enough=$(( $(cat $n) + 20 )); \
                      until [ \"$(cat $n)\" -ge $enough ]; do sleep 0.1; done";
        self.worker.sh(script).await.map(drop)
    }

    /// Ends it, detaches, attaches again, and looks whether each acknowledged number is there.
    async fn finish(self, driver: &Driver<'rig>, pod: Pod<'rig>) -> Result<()> {
        self.worker.guest().signal("writer", 15).await?;
        self.worker.guest().wait("writer", Duration::from_mins(1)).await?;
        let acknowledged: u64 =
            self.worker.sh("cat /run/acknowledged").await?.parse().context("acknowledged")?;
        let volume = pod.volume.clone();
        driver.detach(pod).await?;
        let pod = driver.attach(&volume, self.worker).await?;
        let count = format!("awk '$1 != NR {{ exit 1 }} END {{ print NR }}' {}", self.file);
        let written: u64 = self.worker.sh(&count).await?.parse().context("written")?;
        ensure!(written >= acknowledged, "{acknowledged} writes were acknowledged, {written} are there");
        driver.detach(pod).await?;
        Ok(())
    }
}
