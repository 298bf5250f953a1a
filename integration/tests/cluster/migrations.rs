//! Virtual machines that migrate, as KubeVirt does it: a pod for each end, labelled as KubeVirt labels them, and a raw block device
//! that both have for a while.

use anyhow::{Context as _, Result, ensure};
use rds_csi_integration::cluster::objects::{Access, DEVICE, PodPlan};
use rds_csi_integration::cluster::{Cluster, PATIENCE};
use rds_csi_integration::rig::eventually;

use super::MIB;
use super::claims::claim;
use super::pods::nothing_is_left;

/// The pod of a VM on the node where it was started.
fn launcher(name: &str, vm: &str, node: &str) -> PodPlan {
    PodPlan::new(name, vm, Access::SharedBlock)
        .on(node)
        .labelled("kubevirt.io", "virt-launcher")
        .labelled("kubevirt.io/created-by", vm)
        .never_started_again()
}

/// The pod that it migrates to.
fn target(name: &str, vm: &str, node: &str) -> PodPlan {
    launcher(name, vm, node).labelled("kubevirt.io/migrationJobUID", &format!("{vm}-migration"))
}

/// Writes a word past the page cache, as QEMU does.
async fn write(cluster: &Cluster, pod: &str, word: &str) -> Result<()> {
    let script = format!("echo {word} | dd of={DEVICE} bs=4096 conv=sync,notrunc oflag=direct 2>/dev/null");
    cluster.exec(pod, &script).await.map(drop)
}

async fn holds(cluster: &Cluster, pod: &str, word: &str) -> Result<()> {
    let script = format!("dd if={DEVICE} bs=4096 count=1 iflag=direct 2>/dev/null | head -n 1");
    let told = cluster.exec(pod, &script).await?;
    ensure!(told == word, "{pod} reads {told:?}, not {word}");
    Ok(())
}

async fn volume_of(cluster: &Cluster, vm: &str) -> Result<String> {
    cluster.bound(vm).await?.metadata.name.context("a volume has a name")
}

pub(crate) async fn a_virtual_machine_migrates_with_its_disk(cluster: &Cluster) -> Result<()> {
    cluster.claim(claim("vm", Access::SharedBlock, 64 * MIB)).await?;
    let volume = volume_of(cluster, "vm").await?;
    cluster.run_pod(&launcher("source", "vm", "w1")).await?;
    write(cluster, "source", "first").await?;

    // Somebody else's pod proves nothing.
    cluster.make_pod(&launcher("stranger", "vm", "w2")).await?;
    let told = cluster.event("stranger", "FailedAttachVolume").await?;
    ensure!(told.contains("kubevirt.io/migrationJobUID"), "{told}");
    cluster.end_pod("stranger").await?;
    cluster.is_attached(&volume, &["w1"]).await?;

    cluster.run_pod(&target("target", "vm", "w2")).await?;
    cluster.is_attached(&volume, &["w1", "w2"]).await?;
    cluster.event("vm", "MigrationStarted").await?;
    // Both have it; QEMU hands over who writes.
    write(cluster, "source", "second").await?;
    holds(cluster, "target", "second").await?;
    write(cluster, "target", "third").await?;

    cluster.end_pod("source").await?;
    cluster.is_attached(&volume, &["w2"]).await?;
    cluster.event("vm", "MigrationCompleted").await?;
    holds(cluster, "target", "third").await?;
    cluster.end_pod("target").await?;
    cluster.unclaim("vm").await?;
    nothing_is_left(cluster).await
}

