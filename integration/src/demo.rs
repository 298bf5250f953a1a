//! The main job on the rig, told as a story: a person watches what happens to data, and CI sees that it is true.

mod story;

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rds_csi_api::{HostNqn, NodeName};
use tonic::{Code, Status};

use self::story::Story;
use crate::driver::{Driver, Pod, Writer, block, filesystem, shared_block};
use crate::rig::{Mount, Plan, Rig, Worker};

const MIB: u64 = 1 << 20;

/// It takes about two minutes.
const LIMIT: Duration = Duration::from_mins(10);

/// Boots a rig, tells the story, and takes everything down again. An error says what was off.
pub async fn run() -> Result<()> {
    let mut story = Story::begin("rds-csi: one array, two nodes, and the kernel's own NVMe/TCP between them");
    let rig = Rig::boot(Plan::default()).await?;
    let told = tokio::time::timeout(LIMIT, tell(&mut story, &rig)).await;
    let told = told.unwrap_or_else(|_| bail!("the story is not told after {LIMIT:?}"));
    if told.is_err() {
        eprintln!("{}", rig.diagnosis().await);
    }
    let gone = rig.teardown().await;
    told.and(gone)?;
    story.end();
    Ok(())
}

async fn tell(story: &mut Story, rig: &Rig) -> Result<()> {
    let driver = Driver::start(rig).await?;
    println!();
    a_database_moves(story, &driver).await?;
    one_writer_only(story, &driver).await?;
    a_machine_migrates(story, &driver).await?;
    a_process_holds_on(story, &driver).await?;
    a_cable_is_pulled(story, &driver).await?;
    nothing_is_left(story, &driver).await?;
    driver.stop().await
}

async fn a_database_moves(story: &mut Story, driver: &Driver<'_>) -> Result<()> {
    let [w1, w2] = workers(driver);
    story.chapter("A filesystem volume moves with its data");
    let volume = story
        .step("create an ext4 volume of 256 MiB", driver.create("database", filesystem("ext4"), 256 * MIB))
        .await?;
    story.see(array_holds(driver).await?);
    let pod =
        story.step("attach it to w1: admit, connect, format, mount", driver.attach(&volume, w1)).await?;
    story.see(array_holds(driver).await?);
    story.see(node_holds(w1).await?);
    let path = format!("{}/data", pod.path());
    let write =
        format!("dd if=/dev/urandom of={path} bs=1M count=32 conv=fsync 2>/dev/null && sha256sum <{path}");
    let written = story.step("write 32 MiB, fsync", w1.sh(&write)).await?;
    story.see(format!("sha256 {}", short(&written)));
    story.step("detach it from w1: unmount, disconnect, shut out", driver.detach(pod)).await?;
    story.see(node_holds(w1).await?);
    let pod = story
        .step("attach it to w2: the same call, and nothing is formatted", driver.attach(&volume, w2))
        .await?;
    story.see(node_holds(w2).await?);
    let read = story.step("read it back", w2.sh(&format!("sha256sum <{path}"))).await?;
    story.see(format!("sha256 {}", short(&read)));
    ensure!(read == written, "the data on w2 differs: {read} instead of {written}");
    driver.detach(pod).await?;
    driver.delete(&volume).await?;
    story.showed("the checksum is the same on both nodes");
    Ok(())
}

async fn one_writer_only(story: &mut Story, driver: &Driver<'_>) -> Result<()> {
    let [w1, w2] = workers(driver);
    story.chapter("ReadWriteOnce means one node");
    let volume = driver.create("exclusive", filesystem("xfs"), 512 * MIB).await?;
    let pod = story.step("attach an xfs volume to w1", driver.attach(&volume, w1)).await?;
    let refused = driver.publish(&volume, w2.name()).await;
    see_refusal(story, "attach it to w2 as well", refused, w1.name())?;
    driver.detach(pod).await?;
    driver.delete(&volume).await?;
    story.showed("the second node is refused by name");
    Ok(())
}

