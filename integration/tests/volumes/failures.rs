//! What breaks while volumes are in use: cables, arrays, agents, nodes.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rds_csi_integration::driver::{Driver, Volume, Writer, filesystem};
use rds_csi_integration::rig::Rig;
use rds_csi_integration::rig::protocol::Exit;

use super::MIB;
use super::health::{Watched, trouble};

pub(crate) async fn a_cable_pulled_for_ten_seconds_loses_nothing(rig: &Rig) -> Result<()> {
    Driver::on(rig, async |driver| {
        let w1 = rig.worker("w1");
        let volume = driver.create("cable", filesystem("ext4"), 64 * MIB).await?;
        let pod = driver.attach(&volume, w1).await?;
        let mut watched = Watched::begin(driver, &pod).await?;
        let writer = Writer::start(&pod).await?;
        writer.acknowledges_more().await?;
        w1.cut_network().await?;
        // How long the cable is out is the test, and not a wait for something.
        tokio::time::sleep(Duration::from_secs(10)).await;
        watched.tells("ConnectionLost").await?;
        let told = trouble(&pod).await?.context("an array that is gone is not told")?;
        ensure!(told.contains("the array does not answer"), "{told}");
        ensure!(watched.condition().await? == told, "the controller is told something else");
        let status = w1.run("rds-csi-node-agent status").await?;
        ensure!(status.exit == Exit::Code(1) && status.stdout.contains("connecting"), "{status}");
        w1.restore_network().await?;
        writer.acknowledges_more().await?;
        watched.tells("ConnectionRecovered").await?;
        watched.is_as_before().await?;
        let acknowledged = writer.stop().await?;
        driver.detach(pod).await?;
        nothing_is_lost(driver, &writer, &volume, acknowledged).await
    })
    .await
}

pub(crate) async fn an_array_that_reboots_comes_back_to_its_mounts(rig: &Rig) -> Result<()> {
    Driver::on(rig, async |driver| {
        let w1 = rig.worker("w1");
        let volume = driver.create("rebooted", filesystem("ext4"), 64 * MIB).await?;
        let pod = driver.attach(&volume, w1).await?;
        let mut watched = Watched::begin(driver, &pod).await?;
        let writer = Writer::start(&pod).await?;
        writer.acknowledges_more().await?;
        rig.array().reboot().await?;
        writer.acknowledges_more().await?;
        watched.tells("ConnectionLost").await?;
        watched.tells("ConnectionRecovered").await?;
        watched.is_as_before().await?;
        let acknowledged = writer.stop().await?;
        pod.unpublish().await?;
        pod.unstage().await?;
        // The controller finds out only now that its connection went with the array.
        driver.unpublish_once_available(&volume, w1.name()).await?;
        nothing_is_lost(driver, &writer, &volume, acknowledged).await
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
        // From the array, and not from what w2 remembers of it.
        let read = format!("echo 3 >/proc/sys/vm/drop_caches; cat {}/file", moved.path());
        ensure!(w2.sh(&read).await? == "precious");
        driver.detach(moved).await?;
        let moved = driver.attach(&volume, w2).await?;
        ensure!(w2.sh(&read).await? == "precious");
        driver.detach(moved).await?;

        w1.kill().await?;
        w1.boot().await?;
        w1.start_agent(&[]).await?;
        // As its kubelet does when it is back: until then the agent keeps its record.
        driver.detach(pod).await?;
        driver.delete(&volume).await?;
        Ok(())
    })
    .await
}

/// Attaches the volume again, finds each acknowledged number, and takes the volume away.
async fn nothing_is_lost(
    driver: &Driver<'_>,
    writer: &Writer<'_>,
    volume: &Volume,
    acknowledged: u64,
) -> Result<()> {
    let pod = driver.attach(volume, driver.rig().worker("w1")).await?;
    let written = writer.written().await?;
    ensure!(written >= acknowledged, "{acknowledged} writes were acknowledged, {written} are there");
    driver.detach(pod).await?;
    driver.delete(volume).await?;
    Ok(())
}
