//! Disks, subvolumes and files as `:serialize to=json [… print detail as-value …]` has them.
//!
//! Every value may come as its own type or as a string, a text that looks like a number as a number, and what is absent is not
//! set. Sizes are exact or refused.

use std::collections::BTreeSet;

use rds_csi_api::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::kept;

/// Why the JSON of a list cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::array::routeros) enum Unreadable {
    #[error("it is not the JSON of a list: {0}")]
    Shape(String),
    #[error("it lists {0} where one was asked for")]
    TooMany(usize),
    #[error("{0} is absent")]
    Absent(&'static str),
    #[error("{property} is {value}, which is not exact or not a number of its kind")]
    Inexact { property: &'static str, value: String },
}

/// Something that a list holds.
pub(in crate::array::routeros) trait Item: Sized {
    /// As it is written.
    type Wire<'a>: Deserialize<'a>;

    fn read(wire: Self::Wire<'_>) -> Result<Self, Unreadable>;
}

/// Reads a list.
pub(in crate::array::routeros) fn list<T: Item>(printed: &str) -> Result<Vec<T>, Unreadable> {
    let items: Vec<T::Wire<'_>> =
        serde_json::from_str(printed).map_err(|error| Unreadable::Shape(kept(&error.to_string())))?;
    items.into_iter().map(T::read).collect()
}

/// A disk, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::array::routeros) struct Disk {
    pub(in crate::array::routeros) slot: String,
    pub(in crate::array::routeros) kind: String,
    pub(in crate::array::routeros) path: String,
    pub(in crate::array::routeros) size: Bytes,
    pub(in crate::array::routeros) exported: bool,
    pub(in crate::array::routeros) port: u16,
    pub(in crate::array::routeros) nqn: String,
    pub(in crate::array::routeros) hosts: BTreeSet<String>,
    pub(in crate::array::routeros) comment: String,
}

#[derive(Deserialize)]
pub(in crate::array::routeros) struct DiskWire<'a> {
    #[serde(default)]
    slot: Text,
    #[serde(default, rename = "type")]
    kind: Text,
    #[serde(default, rename = "file-path")]
    path: Text,
    #[serde(borrow, rename = "file-size")]
    size: Option<&'a RawValue>,
    #[serde(default, rename = "nvme-tcp-export")]
    exported: Switch,
    #[serde(borrow, rename = "nvme-tcp-server-port")]
    port: Option<&'a RawValue>,
    #[serde(default, rename = "nvme-tcp-server-nqn")]
    nqn: Text,
    #[serde(default, rename = "nvme-tcp-server-allow-host-name")]
    hosts: Hosts,
    #[serde(default)]
    comment: Text,
}

impl Item for Disk {
    type Wire<'a> = DiskWire<'a>;

    fn read(wire: DiskWire<'_>) -> Result<Self, Unreadable> {
        let hosts = match wire.hosts {
            Hosts::Joined(hosts) => hosts.split(',').map(|host| host.trim().to_owned()).collect(),
            Hosts::Listed(hosts) => hosts,
        };
        // What is no file disk has no size, and may have no port; its other properties tell that it is not ours.
        let size = match wire.size {
            Some(raw) => whole("file-size", raw)?,
            None if wire.kind.0 == "file" => return Err(Unreadable::Absent("file-size")),
            None => 0,
        };
        Ok(Self {
            slot: wire.slot.0,
            kind: wire.kind.0,
            path: wire.path.0,
            size: Bytes::new(size),
            exported: wire.exported.is_on(),
            port: wire.port.map_or(Ok(0), |raw| whole("nvme-tcp-server-port", raw))?,
            nqn: wire.nqn.0,
            hosts: hosts.into_iter().filter(|host| !host.is_empty()).collect(),
            comment: wire.comment.0,
        })
    }
}

/// A subvolume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::array::routeros) struct Subvolume {
    pub(in crate::array::routeros) name: String,
    pub(in crate::array::routeros) read_only: bool,
}

