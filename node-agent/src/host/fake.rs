//! A machine in memory that behaves like one: it has state, it obeys the kernel's rules, and it can be told to fail.
//!
//! Tests say what the world is like, call a verb, and look at the world again; nobody looks at calls.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rds_csi_api::{Bytes, FsType, Nqn, Portal, ReconnectPolicy};
use rustix::io::Errno;

use super::{Attachment, Device, DeviceNumber, Error, Found, Holder, Mount};

mod life;
mod machine;
mod tale;

pub use life::Life;

/// A machine in memory. Clones are the same machine.
#[derive(Debug, Clone, Default)]
pub struct FakeHost {
    world: Arc<Mutex<World>>,
    /// Told when connections change, which an unmount may wait for.
    moved: Arc<Condvar>,
    /// Whether filesystems hang. Whoever measures one waits until they do not.
    hung: Arc<(Mutex<bool>, Condvar)>,
    life: Life,
}

/// Everything that there is on the machine and on the array it connects to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct World {
    exports: BTreeMap<Nqn, Disk>,
    connections: BTreeMap<Nqn, Connection>,
    /// The last device of each subsystem whose controllers are gone.
    lost: BTreeMap<Nqn, DeviceNumber>,
    mounts: Vec<Mount>,
    /// The disks that something was written for that did not arrive.
    unwritten: BTreeSet<Nqn>,
    /// The devices whose filesystems are mounted nowhere any more, and wait for what they wrote to arrive.
    closing: BTreeSet<DeviceNumber>,
    nodes: BTreeMap<PathBuf, Found>,
    users: Vec<Holder>,
    errors: u64,
    faults: VecDeque<(Act, Errno)>,
    late: Option<Late>,
    odd: BTreeSet<Nqn>,
    devices: u32,
    changes: usize,
}

/// A disk of the array.
#[derive(Debug, Clone, PartialEq)]
pub struct Disk {
    /// Its size.
    pub size: Bytes,
    /// What is on it.
    pub holds: Holds,
}

/// What is on a disk.
#[derive(Debug, Clone, PartialEq)]
pub enum Holds {
    /// Zeros.
    Nothing,
    /// A filesystem that spans so many bytes.
    Filesystem(FsType, Bytes),
    /// A filesystem that was begun and not ended.
    Unfinished,
    /// A filesystem that mounts, and says that a kernel found an error in it.
    Flawed(FsType, Bytes),
    /// A filesystem that mounts only after a repair.
    Damaged(FsType, Bytes),
    /// A filesystem that no repair mends without losing some of it.
    Ruined(FsType, Bytes),
    /// Something else, by its name.
    Foreign(&'static str),
    /// It fails every read.
    BadSectors,
}

#[derive(Debug, Clone, PartialEq)]
struct Connection {
    live: bool,
    scanned: bool,
    device: Device,
    portal: Portal,
    policy: ReconnectPolicy,
}

/// How a connection comes about with a delay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Late {
    /// The device is missing at first, and there for whoever waits.
    Device,
    /// The device does not come at all.
    Never,
}

/// What can be told to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "they are the methods of `Host`")]
pub enum Act {
    Subsystems,
    Connect,
    Disconnect,
    Abandon,
    Probe,
    Wipe,
    Format,
    Repair,
    Grow,
    Mount,
    Bind,
    MakeReadOnly,
    Unmount,
    DetachDead,
    Measure,
    MakeDirectory,
    MakeNode,
    Remove,
    Holders,
}

impl FakeHost {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an act that changes the machine, or fails as it was told to.
    fn act(&self, act: Act, on: &Path) -> Result<MutexGuard<'_, World>, Error> {
        self.life.change();
        let mut world = self.look(act, on)?;
        world.changes += 1;
        Ok(world)
    }

    /// Begins an act that changes nothing.
    fn look(&self, act: Act, on: &Path) -> Result<MutexGuard<'_, World>, Error> {
        let mut world = self.world();
        if let Some(place) = world.faults.iter().position(|(fails, _)| *fails == act) {
            let (_, errno) = world.faults.remove(place).unwrap_or((act, Errno::IO));
            return Err(Error::system("do as told with", on)(errno));
        }
        Ok(world)
    }
}

impl World {
    fn attachment(&self, nqn: &Nqn) -> Result<Attachment, Error> {
        if self.odd.contains(nqn) {
            return Err(Error::SeveralDevices { nqn: nqn.clone(), devices: "nvme7n1, nvme7n2".into() });
        }
        Ok(match self.connections.get(nqn) {
            None if self.is_lost(nqn) => Attachment::Lost,
            None => Attachment::Absent,
            Some(Connection { live, scanned, device, .. }) => {
                let device = scanned.then(|| device.clone());
                if *live { Attachment::Live(device) } else { Attachment::Connecting(device) }
            }
        })
    }

    fn new_device(&mut self, nqn: &Nqn, size: Bytes) -> Device {
        self.devices += 1;
        let minor = self.devices;
        let number = DeviceNumber { major: 259, minor };
        Device { name: format!("nvme{minor}n1"), number, size, nqn: nqn.clone() }
    }

    fn disk(&mut self, device: &Device) -> Result<&mut Disk, Error> {
        let nqn = self
            .connections
            .iter()
            .find(|(_, connection)| connection.device == *device)
            .map(|(nqn, _)| nqn.clone());
        nqn.and_then(|nqn| self.exports.get_mut(&nqn))
            .ok_or_else(|| Error::system("open", device.path())(Errno::NXIO))
    }

    /// Whether there is such a device. The machine's own disk is no connection's.
    fn has(&self, number: DeviceNumber) -> bool {
        let own = matches!(number.major, 0 | 8);
        own || self.connections.values().any(|connection| connection.device.number == number)
    }

    /// Whether what was written to the device waits for its connection.
    fn is_waited_for(&self, device: DeviceNumber) -> bool {
        self.connections.iter().any(|(nqn, connection)| {
            connection.device.number == device && !connection.live && self.unwritten.contains(nqn)
        })
    }

    /// Whether anything is mounted from the device, or has it open.
    fn holds(&self, device: DeviceNumber) -> bool {
        self.mounts.iter().any(|mount| mount.device == device)
            || self.closing.contains(&device)
            || self.users.iter().any(|user| user.device == device)
    }

    fn is_lost(&self, nqn: &Nqn) -> bool {
        self.lost.get(nqn).is_some_and(|device| self.holds(*device))
    }

    fn layer(&self, at: &Path) -> Option<usize> {
        self.mounts.iter().rposition(|mount| mount.at == at)
    }
}

fn mounted(device: DeviceNumber, source: &str, fs: &str, at: &Path, options: &[&str]) -> Mount {
    Mount {
        device,
        root: "/".into(),
        at: at.into(),
        options: options.iter().map(|option| (*option).into()).collect(),
        filesystem: fs.into(),
        source: source.into(),
        super_options: Vec::new(),
    }
}
