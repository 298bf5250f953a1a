//! A pool that exists only in memory. Files have no bytes, but a number that stands for their content, so
//! that a snapshot can be told from what its source became later; they share blocks until one is written.

use std::collections::BTreeMap;
use std::time::SystemTime;

use uuid::Uuid;

use super::{
    Access, Activity, Backend, Capacity, Connection, Entry, EntryKind, Error, Export, Hosts, Origin, Parent,
    PoolPath, Subvolume,
};

/// An array in memory.
#[derive(Debug)]
pub struct Memory {
    size: u64,
    subvolumes: BTreeMap<String, Subvolume>,
    nodes: BTreeMap<PoolPath, Node>,
    exports: BTreeMap<String, Export>,
    /// Files that were written to.
    activity: BTreeMap<PoolPath, Activity>,
    /// Source of subvolume ids and of blocks: none is used twice.
    counter: u64,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    kind: NodeKind,
    modified: SystemTime,
}

#[derive(Debug, Clone, Copy)]
enum NodeKind {
    Directory,
    File {
        size: u64,
        content: u64,
        /// Files with the same blocks are copies of each other and cost space once.
        blocks: u64,
    },
}

impl Memory {
    /// An empty pool of `size` bytes.
    pub fn new(size: u64) -> Self {
        // btrfs numbers its subvolumes from 256 on.
        Self {
            size,
            subvolumes: BTreeMap::new(),
            nodes: BTreeMap::new(),
            exports: BTreeMap::new(),
            activity: BTreeMap::new(),
            counter: 255,
        }
    }

    fn count(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    fn writable(&self, path: &PoolPath) -> Result<(), Error> {
        match self.subvolumes.get(path.first_step()) {
            Some(Subvolume { access: Access::ReadOnly, .. }) => Err(Error::ReadOnly(path.to_string())),
            Some(_) | None => Ok(()),
        }
    }

    fn insert(&mut self, path: &PoolPath, kind: NodeKind) -> Result<(), Error> {
        if let Some(parent) = path.parent() {
            match self.nodes.get(&parent).map(|node| node.kind) {
                Some(NodeKind::Directory) => self.writable(path)?,
                Some(NodeKind::File { .. }) | None => return Err(Error::Missing(parent.to_string())),
            }
        }
        if self.nodes.contains_key(path) {
            return Err(Error::Exists(path.to_string()));
        }
        self.nodes.insert(path.clone(), Node { kind, modified: SystemTime::now() });
        Ok(())
    }

    /// A file that may be written to: its size, content and blocks.
    fn file(&mut self, path: &PoolPath) -> Result<(&mut u64, &mut u64, &mut u64), Error> {
        self.writable(path)?;
        match self.nodes.get_mut(path).map(|node| &mut node.kind) {
            Some(NodeKind::File { size, content, blocks }) => Ok((size, content, blocks)),
            Some(NodeKind::Directory) | None => Err(Error::Missing(path.to_string())),
        }
    }

    fn known(&mut self, name: &str) -> Result<&mut Subvolume, Error> {
        self.subvolumes.get_mut(name).ok_or_else(|| Error::Missing(name.to_owned()))
    }

    fn exported(&mut self, nqn: &str) -> Result<&mut Export, Error> {
        self.exports.get_mut(nqn).ok_or_else(|| Error::Missing(nqn.to_owned()))
    }

    fn free(&self) -> u64 {
        let mut sizes = BTreeMap::new();
        for node in self.nodes.values() {
            if let NodeKind::File { size, blocks, .. } = node.kind {
                let largest = sizes.entry(blocks).or_insert(0);
                *largest = size.max(*largest);
            }
        }
        self.size.saturating_sub(sizes.values().sum())
    }
}

impl Backend for Memory {
    fn capacity(&self) -> Result<Capacity, Error> {
        Ok(Capacity { size: self.size, free: self.free() })
    }

    fn subvolumes(&self) -> Result<Vec<Subvolume>, Error> {
        Ok(self.subvolumes.values().cloned().collect())
    }

    fn subvolume(&self, name: &str) -> Result<Option<Subvolume>, Error> {
        Ok(self.subvolumes.get(name).cloned())
    }

    fn create_subvolume(&mut self, name: &str, origin: Origin<'_>, access: Access) -> Result<(), Error> {
        let directory = PoolPath::new(name).ok_or_else(|| Error::Missing(name.to_owned()))?;
        if let Origin::SnapshotOf(source) = origin {
            self.known(source)?;
        }
        self.insert(&directory, NodeKind::Directory)?;
        let snapshot_of = match origin {
            Origin::Empty => None,
            Origin::SnapshotOf(source) => {
                let inside = self.nodes.iter().filter_map(|(path, node)| {
                    let rest = path.as_str().strip_prefix(source)?.strip_prefix('/')?;
                    Some((PoolPath::new(&format!("{name}/{rest}"))?, *node))
                });
                let copies: Vec<_> = inside.collect();
                self.nodes.extend(copies);
                Some(Parent::Named(source.to_owned()))
            }
        };
        let id = self.count();
        let subvolume = Subvolume {
            name: name.to_owned(),
            id,
            uuid: Uuid::new_v4().to_string(),
            snapshot_of,
            access,
            created: SystemTime::now(),
            generation: id,
        };
        self.subvolumes.insert(name.to_owned(), subvolume);
        Ok(())
    }

