//! What the node agent refuses, and what it tells.

use anyhow::{Result, bail, ensure};
use rds_csi_api::csi;
use rds_csi_api::node_agent::{GetVolumeRequest, ListVolumesRequest};
use rds_csi_integration::certificates::{Authority, CONTROLLER};
use rds_csi_integration::driver::{Driver, Volume, block, filesystem};
use rds_csi_integration::rig::Rig;
use rds_csi_integration::rig::disk::Disk;
use rds_csi_node_agent::privilege::KEPT;
use tonic::Code;

use super::{MIB, expect_refusal};

pub(crate) async fn paths_outside_the_kubelet_directory_are_refused(rig: &Rig) -> Result<()> {
    Driver::on(rig, async |driver| {
        let w1 = rig.worker("w1");
        let volume = driver.create("outside", filesystem("ext4"), 64 * MIB).await?;
        let pod = driver.attach(&volume, w1).await?;
        w1.sh("mkdir -p /var/lib/kubelet/pods && ln -sfn /etc /var/lib/kubelet/pods/elsewhere").await?;
        for target in [
            "/etc/target",
            "/var/lib/kubelet/../../etc/target",
            "/var/lib/kubelet/pods/elsewhere/target",
            "/var/lib/kubelet-other/target",
            "target",
            "",
        ] {
            let request = csi::NodePublishVolumeRequest {
                volume_id: volume.id.clone(),
                publish_context: pod.context.clone(),
                staging_target_path: pod.staging_path(),
                target_path: target.into(),
                volume_capability: Some(volume.capability.clone()),
                volume_context: volume.context.clone(),
                ..Default::default()
            };
            let refused = driver.node(w1).node_publish_volume(request).await;
            expect_refusal(refused, Code::InvalidArgument, &["target_path", target])?;
        }
        ensure!(!w1.run("test -e /etc/target").await?.succeeded(), "a target was made outside");
        for staging in ["/etc/staging", "/var/lib/kubelet/../../etc/staging", "staging", ""] {
            let stage = csi::NodeStageVolumeRequest {
                volume_id: volume.id.clone(),
                publish_context: pod.context.clone(),
                staging_target_path: staging.into(),
                volume_capability: Some(volume.capability.clone()),
                volume_context: volume.context.clone(),
                ..Default::default()
            };
            let refused = driver.node(w1).node_stage_volume(stage).await;
            expect_refusal(refused, Code::InvalidArgument, &["staging_target_path", staging])?;
            let unstage = csi::NodeUnstageVolumeRequest {
                volume_id: volume.id.clone(),
                staging_target_path: staging.into(),
            };
            let refused = driver.node(w1).node_unstage_volume(unstage).await;
            expect_refusal(refused, Code::InvalidArgument, &["staging_target_path", staging])?;
        }
        ensure!(!w1.run("test -e /etc/staging").await?.succeeded(), "a staging path was made outside");
        w1.sh("rm /var/lib/kubelet/pods/elsewhere").await?;
        driver.detach(pod).await?;
        driver.delete(&volume).await?;
        Ok(())
    })
    .await
}

/// Nodes may mount their own system from the same array. What they have of it stays, whatever the agent is told.
pub(crate) async fn a_system_volume_is_never_touched(rig: &Rig) -> Result<()> {
    Driver::on(rig, async |driver| {
        let w1 = rig.worker("w1");
        let system = "nqn.2000-02.com.mikrotik:nixos-var";
        let disk = Disk::create(rig, "nixos-var", 32).await?;
        disk.export("").await?;
        disk.connect(w1).await?;
        let untouched = async || {
            let connections = w1.nvme_connections().await?;
            let live = connections.iter().any(|nvme| nvme.nqn == system && nvme.state == "live");
            ensure!(live, "the node lost its own volume: {connections:?}");
            anyhow::Ok(())
        };
        let volume = driver.create("beside-the-system", block(), 32 * MIB).await?;
        let pod = driver.attach(&volume, w1).await?;
        let mut lying = pod.clone();
        lying.context.insert("nqn".into(), system.into());
        lying.volume = Volume { id: "nixos-var".into(), ..lying.volume };
        expect_refusal(
            lying.stage().await,
            Code::InvalidArgument,
            &[system, "nqn.2000-02.com.mikrotik:pvc-"],
        )?;
        untouched().await?;
        // Nothing was ever staged by that name, so there is nothing to do.
        lying.unstage().await?;
        untouched().await?;
        w1.stop_agent().await?;
        w1.start_agent(&[]).await?;
        untouched().await?;
        let request = GetVolumeRequest { volume_id: "nixos-var".into(), nqn: system.into() };
        let refused = driver.node_agent(w1, driver.identity())?.get_volume(request).await;
        expect_refusal(refused, Code::InvalidArgument, &[system])?;
        driver.detach(pod).await?;
        driver.delete(&volume).await?;
        untouched().await?;
        disk.disconnect(w1).await?;
        disk.remove().await?;
        Ok(())
    })
    .await
}

