//! What every verb works on: the machine, and what we wrote down about the volumes on it.

use std::path::Path;

use rds_csi_api::{ManagedPrefix, VolumeId};

use crate::host::{Error, Holder, Host, KubeletDir, KubeletPath, ManagedNqn};

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
}

impl<H: Host> Volumes<H> {
    /// The volume's subsystems that the kernel knows, recorded or not.
    pub fn connections(&self, volume: &VolumeId) -> Result<Vec<ManagedNqn>, Error> {
        let ours = self
            .host
            .subsystems()?
            .into_iter()
            .filter(|nqn| self.prefix.volume(nqn).as_ref() == Some(volume));
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

    /// A path of a record, if it is still one that we would take from kubelet.
    pub fn path(&self, path: &Path) -> Option<KubeletPath> {
        self.kubelet.beneath(path.to_str()?).ok()
    }
}
