//! A worker: a node of the cluster, with a data link of its own and the node agent.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tokio::time;

use super::{
    Output, Target,
    guest::{Cable, Guest, MANAGEMENT},
    protocol::{Exit, Process},
};
use crate::certificates::{Authority, Identity};

/// The name of the node agent among the guest's programs.
const AGENT: &str = "node-agent";

const AGENT_PROGRAM: &str = "/bin/rds-csi-node-agent";

pub(crate) const CSI_SOCKET: &str = "/run/rds-csi/csi.sock";
const ADMIN_PORT: u16 = 9080;
const API_PORT: u16 = 9443;

/// Only volumes of this prefix are the agents' business.
pub const MANAGED_NQN_PREFIX: &str = "nqn.2000-02.com.mikrotik:pvc-";

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

/// A worker node.
#[derive(Debug)]
pub struct Worker {
    guest: Guest,
    number: u8,
    certificate: Identity,
    csi: SocketAddr,
    admin: SocketAddr,
    api: SocketAddr,
}

impl Worker {
    pub(super) async fn new(guest: Guest, number: u8, authority: &Authority) -> Result<Self> {
        let csi = guest.forward(Target::Unix(CSI_SOCKET.into())).await?;
        let admin = guest.forward(Target::Port(ADMIN_PORT)).await?;
        let api = guest.forward(Target::Port(API_PORT)).await?;
        let certificate = authority.issue_for_agents(&[guest.name()])?;
        Ok(Self { guest, number, certificate, csi, admin, api })
    }

    /// Its name, which is also its node's name.
    pub fn name(&self) -> &str {
        self.guest.name()
    }

    /// The guest it is, for everything that is not a node's business.
    pub fn guest(&self) -> &Guest {
        &self.guest
    }

    /// Its address on the data network.
    pub fn address(&self) -> String {
        format!("10.77.{}.2", self.number)
    }

    /// Runs a shell command and returns its output; see [`Guest::sh`].
    pub async fn sh(&self, script: &str) -> Result<String> {
        self.guest.sh(script).await
    }

    /// Runs a shell command that may fail; see [`Guest::run`].
    pub async fn run(&self, script: &str) -> Result<Output> {
        self.guest.run(script).await
    }

    /// Boots it, again after `kill`: its `/var` is as it was, its agent is not started.
    pub async fn boot(&self) -> Result<()> {
        self.guest.boot().await
    }

    /// A power cut.
    pub async fn kill(&self) -> Result<()> {
        self.guest.kill().await
    }

    /// Freezes the whole node.
    pub async fn pause(&self) -> Result<()> {
        self.guest.pause().await
    }

    /// Lets a frozen node go on, with everything it had in mind.
    pub async fn resume(&self) -> Result<()> {
        self.guest.resume().await
    }

    /// Pulls the cable to the array. Everything else still reaches the node.
    pub async fn cut_network(&self) -> Result<()> {
        self.guest.set_link(&self.link(), Cable::Pulled).await
    }

    /// Pulls every cable: neither the array nor anybody else reaches the node, which runs on.
    pub async fn isolate(&self) -> Result<()> {
        self.guest.set_link(MANAGEMENT, Cable::Pulled).await?;
        self.cut_network().await
    }

    /// Plugs every cable in again.
    pub async fn rejoin(&self) -> Result<()> {
        self.guest.set_link(MANAGEMENT, Cable::Plugged).await?;
        self.restore_network().await
    }

    /// Plugs the cable in again.
    pub async fn restore_network(&self) -> Result<()> {
        self.guest.set_link(&self.link(), Cable::Plugged).await
    }

    fn link(&self) -> String {
        format!("data{}", self.number)
    }

    /// Starts the node agent, with these arguments beside those that every agent here has, and waits until it serves.
    pub async fn start_agent(&self, more: &[&str]) -> Result<()> {
        let Identity { authority, certificate, key } = &self.certificate;
        for (from, to, mode) in
            [(authority, "ca.crt", 0o644), (certificate, "agent.crt", 0o644), (key, "agent.key", 0o600)]
        {
            let content = std::fs::read(from)?;
            self.guest.write(Path::new("/etc/rds-csi").join(to), mode, &content).await?;
        }
        self.guest.sh("mkdir -p /run/rds-csi /var/lib/kubelet /var/lib/rds-csi").await?;
        let api = format!("0.0.0.0:{API_PORT}");
        let admin = format!("127.0.0.1:{ADMIN_PORT}");
        let arguments = [
            AGENT_PROGRAM,
            "--node-name",
            self.name(),
            "--csi-socket",
            CSI_SOCKET,
            "--kubelet-dir",
            "/var/lib/kubelet",
            "--state-dir",
            "/var/lib/rds-csi",
            "--managed-nqn-prefix",
            MANAGED_NQN_PREFIX,
            "--api-listen",
            &api,
            "--api-cert",
            "/etc/rds-csi/agent.crt",
            "--api-key",
            "/etc/rds-csi/agent.key",
            "--api-client-ca",
            "/etc/rds-csi/ca.crt",
            "--admin-listen",
            &admin,
        ];
        self.guest.start(AGENT, arguments.iter().chain(more).copied(), &[]).await?;
        self.await_agent().await
    }

    async fn await_agent(&self) -> Result<()> {
        let deadline = time::Instant::now() + Duration::from_secs(30);
        while !self.guest.listens(Target::Unix(CSI_SOCKET.into())).await? {
            let ended = self.guest.wait(AGENT, Duration::from_millis(100)).await;
            if ended.is_ok() || time::Instant::now() > deadline {
                let log = self.agent_log().await?;
                anyhow::bail!("the agent on {} does not serve ({ended:?}):\n{log}", self.name());
            }
        }
        Ok(())
    }

