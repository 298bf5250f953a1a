//! What RouterOS makes of an array: disks, subvolumes and files as items with properties, and its refusals.
//!
//! Commands read (`find`, `get`, `print`) by the items of a menu and write by `add`, `set` and `remove`.
//! The lock is held for one command, not for a script: scripts of several sessions interleave.

mod disk;
mod exports;
mod file;
mod item;
mod subvolume;
mod system;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::backend::{self, Backend, Capacity, Entry, Export, PoolPath, Subvolume};
use super::menus::{Arguments, Menu};
use super::script::{Failure, Globals, ItemId, Numbers};
use super::version::Version;

pub use disk::FileDisk;
pub(super) use item::Item;

/// What releases and devices differ in, without it being a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    /// The release that is played.
    pub version: Version,
    /// How `:serialize to=json` writes numbers.
    pub numbers: Numbers,
    /// What becomes of properties without a value.
    pub unset: Unset,
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

/// The simulated device.
pub(super) struct Device {
    dialect: Dialect,
    pool: String,
    max_sessions: usize,
    started: Mutex<Instant>,
    globals: Globals,
    state: Mutex<State>,
}

struct State {
    backend: Box<dyn Backend>,
    disks: BTreeMap<ItemId, FileDisk>,
    next_disk: u64,
    identity: String,
}

/// What stands in a command's way besides the state of the array.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Handicaps {
    /// Whether there is room.
    pub space: Space,
    /// Whether the user may change anything.
    pub policy: Policy,
    /// How far a script gets.
    pub reach: Reach,
}

/// How far a script gets before its session ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Reach {
    /// To its own end.
    #[default]
    End,
    /// Until so many of its commands have changed something.
    Changes(u32),
}

/// Whether files can be made and grown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Space {
    /// As far as the pool has room.
    #[default]
    AsItIs,
    /// Not one byte.
    Exhausted,
}

/// What the user's group may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Policy {
    /// `ssh,read,write`
    #[default]
    Write,
    /// `ssh,read`
    Read,
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
}

impl Device {
    /// A device whose one pool is `pool`; disks that the storage remembers are there and exported again.
    pub(super) fn new(
        backend: Box<dyn Backend>,
        pool: &str,
        dialect: Dialect,
        max_sessions: usize,
    ) -> Result<Self, backend::Error> {
        let mut state = State { backend, disks: BTreeMap::new(), next_disk: 1, identity: "rds".to_owned() };
        state.restore()?;
        Ok(Self {
            dialect,
            pool: pool.to_owned(),
            max_sessions,
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
        })
    }

    /// Writes to a file in place of a host.
    pub(super) fn write(&self, path: &PoolPath, content: u64) -> Result<(), backend::Error> {
        self.state().backend.write(path, content)
    }

    /// Ends all exports, as a device does that is switched off.
    pub(super) fn switch_off(&self) -> Result<(), backend::Error> {
        let mut state = self.state();
        state.backend.exports()?.iter().try_for_each(|export| state.backend.unexport(&export.nqn))
    }

    /// Exports again what its disks say, and knows nothing of scripts that ran before.
    pub(super) fn switch_on(&self) -> Result<(), backend::Error> {
        *self.started.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.globals.forget();
        let mut state = self.state();
        let offered = state.backend.exports()?;
        let missing: Vec<Export> = state.disks.values().filter_map(FileDisk::export).collect();
        missing
            .iter()
            .filter(|export| offered.iter().all(|other| other.nqn != export.nqn))
            .try_for_each(|export| state.backend.export(export))
    }

    fn uptime(&self) -> Duration {
        self.started.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// The name of the device, as prompts show it.
    pub(super) fn identity(&self) -> String {
        self.state().identity.clone()
    }
}

/// One script's access to the device.
pub(super) struct Session {
    device: Arc<Device>,
    handicaps: Handicaps,
    stop: CancellationToken,
    /// How many commands have changed something.
    changes: Cell<u32>,
}

impl Session {
    /// A session that ends when `stop` says so.
    pub(super) fn new(device: Arc<Device>, handicaps: Handicaps, stop: CancellationToken) -> Self {
        Self { device, handicaps, stop, changes: Cell::new(0) }
    }

