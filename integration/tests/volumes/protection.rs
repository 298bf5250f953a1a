//! What the agent does by itself, and what it does no more, to protect a node and its array.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rds_csi_api::node_agent::{ResetBreakerRequest, WatchEventsRequest};
use rds_csi_integration::driver::{Driver, Pod, block};
use rds_csi_integration::rig::disk::Disk;
use rds_csi_integration::rig::{NvmeConnection, Rig, Worker};
use tonic::Code;

use super::{MIB, expect_refusal};

/// Two looks, a second apart.
const PATIENCE: Duration = Duration::from_mins(1);

const DISCONNECTED: &str = "rds_csi_orphans_disconnected_total";

async fn get(worker: &Worker, path: &str) -> Result<String> {
    Ok(reqwest::get(format!("{}{path}", worker.admin_url())).await?.text().await?)
}

/// Waits for the agent to tell that it ended this connection, and returns all connections that are left.
async fn ended(driver: &Driver<'_>, worker: &Worker, nqn: &str) -> Result<Vec<NvmeConnection>> {
    let mut agent = driver.node_agent(worker, driver.identity())?;
    let mut events = agent.watch_events(WatchEventsRequest::default()).await?.into_inner();
    let told = async {
        loop {
            let Some(event) = events.message().await?.context("the agent hung up")?.event else { continue };
            ensure!(event.reason == "OrphanDisconnected", "{event:?}");
            if event.message.contains(nqn) {
                return anyhow::Ok(());
            }
        }
    };
    tokio::time::timeout(PATIENCE, told).await.with_context(|| format!("{nqn} is still connected"))??;
    let left = worker.nvme_connections().await?;
    ensure!(left.iter().all(|nvme| nvme.nqn != nqn), "{left:?}");
    Ok(left)
}

pub(crate) async fn a_connection_that_nobody_uses_is_ended_and_no_other(rig: &Rig) -> Result<()> {
    Driver::on(rig, async |driver| {
        let w1 = rig.worker("w1");
        w1.stop_agent().await?;
        let mut disks = Vec::new();
        for slot in ["pvc-left-behind", "pvc-held", "nixos-home"] {
            let disk = Disk::create(rig, slot, 32).await?;
            disk.export("").await?;
            let device = disk.connect(w1).await?;
            disks.push((format!("nqn.2000-02.com.mikrotik:{slot}"), device, disk));
        }
        let [(left, ..), (held, device, _), (system, ..)] = &disks[..] else {
            unreachable!("three were made")
        };
        let volume = driver.create("staged-only", block(), 32 * MIB).await?;
        let context = driver.publish(&volume, "w1").await?;
        let pod = Pod::new(w1, volume.clone(), context, "pod-1");
        let pid = w1.sh(&format!("tail -f /dev/null <{device} >/dev/null 2>&1 & echo $!")).await?;
        w1.start_agent(&["--orphan-interval", "1"]).await?;
        pod.stage().await?;

        // In the look that ends this one the others are seen for the second time at least.
        let connections = ended(driver, w1, left).await?;
        for nqn in [held, system, &format!("nqn.2000-02.com.mikrotik:{}", volume.id)] {
            ensure!(connections.iter().any(|nvme| nvme.nqn == *nqn), "{nqn} was ended: {connections:?}");
        }
        let metrics = get(w1, "/metrics").await?;
        ensure!(metrics.contains(&format!("{DISCONNECTED} 1")), "{metrics}");

        w1.sh(&format!("kill {pid}; while [ -e /proc/{pid} ]; do :; done")).await?;
        let connections = ended(driver, w1, held).await?;
        ensure!(connections.len() == 2, "the system's volume and the staged one are left: {connections:?}");

        pod.unstage().await?;
        driver.unpublish(&volume, "w1").await?;
        driver.delete(&volume).await?;
        disks[2].2.disconnect(w1).await?;
        for (.., disk) in disks {
            disk.remove().await?;
        }
        Ok(())
    })
    .await
}

pub(crate) async fn an_array_that_refuses_is_asked_three_times_and_again_after_a_reset(
    rig: &Rig,
) -> Result<()> {
    Driver::on(rig, async |driver| {
        let (w1, w2) = (rig.worker("w1"), rig.worker("w2"));
        let volume = driver.create("broken", block(), 32 * MIB).await?;
        let pod = driver.attach(&volume, w1).await?;
        // The array admits w1 only.
        let refused = Pod::new(w2, volume.clone(), pod.context.clone(), "pod-1");
        for _ in 0..3 {
            expect_refusal(refused.stage().await, Code::FailedPrecondition, &["refused the connection"])?;
        }
        let facts = ["3 times in a row", "refused the connection", "rds.csi.srvlab.io/reset-circuit-breaker"];
        expect_refusal(refused.stage().await, Code::Unavailable, &facts)?;
        let told = get(w2, "/debug/breakers").await?;
        ensure!(told.contains(&volume.id) && told.contains("refused the connection"), "{told}");
        ensure!(get(w2, "/debug/events").await?.contains("BreakerOpened"));
        ensure!(get(w2, "/metrics").await?.contains("rds_csi_breakers_open 1"));

        driver.detach(pod).await?;
        let context = driver.publish(&volume, "w2").await?;
        let admitted = Pod::new(w2, volume.clone(), context, "pod-1");
        expect_refusal(admitted.stage().await, Code::Unavailable, &facts)?;
        let reset = ResetBreakerRequest { volume_id: volume.id.clone() };
        let was = driver.node_agent(w2, driver.identity())?.reset_breaker(reset).await?.into_inner().was_open;
        ensure!(was.contains("3 times in a row"), "{was:?}");
        admitted.stage().await?;
        admitted.publish().await?;
        ensure!(get(w2, "/metrics").await?.contains("rds_csi_breakers_open 0"));
        driver.detach(admitted).await?;
        driver.delete(&volume).await?;
        Ok(())
    })
    .await
}