/// A node loses its power and comes back while four VMs migrate: from it and to it, before their hand-over and after.
/// Nobody does anything; what the nodes say is enough.
pub(crate) async fn a_node_that_goes_down_in_mid_migration_leaves_nothing_undecided(
    cluster: &Cluster,
) -> Result<()> {
    // A VM, where it comes from and goes to, and who of the two has written last when w1 goes down.
    let vms = [
        ("from-before", "w1", "w2", "source"),
        ("from-after", "w1", "w2", "target"),
        ("to-before", "w2", "w1", "source"),
        ("to-after", "w2", "w1", "target"),
    ];
    let pod = |vm: &str, end: &str| format!("{end}-{vm}");
    for (vm, from, ..) in vms {
        cluster.claim(claim(vm, Access::SharedBlock, 64 * MIB)).await?;
        cluster.make_pod(&launcher(&pod(vm, "source"), vm, from)).await?;
    }
    for (vm, _, to, _) in vms {
        cluster.pod_runs(&pod(vm, "source")).await?;
        cluster.make_pod(&target(&pod(vm, "target"), vm, to)).await?;
    }
    for (vm, _, _, last) in vms {
        cluster.pod_runs(&pod(vm, "target")).await?;
        write(cluster, &pod(vm, last), vm).await?;
        cluster.is_attached(&volume_of(cluster, vm).await?, &["w1", "w2"]).await?;
    }

    cluster.node("w1").reboot().await?;
    for (vm, from, ..) in vms {
        // The pods on w1 have ended with it, so kubelet lets go of what they used; w2 was never disturbed.
        cluster.is_attached(&volume_of(cluster, vm).await?, &["w2"]).await?;
        let survivor = pod(vm, if from == "w2" { "source" } else { "target" });
        holds(cluster, &survivor, vm).await?;
        write(cluster, &survivor, "after").await?;
        let how = if from == "w2" { "MigrationFailed" } else { "MigrationCompleted" };
        cluster.event(vm, how).await?;
    }
    for (vm, ..) in vms {
        cluster.end_pod(&pod(vm, "source")).await?;
        cluster.end_pod(&pod(vm, "target")).await?;
        cluster.unclaim(vm).await?;
    }
    nothing_is_left(cluster).await
}

/// A disk is plugged into a running VM by a pod of its own beside it, which the VM's pod owns.
pub(crate) async fn a_plugged_disk_stays_until_the_virtual_machine_lets_go_of_it(
    cluster: &Cluster,
) -> Result<()> {
    cluster.claim(claim("vm", Access::SharedBlock, 64 * MIB)).await?;
    cluster.claim(claim("plugged", Access::SharedBlock, 64 * MIB)).await?;
    let volume = volume_of(cluster, "plugged").await?;
    let hotplug = |name: &str, owner: &str, uid: &str, node: &str| {
        PodPlan::new(name, "plugged", Access::SharedBlock).on(node).owned_by(owner, uid)
    };
    cluster.run_pod(&launcher("source", "vm", "w1")).await?;
    let source = cluster.uid_of("source").await?;
    cluster.run_pod(&hotplug("hp-volume-a", "source", &source, "w1")).await?;
    // Two pods of one VM on one node are one attachment.
    cluster.run_pod(&hotplug("hp-volume-b", "source", &source, "w1")).await?;
    cluster.end_pod("hp-volume-b").await?;
    cluster.is_attached(&volume, &["w1"]).await?;

    // Also a plugged disk migrates: its new pod is followed to the VM's.
    cluster.run_pod(&target("target", "vm", "w2")).await?;
    let there = cluster.uid_of("target").await?;
    cluster.run_pod(&hotplug("hp-volume-c", "target", &there, "w2")).await?;
    cluster.is_attached(&volume, &["w1", "w2"]).await?;
    cluster.event("plugged", "MigrationStarted").await?;
    for pod in ["hp-volume-a", "source"] {
        cluster.end_pod(pod).await?;
    }
    cluster.is_attached(&volume, &["w2"]).await?;

    // The VM opens the device by a node of its own, so the pod's end says nothing about it.
    let worker = cluster.node("w2").worker();
    let numbers = format!("stat -c 'mknod /run/guest b $((0x%t)) $((0x%T))' {DEVICE}");
    let open = cluster.exec("hp-volume-c", &numbers).await?;
    let open = format!("{open}; sleep 1d </run/guest >/dev/null 2>&1 & echo $! >/run/guest.pid");
    worker.sh(&open).await?;
    cluster.ask_to_end("hp-volume-c").await?;
    let refused = async || Ok(worker.agent_log().await?.contains("(sleep) has"));
    eventually("the agent refuses to let the device go", PATIENCE, refused).await?;
    cluster.is_attached(&volume, &["w2"]).await?;
    worker.sh("kill $(cat /run/guest.pid); rm /run/guest /run/guest.pid").await?;
    cluster.is_attached(&volume, &[]).await?;
    cluster.pod_is_gone("hp-volume-c").await?;

    cluster.end_pod("target").await?;
    cluster.unclaim("plugged").await?;
    cluster.unclaim("vm").await?;
    nothing_is_left(cluster).await
}
