//! The array in domain words: volumes that exist with a size, an NQN and a set of hosts that may connect.
//!
//! Nothing here knows CSI, Kubernetes or attachments. RouterOS is behind [`routeros`]; [`fake`] is the same in memory, and
//! [`contract`] says what both must do.

#[cfg(any(test, feature = "fake"))]
pub mod contract;
mod error;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod names;
pub mod routeros;

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::time::SystemTime;

use rds_csi_api::{Bytes, HostNqn, Nqn, ReconnectPolicy, SnapshotId, VolumeId};

pub use error::{Error, Subject};
pub use names::{ClusterId, Digest, KubeName, Label, Pool};

/// A storage array. Every operation may be repeated: it observes first, and does what is left to do.
pub trait Array: Send + Sync + 'static {
    /// The volume, made if it is not there. One that is there and differs is [`Error::Conflict`].
    fn create(&self, wanted: &Wanted) -> impl Future<Output = Result<Volume, Error>> + Send;

    /// The volume as it is. [`Error::Missing`] if the array says that it has none.
    fn volume(&self, id: &VolumeId) -> impl Future<Output = Result<Volume, Error>> + Send;

    /// Removes the volume and its data. One that is not there is removed already; one that is not ours is
    /// [`Error::Foreign`], one that hosts are let into by name is [`Error::Strangers`], one that every host is let into is
    /// [`Error::Open`] unless it is to be removed all the same.
    fn delete(&self, id: &VolumeId, if_open: IfOpen) -> impl Future<Output = Result<(), Error>> + Send;

    /// The volume, at least so large from now on. It is never made smaller.
    fn expand(&self, id: &VolumeId, to: Bytes) -> impl Future<Output = Result<Volume, Error>> + Send;

    /// The volume, to be connected to in this way from its next publish on.
    fn modify(
        &self,
        id: &VolumeId,
        reconnect: &ReconnectPolicy,
    ) -> impl Future<Output = Result<Volume, Error>> + Send;

    /// Lets these hosts in. [`Error::Strangers`] if another one is let in by name already, whatever anybody's records say;
    /// [`Error::Open`] if every host is let in, and now only some are to be.
    fn admit(&self, id: &VolumeId, export: &Export) -> impl Future<Output = Result<Volume, Error>> + Send;

    /// Sets who may connect from now on. Connections that live go on living. [`Error::Strangers`] if a host is let in by
    /// name that is not among those of `before`: who does not know of it must not shut it out. [`Error::Open`] if every host
    /// is let in, `before` does not say so, and some are to stay: whoever else is connected would stay too.
    fn dismiss(
        &self,
        id: &VolumeId,
        before: &Export,
        after: &Export,
    ) -> impl Future<Output = Result<Volume, Error>> + Send;

    /// Shuts out for good whoever came in under the name `cut` and is not among `after`, and returns only with evidence. If
    /// nobody is to stay, the export goes on under another name from its next admission on, so that what a node still holds
    /// back leads nowhere, even if the same node is let in again. Otherwise its name stays, every connection is cut, and
    /// those of `after` may come back.
    ///
    /// An export that has another name by now was fenced before: nothing is changed, and whoever was let in since is left
    /// alone. Refused as [`Self::dismiss`] is.
    fn fence(
        &self,
        id: &VolumeId,
        cut: &Nqn,
        before: &Export,
        after: &Export,
    ) -> impl Future<Output = Result<Volume, Error>> + Send;

    /// The snapshot, taken if it is not there: atomic, and of what the volume holds at that moment. One that is there of
    /// another volume is [`Error::Conflict`]; a volume in a flat file is [`Error::Flat`].
    fn take_snapshot(&self, wanted: &WantedSnapshot) -> impl Future<Output = Result<Snapshot, Error>> + Send;

    /// The snapshot as it is. [`Error::MissingSnapshot`] if the array says that it has none.
    fn snapshot(&self, id: &SnapshotId) -> impl Future<Output = Result<Snapshot, Error>> + Send;

    /// Removes the snapshot. One that is not there is removed already. Volumes that were made of it live on.
    fn delete_snapshot(&self, id: &SnapshotId) -> impl Future<Output = Result<(), Error>> + Send;

    /// Everything in the pool that is, or may be, this cluster's.
    fn inventory(&self) -> impl Future<Output = Result<Inventory, Error>> + Send;

    /// How much room there is.
    fn capacity(&self) -> impl Future<Output = Result<Capacity, Error>> + Send;
}

/// A volume to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its id: slot and subvolume.
    pub id: VolumeId,
    /// What it holds to begin with, and how large it is.
    pub content: Content,
    /// The TCP port of its export.
    pub port: u16,
    /// Who may connect to begin with.
    pub export: Export,
    /// How it is to be connected to, if not as [`ReconnectPolicy::STANDARD`] has it. It is kept with the volume, since who
    /// modifies it later is told nothing but the changes.
    pub reconnect: Option<ReconnectPolicy>,
    /// What else it was asked for with. A repeat with another one is [`Error::Conflict`].
    pub parameters: Digest,
    /// What a person at the array is told about it.
    pub label: Label,
}

