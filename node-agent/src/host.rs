//! The only privileged room: whatever this program does to the machine, it does here.
//!
//! Its words are those of Linux and NVMe: nothing here knows CSI, Kubernetes or a volume. It is synchronous, since what
//! it calls blocks, and a blocked call must occupy its own thread and no more.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use rds_csi_api::{Bytes, FsType, HostId, HostNqn, ManagedPrefix, Nqn, Portal, ReconnectPolicy, VolumeId};
use serde::Serialize;

#[cfg(any(test, feature = "contract"))]
pub mod contract;
pub mod device_node;
mod error;
pub mod exec;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod filesystem;
pub mod in_use;
pub mod kubelet_path;
mod linux;
pub mod mount;
mod nvme;
pub mod probe;
mod staged;
mod superblock;
mod uevent;
mod unfinished;
mod watch;

pub use device_node::Found;
pub use error::Error;
pub use filesystem::{Amount, Usage};
pub use in_use::{Holder, PodUid, Use};
pub use kubelet_path::{KubeletDir, KubeletPath};
pub use linux::Linux;
pub use mount::{Mount, MountOptions, Mounts};
pub use probe::{Blank, Content, Fit, Signature, State};
pub use staged::staged;
pub use unfinished::Unfinished;
pub use watch::Watch;

/// What the verbs ask of the machine. [`Linux`] is the machine; `fake::FakeHost` behaves like one, in memory.
pub trait Host: Send + Sync + 'static {
    /// What the kernel knows of this subsystem now, told by its NQN, never by a remembered name.
    fn attachment(&self, nqn: &Nqn) -> Result<Attachment, Error>;

    /// The subsystems that the kernel knows and that are asked for, in one reading. One that cannot be told is in nobody's way.
    fn subsystems(
        &self,
        which: &dyn Fn(&Nqn) -> bool,
    ) -> Result<BTreeMap<Nqn, Result<Subsystem, Error>>, Error>;

    /// What sysfs says of every controller, of whomever. For people.
    fn controllers(&self) -> Result<Vec<ControllerFacts>, Error>;

    /// Connects. Success means that the array took the connection; the device comes with [`Host::wait_for_device`].
    fn connect(&self, target: &Target) -> Result<Connected, Error>;

    /// Lets the connections that there are follow the target's reconnect policy. `keep_alive_tmo` stays what it was: the kernel
    /// takes it at a connect only.
    fn retune(&self, target: &Target) -> Result<(), Error>;

    /// Waits for the subsystem to be live and its device to be there.
    fn wait_for_device(&self, nqn: &ManagedNqn, limit: Duration) -> Result<Device, Error>;

    /// Waits for the subsystem to be live and its device to be at least so large. The array is asked for the device's size.
    fn wait_for_size(&self, nqn: &ManagedNqn, least: Bytes, limit: Duration) -> Result<Device, Error>;

    /// Ends every connection to the subsystem, and waits until the kernel knows it no more.
    fn disconnect(&self, nqn: &ManagedNqn, limit: Duration) -> Result<(), Error>;

    /// Ends every connection to a subsystem that does not answer, although something may be mounted from it: what was written
    /// and did not arrive is lost. What is mounted stays, of a device that is gone for good.
    fn abandon(&self, nqn: &ManagedNqn, limit: Duration) -> Result<(), Error>;

    /// Whether a block device has this number now. The number of one that is gone is not given to another while anything is
    /// mounted from it or has it open.
    fn device_is_there(&self, number: DeviceNumber) -> Result<bool, Error>;

    /// What is on the device.
    fn probe(&self, device: &Device) -> Result<Content, Error>;

    /// Makes a device blank that holds nothing but the beginnings of a filesystem.
    fn wipe(&self, unfinished: Unfinished) -> Result<(), Error>;

    /// Makes a filesystem. The proof that nothing is there is used up by it.
    fn format(&self, blank: Blank, fs: FsType) -> Result<(), Error>;

    /// Repairs a filesystem that would not mount. It must not be mounted.
    fn repair(&self, device: &Device, fs: FsType, how: Repair) -> Result<(), Error>;

    /// Grows a mounted filesystem to the size of its device.
    fn grow(&self, device: &Device, fs: FsType, mounted_at: &KubeletPath) -> Result<(), Error>;

    /// How many errors a filesystem has written down on its device since it was last checked. Not every one counts them.
    fn recorded_errors(&self, device: &Device, fs: FsType) -> Result<u64, Error>;

    /// How full the filesystem of this device is that is mounted there; none if it is not mounted there.
    fn usage(&self, mounted_at: &KubeletPath, device: DeviceNumber) -> Result<Option<Usage>, Error>;

    /// The mounts of our own mount namespace.
    fn mounts(&self) -> Result<Mounts, Error>;

    /// Mounts a filesystem.
    fn mount(
        &self,
        device: &Device,
        fs: FsType,
        at: &KubeletPath,
        options: &MountOptions,
    ) -> Result<(), Error>;

    /// Lets a mounted directory appear at another place too.
    fn bind(&self, from: &KubeletPath, to: &KubeletPath) -> Result<(), Error>;

    /// Makes one mount, not its filesystem, read-only.
    fn make_read_only(&self, at: &KubeletPath) -> Result<(), Error>;

    /// Unmounts the topmost layer.
    fn unmount(&self, at: &KubeletPath) -> Result<(), Error>;

    /// Takes the topmost layer away though files on it may be open. Its device must be gone for good, so that nothing of it can
    /// be written anywhere any more.
    fn detach_dead(&self, at: &KubeletPath) -> Result<(), Error>;

    /// What is at a path, below any mount.
    fn found_at(&self, at: &KubeletPath) -> Result<Found, Error>;

    /// Makes a directory. Its parent exists.
    fn make_directory(&self, at: &KubeletPath) -> Result<(), Error>;

    /// Makes a block device node. Its parent exists, and nothing is at the path.
    fn make_node(&self, device: &Device, at: &KubeletPath) -> Result<(), Error>;

    /// Removes an empty directory.
    fn remove_directory(&self, at: &KubeletPath) -> Result<(), Error>;

    /// Removes a device node or an empty file.
    fn remove_node(&self, at: &KubeletPath) -> Result<(), Error>;

    /// Whatever keeps any of these devices busy: mounts in every mount namespace, devices on top, open files. An answer
    /// without holders means that somebody looked everywhere.
    fn holders(&self, devices: &[DeviceNumber]) -> Result<Vec<Holder>, Error>;
}

