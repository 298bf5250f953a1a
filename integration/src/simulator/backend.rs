//! What an array stores and exports, below anything RouterOS: subvolumes, files, NVMe/TCP exports.
//!
//! [`memory`] runs anywhere; [`linux`] has a btrfs and the kernel's own target. Names, refusals and item
//! numbers are the [`device`](super::device)'s, so that both behave alike at the console.

#[cfg(test)]
mod contract;
pub mod linux;
pub mod memory;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::SystemTime;

use serde::Serialize;

/// The storage of one array with one pool.
pub trait Backend: Send {
    /// Size of the pool and what is left of it.
    fn capacity(&self) -> Result<Capacity, Error>;

    /// All subvolumes below the pool's top.
    fn subvolumes(&self) -> Result<Vec<Subvolume>, Error>;
    /// One subvolume.
    fn subvolume(&self, name: &str) -> Result<Option<Subvolume>, Error> {
        Ok(self.subvolumes()?.into_iter().find(|subvolume| subvolume.name == name))
    }
    /// Makes a subvolume, empty or as a consistent copy of another.
    fn create_subvolume(&mut self, name: &str, origin: Origin<'_>, access: Access) -> Result<(), Error>;
    /// Lets a subvolume be written to, or no longer.
    fn set_access(&mut self, name: &str, access: Access) -> Result<(), Error>;
    /// Removes a subvolume with the files in it.
    fn remove_subvolume(&mut self, name: &str) -> Result<(), Error>;

    /// All files and directories of the pool, sorted by path.
    fn entries(&self) -> Result<Vec<Entry>, Error>;
    /// One file or directory.
    fn entry(&self, path: &PoolPath) -> Result<Option<Entry>, Error>;
    /// Makes a plain directory.
    fn create_directory(&mut self, path: &PoolPath) -> Result<(), Error>;
    /// Makes a file of so many zero bytes in an existing directory; refuses if it exists.
    fn create_file(&mut self, path: &PoolPath, size: u64) -> Result<(), Error>;
    /// Makes a file longer; a namespace on it tells its hosts.
    fn grow_file(&mut self, path: &PoolPath, size: u64) -> Result<(), Error>;
    /// Removes a file, or a directory that is empty.
    fn remove_file(&mut self, path: &PoolPath) -> Result<(), Error>;

    /// Writes a number to the beginning of a file, in place of a host that has it attached.
    fn write(&mut self, path: &PoolPath, content: u64) -> Result<(), Error>;

    /// What was done to a file since it was made, if this storage counts it.
    fn activity(&self, path: &PoolPath) -> Option<Activity>;
    /// The TCP connections of hosts to what is exported, if this storage sees any.
    fn connections(&self) -> Result<Vec<Connection>, Error>;

    /// What is exported now.
    fn exports(&self) -> Result<Vec<Export>, Error>;
    /// Offers a file as namespace 1 of a subsystem of its own.
    fn export(&mut self, export: &Export) -> Result<(), Error>;
    /// Takes a subsystem away, which cuts its hosts.
    fn unexport(&mut self, nqn: &str) -> Result<(), Error>;
    /// Changes who may connect; who is connected stays so.
    fn set_hosts(&mut self, nqn: &str, hosts: &Hosts) -> Result<(), Error>;

    /// What was last saved, if this storage outlives the program.
    fn saved_settings(&self) -> Result<Option<String>, Error>;
    /// Keeps the disks' settings where a restart finds them; writes them down only if there is such a place.
    fn save_settings(&mut self, settings: &dyn Fn() -> String) -> Result<(), Error>;
}

/// Bytes of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Capacity {
    /// All of it.
    pub size: u64,
    /// Not yet used.
    pub free: u64,
}

/// What was done to a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Activity {
    /// How often it was written to.
    pub writes: u64,
    /// How many bytes that were.
    pub written: u64,
}

/// A TCP connection of a host to this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Connection {
    /// The host's end.
    pub source: SocketAddr,
    /// This machine's end.
    pub destination: SocketAddr,
}

