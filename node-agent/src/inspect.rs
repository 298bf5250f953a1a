//! What this node says about its volumes: the one reading behind the internal API and `/debug/volumes`.
//!
//! It changes nothing and takes no lock, so it answers while a volume is being staged or hangs.

use std::path::PathBuf;

use rds_csi_api::status::chain;
use rds_csi_api::{Failure, Kind, Nqn, VolumeId};
use serde::Serialize;

use crate::host::{self, Attachment, Device, Holder, Host};
use crate::volumes::record::{self, Form, Listing, Record};
use crate::volumes::{self, Volumes};

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
    /// Why not everything is known of it: its record cannot be read.
    pub damage: Option<String>,
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
    /// The volume could not be looked at.
    #[error(transparent)]
    Volumes(#[from] volumes::Error),
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Host(error) => error.kind(),
            Self::Record(error) => error.kind(),
            Self::Volumes(error) => error.kind(),
        }
    }
}

/// What is known of a volume before the machine is asked.
struct Known {
    volume: VolumeId,
    nqn: Nqn,
    record: Option<Record>,
    damage: Option<String>,
}

/// Every volume of which there is a record or a connection. A record that cannot be read is its own volume's trouble only.
pub fn all<H: Host>(volumes: &Volumes<H>) -> Result<Vec<Volume>, Error> {
    let Listing { records, damaged } = volumes.records.list()?;
    let mut known: Vec<_> = records
        .into_iter()
        .map(|record| Known {
            volume: record.volume.clone(),
            nqn: record.nqn.clone(),
            record: Some(record),
            damage: None,
        })
        .collect();
    for (volume, error) in damaged {
        tracing::warn!(%volume, "{}", chain(&error));
        let nqn = Nqn::of_volume(&volume);
        known.push(Known { volume, nqn, record: None, damage: Some(chain(&error)) });
    }
    for nqn in volumes.host.subsystems()? {
        let Some(volume) = volumes.prefix.volume(&nqn) else { continue };
        if known.iter().all(|known| known.nqn != nqn) {
            known.push(Known { volume, nqn, record: None, damage: None });
        }
    }
    known.sort_by(|one, other| (&one.volume, &one.nqn).cmp(&(&other.volume, &other.nqn)));
    look(volumes, known)
}

/// One volume, under any NQN that this node knows it by. None means that nothing is left.
pub fn one<H: Host>(volumes: &Volumes<H>, volume: &VolumeId) -> Result<Option<Volume>, Error> {
    let record = volumes.records.read(volume)?;
    let mut known: Vec<_> = volumes
        .connections(volume)?
        .into_iter()
        .filter(|nqn| record.as_ref().is_none_or(|record| record.nqn != *nqn.as_nqn()))
        .map(|nqn| Known { volume: volume.clone(), nqn: nqn.as_nqn().clone(), record: None, damage: None })
        .collect();
    known.extend(record.map(|record| Known {
        volume: volume.clone(),
        nqn: record.nqn.clone(),
        record: Some(record),
        damage: None,
    }));
    // Connected under two names it is the one that holds something that matters.
    let mut found = look(volumes, known)?;
    found.sort_by_key(|volume| (volume.holders.len(), volume.connection != Connection::Absent));
    Ok(found.pop())
}

/// Holders are looked for once, for all devices together.
fn look<H: Host>(volumes: &Volumes<H>, known: Vec<Known>) -> Result<Vec<Volume>, Error> {
    let mut seen = Vec::new();
    for known in known {
        let shared = known.record.is_some() && !volumes.records.namesakes(&known.volume)?.is_empty();
        let its = !shared || volumes.connections(&known.volume)?.iter().any(|nqn| *nqn.as_nqn() == known.nqn);
        let attachment = if its { volumes.host.attachment(&known.nqn)? } else { Attachment::Absent };
        let mut devices: Vec<_> = attachment.device().map(|device| device.number).into_iter().collect();
        if let Some(record) = &known.record {
            devices.extend(volumes.dead(record)?);
        }
        seen.push((known, attachment, devices));
    }
    let devices: Vec<_> = seen.iter().flat_map(|(.., devices)| devices).copied().collect();
    let holders = volumes.host.holders(&devices)?;
    seen.into_iter()
        .map(|(Known { volume, nqn, record, damage }, attachment, devices)| {
            Ok(Volume {
                volume,
                nqn,
                connection: match attachment {
                    Attachment::Absent | Attachment::Lost => Connection::Absent,
                    Attachment::Connecting(_) => Connection::Connecting,
                    Attachment::Live(_) => Connection::Live,
                },
                device: attachment.device().map(Device::path),
                staging_path: staging_path(volumes, record.as_ref(), &attachment)?,
                publish_paths: record.as_ref().map_or(Ok(Vec::new()), |record| volumes.published(record))?,
                holders: holders.iter().filter(|holder| devices.contains(&holder.device)).cloned().collect(),
                damage,
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
