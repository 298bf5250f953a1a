//! Volumes that are taken from those who use them: by an unmount that never ends, or by a person.

use std::collections::HashMap;

use anyhow::{Result, ensure};
use rds_csi_api::ReconnectPolicy;
use rds_csi_api::node_agent::{DetachRequest, SetReconnectPolicyRequest};
use rds_csi_integration::driver::{Driver, Pod, Volume, filesystem};
use rds_csi_integration::rig::disk::{Disk, shut_out};
use rds_csi_integration::rig::{PORTAL, Rig};
use tonic::Code;

use super::health::Watched;
use super::{MIB, expect_refusal};

fn context(nqn: &str) -> HashMap<String, String> {
    [("nvmeAddress", PORTAL), ("nvmePort", "4420"), ("nqn", nqn), ("sizeBytes", &(64 * MIB).to_string())]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

/// The array takes nothing any more under the old name, and the last unmount waits until everything is written.
pub(crate) async fn an_unmount_that_waits_for_a_fenced_connection_is_let_go(rig: &Rig) -> Result<()> {
    Driver::on(rig, async |_| {
        let w1 = rig.worker("w1");
        let (old, new) = ("nqn.2000-02.com.mikrotik:pvc-waits", "nqn.2000-02.com.mikrotik:pvc-waits:e2");
        let disk = Disk::create(rig, "pvc-waits", 64).await?;
        disk.export("").await?;
        let volume = Volume {
            id: "pvc-waits".into(),
            size: 64 * MIB,
            context: HashMap::new(),
            capability: filesystem("ext4"),
        };
        let mut pod = Pod::new(w1, volume, context(old), "pod-1");
        pod.stage().await?;
        w1.sh(&format!("echo precious >{0}/file; sync; echo unwritten >{0}/file", pod.staging_path()))
            .await?;
        let disk = disk.renamed(new).await?;
        shut_out(w1).await?;

        let unstaging = pod.unstage();
        let staging = async {
            // Its unmount begins with the mount going out of sight.
            w1.sh(&format!("while mountpoint -q {}; do sleep 0.1; done", pod.staging_path())).await?;
            expect_refusal(pod.unstage().await, Code::Aborted, &["still running"])?;
            let mut renamed = pod.clone();
            renamed.context = context(new);
            loop {
                match renamed.stage().await {
                    Ok(()) => return anyhow::Ok(()),
                    Err(status) => ensure!(status.code() == Code::Aborted, "{status}"),
                }
            }
        };
        let (unstaged, staged) = tokio::join!(unstaging, staging);
        unstaged?;
        staged?;
        pod.context = context(new);
        ensure!(w1.sh(&format!("cat {}/file", pod.staging_path())).await? == "precious");
        let connections = w1.nvme_connections().await?;
        ensure!(connections.len() == 1 && connections[0].nqn == new, "{connections:?}");
        pod.unstage().await?;
        ensure!(w1.nvme_connections().await?.is_empty(), "w1 is still connected");
        disk.remove().await
    })
    .await
}

/// A process that nobody can end has the volume, and its pod is to go all the same.
pub(crate) async fn a_person_takes_a_volume_away_from_those_who_use_it(rig: &Rig) -> Result<()> {
    Driver::on(rig, async |driver| {
        let w1 = rig.worker("w1");
        let (volume, other) = (
            driver.create("forced", filesystem("ext4"), 64 * MIB).await?,
            driver.create("beside", filesystem("ext4"), 64 * MIB).await?,
        );
        let (pod, beside) = (driver.attach(&volume, w1).await?, driver.attach(&other, w1).await?);
        w1.sh(&format!("echo precious >{0}/file; sync", pod.path())).await?;
        let pid = w1.sh(&format!("tail -f {}/file >/dev/null 2>&1 & echo $!", pod.path())).await?;
        let mut watched = Watched::begin(driver, &pod).await?;
        expect_refusal(pod.unpublish().await, Code::FailedPrecondition, &[&pid, "tail"])?;

        let mut agent = driver.node_agent(w1, driver.identity())?;
        let nqn = format!("nqn.2000-02.com.mikrotik:{}", volume.id);
        let forced = DetachRequest {
            volume_id: volume.id.clone(),
            nqn: nqn.clone(),
            asked_by: "ada".into(),
            reason: "the pod hangs".into(),
        };
        let nameless = DetachRequest { asked_by: String::new(), ..forced.clone() };
        expect_refusal(agent.detach(nameless).await, Code::InvalidArgument, &["asked_by"])?;
        let told = agent.detach(forced).await?.into_inner();
        ensure!(told.holders.iter().any(|holder| holder.pid.to_string() == pid), "{told:?}");
        ensure!(told.done.iter().any(|done| done.contains(&nqn)), "{told:?}");
        ensure!(told.left.iter().any(|left| left.contains(&pid) && left.contains("gone")), "{told:?}");
        watched.tells("DetachForced").await?;
        let connections = w1.nvme_connections().await?;
        ensure!(connections.len() == 1 && connections[0].nqn.ends_with(&other.id), "{connections:?}");
        ensure!(!w1.run(&format!("mountpoint -q {}", pod.path())).await?.succeeded(), "it is still mounted");
        w1.sh(&format!("echo well >{0}/file; sync", beside.path())).await?;

        // kubelet goes on as ever, once nobody has what is gone any more.
        pod.unpublish().await?;
        w1.sh(&format!("kill -9 {pid}; while [ -e /proc/{pid} ]; do :; done")).await?;
        pod.unstage().await?;
        let mut again = pod.clone();
        again.context = driver.publish(&volume, "w1").await?;
        again.stage().await?;
        again.publish().await?;
        ensure!(w1.sh(&format!("cat {}/file", again.path())).await? == "precious");
        for pod in [again, beside] {
            driver.detach(pod).await?;
        }
        driver.delete(&volume).await?;
        driver.delete(&other).await?;
        Ok(())
    })
    .await
}

pub(crate) async fn a_policy_that_is_changed_live_outlasts_a_repeated_stage(rig: &Rig) -> Result<()> {
    Driver::on(rig, async |driver| {
        let w1 = rig.worker("w1");
        let volume = driver.create("policy", filesystem("ext4"), 64 * MIB).await?;
        let pod = driver.attach(&volume, w1).await?;
        let read = "cd /sys/class/nvme/nvme* && echo $(cat ctrl_loss_tmo reconnect_delay fast_io_fail_tmo)";
        ensure!(w1.sh(read).await? == "off 2 off", "{}", w1.sh(read).await?);
        let policy: ReconnectPolicy = "600,5,5,20".parse()?;
        let request = SetReconnectPolicyRequest {
            volume_id: volume.id.clone(),
            nqn: format!("nqn.2000-02.com.mikrotik:{}", volume.id),
            policy: policy.to_pairs().map(|(key, value)| (key.to_owned(), value)).into(),
        };
        let mut agent = driver.node_agent(w1, driver.identity())?;
        ensure!(agent.set_reconnect_policy(request).await?.into_inner().kept);
        ensure!(w1.sh(read).await? == "600 5 20", "{}", w1.sh(read).await?);
        pod.stage().await?;
        pod.publish().await?;
        ensure!(w1.sh(read).await? == "600 5 20", "{}", w1.sh(read).await?);
        driver.detach(pod).await?;
        Ok(driver.delete(&volume).await?)
    })
    .await
}