async fn a_machine_migrates(story: &mut Story, driver: &Driver<'_>) -> Result<()> {
    let [w1, w2] = workers(driver);
    story.chapter("A virtual machine's disk is handed over");
    let volume = driver.create("machine", shared_block(), 64 * MIB).await?;
    let source = story.step("attach a ReadWriteMany block volume to w1", driver.attach(&volume, w1)).await?;
    let device = source.path();
    let write = format!(
        "dd if=/dev/urandom of={device} bs=1M count=16 oflag=direct 2>/dev/null && {}",
        digest(&device)
    );
    let written = story.step("write 16 MiB on w1", w1.sh(&write)).await?;
    story.see(format!("sha256 {}", short(&written)));
    let target = story.step("attach it to w2 while w1 has it", driver.attach(&volume, w2)).await?;
    story.see(array_holds(driver).await?);
    story.see(node_holds(w1).await?);
    story.see(node_holds(w2).await?);
    let refused = driver.publish(&volume, "w3").await;
    see_refusal(story, "attach it to a third node", refused, "w1")?;
    story.step("detach it from w1: w2 is not disturbed", driver.detach(source)).await?;
    let read = story.step("read it on w2", w2.sh(&digest(&target.path()))).await?;
    story.see(format!("sha256 {}", short(&read)));
    ensure!(read == written, "the data on w2 differs: {read} instead of {written}");
    driver.detach(target).await?;
    driver.delete(&volume).await?;
    story.showed("two nodes at once, a third refused, same checksum");
    Ok(())
}

async fn a_process_holds_on(story: &mut Story, driver: &Driver<'_>) -> Result<()> {
    let [w1, _] = workers(driver);
    story.chapter("A disk that is in use is not torn away");
    let volume = driver.create("held", block(), 64 * MIB).await?;
    let pod = story.step("attach a block volume to w1", driver.attach(&volume, w1)).await?;
    let pid = hold_open(w1, &pod).await?;
    story.see(format!("w1: process {pid} (tail) has the device open"));
    let refused = driver.unpublish(&volume, w1.name()).await;
    see_refusal(story, "detach it", refused, &pid)?;
    w1.sh(&format!("kill {pid}; while [ -e /proc/{pid} ]; do :; done")).await?;
    story.step("the process ends, and it is detached", driver.detach(pod)).await?;
    driver.delete(&volume).await?;
    story.showed("the refusal names the process");
    Ok(())
}

async fn a_cable_is_pulled(story: &mut Story, driver: &Driver<'_>) -> Result<()> {
    let [w1, _] = workers(driver);
    story.chapter("A cable is pulled for ten seconds");
    let volume = driver.create("durable", filesystem("ext4"), 256 * MIB).await?;
    let pod = story.step("attach an ext4 volume to w1", driver.attach(&volume, w1)).await?;
    let writer = Writer::start(&pod).await?;
    story.step("a program writes numbers, each with an fsync", writer.acknowledges_more()).await?;
    w1.cut_network().await?;
    story.see("w1: the cable to the array is pulled");
    let pause = async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        anyhow::Ok(())
    };
    story.step("ten seconds pass", pause).await?;
    story.see(node_holds(w1).await?);
    w1.restore_network().await?;
    story.see("w1: the cable is back");
    story.step("the program goes on, without an error", writer.acknowledges_more()).await?;
    let acknowledged = writer.stop().await?;
    let again = async {
        driver.detach(pod).await?;
        driver.attach(&volume, w1).await
    };
    let pod = story.step("detach it, and attach it again", again).await?;
    let written = writer.written().await?;
    story.see(format!("{acknowledged} numbers were acknowledged, {written} are there, none is missing"));
    ensure!(written >= acknowledged, "{acknowledged} writes were acknowledged, and only {written} are there");
    driver.detach(pod).await?;
    driver.delete(&volume).await?;
    story.showed(format!("of {acknowledged} acknowledged writes none is lost"));
    Ok(())
}

