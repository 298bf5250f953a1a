//! Subvolumes by the `btrfs` tool: its calls to the kernel are not to be had without `unsafe` code.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use super::super::{Access, Error, Parent, Subvolume};
use super::run::run;
use super::system;

pub(super) fn create(path: &Path, access: Access) -> Result<(), Error> {
    run("btrfs", &[OsStr::new("subvolume"), OsStr::new("create"), path.as_os_str()])?;
    match access {
        Access::ReadWrite => Ok(()),
        Access::ReadOnly => set_access(path, access),
    }
}

pub(super) fn snapshot(source: &Path, path: &Path, access: Access) -> Result<(), Error> {
    let mut words = vec![OsStr::new("subvolume"), OsStr::new("snapshot")];
    if access == Access::ReadOnly {
        words.push(OsStr::new("-r"));
    }
    words.extend([source.as_os_str(), path.as_os_str()]);
    run("btrfs", &words).map(drop)
}

pub(super) fn delete(path: &Path) -> Result<(), Error> {
    let words = ["subvolume", "delete", "--commit-after"].map(OsStr::new);
    run("btrfs", &[&words[..], &[path.as_os_str()]].concat()).map(drop)
}

pub(super) fn set_access(path: &Path, access: Access) -> Result<(), Error> {
    let read_only = match access {
        Access::ReadOnly => "true",
        Access::ReadWrite => "false",
    };
    let words = [
        OsStr::new("property"),
        OsStr::new("set"),
        OsStr::new("-ts"),
        path.as_os_str(),
        OsStr::new("ro"),
        OsStr::new(read_only),
    ];
    run("btrfs", &words).map(drop)
}

/// The subvolumes directly below the top of the filesystem.
pub(super) fn list(pool: &Path) -> Result<Vec<Subvolume>, Error> {
    let listing = |options: &str| {
        run("btrfs", &[OsStr::new("subvolume"), OsStr::new("list"), OsStr::new(options), pool.as_os_str()])
    };
    let mut subvolumes = parse(&listing("-guq")?, &listing("-gr")?)?;
    for subvolume in &mut subvolumes {
        let made = fs::metadata(pool.join(&subvolume.name)).and_then(|metadata| metadata.created());
        subvolume.created = made.map_err(|error| system(format!("look at {}", subvolume.name), error))?;
    }
    Ok(subvolumes)
}

/// Reads `subvolume list -guq` for all and `subvolume list -gr` for those that are read-only.
pub(super) fn parse(all: &str, read_only: &str) -> Result<Vec<Subvolume>, Error> {
    let rows = all.lines().map(Row::parse).collect::<Result<Vec<_>, _>>()?;
    let read_only = read_only.lines().map(Row::parse).collect::<Result<Vec<_>, _>>()?;
    let read_only: HashSet<u64> = read_only.iter().map(|row| row.id).collect();
    let parent = |uuid: &str| {
        let source = rows.iter().find(|row| row.uuid == Some(uuid));
        source.map_or(Parent::Gone, |row| Parent::Named(row.path.to_owned()))
    };
    let subvolume = |row: &Row<'_>| Subvolume {
        name: row.path.to_owned(),
        id: row.id,
        uuid: row.uuid.unwrap_or_default().to_owned(),
        snapshot_of: row.parent_uuid.filter(|uuid| *uuid != "-").map(parent),
        access: if read_only.contains(&row.id) { Access::ReadOnly } else { Access::ReadWrite },
        created: std::time::SystemTime::UNIX_EPOCH,
        generation: row.generation,
    };
    Ok(rows.iter().filter(|row| !row.path.contains('/')).map(subvolume).collect())
}

/// `ID 257 gen 9 top level 5 parent_uuid - uuid 3a… path pvc-x`; which pairs there are depends on options.
struct Row<'line> {
    id: u64,
    generation: u64,
    parent_uuid: Option<&'line str>,
    uuid: Option<&'line str>,
    path: &'line str,
}

impl<'line> Row<'line> {
    fn parse(line: &'line str) -> Result<Self, Error> {
        let unknown = || Error::Program {
            program: "btrfs subvolume list".to_owned(),
            output: format!("not understood: {line:?}"),
        };
        let (pairs, path) = line.split_once(" path ").ok_or_else(unknown)?;
        let words: Vec<&str> = pairs.split_whitespace().collect();
        let after = |name: &str| {
            let at = words.iter().position(|word| *word == name)?;
            words.get(at + 1).copied()
        };
        let number = |name: &str| after(name).and_then(|word| word.parse().ok()).ok_or_else(unknown);
        Ok(Self {
            id: number("ID")?,
            generation: number("gen")?,
            parent_uuid: after("parent_uuid"),
            uuid: after("uuid"),
            path,
        })
    }
}
