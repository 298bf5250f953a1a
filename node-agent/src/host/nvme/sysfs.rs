//! What sysfs says of NVMe, read in as few steps as there are: every stage looks several times.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rds_csi_api::{Bytes, Nqn, Portal};
use rustix::fs::{CWD, Mode, OFlags, open, openat};
use rustix::io::Errno;

use crate::host::{Attachment, ControllerFacts, Device, Error, Subsystem};

/// sysfs counts sectors of 512 bytes, whatever the device's own are.
const SECTOR: u64 = 512;

/// No attribute is longer than a page (Documentation/filesystems/sysfs.rst), and the kernel gives it whole to one read.
const PAGE: usize = 4096;

/// A controller in sysfs. The directory stays open, so that what is read of it and written to it is of one controller.
pub(super) struct Controller {
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) directory: OwnedFd,
    pub(super) live: bool,
}

impl Controller {
    /// Its attribute of that name; none if it went away meanwhile, or if its kernel is too old to have one.
    pub(super) fn attribute(&self, name: &str) -> Result<Option<String>, Error> {
        attribute_at(&self.directory, &self.path, name)
    }
}

pub(in crate::host) fn attachment(root: &Path, nqn: &Nqn) -> Result<Attachment, Error> {
    let controllers = controllers(root, nqn)?;
    if controllers.is_empty() {
        let lost = lost(root, &|known| known == nqn)?;
        return Ok(if lost.is_empty() { Attachment::Absent } else { Attachment::Lost });
    }
    attached(root, nqn, &controllers)
}

/// Those that are asked for, and each as [`attachment`] says it.
pub(in crate::host) fn subsystems(
    root: &Path,
    which: &dyn Fn(&Nqn) -> bool,
) -> Result<BTreeMap<Nqn, Result<Subsystem, Error>>, Error> {
    let mut known: BTreeMap<Nqn, Vec<Controller>> =
        lost(root, which)?.into_iter().map(|nqn| (nqn, Vec::new())).collect();
    // A name that is no NQN by our rules is a local drive's.
    let asked_for = |name: &str| name.parse().is_ok_and(|nqn| which(&nqn));
    for (name, controller) in all_controllers(root, &asked_for)? {
        if let Ok(nqn) = name.parse() {
            known.entry(nqn).or_default().push(controller);
        }
    }
    let told = known.into_iter().map(|(nqn, controllers)| {
        let subsystem = subsystem(root, &nqn, &controllers);
        (nqn, subsystem)
    });
    Ok(told.collect())
}

fn subsystem(root: &Path, nqn: &Nqn, controllers: &[Controller]) -> Result<Subsystem, Error> {
    if controllers.is_empty() {
        return Ok(Subsystem { attachment: Attachment::Lost, portals: Vec::new() });
    }
    let mut portals = Vec::new();
    for controller in controllers {
        portals.extend(portal(controller)?);
    }
    Ok(Subsystem { attachment: attached(root, nqn, controllers)?, portals })
}

/// `address` is `traddr=10.77.0.1,trsvcid=4420`, and behind it what the connection goes out by (nvmf_get_address).
fn portal(controller: &Controller) -> Result<Option<Portal>, Error> {
    let Some(text) = controller.attribute("address")? else { return Ok(None) };
    let field = |name: &str| text.split(',').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
    match field("traddr").and_then(|address| Portal::parse(address, field("trsvcid")).ok()) {
        Some(portal) => Ok(Some(portal)),
        None => Err(Error::Form { path: controller.path.join("address"), text }),
    }
}

