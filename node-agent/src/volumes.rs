//! What every verb works on: the machine, and what we wrote down about the volumes on it.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rds_csi_api::{Failure, Kind, ManagedPrefix, Nqn, VolumeId};

use self::record::Form;
use crate::host::{
    self, DeviceNumber, Found, Holder, Host, KubeletDir, KubeletPath, ManagedNqn, Mounts, Subsystem,
};
use crate::reads::Reads;
use crate::repairs::Repairs;

pub mod health;
pub mod record;
pub mod survey;
pub mod undo;

pub use record::{Mending, Record, Records};

/// The volumes of this node.
#[derive(Debug)]
pub struct Volumes<H> {
    /// The machine they are on.
    pub host: H,
    /// What we wrote down about them.
    pub records: Records,
    /// Where kubelet wants them.
    pub kubelet: KubeletDir,
    /// Which subsystems are ours.
    pub prefix: ManagedPrefix,
    /// Who looks at them.
    pub reads: Reads,
    /// Which of them may lose something by a repair.
    pub repairs: Repairs,
}

/// Why nothing can be said of a volume.
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

/// Whether a connection is a volume's own: volumes of two arrays may share an NQN, and then it is that of the one whose record
/// tells where it leads to.
pub(crate) fn is_own<R: Borrow<Record>>(
    nqn: &Nqn,
    own: Option<&Record>,
    namesakes: &[R],
    seen: &Subsystem,
) -> bool {
    namesakes.iter().map(Borrow::borrow).filter(|namesake: &&Record| namesake.nqn == *nqn).all(|namesake| {
        own.is_some_and(|own| {
            own.nqn == *nqn
                && own.portal != namesake.portal
                && seen.portals.iter().all(|live| *live == own.portal)
        })
    })
}

impl<H: Host> Volumes<H> {
    /// The subsystems of exactly this volume that the kernel knows, recorded or not, in one reading; `own` is its record.
    pub fn connections(
        &self,
        volume: &VolumeId,
        own: Option<&Record>,
    ) -> Result<BTreeMap<ManagedNqn, Result<Subsystem, host::Error>>, Error> {
        let Self { host, records, prefix, .. } = self;
        let is_of = |nqn: &Nqn| prefix.is_of(nqn, volume) || own.is_some_and(|own| own.nqn == *nqn);
        let mut found = host.subsystems(&is_of)?;
        let namesakes = records.namesakes(volume)?;
        for shared in &namesakes {
            let Some(seen) = found.remove(&shared.nqn) else { continue };
            let (nqn, seen) = (shared.nqn.clone(), seen?);
            if is_own(&nqn, own, &namesakes, &seen) {
                found.insert(nqn, Ok(seen));
            }
        }
        let managed = |(nqn, seen)| Some((ManagedNqn::new(prefix, nqn).ok()?, seen));
        Ok(found.into_iter().filter_map(managed).collect())
    }

    /// The record of a volume that was never written down, as the driver before this one left it: told by what of its device is
    /// at the path. It is as if the volume were staged and published there.
    pub fn unrecorded(&self, volume: &VolumeId, at: &KubeletPath) -> Result<Option<Record>, Error> {
        let host = &self.host;
        let mut connections = self.connections(volume, None)?;
        let (Some((nqn, seen)), true) = (connections.pop_first(), connections.is_empty()) else {
            return Ok(None);
        };
        let Subsystem { attachment, portals } = seen?;
        let (Some(device), Some(portal)) = (attachment.device(), portals.first()) else { return Ok(None) };
        let form = match host.mounts()?.top(at) {
            Some(mount) if mount.device == device.number => {
                mount.filesystem.parse().ok().map(Form::Filesystem)
            }
            _ => (host.found_at(at)? == Found::Node(device.number)).then_some(Form::Block),
        };
        let path = at.as_path().to_path_buf();
        Ok(form.map(|form| Record {
            volume: volume.clone(),
            nqn: nqn.as_nqn().clone(),
            portal: *portal,
            form,
            staging: path.clone(),
            published: [path].into(),
            policy: None,
            mending: Mending::Done,
        }))
    }

    /// Whatever keeps the volume busy, or what it was before its device was gone.
    pub fn holders(&self, volume: &VolumeId) -> Result<Vec<Holder>, Error> {
        let own = self.records.read(volume)?;
        let mut devices = Vec::new();
        for seen in self.connections(volume, own.as_ref())?.into_values() {
            devices.extend(seen?.attachment.device().map(|device| device.number));
        }
        if let Some(own) = &own {
            devices.extend(self.dead(own, &self.host.mounts()?)?);
        }
        Ok(self.host.holders(&devices)?)
    }

    /// The numbers of devices that are gone for good, and that something at the record's paths still is of.
    pub fn dead(&self, record: &Record, mounts: &Mounts) -> Result<BTreeSet<DeviceNumber>, host::Error> {
        let mut found = BTreeSet::new();
        for path in record.published.iter().chain([&record.staging]) {
            let mounted: Vec<_> = mounts.layers(path).map(|mount| mount.device).collect();
            if let (true, Some(path)) = (mounted.is_empty(), self.path(path))
                && let Ok(Found::Node(number)) = self.host.found_at(&path)
            {
                found.insert(number);
            }
            found.extend(mounted);
        }
        let mut dead = BTreeSet::new();
        for number in found {
            if !self.host.device_is_there(number)? {
                dead.insert(number);
            }
        }
        Ok(dead)
    }

    /// Whether the topmost mount there is of a device that is gone for good.
    pub(crate) fn is_dead(&self, mounts: &Mounts, at: &KubeletPath) -> Result<bool, host::Error> {
        mounts.top(at).map_or(Ok(false), |mount| Ok(!self.host.device_is_there(mount.device)?))
    }

    /// Where a volume is published: those of the paths in its record at which something still is.
    pub fn published(&self, record: &Record, mounts: &Mounts) -> Result<Vec<PathBuf>, host::Error> {
        let mut paths = Vec::new();
        for path in &record.published {
            let mounted = mounts.layers(path).next().is_some();
            let node = match self.path(path) {
                Some(path) if !mounted => matches!(self.host.found_at(&path)?, Found::Node(_)),
                _ => false,
            };
            if mounted || node {
                paths.push(path.clone());
            }
        }
        Ok(paths)
    }

    /// A path of a record, if it is still one that we would take from kubelet.
    pub(crate) fn path(&self, path: &Path) -> Option<KubeletPath> {
        self.kubelet.beneath(path.to_str()?).ok()
    }
}
