//! An array in memory, that keeps its volumes and fails when told to.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rds_csi_api::{Bytes, Nqn, VolumeId};

use super::{Array, Error, Export, Volume, Wanted};

/// The array. What it has can be looked at between calls.
#[derive(Debug)]
pub struct FakeArray {
    world: Mutex<World>,
}

#[derive(Debug)]
struct World {
    volumes: BTreeMap<VolumeId, Volume>,
    capacity: Bytes,
    fault: Option<Fault>,
    fences: usize,
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
        Self { world: Mutex::new(World { volumes: BTreeMap::new(), capacity, fault: None, fences: 0 }) }
    }

    /// The next operation, whichever it is, fails so.
    pub fn fail_once(&self, fault: Fault) {
        self.world().fault = Some(fault);
    }

    /// Everything on the array.
    pub fn volumes(&self) -> Vec<Volume> {
        self.world().volumes.values().cloned().collect()
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
        self.volumes.get_mut(id).ok_or_else(|| Error::Missing(id.clone()))
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
            if let Some(there) = world.volumes.get(id) {
                let conflict = |what, found: String, wanted: String| {
                    Err(Error::Conflict { id: id.clone(), what, found, wanted })
                };
                if there.port != wanted.port {
                    return conflict("port", there.port.to_string(), wanted.port.to_string());
                }
                if there.size != wanted.size {
                    return conflict("size", there.size.to_string(), wanted.size.to_string());
                }
                return Ok(there.clone());
            }
            let used: u64 = world.volumes.values().map(|volume| volume.size.get()).sum();
            if wanted.size.get() > world.capacity.get().saturating_sub(used) {
                return Err(Error::Full { id: id.clone(), text: "not enough space".into() });
            }
            let volume = Volume {
                id: id.clone(),
                size: wanted.size,
                nqn: Nqn::of_volume(id),
                port: wanted.port,
                export: wanted.export.normal(),
            };
            world.volumes.insert(id.clone(), volume.clone());
            Ok(volume)
        })
    }

    async fn volume(&self, id: &VolumeId) -> Result<Volume, Error> {
        self.operate(|world| world.volumes.get(id).cloned().ok_or_else(|| Error::Missing(id.clone())))
    }

    async fn delete(&self, id: &VolumeId) -> Result<(), Error> {
        self.operate(|world| {
            if let Some(Volume { export: Export::Hosts(_), .. }) = world.volumes.get(id) {
                return Err(Error::Strangers(id.clone()));
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
        self.operate(|world| world.set_export(id, before, after))
    }

    async fn fence(&self, id: &VolumeId, before: &Export, after: &Export) -> Result<Volume, Error> {
        self.operate(|world| {
            let volume = world.set_export(id, before, after)?;
            world.fences += 1;
            Ok(volume)
        })
    }
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
