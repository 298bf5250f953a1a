//! The menus, commands and properties that the simulated RouterOS has, as the parser looks them up.
//!
//! What is not listed here is refused, as on the device. Names and releases are the vendor's documentation
//! and observed devices; values of properties are in [`device`](super::device).

mod tables;
pub(super) mod time;

use super::script::{Failure, Value};
use super::version::Version;

/// A menu that has commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Menu {
    /// `/disk`
    Disk,
    /// `/disk/btrfs/filesystem`
    Filesystem,
    /// `/disk/btrfs/subvolume`
    Subvolume,
    /// `/file`
    File,
    /// `/ip/firewall/address-list`
    AddressList,
    /// `/ip/firewall/connection`
    Connection,
    /// `/ip/firewall/raw`
    Raw,
    /// `/ip/service`
    Service,
    /// `/system/identity`
    Identity,
    /// `/system/package`
    Package,
    /// `/system/resource`
    Resource,
    /// `/user`
    User,
    /// `/user/group`
    Group,
}

/// What can be done in a menu.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Verb {
    /// Makes an item.
    Add,
    /// Changes items.
    Set,
    /// Removes items.
    Remove,
    /// Lists the ids of items that meet a condition.
    Find,
    /// Reads a property of one item.
    Get,
    /// Shows items.
    Print,
    /// Shows how much a disk reads and writes.
    MonitorTraffic,
}

/// Whether a menu holds a list or is one thing, whose `get` and `set` take no item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Items, each with an id.
    List,
    /// One nameless item.
    Single,
}

/// A named argument of `add`, `set` or `print`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parameter {
    /// As it is written before the `=`.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// The commands that take it.
    pub verbs: &'static [Verb],
    /// The first release that knows it.
    pub since: Version,
}

/// What a parameter takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Any text.
    Text,
    /// A number within bounds, both included.
    Number(i64, i64),
    /// Bytes, or a number with a binary suffix K, M, G or T.
    Size,
    /// `yes` or `no`.
    YesNo,
    /// A time such as `10m`, or a word for none.
    Time,
    /// One of some words.
    Choice(&'static [&'static str]),
    /// An item of the same menu.
    Item,
}

/// Everything the parser needs to know of a menu.
#[derive(Debug)]
struct Table {
    menu: Menu,
    path: &'static str,
    since: Version,
    shape: Shape,
    verbs: &'static [Verb],
    parameters: &'static [Parameter],
    /// Every property that `get`, `where` and `proplist=` accept.
    properties: &'static [&'static str],
}

impl Menu {
    fn table(self) -> &'static Table {
        tables::ALL.iter().find(|table| table.menu == self).expect("every menu has a table")
    }

    /// The menu's path without a leading slash, such as `disk/btrfs/subvolume`.
    pub(super) fn path(self) -> &'static str {
        self.table().path
    }

    /// Whether the menu is a list.
    pub(super) fn shape(self) -> Shape {
        self.table().shape
    }

    /// The command called `word`.
    pub(super) fn verb(self, word: &str) -> Option<Verb> {
        self.table().verbs.iter().copied().find(|verb| verb.name() == word)
    }

    /// The argument called `name` of this menu's command.
    pub(super) fn parameter(self, verb: Verb, name: &str, version: Version) -> Option<&'static Parameter> {
        let of_menu = self.table().parameters.iter();
        of_menu
            .chain(tables::PRINTING)
            .find(|known| known.name == name && known.verbs.contains(&verb) && known.since <= version)
    }

    /// The property by which items are called.
    pub(super) fn name_property(self) -> &'static str {
        match self {
            Self::Disk => "slot",
            _ => "name",
        }
    }

    /// The property called `name`.
    pub(super) fn property(self, name: &str) -> Option<&'static str> {
        self.table().properties.iter().copied().find(|property| *property == name)
    }
}

