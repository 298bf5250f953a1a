//! `/file`: what lies in the pool. Names have no leading slash here, while `/disk` writes paths with one.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::system::date_time;
use super::{Item, State};
use crate::simulator::backend::{Entry, EntryKind, PoolPath};
use crate::simulator::menus::Arguments;
use crate::simulator::script::{Failure, ItemId, Value};

pub(super) fn items(state: &State, pool: &str) -> Result<Vec<Item>, Failure> {
    let top = Item::new(ItemId(1), vec![("name", Value::text(pool)), ("type", Value::text("disk"))]);
    let entries = state.backend.entries()?;
    Ok(std::iter::once(top).chain(entries.iter().map(|entry| item(pool, entry))).collect())
}

/// The file or directory of this name, if there is one.
pub(super) fn called(state: &State, pool: &str, name: &str) -> Result<Vec<Item>, Failure> {
    // A leading slash is no part of names here.
    let path = PoolPath::within(pool, name).filter(|_| !name.starts_with('/'));
    match path {
        Some(path) => Ok(state.backend.entry(&path)?.iter().map(|entry| item(pool, entry)).collect()),
        None => Ok(items(state, pool)?.into_iter().filter(|item| item.is_called(name)).collect()),
    }
}

fn item(pool: &str, entry: &Entry) -> Item {
    let mut properties = vec![("name", Value::text(format!("{pool}/{}", entry.path)))];
    match entry.kind {
        EntryKind::Directory => properties.push(("type", Value::text("directory"))),
        EntryKind::File { size, .. } => {
            properties.push(("type", Value::text("file")));
            properties.push(("size", Value::unsigned(size)));
        }
    }
    properties.push(("last-modified", Value::text(date_time(entry.modified))));
    Item::new(id(&entry.path), properties)
}

/// Files have no number of their own that lasts, so one is made from the path.
fn id(path: &PoolPath) -> ItemId {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    ItemId(hasher.finish() >> 32)
}

pub(super) fn add(state: &mut State, pool: &str, arguments: &Arguments) -> Result<ItemId, Failure> {
    let name = arguments.required("name")?;
    let invalid = || Failure::invalid("name");
    let path = PoolPath::within(pool, name).ok_or_else(invalid)?;
    match arguments.text("type") {
        Some("directory") => state.backend.create_directory(&path)?,
        Some(_) | None => state.backend.create_file(&path, 0)?,
    }
    Ok(id(&path))
}

pub(super) fn remove(state: &mut State, pool: &str, wanted: ItemId) -> Result<(), Failure> {
    let entries = state.backend.entries()?;
    let found = entries.iter().find(|entry| id(&entry.path) == wanted);
    let path = &found.ok_or_else(Failure::no_such_item)?.path;
    let absolute = format!("/{pool}/{path}");
    if state.uses(|disk| disk.file_path == absolute) {
        return Err(Failure::new("failure: file is in use"));
    }
    Ok(state.backend.remove_file(path)?)
}
