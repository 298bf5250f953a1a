//! How a machine in memory behaves, by the kernel's rules.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::Duration;

use rds_csi_api::{Bytes, FsType, Nqn, ReconnectPolicy};
use rustix::io::Errno;

use super::{Act, Connection, FakeHost, Holds, Late, mounted};
use crate::host::{
    Amount, Attachment, Blank, Connected, Content, ControllerFacts, Device, DeviceNumber, Error, Found,
    Holder, Host, KubeletPath, ManagedNqn, Mount, MountOptions, Mounts, Repair, Signature, State, Subsystem,
    Target, Unfinished, Usage, Use,
};

/// The only one that arrays in memory serve.
const PORT: u16 = 4420;

impl Host for FakeHost {
    fn attachment(&self, nqn: &Nqn) -> Result<Attachment, Error> {
        self.world().attachment(nqn)
    }

    fn subsystems(
        &self,
        which: &dyn Fn(&Nqn) -> bool,
    ) -> Result<BTreeMap<Nqn, Result<Subsystem, Error>>, Error> {
        let world = self.look(Act::Subsystems, Path::new("/sys/class/nvme"))?;
        let lost = world.lost.keys().filter(|nqn| world.is_lost(nqn));
        let known: BTreeSet<Nqn> =
            world.connections.keys().chain(lost).filter(|nqn| which(nqn)).cloned().collect();
        let portals =
            |nqn: &Nqn| world.connections.get(nqn).map(|connection| connection.portal).into_iter().collect();
        let told = known.into_iter().map(|nqn| {
            let seen =
                world.attachment(&nqn).map(|attachment| Subsystem { attachment, portals: portals(&nqn) });
            (nqn, seen)
        });
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

    fn connect(&self, target: &Target) -> Result<Connected, Error> {
        let nqn = target.nqn.as_nqn();
        let mut world = self.act(Act::Connect, Path::new("/dev/nvme-fabrics"))?;
        if world.connections.contains_key(nqn) {
            return Ok(Connected::Already);
        }
        let served = target.portal.port == PORT;
        let Some(size) = world.exports.get(nqn).filter(|_| served).map(|disk| disk.size) else {
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
            if world.mounts.iter().any(|mount| mount.device == number) || world.closing.contains(&number) {
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
        self.moved.notify_all();
        Ok(())
    }

    fn device_is_there(&self, number: DeviceNumber) -> Result<bool, Error> {
        Ok(self.world().has(number))
    }

    fn probe(&self, device: &Device) -> Result<Content, Error> {
        let mut world = self.look(Act::Probe, &device.path())?;
        Ok(match world.disk(device)?.holds.clone() {
            Holds::Nothing => Content::Blank(Blank::imagined(device.clone())),
            Holds::Unfinished => Content::Unfinished(Unfinished::imagined(device.clone())),
            Holds::Filesystem(fs, size) | Holds::Damaged(fs, size) | Holds::Ruined(fs, size) => {
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

    fn repair(&self, device: &Device, fs: FsType, how: Repair) -> Result<(), Error> {
        let mut world = self.act(Act::Repair, &device.path())?;
        let disk = world.disk(device)?;
        match disk.holds.clone() {
            Holds::Damaged(found, size) | Holds::Flawed(found, size) if found == fs => {
                disk.holds = Holds::Filesystem(fs, size);
            }
            Holds::Ruined(found, size) if found == fs && how == Repair::Thorough => {
                disk.holds = Holds::Filesystem(fs, size);
            }
            Holds::Ruined(..) => {
                let status = std::process::ExitStatus::from_raw(4 << 8);
                let output = "UNEXPECTED INCONSISTENCY; RUN fsck MANUALLY.".into();
                return Err(Error::Failed { program: "e2fsck", device: device.clone(), status, output });
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
        let device = world.mounts.remove(layer).device;
        // The last one out of sight: its filesystem goes once everything is written, or nothing can be.
        if !world.mounts.iter().any(|mount| mount.device == device) {
            world.closing.insert(device);
            let waited = self.moved.wait_while(world, |world| world.is_waited_for(device));
            let mut world = waited.unwrap_or_else(PoisonError::into_inner);
            world.closing.remove(&device);
            world.unwritten.clear();
        }
        Ok(())
    }

    fn detach_dead(&self, at: &KubeletPath) -> Result<(), Error> {
        let mut world = self.act(Act::DetachDead, at.as_path())?;
        let layer =
            world.layer(at.as_path()).ok_or_else(|| Error::system("detach", at.as_path())(Errno::INVAL))?;
        let device = world.mounts[layer].device;
        if world.has(device) {
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
