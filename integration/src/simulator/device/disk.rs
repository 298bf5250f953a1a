//! `/disk`: the pool, and disks that are files on it.

use serde::{Deserialize, Serialize};

use super::exports::{self, Step};
use super::{Dialect, Item, Lists, Space, State};
use crate::simulator::backend::{self, Activity, EntryKind, Export, Hosts, PoolPath};
use crate::simulator::menus::Arguments;
use crate::simulator::script::{Failure, ItemId, Value};
use crate::simulator::version::Version;

/// Releases from here on refuse slot names of more than 32 characters.
const SHORT_SLOTS: Version = Version::new(7, 24);
const LONGEST_SLOT: usize = 32;
/// The pool's own disk; file disks are numbered from 1.
const POOL: ItemId = ItemId(0);
pub(super) const POOL_SLOT: &str = "raid1";

/// A disk whose content is a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FileDisk {
    /// Its name.
    pub slot: String,
    /// The file, with the pool's name and a leading slash.
    pub file_path: String,
    /// Bytes.
    pub file_size: u64,
    /// Free text.
    pub comment: String,
    /// Whether the device itself mounts a filesystem that it finds on the disk.
    pub mount_filesystem: bool,
    /// Whether hosts may connect at all.
    pub nvme_tcp_export: bool,
    /// TCP port of the export.
    pub nvme_tcp_server_port: u16,
    /// The subsystem's name; if empty, the name is made from the slot.
    pub nvme_tcp_server_nqn: String,
    /// Host NQNs, separated by commas; if empty, any host may connect.
    pub nvme_tcp_server_allow_host_name: String,
}

impl FileDisk {
    fn new(slot: &str) -> Self {
        Self {
            slot: slot.to_owned(),
            file_path: String::new(),
            file_size: 0,
            comment: String::new(),
            mount_filesystem: true,
            nvme_tcp_export: false,
            nvme_tcp_server_port: 4420,
            nvme_tcp_server_nqn: String::new(),
            nvme_tcp_server_allow_host_name: String::new(),
        }
    }

    /// The NQN under which hosts find the disk.
    pub fn nqn(&self) -> String {
        if self.nvme_tcp_server_nqn.is_empty() {
            format!("nqn.2000-02.com.mikrotik:{}", self.slot)
        } else {
            self.nvme_tcp_server_nqn.clone()
        }
    }

    fn has_nqn(&self, nqn: &str) -> bool {
        if self.nvme_tcp_server_nqn.is_empty() { self.nqn() == nqn } else { self.nvme_tcp_server_nqn == nqn }
    }

    /// The file within the pool.
    pub(super) fn file(&self) -> Option<PoolPath> {
        let (_pool, path) = self.file_path.trim_start_matches('/').split_once('/')?;
        PoolPath::new(path)
    }

    /// The hosts that may connect; if there are none, any may.
    fn allowed(&self) -> impl Iterator<Item = &str> {
        self.nvme_tcp_server_allow_host_name.split(',').map(str::trim).filter(|host| !host.is_empty())
    }

    /// The same as the property that commands see.
    fn hosts(&self, lists: Lists) -> Value {
        match lists {
            Lists::Text => Value::text(&self.nvme_tcp_server_allow_host_name),
            Lists::Array => Value::list(self.allowed().map(Value::text)),
        }
    }

    /// What the target has to offer for this disk, if anything.
    pub(super) fn export(&self) -> Option<Export> {
        let hosts: Vec<String> = self.allowed().map(str::to_owned).collect();
        let hosts = if hosts.is_empty() { Hosts::Any } else { Hosts::Only(hosts) };
        let (nqn, port) = (self.nqn(), self.nvme_tcp_server_port);
        self.file().filter(|_| self.nvme_tcp_export).map(|file| Export { nqn, port, file, hosts })
    }

