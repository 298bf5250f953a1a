//! NVMe over TCP without nvme-cli: connecting through /dev/nvme-fabrics, and sysfs for everything else.
//!
//! A device is always found by its subsystem's NQN. Names are no identity: after a reconnect `nvme0` may be `nvme3`, and
//! with native multipath the controller `nvme1` may own the path `nvme2c1n2`, whose device is `nvme2n2`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use rds_csi_api::{Bytes, CtrlLoss, FastIoFail, Portal, ReconnectPolicy};
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use super::{Attachment, Connected, Device, Error, Initiator, ManagedNqn, Target, uevent};

mod sysfs;

use sysfs::{Controller, controllers, is_gone};

pub(super) use sysfs::{attachment, facts, owner, subsystems};

/// How long an array may take to accept a TCP connection. The kernel itself would try for two minutes, uninterruptibly.
const REACH: Duration = Duration::from_secs(5);

/// Asks the array for a TCP connection first: the kernel's own connect cannot be given a deadline.
pub(super) fn connect(root: &Path, initiator: &Initiator, target: &Target) -> Result<Connected, Error> {
    let Target { nqn, portal, .. } = target;
    let address = SocketAddr::new(portal.address, portal.port);
    let unreachable = |source| Error::Unreachable { portal: *portal, source };
    drop(TcpStream::connect_timeout(&address, REACH).map_err(unreachable)?);

    let path = root.join("dev/nvme-fabrics");
    let mut fabrics = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .map_err(Error::system("open (is the kernel module nvme-tcp loaded?)", path.clone()))?;
    if let Err(error) = fabrics.write_all(options(initiator, target).as_bytes()) {
        return match Errno::from_io_error(&error) {
            // Somebody else was quicker.
            Some(Errno::ALREADY) => Ok(Connected::Already),
            Some(
                Errno::CONNREFUSED
                | Errno::CONNRESET
                | Errno::TIMEDOUT
                | Errno::HOSTUNREACH
                | Errno::NETUNREACH
                | Errno::PIPE,
            ) => Err(unreachable(error)),
            // nvme_tcp_create_ctrl turns every NVMe status, a refused Connect among them, into this.
            Some(Errno::IO) => {
                Err(Error::Rejected { nqn: nqn.clone(), portal: *portal, initiator: initiator.nqn.clone() })
            }
            _ => Err(Error::system("connect through", path)(error)),
        };
    }
    let mut answer = String::new();
    fabrics.read_to_string(&mut answer).map_err(Error::system("read the answer of", path.clone()))?;
    let instance = answer.trim().split(',').find_map(|field| field.strip_prefix("instance="));
    match instance.and_then(|instance| instance.parse::<u32>().ok()) {
        Some(instance) => {
            tracing::debug!(%nqn, %portal, controller = format!("nvme{instance}"), "connected");
            Ok(Connected::Newly)
        }
        None => Err(Error::Form { path, text: answer }),
    }
}

/// The words of drivers/nvme/host/fabrics.c. No value can add an option: their alphabets have no comma.
fn options(initiator: &Initiator, target: &Target) -> String {
    let Initiator { nqn: hostnqn, id: hostid } = initiator;
    let Target { nqn, portal: Portal { address, port }, reconnect } = target;
    let mut options = format!(
        "transport=tcp,traddr={address},trsvcid={port},nqn={nqn},hostnqn={hostnqn},hostid={hostid},\
         ctrl_loss_tmo={},reconnect_delay={},keep_alive_tmo={}",
        reconnect.ctrl_loss_text(),
        reconnect.reconnect_delay.as_secs(),
        reconnect.keep_alive.as_secs(),
    );
    // Off is the kernel's default, and kernels before 5.11 refuse an option that they do not know.
    if reconnect.fast_io_fail != FastIoFail::Off {
        options.push_str(",fast_io_fail_tmo=");
        options.push_str(&fast_io_fail(reconnect));
    }
    options
}

/// To the kernel a negative number is off.
fn fast_io_fail(policy: &ReconnectPolicy) -> String {
    match policy.fast_io_fail {
        FastIoFail::Off => "-1".into(),
        FastIoFail::After(time) => time.as_secs().to_string(),
    }
}

