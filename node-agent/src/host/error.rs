//! Why the machine did not do what it was asked to, and what that means to the caller.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rds_csi_api::{Bytes, Failure, FsType, HostNqn, Kind, Nqn, Portal};

use super::{Device, DeviceNumber, ManagedNqn, exec};

/// Why the machine did not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed, or a file of the kernel could not be read.
    #[error("cannot {doing} {}", path.display())]
    System {
        /// What was tried, such as `read`.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A file of the kernel has another form than known.
    #[error("{} has an unknown form: {text:?}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// What is in it.
        text: String,
    },
    /// The array does not answer at its portal.
    #[error(
        "the array does not answer at {portal}: check the storage network between this node and the array"
    )]
    Unreachable {
        /// Where it should.
        portal: Portal,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The array answers, and does not let this host connect.
    #[error(
        "the array at {portal} refused the connection to {nqn}: it does not export it, or not to host {initiator}; \
         the node's kernel log says which"
    )]
    Rejected {
        /// Which subsystem.
        nqn: ManagedNqn,
        /// Where.
        portal: Portal,
        /// As whom.
        initiator: HostNqn,
    },
    /// A subsystem has more than one namespace, so its device is not certain.
    #[error("{nqn} has several devices ({devices}): a volume is exported as exactly one namespace")]
    SeveralDevices {
        /// Which subsystem.
        nqn: Nqn,
        /// Their names.
        devices: String,
    },
    /// The device did not come.
    #[error("{nqn} has no working device after {} s: {state}", waited.as_secs())]
    NoDevice {
        /// Which subsystem.
        nqn: ManagedNqn,
        /// For how long we waited.
        waited: Duration,
        /// What was missing.
        state: &'static str,
    },
    /// The device did not grow.
    #[error(
        "{nqn} has {} after {} s, and {least} is asked for: {state}; if the array has resized its disk, look at the node's \
         kernel log, and try again",
        seen.map_or_else(|| "no working device".into(), |seen| seen.to_string()), waited.as_secs()
    )]
    NotGrown {
        /// Which subsystem.
        nqn: ManagedNqn,
        /// For how long we waited.
        waited: Duration,
        /// How large it should be.
        least: Bytes,
        /// How large it was when it was last seen.
        seen: Option<Bytes>,
        /// How it was connected at the end.
        state: &'static str,
    },
    /// The kernel still knows the subsystem.
    #[error("{nqn} is still known to the kernel {} s after its disconnect", waited.as_secs())]
    StillThere {
        /// Which subsystem.
        nqn: ManagedNqn,
        /// For how long we waited.
        waited: Duration,
    },
    /// Another device has the name now.
    #[error("{device} is no longer the device it was: it was {expected} and is {found}")]
    Renumbered {
        /// Its name.
        device: String,
        /// The number it had.
        expected: DeviceNumber,
        /// The number it has.
        found: DeviceNumber,
    },
    /// Another subsystem's device has the name now.
    #[error("{device} is no longer the device it was: it belonged to {expected} and belongs to {found}")]
    Reassigned {
        /// Its name.
        device: String,
        /// The subsystem it belonged to.
        expected: Nqn,
        /// The subsystem it belongs to.
        found: String,
    },
    /// Something uses it, says the kernel.
    #[error("{what} is in use, says the kernel")]
    Busy {
        /// The mount point or the device.
        what: String,
    },
    /// A mount whose device is there was to be taken away as one whose device is gone.
    #[error("the device {device} of the mount at {} is there, so the mount is not taken away by force", at.display())]
    Alive {
        /// Where it is mounted.
        at: PathBuf,
        /// What.
        device: DeviceNumber,
    },
    /// The filesystem would not mount with these options, as it does with one that it does not know.
    #[error(
        "{fs} on {device} does not mount with the flags {options:?}: correct mountOptions; the node's kernel log says \
         which flag it is, or what else is wrong",
        fs = fs.as_str()
    )]
    Options {
        /// The device.
        device: Device,
        /// As what.
        fs: FsType,
        /// What the filesystem was given, without what is for the mount alone.
        options: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The filesystem would not mount, as a damaged one does.
    #[error(
        "{fs} on {device} does not mount, as a damaged filesystem would not: see the node's kernel log; it is repaired \
         when it is staged for writing, and where that does not help, restore the volume from a snapshot or a backup",
        fs = fs.as_str()
    )]
    Unmountable {
        /// The device.
        device: Device,
        /// As what.
        fs: FsType,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A program could not be run to its end.
    #[error(transparent)]
    Program(#[from] exec::Error),
    /// A program said no.
    #[error("{program} on {device} failed with {status}: {output}")]
    Failed {
        /// Which program.
        program: &'static str,
        /// The device.
        device: Device,
        /// Its exit status.
        status: std::process::ExitStatus,
        /// What it printed.
        output: String,
    },
    /// The path leaves the kubelet directory by a symbolic link.
    #[error("{} does not stay within the kubelet directory: it has a symbolic link in it", .0.display())]
    Escapes(PathBuf),
}

impl Error {
    /// Whether a filesystem could not be made, repaired, mounted or bound.
    pub fn is_of_mount(&self) -> bool {
        match self {
            Self::Unmountable { .. } | Self::Options { .. } | Self::Failed { .. } => true,
            Self::System { doing, .. } => matches!(*doing, "mount at" | "bind to" | "remount read-only"),
            _ => false,
        }
    }

    /// For `map_err`: what was tried, and on what.
    pub(crate) fn system<E: Into<io::Error>>(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |source| Self::System { doing, path, source: source.into() }
    }
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::System { .. }
            | Self::Form { .. }
            | Self::Failed { .. }
            | Self::Renumbered { .. }
            | Self::Reassigned { .. } => Kind::Bug,
            Self::Unreachable { .. } => Kind::Unreachable,
            Self::Rejected { .. } | Self::Unmountable { .. } | Self::SeveralDevices { .. } => Kind::Refused,
            Self::NoDevice { .. } | Self::NotGrown { .. } | Self::StillThere { .. } => Kind::Unsure,
            Self::Busy { .. } | Self::Alive { .. } => Kind::InUse,
            Self::Program(error) => error.kind(),
            Self::Options { .. } | Self::Escapes(_) => Kind::Invalid,
        }
    }
}