/// How the kernel knows a block device: the numbers that a device node carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceNumber {
    /// Which driver.
    pub major: u32,
    /// Which of its devices.
    pub minor: u32,
}

impl DeviceNumber {
    /// From the number that stat(2) gives.
    pub fn from_raw(raw: rustix::fs::Dev) -> Self {
        Self { major: rustix::fs::major(raw), minor: rustix::fs::minor(raw) }
    }

    /// As mknod(2) takes it.
    pub fn to_raw(self) -> rustix::fs::Dev {
        rustix::fs::makedev(self.major, self.minor)
    }
}

impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// A text that is not `major:minor`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a device number such as 259:3")]
pub struct NotADeviceNumber(String);

impl FromStr for DeviceNumber {
    type Err = NotADeviceNumber;

    fn from_str(text: &str) -> Result<Self, NotADeviceNumber> {
        let number = || {
            let (major, minor) = text.split_once(':')?;
            Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
        };
        number().ok_or_else(|| NotADeviceNumber(text.into()))
    }
}

/// A block device as sysfs gave it a moment ago. Whoever opens it compares the number: names are used again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its name in `/dev`, such as `nvme2n1`.
    pub name: String,
    /// Its number.
    pub number: DeviceNumber,
    /// Its size.
    pub size: Bytes,
    /// The subsystem it belongs to.
    pub nqn: Nqn,
}

