//! What every backend must do alike, or tests against memory would prove nothing about an array.

use super::{Access, Backend, EntryKind, Error, Origin, Parent, PoolPath};

/// Small, and still large enough for mkfs.btrfs.
pub(super) const POOL_SIZE: u64 = 512 << 20;

fn path(text: &str) -> PoolPath {
    PoolPath::new(text).unwrap()
}

fn paths(backend: &dyn Backend) -> Vec<String> {
    backend.entries().unwrap().into_iter().map(|entry| entry.path.to_string()).collect()
}

fn size(backend: &dyn Backend, wanted: &str) -> Option<u64> {
    let entries = backend.entries().unwrap();
    let found = entries.into_iter().find(|entry| entry.path.as_str() == wanted)?;
    match found.kind {
        EntryKind::File { size, .. } => Some(size),
        EntryKind::Directory => None,
    }
}

/// Subvolumes, snapshots and files. Ends with the snapshot `kept`, whose `disk.img` begins with a 7.
pub(super) fn storage(backend: &mut dyn Backend) {
    backend.create_subvolume("pvc-x", Origin::Empty, Access::ReadWrite).unwrap();
    let again = backend.create_subvolume("pvc-x", Origin::Empty, Access::ReadWrite);
    assert!(matches!(again, Err(Error::Exists(_))), "{again:?}");

    let disk = path("pvc-x/disk.img");
    backend.create_file(&disk, (1 << 20) + 1).unwrap();
    assert_eq!(size(backend, "pvc-x/disk.img"), Some((1 << 20) + 1), "sizes are exact to the byte");
    let alone = backend.entry(&disk).unwrap();
    assert_eq!(alone, backend.entries().unwrap().pop(), "one file is told of as among all");
    assert_eq!(backend.entry(&path("pvc-x/disk.img/below")).unwrap(), None);
    assert_eq!(backend.subvolume("pvc-x").unwrap(), backend.subvolumes().unwrap().pop());
    assert_eq!(backend.subvolume("pvc-y").unwrap(), None);
    assert!(matches!(backend.create_file(&disk, 1), Err(Error::Exists(_))));
    assert!(matches!(backend.create_file(&path("nowhere/disk.img"), 1), Err(Error::Missing(_))));

    let full = backend.create_file(&path("pvc-x/big.img"), 2 * POOL_SIZE);
    assert!(matches!(full, Err(Error::Full)), "{full:?}");
    assert_eq!(paths(backend), ["pvc-x", "pvc-x/disk.img"], "what did not fit leaves nothing behind");
    assert!(matches!(backend.grow_file(&disk, 2 * POOL_SIZE), Err(Error::Full)));

    backend.grow_file(&disk, 3 << 20).unwrap();
    assert_eq!(size(backend, "pvc-x/disk.img"), Some(3 << 20));

    backend.write(&disk, 7).unwrap();
    backend.create_subvolume("kept", Origin::SnapshotOf("pvc-x"), Access::ReadOnly).unwrap();
    backend.write(&disk, 8).unwrap();
    let frozen = path("kept/disk.img");
    assert!(matches!(backend.write(&frozen, 9), Err(Error::ReadOnly(_))));
    assert!(matches!(backend.remove_file(&frozen), Err(Error::ReadOnly(_))));
    assert!(matches!(backend.create_file(&path("kept/new.img"), 1), Err(Error::ReadOnly(_))));

    backend.create_subvolume("clone", Origin::SnapshotOf("kept"), Access::ReadWrite).unwrap();
    backend.write(&path("clone/disk.img"), 9).unwrap();
    let told = |backend: &dyn Backend| {
        let mut told = backend.subvolumes().unwrap();
        told.sort_by(|a, b| a.name.cmp(&b.name));
        let facts =
            told.into_iter().map(|subvolume| (subvolume.name, subvolume.snapshot_of, subvolume.access));
        facts.collect::<Vec<_>>()
    };
    let named = |name: &str| Some(Parent::Named(name.to_owned()));
    assert_eq!(
        told(backend),
        [
            ("clone".to_owned(), named("kept"), Access::ReadWrite),
            ("kept".to_owned(), named("pvc-x"), Access::ReadOnly),
            ("pvc-x".to_owned(), None, Access::ReadWrite),
        ]
    );

    backend.set_access("clone", Access::ReadOnly).unwrap();
    assert!(matches!(backend.write(&path("clone/disk.img"), 10), Err(Error::ReadOnly(_))));
    backend.remove_subvolume("clone").unwrap();
    backend.remove_subvolume("pvc-x").unwrap();
    assert_eq!(told(backend), [("kept".to_owned(), Some(Parent::Gone), Access::ReadOnly)]);

    backend.create_directory(&path("plain")).unwrap();
    backend.create_file(&path("plain/old.img"), 1 << 20).unwrap();
    assert!(matches!(backend.remove_file(&path("plain")), Err(Error::Busy(_))));
    backend.remove_file(&path("plain/old.img")).unwrap();
    backend.remove_file(&path("plain")).unwrap();
    assert!(matches!(backend.remove_file(&path("plain")), Err(Error::Missing(_))));
    assert_eq!(paths(backend), ["kept", "kept/disk.img"]);
}