fn attached(root: &Path, nqn: &Nqn, controllers: &[Controller]) -> Result<Attachment, Error> {
    let device = device(root, nqn, controllers)?;
    let live = controllers.iter().any(|controller| controller.live);
    Ok(if live { Attachment::Live(device) } else { Attachment::Connecting(device) })
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
pub(in crate::host) fn facts(root: &Path) -> Result<Vec<ControllerFacts>, Error> {
    let mut all = Vec::new();
    for (nqn, controller) in all_controllers(root, &|_| true)? {
        let mut attributes = BTreeMap::new();
        for attribute in ATTRIBUTES {
            if let Some(value) = controller.attribute(attribute)? {
                attributes.insert(attribute, value);
            }
        }
        all.push(ControllerFacts { controller: controller.name, nqn, attributes });
    }
    Ok(all)
}

/// The controllers of exactly this NQN.
pub(super) fn controllers(root: &Path, nqn: &Nqn) -> Result<Vec<Controller>, Error> {
    let all = all_controllers(root, &|name| name == nqn.as_str())?;
    Ok(all.into_iter().map(|(_, controller)| controller).collect())
}

/// The controllers of the subsystems that are asked for, each with the NQN of its own.
fn all_controllers(root: &Path, which: &dyn Fn(&str) -> bool) -> Result<Vec<(String, Controller)>, Error> {
    let mut found = Vec::new();
    let class = root.join("sys/class/nvme");
    for name in children(&class)? {
        let path = class.join(&name);
        let directory = match open(&path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        {
            Ok(directory) => directory,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(Error::system("open", path)(error)),
        };
        let Some(nqn) = attribute_at(&directory, &path, "subsysnqn")?.filter(|nqn| which(nqn)) else {
            continue;
        };
        if let Some(state) = attribute_at(&directory, &path, "state")? {
            found.push((nqn, Controller { name, path, directory, live: state == "live" }));
        }
    }
    Ok(found)
}

/// The subsystems that are asked for, though they may have no controller any more.
fn lost(root: &Path, which: &dyn Fn(&Nqn) -> bool) -> Result<Vec<Nqn>, Error> {
    let class = root.join("sys/class/nvme-subsystem");
    let mut found = Vec::new();
    for name in children(&class)? {
        let nqn = attribute(&class.join(name), "subsysnqn")?.and_then(|nqn| nqn.parse().ok());
        found.extend(nqn.filter(which));
    }
    Ok(found)
}

/// The device behind the controllers' paths. Its own sysfs entry must name the same NQN.
fn device(root: &Path, nqn: &Nqn, controllers: &[Controller]) -> Result<Option<Device>, Error> {
    let mut devices = BTreeMap::new();
    for controller in controllers {
        for child in children(&controller.path)? {
            let Some(name) = device_name(&child).filter(|name| !devices.contains_key(name)) else { continue };
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
pub(in crate::host) fn owner(root: &Path, device: &str) -> Result<Option<String>, Error> {
    attribute(&root.join("sys/class/block").join(device).join("device"), "subsysnqn")
}

/// `nvme2n1` is its own device, `nvme2c1n1` is a path to `nvme2n1` (drivers/nvme/host/multipath.c); anything else is none.
pub(super) fn device_name(child: &str) -> Option<String> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (owner, namespace) = child.strip_prefix("nvme")?.split_once('n')?;
    let subsystem = match owner.split_once('c') {
        Some((subsystem, controller)) if digits(controller) => subsystem,
        Some(_) => return None,
        None => owner,
    };
    (digits(subsystem) && digits(namespace)).then(|| format!("nvme{subsystem}n{namespace}"))
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
    let file = openat(CWD, &path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    text(file, || path)
}

fn attribute_at(directory: &OwnedFd, path: &Path, name: &str) -> Result<Option<String>, Error> {
    let file = openat(directory, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    text(file, || path.join(name))
}

fn text(file: Result<OwnedFd, Errno>, path: impl FnOnce() -> PathBuf) -> Result<Option<String>, Error> {
    let mut page = [0; PAGE];
    let read = file.map_err(io::Error::from).and_then(|file| File::from(file).read(&mut page));
    match read {
        Ok(length) => Ok(Some(String::from_utf8_lossy(&page[..length]).trim_end().into())),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(Error::system("read", path())(error)),
    }
}

/// An object of sysfs that is being removed answers ENODEV to those who have it open.
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NODEV | Errno::NOTDIR))
}
