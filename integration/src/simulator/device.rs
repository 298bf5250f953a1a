//! What RouterOS makes of an array: disks, subvolumes and files as items with properties, and its refusals.
//!
//! Commands read (`find`, `get`, `print`) by the items of a menu and write by `add`, `set` and `remove`.
//! The lock is held for one command, not for a script: scripts of several sessions interleave.

mod disk;
mod exports;
mod file;
mod firewall;
mod item;
mod session;
mod subvolume;
mod system;
mod users;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::backend::{self, Backend, Capacity, Connection, Entry, Export, PoolPath, Subvolume};
use super::script::{Failure, Globals, ItemId, Numbers};
use super::version::Version;

pub use disk::FileDisk;
use firewall::Firewall;
pub use firewall::ListedAddress;
pub(super) use item::Item;
pub(super) use session::{Handicaps, Policy, Reach, Session, Space};
pub(super) use users::User;
pub use users::{Group, InvalidGroup};

/// What releases and devices differ in, without it being a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    /// The release that is played.
    pub version: Version,
    /// How `:serialize to=json` writes numbers.
    pub numbers: Numbers,
    /// What becomes of properties without a value.
    pub unset: Unset,
    /// How properties with several values are kept.
    pub lists: Lists,
}

/// A property without a value, such as a comment that nobody set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Unset {
    /// It is not listed.
    #[default]
    Absent,
    /// It is listed as an empty text.
    Empty,
}

/// A property with several values, such as the hosts that may connect to a disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Lists {
    /// One text, with commas between them.
    #[default]
    Text,
    /// An array, which no regular expression matches.
    Array,
}

/// The simulated device.
pub(super) struct Device {
    dialect: Dialect,
    pool: String,
    max_sessions: usize,
    user: User,
    started: Mutex<Instant>,
    globals: Globals,
    state: Mutex<State>,
}

struct State {
    backend: Box<dyn Backend>,
    disks: BTreeMap<ItemId, FileDisk>,
    next_disk: u64,
    identity: String,
    firewall: Firewall,
}

/// The whole array at one moment, for tests and for people.
#[derive(Debug, Clone, Serialize)]
pub struct ArrayState {
    /// Bytes of the pool.
    pub capacity: Capacity,
    /// The file disks, by slot.
    pub disks: Vec<FileDisk>,
    /// All subvolumes.
    pub subvolumes: Vec<Subvolume>,
    /// All files and directories.
    pub files: Vec<Entry>,
    /// What the target offers; what a disk says should agree with it.
    pub exports: Vec<Export>,
    /// The addresses on the firewall's lists.
    pub addresses: Vec<ListedAddress>,
}

