//! A machine with many processes that have much open, and the agent's look at which of them uses a device.
//!
//! It is this machine, as a PID namespace of its own shows it: so the processes are exactly these, and no root is needed to see
//! what they have open.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rds_csi_api::{HostId, HostNqn, NodeName};
use rds_csi_node_agent::host::{DeviceNumber, Host as _, Initiator, Linux, Use};
use rustix::fs::{Mode, OFlags, open};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

const PROCESSES: usize = 2000;

/// What each has open, its three standard ones among it.
const DESCRIPTORS: usize = 25;

/// The word for the part of this program that runs in a namespace.
pub const LOOK: &str = "look";

/// How often is looked.
const LOOKS: usize = 7;

/// How long one look takes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Pass {
    /// The shortest of several: this machine may have more to do.
    pub(super) wall: Duration,
    /// Of all processors together, in the median.
    pub(super) cpu: Duration,
    pub(super) processes: usize,
    pub(super) descriptors: usize,
}

/// Processes that sleep until they are dropped.
struct Crowd(Vec<Child>);

impl Crowd {
    /// Each has `DESCRIPTORS` open files; the first has this one as its standard input.
    fn gather(file: File) -> Result<Self> {
        let inherited: Vec<OwnedFd> = (3..DESCRIPTORS)
            .map(|_| open("/dev/null", OFlags::RDONLY, Mode::empty()))
            .collect::<Result<_, _>>()?;
        let mut crowd = Self(Vec::new());
        let mut stdin = Stdio::from(file);
        for _ in 0..PROCESSES {
            let mut sleep = Command::new("/bin/sleep");
            sleep.arg("infinity").stdin(stdin).stdout(Stdio::null()).stderr(Stdio::null());
            crowd.0.push(sleep.spawn()?);
            stdin = Stdio::null();
        }
        drop(inherited);
        Ok(crowd)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
        }
        for child in &mut self.0 {
            let _ = child.wait();
        }
    }
}

/// Runs this program once more, as `look`, where it sees nobody else.
pub(super) fn measure() -> Result<Pass> {
    let looked = Command::new("unshare")
        .args(["--user", "--map-root-user", "--pid", "--fork", "--mount-proc"])
        .arg(std::env::current_exe()?)
        .arg(LOOK)
        .stderr(Stdio::inherit())
        .output()
        .context("unshare")?;
    ensure!(looked.status.success(), "the look in a PID namespace failed ({})", looked.status);
    Ok(serde_json::from_slice(&looked.stdout)?)
}

/// Looks for whoever uses a filesystem in memory that one process has a file of, and prints how long that takes.
pub fn look() -> Result<()> {
    let file = tempfile::tempfile_in("/dev/shm")?;
    let device = DeviceNumber::from_raw(file.metadata()?.dev());
    let crowd = Crowd::gather(file)?;
    let user = crowd.0.first().map(Child::id);
    // Who looks connects to nothing.
    let node: NodeName = "bench".parse()?;
    let host = Linux::new(Initiator { nqn: HostNqn::of(&node), id: HostId::of(&node) });
    let (mut wall, mut cpu) = (Vec::new(), Vec::new());
    for _ in 0..LOOKS {
        let (begun, spent) = (Instant::now(), clock_gettime(ClockId::ProcessCPUTime));
        let holders = host.holders(&[device])?;
        wall.push(begun.elapsed());
        cpu.push(Duration::try_from(clock_gettime(ClockId::ProcessCPUTime) - spent)?);
        let found = holders.iter().any(|holder| {
            holder.how == Use::OpenFile && Some(holder.pid) == user && holder.command == "sleep"
        });
        ensure!(found, "process {user:?} has a file of it open, and is not among {holders:?}");
    }
    let (wall, cpu) = (wall.into_iter().min().context("nobody looked")?, super::median(&cpu)?);
    let pass = Pass { wall, cpu, processes: PROCESSES, descriptors: PROCESSES * DESCRIPTORS };
    println!("{}", serde_json::to_string(&pass)?);
    Ok(())
}
