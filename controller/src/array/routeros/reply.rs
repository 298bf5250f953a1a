//! What the array's answer to one call says: done, with the disk as it now is; failed, and why; or neither.
//!
//! RouterOS prints its errors on standard output and exits with 0, so nothing counts but our own frame.

use std::collections::BTreeSet;

use rds_csi_api::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::script::Mark;

/// How much of an answer is kept for an error's message.
const KEPT: usize = 600;

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// It ran to its end. What it printed before that.
    Done(String),
    /// It stopped at one of our own checks.
    Stopped(Mark),
    /// It failed while it ran.
    Failed(Known, String),
    /// RouterOS could not read it, and ran nothing of it.
    NotUnderstood(String),
    /// Nothing says how it ended.
    Unknown(String),
}

/// The failures that RouterOS tells in words that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    NoSpace,
    NoPermission,
    Exists,
    /// Any other words.
    Other,
}

impl Reply {
    /// What a frame reported that failed: one of our own checks, or RouterOS.
    pub(super) fn failed(message: &str) -> Self {
        match Mark::ALL.into_iter().find(|mark| message.starts_with(mark.as_str())) {
            Some(mark) => Self::Stopped(mark),
            None => Self::Failed(known(message), kept(message)),
        }
    }
}

fn known(message: &str) -> Known {
    const TEXTS: [(&str, Known); 3] = [
        ("not enough space", Known::NoSpace),
        ("not enough permissions", Known::NoPermission),
        ("already have such", Known::Exists),
    ];
    TEXTS.iter().find(|(text, _)| message.contains(text)).map_or(Known::Other, |(_, known)| *known)
}

/// Whether RouterOS says so of a line that it cannot read.
pub(super) fn is_syntax_complaint(line: &str) -> bool {
    const TEXTS: [&str; 5] = [
        "expected end of command",
        "syntax error",
        "bad command name",
        "input does not match any value of",
        "invalid value for argument",
    ];
    TEXTS.iter().any(|text| line.starts_with(text))
}

/// An answer as an error's message may carry it.
pub(super) fn kept(text: &str) -> String {
    let text = text.trim();
    match text.char_indices().nth(KEPT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A disk as `/disk print detail as-value` has it, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Disk {
    pub(super) kind: String,
    pub(super) path: String,
    pub(super) size: Bytes,
    pub(super) exported: bool,
    pub(super) port: u16,
    pub(super) nqn: String,
    pub(super) hosts: BTreeSet<String>,
    pub(super) comment: String,
}

/// Why the JSON of a disk cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("it is not the JSON of a list of disks: {0}")]
    Shape(String),
    #[error("it lists {0} disks where one slot was asked for")]
    TooMany(usize),
    #[error("{0} is absent")]
    Absent(&'static str),
    #[error("{property} is {value}, which is not exact or not a number of its kind")]
    Inexact { property: &'static str, value: String },
}

/// Every value may come as its own type or as a string; what is absent is not set.
#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default, rename = "file-path")]
    path: String,
    #[serde(borrow, rename = "file-size")]
    size: Option<&'a RawValue>,
    #[serde(default, rename = "nvme-tcp-export")]
    exported: Switch,
    #[serde(borrow, rename = "nvme-tcp-server-port")]
    port: Option<&'a RawValue>,
    #[serde(default, rename = "nvme-tcp-server-nqn")]
    nqn: String,
    #[serde(default, rename = "nvme-tcp-server-allow-host-name")]
    hosts: Hosts,
    #[serde(default)]
    comment: String,
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

/// Reads what [`SHOW`](super::script::SHOW) printed; none if there is no such disk.
pub(super) fn disk(printed: &str) -> Result<Option<Disk>, Unreadable> {
    let mut disks: Vec<Wire> =
        serde_json::from_str(printed).map_err(|error| Unreadable::Shape(error.to_string()))?;
    let count = disks.len();
    let Some(wire) = disks.pop() else { return Ok(None) };
    if count > 1 {
        return Err(Unreadable::TooMany(count));
    }
    let hosts = match wire.hosts {
        Hosts::Joined(hosts) => hosts.split(',').map(|host| host.trim().to_owned()).collect(),
        Hosts::Listed(hosts) => hosts,
    };
    // What is no file disk has no size, and may have no port; its other properties tell that it is not ours.
    let size = match wire.size {
        Some(raw) => whole("file-size", raw)?,
        None if wire.kind == "file" => return Err(Unreadable::Absent("file-size")),
        None => 0,
    };
    Ok(Some(Disk {
        kind: wire.kind,
        path: wire.path,
        size: Bytes::new(size),
        exported: matches!(wire.exported, Switch::Bool(true) | Switch::Word(Word::Yes)),
        port: wire.port.map_or(Ok(0), |raw| whole("nvme-tcp-server-port", raw))?,
        nqn: wire.nqn,
        hosts: hosts.into_iter().filter(|host| !host.is_empty()).collect(),
        comment: wire.comment,
    }))
}

/// A number from its decimal text, since `1099511627776.000000` is how RouterOS may write an integer, and a float in
/// between might round it. Anything but zeros behind the point, or an exponent, is not exact.
fn whole<T: TryFrom<u64>>(property: &'static str, raw: &RawValue) -> Result<T, Unreadable> {
    let text = raw.get();
    let number = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let (digits, fraction) = number.split_once('.').unwrap_or((number, ""));
    let exact = !digits.is_empty()
        && digits.bytes().all(|b| b.is_ascii_digit())
        && fraction.bytes().all(|b| b == b'0');
    exact
        .then(|| digits.parse::<u64>().ok())
        .flatten()
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| Unreadable::Inexact { property, value: kept(text) })
}

#[cfg(test)]
mod tests;