impl Device {
    /// Its node in devtmpfs.
    pub fn path(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/dev/{}", self.name)
    }
}

/// A subsystem that the kernel knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subsystem {
    /// How it is connected. It is not [`Attachment::Absent`].
    pub attachment: Attachment,
    /// Where its controllers are connected to. Two arrays may export one NQN.
    pub portals: Vec<Portal>,
}

/// How a subsystem is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attachment {
    /// Nothing.
    Absent,
    /// All its controllers are gone, and something still holds the device that they served.
    Lost,
    /// It has a controller, and none that works now. The kernel tries again by itself; until then I/O waits.
    Connecting(Option<Device>),
    /// A controller works. The device is missing for the moment between connecting and scanning.
    Live(Option<Device>),
}

impl Attachment {
    /// The device, if there is one.
    pub fn device(&self) -> Option<&Device> {
        match self {
            Self::Absent | Self::Lost => None,
            Self::Connecting(device) | Self::Live(device) => device.as_ref(),
        }
    }
}

/// How far a repair may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// As far as nothing is lost that could be kept.
    Safe,
    /// Until the filesystem is whole again, though some of it may be lost.
    Thorough,
}

/// What sysfs says of a controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ControllerFacts {
    /// Its name now, such as `nvme3`.
    pub controller: String,
    /// The subsystem it is connected to.
    pub nqn: String,
    /// Its attributes, by the kernel's names.
    #[serde(flatten)]
    pub attributes: BTreeMap<&'static str, String>,
}

/// An NQN that carries the managed prefix. Only such a one is ever connected or disconnected: nodes may run from other
/// volumes of the same array.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ManagedNqn(Nqn);

/// An NQN that is not ours to touch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotManaged {
    /// It is nobody's of this driver.
    #[error(
        "{nqn} does not begin with the managed NQN prefix {prefix}, so it is neither connected nor disconnected: \
         correct the volume, or --managed-nqn-prefix"
    )]
    Foreign {
        /// The NQN.
        nqn: Nqn,
        /// What it should begin with.
        prefix: ManagedPrefix,
    },
    /// It is another volume's.
    #[error("{nqn} is not the NQN of volume {volume}: correct nqn in the volume's context")]
    OtherVolume {
        /// The NQN.
        nqn: Nqn,
        /// The volume it was given for.
        volume: VolumeId,
    },
}

impl ManagedNqn {
    /// The only way to one.
    pub fn new(prefix: &ManagedPrefix, nqn: Nqn) -> Result<Self, NotManaged> {
        if prefix.covers(&nqn) {
            Ok(Self(nqn))
        } else {
            Err(NotManaged::Foreign { nqn, prefix: prefix.clone() })
        }
    }

    /// Only of this volume, so that no call on one volume reaches another one's device.
    pub fn of_volume(prefix: &ManagedPrefix, nqn: Nqn, volume: &VolumeId) -> Result<Self, NotManaged> {
        let managed = Self::new(prefix, nqn)?;
        if prefix.is_of(&managed.0, volume) {
            Ok(managed)
        } else {
            Err(NotManaged::OtherVolume { nqn: managed.0, volume: volume.clone() })
        }
    }

    /// The NQN itself.
    pub fn as_nqn(&self) -> &Nqn {
        &self.0
    }
}

impl fmt::Display for ManagedNqn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who this machine is to an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Initiator {
    /// By this name the array admits it.
    pub nqn: HostNqn,
    /// Paired with the name: the kernel refuses one id with two names.
    pub id: HostId,
}

/// What to connect to, and how to hold on to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Which subsystem.
    pub nqn: ManagedNqn,
    /// Where it is exported.
    pub portal: Portal,
    /// What the kernel does when the connection breaks.
    pub reconnect: ReconnectPolicy,
}

/// What a connect did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connected {
    /// It made the connection.
    Newly,
    /// The connection was there already: it is somebody else's to undo.
    Already,
}