impl Verb {
    /// The word that is typed.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Set => "set",
            Self::Remove => "remove",
            Self::Find => "find",
            Self::Get => "get",
            Self::Print => "print",
            Self::MonitorTraffic => "monitor-traffic",
        }
    }

    /// A word without a value, such as `detail`, that this command takes.
    pub(super) fn flag(self, word: &str) -> Option<&'static str> {
        let flags: &[&'static str] = match self {
            Self::Print => &["as-value", "brief", "count-only", "detail", "stats", "without-paging"],
            Self::MonitorTraffic => &["as-value", "once"],
            Self::Add | Self::Set | Self::Remove | Self::Find | Self::Get => &[],
        };
        flags.iter().copied().find(|flag| *flag == word)
    }
}

/// Where in the tree of menus a command is looked up: a path without a leading slash, empty at the root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place(String);

impl Place {
    /// The place of a menu.
    pub(super) fn of(menu: Menu) -> Self {
        Self(menu.path().to_owned())
    }

    /// The place one step further, if the release has such a menu.
    pub(super) fn enter(&self, word: &str, version: Version) -> Option<Self> {
        let path = if self.0.is_empty() { word.to_owned() } else { format!("{}/{word}", self.0) };
        let inside = |table: &&Table| {
            let rest = table.path.strip_prefix(path.as_str());
            table.since <= version && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        tables::ALL.iter().find(inside).map(|_| Self(path.clone()))
    }

    /// The menu at this place; a place such as `disk/btrfs` has none.
    pub(super) fn menu(&self, version: Version) -> Option<Menu> {
        tables::ALL
            .iter()
            .find(|table| table.path == self.0 && table.since <= version)
            .map(|table| table.menu)
    }

    /// How a prompt shows the place.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Kind {
    /// The value as the command gets it, or none if it does not fit.
    pub(super) fn read(self, value: &Value) -> Option<Value> {
        match self {
            Self::Item => Some(value.clone()),
            Self::Text => match value {
                Value::Array(_) | Value::Code(_) => None,
                other => Some(Value::text(other.to_string())),
            },
            Self::Number(least, most) => {
                value.as_number().filter(|number| (least..=most).contains(number)).map(Value::Number)
            }
            Self::Size => value
                .as_number()
                .or_else(|| bytes(&value.to_string()))
                .filter(|bytes| *bytes >= 0)
                .map(Value::Number),
            Self::Time => {
                let text = value.to_string();
                let known =
                    time::read(&text).is_some() || matches!(text.as_str(), "none-static" | "none-dynamic");
                known.then_some(Value::Text(text))
            }
            Self::YesNo => value.as_bool().map(Value::Bool),
            Self::Choice(words) => {
                let text = value.to_string();
                words.contains(&text.as_str()).then_some(Value::Text(text))
            }
        }
    }
}

/// A number with a binary suffix: `50G` is 50 GiB.
fn bytes(text: &str) -> Option<i64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "K" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        "T" | "TiB" => 1_i64 << 40,
        _ => return None,
    };
    digits.parse::<i64>().ok()?.checked_mul(factor)
}

/// The named arguments of one command, each already of its parameter's kind.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Arguments(Vec<(&'static str, Value)>);

impl Arguments {
    /// Adds an argument; the parser has seen to it that none comes twice.
    pub(super) fn push(&mut self, parameter: &Parameter, value: Value) {
        self.0.push((parameter.name, value));
    }

    /// The argument called `name`.
    pub(super) fn value(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(given, _)| *given == name).map(|(_, value)| value)
    }

    /// A text argument.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.value(name) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// A text argument that the command cannot do without.
    pub(super) fn required(&self, name: &str) -> Result<&str, Failure> {
        self.text(name).ok_or_else(|| Failure::missing(name))
    }

    /// A number or size argument.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.value(name).and_then(Value::as_number).and_then(|number| u64::try_from(number).ok())
    }

    /// A yes-or-no argument.
    pub(super) fn yes(&self, name: &str) -> Option<bool> {
        self.value(name).and_then(Value::as_bool)
    }
}
