//! The only place that writes RouterOS script: one call per operation, which observes, does what is left to do, and proves
//! what it did.
//!
//! What is run are constants ([`bodies`], [`copying`], [`removing`]). Values are its arguments, as numbers or through [`quote`], and get in in no other
//! way. How several calls become one line, and what tells their reports from everything else, is the session's business.

mod bodies;
mod copying;
mod fragments;
mod removing;
#[cfg(any(test, feature = "fake"))]
pub(super) mod specimens;

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::time::UNIX_EPOCH;

use rds_csi_api::{Bytes, Nqn, ReconnectPolicy, SnapshotId, VolumeId};

use super::note::{Copied, Note, asked, slot_of};
use super::session::Call;
use crate::array::names::{is_of_go, is_of_this_driver, is_snapshot_of_go};
use crate::array::{ClusterId, Content, Export, IfOpen, Pool, Source, Wanted, WantedSnapshot};

/// How much of an answer is read. One disk in JSON takes about 400 bytes.
const LONGEST_ANSWER: usize = 64 << 10;

/// The same where all disks, subvolumes and images answer: room for some 20,000 volumes.
const LONGEST_INVENTORY: usize = 16 << 20;

/// The largest number that RouterOS has.
const LARGEST: u64 = i64::MAX.unsigned_abs();

/// What our own calls say when they stop themselves. The bodies hold the texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Missing,
    /// The slot's disk is no file, or lies elsewhere, or has another NQN.
    NotAVolume,
    /// It names another cluster.
    OtherCluster,
    /// The subvolume holds more than it should, or somebody uses it.
    OtherFiles,
    /// There is a subvolume or an image file, and no disk.
    Leftover,
    /// Hosts are let in that nobody spoke of.
    Strangers,
    /// Every host is let in.
    Open,
    /// The image is no subvolume's.
    Flat,
    /// There is no image where it should be.
    NoImage,
    /// A subvolume has a snapshot's name, and is not read-only or another cluster's.
    NoSnapshot,
    /// There is nothing that a copy could be made of.
    NoSource,
    /// A size is not written in digits.
    NoPlainSize,
    /// Two snapshots of one id were taken at once, and this one was taken back.
    Twice,
}

impl Mark {
    pub(super) const ALL: [Self; 13] = [
        Self::Missing,
        Self::NotAVolume,
        Self::OtherCluster,
        Self::OtherFiles,
        Self::Leftover,
        Self::Strangers,
        Self::Open,
        Self::Flat,
        Self::NoImage,
        Self::NoSnapshot,
        Self::NoSource,
        Self::NoPlainSize,
        Self::Twice,
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "rds-csi: missing",
            Self::NotAVolume => "rds-csi: not a volume",
            Self::OtherCluster => "rds-csi: other cluster",
            Self::OtherFiles => "rds-csi: other files",
            Self::Leftover => "rds-csi: leftover",
            Self::Strangers => "rds-csi: other hosts",
            Self::Open => "rds-csi: every host",
            Self::Flat => "rds-csi: flat file",
            Self::NoImage => "rds-csi: no image",
            Self::NoSnapshot => "rds-csi: no snapshot",
            Self::NoSource => "rds-csi: no source",
            Self::NoPlainSize => "rds-csi: no plain size",
            Self::Twice => "rds-csi: twice",
        }
    }
}

/// Where on an array things are, and whose.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) pool: &'a Pool,
    pub(super) cluster: &'a ClusterId,
}

