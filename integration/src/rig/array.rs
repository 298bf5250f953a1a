//! The array: the storage guest, with the RouterOS simulator on the kernel's own NVMe/TCP target.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::time;

use super::{ArrayKind, Output, Target, guest::Guest};

const SIMULATOR: &str = "simulator";
const SSH_PORT: u16 = 22;
const CONTROL_PORT: u16 = 8080;

/// The user that may log in on the array.
pub const USER: &str = "rds-csi";

/// The storage guest and the keys to it.
#[derive(Debug)]
pub struct Array {
    guest: Guest,
    kind: ArrayKind,
    keys: PathBuf,
    ssh: SocketAddr,
    control: SocketAddr,
}

impl Array {
    pub(super) async fn new(guest: Guest, kind: ArrayKind, keys: &Path) -> Result<Self> {
        let ssh = guest.forward(Target::Port(SSH_PORT)).await?;
        let control = guest.forward(Target::Port(CONTROL_PORT)).await?;
        fs::create_dir_all(keys)?;
        for name in ["user", "host"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", "rig", "-f"])
                .arg(keys.join(name))
                .status()
                .context("ssh-keygen")?;
            ensure!(made.success(), "ssh-keygen failed ({made})");
        }
        let host = fs::read_to_string(keys.join("host.pub"))?;
        fs::write(keys.join("known_hosts"), format!("[{}]:{} {host}", ssh.ip(), ssh.port()))?;
        Ok(Self { guest, kind, keys: keys.to_owned(), ssh, control })
    }

    /// The guest it is.
    pub fn guest(&self) -> &Guest {
        &self.guest
    }

    /// Runs a shell command in the storage guest; RouterOS has no such thing.
    pub async fn sh(&self, script: &str) -> Result<String> {
        self.guest.sh(script).await
    }

    /// Runs a shell command that may fail.
    pub async fn run(&self, script: &str) -> Result<Output> {
        self.guest.run(script).await
    }

    pub(super) async fn boot(&self) -> Result<()> {
        self.guest.boot().await?;
        self.start().await
    }

    /// Presses the reset button, and waits until the array serves again, with what its pool held.
    pub async fn reboot(&self) -> Result<()> {
        self.guest.reset().await?;
        self.start().await
    }

    /// Where its SSH server listens on this machine.
    pub fn ssh(&self) -> SocketAddr {
        self.ssh
    }

    /// The port of its SSH server on this machine's loopback.
    pub fn ssh_port(&self) -> u16 {
        self.ssh.port()
    }

    /// A file that knows its host key.
    pub fn known_hosts(&self) -> PathBuf {
        self.keys.join("known_hosts")
    }

    /// The private key that opens it.
    pub fn key(&self) -> PathBuf {
        self.keys.join("user")
    }

    /// The simulator's HTTP server for faults and state, without a trailing slash.
    pub fn control_url(&self) -> String {
        format!("http://{}", self.control)
    }

    /// What the array holds, as the simulator tells it.
    pub async fn state(&self) -> Result<serde_json::Value> {
        let url = format!("{}/state", self.control_url());
        let answer = reqwest::Client::new().get(&url).timeout(Duration::from_secs(20)).send().await?;
        Ok(answer.error_for_status()?.json().await?)
    }

    /// The subsystems that its kernel exports.
    pub async fn subsystems(&self) -> Result<Vec<String>> {
        let listed = self.sh("ls /sys/kernel/config/nvmet/subsystems").await?;
        Ok(listed.lines().map(str::to_owned).collect())
    }

    /// Its pool's subvolumes, and files that are in none.
    pub async fn pool(&self) -> Result<Vec<String>> {
        // A name with a dot in front is the array's own, as `.simulator` is.
        let listed = self.sh("cd /storage-pool && find . -mindepth 1 -not -path './.*'").await?;
        Ok(listed.lines().map(str::to_owned).collect())
    }

    /// The slots of its disks; without RouterOS there are none.
    pub async fn slots(&self) -> Result<Vec<String>> {
        if self.kind == ArrayKind::Bare {
            return Ok(Vec::new());
        }
        let state = self.state().await?;
        let disks = state["disks"].as_array().context("the array's state tells of no disks")?;
        Ok(disks.iter().map(|disk| disk["slot"].as_str().unwrap_or("?").to_owned()).collect())
    }

    async fn start(&self) -> Result<()> {
        if self.kind == ArrayKind::Bare {
            return Ok(());
        }
        // The guest's own files are gone after a reboot.
        self.guest.write("/etc/rds-csi/host_key", 0o600, &fs::read(self.keys.join("host"))?).await?;
        self.guest.write("/etc/rds-csi/user.pub", 0o644, &fs::read(self.keys.join("user.pub"))?).await?;
        let listen = format!("0.0.0.0:{SSH_PORT}");
        let control = format!("0.0.0.0:{CONTROL_PORT}");
        let arguments = [
            "/bin/rds-csi-simulator",
            "--backend",
            "linux",
            "--pool",
            "storage-pool",
            "--pool-mount",
            "/storage-pool",
            "--host-key",
            "/etc/rds-csi/host_key",
            "--authorized-key",
            "/etc/rds-csi/user.pub",
            "--user",
            USER,
            "--listen",
            &listen,
            "--control-listen",
            &control,
        ];
        self.guest.start(SIMULATOR, arguments, &[]).await?;
        let deadline = time::Instant::now() + Duration::from_secs(30);
        while !self.guest.listens(Target::Port(SSH_PORT)).await? {
            let ended = self.guest.wait(SIMULATOR, Duration::from_millis(100)).await;
            if ended.is_ok() || time::Instant::now() > deadline {
                bail!("the simulator does not serve ({ended:?}):\n{}", self.guest.log(SIMULATOR).await?);
            }
        }
        Ok(())
    }

    pub(super) fn programs(&self) -> &'static [&'static str] {
        match self.kind {
            ArrayKind::RouterOs => &["/bin/rds-csi-simulator"],
            ArrayKind::Bare => &[],
        }
    }

    /// What its simulator has logged since the guest's boot.
    pub async fn log(&self) -> Result<String> {
        self.guest.log(SIMULATOR).await
    }
}