async fn nothing_is_left(story: &mut Story, driver: &Driver<'_>) -> Result<()> {
    story.chapter("Nothing is left");
    let volumes = array_holds(driver).await?;
    story.see(&volumes);
    ensure!(volumes.contains("no volume"), "the array still holds something:\n{volumes}");
    for worker in driver.rig().workers() {
        let left = node_holds(worker).await?;
        story.see(&left);
        ensure!(left.contains("nothing"), "a node still holds something:\n{left}");
    }
    story.showed("array and nodes are as they were before");
    Ok(())
}

/// The message that a user would see in the pod's events. Any other answer than this refusal is an error.
fn see_refusal<T>(story: &Story, what: &str, answer: Result<T, Status>, names: &str) -> Result<()> {
    let Err(status) = answer else { bail!("{what}: this should have been refused") };
    story.see(format!("{what}: refused"));
    story.see(format!("{:?}: {}", status.code(), status.message()));
    ensure!(status.code() == Code::FailedPrecondition, "{what}: {status}");
    ensure!(status.message().contains(names), "the message does not name {names}: {}", status.message());
    Ok(())
}

fn workers<'rig>(driver: &Driver<'rig>) -> [&'rig Worker; 2] {
    ["w1", "w2"].map(|name| driver.rig().worker(name))
}

/// Reads the device itself, not what the page cache remembers of it.
fn digest(device: &str) -> String {
    format!("dd if={device} bs=1M count=16 iflag=direct 2>/dev/null | sha256sum")
}

fn short(digest: &str) -> String {
    format!("{}…", digest.chars().take(16).collect::<String>())
}

async fn hold_open(worker: &Worker, pod: &Pod<'_>) -> Result<String> {
    worker.sh(&format!("tail -f /dev/null <{} >/dev/null 2>&1 & echo $!", pod.path())).await
}

/// What the array holds and whom it admits, in its own words.
async fn array_holds(driver: &Driver<'_>) -> Result<String> {
    let state = driver.rig().array().state().await?;
    let disks = state["disks"].as_array().context("the array's state has no disks")?;
    if disks.is_empty() {
        return Ok("array: no volume".into());
    }
    let mut told = Vec::new();
    for disk in disks {
        let size = disk["file-size"].as_u64().context("a disk has no size")?;
        let slot = disk["slot"].as_str().context("a disk has no slot")?;
        let exported = disk["nvme-tcp-export"] == true;
        let admitted = disk["nvme-tcp-server-allow-host-name"].as_str().unwrap_or_default();
        let nodes = driver.rig().workers().iter().map(Worker::name);
        let nodes: Vec<_> = nodes.filter(|node| exported && admits(admitted, node)).collect();
        let whom = if nodes.is_empty() { "nobody".into() } else { nodes.join(" and ") };
        told.push(format!("array: {slot}, {} MiB, admits {whom}", size / MIB));
    }
    Ok(told.join("\n"))
}

fn admits(hosts: &str, node: &str) -> bool {
    let node: NodeName = node.parse().expect("workers are named as nodes are");
    hosts.split(',').any(|host| host == HostNqn::of(&node).as_str())
}

/// The end of a path of kubelet, which tells enough: a line should fit a terminal.
fn ending(path: &str) -> String {
    let skipped = path.chars().count().saturating_sub(44);
    if skipped == 0 { path.into() } else { format!("…{}", path.chars().skip(skipped).collect::<String>()) }
}

/// What a node holds of volumes: connections and mounts.
async fn node_holds(worker: &Worker) -> Result<String> {
    let name = worker.name();
    let connections = worker.nvme_connections().await?;
    let connections =
        connections.iter().map(|nvme| format!("{name}: {} {} {}", nvme.controller, nvme.state, nvme.nqn));
    let mounts = worker.mounts().await?;
    let mounts = mounts.iter().filter(|mount| mount.source.starts_with("/dev/nvme"));
    let mounts = mounts.map(|Mount { source, filesystem, target, .. }| {
        format!("{name}: {source} {filesystem} on {}", ending(target))
    });
    let told: Vec<_> = connections.chain(mounts).collect();
    Ok(if told.is_empty() { format!("{name}: nothing") } else { told.join("\n") })
}
