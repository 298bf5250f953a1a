//! Everything in the pool at once, and how much room it has.

use std::collections::{BTreeMap, BTreeSet};

use rds_csi_api::{SnapshotId, VolumeId};

use super::RouterOs;
use super::note::Facts;
use super::outcome::{Concerns, garbled};
use super::reply::{self, Disk, File, Pool, Subvolume, Unreadable};
use super::snapshot::{Access, Named};
use super::volume::{owner, soundness, volume};
use crate::array::names::{is_of_go, is_of_this_driver};
use crate::array::{Capacity, Error, Inventory, Layout, Owner, Snapshot, Soundness, Stray, Subject, Volume};

impl RouterOs {
    pub(super) async fn everything(&self) -> Result<Inventory, Error> {
        let printed = self.run(self.place().inventory(), &self.of_the_pool()).await?;
        let lists: Vec<&str> = printed.lines().collect();
        let [disks, subvolumes, files] = lists[..] else {
            return Err(garbled("it is not three lists", &printed));
        };
        let unreadable = |why: Unreadable| garbled(&why.to_string(), &printed);
        let disks = reply::list(disks).map_err(unreadable)?;
        let subvolumes = reply::list(subvolumes).map_err(unreadable)?;
        let files = reply::list(files).map_err(unreadable)?;
        Ok(self.sorted(&disks, &subvolumes, &files))
    }

    pub(super) async fn room(&self) -> Result<Capacity, Error> {
        let printed = self.run(self.place().capacity(), &self.of_the_pool()).await?;
        let pools: Vec<Pool> = reply::list(&printed).map_err(|why| garbled(&why.to_string(), &printed))?;
        match pools[..] {
            [Pool { size, free }] => Ok(Capacity { size, free }),
            _ => Err(Error::NoPool { pool: self.pool.clone() }),
        }
    }

    fn of_the_pool(&self) -> Concerns {
        Concerns::of(Subject::Pool(self.pool.clone()))
    }

    fn sorted(&self, disks: &[Disk], subvolumes: &[Subvolume], files: &[File]) -> Inventory {
        let images: BTreeMap<&str, &File> = files.iter().map(|file| (file.name.as_str(), file)).collect();
        let names: BTreeSet<&str> = subvolumes.iter().map(|subvolume| subvolume.name.as_str()).collect();
        let mut inventory = Inventory::default();
        for disk in disks {
            match self.judged(disk, &images, &names) {
                Judged::Volume(volume) => inventory.volumes.push(volume),
                Judged::Stray(why) => inventory.strays.push(Stray { name: disk.slot.clone(), why }),
                Judged::SomebodyElses => {}
            }
        }
        for subvolume in subvolumes {
            match self.sorted_subvolume(subvolume, disks) {
                Some(Ok(snapshot)) => inventory.snapshots.push(snapshot),
                Some(Err(why)) => {
                    inventory.strays.push(Stray { name: subvolume.name.clone(), why: why.into() });
                }
                None => {}
            }
        }
        let used: BTreeSet<&str> = disks.iter().filter_map(|disk| disk.path.strip_prefix('/')).collect();
        let flat =
            files.iter().filter(|file| !used.contains(file.name.as_str()) && is_flat_image(&file.name));
        inventory.strays.extend(flat.map(|file| Stray {
            name: file.name.clone(),
            why: "it has the name of a volume of the earlier driver, and no disk uses it".into(),
        }));
        inventory.volumes.sort_by(|a, b| a.id.cmp(&b.id));
        inventory.snapshots.sort_by(|a, b| a.id.cmp(&b.id));
        inventory.strays.sort_by(|a, b| a.name.cmp(&b.name));
        inventory
    }

    fn judged(&self, disk: &Disk, images: &BTreeMap<&str, &File>, subvolumes: &BTreeSet<&str>) -> Judged {
        let ours = match owner(&Facts::read(&disk.comment), &self.cluster) {
            None => return Judged::SomebodyElses,
            Some(owner) => owner == Owner::ThisCluster,
        };
        let read = VolumeId::in_slot(self.backend.as_ref(), &disk.slot)
            .map_err(|error| error.to_string())
            .and_then(|id| volume(self.place(), &id, disk).map_err(|error| error.to_string()));
        let volume = match read {
            Ok(volume) => volume,
            Err(why) if ours => return Judged::Stray(why),
            Err(_) => return Judged::SomebodyElses,
        };
        let path = disk.path.strip_prefix('/').unwrap_or(&disk.path);
        let soundness = if volume.layout == Layout::Subvolume && !subvolumes.contains(disk.slot.as_str()) {
            Soundness::Damaged("its subvolume is missing on the array".into())
        } else {
            soundness(disk, images.get(path).copied())
        };
        Judged::Volume(Volume { soundness, ..volume })
    }

    /// A snapshot, or why it is a stray; none if it is a part of a volume, or somebody else's.
    fn sorted_subvolume(
        &self,
        subvolume: &Subvolume,
        disks: &[Disk],
    ) -> Option<Result<Snapshot, &'static str>> {
        let name = subvolume.name.as_str();
        let below = format!("/{}/{name}/", self.pool);
        let used = || disks.iter().any(|disk| disk.path.starts_with(&below));
        if name.ends_with(&format!(".{}.making", self.cluster)) {
            return Some(Err("a copy was begun and not finished: its repeat or its deletion removes this"));
        }
        if name.starts_with(SnapshotId::PREFIX) {
            let Some(Named { access, facts }) = Named::read(subvolume, &self.cluster) else {
                let ours = name.split('.').nth(1) == Some(self.cluster.as_str());
                return ours.then_some(Err("it is named like a snapshot, and cannot be read as one"));
            };
            return Some(match (access, facts.snapshot(self.backend.as_ref())) {
                (Access::ReadOnly, Some(snapshot)) => Ok(snapshot),
                (Access::ReadOnly, None) => Err("it is named like a snapshot, and cannot be read as one"),
                (Access::Writable, _) => Err("it is named like a snapshot, and can be written to"),
            });
        }
        (is_of_this_driver(name) && !used())
            .then_some(Err("it has the name of a volume, and no disk uses what is in it"))
    }
}

/// What a disk in the pool is.
enum Judged {
    Volume(Volume),
    /// Ours, and unlike any volume.
    Stray(String),
    SomebodyElses,
}

/// Whether a file has a name that only the Go driver gives: `pvc-<uuid>.img`.
fn is_flat_image(path: &str) -> bool {
    let name = path.rsplit('/').next().and_then(|name| name.strip_suffix(".img"));
    name.is_some_and(is_of_go)
}