impl Place<'_> {
    /// The volume's image as `/disk` names it: with a slash before it.
    pub(super) fn image(&self, id: &VolumeId) -> String {
        format!("/{}/{}/disk.img", self.pool, id.slot())
    }

    /// The disk, made if it is not there.
    pub(super) fn create(&self, wanted: &Wanted) -> Call {
        let Wanted { id, content, port, export, .. } = wanted;
        let note = self.note(wanted);
        let arguments = Arguments::of(id)
            .text("pool", self.pool.as_str())
            .number("tcp", u64::from(*port))
            .text("hosts", host_list(export))
            .text("switch", yes_or_no(export))
            .text("facts", note.facts())
            .text("label", note.label());
        let (source, least, most) = match content {
            Content::Empty(size) => {
                return call("create", bodies::CREATE, arguments.number("bytes", size.get()));
            }
            Content::CopyOf { source, least, most } => (source, *least, *most),
        };
        let arguments = arguments
            .text("cluster", self.cluster.as_str())
            .text("source", slot_of(source))
            .number("least", asked(least))
            .number("below", most.map_or(LARGEST, |most| most.get().saturating_add(1).min(LARGEST)));
        match source {
            Source::Snapshot(_) => call("restore", copying::RESTORE, arguments),
            Source::Volume(_) => call("clone", copying::CLONE, arguments),
        }
    }

    /// What a create has left that failed.
    pub(super) fn take_back(&self, wanted: &Wanted) -> Call {
        let arguments = Arguments::of(&wanted.id)
            .text("pool", self.pool.as_str())
            .text("cluster", self.cluster.as_str())
            .text("pattern", literally(wanted.id.slot()))
            .text("facts", self.note(wanted).facts());
        call("undo", copying::TAKE_BACK, arguments)
    }

    fn note<'a>(&'a self, wanted: &'a Wanted) -> Note<'a> {
        let Wanted { content, reconnect, parameters, label, .. } = wanted;
        let copied = match content {
            Content::Empty(_) => None,
            Content::CopyOf { source, least, .. } => Some(Copied { source, least: *least }),
        };
        Note { cluster: self.cluster, parameters: *parameters, copied, label, reconnect: *reconnect }
    }

    pub(super) fn expand(&self, id: &VolumeId, to: Bytes) -> Call {
        call("expand", bodies::EXPAND, self.of(id).number("to", to.get()))
    }

    pub(super) fn modify(&self, id: &VolumeId, policy: &ReconnectPolicy) -> Call {
        call("modify", bodies::MODIFY, self.of(id).text("policy", policy.to_string()))
    }

    pub(super) fn delete(&self, id: &VolumeId, if_open: IfOpen) -> Call {
        let body = match id.slot() {
            slot if is_of_this_driver(slot) => removing::DELETE,
            slot if is_of_go(slot) => removing::DELETE_OF_GO,
            _ => removing::DELETE_OF_OTHERS,
        };
        let arguments =
            self.of(id).text("pattern", literally(id.slot())).text("known", known(&Export::Off, if_open));
        call("delete", body, arguments)
    }

    /// Lets hosts in, unless others than they are let in already.
    pub(super) fn admit(&self, id: &VolumeId, export: &Export) -> Call {
        call("admit", opening(export), self.letting_in(id, &known(export, IfOpen::Refuse), export))
    }

    /// Sets who may connect, unless others than those of `before` are let in.
    pub(super) fn dismiss(&self, id: &VolumeId, before: &Export, after: &Export) -> Call {
        // Connections of whoever came in by an open door would live on, and nobody could name them.
        let if_open = match after.normal() {
            Export::Hosts(_) => IfOpen::Refuse,
            Export::Off | Export::AnyHost => IfOpen::GoOn,
        };
        call("dismiss", opening(after), self.letting_in(id, &known(before, if_open), after))
    }

    /// Cuts whoever came in under the name `cut`, unless others than those of `before` are let in. If nobody is to stay, the
    /// export is `next` from then on.
    pub(super) fn fence(&self, id: &VolumeId, names: Names<'_>, before: &Export, after: &Export) -> Call {
        let Names { cut, next } = names;
        let arguments = self.of(id).text("known", known(before, IfOpen::GoOn)).text("cut", cut.as_str());
        if is_off(after) {
            call("fence", bodies::RENAME, arguments.text("next", next.as_str()))
        } else {
            call("fence", bodies::FENCE, arguments.text("hosts", host_list(after)))
        }
    }

    pub(super) fn take_snapshot(&self, wanted: &WantedSnapshot) -> Call {
        let now = wanted.now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let arguments = self.of(&wanted.source).text("snap", wanted.id.slot()).number("now", now);
        let call = call("take", bodies::TAKE, arguments);
        Call { about: wanted.id.to_string(), ..call }
    }

    pub(super) fn snapshot(&self, id: &SnapshotId) -> Call {
        call("snapshot", bodies::LOOK_AT_SNAPSHOT, self.of_snapshot(id))
    }

    pub(super) fn delete_snapshot(&self, id: &SnapshotId) -> Call {
        let body =
            if is_snapshot_of_go(id) { removing::DELETE_SNAPSHOT_OF_GO } else { removing::DELETE_SNAPSHOT };
        call("discard", body, self.of_snapshot(id).text("cluster", self.cluster.as_str()))
    }

    pub(super) fn inventory(&self) -> Call {
        let arguments = Arguments::about("everything").text("pool", self.pool.as_str());
        Call { answer_limit: LONGEST_INVENTORY, ..call("inventory", bodies::INVENTORY, arguments) }
    }

    pub(super) fn capacity(&self) -> Call {
        let arguments = Arguments::about("the pool").text("pool", self.pool.as_str());
        call("capacity", bodies::CAPACITY, arguments)
    }

    fn of(&self, id: &VolumeId) -> Arguments {
        let names = format!("^{}(:e[0-9]+)?$", literally(Nqn::of_volume(id).as_str()));
        let (pool, cluster) = (self.pool.as_str(), self.cluster.as_str());
        Arguments::of(id).text("pool", pool).text("cluster", cluster).text("names", names)
    }

    fn of_snapshot(&self, id: &SnapshotId) -> Arguments {
        Arguments::about(id.as_str()).text("pool", self.pool.as_str()).text("snap", id.slot())
    }

    fn letting_in(&self, id: &VolumeId, known: &str, after: &Export) -> Arguments {
        self.of(id).text("known", known).text("hosts", host_list(after))
    }
}

