//! The agent is killed in the middle of what it does, and so is the node.
//!
//! No call is hurried to a certain step: what was reached is observed from outside, and the agent dies there.

use std::convert::Infallible;
use std::future::pending;

use anyhow::{Result, ensure};
use rds_csi_integration::driver::{Driver, Pod, block, filesystem};
use rds_csi_integration::rig::{Rig, Worker};
use tonic::Status;

use super::MIB;

const CONNECTED: &str = "[ -e /sys/class/nvme/nvme*/subsysnqn ]";

/// Lets something happen during a call. What the call answers is no matter: whoever made it may be gone, too.
async fn during<T>(
    call: impl Future<Output = Result<(), Status>>,
    accident: impl Future<Output = Result<T>>,
) -> Result<T> {
    let unheard = async {
        let _ = call.await;
        pending::<Infallible>().await
    };
    tokio::select! {
        happened = accident => happened,
        never = unheard => match never {},
    }
}

/// Kills the agent as soon as a condition of the guest's shell holds, and starts it again.
async fn cut(worker: &Worker, when: &str, call: impl Future<Output = Result<(), Status>>) -> Result<()> {
    during(call, worker.kill_agent_when(when)).await?;
    worker.start_agent(&[]).await
}

/// Takes the volume from the node, and nothing of it is left.
async fn unstaged(pod: &Pod<'_>) -> Result<()> {
    pod.unstage().await?;
    ensure!(pod.worker.nvme_connections().await?.is_empty(), "it is still connected");
    let record = format!("/var/lib/rds-csi/{}.json", pod.volume.id);
    ensure!(!pod.worker.run(&format!("test -e {record}")).await?.succeeded(), "{record} is left");
    Ok(())
}

pub(crate) async fn an_agent_killed_in_the_middle_is_made_good_by_the_next_call(rig: &Rig) -> Result<()> {
    Driver::on(rig, async |driver| {
        let w1 = rig.worker("w1");
        for capability in [filesystem("ext4"), block()] {
            let volume = driver.create("cut-calls", capability, 64 * MIB).await?;
            let context = driver.publish(&volume, w1.name()).await?;
            let pod = Pod::new(w1, volume.clone(), context, "pod-1");
            let target = pod.path();
            let is_block = volume.capability == block();
            let [staged, published] = if is_block {
                [CONNECTED.to_owned(), format!("[ -b {target} ]")]
            } else {
                // From outside: whoever looks into a mount just when it is unmounted keeps it busy.
                [pod.staging_path(), target.clone()].map(|at| format!("grep -q ' {at} ' /proc/1/mountinfo"))
            };
            let (write, read) = if is_block {
                (
                    format!("echo precious | dd of={target} bs=4096 conv=sync oflag=direct 2>/dev/null"),
                    format!("dd if={target} bs=4096 count=1 iflag=direct 2>/dev/null | head -c 8"),
                )
            } else {
                (format!("echo precious >{target}/file; sync"), format!("cat {target}/file"))
            };

            cut(w1, CONNECTED, pod.stage()).await?;
            unstaged(&pod).await?;

            cut(w1, &staged, pod.stage()).await?;
            pod.stage().await?;
            cut(w1, &published, pod.publish()).await?;
            pod.publish().await?;
            if is_block {
                ensure!(w1.sh(&format!("stat -c %a {target}")).await? == "660");
            }
            w1.sh(&write).await?;

            cut(w1, &format!("! {published}"), pod.unpublish()).await?;
            pod.unpublish().await?;
            ensure!(!w1.run(&format!("test -e {target}")).await?.succeeded(), "{target} is left");
            cut(w1, &format!("! {staged}"), pod.unstage()).await?;
            unstaged(&pod).await?;

            pod.stage().await?;
            pod.publish().await?;
            ensure!(w1.sh(&read).await? == "precious");
            driver.detach(pod).await?;
            driver.delete(&volume).await?;
        }
        Ok(())
    })
    .await
}

/// In the place of mkfs.ext4: it does all that the real one does but the superblock, which that writes last, and then hangs.
const CUT_MKFS: &str = "#!/bin/sh\n\
    /real/mkfs.ext4 \"$@\" || exit 1\n\
    for device; do case $device in /dev/*) break;; esac; done\n\
    dd if=/dev/zero of=$device bs=1024 seek=1 count=1 conv=notrunc,fsync 2>/dev/null || exit 1\n\
    mkfifo /run/never; echo $$ >/run/mkfs.new; mv /run/mkfs.new /run/mkfs; read line </run/never\n";

/// Stages a volume until its mkfs hangs just before its end, and then lets something happen. Returns what undoes that.
async fn cut_mkfs(pod: &Pod<'_>, accident: impl Future<Output = Result<()>>) -> Result<String> {
    let worker = pod.worker;
    let find =
        "for d in /usr/sbin /usr/bin /sbin /bin; do [ -f $d/mkfs.ext4 ] && echo $d/mkfs.ext4 && break; done";
    let mkfs = worker.sh(find).await?;
    // By its name it knows what it is to make.
    worker.sh(&format!("mkdir -p /real && cp {mkfs} /real/mkfs.ext4 && rm {mkfs}")).await?;
    worker.guest().write(mkfs.clone(), 0o755, CUT_MKFS.as_bytes()).await?;
    let hangs = async {
        worker.sh("until [ -e /run/mkfs ]; do sleep 0.1; done").await?;
        accident.await
    };
    during(pod.stage(), hangs).await?;
    Ok(format!("kill -9 $(cat /run/mkfs); rm /run/mkfs /run/never {mkfs}; cp /real/mkfs.ext4 {mkfs}"))
}

pub(crate) async fn a_format_that_was_cut_off_is_begun_again_on_whichever_node(rig: &Rig) -> Result<()> {
    Driver::on(rig, async |driver| {
        let (w1, w2) = (rig.worker("w1"), rig.worker("w2"));
        let volume = driver.create("cut-agent", filesystem("ext4"), 64 * MIB).await?;
        let context = driver.publish(&volume, w1.name()).await?;
        let pod = Pod::new(w1, volume.clone(), context, "pod-1");
        let mend = cut_mkfs(&pod, w1.kill_agent()).await?;
        w1.sh(&mend).await?;
        w1.start_agent(&[]).await?;
        pod.stage().await?;
        pod.publish().await?;
        w1.sh(&format!("echo precious >{}/file; sync", pod.path())).await?;
        driver.detach(pod).await?;
        driver.delete(&volume).await?;

        let volume = driver.create("cut-node", filesystem("ext4"), 64 * MIB).await?;
        let context = driver.publish(&volume, w1.name()).await?;
        let pod = Pod::new(w1, volume.clone(), context, "pod-1");
        // Dead to everybody: what is switched off at once says so by hanging up.
        cut_mkfs(&pod, w1.pause()).await?;
        driver.unpublish(&volume, w1.name()).await?;
        let moved = driver.attach(&volume, w2).await?;
        w2.sh(&format!("echo precious >{}/file; sync", moved.path())).await?;
        driver.detach(moved).await?;
        w1.kill().await?;
        w1.boot().await?;
        w1.start_agent(&[]).await?;
        unstaged(&pod).await?;
        driver.delete(&volume).await?;
        Ok(())
    })
    .await
}
