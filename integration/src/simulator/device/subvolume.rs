//! `/disk/btrfs/subvolume`: subvolumes and snapshots of the pool.

use super::system::date_time;
use super::{Dialect, Item, State};
use crate::simulator::backend::{Access, Origin, Parent, PoolPath, Subvolume};
use crate::simulator::menus::Arguments;
use crate::simulator::script::{Failure, ItemId, Value};

pub(super) fn items(state: &State, pool: &str, dialect: Dialect) -> Result<Vec<Item>, Failure> {
    Ok(state.backend.subvolumes()?.iter().map(|subvolume| item(subvolume, pool, dialect)).collect())
}

/// The subvolume of this name, if there is one.
pub(super) fn called(state: &State, pool: &str, dialect: Dialect, name: &str) -> Result<Vec<Item>, Failure> {
    Ok(state.backend.subvolume(name)?.iter().map(|subvolume| item(subvolume, pool, dialect)).collect())
}

fn item(subvolume: &Subvolume, pool: &str, dialect: Dialect) -> Item {
    let parent = match &subvolume.snapshot_of {
        Some(Parent::Named(name)) => name.as_str(),
        Some(Parent::Gone) | None => "",
    };
    let properties = vec![
        ("fs", Value::text(pool)),
        ("name", Value::text(&subvolume.name)),
        ("parent", Value::text(parent)),
        ("read-only", Value::Bool(subvolume.access == Access::ReadOnly)),
        ("fullname", Value::text(&subvolume.name)),
        ("uuid", Value::text(&subvolume.uuid)),
        ("creation-time", Value::text(date_time(subvolume.created))),
        ("subvolume-id", Value::unsigned(subvolume.id)),
        ("generation", Value::unsigned(subvolume.generation)),
        ("snapshot", Value::Bool(subvolume.snapshot_of.is_some())),
        ("path", Value::text(format!("{pool}/{}", subvolume.name))),
    ];
    Item::new(ItemId(subvolume.id), properties).with_unset(dialect.unset)
}

pub(super) fn add(state: &mut State, pool: &str, arguments: &Arguments) -> Result<ItemId, Failure> {
    let fs = arguments.required("fs")?;
    let name = arguments.required("name")?;
    if fs != pool && fs != super::disk::POOL_SLOT {
        return Err(Failure::new("input does not match any value of fs"));
    }
    if name.contains('/') || PoolPath::new(name).is_none() {
        return Err(Failure::invalid("name"));
    }
    if state.backend.subvolume(name)?.is_some() {
        return Err(Failure::new("failure: already have such subvolume"));
    }
    let origin = match arguments.text("parent") {
        None => Origin::Empty,
        Some(parent) if state.backend.subvolume(parent)?.is_some() => Origin::SnapshotOf(parent),
        Some(_) => return Err(Failure::new("input does not match any value of parent")),
    };
    state.backend.create_subvolume(name, origin, access(arguments).unwrap_or(Access::ReadWrite))?;
    let made = state.backend.subvolume(name)?;
    made.map(|subvolume| ItemId(subvolume.id)).ok_or_else(Failure::no_such_item)
}

fn access(arguments: &Arguments) -> Option<Access> {
    arguments.yes("read-only").map(|yes| if yes { Access::ReadOnly } else { Access::ReadWrite })
}

pub(super) fn set(state: &mut State, id: ItemId, arguments: &Arguments) -> Result<(), Failure> {
    let name = name_of(state, id)?;
    if let Some(access) = access(arguments) {
        state.backend.set_access(&name, access)?;
    }
    Ok(())
}

/// Takes the files in it along, but not from under a disk.
pub(super) fn remove(state: &mut State, id: ItemId) -> Result<(), Failure> {
    let name = name_of(state, id)?;
    if state.uses(|disk| disk.file().is_some_and(|file| file.is_within(&name))) {
        return Err(Failure::new("failure: device or resource busy"));
    }
    Ok(state.backend.remove_subvolume(&name)?)
}

fn name_of(state: &State, id: ItemId) -> Result<String, Failure> {
    let mut subvolumes = state.backend.subvolumes()?.into_iter();
    let found = subvolumes.find(|subvolume| subvolume.id == id.0);
    found.map(|subvolume| subvolume.name).ok_or_else(Failure::no_such_item)
}
