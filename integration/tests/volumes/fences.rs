//! Fences on a real kernel: a node that is gone and comes back with unwritten pages, an open device and its old connection
//! writes nothing any more, whoever holds the volume by then. What reaches the device is told by a checksum of all of it.

use std::time::Duration;

use anyhow::{Result, ensure};
use rds_csi_api::csi::VolumeCapability;
use rds_csi_integration::driver::{Driver, Pod, Volume, block, filesystem, shared_block};
use rds_csi_integration::rig::{Rig, Worker, eventually};
use tonic::Code;

use super::{MIB, expect_refusal};

/// How a node is lost.
#[derive(Debug, Clone, Copy)]
enum Lost {
    /// Its virtual machine is paused: it has no idea.
    Paused,
    /// All its cables are pulled, and its programs run on.
    CutOff,
}

impl Lost {
    async fn lose(self, worker: &Worker) -> Result<()> {
        match self {
            Self::Paused => worker.pause().await,
            Self::CutOff => worker.isolate().await,
        }
    }

    async fn bring_back(self, worker: &Worker) -> Result<()> {
        match self {
            Self::Paused => worker.resume().await,
            Self::CutOff => worker.rejoin().await,
        }
    }
}

pub(crate) async fn a_paused_node_behind_acl_writes_nothing_when_it_wakes(rig: &Rig) -> Result<()> {
    a_lost_node_writes_nothing(rig, "acl", Lost::Paused, block()).await
}

pub(crate) async fn a_paused_node_behind_epoch_writes_nothing_when_it_wakes(rig: &Rig) -> Result<()> {
    a_lost_node_writes_nothing(rig, "epoch", Lost::Paused, filesystem("ext4")).await
}

pub(crate) async fn a_node_cut_off_behind_acl_writes_nothing_when_it_is_back(rig: &Rig) -> Result<()> {
    a_lost_node_writes_nothing(rig, "acl", Lost::CutOff, filesystem("ext4")).await
}

pub(crate) async fn a_node_cut_off_behind_epoch_writes_nothing_when_it_is_back(rig: &Rig) -> Result<()> {
    a_lost_node_writes_nothing(rig, "epoch", Lost::CutOff, block()).await
}

async fn a_lost_node_writes_nothing(
    rig: &Rig,
    fence: &'static str,
    lost: Lost,
    capability: VolumeCapability,
) -> Result<()> {
    Driver::fenced_by(rig, fence, async |driver| {
        let (w1, w2) = (rig.worker("w1"), rig.worker("w2"));
        let volume = driver.create(&format!("zombie-{fence}-{lost:?}"), capability, 64 * MIB).await?;
        let pod = driver.attach(&volume, w1).await?;
        let zombie = Zombie::begin(&pod).await?;

        // What it writes reaches the device as long as nothing keeps it away.
        let before = checksum(rig, &volume).await?;
        zombie.dirty().await?;
        w1.sh("sync").await?;
        ensure!(checksum(rig, &volume).await? != before, "what w1 writes does not reach the device at all");

        zombie.dirty().await?;
        lost.lose(w1).await?;
        driver.unpublish(&volume, w1.name()).await?;
        let successor = driver.attach(&volume, w2).await?;
        ensure!(successor.context["nqn"] != pod.context["nqn"], "the export goes by the fenced name");
        let written = overwrite(&successor).await?;
        let intact = checksum(rig, &volume).await?;

        lost.bring_back(w1).await?;
        let said = w1.kernel_messages(&format!("back-{fence}-{lost:?}")).await?;
        // Whatever it holds back it is to write now.
        w1.sh("sync >/dev/null 2>&1 &").await?;
        is_refused_again_and_again(w1, &said).await?;
        for _ in 0..4 {
            ensure!(checksum(rig, &volume).await? == intact, "a late write of w1 has reached the device");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }

        // The node is of use again, for others and for the volume itself.
        let other = driver.create("beside-the-zombie", block(), 32 * MIB).await?;
        let beside = driver.attach(&other, w1).await?;
        overwrite(&beside).await?;
        driver.detach(beside).await?;
        driver.delete(&other).await?;
        ensure!(checksum(rig, &volume).await? == intact, "a late write of w1 has reached the device");

        zombie.end().await?;
        driver.detach(successor).await?;
        let again = Pod::new(w1, volume.clone(), driver.publish(&volume, w1.name()).await?, "pod-2");
        again.stage().await?;
        again.publish().await?;
        ensure!(data(&again).await? == written, "w1 does not find what w2 has written");
        let connections = w1.nvme_connections().await?;
        ensure!(connections.len() == 1 && connections[0].nqn == again.context["nqn"], "{connections:?}");
        pod.unpublish().await?;
        driver.detach(again).await?;
        driver.delete(&volume).await?;
        Ok(())
    })
    .await
}