    fn apply(&mut self, arguments: &Arguments) {
        let text = |name: &str, setting: &mut String| {
            if let Some(given) = arguments.text(name) {
                given.clone_into(setting);
            }
        };
        text("slot", &mut self.slot);
        text("comment", &mut self.comment);
        text("nvme-tcp-server-nqn", &mut self.nvme_tcp_server_nqn);
        text("nvme-tcp-server-allow-host-name", &mut self.nvme_tcp_server_allow_host_name);
        self.mount_filesystem = arguments.yes("mount-filesystem").unwrap_or(self.mount_filesystem);
        self.nvme_tcp_export = arguments.yes("nvme-tcp-export").unwrap_or(self.nvme_tcp_export);
        let port = arguments.number("nvme-tcp-server-port").and_then(|port| u16::try_from(port).ok());
        self.nvme_tcp_server_port = port.unwrap_or(self.nvme_tcp_server_port);
        self.file_size = arguments.number("file-size").unwrap_or(self.file_size);
    }

    fn item(&self, id: ItemId, dialect: Dialect, activity: Option<Activity>) -> Item {
        let text = |text: &str| Value::text(text);
        let properties = vec![
            ("type", text("file")),
            ("slot", text(&self.slot)),
            ("slot-default", text("")),
            ("parent", text("")),
            ("comment", text(&self.comment)),
            ("fs", text("")),
            ("model", text(&self.file_path)),
            ("size", Value::unsigned(self.file_size)),
            ("mount-filesystem", Value::Bool(self.mount_filesystem)),
            ("mount-read-only", Value::Bool(false)),
            ("compress", Value::Bool(false)),
            ("sector-size", Value::Number(512)),
            ("raid-master", text("none")),
            ("nvme-tcp-export", Value::Bool(self.nvme_tcp_export)),
            ("nvme-tcp-server-port", Value::unsigned(self.nvme_tcp_server_port.into())),
            ("nvme-tcp-server-nqn", text(&self.nvme_tcp_server_nqn)),
            ("nvme-tcp-server-allow-host-name", self.hosts(dialect.lists)),
            ("iscsi-export", Value::Bool(false)),
            ("nfs-sharing", Value::Bool(false)),
            ("smb-sharing", Value::Bool(false)),
            ("media-sharing", Value::Bool(false)),
            ("media-interface", text("none")),
            ("swap", Value::Bool(false)),
            ("file-path", text(&self.file_path)),
            ("file-size", Value::unsigned(self.file_size)),
            ("file-offset", Value::Number(0)),
            ("block-device", Value::Bool(true)),
            ("mounted", Value::Bool(false)),
        ];
        let item = Item::new(id, properties).with_unset(dialect.unset);
        match activity {
            None => item,
            Some(Activity { writes, written }) => item.with_counters(vec![
                ("io-ops", Value::unsigned(writes)),
                ("io-errors", Value::Number(0)),
                ("read-ops", Value::Number(0)),
                ("read-bytes", Value::Number(0)),
                ("write-ops", Value::unsigned(writes)),
                ("write-bytes", Value::unsigned(written)),
                ("in-flight-ops", Value::Number(0)),
            ]),
        }
    }
}

pub(super) fn items(state: &State, pool: &str, dialect: Dialect) -> Result<Vec<Item>, Failure> {
    let files = state.disks.keys().filter_map(|id| item(state, *id, dialect));
    Ok(std::iter::once(pool_item(state, pool, dialect)?).chain(files).collect())
}

/// The disks with this slot.
pub(super) fn called(state: &State, pool: &str, dialect: Dialect, slot: &str) -> Result<Vec<Item>, Failure> {
    let found = state.disks.iter().filter(|(_, disk)| disk.slot == slot);
    let files = found.filter_map(|(id, _)| item(state, *id, dialect));
    let pool = if slot == POOL_SLOT { Some(pool_item(state, pool, dialect)?) } else { None };
    Ok(pool.into_iter().chain(files).collect())
}

/// A file disk.
pub(super) fn item(state: &State, id: ItemId, dialect: Dialect) -> Option<Item> {
    let disk = state.disks.get(&id)?;
    let activity = disk.file().and_then(|file| state.backend.activity(&file));
    Some(disk.item(id, dialect, activity))
}