    fn set_access(&mut self, name: &str, access: Access) -> Result<(), Error> {
        self.known(name)?.access = access;
        Ok(())
    }

    fn remove_subvolume(&mut self, name: &str) -> Result<(), Error> {
        self.known(name)?;
        self.subvolumes.remove(name);
        self.nodes.retain(|path, _| !path.is_within(name));
        self.activity.retain(|path, _| !path.is_within(name));
        for subvolume in self.subvolumes.values_mut() {
            if subvolume.snapshot_of == Some(Parent::Named(name.to_owned())) {
                subvolume.snapshot_of = Some(Parent::Gone);
            }
        }
        Ok(())
    }

    fn entries(&self) -> Result<Vec<Entry>, Error> {
        Ok(self.nodes.iter().map(entry).collect())
    }

    fn entry(&self, path: &PoolPath) -> Result<Option<Entry>, Error> {
        Ok(self.nodes.get_key_value(path).map(entry))
    }

    fn create_directory(&mut self, path: &PoolPath) -> Result<(), Error> {
        self.insert(path, NodeKind::Directory)
    }

    fn create_file(&mut self, path: &PoolPath, size: u64) -> Result<(), Error> {
        if size > self.free() {
            return Err(Error::Full);
        }
        let blocks = self.count();
        self.insert(path, NodeKind::File { size, content: 0, blocks })
    }

    fn grow_file(&mut self, path: &PoolPath, larger: u64) -> Result<(), Error> {
        let free = self.free();
        let (size, ..) = self.file(path)?;
        if larger.saturating_sub(*size) > free {
            return Err(Error::Full);
        }
        *size = larger;
        Ok(())
    }

    fn remove_file(&mut self, path: &PoolPath) -> Result<(), Error> {
        self.writable(path)?;
        let inside = |other: &PoolPath| other != path && other.is_within(path.as_str());
        if self.subvolumes.contains_key(path.as_str()) || self.nodes.keys().any(inside) {
            return Err(Error::Busy(path.to_string()));
        }
        self.activity.remove(path);
        self.nodes.remove(path).map(drop).ok_or_else(|| Error::Missing(path.to_string()))
    }

    fn write(&mut self, path: &PoolPath, written: u64) -> Result<(), Error> {
        let next = self.count();
        let (_, content, blocks) = self.file(path)?;
        (*content, *blocks) = (written, next);
        let activity = self.activity.entry(path.clone()).or_default();
        activity.writes += 1;
        activity.written += u64::from(u64::BITS / 8);
        Ok(())
    }

    fn activity(&self, path: &PoolPath) -> Option<Activity> {
        Some(self.activity.get(path).copied().unwrap_or_default())
    }

    fn connections(&self) -> Result<Vec<Connection>, Error> {
        Ok(Vec::new())
    }

    fn exports(&self) -> Result<Vec<Export>, Error> {
        Ok(self.exports.values().cloned().collect())
    }

    fn export(&mut self, export: &Export) -> Result<(), Error> {
        self.file(&export.file)?;
        if self.exports.contains_key(&export.nqn) {
            return Err(Error::Exists(export.nqn.clone()));
        }
        self.exports.insert(export.nqn.clone(), export.clone());
        Ok(())
    }

    fn unexport(&mut self, nqn: &str) -> Result<(), Error> {
        self.exported(nqn)?;
        self.exports.remove(nqn);
        Ok(())
    }

    fn set_hosts(&mut self, nqn: &str, hosts: &Hosts) -> Result<(), Error> {
        self.exported(nqn)?.hosts = hosts.clone();
        Ok(())
    }

    fn saved_settings(&self) -> Result<Option<String>, Error> {
        Ok(None)
    }

    fn save_settings(&mut self, _settings: &dyn Fn() -> String) -> Result<(), Error> {
        Ok(())
    }
}

fn entry((path, node): (&PoolPath, &Node)) -> Entry {
    let kind = match node.kind {
        NodeKind::Directory => EntryKind::Directory,
        NodeKind::File { size, content, .. } => EntryKind::File { size, content: Some(content) },
    };
    Entry { path: path.clone(), kind, modified: node.modified }
}

#[cfg(test)]
mod tests {
    use super::super::contract;
    use super::*;

    #[test]
    fn memory_keeps_the_contract_of_storage() {
        let mut memory = Memory::new(contract::POOL_SIZE);
        contract::storage(&mut memory);
        let disk = &memory.entries().unwrap()[1];
        assert_eq!(disk.kind, EntryKind::File { size: 3 << 20, content: Some(7) });
    }

    #[test]
    fn copies_cost_space_only_once_they_are_written_to() {
        let mut memory = Memory::new(100);
        memory.create_subvolume("a", Origin::Empty, Access::ReadWrite).unwrap();
        memory.create_file(&PoolPath::new("a/disk.img").unwrap(), 40).unwrap();
        memory.create_subvolume("b", Origin::SnapshotOf("a"), Access::ReadWrite).unwrap();
        assert_eq!(memory.capacity().unwrap().free, 60);
        memory.write(&PoolPath::new("b/disk.img").unwrap(), 1).unwrap();
        assert_eq!(memory.capacity().unwrap().free, 20);
        memory.remove_subvolume("a").unwrap();
        assert_eq!(memory.capacity().unwrap().free, 60);
    }
}
