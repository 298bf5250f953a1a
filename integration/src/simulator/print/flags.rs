//! The letters before an item, and their legend: only those that occur, or all if nothing does.

use crate::simulator::device::Item;
use crate::simulator::menus::Menu;
use crate::simulator::script::Value;

/// A property that is shown as a letter.
struct Flag {
    property: &'static str,
    letter: char,
    /// Flags of one place exclude each other.
    place: usize,
}

const fn flag(property: &'static str, letter: char, place: usize) -> Flag {
    Flag { property, letter, place }
}

const fn known(menu: Menu) -> &'static [Flag] {
    const DISABLED: Flag = flag("disabled", 'X', 0);
    match menu {
        Menu::Disk => {
            &const {
                [
                    flag("block-device", 'B', 0),
                    flag("mounted", 'M', 1),
                    flag("formatting", 'F', 1),
                    flag("nvme-tcp-export", 't', 2),
                ]
            }
        }
        Menu::Subvolume => &const { [flag("snapshot", 'S', 0), flag("read-only", 'r', 1)] },
        Menu::Service => &const { [DISABLED, flag("invalid", 'I', 0)] },
        Menu::Package => &const { [DISABLED] },
        Menu::User => &const { [DISABLED, flag("expired", 'E', 0)] },
        Menu::AddressList => &const { [DISABLED, flag("dynamic", 'D', 1)] },
        Menu::Raw => &const { [DISABLED, flag("invalid", 'I', 0), flag("dynamic", 'D', 1)] },
        Menu::File | Menu::Filesystem | Menu::Connection | Menu::Identity | Menu::Resource | Menu::Group => {
            &[]
        }
    }
}

/// The flags of a listing.
pub(super) struct Flags {
    menu: Menu,
    used: Vec<&'static Flag>,
}

impl Flags {
    /// The flags that these items need.
    pub(super) fn of(menu: Menu, items: &[Item]) -> Self {
        let occurs = |flag: &&Flag| items.is_empty() || items.iter().any(|item| flag.is_set(item));
        Self { menu, used: known(menu).iter().filter(occurs).collect() }
    }

    pub(super) fn legend(&self) -> Option<String> {
        let mut text = String::new();
        let mut place = None;
        for flag in &self.used {
            text += match place {
                None => "Flags: ",
                Some(before) if before == flag.place => ", ",
                Some(_) => "; ",
            };
            place = Some(flag.place);
            text.extend([flag.letter, ' ', '-', ' ']);
            text += &flag.property.to_uppercase();
        }
        (!text.is_empty()).then_some(text)
    }

    /// How many places there are.
    pub(super) fn width(&self) -> usize {
        self.used.chunk_by(|a, b| a.place == b.place).count()
    }

    /// The letters of an item, with a blank in each place where only others have one.
    pub(super) fn shown(&self, item: &Item) -> String {
        let places = self.used.chunk_by(|a, b| a.place == b.place);
        let letter =
            |place: &[&Flag]| place.iter().find(|flag| flag.is_set(item)).map_or(' ', |flag| flag.letter);
        places.map(letter).collect()
    }

    /// Whether a property has no other place than among the flags.
    pub(super) fn holds(&self, property: &str) -> bool {
        let settings = matches!(property, "nvme-tcp-export" | "read-only");
        !settings && known(self.menu).iter().any(|flag| flag.property == property)
    }
}

impl Flag {
    fn is_set(&self, item: &Item) -> bool {
        item.property(self.property) == Some(Value::Bool(true))
    }
}