/// A program that keeps a pod's volume open on a node, with pages that are not written yet.
struct Zombie<'rig> {
    worker: &'rig Worker,
    file: String,
    pid: String,
}

impl<'rig> Zombie<'rig> {
    async fn begin(pod: &Pod<'rig>) -> Result<Self> {
        let file = content(pod);
        let worker = pod.worker;
        worker
            .sh(&format!("dd if=/dev/urandom of={file} bs=1M count=16 conv=notrunc,fsync 2>/dev/null"))
            .await?;
        let held = format!("(exec tail -f /dev/null 3<>{file}) >/dev/null 2>&1 & echo $!");
        let pid = worker.sh(&held).await?;
        Ok(Self { worker, file, pid })
    }

    /// Some thousand pages that are written to the device when the kernel likes. The last one who closes a device would write
    /// them at once; the one who holds it is not.
    async fn dirty(&self) -> Result<()> {
        let dirty = format!("dd if=/dev/urandom of={} bs=1M count=8 conv=notrunc 2>/dev/null", self.file);
        self.worker.sh(&dirty).await.map(drop)
    }

    /// As kubelet ends what a pod runs. Closing a device waits for what is unwritten, so it may not be over then.
    async fn end(&self) -> Result<()> {
        self.worker.sh(&format!("kill -9 {}", self.pid)).await.map(drop)
    }
}

fn content(pod: &Pod<'_>) -> String {
    let path = pod.path();
    if path.contains("volumeDevices") { path } else { format!("{path}/file") }
}

/// Writes other bytes to where the zombie's are, and everywhere else on a raw device; what of them is to be read again.
async fn overwrite(pod: &Pod<'_>) -> Result<String> {
    let (file, worker) = (content(pod), pod.worker);
    worker.sh(&format!("dd if=/dev/urandom of={file} bs=1M count=16 conv=notrunc,fsync 2>/dev/null")).await?;
    if file.ends_with("/file") {
        // Nothing is written any more that nobody asks for.
        let staged = pod.staging_path();
        worker.sh(&format!("mount -o remount,ro {staged}")).await?;
    }
    data(pod).await
}

/// From the array, and not from what a node remembers of it.
async fn data(pod: &Pod<'_>) -> Result<String> {
    let read = "echo 3 >/proc/sys/vm/drop_caches; dd if=FILE bs=1M count=16 2>/dev/null | md5sum";
    pod.worker.sh(&read.replace("FILE", &content(pod))).await
}

/// Of all that is on the device.
async fn checksum(rig: &Rig, volume: &Volume) -> Result<String> {
    let read = format!("sync; echo 3 >/proc/sys/vm/drop_caches; md5sum /storage-pool/{}/disk.img", volume.id);
    rig.array().sh(&read).await
}

/// Waits until the kernel has been refused twice, or has given up because of it.
async fn is_refused_again_and_again(worker: &Worker, said: &str) -> Result<()> {
    let count = format!("{said} | grep -c -e 'Failed reconnect attempt' -e 'Removing ctrl'; true");
    eventually("the node is refused", Duration::from_mins(1), async || {
        Ok(worker.sh(&count).await?.trim().parse::<u32>()? >= 2)
    })
    .await
}

