//! Records as annotations of PersistentVolumes. A record is replaced by one patch that holds only while the object is the
//! one that was loaded.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PersistentVolume;
use kube::api::{Patch, PatchParams};
use rds_csi_api::{DRIVER_NAME, VolumeId};
use serde_json::json;

use super::{Ledger, Unanswered, answer, if_any};
use crate::attachments::Record;
use crate::attachments::store::{Error, Revision, Store, Stored};
use crate::cluster::cache::{Digest as _, State};
use crate::cluster::claims::list;
use crate::cluster::objects::{RECORD, Volume};

/// How often a record is written that others have not changed, in an object that they have.
const TRIES: usize = 5;

/// What a volume without a PersistentVolume has for a revision.
const NO_OBJECT: &str = "";

impl Store for Ledger {
    async fn load(&self, volume: &VolumeId) -> Result<Stored, Error> {
        let cached = self.volumes.current().map(|volumes| found(&volumes, volume));
        let found = match cached {
            Ok(Ok(None)) => self.asked_for(volume).await.map_err(|why| Error::Unreachable { why })??,
            Ok(found) => found?,
            // The watch is broken, which says nothing about whether it would answer.
            Err(unheard) => self
                .asked_for(volume)
                .await
                .map_err(|why| Error::Unreachable { why: format!("{unheard}; {why}") })??,
        };
        let Some(found) = found else {
            return Ok(Stored { record: Record::default(), revision: Revision::new(NO_OBJECT) });
        };
        let unreadable = |why| Error::Unreadable { id: volume.clone(), why };
        let record = found.record.map_err(unreadable)?;
        Ok(Stored { revision: revision(&found.version, &record), record })
    }

    async fn list(&self) -> Result<BTreeMap<VolumeId, Record>, Error> {
        let heard = self.volumes.current();
        let heard = heard.map(|volumes| volumes.all().map(|(_, volume)| volume.clone()).collect::<Vec<_>>());
        let volumes = match heard {
            Ok(volumes) => volumes,
            Err(unheard) => {
                let all = self.all_volumes().await;
                let all = all.map_err(|why| Error::Unreachable { why: format!("{unheard}; {why}") })?;
                all.into_iter().filter_map(Volume::of).collect()
            }
        };
        let mut records = BTreeMap::new();
        for volume in volumes {
            let record = volume.record.map_err(|why| Error::Unreadable { id: volume.id.clone(), why })?;
            if !record.is_empty() {
                records.insert(volume.id, record);
            }
        }
        Ok(records)
    }

    fn seen(&self) -> Option<BTreeMap<VolumeId, Record>> {
        let volumes = self.volumes.last()?;
        let readable = volumes.all().filter_map(|(_, volume)| {
            let record = volume.record.as_ref().ok().filter(|record| !record.is_empty())?;
            Some((volume.id.clone(), record.clone()))
        });
        Some(readable.collect())
    }

    async fn replace(&self, volume: &VolumeId, loaded: Revision, record: Record) -> Result<Revision, Error> {
        let name =
            self.volumes.last().and_then(|volumes| volumes.at(volume).next().map(|is| is.name.clone()));
        let Some(name) = name else { return Err(Error::NoSuchVolume(volume.clone())) };
        let Some((version, before)) = loaded.as_str().split_once(' ') else {
            return Err(Error::Changed(volume.clone()));
        };
        let mut version = version.to_owned();
        for _ in 0..TRIES {
            match self.write(&name, &version, &record).await {
                Ok(version) => return Ok(revision(&version, &record)),
                Err(Unanswered::Missing) => {
                    self.volumes.unlearn(&name);
                    return Err(Error::NoSuchVolume(volume.clone()));
                }
                Err(Unanswered::Failed(why)) => return Err(Error::Unreachable { why }),
                Err(Unanswered::Conflict) => {}
            }
            // Kubernetes itself changes the object, too. Only another record is another decision. Its times tell it from one that
            // reads the same, but for the empty one, which is as good as new.
            let object = answer(self.persistent_volumes().get(&name)).await;
            let object = object.map_err(|unanswered| Error::Unreachable { why: unanswered.why() })?;
            self.volumes.learn(object.clone());
            match Volume::of(object) {
                Some(Volume { version: present, record: Ok(record), .. }) if written(&record) == before => {
                    version = present;
                }
                _ => return Err(Error::Changed(volume.clone())),
            }
        }
        Err(Error::Changed(volume.clone()))
    }
}

/// Which record this is: of which state of the object, and what it says.
fn revision(version: &str, record: &Record) -> Revision {
    Revision::new(format!("{version} {}", written(record)))
}

/// A record as it is written.
fn written(record: &Record) -> String {
    json!(record).to_string()
}

/// The PersistentVolume of a volume, if it has one.
fn found(volumes: &State<Volume>, id: &VolumeId) -> Result<Option<Volume>, Error> {
    let mut named = volumes.at(id);
    match (named.next(), named.next()) {
        (Some(one), Some(other)) => {
            let why = format!("PersistentVolumes {} and {} both name it", one.name, other.name);
            Err(Error::Unreadable { id: id.clone(), why })
        }
        (one, _) => Ok(one.cloned()),
    }
}

impl Ledger {
    /// The PersistentVolume of a volume as the API server has it.
    pub(super) async fn asked_for(&self, id: &VolumeId) -> Result<Result<Option<Volume>, Error>, String> {
        let known = self.volumes.last().map(|volumes| found(&volumes, id));
        match known {
            Some(Ok(Some(known))) => {
                let object = if_any(answer(self.persistent_volumes().get(&known.name)).await)?;
                match &object {
                    Some(object) => self.volumes.learn(object.clone()),
                    None => self.volumes.unlearn(&known.name),
                }
                Ok(Ok(object.and_then(Volume::of).filter(|volume| volume.id == *id)))
            }
            Some(Err(error)) => Ok(Err(error)),
            // It may have been made since. There is no asking for what names a volume.
            Some(Ok(None)) | None => {
                let is_its = |object: &PersistentVolume| {
                    let csi = object.spec.as_ref().and_then(|spec| spec.csi.as_ref());
                    csi.is_some_and(|csi| csi.driver == DRIVER_NAME && csi.volume_handle == id.as_str())
                };
                let objects: Vec<_> = self.all_volumes().await?.into_iter().filter(is_its).collect();
                objects.iter().cloned().for_each(|object| self.volumes.learn(object));
                Ok(found(&State::of(objects), id))
            }
        }
    }

    /// Writes a record into the object that has this version; which one it has then.
    async fn write(&self, name: &str, version: &str, record: &Record) -> Result<String, Unanswered> {
        let written = (!record.is_empty()).then(|| written(record));
        let patch = Patch::Merge(json!({ "metadata": {
            "resourceVersion": version,
            "annotations": { RECORD: written },
        }}));
        let object = answer(self.persistent_volumes().patch(name, &PatchParams::default(), &patch)).await?;
        let version = object.metadata.resource_version.clone().unwrap_or_default();
        self.volumes.learn(object);
        Ok(version)
    }

    /// All PersistentVolumes as the API server has them.
    async fn all_volumes(&self) -> Result<Vec<PersistentVolume>, String> {
        answer(list(&self.persistent_volumes())).await.map_err(Unanswered::why)
    }
}