fn pool_item(state: &State, pool: &str, dialect: Dialect) -> Result<Item, Failure> {
    let capacity = state.backend.capacity()?;
    Ok(Item::new(
        POOL,
        vec![
            ("type", Value::text("raid")),
            ("slot", Value::text(POOL_SLOT)),
            ("slot-default", Value::text("")),
            ("parent", Value::text("")),
            ("fs-label", Value::text(pool)),
            ("fs", Value::text("btrfs")),
            ("model", Value::text("RAID1 mirrored")),
            ("size", Value::unsigned(capacity.size)),
            ("free", Value::unsigned(capacity.free)),
            ("mount-point", Value::text(pool)),
            ("mount-filesystem", Value::Bool(true)),
            ("mount-read-only", Value::Bool(false)),
            ("compress", Value::Bool(false)),
            ("sector-size", Value::Number(512)),
            ("raid-master", Value::text("none")),
            ("state", Value::text("clean")),
            ("nvme-tcp-export", Value::Bool(false)),
            ("iscsi-export", Value::Bool(false)),
            ("nfs-sharing", Value::Bool(false)),
            ("smb-sharing", Value::Bool(false)),
            ("media-sharing", Value::Bool(false)),
            ("media-interface", Value::text("none")),
            ("swap", Value::Bool(false)),
            ("block-device", Value::Bool(true)),
            ("mounted", Value::Bool(true)),
        ],
    )
    .with_unset(dialect.unset))
}

pub(super) fn add(
    state: &mut State,
    pool: &str,
    version: Version,
    arguments: &Arguments,
    space: Space,
) -> Result<ItemId, Failure> {
    let mut disk = if let Some(source) = arguments.value("copy-from") {
        settings_of(state, source)?
    } else {
        arguments.required("type")?;
        arguments.required("file-path")?;
        FileDisk::new(arguments.required("slot")?)
    };
    let invalid_path = || Failure::invalid("file-path");
    let given_path = arguments.text("file-path").unwrap_or(&disk.file_path);
    let path = PoolPath::within(pool, given_path).ok_or_else(invalid_path)?;
    disk.file_path = format!("/{pool}/{path}");
    disk.apply(arguments);
    check(state, &disk, version, None)?;
    if state.uses(|other| other.file_path == disk.file_path) {
        return Err(Failure::new("failure: already have such file-path"));
    }

    let found = state.backend.entry(&path)?;
    let wanted = arguments.number("file-size");
    let copied = arguments.value("copy-from").map(|_| disk.file_size);
    let made = match found.map(|entry| entry.kind) {
        Some(EntryKind::Directory) => return Err(invalid_path()),
        None => {
            let size = wanted.or(copied).ok_or_else(|| Failure::missing("file-size"))?;
            room(space)?;
            state.backend.create_file(&path, size)?;
            Made::Now
        }
        // An item over an existing file takes the file as it is.
        Some(EntryKind::File { size, .. }) => {
            disk.file_size = size.max(wanted.unwrap_or(size));
            grow(state, &path, size, wanted.unwrap_or(size), space)?;
            Made::Before
        }
    };
    let exported = disk.export().map_or(Ok(()), |export| state.backend.export(&export));
    if let Err(error) = exported {
        if made == Made::Now {
            state.backend.remove_file(&path)?;
        }
        return Err(error.into());
    }
    let id = state.insert(disk);
    state.save()?;
    Ok(id)
}

/// The settings of another disk, the NQN among them and not one byte of its data, under the next free name.
fn settings_of(state: &State, source: &Value) -> Result<FileDisk, Failure> {
    let is_source = |id: &ItemId, disk: &FileDisk| {
        source.equals(&Value::Id(*id)) || source.equals(&Value::text(&disk.slot))
    };
    let found = state.disks.iter().find(|(id, disk)| is_source(id, disk));
    let (_, source) = found.ok_or_else(Failure::no_such_item)?;
    let mut names = (1..).map(|number: u64| format!("{}-{number}", source.slot));
    let slot = names.find(|name| !state.uses(|disk| disk.slot == *name)).ok_or_else(Failure::no_such_item)?;
    Ok(FileDisk { slot, ..source.clone() })
}