/// One of two nodes that share a raw device is fenced; the other writes on and sees no error.
pub(crate) async fn a_survivor_goes_on_writing_through_a_fence(rig: &Rig) -> Result<()> {
    /// Where the zombie writes, and nobody else does.
    const ITS_OWN: &str = "bs=1M skip=16 count=16";
    Driver::on(rig, async |driver| {
        let (w1, w2) = (rig.worker("w1"), rig.worker("w2"));
        let volume = driver.create("survivor", shared_block(), 64 * MIB).await?;
        let lost = driver.attach(&volume, w1).await?;
        let survivor = driver.attach(&volume, w2).await?;
        let write = "n=0; while n=$((n+1)); do printf '%-4096s' $n | \
                     dd of=DEVICE bs=4096 seek=$((n % 256)) iflag=fullblock oflag=direct conv=notrunc 2>/dev/null || \
                     { echo $n >/run/failed; exit 1; }; echo $n >/run/written; done";
        let write = write.replace("DEVICE", &survivor.path());
        w2.sh("rm -f /run/failed; echo 0 >/run/written").await?;
        w2.guest().start("survivor", ["sh", "-c", &write], &[]).await?;
        let writes_on = async || {
            let more = "enough=$(($(cat /run/written) + 20)); until [ -e /run/failed ] || [ $(cat /run/written) -ge $enough ]; \
                        do sleep 0.1; done; [ ! -e /run/failed ]";
            w2.guest().run_for(Duration::from_mins(1), more).await?.ok()
        };
        writes_on().await?;
        let hold = format!("(exec tail -f /dev/null 3<>{}) >/dev/null 2>&1 & echo $!", lost.path());
        w1.sh(&hold).await?;
        let region = format!(
            "sync; echo 3 >/proc/sys/vm/drop_caches; dd if=/storage-pool/{}/disk.img {ITS_OWN} 2>/dev/null | md5sum",
            volume.id
        );
        let before = rig.array().sh(&region).await?;
        let dirty = format!("dd if=/dev/urandom of={} bs=1M seek=16 count=8 conv=notrunc 2>/dev/null", lost.path());
        w1.sh(&format!("{dirty}; sync")).await?;
        ensure!(rig.array().sh(&region).await? != before, "what w1 writes does not reach the device at all");
        w1.sh(&dirty).await?;
        w1.pause().await?;
        driver.unpublish(&volume, "w1").await?;
        writes_on().await?;
        let intact = rig.array().sh(&region).await?;
        w1.resume().await?;
        let said = w1.kernel_messages("back-beside-a-survivor").await?;
        w1.sh("sync >/dev/null 2>&1 &").await?;
        is_refused_again_and_again(w1, &said).await?;
        // The name stays for the sake of w2, so an admission would let in the old connection first.
        expect_refusal(driver.publish(&volume, "w1").await, Code::Unavailable, &["w1", "holds back"])?;
        writes_on().await?;
        ensure!(rig.array().sh(&region).await? == intact, "a late write of w1 has reached the device");
        w2.guest().signal("survivor", 15).await?;
        w2.guest().wait("survivor", Duration::from_secs(20)).await?;
        ensure!(rig.array().sh(&region).await? == intact, "a late write of w1 has reached the device");

        w1.kill().await?;
        w1.boot().await?;
        w1.start_agent(&[]).await?;
        for pod in [lost, survivor] {
            driver.detach(pod).await?;
        }
        driver.delete(&volume).await?;
        Ok(())
    })
    .await
}

/// Nobody is let in beside a node that may still write and cannot be kept from it.
pub(crate) async fn without_a_fence_a_silent_node_keeps_its_volume(rig: &Rig) -> Result<()> {
    for (fence, capability, why) in
        [("none", block(), "fence: none"), ("epoch", shared_block(), "would cut off the other node")]
    {
        Driver::fenced_by(rig, fence, async |driver| {
            let (w1, w2) = (rig.worker("w1"), rig.worker("w2"));
            let volume = driver.create(&format!("unfenced-{fence}"), capability, 32 * MIB).await?;
            let pod = driver.attach(&volume, w1).await?;
            let shared = if fence == "epoch" { Some(driver.attach(&volume, w2).await?) } else { None };
            w1.pause().await?;
            let refused = driver.unpublish(&volume, "w1").await;
            expect_refusal(refused, Code::FailedPrecondition, &["w1", &volume.id, why])?;
            if shared.is_none() {
                expect_refusal(driver.publish(&volume, "w2").await, Code::FailedPrecondition, &["w1"])?;
            }
            w1.resume().await?;
            // Nothing was done to it meanwhile.
            overwrite(&pod).await?;
            driver.detach(pod).await?;
            if let Some(shared) = shared {
                driver.detach(shared).await?;
            }
            driver.delete(&volume).await?;
            Ok(())
        })
        .await?;
    }
    Ok(())
}
