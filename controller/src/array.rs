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

use rds_csi_api::{Bytes, HostNqn, Nqn, VolumeId};

pub use error::Error;
pub use names::{ClusterId, KubeName, Label, Pool};

/// A storage array. Every operation may be repeated: it observes first, and does what is left to do.
pub trait Array: Send + Sync + 'static {
    /// The volume, made if it is not there. One that is there and differs is [`Error::Conflict`].
    fn create(&self, wanted: &Wanted) -> impl Future<Output = Result<Volume, Error>> + Send;

    /// The volume as it is. [`Error::Missing`] if the array says that it has none.
    fn volume(&self, id: &VolumeId) -> impl Future<Output = Result<Volume, Error>> + Send;

    /// Removes the volume and its data. One that is not there is removed already; one that is not ours is
    /// [`Error::Foreign`], one that hosts are let into by name is [`Error::Strangers`].
    fn delete(&self, id: &VolumeId) -> impl Future<Output = Result<(), Error>> + Send;

    /// Lets these hosts in. [`Error::Strangers`] if another one is let in by name already, whatever anybody's records say;
    /// [`Error::Open`] if every host is let in, and now only some are to be.
    fn admit(&self, id: &VolumeId, export: &Export) -> impl Future<Output = Result<Volume, Error>> + Send;

    /// Sets who may connect from now on. Connections that live go on living. [`Error::Strangers`] if a host is let in by
    /// name that is not among those of `before`: who does not know of it must not shut it out.
    fn dismiss(
        &self,
        id: &VolumeId,
        before: &Export,
        after: &Export,
    ) -> impl Future<Output = Result<Volume, Error>> + Send;

    /// As [`Self::dismiss`], and cuts every connection: those who may come back do, all others cannot.
    fn fence(
        &self,
        id: &VolumeId,
        before: &Export,
        after: &Export,
    ) -> impl Future<Output = Result<Volume, Error>> + Send;
}

/// A volume to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its id: slot and subvolume.
    pub id: VolumeId,
    /// Its exact size.
    pub size: Bytes,
    /// The TCP port of its export.
    pub port: u16,
    /// Who may connect to begin with.
    pub export: Export,
    /// What a person at the array is told about it.
    pub label: Label,
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
