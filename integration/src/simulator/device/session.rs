//! One script's access to the device: the items of each menu, the commands that change them, and what stands in
//! their way.

use std::cell::Cell;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::{Device, Dialect, Item, disk, file, firewall, subvolume, system, users};
use crate::simulator::faults::Pause;
use crate::simulator::menus::{Arguments, Menu};
use crate::simulator::script::{Failure, Globals, ItemId};

/// What stands in a command's way besides the state of the array.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::simulator) struct Handicaps {
    /// Whether there is room.
    pub space: Space,
    /// Whether the user may change anything.
    pub policy: Policy,
    /// How far a script gets.
    pub reach: Reach,
}

/// How far a script gets before its session ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::simulator) enum Reach {
    /// To its own end.
    #[default]
    End,
    /// Until so many of its commands have changed something.
    Changes(u32),
}

/// Whether files can be made and grown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::simulator) enum Space {
    /// As far as the pool has room.
    #[default]
    AsItIs,
    /// Not one byte.
    Exhausted,
}

/// What the user's group may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::simulator) enum Policy {
    /// What the group is granted.
    #[default]
    AsGranted,
    /// `ssh,read`
    Read,
}

/// One script's access to the device.
pub(in crate::simulator) struct Session {
    device: Arc<Device>,
    handicaps: Handicaps,
    pause: Option<Pause>,
    stop: CancellationToken,
    /// How many commands have changed something.
    changes: Cell<u32>,
}

impl Session {
    /// A session that ends when `stop` says so.
    pub(in crate::simulator) fn new(
        device: Arc<Device>,
        handicaps: Handicaps,
        pause: Option<Pause>,
        stop: CancellationToken,
    ) -> Self {
        Self { device, handicaps, pause, stop, changes: Cell::new(0) }
    }

    /// Whether the script must end now.
    pub(in crate::simulator) fn ended(&self) -> bool {
        let exhausted = match self.handicaps.reach {
            Reach::End => false,
            Reach::Changes(most) => self.changes.get() >= most,
        };
        exhausted || self.stop.is_cancelled()
    }

    /// Waits if this script is to wait before what it changes next.
    pub(in crate::simulator) fn changing(&self) {
        if let Some(pause) = self.pause.as_ref().filter(|pause| pause.change == self.changes.get() + 1) {
            // A script has a thread of its own.
            Handle::current().block_on(async {
                tokio::select! {
                    () = pause.over() => {}
                    () = self.stop.cancelled() => {}
                }
            });
        }
    }

    /// Notes that a command has changed something.
    pub(in crate::simulator) fn changed(&self) {
        self.changes.set(self.changes.get() + 1);
    }

    /// The dialect of the device.
    pub(in crate::simulator) fn dialect(&self) -> Dialect {
        self.device.dialect
    }

    /// The variables that all scripts of the device share.
    pub(in crate::simulator) fn globals(&self) -> &Globals {
        &self.device.globals
    }

    /// The items of a menu at this moment.
    pub(in crate::simulator) fn items(&self, menu: Menu) -> Result<Vec<Item>, Failure> {
        let device = &self.device;
        if !device.allows("read") {
            return Err(Failure::not_permitted());
        }
        match menu {
            Menu::Disk => disk::items(&device.state(), &device.pool, device.dialect),
            Menu::Subvolume => subvolume::items(&device.state(), &device.pool, device.dialect),
            Menu::File => file::items(&device.state(), &device.pool),
            Menu::Filesystem => Ok(system::filesystems(&device.pool)),
            Menu::Service => Ok(system::services(device.max_sessions)),
            Menu::Identity => Ok(system::identity(&device.state().identity)),
            Menu::Package => Ok(system::packages(device.dialect.version)),
            Menu::Resource => Ok(system::resource(device.dialect.version, device.uptime())),
            Menu::User => Ok(users::users(&device.user)),
            Menu::Group => Ok(users::groups(&device.user)),
            Menu::AddressList => Ok(device.state().firewall.address_items()),
            Menu::Raw => Ok(device.state().firewall.rule_items()),
            Menu::Connection => {
                let state = device.state();
                let mut connections = state.firewall.connections.clone();
                connections.extend(state.backend.connections()?);
                Ok(firewall::connection_items(&connections))
            }
        }
    }

