//! MicroVMs with a real kernel on both ends of NVMe/TCP: a storage guest, which is the array, and workers.
//!
//! `Rig::boot` brings them up in seconds, without root and without a network; `teardown` asserts that nothing is
//! left anywhere. Tests get one rig per group of tests through `group`.

mod array;
mod cpio;
mod diagnosis;
pub mod disk;
mod group;
mod guest;
mod image;
pub mod init;
mod leftovers;
mod machine;
pub mod protocol;
mod qmp;
mod worker;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

pub use self::{
    array::{Array, USER},
    group::{Group, World, group},
    guest::{Guest, Output, run_in},
    protocol::{Exit, Process, Target},
    worker::{MANAGED_NQN_PREFIX, Mount, NvmeConnection, Worker},
};
pub(crate) use self::{diagnosis::last_lines, machine::Keeper, worker::CSI_SOCKET};
use self::{
    image::Image,
    machine::{End, Hardware, Link},
};
use crate::certificates::Authority;

/// The address of the array's NVMe/TCP portal, as workers see it.
pub const PORTAL: &str = "10.77.0.1";

/// This machine, as guests see it.
pub const HOST: &str = "10.0.2.2";

/// What to boot.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How many workers, named `w1`, `w2`, …
    pub workers: u8,
    /// What the storage guest runs.
    pub array: ArrayKind,
    /// What the workers are made for.
    pub nodes: NodeKind,
}

impl Default for Plan {
    fn default() -> Self {
        Self { workers: 2, array: ArrayKind::RouterOs, nodes: NodeKind::Plain }
    }
}

/// What workers are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeKind {
    /// The node agent alone; the test is its kubelet.
    Plain,
    /// A real kubelet and containerd, and pods.
    Kubernetes,
}

impl NodeKind {
    /// Kubelet and containerd take 300 MiB, and no pod here is large.
    fn memory_mib(self) -> u32 {
        match self {
            Self::Plain => 384,
            Self::Kubernetes => 1024,
        }
    }

    fn var_bytes(self) -> u64 {
        match self {
            Self::Plain => 256 << 20,
            Self::Kubernetes => 2 << 30,
        }
    }
}

/// What the storage guest runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArrayKind {
    /// The RouterOS simulator, on the kernel's own NVMe/TCP target.
    RouterOs,
    /// Only a kernel with an NVMe/TCP target, for tests of the rig itself.
    Bare,
}

/// The storage guest, its workers, and the directory on this machine where they live.
#[derive(Debug)]
pub struct Rig {
    array: Array,
    workers: Vec<Worker>,
    authority: Authority,
    keeper: Keeper,
    // Last, so that the guests are dead before their directory goes.
    directory: TempDir,
}

impl Rig {
    /// Boots the guests and starts the array.
    pub async fn boot(plan: Plan) -> Result<Self> {
        let began = Instant::now();
        let directory = tempfile::Builder::new().prefix("rds-csi-rig.").tempdir()?;
        let at = &*directory.path().to_owned();
        let programs: &[&str] = match plan.array {
            ArrayKind::RouterOs => &["rds-csi-guest", "rds-csi-simulator", "rds-csi-node-agent"],
            ArrayKind::Bare => &["rds-csi-guest"],
        };
        eprintln!("rig: booting the array and {} workers", plan.workers);
        let image = Image::build(programs, at)?;
        let node_programs = match plan.nodes {
            NodeKind::Plain => None,
            NodeKind::Kubernetes => Some(image::kubernetes()?),
        };
        let built = began.elapsed();

        let keeper = Keeper::new();
        let numbers = 1..=plan.workers;
        let links = |end| numbers.clone().map(move |number| link(at, number, end));
        let array = Array::new(
            Guest::new(
                Hardware {
                    name: "array".to_owned(),
                    memory_mib: 512,
                    disk: blank(at, "array", 16 << 30)?,
                    programs: None,
                    links: links(End::Listens).collect(),
                    settings: vec!["RIG_ROLE=array".to_owned(), format!("RIG_WORKERS={}", plan.workers)],
                },
                image.clone(),
                at.join("array"),
                keeper.clone(),
            )?,
            plan.array,
            &at.join("array-keys"),
        )
        .await?;
        let authority = Authority::new(&at.join("certificates"))?;
        let mut workers = Vec::new();
        for (number, link) in numbers.clone().zip(links(End::Calls)) {
            let name = format!("w{number}");
            let mut settings = vec!["RIG_ROLE=worker".to_owned(), format!("RIG_INDEX={number}")];
            settings.extend(node_programs.is_some().then(|| "RIG_KUBERNETES=1".to_owned()));
            let hardware = Hardware {
                disk: formatted(blank(at, &name, plan.nodes.var_bytes())?)?,
                programs: node_programs.clone(),
                memory_mib: plan.nodes.memory_mib(),
                links: vec![link],
                settings,
                name: name.clone(),
            };
            let guest = Guest::new(hardware, image.clone(), at.join(&name), keeper.clone())?;
            workers.push(Worker::new(guest, number, &authority).await?);
        }

        let rig = Self { array, workers, authority, keeper, directory };
        // The array's QEMU listens on the links from its start on; workers retry nothing, so it comes first.
        let listening = async {
            for link in links(End::Listens) {
                machine::appeared(&link.socket).await?;
            }
            futures_util::future::try_join_all(rig.workers.iter().map(Worker::boot)).await
        };
        tokio::try_join!(rig.array.boot(), listening).map_err(|error| rig.with_consoles(error))?;
        eprintln!(
            "rig: up in {:.1} s (image {:.1} s), in {}",
            began.elapsed().as_secs_f32(),
            built.as_secs_f32(),
            rig.directory().display()
        );
        Ok(rig)
    }