/// The name that is fenced, and the one that follows it.
#[derive(Clone, Copy)]
pub(super) struct Names<'a> {
    pub(super) cut: &'a Nqn,
    pub(super) next: &'a Nqn,
}

/// What the array counts of the disk in the volume's slot. It does not know such counters in every release, and then runs
/// nothing.
pub(super) fn counters(id: &VolumeId) -> Call {
    call("counters", bodies::COUNTERS, Arguments::of(id))
}

/// What is in the volume's slot, whatever it is.
pub(super) fn look(id: &VolumeId) -> Call {
    call("look", bodies::LOOK, Arguments::of(id))
}

fn call(name: &'static str, body: &'static str, arguments: Arguments) -> Call {
    let Arguments { text: arguments, about } = arguments;
    Call { name, body: body.into(), arguments, answer_limit: LONGEST_ANSWER, about }
}

/// Whatever an examination wants to know. Who writes it puts values in by [`quote`], and in no other way.
pub(super) fn examination(id: &VolumeId, statements: &str) -> Call {
    let Arguments { text: arguments, about } = Arguments::of(id);
    Call { name: "doctor", body: statements.into(), arguments, answer_limit: LONGEST_ANSWER, about }
}

/// What a body is called with.
struct Arguments {
    text: String,
    about: String,
}

impl Arguments {
    /// About that volume, whose slot is `$volume`.
    fn of(id: &VolumeId) -> Self {
        Self::about(id.as_str()).text("volume", id.slot())
    }

    fn about(about: &str) -> Self {
        Self { text: String::new(), about: about.into() }
    }

    fn text<'a>(self, name: &'static str, value: impl Into<Cow<'a, str>>) -> Self {
        self.put(name, quote(value))
    }

    fn number(self, name: &'static str, value: u64) -> Self {
        self.put(name, value)
    }

    fn put(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        let space = if self.text.is_empty() { "" } else { " " };
        write!(self.text, "{space}{name}={value}").expect("a string takes all");
        self
    }
}

/// A regular expression for lists of hosts, with a comma before each, that name none but these.
fn known(export: &Export, if_open: IfOpen) -> String {
    match (export.normal(), if_open) {
        (Export::Hosts(hosts), if_open) => {
            let hosts: Vec<_> = hosts.iter().map(|host| literally(host.as_str())).collect();
            let many = if if_open == IfOpen::GoOn { '*' } else { '+' };
            format!("^,(({})([,;] *|$)){many}$", hosts.join("|"))
        }
        (Export::Off, IfOpen::GoOn) => "^,$".into(),
        // Not even an empty one.
        (Export::Off, IfOpen::Refuse) => "^$".into(),
        // Without a fence nobody is kept from anything.
        (Export::AnyHost, _) => "^,".into(),
    }
}

fn opening(export: &Export) -> &'static str {
    if is_off(export) { bodies::SHUT } else { bodies::OPEN }
}

fn is_off(export: &Export) -> bool {
    match export {
        Export::Off => true,
        Export::AnyHost => false,
        // An empty list would let everybody in.
        Export::Hosts(hosts) => hosts.is_empty(),
    }
}

fn yes_or_no(export: &Export) -> &'static str {
    if is_off(export) { "no" } else { "yes" }
}

fn host_list(export: &Export) -> String {
    match export {
        Export::Off | Export::AnyHost => String::new(),
        Export::Hosts(hosts) => hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
    }
}

/// A text as a RouterOS string: whatever it holds, it is one value and nothing else.
pub(crate) fn quote<'a>(text: impl Into<Cow<'a, str>>) -> Quoted<'a> {
    Quoted(text.into())
}

/// A text that is written as a RouterOS string.
pub(crate) struct Quoted<'a>(Cow<'a, str>);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for byte in self.0.bytes() {
            match byte {
                b'"' | b'\\' | b'$' | b'?' => write!(f, "\\{}", char::from(byte))?,
                b' '..=b'~' => write!(f, "{}", char::from(byte))?,
                _ => write!(f, "\\{byte:02X}")?,
            }
        }
        f.write_str("\"")
    }
}

/// A text as a regular expression (POSIX extended) that matches it and nothing else.
pub(crate) fn literally(text: &str) -> String {
    let mut expression = String::with_capacity(text.len());
    for c in text.chars() {
        if !c.is_ascii_alphanumeric() && !matches!(c, '/' | ':' | '_' | '-') {
            expression.push('\\');
        }
        expression.push(c);
    }
    expression
}

#[cfg(test)]
mod tests;
