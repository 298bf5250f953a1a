//! An array in memory, that keeps its volumes and fails when told to.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rds_csi_api::{Bytes, Nqn, ReconnectPolicy, SnapshotId, VolumeId};

use super::names::is_snapshot_of_go;
use super::{
    Array, Capacity, Content, Digest, Error, Export, IfOpen, Inventory, Label, Layout, Owner, Snapshot,
    Soundness, Source, Stray, Subject, Volume, Wanted, WantedSnapshot, next_name,
};

/// The array. What it has can be looked at between calls.
#[derive(Debug)]
pub struct FakeArray {
    world: Mutex<World>,
}

#[derive(Debug)]
struct World {
    volumes: BTreeMap<VolumeId, Kept>,
    snapshots: BTreeMap<SnapshotId, Snapshot>,
    strays: Vec<Stray>,
    capacity: Bytes,
    fault: Option<Fault>,
    fences: usize,
}

/// A volume, and what it was asked for with.
#[derive(Debug)]
struct Kept {
    volume: Volume,
    content: Content,
    parameters: Digest,
}

/// A volume as a test wants it: empty, and nobody let in.
pub fn wanted(id: &str, size: Bytes) -> Wanted {
    Wanted {
        id: id.parse().expect("the test's ids are valid"),
        content: Content::Empty(size),
        port: 4420,
        export: Export::Off,
        reconnect: None,
        parameters: Digest::of([]),
        label: Label::default(),
    }
}

/// When the next operation fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Before it had any effect.
    Before(Error),
    /// After it had its whole effect: the caller cannot know.
    After(Error),
}

impl FakeArray {
    /// An empty array with so much space.
    pub fn new(capacity: Bytes) -> Self {
        let (volumes, snapshots) = (BTreeMap::new(), BTreeMap::new());
        Self {
            world: Mutex::new(World {
                volumes,
                snapshots,
                strays: Vec::new(),
                capacity,
                fault: None,
                fences: 0,
            }),
        }
    }

    /// The next operation, whichever it is, fails so.
    pub fn fail_once(&self, fault: Fault) {
        self.world().fault = Some(fault);
    }

    /// Everything on the array.
    pub fn volumes(&self) -> Vec<Volume> {
        self.world().volumes.values().map(|kept| kept.volume.clone()).collect()
    }

    /// Every snapshot on it.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.world().snapshots.values().cloned().collect()
    }

    /// Puts a volume there that this driver did not make, such as one of the Go driver.
    pub fn put(&self, volume: Volume) {
        let content = Content::Empty(volume.size);
        let kept = Kept { content, parameters: Digest::of([]), volume };
        self.world().volumes.insert(kept.volume.id.clone(), kept);
    }

    /// Puts something odd there.
    pub fn put_stray(&self, stray: Stray) {
        self.world().strays.push(stray);
    }

    /// How often connections were cut.
    pub fn fences(&self) -> usize {
        self.world().fences
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn operate<T>(&self, operation: impl FnOnce(&mut World) -> Result<T, Error>) -> Result<T, Error> {
        let mut world = self.world();
        match world.fault.take() {
            Some(Fault::Before(error)) => Err(error),
            Some(Fault::After(error)) => operation(&mut world).and(Err(error)),
            None => operation(&mut world),
        }
    }
}

impl World {
    fn volume(&mut self, id: &VolumeId) -> Result<&mut Volume, Error> {
        self.volumes.get_mut(id).map(|kept| &mut kept.volume).ok_or_else(|| Error::Missing(id.clone()))
    }

    fn free(&self) -> u64 {
        let used: u64 = self.volumes.values().map(|kept| kept.volume.size.get()).sum();
        self.capacity.get().saturating_sub(used)
    }

    fn size_of(&self, content: &Content) -> Result<Bytes, Error> {
        let (source, least, most) = match content {
            Content::Empty(size) => return Ok(*size),
            Content::CopyOf { source, least, most } => (source, *least, *most),
        };
        let (size, source_of) = match source {
            Source::Snapshot(id) if is_snapshot_of_go(id) => return Err(Error::NoData(id.clone())),
            Source::Snapshot(id) => {
                let snapshot = self.snapshots.get(id).ok_or_else(|| Error::MissingSnapshot(id.clone()))?;
                (snapshot.size, Subject::from(id))
            }
            Source::Volume(id) => (self.sliceable(id)?.size, Subject::from(id)),
        };
        match most {
            Some(most) if size > most => Err(Error::SourceTooLarge { source_of, size, most }),
            _ => Ok(least.map_or(size, |least| least.max(size))),
        }
    }

