//! What is told of volumes whose connection breaks, and what they are afterwards.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rds_csi_api::ReconnectPolicy;
use rds_csi_api::csi::VolumeCondition;
use rds_csi_api::node_agent::{GetVolumeRequest, WatchEventsRequest};
use rds_csi_integration::driver::{Driver, Pod, Volume, filesystem};
use rds_csi_integration::rig::{Rig, Worker};

use super::MIB;

/// An array that comes back, and a controller that the kernel gives up, within this time.
const PATIENCE: Duration = Duration::from_mins(1);

/// What a volume says of its own condition; nothing, if it is well.
pub(crate) async fn trouble(pod: &Pod<'_>) -> Result<Option<String>> {
    let told = pod.stats().await?.volume_condition.context("no condition is told")?;
    let VolumeCondition { abnormal, message } = told;
    Ok(abnormal.then_some(message))
}

/// A pod's volume under the controller's eyes.
pub(crate) struct Watched<'a> {
    driver: &'a Driver<'a>,
    pod: Pod<'a>,
    /// Whose events are waited for.
    volume: String,
    mounts: String,
    /// The agent's life, and the last event that was read.
    instance: String,
    after: u64,
}

impl<'a> Watched<'a> {
    pub(crate) async fn begin(driver: &'a Driver<'a>, pod: &Pod<'a>) -> Result<Self> {
        Self::begin_of(driver, pod, &pod.volume.id).await
    }

    /// The same, for the events of another volume on the pod's node.
    pub(crate) async fn begin_of(driver: &'a Driver<'a>, pod: &Pod<'a>, volume: &str) -> Result<Self> {
        let (mounts, instance) = (mounts(pod).await?, String::new());
        let mut watched =
            Self { driver, pod: pod.clone(), volume: volume.into(), mounts, instance, after: 0 };
        ensure!(watched.mounts.lines().count() == 2, "staged and published: {}", watched.mounts);
        watched.is_as_before().await?;
        let mut agent = driver.node_agent(pod.worker, driver.identity())?;
        let mut events = agent.watch_events(WatchEventsRequest::default()).await?.into_inner();
        let first = events.message().await?.context("the agent hung up")?;
        ensure!(first.event.is_none(), "{first:?}");
        watched.instance = first.instance;
        Ok(watched)
    }

    /// The next event of the volume is this one. Each is read over a connection of its own, from where the last one ended.
    pub(crate) async fn tells(&mut self, reason: &str) -> Result<()> {
        let (instance, after) = (self.instance.clone(), self.after);
        let mut agent = self.driver.node_agent(self.pod.worker, self.driver.identity())?;
        let request = WatchEventsRequest { instance, after };
        let mut events = agent.watch_events(request).await?.into_inner();
        let next = async {
            loop {
                let told = events.message().await?.context("the agent hung up")?;
                ensure!(told.instance == self.instance && told.missed == 0, "{told:?}");
                let Some(event) = told.event else { continue };
                ensure!(event.sequence == self.after + 1, "after number {}: {event:?}", self.after);
                self.after = event.sequence;
                if event.volume_id == self.volume {
                    return anyhow::Ok(event);
                }
            }
        };
        let waited = tokio::time::timeout(PATIENCE, next).await;
        let event = waited.with_context(|| format!("no {reason} is told within {PATIENCE:?}"))??;
        ensure!(event.reason == reason, "{reason} is expected, and not {event:?}");
        Ok(())
    }

    /// What the controller is told of the volume's condition.
    pub(crate) async fn condition(&self) -> Result<String> {
        let (driver, volume) = (self.driver, &self.pod.volume);
        let request = GetVolumeRequest {
            volume_id: volume.id.clone(),
            nqn: format!("nqn.2000-02.com.mikrotik:{}", volume.id),
        };
        let got = driver.node_agent(self.pod.worker, driver.identity())?.get_volume(request).await?;
        Ok(got.into_inner().volume.context("the agent knows nothing of it")?.condition)
    }

    /// The volume is well, and what is mounted is what was mounted in the beginning.
    pub(crate) async fn is_as_before(&self) -> Result<()> {
        let trouble = trouble(&self.pod).await?;
        ensure!(trouble.is_none(), "{trouble:?}");
        ensure!(self.condition().await?.is_empty(), "{}", self.condition().await?);
        let mounts = mounts(&self.pod).await?;
        ensure!(mounts == self.mounts, "{}\nwas mounted, and now\n{mounts}", self.mounts);
        Ok(())
    }
}

/// The ids of a pod's mounts, which the kernel gives to no other while they are there, and their devices.
async fn mounts(pod: &Pod<'_>) -> Result<String> {
    let (staging, path) = (pod.staging_path(), pod.path());
    let script =
        format!("awk '$5 == \"{staging}\" || $5 == \"{path}\" {{ print $1, $3, $5 }}' /proc/1/mountinfo");
    pod.worker.sh(&script).await
}

