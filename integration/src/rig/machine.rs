//! One QEMU process: how it is started, found ready, and ended.

use std::{
    env,
    ffi::OsStr,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tokio::{sync::oneshot, time};

use super::{image::Image, protocol, qmp};

/// How long a guest may take to its first request, even on a machine that does ten things at once.
const BOOT_DEADLINE: Duration = Duration::from_mins(2);

/// After how long a reset is taken for hung.
const RESET_PATIENCE: [Duration; 2] = [Duration::from_secs(20), Duration::from_secs(45)];

/// What a guest is made of.
#[derive(Debug, Clone)]
pub(super) struct Hardware {
    pub(super) name: String,
    pub(super) memory_mib: u32,
    /// A raw image, `/dev/vda` in the guest. It outlives the guest.
    pub(super) disk: PathBuf,
    /// A raw image that guests share and none writes to, `/dev/vdb`.
    pub(super) programs: Option<PathBuf>,
    /// The data links, in the order of the guest's `eth1`, `eth2`, …
    pub(super) links: Vec<Link>,
    /// `NAME=value` words for `integration/guest/init`.
    pub(super) settings: Vec<String>,
}

/// One end of a network cable between two guests: a unix socket.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) name: String,
    pub(super) end: End,
    pub(super) socket: PathBuf,
}

/// Which end listens. A listener takes the next caller when one has gone, so workers may die and return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Listens,
    Calls,
}

/// Starts QEMUs and other servers from one thread that lives as long as the rig. The kernel kills each when the *thread*
/// that started it ends (prctl(2), `PR_SET_PDEATHSIG`), so none outlives the rig, however the rig ends.
#[derive(Debug, Clone)]
pub(crate) struct Keeper(mpsc::Sender<(Command, oneshot::Sender<std::io::Result<Child>>)>);

impl Keeper {
    pub(crate) fn new() -> Self {
        let (sender, orders) = mpsc::channel::<(Command, oneshot::Sender<std::io::Result<Child>>)>();
        thread::spawn(move || {
            for (mut command, started) in orders {
                // Whoever ordered may have gone; then the child goes with this thread.
                let _ = started.send(command.spawn());
            }
        });
        Self(sender)
    }

    /// A command that is to end with the rig.
    pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program);
        command
    }

    pub(crate) async fn start(&self, command: Command) -> Result<Child> {
        let (started, child) = oneshot::channel();
        self.0.send((command, started)).ok().context("the rig is gone")?;
        Ok(child.await??)
    }
}

/// A running QEMU; it is killed when this is dropped.
#[derive(Debug)]
pub(super) struct Machine {
    child: Child,
    directory: PathBuf,
}

