//! The machine itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rds_csi_api::{Bytes, FsType, Nqn};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

use super::{
    Attachment, Blank, Connected, Content, ControllerFacts, Device, DeviceNumber, Error, Found, Holder, Host,
    Initiator, KubeletPath, ManagedNqn, MountOptions, Mounts, Repair, Subsystem, Target, Unfinished, Usage,
    device_node, filesystem, in_use, mount, nvme, probe, unfinished,
};

/// The machine this program runs on. What it reads of `/sys`, `/proc` and `/dev` it reads below a root, so that captured trees
/// can stand in for them; what it changes is always the machine's own.
#[derive(Debug, Clone)]
pub struct Linux {
    root: PathBuf,
    initiator: Initiator,
}

impl Linux {
    /// The machine, and how it calls itself to an array.
    pub fn new(initiator: Initiator) -> Self {
        Self { root: "/".into(), initiator }
    }

    /// Fails if anything has the device to itself. The kernel knows of mounts in namespaces without a process, too.
    fn check_unclaimed(&self, device: &Device) -> Result<(), Error> {
        let path = self.root.join("dev").join(&device.name);
        match open(&path, OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC, Mode::empty()) {
            Err(Errno::BUSY) => Err(Error::Busy { what: device.to_string() }),
            // Gone, or going: then nothing uses it.
            Ok(_) | Err(Errno::NOENT | Errno::NXIO | Errno::NODEV) => Ok(()),
            Err(error) => Err(Error::system("open", path)(error)),
        }
    }
}

impl Host for Linux {
    fn attachment(&self, nqn: &Nqn) -> Result<Attachment, Error> {
        nvme::attachment(&self.root, nqn)
    }

    fn subsystems(
        &self,
        which: &dyn Fn(&Nqn) -> bool,
    ) -> Result<BTreeMap<Nqn, Result<Subsystem, Error>>, Error> {
        nvme::subsystems(&self.root, which)
    }

    fn controllers(&self) -> Result<Vec<ControllerFacts>, Error> {
        nvme::facts(&self.root)
    }

    fn connect(&self, target: &Target) -> Result<Connected, Error> {
        nvme::connect(&self.root, &self.initiator, target)
    }

    fn retune(&self, target: &Target) -> Result<(), Error> {
        nvme::retune(&self.root, target)
    }

    fn wait_for_device(&self, nqn: &ManagedNqn, limit: Duration) -> Result<Device, Error> {
        nvme::wait_for_device(&self.root, nqn, limit)
    }

    fn wait_for_size(&self, nqn: &ManagedNqn, least: Bytes, limit: Duration) -> Result<Device, Error> {
        nvme::wait_for_size(&self.root, nqn, least, limit)
    }

    fn disconnect(&self, nqn: &ManagedNqn, limit: Duration) -> Result<(), Error> {
        if let Some(device) = self.attachment(nqn.as_nqn())?.device() {
            self.check_unclaimed(device)?;
        }
        nvme::disconnect(&self.root, nqn, limit)
    }

    fn abandon(&self, nqn: &ManagedNqn, limit: Duration) -> Result<(), Error> {
        nvme::abandon(&self.root, nqn, limit)
    }

    fn device_is_there(&self, number: DeviceNumber) -> Result<bool, Error> {
        // What is on no block device, such as tmpfs, has a number of this major, and cannot lose it.
        if number.major == 0 {
            return Ok(true);
        }
        let path = self.root.join("sys/dev/block").join(number.to_string());
        path.try_exists().map_err(Error::system("look for", path))
    }

    fn probe(&self, device: &Device) -> Result<Content, Error> {
        probe::probe(&self.root, device)
    }

    fn wipe(&self, unfinished: Unfinished) -> Result<(), Error> {
        unfinished::wipe(&self.root, &unfinished)
    }

    fn format(&self, blank: Blank, fs: FsType) -> Result<(), Error> {
        let device = blank.device().clone();
        let _pinned = probe::open_device(&self.root, &device)?;
        if unfinished::needs_mark(fs) {
            unfinished::mark(&self.root, &device)?;
        }
        filesystem::format(blank, fs)?;
        unfinished::finish(&self.root, &device)
    }

    fn repair(&self, device: &Device, fs: FsType, how: Repair) -> Result<(), Error> {
        let _pinned = probe::open_device(&self.root, device)?;
        filesystem::repair(device, fs, how)
    }

    fn grow(&self, device: &Device, fs: FsType, mounted_at: &KubeletPath) -> Result<(), Error> {
        let _pinned = probe::open_device(&self.root, device)?;
        filesystem::grow(device, fs, mounted_at)
    }

    fn recorded_errors(&self, device: &Device, fs: FsType) -> Result<u64, Error> {
        filesystem::recorded_errors(&self.root, device, fs)
    }

    fn usage(&self, mounted_at: &KubeletPath, device: DeviceNumber) -> Result<Option<Usage>, Error> {
        filesystem::usage(mounted_at, device)
    }

    fn mounts(&self) -> Result<Mounts, Error> {
        mount::of_process(&self.root.join("proc"), Path::new("self").as_os_str())
    }

    fn mount(
        &self,
        device: &Device,
        fs: FsType,
        at: &KubeletPath,
        options: &MountOptions,
    ) -> Result<(), Error> {
        let _pinned = probe::open_device(&self.root, device)?;
        if !options.is_read_only() {
            // A crash may have come between the end of the format and this.
            unfinished::finish(&self.root, device)?;
        }
        mount::mount(device, fs, at, options)
    }

    fn bind(&self, from: &KubeletPath, to: &KubeletPath) -> Result<(), Error> {
        mount::bind(from, to)
    }

    fn make_read_only(&self, at: &KubeletPath) -> Result<(), Error> {
        let mounts = self.mounts()?;
        let present = mounts.top(at).ok_or_else(|| Error::system("remount", at.as_path())(Errno::INVAL))?;
        mount::make_read_only(at, present)
    }

    fn unmount(&self, at: &KubeletPath) -> Result<(), Error> {
        mount::unmount(at)
    }

    fn detach_dead(&self, at: &KubeletPath) -> Result<(), Error> {
        let mounts = self.mounts()?;
        let top = mounts.top(at).ok_or_else(|| Error::system("detach", at.as_path())(Errno::INVAL))?;
        if self.device_is_there(top.device)? {
            return Err(Error::Alive { at: at.as_path().into(), device: top.device });
        }
        mount::detach(at)
    }

    fn found_at(&self, at: &KubeletPath) -> Result<Found, Error> {
        device_node::found_at(at)
    }

    fn make_directory(&self, at: &KubeletPath) -> Result<(), Error> {
        device_node::make_directory(at)
    }

    fn make_node(&self, device: &Device, at: &KubeletPath) -> Result<(), Error> {
        let _pinned = probe::open_device(&self.root, device)?;
        device_node::make_node(device, at)
    }

    fn remove_directory(&self, at: &KubeletPath) -> Result<(), Error> {
        device_node::remove_directory(at)
    }

    fn remove_node(&self, at: &KubeletPath) -> Result<(), Error> {
        device_node::remove_node(at)
    }

    fn holders(&self, devices: &[DeviceNumber]) -> Result<Vec<Holder>, Error> {
        in_use::holders(&self.root, devices)
    }
}
