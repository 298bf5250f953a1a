//! What every verb works on: the machine, and what we wrote down about the volumes on it.

use std::path::{Path, PathBuf};

use rds_csi_api::{ManagedPrefix, VolumeId};

use crate::host::{Error, Found, Holder, Host, KubeletDir, KubeletPath, ManagedNqn};
use crate::reads::Reads;

pub mod health;
pub mod record;
pub mod undo;

pub use record::{Record, Records};

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
}

impl<H: Host> Volumes<H> {
    /// The volume's subsystems that the kernel knows, recorded or not.
    pub fn connections(&self, volume: &VolumeId) -> Result<Vec<ManagedNqn>, Error> {
        let ours = self.host.subsystems()?.into_iter().filter(|nqn| self.prefix.is_of(nqn, volume));
        Ok(ours.filter_map(|nqn| ManagedNqn::new(&self.prefix, nqn).ok()).collect())
    }

    /// Whatever keeps the volume busy.
    pub fn holders(&self, volume: &VolumeId) -> Result<Vec<Holder>, Error> {
        let mut devices = Vec::new();
        for nqn in self.connections(volume)? {
            devices.extend(self.host.attachment(nqn.as_nqn())?.device().cloned());
        }
        self.host.holders(&devices.iter().collect::<Vec<_>>())
    }

    /// Where a volume is published: those of the paths in its record at which something still is.
    pub fn published(&self, record: &Record) -> Result<Vec<PathBuf>, Error> {
        let mounts = self.host.mounts()?;
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