impl Machine {
    pub(super) async fn start(
        keeper: &Keeper,
        hardware: &Hardware,
        image: &Image,
        directory: &Path,
    ) -> Result<Self> {
        let seen = console_length(directory);
        // QEMU makes the socket anew, and one left over must not be taken for it.
        let _ = fs::remove_file(directory.join("qmp"));
        let mut command = command(hardware, image, directory);
        let log = fs::File::options().create(true).append(true).open(directory.join("qemu.log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = keeper.start(command).await.context("cannot start QEMU")?;
        let mut machine = Self { child, directory: directory.to_owned() };
        machine.wait_ready(seen).await?;
        Ok(machine)
    }

    /// Where the guest's requests go: the port that QEMU chose.
    pub(super) async fn control(&self) -> Result<SocketAddr> {
        let told = self.qmp("human-monitor-command", json!({ "command-line": "info usernet" })).await?;
        let told = told.as_str().unwrap_or_default();
        let port = forwarded_port(told).with_context(|| format!("no forwarded port in {told:?}"))?;
        Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }

    /// The reset button: the guest starts again, with its disk and its links.
    ///
    /// About one reset in twenty hangs before the kernel says a word (QEMU 7.2 without KVM), so it is pressed again, with more
    /// patience each time: a guest that is only slow must not be reset for ever.
    pub(super) async fn reset(&mut self) -> Result<()> {
        let seen = console_length(&self.directory);
        for patience in RESET_PATIENCE {
            self.qmp("system_reset", json!({})).await?;
            if let Ok(outcome) = time::timeout(patience, self.wait_ready(seen)).await {
                return outcome;
            }
        }
        self.qmp("system_reset", json!({})).await?;
        self.wait_ready(seen).await
    }

    pub(super) async fn qmp(&self, command: &str, arguments: Value) -> Result<Value> {
        qmp::execute(&self.directory.join("qmp"), command, arguments).await
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    async fn wait_ready(&mut self, seen: u64) -> Result<()> {
        let deadline = time::Instant::now() + BOOT_DEADLINE;
        loop {
            let console = fs::read(console(&self.directory)).unwrap_or_default();
            let fresh = console.get(usize::try_from(seen)?..).unwrap_or_default();
            if String::from_utf8_lossy(fresh).contains(protocol::READY) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                let log = fs::read_to_string(self.directory.join("qemu.log")).unwrap_or_default();
                bail!(
                    "QEMU ended ({status}) before its guest was up: {log}\n{}",
                    String::from_utf8_lossy(fresh)
                );
            }
            if time::Instant::now() > deadline {
                bail!("the guest was not up in {BOOT_DEADLINE:?}:\n{}", String::from_utf8_lossy(fresh));
            }
            time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may be dead already; then there is nothing to kill, but still something to reap.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until a QEMU has made this socket, which is among the first things it does.
pub(super) async fn appeared(socket: &Path) -> Result<()> {
    let appeared = async {
        while !socket.exists() {
            time::sleep(Duration::from_millis(5)).await;
        }
    };
    time::timeout(Duration::from_secs(20), appeared)
        .await
        .with_context(|| format!("{} did not appear: did QEMU start?", socket.display()))
}

/// Where a guest's console is kept.
pub(super) fn console(directory: &Path) -> PathBuf {
    directory.join("console.log")
}

fn console_length(directory: &Path) -> u64 {
    fs::metadata(console(directory)).map_or(0, |metadata| metadata.len())
}

fn command(hardware: &Hardware, image: &Image, directory: &Path) -> Command {
    // Without KVM, two cores run three guests at the pace of an old laptop, which is enough.
    let accelerator = env::var("RDS_CSI_RIG_ACCEL").unwrap_or_else(|_| "tcg,thread=multi".to_owned());
    // Self-tests, security modules and address randomisation would take a third of the boot.
    let kernel_line = format!(
        "console=ttyS0 quiet panic=0 mitigations=off no_timer_check cryptomgr.notests nokaslr lsm= audit=0 \
         ipv6.disable=1 RIG_NAME={} {}",
        hardware.name,
        hardware.settings.join(" ")
    );
    let mut command = Keeper::command("qemu-system-x86_64");
    command
        .args(["-name", &hardware.name])
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        .args(["-accel", &accelerator, "-machine", "q35", "-cpu", "max", "-smp", "1"])
        .args(["-m", &hardware.memory_mib.to_string()])
        .arg("-kernel")
        .arg(&image.kernel)
        .arg("-initrd")
        .arg(&image.initramfs)
        .args(["-append", &kernel_line])
        .args(["-chardev", &format!("file,id=console,append=on,path={}", console(directory).display())])
        .args(["-serial", "chardev:console"])
        .args(["-qmp", &format!("unix:{},server=on,wait=off", directory.join("qmp").display())])
        // The pool need not survive this machine's power cut; a guest's death it survives.
        .args([
            "-drive",
            &format!("if=none,id=disk,format=raw,cache=unsafe,file={}", hardware.disk.display()),
        ])
        .args(["-device", "virtio-blk-pci,drive=disk"])
        // Port 0: QEMU takes a free one, and no other run can be quicker.
        .args(["-netdev", &format!("user,id=management,hostfwd=tcp:127.0.0.1:0-:{}", protocol::PORT)])
        .args(["-device", "virtio-net-pci,netdev=management,romfile=,mac=52:54:00:00:00:01"]);
    if let Some(programs) = &hardware.programs {
        let drive = format!("if=none,id=programs,format=raw,readonly=on,file={}", programs.display());
        command.args(["-drive", &drive, "-device", "virtio-blk-pci,drive=programs"]);
    }
    for (link, number) in hardware.links.iter().zip(1..) {
        let (server, side) = match link.end {
            End::Listens => ("on", 1),
            End::Calls => ("off", 2),
        };
        let socket = link.socket.display();
        command
            .args([
                "-netdev",
                &format!("stream,id={},server={server},addr.type=unix,addr.path={socket}", link.name),
            ])
            .args([
                "-device",
                &format!("virtio-net-pci,netdev={},romfile=,mac=52:54:00:00:0{side}:{number:02x}", link.name),
            ]);
    }
    command
}

/// The host's port in QEMU's table of user-network connections.
fn forwarded_port(table: &str) -> Option<u16> {
    let line = table.lines().find(|line| line.contains("TCP[HOST_FORWARD]"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forwarded_port_is_read_from_qemus_table() {
        let table = "Hub -1 (management):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n  \
                     TCP[HOST_FORWARD]  13       127.0.0.1 35113       10.0.2.15  7000     0     0\r\n";
        assert_eq!(forwarded_port(table), Some(35113));
        assert_eq!(forwarded_port("Hub -1 (management):\r\n"), None);
    }
}
