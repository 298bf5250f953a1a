//! What tests tell a machine in memory, and what it tells them.

use std::path::Path;
use std::sync::PoisonError;

use rds_csi_api::{Bytes, Nqn, Portal, ReconnectPolicy};
use rustix::io::Errno;

use super::{Act, Connection, Disk, FakeHost, Holds, Late, Life, World, mounted};
use crate::host::{DeviceNumber, Found, Holder, Mount, Use};

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

    /// Something is written to a filesystem on that disk that does not arrive while the array is away.
    pub fn leave_unwritten(&self, nqn: &Nqn) {
        self.world().unwritten.insert(nqn.clone());
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
        self.moved.notify_all();
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
        self.moved.notify_all();
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
}