/// The delay first: the kernel keeps `ctrl_loss_tmo` as a number of attempts, and shows it as attempts times delay
/// (drivers/nvme/host/sysfs.c).
pub(super) fn retune(root: &Path, target: &Target) -> Result<(), Error> {
    let Target { nqn, reconnect, .. } = target;
    let delay = reconnect.reconnect_delay.as_secs();
    let loss = match reconnect.ctrl_loss {
        CtrlLoss::Never => "off".into(),
        CtrlLoss::After(time) => time.as_secs().div_ceil(delay.max(1)).saturating_mul(delay).to_string(),
    };
    let attributes = [
        ("reconnect_delay", delay.to_string(), delay.to_string()),
        ("ctrl_loss_tmo", loss, reconnect.ctrl_loss_text()),
        ("fast_io_fail_tmo", reconnect.fast_io_fail_text(), fast_io_fail(reconnect)),
    ];
    for controller in controllers(root, nqn.as_nqn())? {
        for (attribute, shown, text) in &attributes {
            let present = controller.attribute(attribute)?;
            if present.as_ref().is_some_and(|present| present != shown) {
                tell(&controller, attribute, text)?;
                tracing::info!(%nqn, controller = controller.name, attribute, ?present, now = shown, "retuned");
            }
        }
    }
    Ok(())
}

pub(super) fn wait_for_device(root: &Path, nqn: &ManagedNqn, limit: Duration) -> Result<Device, Error> {
    let mut state = "the kernel has no controller for it";
    let found = uevent::wait(limit, || {
        state = match attachment(root, nqn.as_nqn())? {
            Attachment::Live(Some(device)) => return Ok(Some(device)),
            Attachment::Live(None) => "it is connected, and exports no namespace",
            Attachment::Connecting(_) => "the connection is down, and the kernel keeps trying",
            Attachment::Lost | Attachment::Absent => "the kernel has given the connection up",
        };
        Ok(None)
    })?;
    found.ok_or_else(|| Error::NoDevice { nqn: nqn.clone(), waited: limit, state })
}

/// How often the array is asked again for the size of its namespaces.
const RESCAN: Duration = Duration::from_secs(5);

/// An array that follows the specification tells of a namespace's new size by itself (Asynchronous Event, Namespace Attribute
/// Changed). For one that does not, or whose word was lost with a connection, the kernel is made to ask.
pub(super) fn wait_for_size(
    root: &Path,
    nqn: &ManagedNqn,
    least: Bytes,
    limit: Duration,
) -> Result<Device, Error> {
    let mut asked: Option<Instant> = None;
    let mut seen = None;
    let mut state = "the kernel has no controller for it";
    let found = uevent::wait(limit, || {
        state = match attachment(root, nqn.as_nqn())? {
            Attachment::Live(Some(device)) if device.size >= least => return Ok(Some(device)),
            Attachment::Live(device) => {
                seen = device.map(|device| device.size);
                if asked.is_none_or(|asked| asked.elapsed() >= RESCAN) {
                    asked = Some(Instant::now());
                    for controller in controllers(root, nqn.as_nqn())? {
                        tell(&controller, "rescan_controller", "1")?;
                    }
                }
                "it is connected"
            }
            Attachment::Connecting(_) => "the connection is down, and the kernel keeps trying",
            Attachment::Lost | Attachment::Absent => "the kernel has given the connection up",
        };
        Ok(None)
    })?;
    found.ok_or_else(|| Error::NotGrown { nqn: nqn.clone(), waited: limit, least, seen, state })
}

pub(super) fn disconnect(root: &Path, nqn: &ManagedNqn, limit: Duration) -> Result<(), Error> {
    delete(root, nqn, limit, |attachment| matches!(attachment, Attachment::Absent))
}

/// The subsystem stays for as long as its device is mounted or open.
pub(super) fn abandon(root: &Path, nqn: &ManagedNqn, limit: Duration) -> Result<(), Error> {
    delete(root, nqn, limit, |attachment| matches!(attachment, Attachment::Absent | Attachment::Lost))
}

fn delete(
    root: &Path,
    nqn: &ManagedNqn,
    limit: Duration,
    is_over: impl Fn(&Attachment) -> bool,
) -> Result<(), Error> {
    for controller in controllers(root, nqn.as_nqn())? {
        tell(&controller, "delete_controller", "1")?;
    }
    let gone = uevent::wait(limit, || Ok(is_over(&attachment(root, nqn.as_nqn())?).then_some(())))?;
    gone.ok_or_else(|| Error::StillThere { nqn: nqn.clone(), waited: limit })
}

/// Writes an attribute. A controller that went away meanwhile needs to be told nothing.
fn tell(controller: &Controller, attribute: &str, text: &str) -> Result<(), Error> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let written = openat(&controller.directory, attribute, flags, Mode::empty())
        .map_err(io::Error::from)
        .and_then(|file| File::from(file).write_all(text.as_bytes()));
    match written {
        Ok(()) => Ok(()),
        Err(error) if is_gone(&error) => Ok(()),
        Err(error) => Err(Error::system("write", controller.path.join(attribute))(error)),
    }
}

#[cfg(test)]
mod tests;