impl Device {
    /// A device whose one pool is `pool`; disks that the storage remembers are there and exported again.
    pub(super) fn new(
        backend: Box<dyn Backend>,
        pool: &str,
        dialect: Dialect,
        max_sessions: usize,
        user: User,
    ) -> Result<Self, backend::Error> {
        let mut state = State {
            backend,
            disks: BTreeMap::new(),
            next_disk: 1,
            identity: "rds".to_owned(),
            firewall: Firewall::default(),
        };
        state.restore()?;
        Ok(Self {
            dialect,
            pool: pool.to_owned(),
            max_sessions,
            user,
            started: Mutex::new(Instant::now()),
            globals: Globals::default(),
            state: Mutex::new(state),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic in one command is a bug of the simulator; the other sessions may still look around.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The array as it is now.
    pub(super) fn array_state(&self) -> Result<ArrayState, backend::Error> {
        let state = self.state();
        let mut disks: Vec<FileDisk> = state.disks.values().cloned().collect();
        disks.sort_by(|a, b| a.slot.cmp(&b.slot));
        Ok(ArrayState {
            capacity: state.backend.capacity()?,
            disks,
            subvolumes: state.backend.subvolumes()?,
            files: state.backend.entries()?,
            exports: state.backend.exports()?,
            addresses: state.firewall.listed(),
        })
    }

    /// Writes to a file in place of a host.
    pub(super) fn write(&self, path: &PoolPath, content: u64) -> Result<(), backend::Error> {
        self.state().backend.write(path, content)
    }

    /// Removes something with all that is in it, whatever uses it.
    pub(super) fn lose(&self, path: &PoolPath) -> Result<(), backend::Error> {
        let mut state = self.state();
        if state.backend.subvolume(path.as_str())?.is_some() {
            return state.backend.remove_subvolume(path.as_str());
        }
        let entries = state.backend.entries()?.into_iter().map(|entry| entry.path);
        // What is deepest goes first.
        let mut lost: Vec<_> = entries.filter(|entry| entry.is_within(path.as_str())).collect();
        lost.sort_by(|a, b| b.cmp(a));
        if lost.is_empty() {
            return Err(backend::Error::Missing(path.to_string()));
        }
        lost.iter().try_for_each(|path| state.backend.remove_file(path))
    }

    /// Lets a connection be among those that are tracked.
    pub(super) fn connected(&self, connection: Connection) {
        self.state().firewall.connections.push(connection);
    }

    /// Forgets the tracked connections from this address.
    pub(super) fn disconnected(&self, source: IpAddr) {
        self.state().firewall.connections.retain(|connection| connection.source.ip() != source);
    }

    /// Whether the user may do what needs this policy.
    pub(super) fn allows(&self, policy: &str) -> bool {
        self.user.group.allows(policy)
    }

    /// Ends all exports, as a device does that is switched off.
    pub(super) fn switch_off(&self) -> Result<(), backend::Error> {
        let mut state = self.state();
        state.backend.exports()?.iter().try_for_each(|export| state.backend.unexport(&export.nqn))
    }

    /// Exports again what its disks say, as far as their files are there, and knows nothing of scripts that ran before.
    pub(super) fn switch_on(&self) -> Result<(), backend::Error> {
        *self.started.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.globals.forget();
        let mut state = self.state();
        state.firewall.reboot();
        let offered = state.backend.exports()?;
        let missing: Vec<Export> = state.disks.values().filter_map(FileDisk::export).collect();
        for export in missing.iter().filter(|export| offered.iter().all(|other| other.nqn != export.nqn)) {
            if state.backend.entry(&export.file)?.is_some() {
                state.backend.export(export)?;
            }
        }
        Ok(())
    }

    fn uptime(&self) -> Duration {
        self.started.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// The name of the device, as prompts show it.
    pub(super) fn identity(&self) -> String {
        self.state().identity.clone()
    }
}

/// The device's words for what the storage could not do.
impl From<backend::Error> for Failure {
    fn from(error: backend::Error) -> Self {
        use backend::Error;
        match &error {
            Error::Full => Self::new("failure: not enough space"),
            Error::Missing(_) => Self::new("failure: no such file or directory"),
            Error::Exists(_) => Self::new("failure: already have such file"),
            Error::Busy(_) => Self::new("failure: device or resource busy"),
            Error::ReadOnly(_) => Self::new("failure: read-only file system"),
            Error::System { source, .. } => {
                tracing::warn!(%error, %source, "the storage refused");
                Self::new(format!("failure: {error}: {source}"))
            }
            Error::Program { .. } => {
                tracing::warn!(%error, "the storage refused");
                Self::new(format!("failure: {error}"))
            }
        }
    }
}

impl State {
    /// Takes up what the storage remembers of an earlier life.
    fn restore(&mut self) -> Result<(), backend::Error> {
        let Some(saved) = self.backend.saved_settings()? else { return Ok(()) };
        let disks: Vec<FileDisk> = serde_json::from_str(&saved).map_err(|error| backend::Error::System {
            doing: "read the saved settings of the disks".to_owned(),
            source: error.into(),
        })?;
        for disk in disks {
            if let Some(export) = disk.export() {
                self.backend.export(&export)?;
            }
            self.insert(disk);
        }
        Ok(())
    }

    fn insert(&mut self, disk: FileDisk) -> ItemId {
        let id = ItemId(self.next_disk);
        self.next_disk += 1;
        self.disks.insert(id, disk);
        id
    }

    fn save(&mut self) -> Result<(), backend::Error> {
        let disks = &self.disks;
        self.backend.save_settings(&|| {
            let disks: Vec<&FileDisk> = disks.values().collect();
            serde_json::to_string_pretty(&disks).expect("disks are plain data")
        })
    }

    fn uses(&self, concerned: impl Fn(&FileDisk) -> bool) -> bool {
        self.disks.values().any(concerned)
    }
}