/// What a new volume holds, and how large it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Nothing, in exactly so many bytes.
    Empty(Bytes),
    /// What its source holds.
    CopyOf {
        /// The source, on the same array.
        source: Source,
        /// At least so large, and at least as large as the source; as large as that if nothing is said.
        least: Option<Bytes>,
        /// Not larger: [`Error::SourceTooLarge`] if the source is.
        most: Option<Bytes>,
    },
}

/// What a volume was made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A snapshot, restored.
    Snapshot(SnapshotId),
    /// Another volume, cloned.
    Volume(VolumeId),
}

/// A volume as the array has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its id.
    pub id: VolumeId,
    /// The exact size of its disk.
    pub size: Bytes,
    /// What it is exported under.
    pub nqn: Nqn,
    /// The TCP port of its export.
    pub port: u16,
    /// Who may connect.
    pub export: Export,
    /// What it was made of.
    pub source: Option<Source>,
    /// How it is to be connected to, as [`Wanted::reconnect`] or the last [`Array::modify`] said.
    pub reconnect: Option<ReconnectPolicy>,
    /// Whose it is.
    pub owner: Owner,
    /// How it lies on the array.
    pub layout: Layout,
    /// Whether the array still has all of it.
    pub soundness: Soundness,
}

/// Whose something on the array is. Another cluster's is never seen here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// It carries this cluster's id.
    ThisCluster,
    /// It carries none: made by the Go driver, or by hand.
    Nobody,
}

/// How a volume lies on the array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// As an image in a subvolume of its own.
    Subvolume,
    /// As a flat file, made by the Go driver: it can be neither snapshotted nor cloned.
    FlatFile,
}

/// Whether the array still has all of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Soundness {
    /// As far as the array tells.
    Sound,
    /// It is damaged, and how.
    Damaged(String),
}

/// A snapshot to be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedSnapshot {
    /// Its id.
    pub id: SnapshotId,
    /// Of which volume.
    pub source: VolumeId,
    /// What is kept as its time if it is taken now.
    pub now: SystemTime,
}

/// A snapshot as the array has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its id.
    pub id: SnapshotId,
    /// The volume it was taken of, which may be gone.
    pub source: VolumeId,
    /// The size of that volume's disk at that time.
    pub size: Bytes,
    /// When it was taken, to the second.
    pub taken: SystemTime,
}

/// Everything in the pool that is, or may be, this cluster's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Its volumes, and those that carry no owner, by id.
    pub volumes: Vec<Volume>,
    /// Its snapshots, by id.
    pub snapshots: Vec<Snapshot>,
    /// Subvolumes and files that look like a volume's or a snapshot's, and have no disk, or cannot be read as one.
    pub strays: Vec<Stray>,
}

/// Something that looks like a part of a volume, and belongs to none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stray {
    /// Its name on the array: a subvolume, or a file with its path.
    pub name: String,
    /// What is odd about it, for people.
    pub why: String,
}

/// How much room an array has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Of the whole pool.
    pub size: Bytes,
    /// Not used yet. Image files are sparse, so more than that may be promised already.
    pub free: Bytes,
}

/// Who may connect to a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Export {
    /// Nobody: it is not exported.
    Off,
    /// Whoever reaches the port.
    AnyHost,
    /// These hosts only. Without any it is the same as [`Export::Off`], and never as [`Export::AnyHost`].
    Hosts(BTreeSet<HostNqn>),
}

impl Export {
    /// An export to these hosts, or none at all if there are none.
    pub fn to_hosts(hosts: impl IntoIterator<Item = HostNqn>) -> Self {
        let hosts: BTreeSet<_> = hosts.into_iter().collect();
        if hosts.is_empty() { Self::Off } else { Self::Hosts(hosts) }
    }

    /// The same with [`Export::Off`] for no hosts at all.
    pub(crate) fn normal(&self) -> Self {
        match self {
            Self::Hosts(hosts) => Self::to_hosts(hosts.iter().cloned()),
            Self::Off | Self::AnyHost => self.clone(),
        }
    }
}

/// What the export is called after a fence that nobody stays behind.
fn next_name(id: &VolumeId, cut: &Nqn) -> Result<Nqn, Error> {
    let why = || format!("{cut} is no name of it that another one could follow");
    cut.next(id).ok_or_else(|| Error::Foreign { subject: id.into(), why: why() })
}

/// What becomes of an operation on a volume that every host is let into, so that nobody can name who is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfOpen {
    /// It is refused.
    Refuse,
    /// It goes on.
    GoOn,
}

/// For people.
impl fmt::Display for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("nobody"),
            Self::AnyHost => f.write_str("every host"),
            Self::Hosts(hosts) => {
                f.write_str(&hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and "))
            }
        }
    }
}