    /// A volume that snapshots can be taken of.
    fn sliceable(&self, id: &VolumeId) -> Result<&Volume, Error> {
        let kept = self.volumes.get(id).ok_or_else(|| Error::Missing(id.clone()))?;
        match (kept.volume.layout, &kept.volume.soundness) {
            (Layout::FlatFile, _) => Err(Error::Flat(id.clone())),
            (Layout::Subvolume, Soundness::Damaged(how)) => {
                Err(Error::Damaged { subject: id.into(), how: how.clone() })
            }
            (Layout::Subvolume, Soundness::Sound) => Ok(&kept.volume),
        }
    }

    /// Sets the export, unless it lets hosts in by name that are not among these.
    fn set_export(&mut self, id: &VolumeId, known: &Export, export: &Export) -> Result<Volume, Error> {
        let volume = self.volume(id)?;
        let strangers = match (&volume.export, known) {
            (Export::Hosts(present), Export::Hosts(known)) => !present.is_subset(known),
            (Export::Hosts(_), Export::Off) => true,
            _ => false,
        };
        if strangers {
            return Err(Error::Strangers(id.clone()));
        }
        volume.export = export.normal();
        Ok(volume.clone())
    }
}

impl Array for FakeArray {
    async fn create(&self, wanted: &Wanted) -> Result<Volume, Error> {
        self.operate(|world| {
            let id = &wanted.id;
            if let Some(Kept { volume: there, content, parameters }) = world.volumes.get(id) {
                let conflict = |what, found: String, wanted: String| {
                    Err(Error::Conflict { subject: id.into(), what, found, wanted })
                };
                if there.port != wanted.port {
                    return conflict("port", there.port.to_string(), wanted.port.to_string());
                }
                return match (&wanted.content, content) {
                    (Content::Empty(size), Content::Empty(_)) if there.size != *size => {
                        conflict("size", there.size.to_string(), size.to_string())
                    }
                    (Content::CopyOf { source, .. }, Content::CopyOf { source: present, .. })
                        if source != present =>
                    {
                        conflict("content source", format!("{present:?}"), format!("{source:?}"))
                    }
                    (Content::CopyOf { least, .. }, Content::CopyOf { least: present, .. })
                        if least != present =>
                    {
                        conflict("size", format!("{present:?}"), format!("{least:?}"))
                    }
                    (Content::Empty(_), Content::CopyOf { .. })
                    | (Content::CopyOf { .. }, Content::Empty(_)) => {
                        conflict("content source", format!("{content:?}"), format!("{:?}", wanted.content))
                    }
                    _ if *parameters != wanted.parameters => {
                        conflict("parameters", parameters.to_string(), wanted.parameters.to_string())
                    }
                    _ => Ok(there.clone()),
                };
            }
            let size = world.size_of(&wanted.content)?;
            if size.get() > world.free() {
                return Err(Error::Full { subject: id.into(), text: "not enough space".into() });
            }
            let volume = Volume {
                id: id.clone(),
                size,
                nqn: Nqn::of_volume(id),
                port: wanted.port,
                export: wanted.export.normal(),
                source: match &wanted.content {
                    Content::Empty(_) => None,
                    Content::CopyOf { source, .. } => Some(source.clone()),
                },
                reconnect: wanted.reconnect,
                owner: Owner::ThisCluster,
                layout: Layout::Subvolume,
                soundness: Soundness::Sound,
            };
            let (content, parameters) = (wanted.content.clone(), wanted.parameters);
            world.volumes.insert(id.clone(), Kept { volume: volume.clone(), content, parameters });
            Ok(volume)
        })
    }

    async fn volume(&self, id: &VolumeId) -> Result<Volume, Error> {
        self.operate(|world| world.volume(id).cloned())
    }

    async fn delete(&self, id: &VolumeId, if_open: IfOpen) -> Result<(), Error> {
        self.operate(|world| {
            match (world.volumes.get(id).map(|kept| &kept.volume.export), if_open) {
                (Some(Export::Hosts(_)), _) => return Err(Error::Strangers(id.clone())),
                (Some(Export::AnyHost), IfOpen::Refuse) => return Err(Error::Open(id.clone())),
                (Some(Export::AnyHost), IfOpen::GoOn) | (Some(Export::Off) | None, _) => {}
            }
            world.volumes.remove(id);
            Ok(())
        })
    }