    /// Those of them that this is the name of: quickly, where there are many.
    pub(in crate::simulator) fn items_called(&self, menu: Menu, name: &str) -> Result<Vec<Item>, Failure> {
        let device = &self.device;
        match menu {
            _ if !device.allows("read") => Err(Failure::not_permitted()),
            Menu::Disk => disk::called(&device.state(), &device.pool, device.dialect, name),
            Menu::Subvolume => subvolume::called(&device.state(), &device.pool, device.dialect, name),
            Menu::File => file::called(&device.state(), &device.pool, name),
            _ => Ok(self.items(menu)?.into_iter().filter(|item| item.is_called(name)).collect()),
        }
    }

    /// The one of them with this id.
    pub(in crate::simulator) fn item(&self, menu: Menu, id: ItemId) -> Result<Item, Failure> {
        let device = &self.device;
        let known = match menu {
            _ if !device.allows("read") => return Err(Failure::not_permitted()),
            Menu::Disk => disk::item(&device.state(), id, device.dialect),
            _ => None,
        };
        match known {
            Some(item) => Ok(item),
            None => {
                self.items(menu)?.into_iter().find(|item| item.id == id).ok_or_else(Failure::no_such_item)
            }
        }
    }

    /// Makes an item.
    pub(in crate::simulator) fn add(&self, menu: Menu, arguments: &Arguments) -> Result<ItemId, Failure> {
        self.may_write()?;
        let device = &self.device;
        let mut state = device.state();
        match menu {
            Menu::Disk => {
                disk::add(&mut state, &device.pool, device.dialect.version, arguments, self.handicaps.space)
            }
            Menu::Subvolume => subvolume::add(&mut state, &device.pool, arguments),
            Menu::File => file::add(&mut state, &device.pool, arguments),
            Menu::AddressList => state.firewall.add_address(arguments),
            Menu::Raw => state.firewall.add_rule(arguments),
            Menu::Filesystem
            | Menu::Connection
            | Menu::Service
            | Menu::Identity
            | Menu::Package
            | Menu::Resource
            | Menu::User
            | Menu::Group => Err(Failure::new("failure: cannot add")),
        }
    }

    /// Changes an item.
    pub(in crate::simulator) fn set(
        &self,
        menu: Menu,
        id: ItemId,
        arguments: &Arguments,
    ) -> Result<(), Failure> {
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
            Menu::AddressList => state.firewall.set_address(id, arguments),
            Menu::Raw => state.firewall.set_rule(id, arguments),
            Menu::File
            | Menu::Filesystem
            | Menu::Connection
            | Menu::Service
            | Menu::Package
            | Menu::Resource
            | Menu::User
            | Menu::Group => Err(Failure::new("failure: cannot change")),
        }
    }

    /// Removes an item.
    pub(in crate::simulator) fn remove(&self, menu: Menu, id: ItemId) -> Result<(), Failure> {
        self.may_write()?;
        let device = &self.device;
        let mut state = device.state();
        match menu {
            Menu::Disk => disk::remove(&mut state, id),
            Menu::Subvolume => subvolume::remove(&mut state, id),
            Menu::File => file::remove(&mut state, &device.pool, id),
            Menu::AddressList => state.firewall.remove_address(id),
            Menu::Raw => state.firewall.remove_rule(id),
            Menu::Filesystem
            | Menu::Connection
            | Menu::Service
            | Menu::Identity
            | Menu::Package
            | Menu::Resource
            | Menu::User
            | Menu::Group => Err(Failure::new("failure: cannot remove")),
        }
    }

    fn may_write(&self) -> Result<(), Failure> {
        match self.handicaps.policy {
            Policy::AsGranted if self.device.allows("write") => Ok(()),
            Policy::AsGranted | Policy::Read => Err(Failure::not_permitted()),
        }
    }
}
