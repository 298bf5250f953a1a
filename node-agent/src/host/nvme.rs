//! NVMe over TCP without nvme-cli: connecting through /dev/nvme-fabrics, and sysfs for everything else.
//!
//! A device is always found by its subsystem's NQN. Names are no identity: after a reconnect `nvme0` may be `nvme3`, and
//! with native multipath the controller `nvme1` may own the path `nvme2c1n2`, whose device is `nvme2n2`.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rds_csi_api::{Bytes, CtrlLoss, FastIoFail, Nqn, Portal, ReconnectPolicy};
use rustix::fs::{Mode, OFlags, open, openat};
use rustix::io::Errno;

use super::{Attachment, Connected, ControllerFacts, Device, Error, Initiator, ManagedNqn, Target, uevent};

/// How long an array may take to accept a TCP connection. The kernel itself would try for two minutes, uninterruptibly.
const REACH: Duration = Duration::from_secs(5);

/// sysfs counts sectors of 512 bytes, whatever the device's own are.
const SECTOR: u64 = 512;

/// A controller in sysfs. The directory stays open, so that what is read of it and written to it is of one controller.
struct Controller {
    name: String,
    path: PathBuf,
    directory: OwnedFd,
    live: bool,
}

pub(super) fn attachment(root: &Path, nqn: &Nqn) -> Result<Attachment, Error> {
    let controllers = controllers(root, nqn)?;
    if controllers.is_empty() {
        let known = names(root, "class/nvme-subsystem")?.iter().any(|(_, name)| name == nqn.as_str());
        return Ok(if known { Attachment::Lost } else { Attachment::Absent });
    }
    attached(root, nqn, &controllers)
}

/// As [`attachment`] says it of each, without looking at every controller for each.
pub(super) fn attachments(root: &Path) -> Result<BTreeMap<Nqn, Result<Attachment, Error>>, Error> {
    let mut known: BTreeMap<Nqn, Vec<Controller>> =
        subsystems(root)?.into_iter().map(|nqn| (nqn, Vec::new())).collect();
    for (nqn, controller) in all_controllers(root)? {
        if let Ok(nqn) = nqn.parse() {
            known.entry(nqn).or_default().push(controller);
        }
    }
    let told = known.into_iter().map(|(nqn, controllers)| {
        let attachment =
            if controllers.is_empty() { Ok(Attachment::Lost) } else { attached(root, &nqn, &controllers) };
        (nqn, attachment)
    });
    Ok(told.collect())
}

/// What people look at first. `kato` is `keep_alive_tmo`, as the kernel calls it once it is connected.
const ATTRIBUTES: [&str; 8] = [
    "state",
    "transport",
    "address",
    "hostnqn",
    "kato",
    "reconnect_delay",
    "ctrl_loss_tmo",
    "fast_io_fail_tmo",
];

/// Older kernels have fewer attributes.
pub(super) fn facts(root: &Path) -> Result<Vec<ControllerFacts>, Error> {
    let mut all = Vec::new();
    for (nqn, Controller { name, path, directory, .. }) in all_controllers(root)? {
        let mut attributes = BTreeMap::new();
        for attribute in ATTRIBUTES {
            if let Some(value) = attribute_at(&directory, &path, attribute)? {
                attributes.insert(attribute, value);
            }
        }
        all.push(ControllerFacts { controller: name, nqn, attributes });
    }
    Ok(all)
}

fn attached(root: &Path, nqn: &Nqn, controllers: &[Controller]) -> Result<Attachment, Error> {
    let device = device(root, nqn, controllers)?;
    let live = controllers.iter().any(|controller| controller.live);
    Ok(if live { Attachment::Live(device) } else { Attachment::Connecting(device) })
}

/// `address` is `traddr=10.77.0.1,trsvcid=4420`, and behind it what the connection goes out by (nvmf_get_address).
pub(super) fn portals(root: &Path, nqn: &Nqn) -> Result<Vec<Portal>, Error> {
    let mut portals = Vec::new();
    for controller in controllers(root, nqn)? {
        let Some(text) = attribute_at(&controller.directory, &controller.path, "address")? else { continue };
        let field =
            |name: &str| text.split(',').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
        match field("traddr").and_then(|address| Portal::parse(address, field("trsvcid")).ok()) {
            Some(portal) => portals.push(portal),
            None => return Err(Error::Form { path: controller.path.join("address"), text }),
        }
    }
    Ok(portals)
}

pub(super) fn subsystems(root: &Path) -> Result<Vec<Nqn>, Error> {
    let mut all = names(root, "class/nvme-subsystem")?;
    all.extend(names(root, "class/nvme")?);
    // A name that is no NQN by our rules is a local drive's.
    let mut nqns: Vec<Nqn> = all.into_values().filter_map(|name| name.parse().ok()).collect();
    nqns.sort();
    nqns.dedup();
    Ok(nqns)
}

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
            let present = attribute_at(&controller.directory, &controller.path, attribute)?;
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