#[derive(Deserialize)]
pub(in crate::array::routeros) struct SubvolumeWire {
    #[serde(default)]
    name: Text,
    #[serde(default, rename = "read-only")]
    read_only: Switch,
}

impl Item for Subvolume {
    type Wire<'a> = SubvolumeWire;

    fn read(wire: SubvolumeWire) -> Result<Self, Unreadable> {
        Ok(Self { name: wire.name.0, read_only: wire.read_only.is_on() })
    }
}

/// A file. Its size is for comparisons only, so one that is not exact is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::array::routeros) struct File {
    pub(in crate::array::routeros) name: String,
    pub(in crate::array::routeros) size: Option<Bytes>,
}

#[derive(Deserialize)]
pub(in crate::array::routeros) struct FileWire<'a> {
    #[serde(default)]
    name: Text,
    #[serde(borrow)]
    size: Option<&'a RawValue>,
}

impl Item for File {
    type Wire<'a> = FileWire<'a>;

    fn read(wire: FileWire<'_>) -> Result<Self, Unreadable> {
        let size = wire.size.and_then(|raw| whole("size", raw).ok()).map(Bytes::new);
        Ok(Self { name: wire.name.0, size })
    }
}

/// The disk that is the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::array::routeros) struct Pool {
    pub(in crate::array::routeros) size: Bytes,
    pub(in crate::array::routeros) free: Bytes,
}

#[derive(Deserialize)]
pub(in crate::array::routeros) struct PoolWire<'a> {
    #[serde(borrow)]
    size: Option<&'a RawValue>,
    #[serde(borrow)]
    free: Option<&'a RawValue>,
}

impl Item for Pool {
    type Wire<'a> = PoolWire<'a>;

    fn read(wire: PoolWire<'_>) -> Result<Self, Unreadable> {
        let bytes = |property, raw: Option<&RawValue>| {
            whole(property, raw.ok_or(Unreadable::Absent(property))?).map(Bytes::new)
        };
        Ok(Self { size: bytes("size", wire.size)?, free: bytes("free", wire.free)? })
    }
}

/// A text, which RouterOS may have taken for a number or a truth.
#[derive(Default)]
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Scalar {
            Text(String),
            Number(serde_json::Number),
            Truth(bool),
            Nothing(()),
        }
        Ok(Self(match Scalar::deserialize(deserializer)? {
            Scalar::Text(text) => text,
            Scalar::Number(number) => number.to_string(),
            Scalar::Truth(truth) => truth.to_string(),
            Scalar::Nothing(()) => String::new(),
        }))
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Switch {
    Bool(bool),
    Word(Word),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    #[serde(alias = "true")]
    Yes,
    #[serde(alias = "false")]
    No,
}

impl Default for Switch {
    fn default() -> Self {
        Self::Bool(false)
    }
}

impl Switch {
    fn is_on(&self) -> bool {
        matches!(self, Self::Bool(true) | Self::Word(Word::Yes))
    }
}

/// Several values of one property come as a list, or in one string with commas.
#[derive(Deserialize)]
#[serde(untagged)]
enum Hosts {
    Joined(String),
    Listed(Vec<String>),
}

impl Default for Hosts {
    fn default() -> Self {
        Self::Listed(Vec::new())
    }
}

fn whole<T: TryFrom<u64>>(property: &'static str, raw: &RawValue) -> Result<T, Unreadable> {
    let text = raw.get();
    exact(text)
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| Unreadable::Inexact { property, value: kept(text) })
}

/// A number from its JSON, which is its decimal text or a string of that, since `1099511627776.000000` is how RouterOS may write
/// an integer, and a float in between might round it. Anything but zeros behind the point, or an exponent, is not exact.
pub(crate) fn exact(json: &str) -> Option<u64> {
    let number = json.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(json);
    let (digits, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_exact = !digits.is_empty()
        && digits.bytes().all(|b| b.is_ascii_digit())
        && fraction.bytes().all(|b| b == b'0');
    is_exact.then(|| digits.parse().ok()).flatten()
}
