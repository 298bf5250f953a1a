//! The bare system calls: a connection until its device is ready, a mount, a bind, a device node, and back.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, FileType, Mode, mknodat, stat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

use super::guest::{Programs, Round, Step, Subject, timed};

/// A device that does not come is a failure.
const PATIENCE: Duration = Duration::from_mins(1);

/// As whom this node connects.
pub(super) struct Host {
    nqn: String,
    id: String,
}

impl Host {
    /// As the driver just did it.
    pub(super) fn of(subject: &Subject) -> Result<Self> {
        for controller in fs::read_dir("/sys/class/nvme")? {
            let controller = controller?.path();
            let read =
                |name| fs::read_to_string(controller.join(name)).map(|text| text.trim_end().to_owned());
            if read("subsysnqn")? == subject.nqn {
                return Ok(Self { nqn: read("hostnqn")?, id: read("hostid")? });
            }
        }
        anyhow::bail!("{} is not connected", subject.nqn)
    }
}

/// Once there and back.
pub(super) fn round(subject: &Subject, host: &Host) -> Result<Round> {
    let events = subscribe()?;
    let Subject { staging, target, .. } = subject;
    let (connect, (controller, device)) = timed(|| connect(subject, host, &events))?;
    let (mount, publish, unpublish, unmount);
    if let Some(fs) = &subject.fs {
        // As the driver does it: a clone is mounted beside its source.
        let data = if fs == "xfs" { c"nouuid" } else { c"" };
        (mount, ()) =
            timed(|| Ok(rustix::mount::mount(&device, staging, fs.as_str(), MountFlags::empty(), data)?))?;
        (publish, ()) = timed(|| {
            fs::create_dir(target)?;
            Ok(rustix::mount::mount_bind(staging, target)?)
        })?;
        (unpublish, ()) = timed(|| {
            rustix::mount::unmount(target, UnmountFlags::empty())?;
            Ok(fs::remove_dir(target)?)
        })?;
        (unmount, ()) = timed(|| Ok(rustix::mount::unmount(staging, UnmountFlags::empty())?))?;
    } else {
        (mount, unmount) = (Duration::ZERO, Duration::ZERO);
        (publish, ()) = timed(|| {
            let mode = Mode::RUSR | Mode::WUSR;
            Ok(mknodat(CWD, target, FileType::BlockDevice, mode, stat(&device)?.st_rdev)?)
        })?;
        (unpublish, ()) = timed(|| Ok(fs::remove_file(target)?))?;
    }
    let (disconnect, ()) = timed(|| disconnect(&controller, &events))?;
    let step = |took| Step { took, programs: Programs::None };
    Ok(Round {
        stage: step(connect + mount),
        again: Step::default(),
        publish: step(publish),
        unpublish: step(unpublish),
        unstage: step(unmount + disconnect),
    })
}

/// The controller in sysfs, and its device once it is ready.
fn connect(subject: &Subject, host: &Host, events: &OwnedFd) -> Result<(PathBuf, PathBuf)> {
    let Subject { nqn, portal, port, .. } = subject;
    let Host { nqn: hostnqn, id } = host;
    let mut fabrics = OpenOptions::new().read(true).write(true).open("/dev/nvme-fabrics")?;
    let options = format!(
        "transport=tcp,traddr={portal},trsvcid={port},nqn={nqn},hostnqn={hostnqn},hostid={id},ctrl_loss_tmo=-1,\
         reconnect_delay=2,keep_alive_tmo=5"
    );
    fabrics.write_all(options.as_bytes())?;
    let mut answer = String::new();
    fabrics.read_to_string(&mut answer)?;
    let instance = answer.split(',').find_map(|field| field.strip_prefix("instance="));
    let name = format!("nvme{}", instance.context("no controller is named")?.trim());
    let controller = Path::new("/sys/class/nvme").join(&name);
    let device = until(events, || device(&controller))?;
    Ok((controller, device))
}

/// `nvme2c1n1` is a path to `nvme2n1`, which is there once it has a size.
fn device(controller: &Path) -> Result<Option<PathBuf>> {
    for child in fs::read_dir(controller)? {
        let Ok(child) = child?.file_name().into_string() else { continue };
        let Some((owner, namespace)) = child.strip_prefix("nvme").and_then(|rest| rest.split_once('n'))
        else {
            continue;
        };
        let subsystem = owner.split('c').next().unwrap_or(owner);
        let name = format!("nvme{subsystem}n{namespace}");
        let size = fs::read_to_string(Path::new("/sys/class/block").join(&name).join("size"));
        let node = Path::new("/dev").join(name);
        if size.is_ok_and(|size| size.trim_end() != "0") && node.exists() {
            return Ok(Some(node));
        }
    }
    Ok(None)
}

fn disconnect(controller: &Path, events: &OwnedFd) -> Result<()> {
    File::options().write(true).open(controller.join("delete_controller"))?.write_all(b"1")?;
    until(events, || Ok((!controller.exists()).then_some(())))
}

/// Looks, and again whenever the kernel has announced something.
fn until<T>(events: &OwnedFd, look: impl Fn() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        ensure!(Instant::now() < end, "the kernel took too long");
        // An announcement may come just before what it announces.
        poll(&mut [PollFd::new(events, PollFlags::IN)], Some(&Duration::from_millis(20).try_into()?))?;
        let mut buffer = [0; 4096];
        loop {
            match recv(events, &mut buffer, RecvFlags::empty()) {
                Ok(_) | Err(Errno::NOBUFS) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The kernel's announcements of devices.
fn subscribe() -> Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(KOBJECT_UEVENT))?;
    bind(&socket, &SocketAddrNetlink::new(0, 1))?;
    Ok(socket)
}