/// A btrfs subvolume directly below the pool's top.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Subvolume {
    /// Its directory's name.
    pub name: String,
    /// Its number within the filesystem; never used twice.
    pub id: u64,
    /// Its own UUID.
    pub uuid: String,
    /// Name of the subvolume it is a snapshot of, if that still exists; a lost parent has no name.
    pub snapshot_of: Option<Parent>,
    /// Whether it may be written to.
    pub access: Access,
    /// When it was made.
    #[serde(skip)]
    pub created: SystemTime,
    /// The filesystem's transaction that last changed it.
    pub generation: u64,
}

/// The source of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Parent {
    /// It still has this name.
    Named(String),
    /// It was removed.
    Gone,
}

/// What a new subvolume holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin<'name> {
    /// Nothing.
    Empty,
    /// What the named subvolume holds at this moment.
    SnapshotOf(&'name str),
}

/// Whether something may be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Reading and writing.
    ReadWrite,
    /// Reading only.
    ReadOnly,
}

/// A file or directory of the pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Where it is.
    pub path: PoolPath,
    /// What it is.
    #[serde(flatten)]
    pub kind: EntryKind,
    /// When it last changed.
    #[serde(skip)]
    pub modified: SystemTime,
}

/// What a directory entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum EntryKind {
    /// A directory, subvolumes among them.
    Directory,
    /// A file of so many bytes.
    File {
        /// Its length.
        size: u64,
        /// What [`Backend::write`] wrote last, where no real bytes are kept.
        #[serde(skip_serializing_if = "Option::is_none")]
        content: Option<u64>,
    },
}

/// One file offered to hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Export {
    /// Name of the subsystem.
    pub nqn: String,
    /// TCP port.
    pub port: u16,
    /// The file behind namespace 1.
    pub file: PoolPath,
    /// Who may connect.
    pub hosts: Hosts,
}

/// Who may connect to an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hosts {
    /// Everybody.
    Any,
    /// These host NQNs.
    Only(Vec<String>),
}

/// A path inside the pool without the pool's name, such as `pvc-x/disk.img`. It cannot leave the pool.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct PoolPath(String);

impl PoolPath {
    /// Reads a path relative to the pool; none if it has empty, `.` or `..` steps.
    pub fn new(path: &str) -> Option<Self> {
        let sound = |step: &str| !matches!(step, "" | "." | "..") && !step.contains('\0');
        path.split('/').all(sound).then(|| Self(path.to_owned()))
    }

    /// Reads an absolute path, whose first step is the pool's name and whose leading slash may be missing.
    pub fn within(pool: &str, path: &str) -> Option<Self> {
        let path = path.strip_prefix('/').unwrap_or(path);
        Self::new(path.strip_prefix(pool)?.strip_prefix('/')?)
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first step: for what lies in a subvolume, its name.
    pub fn first_step(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }

    /// The directory this is in; none directly below the pool's top.
    pub fn parent(&self) -> Option<Self> {
        self.0.rsplit_once('/').map(|(parent, _)| Self(parent.to_owned()))
    }

    /// Whether this lies in `directory` or is it.
    pub fn is_within(&self, directory: &str) -> bool {
        self.0.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl fmt::Display for PoolPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why the storage did not do as told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The thing or its directory does not exist.
    #[error("{0} does not exist")]
    Missing(String),
    /// The name is taken.
    #[error("{0} exists")]
    Exists(String),
    /// No room.
    #[error("the pool is full")]
    Full,
    /// Something in it is still there or in use.
    #[error("{0} is in use")]
    Busy(String),
    /// It lies in a read-only subvolume.
    #[error("{0} is read-only")]
    ReadOnly(String),
    /// The operating system refused.
    #[error("cannot {doing}")]
    System {
        /// What was tried.
        doing: String,
        /// Its answer.
        #[source]
        source: io::Error,
    },
    /// A program did not do its work.
    #[error("{program} failed: {output}")]
    Program {
        /// The program's command line.
        program: String,
        /// What it printed.
        output: String,
    },
}
