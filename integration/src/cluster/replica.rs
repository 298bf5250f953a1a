//! A replica of the controller, as its pod would be: the driver's own program, and a set of sidecars on its socket.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};
use tokio::time::{Duration, sleep};

use super::control_plane::ControlPlane;
use super::process::Process;
use super::{rights, sidecars};
use crate::driver::{Controller, Settings};
use crate::rig::{Keeper, last_lines};

/// Does something while controllers are killed at random moments, one at a time, and started again; afterwards all of them live.
pub(super) async fn while_they_die<T>(
    replicas: &[Replica],
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let killing = async {
        for kills in 1_u32.. {
            sleep(Duration::from_millis(rand::random_range(2_000..20_000))).await;
            let replica = &replicas[rand::random_range(0..replicas.len())];
            replica.kill().await?;
            eprintln!("cluster: kill {kills}: {}", replica.name);
            sleep(Duration::from_millis(rand::random_range(0..1500))).await;
            replica.revive().await?;
        }
        bail!("enough")
    };
    let done = tokio::select! {
        done = work => done,
        stopped = killing => stopped,
    };
    for replica in replicas {
        replica.revive().await?;
    }
    done
}

/// A replica; all of it is killed when this is dropped.
pub(super) struct Replica {
    name: String,
    folder: PathBuf,
    settings: Settings,
    /// Nothing while it is dead.
    controller: Mutex<Option<Controller>>,
    // Killed with the replica; they end and come back by themselves when their controller goes.
    sidecars: Vec<Process>,
}

impl Replica {
    /// Starts the replica of that number.
    pub(super) async fn start(
        number: usize,
        plane: &ControlPlane,
        keeper: &Keeper,
        mut settings: Settings,
    ) -> Result<Self> {
        let name = format!("{}-{number}", rights::CONTROLLER);
        let folder = plane.folder().join(&name);
        settings.flags.extend(["--pod-namespace", rights::NAMESPACE, "--pod-name", &name].map(str::to_owned));
        let controller = Controller::start(&folder, &settings).await?;
        let sidecars = sidecars::beside(plane, keeper, &name, &controller.socket()).await?;
        Ok(Self { name, folder, settings, controller: Mutex::new(Some(controller)), sidecars })
    }

    /// Its controller, while it lives.
    pub(super) async fn controller(&self) -> Result<MappedMutexGuard<'_, Controller>> {
        let controller = MutexGuard::try_map(self.controller.lock().await, Option::as_mut);
        controller.ok().with_context(|| format!("{} is dead", self.name))
    }

    /// Kills the controller where it stands. Its sidecars end as they lose it, and wait for the next.
    async fn kill(&self) -> Result<()> {
        *self.controller.lock().await = None;
        // In a pod everything dies with the first process. Here its ssh, which has gone its own way, would keep a session of the array's.
        for process in fs::read_dir("/proc")?.flatten() {
            let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
            let pid = process.file_name().to_string_lossy().parse().ok().and_then(Pid::from_raw);
            let is_ours = String::from_utf8_lossy(&command).contains(&*self.folder.to_string_lossy());
            if let Some(pid) = pid.filter(|_| is_ours && command.starts_with(b"/usr/bin/ssh\0")) {
                // It may have ended by itself.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        Ok(())
    }

    /// Starts the controller again if it was killed, as kubelet does.
    async fn revive(&self) -> Result<()> {
        let mut controller = self.controller.lock().await;
        if controller.is_none() {
            *controller = Some(Controller::start(&self.folder, &self.settings).await?);
        }
        Ok(())
    }

    pub(super) fn processes(&self) -> impl Iterator<Item = &Process> {
        self.sidecars.iter()
    }

    /// The last lines of what the controller has said.
    pub(super) fn log_tail(&self, lines: usize) -> String {
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        format!("--- {}\n{}", self.name, last_lines(&log, lines))
    }

    /// Ends it in order: who calls before who answers.
    pub(super) async fn stop(self) -> Result<()> {
        drop(self.sidecars);
        match self.controller.into_inner() {
            Some(controller) => controller.stop().await,
            None => Ok(()),
        }
    }
}
