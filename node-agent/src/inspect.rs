//! What this node says about its volumes: the one reading behind the internal API and `/debug/volumes`.
//!
//! It changes nothing and takes no lock, so it answers while a volume is being staged or hangs.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rds_csi_api::{Failure, Kind, Nqn, VolumeId};
use serde::Serialize;

use crate::host::{self, Attachment, Device, Holder, Host, ManagedNqn};
use crate::volumes::Volumes;
use crate::volumes::record::{self, Form, Record};

/// A volume of which something is left on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// Which.
    pub volume: VolumeId,
    /// The subsystem it is, or was, connected to.
    pub nqn: Nqn,
    /// How that connection is.
    pub connection: Connection,
    /// Its device.
    pub device: Option<PathBuf>,
    /// Where it is staged.
    pub staging_path: Option<PathBuf>,
    /// Where it is published.
    pub publish_paths: Vec<PathBuf>,
    /// Whatever keeps the device busy.
    pub holders: Vec<Holder>,
}

/// How a volume is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Connection {
    /// The kernel has no controller for it.
    Absent,
    /// It has one that does not work now.
    Connecting,
    /// It has one that works.
    Live,
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine could not be read.
    #[error(transparent)]
    Host(#[from] host::Error),
    /// A record could not be read.
    #[error(transparent)]
    Record(#[from] record::Error),
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Host(error) => error.kind(),
            Self::Record(error) => error.kind(),
        }
    }
}

/// Every volume of which there is a record or a connection.
pub fn all<H: Host>(volumes: &Volumes<H>) -> Result<Vec<Volume>, Error> {
    let mut known = BTreeMap::new();
    for nqn in volumes.host.subsystems()? {
        if let Some(volume) = volumes.prefix.volume(&nqn) {
            known.insert(nqn, (volume, None));
        }
    }
    for record in volumes.records.list()? {
        known.insert(record.nqn.clone(), (record.volume.clone(), Some(record)));
    }
    look(volumes, known)
}

/// One volume, under the NQN that the asker knows or any other that this node knows it by. None means that nothing is left.
pub fn one<H: Host>(
    volumes: &Volumes<H>,
    volume: &VolumeId,
    nqn: &ManagedNqn,
) -> Result<Option<Volume>, Error> {
    let mut known = BTreeMap::new();
    for nqn in volumes.connections(volume)?.into_iter().chain([nqn.clone()]) {
        if volumes.host.attachment(nqn.as_nqn())? != Attachment::Absent {
            known.insert(nqn.as_nqn().clone(), (volume.clone(), None));
        }
    }
    if let Some(record) = volumes.records.read(volume)? {
        known.insert(record.nqn.clone(), (volume.clone(), Some(record)));
    }
    // Connected under two names it is the one that holds something that matters.
    let mut found = look(volumes, known)?;
    found.sort_by_key(|volume| (volume.holders.len(), volume.connection != Connection::Absent));
    Ok(found.pop())
}

/// Holders are looked for once, for all devices together.
fn look<H: Host>(
    volumes: &Volumes<H>,
    known: BTreeMap<Nqn, (VolumeId, Option<Record>)>,
) -> Result<Vec<Volume>, Error> {
    let mut seen = Vec::new();
    for (nqn, (volume, record)) in known {
        let attachment = volumes.host.attachment(&nqn)?;
        seen.push((nqn, volume, record, attachment));
    }
    let devices: Vec<_> = seen.iter().filter_map(|(.., attachment)| attachment.device()).collect();
    let holders = volumes.host.holders(&devices)?;
    seen.iter()
        .map(|(nqn, volume, record, attachment)| {
            let device = attachment.device();
            Ok(Volume {
                volume: volume.clone(),
                nqn: nqn.clone(),
                connection: match attachment {
                    Attachment::Absent | Attachment::Lost => Connection::Absent,
                    Attachment::Connecting(_) => Connection::Connecting,
                    Attachment::Live(_) => Connection::Live,
                },
                device: device.map(Device::path),
                staging_path: staging_path(volumes, record.as_ref(), attachment)?,
                publish_paths: record.as_ref().map_or(Ok(Vec::new()), |record| volumes.published(record))?,
                holders: holders
                    .iter()
                    .filter(|holder| device.is_some_and(|device| device.number == holder.device))
                    .cloned()
                    .collect(),
            })
        })
        .collect()
}

/// A block volume is staged while it is connected, a filesystem while it is mounted.
fn staging_path<H: Host>(
    volumes: &Volumes<H>,
    record: Option<&Record>,
    attachment: &Attachment,
) -> Result<Option<PathBuf>, Error> {
    let Some(record) = record else { return Ok(None) };
    let staged = match record.form {
        Form::Block => *attachment != Attachment::Absent,
        Form::Filesystem(_) => volumes.host.mounts()?.layers(&record.staging).next().is_some(),
    };
    Ok(staged.then(|| record.staging.clone()))
}

#[cfg(test)]
mod tests;