pub(crate) async fn only_the_controller_may_call_the_internal_api(rig: &Rig) -> Result<()> {
    Driver::on(rig, async |driver| {
        let w1 = rig.worker("w1");
        let list = ListVolumesRequest {};
        ensure!(driver.node_agent(w1, driver.identity())?.list_volumes(list).await.is_ok());

        let of_a_node = rig.authority().issue_for_agents(&["w2"])?;
        let refused = driver.node_agent(w1, &of_a_node)?.list_volumes(list).await;
        expect_refusal(refused, Code::PermissionDenied, &["rds-csi-controller"])?;

        let strangers = Authority::new(&rig.directory().join("strangers"))?;
        let mut stranger = strangers.issue(CONTROLLER)?;
        stranger.authority.clone_from(&of_a_node.authority);
        let Err(refused) = driver.node_agent(w1, &stranger)?.list_volumes(list).await else {
            bail!("a stranger was let in")
        };
        // Not a word of the API is spoken: TLS itself refuses.
        ensure!(refused.message() == "transport error", "{refused:?}");
        Ok(())
    })
    .await
}

pub(crate) async fn the_agent_tells_people_what_it_holds(rig: &Rig) -> Result<()> {
    Driver::on(rig, async |driver| {
        let w1 = rig.worker("w1");
        let volume = driver.create("told", filesystem("ext4"), 64 * MIB).await?;
        let pod = driver.attach(&volume, w1).await?;
        let get = async |path: &str| {
            anyhow::Ok(reqwest::get(format!("{}{path}", w1.admin_url())).await?.text().await?)
        };
        ensure!(get("/healthz").await? == "ok\n");
        let metrics = get("/metrics").await?;
        ensure!(
            metrics.contains(r#"rds_csi_operations_total{rpc="NodeStageVolume",code="Ok"} 1"#),
            "{metrics}"
        );
        let told = get("/debug/volumes").await?;
        for fact in [&volume.id, &pod.path(), &pod.staging_path(), "live"] {
            ensure!(told.contains(fact), "{fact} is missing in {told}");
        }
        ensure!(metrics.contains("rds_csi_volumes_abnormal 0"), "{metrics}");
        for (path, facts) in [
            ("/debug/nvme", [&volume.id, "live", "ctrl_loss_tmo"]),
            ("/debug/mounts", [&volume.id, &pod.path(), "ext4"]),
            ("/debug", [&volume.id, "/debug/operations", "/debug/events"]),
        ] {
            let told = get(path).await?;
            for fact in facts {
                ensure!(told.contains(fact), "{fact} is missing in {path}: {told}");
            }
        }

        let status = async |output: &str| {
            let command = format!("rds-csi-node-agent status --node-name w1 --output {output}");
            w1.sh(&command).await
        };
        let json: serde_json::Value = serde_json::from_str(&get("/debug/volumes").await?)?;
        let same = |told: &str| anyhow::Ok(serde_json::from_str::<serde_json::Value>(told)? == json);
        ensure!(same(&status("json").await?)?, "status tells something else: {}", status("json").await?);
        let table = status("table").await?;
        ensure!(table.contains(&volume.id) && table.ends_with("sound"), "{table}");
        // A hung agent, and a dead one.
        w1.sh("kill -STOP $(pidof rds-csi-node-agent)").await?;
        ensure!(same(&status("json").await?)?, "with the agent hung, status tells something else");
        w1.kill_agent().await?;
        ensure!(same(&status("json").await?)?, "with the agent dead, status tells something else");
        w1.start_agent(&[]).await?;

        driver.detach(pod).await?;
        ensure!(!get("/debug/volumes").await?.contains(&volume.id), "a detached volume is still told of");
        // A node that was dead while its volume went elsewhere still has the record of it.
        ensure!(!status("table").await?.contains(&volume.id), "{}", status("table").await?);
        driver.delete(&volume).await?;
        Ok(())
    })
    .await
}

pub(crate) async fn the_agent_keeps_the_privileges_of_the_document_and_no_others(rig: &Rig) -> Result<()> {
    Driver::on(rig, async |driver| {
        let w1 = rig.worker("w1");
        let volume = driver.create("privileges", filesystem("xfs"), 512 * MIB).await?;
        let pod = driver.attach(&volume, w1).await?;
        let processes = w1.processes().await?;
        let agent = processes.iter().find(|process| process.command.contains("rds-csi-node-agent"));
        let Some(agent) = agent else { bail!("no agent among {processes:?}") };
        let kept = KEPT.bits();
        let expected = [
            ("CapInh", "0000000000000000".to_owned()),
            ("CapPrm", format!("{kept:016x}")),
            ("CapEff", format!("{kept:016x}")),
            ("CapBnd", format!("{kept:016x}")),
            ("CapAmb", "0000000000000000".to_owned()),
            ("NoNewPrivs", "1".to_owned()),
            ("Seccomp", "2".to_owned()),
        ];
        let told = w1.sh(&format!("cat /proc/{}/task/*/status", agent.pid)).await?;
        for (name, value) in expected {
            let threads: Vec<_> =
                told.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(":\t")).collect();
            ensure!(
                threads.len() > 1 && threads.iter().all(|thread| *thread == value),
                "{name}: {threads:?}"
            );
        }
        driver.detach(pod).await?;
        driver.delete(&volume).await?;
        Ok(())
    })
    .await
}
