//! The tables behind [`Menu`]: one per menu.

use super::{Kind, Menu, Parameter, Shape, Table, Verb};
use crate::simulator::version::Version;

use Verb::{Add, Find, Get, MonitorTraffic, Print, Remove, Set};

/// Older than anything a file-backed disk needs.
const ALWAYS: Version = Version::new(7, 0);
/// `/disk add type=file`, `mount-filesystem` and `/disk/btrfs/filesystem`.
const FILE_DISKS: Version = Version::new(7, 17);
/// `/disk/btrfs/subvolume`.
const SUBVOLUMES: Version = Version::new(7, 18);
/// `nvme-tcp-server-nqn`.
const FREE_NQNS: Version = Version::new(7, 21);

const READ_ONLY_LIST: &[Verb] = &[Find, Get, Print];

const fn on(verbs: &'static [Verb], name: &'static str, kind: Kind, since: Version) -> Parameter {
    Parameter { name, kind, verbs, since }
}

/// Arguments of every menu's `print`.
pub(super) const PRINTING: &[Parameter] = &[on(&[Print], "proplist", Kind::Text, ALWAYS)];

pub(super) const ALL: &[Table] = &[
    Table {
        menu: Menu::Disk,
        path: "disk",
        since: ALWAYS,
        shape: Shape::List,
        verbs: &[Add, Set, Remove, Find, Get, Print, MonitorTraffic],
        parameters: &[
            on(&[Add], "type", Kind::Choice(&["file"]), FILE_DISKS),
            on(&[Add], "copy-from", Kind::Item, ALWAYS),
            on(&[Add], "file-path", Kind::Text, FILE_DISKS),
            on(&[Add, Set], "file-size", Kind::Size, FILE_DISKS),
            on(&[Add, Set], "slot", Kind::Text, ALWAYS),
            on(&[Add, Set], "comment", Kind::Text, ALWAYS),
            on(&[Add, Set], "mount-filesystem", Kind::YesNo, FILE_DISKS),
            on(&[Add, Set], "nvme-tcp-export", Kind::YesNo, ALWAYS),
            on(&[Add, Set], "nvme-tcp-server-port", Kind::Number(1, 65535), ALWAYS),
            on(&[Add, Set], "nvme-tcp-server-nqn", Kind::Text, FREE_NQNS),
            on(&[Add, Set], "nvme-tcp-server-allow-host-name", Kind::Text, ALWAYS),
        ],
        properties: &[
            ".id",
            "block-device",
            "comment",
            "compress",
            "file-offset",
            "file-path",
            "file-size",
            "free",
            "fs",
            "fs-label",
            "iscsi-export",
            "media-interface",
            "media-sharing",
            "model",
            "mount-filesystem",
            "mount-point",
            "mount-read-only",
            "mounted",
            "nfs-sharing",
            "nvme-tcp-export",
            "nvme-tcp-server-allow-host-name",
            "nvme-tcp-server-nqn",
            "nvme-tcp-server-port",
            "parent",
            "raid-master",
            "sector-size",
            "size",
            "slot",
            "slot-default",
            "smb-sharing",
            "swap",
            "type",
        ],
    },
    Table {
        menu: Menu::Filesystem,
        path: "disk/btrfs/filesystem",
        since: FILE_DISKS,
        shape: Shape::List,
        verbs: READ_ONLY_LIST,
        parameters: &[],
        properties: &[".id", "label", "present-devs", "uuid"],
    },
    Table {
        menu: Menu::Subvolume,
        path: "disk/btrfs/subvolume",
        since: SUBVOLUMES,
        shape: Shape::List,
        verbs: &[Add, Set, Remove, Find, Get, Print],
        parameters: &[
            on(&[Add], "fs", Kind::Text, SUBVOLUMES),
            on(&[Add], "name", Kind::Text, SUBVOLUMES),
            on(&[Add], "parent", Kind::Text, SUBVOLUMES),
            on(&[Add, Set], "read-only", Kind::YesNo, SUBVOLUMES),
        ],
        properties: &[
            ".id",
            "creation-time",
            "fs",
            "fullname",
            "generation",
            "name",
            "parent",
            "path",
            "read-only",
            "snapshot",
            "subvolume-id",
            "uuid",
        ],
    },
    Table {
        menu: Menu::File,
        path: "file",
        since: ALWAYS,
        shape: Shape::List,
        verbs: &[Add, Remove, Find, Get, Print],
        parameters: &[
            on(&[Add], "name", Kind::Text, ALWAYS),
            on(&[Add], "type", Kind::Choice(&["directory", "file"]), ALWAYS),
        ],
        properties: &[".id", "last-modified", "name", "size", "type"],
    },
    Table {
        menu: Menu::Service,
        path: "ip/service",
        since: ALWAYS,
        shape: Shape::List,
        verbs: READ_ONLY_LIST,
        parameters: &[],
        properties: &[".id", "disabled", "max-sessions", "name", "port"],
    },
    Table {
        menu: Menu::Identity,
        path: "system/identity",
        since: ALWAYS,
        shape: Shape::Single,
        verbs: &[Set, Get, Print],
        parameters: &[on(&[Set], "name", Kind::Text, ALWAYS)],
        properties: &["name"],
    },
    Table {
        menu: Menu::Package,
        path: "system/package",
        since: ALWAYS,
        shape: Shape::List,
        verbs: READ_ONLY_LIST,
        parameters: &[],
        properties: &[".id", "disabled", "name", "version"],
    },
    Table {
        menu: Menu::Resource,
        path: "system/resource",
        since: ALWAYS,
        shape: Shape::Single,
        verbs: &[Get, Print],
        parameters: &[],
        properties: &["architecture-name", "board-name", "platform", "uptime", "version"],
    },
];