    /// Asks the agent to end, and checks that it does so with status 0.
    pub async fn stop_agent(&self) -> Result<()> {
        self.guest.signal(AGENT, SIGTERM).await?;
        let exit = self.guest.wait(AGENT, Duration::from_secs(40)).await?;
        ensure!(exit == Exit::Code(0), "the agent on {} ended with {exit:?}", self.name());
        Ok(())
    }

    /// Undoes what a test that failed may have done to the node: it is on, not frozen, its cables are plugged in, and
    /// no agent runs.
    pub async fn recover(&self) -> Result<()> {
        if !self.guest.is_on() {
            self.boot().await?;
        }
        self.resume().await?;
        self.rejoin().await?;
        if self.processes().await?.iter().any(|process| process.command.starts_with(AGENT_PROGRAM)) {
            self.kill_agent().await?;
        }
        Ok(())
    }

    /// Kills the agent where it stands.
    pub async fn kill_agent(&self) -> Result<()> {
        self.guest.signal(AGENT, SIGKILL).await?;
        self.guest.wait(AGENT, Duration::from_secs(10)).await?;
        Ok(())
    }

    /// Kills the agent as soon as a condition of the shell holds. It is looked at in the guest: from here it would be late.
    pub async fn kill_agent_when(&self, condition: &str) -> Result<()> {
        self.guest.sh(&format!("until {condition}; do :; done; kill -9 $(pidof {AGENT_PROGRAM})")).await?;
        // A thread in a system call that no signal ends, such as a connect, holds the others up.
        self.guest.wait(AGENT, Duration::from_secs(40)).await?;
        Ok(())
    }

    /// What the agent has logged, all its lives since the guest's first boot.
    pub async fn agent_log(&self) -> Result<String> {
        self.guest.log(AGENT).await
    }

    /// Where the agent's CSI socket can be reached from this machine, as a gRPC endpoint.
    pub fn csi_endpoint(&self) -> String {
        format!("http://{}", self.csi)
    }

    /// The agent's HTTP server for people, without a trailing slash.
    pub fn admin_url(&self) -> String {
        format!("http://{}", self.admin)
    }

    /// The agent's internal API, as `HOST:PORT` for the controller.
    pub fn api_address(&self) -> SocketAddr {
        self.api
    }

    /// Its mounts in PID 1's namespace.
    pub async fn mounts(&self) -> Result<Vec<Mount>> {
        let told = String::from_utf8(self.guest.read("/proc/1/mountinfo").await?)?;
        told.lines().map(|line| Mount::parse(line).with_context(|| format!("mountinfo: {line}"))).collect()
    }

    /// Marks the kernel's log, and returns the command that prints what the kernel says from now on. A mark serves once.
    pub async fn kernel_messages(&self, mark: &str) -> Result<String> {
        self.sh(&format!("echo 'rig: {mark}' >/dev/kmsg")).await?;
        Ok(format!("dmesg | sed '1,/rig: {mark}/d'"))
    }

    /// Its NVMe controllers over fabrics, whatever their state.
    pub async fn nvme_connections(&self) -> Result<Vec<NvmeConnection>> {
        let script = "cd /sys/class/nvme && for c in nvme*; do [ -e $c/subsysnqn ] && \
                      echo $c $(cat $c/state $c/subsysnqn $c/hostnqn); done; true";
        let told = self.guest.sh(script).await?;
        // A controller may go away between the listing and the reading; then its line is short.
        Ok(told.lines().filter_map(NvmeConnection::parse).collect())
    }

    /// Its processes, without PID 1 and the kernel's threads.
    pub async fn processes(&self) -> Result<Vec<Process>> {
        self.guest.processes().await
    }
}

/// A line of mountinfo, as proc(5) describes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mount {
    /// Where it is mounted.
    pub target: String,
    /// The filesystem's type.
    pub filesystem: String,
    /// The device, or what the filesystem calls its source.
    pub source: String,
    /// The mount's own options.
    pub options: String,
}

impl Mount {
    fn parse(line: &str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(4);
        let mut after = after.split(' ');
        Some(Self {
            target: before.next()?.replace("\\040", " "),
            options: before.next()?.to_owned(),
            filesystem: after.next()?.to_owned(),
            source: after.next()?.to_owned(),
        })
    }
}

/// An NVMe controller of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NvmeConnection {
    /// Its name in sysfs.
    pub controller: String,
    /// `live`, `connecting`, …
    pub state: String,
    /// The subsystem it is connected to.
    pub nqn: String,
    /// As whom.
    pub host_nqn: String,
}

impl NvmeConnection {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace().map(str::to_owned);
        Some(Self {
            controller: words.next()?,
            state: words.next()?,
            nqn: words.next()?,
            host_nqn: words.next()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_read_past_its_optional_fields() {
        let line = "36 35 98:0 /mnt1 /mnt/two\\040words rw,noatime shared:1 master:2 - ext4 /dev/nvme0n1 rw,errors=continue";
        let mount = Mount::parse(line).unwrap();
        assert_eq!(mount.target, "/mnt/two words");
        assert_eq!((mount.filesystem.as_str(), mount.source.as_str()), ("ext4", "/dev/nvme0n1"));
    }

    #[test]
    fn a_controller_that_goes_away_is_left_out() {
        assert_eq!(NvmeConnection::parse("nvme0 deleting"), None);
    }
}