    /// Whether the script must end now.
    pub(super) fn ended(&self) -> bool {
        let exhausted = match self.handicaps.reach {
            Reach::End => false,
            Reach::Changes(most) => self.changes.get() >= most,
        };
        exhausted || self.stop.is_cancelled()
    }

    /// Notes that a command has changed something.
    pub(super) fn changed(&self) {
        self.changes.set(self.changes.get() + 1);
    }

    /// The dialect of the device.
    pub(super) fn dialect(&self) -> Dialect {
        self.device.dialect
    }

    /// The variables that all scripts of the device share.
    pub(super) fn globals(&self) -> &Globals {
        &self.device.globals
    }

    /// The items of a menu at this moment.
    pub(super) fn items(&self, menu: Menu) -> Result<Vec<Item>, Failure> {
        let device = &self.device;
        match menu {
            Menu::Disk => disk::items(&device.state(), &device.pool, device.dialect),
            Menu::Subvolume => subvolume::items(&device.state(), &device.pool, device.dialect),
            Menu::File => file::items(&device.state(), &device.pool),
            Menu::Filesystem => Ok(system::filesystems(&device.pool)),
            Menu::Service => Ok(system::services(device.max_sessions)),
            Menu::Identity => Ok(system::identity(&device.state().identity)),
            Menu::Package => Ok(system::packages(device.dialect.version)),
            Menu::Resource => Ok(system::resource(device.dialect.version, device.uptime())),
        }
    }

    /// Makes an item.
    pub(super) fn add(&self, menu: Menu, arguments: &Arguments) -> Result<ItemId, Failure> {
        self.may_write()?;
        let device = &self.device;
        let mut state = device.state();
        match menu {
            Menu::Disk => {
                disk::add(&mut state, &device.pool, device.dialect.version, arguments, self.handicaps.space)
            }
            Menu::Subvolume => subvolume::add(&mut state, &device.pool, arguments),
            Menu::File => file::add(&mut state, &device.pool, arguments),
            Menu::Filesystem | Menu::Service | Menu::Identity | Menu::Package | Menu::Resource => {
                Err(Failure::new("failure: cannot add"))
            }
        }
    }

    /// Changes an item.
    pub(super) fn set(&self, menu: Menu, id: ItemId, arguments: &Arguments) -> Result<(), Failure> {
        self.may_write()?;
        let device = &self.device;
        let mut state = device.state();
        match menu {
            Menu::Disk => disk::set(&mut state, device.dialect.version, id, arguments, self.handicaps.space),
            Menu::Subvolume => subvolume::set(&mut state, id, arguments),
            Menu::Identity => {
                if let Some(name) = arguments.text("name") {
                    name.clone_into(&mut state.identity);
                }
                Ok(())
            }
            Menu::File | Menu::Filesystem | Menu::Service | Menu::Package | Menu::Resource => {
                Err(Failure::new("failure: cannot change"))
            }
        }
    }

    /// Removes an item.
    pub(super) fn remove(&self, menu: Menu, id: ItemId) -> Result<(), Failure> {
        self.may_write()?;
        let device = &self.device;
        let mut state = device.state();
        match menu {
            Menu::Disk => disk::remove(&mut state, id),
            Menu::Subvolume => subvolume::remove(&mut state, id),
            Menu::File => file::remove(&mut state, &device.pool, id),
            Menu::Filesystem | Menu::Service | Menu::Identity | Menu::Package | Menu::Resource => {
                Err(Failure::new("failure: cannot remove"))
            }
        }
    }

    fn may_write(&self) -> Result<(), Failure> {
        match self.handicaps.policy {
            Policy::Write => Ok(()),
            Policy::Read => Err(Failure::new("not enough permissions (9)")),
        }
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
        let disks: Vec<&FileDisk> = self.disks.values().collect();
        let settings = serde_json::to_string_pretty(&disks).expect("disks are plain data");
        self.backend.save_settings(&settings)
    }

    fn uses(&self, concerned: impl Fn(&FileDisk) -> bool) -> bool {
        self.disks.values().any(concerned)
    }
}
