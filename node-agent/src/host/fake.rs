//! A machine in memory that behaves like one: it has state, it obeys the kernel's rules, and it can be told to fail.
//!
//! Tests say what the world is like, call a verb, and look at the world again; nobody looks at calls.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rds_csi_api::{Bytes, FsType, Nqn, Portal, ReconnectPolicy};
use rustix::io::Errno;

use super::{
    Amount, Attachment, Blank, Connected, Content, ControllerFacts, Device, DeviceNumber, Error, Found,
    Holder, Host, KubeletPath, ManagedNqn, Mount, MountOptions, Mounts, Signature, State, Target, Unfinished,
    Usage, Use,
};

mod life;

pub use life::Life;

/// A machine in memory. Clones are the same machine.
#[derive(Debug, Clone, Default)]
pub struct FakeHost {
    world: Arc<Mutex<World>>,
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
    Attachments,
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
    /// A machine with nothing on it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the array export a disk.
    pub fn export(&self, nqn: &Nqn, size: Bytes, holds: Holds) {
        self.world().exports.insert(nqn.clone(), Disk { size, holds });
    }

    /// The array lets a disk grow. The machine sees it once it asks.
    pub fn resize(&self, nqn: &Nqn, size: Bytes) {
        if let Some(disk) = self.world().exports.get_mut(nqn) {
            disk.size = size;
        }
    }

    /// Filesystems are mounted read-only from now on, as after an error.
    pub fn remount_read_only(&self) {
        self.world().mounts.iter_mut().for_each(|mount| mount.super_options = vec!["ro".into()]);
    }

    /// Filesystems write down that many errors.
    pub fn record_errors(&self, errors: u64) {
        self.world().errors = errors;
    }

