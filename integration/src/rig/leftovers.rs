//! What a test must not leave behind, and how it is found: by looking at the guests, not by remembering what was done.

use anyhow::Result;
use futures_util::future::join_all;

use super::{Array, Rig, Worker};

/// What `integration/guest/init` mounts; everything else is somebody's leftover.
const OWN_MOUNTS: &[&str] = &[
    "/",
    "/proc",
    "/sys",
    "/dev",
    "/dev/pts",
    "/run",
    "/tmp",
    "/var",
    "/sys/kernel/config",
    "/storage-pool",
];

/// One sentence per leftover. A guest that cannot be asked is one, too.
pub(super) async fn find(rig: &Rig) -> Vec<String> {
    let workers =
        join_all(rig.workers().iter().map(async |worker| told(worker.name(), on_worker(worker).await)));
    let array = async { told("array", on_array(rig.array()).await) };
    let (workers, array) = tokio::join!(workers, array);
    workers.into_iter().flatten().chain(array).collect()
}

fn told(name: &str, found: Result<Vec<String>>) -> Vec<String> {
    found.unwrap_or_else(|error| vec![format!("{name}: cannot look: {error:#}")])
}

async fn on_worker(worker: &Worker) -> Result<Vec<String>> {
    let name = worker.name();
    let mut left = Vec::new();
    for process in worker.processes().await? {
        left.push(format!("{name}: process {} ({}) {}", process.pid, process.state, process.command));
    }
    for mount in worker.mounts().await? {
        if !OWN_MOUNTS.contains(&mount.target.as_str()) {
            left.push(format!("{name}: mount of {} at {}", mount.source, mount.target));
        }
    }
    for connection in worker.nvme_connections().await? {
        left.push(format!(
            "{name}: {} is {} with {}",
            connection.controller, connection.state, connection.nqn
        ));
    }
    let loops = worker.sh("losetup --noheadings --output NAME,BACK-FILE").await?;
    left.extend(loops.lines().map(|line| format!("{name}: loop device {line}")));
    Ok(left)
}

async fn on_array(array: &Array) -> Result<Vec<String>> {
    let mut left = Vec::new();
    for process in array.guest().processes().await? {
        if !array.programs().iter().any(|program| process.command.starts_with(program)) {
            left.push(format!("array: process {} ({}) {}", process.pid, process.state, process.command));
        }
    }
    left.extend(array.subsystems().await?.into_iter().map(|nqn| format!("array: subsystem {nqn}")));
    left.extend(array.pool().await?.into_iter().map(|name| format!("array: {name} in the pool")));
    let loops = array.sh("losetup --noheadings --output NAME,BACK-FILE").await?;
    left.extend(loops.lines().map(|line| format!("array: loop device {line}")));
    Ok(left)
}
