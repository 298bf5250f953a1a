//! A device that is mounted far too often: nothing more is done to the volume, and people are told.
//!
//! A bind mount of a device file under shared propagation was once multiplied to two thousand mounts, and the kernel ran out of
//! memory. Each further mount or unmount of such a device is multiplied, too. Only NodeUnpublishVolume goes on: it takes mounts away.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rds_csi_api::{Failure, Kind, VolumeId};

use crate::host::{self, Device, Host, Mounts};
use crate::volumes::{self, Volumes};

/// So many mounts of one device are no use, they are a fault. A node has at most some 110 pods, and few of them share a volume.
const MOST: usize = 100;

/// A device is mounted too often.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{device} of volume {volume} is mounted {count} times on this node, and {MOST} is a mount storm: it is neither staged, published \
     nor unstaged; delete the pods that use it, and unmount what is left (grep '{number}\\|{name}' /proc/self/mountinfo)",
    name = device.name,
    number = device.number
)]
pub struct Storm {
    volume: VolumeId,
    device: Device,
    count: usize,
}

/// Why nothing is done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The volume is in a storm.
    #[error(transparent)]
    Storm(#[from] Storm),
    /// The machine could not be read.
    #[error(transparent)]
    Host(#[from] host::Error),
    /// The volume could not be looked at.
    #[error(transparent)]
    Volumes(#[from] volumes::Error),
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Storm(_) => Kind::Refused,
            Self::Host(error) => error.kind(),
            Self::Volumes(error) => error.kind(),
        }
    }
}

/// The storm that a volume's device is in, if it is in one.
pub fn of(mounts: &Mounts, volume: &VolumeId, device: &Device) -> Option<Storm> {
    let mut places = BTreeSet::new();
    // A pod has as many subPaths as it asks for, each once.
    let count = mounts.of(device).filter(|mount| !is_subpath(&mount.at) || !places.insert(&mount.at)).count();
    (count >= MOST).then(|| Storm { volume: volume.clone(), device: device.clone(), count })
}

/// Whether kubelet binds a directory of a volume there, for one container: `pods/UID/volume-subpaths/VOLUME/CONTAINER/NUMBER`.
fn is_subpath(at: &Path) -> bool {
    at.components().any(|part| part.as_os_str() == "volume-subpaths")
}

/// Refuses a volume in a storm.
pub fn check<H: Host>(volumes: &Volumes<H>, volume: &VolumeId, mounts: &Mounts) -> Result<(), Error> {
    let mut devices = BTreeMap::new();
    for mount in mounts.iter() {
        *devices.entry(mount.device).or_insert(0) += 1;
    }
    // Nearly always: then the volume's device needs not be looked for.
    if devices.into_values().all(|count: usize| count < MOST) {
        return Ok(());
    }
    let own = volumes.records.read(volume).map_err(volumes::Error::from)?;
    for seen in volumes.connections(volume, own.as_ref())?.into_values() {
        if let Some(storm) = seen?.attachment.device().and_then(|device| of(mounts, volume, device)) {
            return Err(storm.into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Holds;
    use crate::monitor::changes;
    use crate::publish::{self, publish};
    use crate::stage::{self, stage};
    use crate::unpublish::unpublish;
    use crate::unstage::unstage;
    use crate::volumes::health::Ailment;
    use crate::volumes::survey::survey;
    use crate::world::{World, world};

    const WRITING: publish::Usage = publish::Usage::Filesystem(publish::Writing::Allowed);

    /// A volume that is staged and published, and mounted as often as is said.
    fn stormy(count: usize) -> World {
        let world = world(Holds::Nothing);
        stage(&world.volumes, &world.stage_filesystem()).unwrap();
        publish(&world.volumes, &world.publish_as(WRITING)).unwrap();
        for number in 2..count {
            world.host.mount_again(&world.nqn, Path::new(&format!("/elsewhere/{number}")));
        }
        world
    }

    #[test]
    fn lesson_15_a_mount_storm_stops_whatever_would_feed_it_and_names_the_device() {
        let world = stormy(MOST);
        let before = world.host.snapshot();
        let staged = stage(&world.volumes, &world.stage_filesystem()).unwrap_err();
        assert_eq!(staged.kind(), Kind::Unsure, "it stays staged: {staged}");
        let published = publish(&world.volumes, &world.publish_as(WRITING)).unwrap_err();
        let unstaged = unstage(&world.volumes, &world.unstage()).unwrap_err();
        assert_eq!((published.kind(), unstaged.kind()), (Kind::Refused, Kind::Refused));
        for error in [rds_csi_api::status::chain(&staged), published.to_string(), unstaged.to_string()] {
            for fact in ["/dev/nvme1n1", "pvc-a", "mounted 100 times", "delete the pods"] {
                assert!(error.contains(fact), "{fact} is missing: {error}");
            }
        }
        assert_eq!(world.host.snapshot(), before);
        unpublish(&world.volumes, &world.unpublish()).unwrap();
        stage(&world.volumes, &world.stage_filesystem()).unwrap();
    }

    #[test]
    fn one_mount_less_is_no_storm_and_another_device_s_storm_is_not_ours() {
        let world = stormy(MOST - 1);
        for number in 0..MOST {
            world.host.mount_foreign(Path::new(&format!("/system/{number}")));
        }
        stage(&world.volumes, &world.stage_filesystem()).unwrap();
        publish(&world.volumes, &world.publish_as(WRITING)).unwrap();
    }

    #[test]
    fn subpaths_are_no_storm_unless_they_are_mounted_over_each_other() {
        let world = stormy(2);
        let subpath = |number| format!("/var/lib/kubelet/pods/p/volume-subpaths/pvc-a/main/{number}");
        for number in 0..2 * MOST {
            world.host.mount_again(&world.nqn, Path::new(&subpath(number)));
        }
        stage(&world.volumes, &world.stage_filesystem()).unwrap();
        for _ in 0..MOST {
            world.host.mount_again(&world.nqn, Path::new(&subpath(0)));
        }
        let error =
            rds_csi_api::status::chain(&stage(&world.volumes, &world.stage_filesystem()).unwrap_err());
        assert!(error.contains("mounted 102 times"), "{error}");
    }

    #[test]
    fn mounts_of_the_device_s_own_node_are_mounts_of_the_device() {
        let world = world(Holds::Nothing);
        stage(&world.volumes, &world.stage_as(stage::Usage::Block)).unwrap();
        for number in 0..MOST {
            world.host.mount_device_node(&world.nqn, Path::new(&format!("/pods/{number}")));
        }
        let error = unstage(&world.volumes, &world.unstage()).unwrap_err().to_string();
        assert!(error.contains("mounted 100 times"), "{error}");
    }

    #[test]
    fn a_storm_is_told_once_also_if_nobody_calls() {
        let world = stormy(MOST);
        let seen = survey(&world.volumes).unwrap().seen.remove(&world.volume).unwrap();
        let trouble = seen.trouble.unwrap();
        assert_eq!(trouble.ailment, Ailment::Storm);
        let told = |before| changes(&world.volume, before, Some(&trouble));
        assert_eq!(told(None), [(crate::events::Reason::MountStorm, trouble.told.clone())]);
        assert_eq!(told(Some(Ailment::Storm)), []);
    }
}
