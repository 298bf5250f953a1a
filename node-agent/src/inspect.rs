//! What this node says about its volumes: the one reading behind the internal API and `/debug/volumes`.
//!
//! It changes nothing and takes no lock, so it answers while a volume is being staged or hangs.

use std::path::PathBuf;

use rds_csi_api::status::chain;
use rds_csi_api::{Nqn, VolumeId};
use serde::Serialize;

use crate::host::{Attachment, Device, Holder, Host};
use crate::volumes::record::{Form, Listing, Record};
use crate::volumes::{Error, Volumes};

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
    /// Why not everything is known of it: its record or its connection cannot be read.
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

impl Connection {
    /// As people and metrics are told.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Connecting => "connecting",
            Self::Live => "live",
        }
    }
}

impl From<&Attachment> for Connection {
    fn from(attachment: &Attachment) -> Self {
        match attachment {
            Attachment::Absent | Attachment::Lost => Self::Absent,
            Attachment::Connecting(_) => Self::Connecting,
            Attachment::Live(_) => Self::Live,
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

impl From<Record> for Known {
    fn from(record: Record) -> Self {
        Self { volume: record.volume.clone(), nqn: record.nqn.clone(), record: Some(record), damage: None }
    }
}

/// Every volume of which there is a record or a connection. What of one cannot be read is its own trouble only.
pub fn all<H: Host>(volumes: &Volumes<H>) -> Result<Vec<Volume>, Error> {
    let Listing { records, damaged } = volumes.records.list()?;
    let mut known: Vec<_> = records.into_iter().map(Known::from).collect();
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
    let seen = known.into_iter().map(|mut known| {
        let attachment = attachment(volumes, &known).unwrap_or_else(|error| {
            tracing::warn!(volume = %known.volume, "{}", chain(&error));
            known.damage.get_or_insert_with(|| chain(&error));
            // Nobody may take it for let go of.
            Attachment::Connecting(None)
        });
        (known, attachment)
    });
    look(volumes, seen.collect())
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
    known.extend(record.map(Known::from));
    // Connected under two names it is the one that holds something that matters.
    let seen =
        known.into_iter().map(|known| attachment(volumes, &known).map(|attachment| (known, attachment)));
    let mut found = look(volumes, seen.collect::<Result<_, _>>()?)?;
    found.sort_by_key(|volume| (volume.holders.len(), volume.connection != Connection::Absent));
    Ok(found.pop())
}

/// How it is connected. The connection may be that of a namesake.
fn attachment<H: Host>(volumes: &Volumes<H>, known: &Known) -> Result<Attachment, Error> {
    let shared = known.record.is_some() && !volumes.records.namesakes(&known.volume)?.is_empty();
    let its = !shared || volumes.connections(&known.volume)?.iter().any(|nqn| *nqn.as_nqn() == known.nqn);
    if its { Ok(volumes.host.attachment(&known.nqn)?) } else { Ok(Attachment::Absent) }
}

/// Holders are looked for once, for all devices together.
fn look<H: Host>(volumes: &Volumes<H>, all: Vec<(Known, Attachment)>) -> Result<Vec<Volume>, Error> {
    let mut seen = Vec::new();
    for (known, attachment) in all {
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
                connection: Connection::from(&attachment),
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