/// Whether a disk's file is older than the disk.
#[derive(PartialEq, Eq)]
enum Made {
    Now,
    Before,
}

pub(super) fn set(
    state: &mut State,
    version: Version,
    id: ItemId,
    arguments: &Arguments,
    space: Space,
) -> Result<(), Failure> {
    if id == POOL {
        return Err(Failure::new("failure: can not change the pool's disk while it is mounted"));
    }
    let before = state.disks.get(&id).cloned().ok_or_else(Failure::no_such_item)?;
    let mut after = before.clone();
    after.apply(arguments);
    check(state, &after, version, Some(id))?;
    if let Some(path) = after.file() {
        grow(state, &path, before.file_size, after.file_size, space)?;
        state.disks.insert(id, FileDisk { file_size: after.file_size, ..before.clone() });
    }
    let mut exported = Ok(());
    for step in exports::steps(before.export(), after.export()) {
        match step {
            Step::Unexport(nqn) => state.backend.unexport(&nqn)?,
            Step::SetHosts(nqn, hosts) => state.backend.set_hosts(&nqn, &hosts)?,
            // The old export is gone by now: the disk says so, and can be exported another time.
            Step::Export(export) => {
                exported = state.backend.export(&export);
                after.nvme_tcp_export = exported.is_ok();
            }
        }
    }
    state.disks.insert(id, after);
    state.save()?;
    Ok(exported?)
}

/// Forgets the disk and leaves its file.
pub(super) fn remove(state: &mut State, id: ItemId) -> Result<(), Failure> {
    if id == POOL {
        return Err(Failure::new("failure: can not remove the pool's disk while it is mounted"));
    }
    let disk = state.disks.get(&id).ok_or_else(Failure::no_such_item)?;
    if let Some(export) = disk.export() {
        state.backend.unexport(&export.nqn)?;
    }
    state.disks.remove(&id);
    Ok(state.save()?)
}

/// What must hold among all disks.
fn check(state: &State, disk: &FileDisk, version: Version, own: Option<ItemId>) -> Result<(), Failure> {
    if disk.slot.is_empty() || (version >= SHORT_SLOTS && disk.slot.chars().count() > LONGEST_SLOT) {
        return Err(Failure::invalid("slot"));
    }
    // NVMe limits names to 223 bytes; what is a file's name to the kernel's target cannot hold a slash.
    let is_name = |name: &str| name.len() <= 223 && !name.contains(['/', '\0']) && !name.starts_with('.');
    if !is_name(&disk.nqn()) {
        return Err(Failure::invalid("nvme-tcp-server-nqn"));
    }
    if !disk.nvme_tcp_server_allow_host_name.split(',').all(|host| is_name(host.trim())) {
        return Err(Failure::invalid("nvme-tcp-server-allow-host-name"));
    }
    let others = || state.disks.iter().filter(|(id, _)| Some(**id) != own).map(|(_, other)| other);
    if others().any(|other| other.slot == disk.slot) {
        return Err(Failure::new("failure: already have such slot"));
    }
    let nqn = disk.nqn();
    if disk.nvme_tcp_export && others().any(|other| other.nvme_tcp_export && other.has_nqn(&nqn)) {
        return Err(Failure::new("failure: already have such nvme-tcp-server-nqn"));
    }
    Ok(())
}

fn grow(state: &mut State, path: &PoolPath, from: u64, to: u64, space: Space) -> Result<(), Failure> {
    match to.cmp(&from) {
        std::cmp::Ordering::Less => Err(Failure::new("failure: file can not be made smaller")),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => {
            room(space)?;
            Ok(state.backend.grow_file(path, to)?)
        }
    }
}

fn room(space: Space) -> Result<(), Failure> {
    match space {
        Space::AsItIs => Ok(()),
        Space::Exhausted => Err(backend::Error::Full.into()),
    }
}