    async fn admit(&self, id: &VolumeId, export: &Export) -> Result<Volume, Error> {
        self.operate(|world| {
            if world.volume(id)?.export == Export::AnyHost && *export != Export::AnyHost {
                return Err(Error::Open(id.clone()));
            }
            world.set_export(id, export, export)
        })
    }

    async fn dismiss(&self, id: &VolumeId, before: &Export, after: &Export) -> Result<Volume, Error> {
        self.operate(|world| {
            let open = world.volume(id)?.export == Export::AnyHost;
            if open && *before != Export::AnyHost && matches!(after.normal(), Export::Hosts(_)) {
                return Err(Error::Open(id.clone()));
            }
            world.set_export(id, before, after)
        })
    }

    async fn fence(
        &self,
        id: &VolumeId,
        cut: &Nqn,
        before: &Export,
        after: &Export,
    ) -> Result<Volume, Error> {
        self.operate(|world| {
            let next = next_name(id, cut)?;
            let there = world.volume(id)?.clone();
            if there.nqn != *cut {
                return Ok(there);
            }
            let fenced = world.set_export(id, before, after)?;
            world.fences += 1;
            if fenced.export != Export::Off {
                return Ok(fenced);
            }
            world.volume(id)?.nqn = next;
            world.volume(id).cloned()
        })
    }

    async fn expand(&self, id: &VolumeId, to: Bytes) -> Result<Volume, Error> {
        self.operate(|world| {
            let more = to.get().saturating_sub(world.volume(id)?.size.get());
            if more > world.free() {
                return Err(Error::Full { subject: id.into(), text: "not enough space".into() });
            }
            let volume = world.volume(id)?;
            volume.size = volume.size.max(to);
            Ok(volume.clone())
        })
    }

    async fn modify(&self, id: &VolumeId, reconnect: &ReconnectPolicy) -> Result<Volume, Error> {
        self.operate(|world| {
            let volume = world.volume(id)?;
            volume.reconnect = Some(*reconnect);
            Ok(volume.clone())
        })
    }

    async fn take_snapshot(&self, wanted: &WantedSnapshot) -> Result<Snapshot, Error> {
        self.operate(|world| {
            if let Some(there) = world.snapshots.get(&wanted.id) {
                if there.source == wanted.source {
                    return Ok(there.clone());
                }
                let (found, wanted_so) = (there.source.to_string(), wanted.source.to_string());
                let subject = Subject::from(&wanted.id);
                return Err(Error::Conflict { subject, what: "source volume", found, wanted: wanted_so });
            }
            let snapshot = Snapshot {
                id: wanted.id.clone(),
                source: wanted.source.clone(),
                size: world.sliceable(&wanted.source)?.size,
                taken: to_the_second(wanted.now),
            };
            world.snapshots.insert(wanted.id.clone(), snapshot.clone());
            Ok(snapshot)
        })
    }

    async fn snapshot(&self, id: &SnapshotId) -> Result<Snapshot, Error> {
        self.operate(|world| {
            world.snapshots.get(id).cloned().ok_or_else(|| Error::MissingSnapshot(id.clone()))
        })
    }

    async fn delete_snapshot(&self, id: &SnapshotId) -> Result<(), Error> {
        self.operate(|world| {
            world.snapshots.remove(id);
            Ok(())
        })
    }

    async fn inventory(&self) -> Result<Inventory, Error> {
        self.operate(|world| {
            Ok(Inventory {
                volumes: world.volumes.values().map(|kept| kept.volume.clone()).collect(),
                snapshots: world.snapshots.values().cloned().collect(),
                strays: world.strays.clone(),
            })
        })
    }

    async fn capacity(&self) -> Result<Capacity, Error> {
        self.operate(|world| Ok(Capacity { size: world.capacity, free: Bytes::new(world.free()) }))
    }
}

fn to_the_second(time: SystemTime) -> SystemTime {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + std::time::Duration::from_secs(since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::contract;

    #[tokio::test]
    async fn the_fake_keeps_the_contract() {
        contract::every_clause(&FakeArray::new(Bytes::gib(1 << 20))).await;
    }
}