    /// The array.
    pub fn array(&self) -> &Array {
        &self.array
    }

    /// A worker by its name; `w1` is the first.
    ///
    /// # Panics
    /// If there is none of that name: the test is wrong.
    pub fn worker(&self, name: &str) -> &Worker {
        let found = self.workers.iter().find(|worker| worker.name() == name);
        found.unwrap_or_else(|| panic!("the rig has {} workers, none is {name}", self.workers.len()))
    }

    /// All workers.
    pub fn workers(&self) -> &[Worker] {
        &self.workers
    }

    /// Where the guests' files are, and whatever else a test wants to keep there.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Where a controller of this rig keeps its socket and its log.
    pub fn controller_directory(&self) -> PathBuf {
        self.directory().join("controller")
    }

    /// Who signed the agents' certificates, and signs the controller's.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// How a person reaches what is in it.
    pub fn directions(&self) -> String {
        let array = &self.array;
        let mut lines = vec![
            format!(
                "array: ssh -o IdentitiesOnly=yes -i {} -p {} -o UserKnownHostsFile={} {USER}@127.0.0.1",
                array.key().display(),
                array.ssh_port(),
                array.known_hosts().display()
            ),
            format!("array: faults and state at {}", array.control_url()),
        ];
        for worker in &self.workers {
            lines.push(format!(
                "{}: CSI at {}, HTTP for people at {}, internal API at {}",
                worker.name(),
                worker.csi_endpoint(),
                worker.admin_url(),
                worker.api_address()
            ));
        }
        lines.push(format!(
            "a command in a guest: ./just rig run {}/w1 'ps; cat /proc/mounts'",
            self.directory().display()
        ));
        lines.join("\n")
    }

    /// What a person needs to see after a failure: what there is on the guests, what their kernels and the programs
    /// said, and the array's state.
    pub async fn diagnosis(&self) -> String {
        diagnosis::tell(self).await
    }

    /// What the tests so far have left on the guests and on the array, a sentence for each thing.
    pub async fn leftovers(&self) -> Vec<String> {
        leftovers::find(self).await
    }

    /// Ends everything, and fails if a test left something behind, or if something cannot be ended.
    pub async fn teardown(self) -> Result<()> {
        let left = self.leftovers().await;
        let told = if left.is_empty() { String::new() } else { self.diagnosis().await };

        let guests = || self.workers.iter().map(Worker::guest).chain([self.array.guest()]);
        let mut qemus = Vec::new();
        for guest in guests() {
            qemus.extend(guest.qemu().await);
            if guest.is_on() {
                guest.kill().await?;
            }
        }
        let alive = qemus.into_iter().filter(|pid| Path::new(&format!("/proc/{pid}")).exists());
        let alive: Vec<_> = alive.collect();
        let directory = self.directory().to_owned();
        self.directory.close().context("cannot remove the rig's directory")?;
        ensure!(left.is_empty(), "left behind:\n  {}\n{told}", left.join("\n  "));
        ensure!(alive.is_empty(), "QEMUs that outlived their kill: {alive:?}");
        ensure!(!directory.exists(), "{} is still there", directory.display());
        Ok(())
    }

    /// Who starts what ends with the rig.
    pub(crate) fn keeper(&self) -> &Keeper {
        &self.keeper
    }

    fn with_consoles(&self, error: anyhow::Error) -> anyhow::Error {
        let guests = self.workers.iter().map(Worker::guest).chain([self.array.guest()]);
        let consoles = guests.map(|guest| format!("--- {}\n{}\n", guest.name(), guest.console_tail(20)));
        error.context(consoles.collect::<String>())
    }
}

/// Waits until something is so. `what` says what, for the error of a wait that was in vain.
pub async fn eventually(what: &str, within: Duration, is_so: impl AsyncFn() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + within;
    while !is_so().await? {
        ensure!(Instant::now() < deadline, "not so within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

fn link(directory: &Path, number: u8, end: End) -> Link {
    Link { name: format!("data{number}"), end, socket: directory.join(format!("w{number}.link")) }
}

/// A guest's disk: a sparse file. The array formats its own.
fn blank(directory: &Path, name: &str, size: u64) -> Result<PathBuf> {
    let path = directory.join(format!("{name}.disk"));
    fs::File::create(&path)?.set_len(size)?;
    Ok(path)
}

/// A worker's disk holds `/var`, as a node's does.
fn formatted(disk: PathBuf) -> Result<PathBuf> {
    let made = Command::new("mke2fs")
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .args(["-q", "-t", "ext4", "-m", "0"])
        .arg(&disk)
        .status()
        .context("mke2fs")?;
    ensure!(made.success(), "mke2fs failed ({made})");
    Ok(disk)
}
