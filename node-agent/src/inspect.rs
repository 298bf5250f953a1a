//! What this node says about its volumes: the one reading behind the internal API and `/debug/volumes`.
//!
//! It changes nothing and takes no lock, so it answers while a volume is being staged or hangs.

use std::path::PathBuf;

use rds_csi_api::status::chain;
use rds_csi_api::{Nqn, VolumeId};
use serde::Serialize;

use crate::host::{Attachment, Device, Holder, Host, Mounts};
use crate::volumes::record::{Form, Listing, Record};
use crate::volumes::{Error, Volumes, is_own, survey};

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
    /// What is wrong with it.
    pub condition: Option<String>,
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

/// What is known of a volume before it is asked who uses it.
struct Known {
    volume: VolumeId,
    nqn: Nqn,
    record: Option<Record>,
    /// How it is connected, or why nobody can say.
    attachment: Result<Attachment, String>,
}

/// Every volume of which there is a record or a connection. What of one cannot be read is its own trouble only.
pub fn all<H: Host>(volumes: &Volumes<H>) -> Result<Vec<Volume>, Error> {
    let Listing { records, damaged } = volumes.records.list()?;
    let recorded = |nqn: &Nqn| records.iter().any(|record| record.nqn == *nqn);
    let subsystems = volumes.host.subsystems(&|nqn| volumes.prefix.covers(nqn) || recorded(nqn))?;
    let mut known = Vec::new();
    for record in &records {
        let is_namesake = |other: &VolumeId| *other != record.volume && other.slot() == record.volume.slot();
        let namesakes: Vec<_> = records.iter().filter(|other| is_namesake(&other.volume)).collect();
        let attachment = match (subsystems.get(&record.nqn), damaged.iter().find(|(id, _)| is_namesake(id))) {
            (None, _) => Ok(Attachment::Absent),
            (Some(_), Some((_, error))) => Err(chain(error)),
            (Some(Err(error)), None) => Err(chain(error)),
            (Some(Ok(seen)), None) if !is_own(&record.nqn, Some(record), &namesakes, seen) => {
                Ok(Attachment::Absent)
            }
            (Some(Ok(seen)), None) => Ok(seen.attachment.clone()),
        };
        let Record { volume, nqn, .. } = record.clone();
        known.push(Known { volume, nqn, record: Some(record.clone()), attachment });
    }
    for (volume, error) in damaged {
        let nqn = Nqn::of_volume(&volume);
        known.push(Known { volume, nqn, record: None, attachment: Err(chain(&error)) });
    }
    for (nqn, seen) in subsystems {
        let Some(volume) = volumes.prefix.volume(&nqn) else { continue };
        if known.iter().all(|known| known.nqn != nqn) {
            let attachment = seen.map(|seen| seen.attachment).map_err(|error| chain(&error));
            known.push(Known { volume, nqn, record: None, attachment });
        }
    }
    known.sort_by(|one, other| (&one.volume, &one.nqn).cmp(&(&other.volume, &other.nqn)));
    for Known { volume, attachment, .. } in &known {
        if let Err(damage) = attachment {
            tracing::warn!(%volume, "{damage}");
        }
    }
    look(volumes, known)
}

/// One volume, under any NQN that this node knows it by. None means that nothing is left.
pub fn one<H: Host>(volumes: &Volumes<H>, volume: &VolumeId) -> Result<Option<Volume>, Error> {
    let mut record = volumes.records.read(volume)?;
    let mut known = Vec::new();
    for (nqn, seen) in volumes.connections(volume, record.as_ref())? {
        let record = record.take_if(|record| record.nqn == *nqn.as_nqn());
        let (nqn, attachment) = (nqn.as_nqn().clone(), Ok(seen?.attachment));
        known.push(Known { volume: volume.clone(), nqn, record, attachment });
    }
    known.extend(record.map(|record| Known {
        volume: volume.clone(),
        nqn: record.nqn.clone(),
        record: Some(record),
        attachment: Ok(Attachment::Absent),
    }));
    // Connected under two names it is the one that holds something that matters.
    let mut found = look(volumes, known)?;
    found.sort_by_key(|volume| (volume.holders.len(), volume.connection != Connection::Absent));
    Ok(found.pop())
}

/// Mounts are read, and holders are looked for, once for all volumes together.
fn look<H: Host>(volumes: &Volumes<H>, all: Vec<Known>) -> Result<Vec<Volume>, Error> {
    let mounts = volumes.host.mounts()?;
    let mut seen = Vec::new();
    for known in all {
        let device = known.attachment.as_ref().ok().and_then(Attachment::device);
        let mut devices: Vec<_> = device.map(|device| device.number).into_iter().collect();
        if let Some(record) = &known.record {
            devices.extend(volumes.dead(record, &mounts)?);
        }
        seen.push((known, devices));
    }
    let devices: Vec<_> = seen.iter().flat_map(|(_, devices)| devices).copied().collect();
    let holders = volumes.host.holders(&devices)?;
    let told = seen.into_iter().map(|(Known { volume, nqn, record, attachment }, devices)| {
        let (damage, attachment) = match attachment {
            Ok(attachment) => (None, attachment),
            // Nobody may take it for let go of.
            Err(damage) => (Some(damage), Attachment::Connecting(None)),
        };
        let condition = match (&damage, &record) {
            (Some(damage), _) => Some(format!("nobody can say how volume {volume} is: {damage}")),
            (None, Some(record)) => survey::look(volumes, record, attachment.clone(), &mounts)?
                .trouble
                .map(|trouble| trouble.told),
            (None, None) => None,
        };
        Ok(Volume {
            volume,
            nqn,
            connection: Connection::from(&attachment),
            device: attachment.device().map(Device::path),
            staging_path: record.as_ref().and_then(|record| staging_path(record, &mounts, &attachment)),
            publish_paths: record
                .as_ref()
                .map_or(Ok(Vec::new()), |record| volumes.published(record, &mounts))?,
            holders: holders.iter().filter(|holder| devices.contains(&holder.device)).cloned().collect(),
            damage,
            condition,
        })
    });
    told.collect()
}

/// A block volume is staged while it is connected, a filesystem while it is mounted.
fn staging_path(record: &Record, mounts: &Mounts, attachment: &Attachment) -> Option<PathBuf> {
    let staged = match record.form {
        Form::Block => *attachment != Attachment::Absent,
        Form::Filesystem(_) => mounts.layers(&record.staging).next().is_some(),
    };
    staged.then(|| record.staging.clone())
}

#[cfg(test)]
mod tests;