/// The controllers of exactly this NQN.
fn controllers(root: &Path, nqn: &Nqn) -> Result<Vec<Controller>, Error> {
    let all = all_controllers(root)?.into_iter();
    Ok(all.filter(|(name, _)| name == nqn.as_str()).map(|(_, controller)| controller).collect())
}

/// Every controller, each with the NQN of its subsystem.
fn all_controllers(root: &Path) -> Result<Vec<(String, Controller)>, Error> {
    let mut found = Vec::new();
    for name in children(&root.join("sys/class/nvme"))? {
        let path = root.join("sys/class/nvme").join(&name);
        let directory = match open(&path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        {
            Ok(directory) => directory,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(Error::system("open", path)(error)),
        };
        let nqn = attribute_at(&directory, &path, "subsysnqn")?;
        if let (Some(nqn), Some(state)) = (nqn, attribute_at(&directory, &path, "state")?) {
            found.push((nqn, Controller { name, path, directory, live: state == "live" }));
        }
    }
    Ok(found)
}

/// The device behind the controllers' paths. Its own sysfs entry must name the same NQN.
fn device(root: &Path, nqn: &Nqn, controllers: &[Controller]) -> Result<Option<Device>, Error> {
    let mut devices = BTreeMap::new();
    for controller in controllers {
        for child in children(&controller.path)? {
            let Some(name) = device_name(&child) else { continue };
            let block = root.join("sys/class/block").join(&name);
            let owner = owner(root, &name)?;
            if owner.as_deref() != Some(nqn.as_str()) {
                tracing::debug!(%nqn, controller = controller.name, device = name, ?owner, "a device of another subsystem");
                continue;
            }
            if let (Some(number), Some(sectors)) = (attribute(&block, "dev")?, attribute(&block, "size")?) {
                let form = |text: &str| Error::Form { path: block.clone(), text: text.into() };
                let number = number.parse().map_err(|_| form(&number))?;
                let size = sectors.parse::<u64>().ok().and_then(|sectors| sectors.checked_mul(SECTOR));
                let size = Bytes::new(size.ok_or_else(|| form(&sectors))?);
                devices.insert(name.clone(), Device { name, number, size, nqn: nqn.clone() });
            }
        }
    }
    if devices.len() > 1 {
        let names: Vec<_> = devices.into_keys().collect();
        return Err(Error::SeveralDevices { nqn: nqn.clone(), devices: names.join(", ") });
    }
    // Before its capacity is known a device has none.
    Ok(devices.into_values().next().filter(|device| device.size.get() > 0))
}

/// The NQN of the subsystem that a device belongs to, now.
pub(super) fn owner(root: &Path, device: &str) -> Result<Option<String>, Error> {
    attribute(&root.join("sys/class/block").join(device).join("device"), "subsysnqn")
}

/// `nvme2n1` is its own device, `nvme2c1n1` is a path to `nvme2n1` (drivers/nvme/host/multipath.c); anything else is none.
fn device_name(child: &str) -> Option<String> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (owner, namespace) = child.strip_prefix("nvme")?.split_once('n')?;
    let subsystem = match owner.split_once('c') {
        Some((subsystem, controller)) if digits(controller) => subsystem,
        Some(_) => return None,
        None => owner,
    };
    (digits(subsystem) && digits(namespace)).then(|| format!("nvme{subsystem}n{namespace}"))
}

/// The NQN of each entry of a class, by the entry's name.
fn names(root: &Path, class: &str) -> Result<BTreeMap<PathBuf, String>, Error> {
    let class = root.join("sys").join(class);
    let mut found = BTreeMap::new();
    for name in children(&class)? {
        let entry = class.join(name);
        if let Some(nqn) = attribute(&entry, "subsysnqn")? {
            found.insert(entry, nqn);
        }
    }
    Ok(found)
}

/// What is in a directory; nothing, if it is not there: without the module loaded there is no class.
fn children(directory: &Path) -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
        Err(error) => return Err(Error::system("list", directory)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::system("list", directory))?;
        names.extend(entry.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}

/// The text of an attribute; none if the object went away meanwhile.
fn attribute(directory: &Path, name: &str) -> Result<Option<String>, Error> {
    let path = directory.join(name);
    present(fs::read_to_string(&path), path)
}

fn attribute_at(directory: &OwnedFd, path: &Path, name: &str) -> Result<Option<String>, Error> {
    let text = openat(directory, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(io::Error::from)
        .and_then(|file| io::read_to_string(File::from(file)));
    present(text, path.join(name))
}

fn present(text: io::Result<String>, path: PathBuf) -> Result<Option<String>, Error> {
    match text {
        Ok(text) => Ok(Some(text.trim_end().into())),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(Error::system("read", path)(error)),
    }
}

/// An object of sysfs that is being removed answers ENODEV to those who have it open.
fn is_gone(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NODEV | Errno::NOTDIR))
}

#[cfg(test)]
mod tests;