    /// No filesystem says how full it is, until [`FakeHost::answer_again`].
    pub fn hang(&self) {
        *self.hung.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// Every filesystem answers, those who were asked before too.
    pub fn answer_again(&self) {
        *self.hung.0.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.hung.1.notify_all();
    }

    /// The next act of this kind fails, and does nothing.
    pub fn fail_once(&self, act: Act, errno: Errno) {
        self.world().faults.push_back((act, errno));
    }

    /// The next connection is late.
    pub fn connect_late(&self, late: Late) {
        self.world().late = Some(late);
    }

    /// A process opens the device, or a file on it.
    pub fn open_file(&self, nqn: &Nqn, pid: u32, command: &str, path: &str) {
        self.use_device(nqn, Use::OpenFile, pid, command, path);
    }

    /// Something uses the device.
    pub fn use_device(&self, nqn: &Nqn, how: Use, pid: u32, command: &str, path: &str) {
        let mut world = self.world();
        let device = world.connections[nqn].device.number;
        world.users.push(Holder { device, how, pid, command: command.into(), pod: None, path: path.into() });
    }

    /// Every process ends.
    pub fn close_files(&self) {
        self.world().users.clear();
    }

    /// How long the program lives that runs on this machine.
    pub fn life(&self) -> Life {
        self.life.clone()
    }

    /// The kernel gives up every connection: what is mounted or open stays, of devices that are gone for good.
    pub fn give_up(&self) {
        let mut world = self.world();
        let gone = std::mem::take(&mut world.connections);
        world.lost.extend(gone.into_iter().map(|(nqn, connection)| (nqn, connection.device.number)));
    }

    /// The array exports no such disk any more: its connections stay, and do not work.
    pub fn withdraw(&self, nqn: &Nqn) {
        let mut world = self.world();
        world.exports.remove(nqn);
        if let Some(connection) = world.connections.get_mut(nqn) {
            connection.live = false;
        }
    }

    /// The array is unplugged: connections stay, and do not work.
    pub fn unplug(&self) {
        self.world().connections.values_mut().for_each(|connection| connection.live = false);
    }

    /// The array is there again: connections work as before.
    pub fn plug(&self) {
        self.world().connections.values_mut().for_each(|connection| connection.live = true);
    }

    /// Something is mounted that the driver did not mount.
    pub fn mount_foreign(&self, at: &Path) {
        let device = DeviceNumber { major: 8, minor: 1 };
        self.world().mounts.push(mounted(device, "/dev/sda1", "ext4", at, &[]));
    }

    /// What is mounted of a device is mounted once more.
    pub fn mount_again(&self, nqn: &Nqn, at: &Path) {
        let mut world = self.world();
        let device = world.connections[nqn].device.clone();
        world.mounts.push(mounted(device.number, &device.to_string(), "ext4", at, &["rw"]));
    }

    /// A device's own node is mounted.
    pub fn mount_device_node(&self, nqn: &Nqn, at: &Path) {
        let mut world = self.world();
        let root = Path::new("/").join(&world.connections[nqn].device.name);
        let number = DeviceNumber { major: 0, minor: 6 };
        world.mounts.push(Mount { root, ..mounted(number, "devtmpfs", "devtmpfs", at, &[]) });
    }

    /// Somebody connects without the driver, to a disk that is exported anew if there is none.
    pub fn connect_by_hand(&self, nqn: &Nqn) {
        let mut world = self.world();
        let disk = Disk { size: Bytes::gib(1), holds: Holds::Nothing };
        let size = world.exports.entry(nqn.clone()).or_insert(disk).size;
        let device = world.new_device(nqn, size);
        let portal = Portal { address: [10, 77, 0, 1].into(), port: 4420 };
        let policy = ReconnectPolicy::STANDARD;
        world
            .connections
            .insert(nqn.clone(), Connection { live: true, scanned: true, device, portal, policy });
    }

    /// A subsystem shows more than one device, so that nothing can be said of it.
    pub fn confuse(&self, nqn: &Nqn) {
        self.world().odd.insert(nqn.clone());
    }

    /// A connection has no device, as before it is scanned.
    pub fn unscan(&self, nqn: &Nqn) {
        if let Some(connection) = self.world().connections.get_mut(nqn) {
            connection.scanned = false;
        }
    }

    /// A device file of devtmpfs is mounted, over a file that lies there.
    pub fn mount_device_file(&self, at: &Path) {
        let device = DeviceNumber { major: 0, minor: 6 };
        self.world().mounts.push(mounted(device, "devtmpfs", "devtmpfs", at, &[]));
    }

    /// Something is at a path that the driver did not make.
    pub fn place(&self, at: &Path, found: Found) {
        self.world().nodes.insert(at.into(), found);
    }

    /// The machine starts anew: nothing is connected or mounted any more, and files are what they were.
    pub fn reboot(&self) {
        let mut world = self.world();
        world.connections.clear();
        world.lost.clear();
        world.mounts.clear();
        world.users.clear();
    }

    /// Devices get other numbers, as after a reconnect in another order.
    pub fn renumber(&self) {
        let mut world = self.world();
        world.devices += 10;
        let shift = |number: DeviceNumber| DeviceNumber { minor: number.minor + 10, ..number };
        for connection in world.connections.values_mut() {
            connection.device.number = shift(connection.device.number);
            connection.device.name = format!("nvme{}n1", connection.device.number.minor);
        }
        world.mounts.iter_mut().for_each(|mount| mount.device = shift(mount.device));
    }

    /// What there is now, to be compared.
    pub fn snapshot(&self) -> World {
        self.world().clone()
    }

    /// What there is now, in words, and with subsystems in the place of numbers: another connection of the same volume looks the same.
    pub fn picture(&self) -> Vec<String> {
        let world = self.world();
        let owner = |number: DeviceNumber| {
            let found = world.connections.iter().find(|(_, connection)| connection.device.number == number);
            found.map_or_else(|| format!("a device that is gone, {number}"), |(nqn, _)| nqn.to_string())
        };
        let disks = world.exports.iter().map(|(nqn, disk)| format!("{nqn} holds {:?}", disk.holds));
        let connections = world.connections.iter().map(|(nqn, connection)| {
            let Connection { live, portal, policy, .. } = connection;
            format!("{nqn} is connected to {portal}, live: {live}, policy {policy}")
        });
        let mounts = world.mounts.iter().map(|mount| {
            let Mount { device, at, options, .. } = mount;
            format!("{} is mounted at {} {options:?}", owner(*device), at.display())
        });
        let nodes = world.nodes.iter().map(|(at, found)| match found {
            Found::Node(number) => format!("a node of {} is at {}", owner(*number), at.display()),
            found => format!("{found:?} is at {}", at.display()),
        });
        disks.chain(connections).chain(mounts).chain(nodes).collect()
    }

    /// How the kernel holds on to a connection.
    pub fn policy(&self, nqn: &Nqn) -> ReconnectPolicy {
        self.world().connections[nqn].policy
    }

    /// What is on a disk.
    pub fn holds(&self, nqn: &Nqn) -> Holds {
        self.world().exports[nqn].holds.clone()
    }

    /// Whether nothing is connected, mounted or lying around.
    pub fn is_clean(&self) -> bool {
        let world = self.world();
        world.connections.is_empty() && world.mounts.is_empty() && world.nodes.is_empty()
    }

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

    /// Whether anything is mounted from the device, or has it open.
    fn holds(&self, device: DeviceNumber) -> bool {
        self.mounts.iter().any(|mount| mount.device == device)
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

impl Host for FakeHost {
    fn attachment(&self, nqn: &Nqn) -> Result<Attachment, Error> {
        let world = self.world();
        if world.odd.contains(nqn) {
            return Err(Error::SeveralDevices { nqn: nqn.clone(), devices: "nvme7n1, nvme7n2".into() });
        }
        Ok(match world.connections.get(nqn) {
            None if world.is_lost(nqn) => Attachment::Lost,
            None => Attachment::Absent,
            Some(Connection { live, scanned, device, .. }) => {
                let device = scanned.then(|| device.clone());
                if *live { Attachment::Live(device) } else { Attachment::Connecting(device) }
            }
        })
    }

    fn attachments(&self) -> Result<BTreeMap<Nqn, Result<Attachment, Error>>, Error> {
        self.act(Act::Attachments, Path::new("/sys/class/nvme"))?.changes -= 1;
        let told = self.subsystems()?.into_iter().map(|nqn| (nqn.clone(), self.attachment(&nqn)));
        Ok(told.collect())
    }

    fn controllers(&self) -> Result<Vec<ControllerFacts>, Error> {
        let world = self.world();
        let facts = |(nqn, connection): (&Nqn, &Connection)| ControllerFacts {
            controller: format!("nvme{}", connection.device.number.minor),
            nqn: nqn.to_string(),
            attributes: [("state", if connection.live { "live" } else { "connecting" }.to_owned())].into(),
        };
        Ok(world.connections.iter().map(facts).collect())
    }

    fn portals(&self, nqn: &Nqn) -> Result<Vec<Portal>, Error> {
        Ok(self.world().connections.get(nqn).map(|connection| connection.portal).into_iter().collect())
    }

    fn subsystems(&self) -> Result<Vec<Nqn>, Error> {
        let world = self.world();
        let lost = world.lost.keys().filter(|nqn| world.is_lost(nqn) && !world.connections.contains_key(nqn));
        Ok(world.connections.keys().chain(lost).cloned().collect())
    }

    fn connect(&self, target: &Target) -> Result<Connected, Error> {
        let nqn = target.nqn.as_nqn();
        let mut world = self.act(Act::Connect, Path::new("/dev/nvme-fabrics"))?;
        if world.connections.contains_key(nqn) {
            return Ok(Connected::Already);
        }
        let Some(size) = world.exports.get(nqn).map(|disk| disk.size) else {
            let source = std::io::ErrorKind::ConnectionRefused.into();
            return Err(Error::Unreachable { portal: target.portal, source });
        };
        let device = world.new_device(nqn, size);
        let scanned = world.late.is_none();
        let Target { portal, reconnect: policy, .. } = *target;
        world.connections.insert(nqn.clone(), Connection { live: true, scanned, device, portal, policy });
        Ok(Connected::Newly)
    }

    fn retune(&self, target: &Target) -> Result<(), Error> {
        let mut world = self.world();
        if let Some(connection) = world.connections.get_mut(target.nqn.as_nqn()) {
            let policy = ReconnectPolicy { keep_alive: connection.policy.keep_alive, ..target.reconnect };
            if connection.policy != policy {
                self.life.change();
                connection.policy = policy;
                world.changes += 1;
            }
        }
        Ok(())
    }

    fn wait_for_device(&self, nqn: &ManagedNqn, waited: Duration) -> Result<Device, Error> {
        let mut world = self.world();
        let late = world.late.take();
        let missing = |state| Error::NoDevice { nqn: nqn.clone(), waited, state };
        match world.connections.get_mut(nqn.as_nqn()) {
            Some(connection) if connection.live && late != Some(Late::Never) => {
                connection.scanned = true;
                Ok(connection.device.clone())
            }
            Some(_) => Err(missing("it does not answer")),
            None => Err(missing("it is not connected")),
        }
    }

    fn wait_for_size(&self, nqn: &ManagedNqn, least: Bytes, waited: Duration) -> Result<Device, Error> {
        let mut world = self.world();
        let size = world.exports.get(nqn.as_nqn()).map(|disk| disk.size);
        let mut seen = None;
        if let (Some(connection), Some(size)) = (world.connections.get_mut(nqn.as_nqn()), size)
            && connection.live
        {
            connection.device.size = size;
            seen = Some(size);
            if size >= least {
                return Ok(connection.device.clone());
            }
        }
        Err(Error::NotGrown { nqn: nqn.clone(), waited, least, seen, state: "nothing more was done" })
    }

    fn disconnect(&self, nqn: &ManagedNqn, waited: Duration) -> Result<(), Error> {
        let mut world = self.act(Act::Disconnect, Path::new("/sys/class/nvme"))?;
        if let Some(connection) = world.connections.get(nqn.as_nqn()) {
            let number = connection.device.number;
            if world.mounts.iter().any(|mount| mount.device == number) {
                return Err(Error::Busy { what: nqn.to_string() });
            }
            world.connections.remove(nqn.as_nqn());
            world.lost.insert(nqn.as_nqn().clone(), number);
        }
        // The device goes when the last one that has it open closes it.
        if world.is_lost(nqn.as_nqn()) {
            return Err(Error::StillThere { nqn: nqn.clone(), waited });
        }
        Ok(())
    }

    fn abandon(&self, nqn: &ManagedNqn, _: Duration) -> Result<(), Error> {
        let mut world = self.act(Act::Abandon, Path::new("/sys/class/nvme"))?;
        if let Some(connection) = world.connections.remove(nqn.as_nqn()) {
            world.lost.insert(nqn.as_nqn().clone(), connection.device.number);
        }
        Ok(())
    }

    fn device_is_there(&self, number: DeviceNumber) -> Result<bool, Error> {
        // The machine's own disk is no connection's.
        let own = matches!(number.major, 0 | 8);
        Ok(own || self.world().connections.values().any(|connection| connection.device.number == number))
    }

    fn probe(&self, device: &Device) -> Result<Content, Error> {
        let mut world = self.look(Act::Probe, &device.path())?;
        Ok(match world.disk(device)?.holds.clone() {
            Holds::Nothing => Content::Blank(Blank::imagined(device.clone())),
            Holds::Unfinished => Content::Unfinished(Unfinished::imagined(device.clone())),
            Holds::Filesystem(fs, size) | Holds::Damaged(fs, size) => {
                Content::Has(Signature::Filesystem { fs, size, state: State::Sound })
            }
            Holds::Flawed(fs, size) => Content::Has(Signature::Filesystem { fs, size, state: State::Flawed }),
            Holds::Foreign(what) => Content::Has(Signature::Foreign(what.into())),
            Holds::BadSectors => Content::Unreadable(format!("{device} cannot be read: it fails every read")),
        })
    }

    fn wipe(&self, unfinished: Unfinished) -> Result<(), Error> {
        let device = unfinished.device();
        self.act(Act::Wipe, &device.path())?.disk(device)?.holds = Holds::Nothing;
        Ok(())
    }

    fn format(&self, blank: Blank, fs: FsType) -> Result<(), Error> {
        let device = blank.device();
        let mut world = self.act(Act::Format, &device.path())?;
        world.disk(device)?.holds = Holds::Unfinished;
        drop(world);
        self.life.change();
        self.world().disk(device)?.holds = Holds::Filesystem(fs, device.size);
        Ok(())
    }

    fn repair(&self, device: &Device, fs: FsType) -> Result<(), Error> {
        let mut world = self.act(Act::Repair, &device.path())?;
        let disk = world.disk(device)?;
        match disk.holds.clone() {
            Holds::Damaged(found, size) | Holds::Flawed(found, size) if found == fs => {
                disk.holds = Holds::Filesystem(fs, size);
            }
            Holds::Nothing
            | Holds::Unfinished
            | Holds::Filesystem(..)
            | Holds::Damaged(..)
            | Holds::Flawed(..)
            | Holds::Foreign(_)
            | Holds::BadSectors => {}
        }
        Ok(())
    }

    fn grow(&self, device: &Device, fs: FsType, at: &KubeletPath) -> Result<(), Error> {
        let mut world = self.act(Act::Grow, at.as_path())?;
        if world.layer(at.as_path()).is_none() {
            return Err(Error::system("grow", at.as_path())(Errno::INVAL));
        }
        world.disk(device)?.holds = Holds::Filesystem(fs, device.size);
        Ok(())
    }

    fn recorded_errors(&self, _: &Device, _: FsType) -> Result<u64, Error> {
        Ok(self.world().errors)
    }

    fn usage(&self, at: &KubeletPath, device: DeviceNumber) -> Result<Option<Usage>, Error> {
        let (hung, change) = &*self.hung;
        let hung = hung.lock().unwrap_or_else(PoisonError::into_inner);
        drop(change.wait_while(hung, |hung| *hung).unwrap_or_else(PoisonError::into_inner));
        let world = self.look(Act::Measure, at.as_path())?;
        let Some(mount) = world.layer(at.as_path()).map(|layer| &world.mounts[layer]) else {
            return Ok(None);
        };
        let owner = world.connections.iter().find(|(_, connection)| connection.device.number == device);
        let disk = owner.and_then(|(nqn, _)| world.exports.get(nqn));
        match disk.map(|disk| &disk.holds) {
            Some(Holds::Filesystem(_, size)) if mount.device == device => {
                let half = Bytes::new(size.get() / 2);
                Ok(Some(Usage {
                    bytes: Amount { total: *size, used: half, available: half },
                    inodes: Amount { total: 100, used: 11, available: 89 },
                }))
            }
            _ => Ok(None),
        }
    }

    fn mounts(&self) -> Result<Mounts, Error> {
        Ok(self.world().mounts.iter().cloned().collect())
    }

    fn mount(
        &self,
        device: &Device,
        fs: FsType,
        at: &KubeletPath,
        options: &MountOptions,
    ) -> Result<(), Error> {
        let mut world = self.act(Act::Mount, at.as_path())?;
        match world.disk(device)?.holds {
            Holds::Filesystem(found, _) | Holds::Flawed(found, _) if found == fs => {}
            _ => {
                let source = Errno::UCLEAN.into();
                return Err(Error::Unmountable { device: device.clone(), fs, source });
            }
        }
        let mode = if options.is_read_only() { "ro" } else { "rw" };
        let source = device.to_string();
        world.mounts.push(mounted(device.number, &source, fs.as_str(), at.as_path(), &[mode]));
        Ok(())
    }

    fn bind(&self, from: &KubeletPath, to: &KubeletPath) -> Result<(), Error> {
        let mut world = self.act(Act::Bind, to.as_path())?;
        let missing = || Error::system("bind", to.as_path())(Errno::NOENT);
        let source = world.layer(from.as_path()).ok_or_else(missing)?;
        if world.nodes.get(to.as_path()) != Some(&Found::Directory) {
            return Err(missing());
        }
        let mount = Mount { at: to.as_path().into(), ..world.mounts[source].clone() };
        world.mounts.push(mount);
        Ok(())
    }

    fn make_read_only(&self, at: &KubeletPath) -> Result<(), Error> {
        let mut world = self.act(Act::MakeReadOnly, at.as_path())?;
        let layer =
            world.layer(at.as_path()).ok_or_else(|| Error::system("remount", at.as_path())(Errno::INVAL))?;
        world.mounts[layer].options = vec!["ro".into()];
        Ok(())
    }

    fn unmount(&self, at: &KubeletPath) -> Result<(), Error> {
        let mut world = self.act(Act::Unmount, at.as_path())?;
        let layer =
            world.layer(at.as_path()).ok_or_else(|| Error::system("unmount", at.as_path())(Errno::INVAL))?;
        // A process holds the mount through which it opened its file.
        if world.users.iter().any(|user| user.how == Use::OpenFile && user.path.starts_with(at.as_path())) {
            return Err(Error::Busy { what: at.to_string() });
        }
        world.mounts.remove(layer);
        Ok(())
    }

    fn detach_dead(&self, at: &KubeletPath) -> Result<(), Error> {
        let mut world = self.act(Act::DetachDead, at.as_path())?;
        let layer =
            world.layer(at.as_path()).ok_or_else(|| Error::system("detach", at.as_path())(Errno::INVAL))?;
        let device = world.mounts[layer].device;
        if world.connections.values().any(|connection| connection.device.number == device) {
            return Err(Error::Alive { at: at.as_path().into(), device });
        }
        world.mounts.remove(layer);
        Ok(())
    }

    fn found_at(&self, at: &KubeletPath) -> Result<Found, Error> {
        Ok(self.world().nodes.get(at.as_path()).copied().unwrap_or(Found::Nothing))
    }

    fn make_directory(&self, at: &KubeletPath) -> Result<(), Error> {
        self.act(Act::MakeDirectory, at.as_path())?.nodes.insert(at.as_path().into(), Found::Directory);
        Ok(())
    }

    fn make_node(&self, device: &Device, at: &KubeletPath) -> Result<(), Error> {
        let mut world = self.act(Act::MakeNode, at.as_path())?;
        if world.nodes.contains_key(at.as_path()) {
            return Err(Error::system("make the device node", at.as_path())(Errno::EXIST));
        }
        world.nodes.insert(at.as_path().into(), Found::Node(device.number));
        Ok(())
    }

    fn remove_directory(&self, at: &KubeletPath) -> Result<(), Error> {
        let mut world = self.act(Act::Remove, at.as_path())?;
        if world.layer(at.as_path()).is_some() {
            return Err(Error::Busy { what: at.to_string() });
        }
        let inside = |path: &&PathBuf| path.starts_with(at.as_path()) && path.as_path() != at.as_path();
        if world.nodes.keys().any(|path| inside(&path)) {
            return Err(Error::system("remove", at.as_path())(Errno::NOTEMPTY));
        }
        world.nodes.remove(at.as_path());
        Ok(())
    }

    fn remove_node(&self, at: &KubeletPath) -> Result<(), Error> {
        let mut world = self.act(Act::Remove, at.as_path())?;
        if let Some(Found::Directory | Found::Other) = world.nodes.get(at.as_path()) {
            return Err(Error::system("remove", at.as_path())(Errno::EXIST));
        }
        world.nodes.remove(at.as_path());
        Ok(())
    }

    fn holders(&self, devices: &[DeviceNumber]) -> Result<Vec<Holder>, Error> {
        let world = self.look(Act::Holders, Path::new("/proc"))?;
        let asked = |number| devices.contains(&number);
        let mounts = world.mounts.iter().filter(|mount| asked(mount.device)).map(|mount| Holder {
            device: mount.device,
            how: Use::Mount,
            pid: 1,
            command: "init".into(),
            pod: None,
            path: mount.at.clone(),
        });
        Ok(mounts.chain(world.users.iter().filter(|user| asked(user.device)).cloned()).collect())
    }
}