/// A pod with a volume under another reconnect policy than the standard one, as a StorageClass gives it.
async fn attach_with<'rig>(
    driver: &Driver<'rig>,
    volume: &Volume,
    worker: &'rig Worker,
    policy: &str,
) -> Result<Pod<'rig>> {
    let context = driver.publish(volume, worker.name()).await?;
    let mut pod = Pod::new(worker, volume.clone(), context, "pod-1");
    let policy: ReconnectPolicy = policy.parse()?;
    pod.context.extend(policy.to_pairs().map(|(key, value)| (key.to_owned(), value)));
    pod.stage().await?;
    pod.publish().await?;
    Ok(pod)
}

pub(crate) async fn a_connection_that_is_given_up_is_told_and_staged_anew(rig: &Rig) -> Result<()> {
    Driver::on(rig, async |driver| {
        let w1 = rig.worker("w1");
        let volume = driver.create("given-up", filesystem("ext4"), 64 * MIB).await?;
        let pod = attach_with(driver, &volume, w1, "3,1,5,off").await?;
        w1.sh(&format!("echo precious >{}/file; sync", pod.path())).await?;
        let mut watched = Watched::begin(driver, &pod).await?;
        w1.cut_network().await?;
        w1.sh("until [ -z \"$(ls /sys/class/nvme)\" ]; do sleep 0.1; done").await?;
        watched.tells("ConnectionLost").await?;
        watched.tells("StaleMountDetected").await?;
        let told = trouble(&pod).await?.context("a volume that is gone is not told")?;
        ensure!(told.contains("given up the connection") && told.contains("delete the pods"), "{told}");
        ensure!(watched.condition().await? == told, "the controller is told something else");
        w1.restore_network().await?;

        // The next stage is enough for a new pod; the old one still has what is gone, until it is deleted.
        pod.stage().await?;
        let new = pod.beside("pod-2");
        new.publish().await?;
        ensure!(w1.sh(&format!("cat {}/file", new.path())).await? == "precious");
        watched.tells("ConnectionRecovered").await?;
        let told = watched.condition().await?;
        ensure!(told.contains("of a device that is gone") && told.contains("delete the pods"), "{told:?}");
        pod.unpublish().await?;
        ensure!(trouble(&new).await?.is_none() && watched.condition().await?.is_empty());
        driver.detach(new).await?;
        driver.delete(&volume).await?;
        Ok(())
    })
    .await
}

/// Controllers come and go beside a mounted volume, and even its own is replaced by another one.
pub(crate) async fn controllers_with_other_numbers_are_the_same_volumes(rig: &Rig) -> Result<()> {
    Driver::on(rig, async |driver| {
        let w1 = rig.worker("w1");
        let mut volumes = Vec::new();
        for name in ["first", "second", "third"] {
            volumes.push(driver.create(name, filesystem("ext4"), 32 * MIB).await?);
        }
        let [first, second, third] = &volumes[..] else { unreachable!("three were made") };
        let write = async |pod: &Pod<'_>| {
            w1.sh(&format!("echo {id} >{}/id; sync {0}/id", pod.path(), id = pod.volume.id)).await
        };
        // Past the page cache: what the device says, and not what the node remembers.
        let reads_its_own = async |pod: &Pod<'_>| {
            let read = format!("echo 3 >/proc/sys/vm/drop_caches; cat {}/id", pod.path());
            let id = w1.sh(&read).await?;
            ensure!(id == pod.volume.id, "{id} is on {}", pod.volume.id);
            anyhow::Ok(())
        };
        let one = driver.attach(first, w1).await?;
        let two = driver.attach(second, w1).await?;
        write(&one).await?;
        write(&two).await?;
        let watched = Watched::begin(driver, &two).await?;
        let before = controllers(w1, second).await?;

        // Another path to the second one, and then the old one goes.
        let join = format!(
            "cd /sys/class/nvme/{before} && printf 'transport=tcp,%s,nqn=%s,hostnqn=%s,hostid=%s,ctrl_loss_tmo=-1,duplicate_connect' \
             $(cut -d, -f1,2 address) $(cat subsysnqn hostnqn hostid) >/dev/nvme-fabrics"
        );
        w1.sh(&join).await?;
        w1.sh(&format!("echo 1 >/sys/class/nvme/{before}/delete_controller")).await?;
        let after = controllers(w1, second).await?;
        ensure!(after != before, "{before} is still there");
        reads_its_own(&two).await?;

        // The first one's number goes to the third, and the first one gets another.
        driver.detach(one).await?;
        let three = driver.attach(third, w1).await?;
        let one = driver.attach(first, w1).await?;
        write(&three).await?;
        for pod in [&one, &two, &three] {
            reads_its_own(pod).await?;
        }
        two.stage().await?;
        two.publish().await?;
        write(&two).await?;
        watched.is_as_before().await?;
        for pod in [one, two, three] {
            driver.detach(pod).await?;
        }
        for volume in &volumes {
            driver.delete(volume).await?;
        }
        Ok(())
    })
    .await
}

/// The controllers of a volume on a worker, by their names.
async fn controllers(worker: &Worker, volume: &Volume) -> Result<String> {
    let connections = worker.nvme_connections().await?;
    let names =
        connections.iter().filter(|nvme| nvme.nqn.ends_with(&volume.id)).map(|nvme| &*nvme.controller);
    Ok(names.collect::<Vec<_>>().join(" "))
}
