//! What a test must not leave behind, and how it is found: by looking at the guests, not by remembering what was done.

use std::{future::Future, time::Duration};

use anyhow::Result;
use futures_util::future::join_all;

use tokio::time;

use super::{Array, Rig, Worker};

/// How long a guest may take to tell; one that is paused never does.
const PATIENCE: Duration = Duration::from_secs(20);

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
    "/sys/fs/cgroup",
    "/opt/kubernetes",
    "/storage-pool",
];

/// One sentence per leftover. A guest that cannot be asked is one, too.
pub(super) async fn find(rig: &Rig) -> Vec<String> {
    let workers = rig.workers().iter().map(|worker| patiently(worker.name(), on_worker(worker)));
    let workers = join_all(workers);
    let array = patiently("array", on_array(rig.array()));
    let (workers, array) = tokio::join!(workers, array);
    workers.into_iter().flatten().chain(array).collect()
}

async fn patiently(name: &str, look: impl Future<Output = Result<Vec<String>>>) -> Vec<String> {
    match time::timeout(PATIENCE, look).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => vec![format!("{name}: cannot look: {error:#}")],
        Err(_) => vec![format!("{name}: cannot look: it does not answer")],
    }
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
    left.extend(array.slots().await?.into_iter().map(|slot| format!("array: disk {slot}")));
    left.extend(array.subsystems().await?.into_iter().map(|nqn| format!("array: subsystem {nqn}")));
    left.extend(array.pool().await?.into_iter().map(|name| format!("array: {name} in the pool")));
    let loops = array.sh("losetup --noheadings --output NAME,BACK-FILE").await?;
    left.extend(loops.lines().map(|line| format!("array: loop device {line}")));
    Ok(left)
}
