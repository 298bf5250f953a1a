//! Which volumes and snapshots somebody claims, as Kubernetes says. It is the whole truth or an error: a list that came in
//! part, late, or with something in it that nobody understands says nothing.
//!
//! Claims are compared by slot, whatever backend stands before it: slots of different backends differ, and a backend that was
//! renamed in the configuration must not make its volumes look abandoned.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{ApiResource, ListParams, Object};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use rds_csi_api::{BackendName, DRIVER_NAME, SnapshotId, SnapshotName, VolumeId, VolumeName};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Objects per answer.
const PAGE: u32 = 500;

/// Who claims what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims {
    /// Slots that a PersistentVolume names.
    volumes: BTreeSet<String>,
    /// Names of volumes that belong to a claim without a PersistentVolume.
    expected: BTreeSet<VolumeName>,
    snapshots: Snapshots,
}

/// Who claims snapshots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Snapshots {
    /// The cluster has no VolumeSnapshotContents, so nobody can say.
    #[default]
    NotServed,
    /// These.
    Claimed {
        /// Slots that a VolumeSnapshotContent names.
        slots: BTreeSet<String>,
        /// Names of snapshots that are being taken.
        expected: BTreeSet<SnapshotName>,
    },
}

/// Whether somebody claims something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claimed {
    /// Somebody does.
    Yes,
    /// Nobody does.
    No,
    /// Nobody can say.
    Unknown,
}

/// Why it is not known who claims what.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server did not give the list.
    #[error("Kubernetes does not list its {what}")]
    Api {
        /// Of what.
        what: &'static str,
        /// What it said.
        #[source]
        source: Box<kube::Error>,
    },
    /// It did not give them in time.
    #[error("Kubernetes did not list who claims what within {0:?}")]
    Late(Duration),
    /// An object of ours names something that has no meaning here.
    #[error(
        "{kind} {name} names {handle:?}, which is no id: correct or remove it, for until then nothing can be said to be unclaimed"
    )]
    Handle {
        /// What kind of object.
        kind: &'static str,
        /// Which one.
        name: String,
        /// What it names.
        handle: String,
    },
}

/// A VolumeSnapshotContent, as far as it says which snapshot it is.
type SnapshotContent = Object<ContentSpec, ContentStatus>;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct ContentSpec {
    driver: String,
    source: ContentSource,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContentSource {
    snapshot_handle: Option<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContentStatus {
    snapshot_handle: Option<String>,
}

/// Asks for every claim, for so long at most.
pub async fn ask(client: &Client, deadline: Duration) -> Result<Claims, Error> {
    tokio::time::timeout(deadline, all(client)).await.map_err(|_| Error::Late(deadline))?
}

async fn all(client: &Client) -> Result<Claims, Error> {
    let failed = |what| move |source: kube::Error| Error::Api { what, source: source.into() };
    // Claims before volumes: one that was bound in between is in both lists, and never in none.
    let wanted: Vec<PersistentVolumeClaim> =
        list(&Api::all(client.clone())).await.map_err(failed("PersistentVolumeClaims"))?;
    let volumes: Vec<PersistentVolume> =
        list(&Api::all(client.clone())).await.map_err(failed("PersistentVolumes"))?;
    let kind = GroupVersionKind::gvk("snapshot.storage.k8s.io", "v1", "VolumeSnapshotContent");
    let resource = ApiResource::from_gvk_with_plural(&kind, "volumesnapshotcontents");
    let contents: Option<Vec<SnapshotContent>> = match list(&Api::all_with(client.clone(), &resource)).await {
        Ok(contents) => Some(contents),
        // No such kind of object: snapshots are then claimed by nothing that could be asked.
        Err(kube::Error::Api(status)) if status.code == 404 => None,
        Err(error) => return Err(failed("VolumeSnapshotContents")(error)),
    };
    let mut claims = of_volumes(wanted, volumes)?;
    if let Some(contents) = contents {
        claims.snapshots = Snapshots::Claimed { slots: BTreeSet::new(), expected: BTreeSet::new() };
        for content in contents.into_iter().filter(|content| content.spec.driver == DRIVER_NAME) {
            let taken = content.status.and_then(|status| status.snapshot_handle);
            let handle = taken.or(content.spec.source.snapshot_handle);
            claims.claim_snapshot(&content.metadata.name.unwrap_or_default(), handle.as_deref())?;
        }
    }
    Ok(claims)
}

/// Who claims volumes.
fn of_volumes(wanted: Vec<PersistentVolumeClaim>, volumes: Vec<PersistentVolume>) -> Result<Claims, Error> {
    let mut claims = Claims::default();
    let names: BTreeSet<_> = volumes.iter().filter_map(|volume| volume.metadata.name.as_deref()).collect();
    for claim in wanted {
        let bound = claim.spec.and_then(|spec| spec.volume_name).filter(|name| !name.is_empty());
        if bound.as_ref().is_some_and(|name| names.contains(name.as_str())) {
            continue;
        }
        // One whose PersistentVolume is lost still stands for its data. The name of what it was bound to is its volume's too,
        // if it was restored since, with another uid.
        claims.expected.extend(bound.and_then(|name| name.parse::<VolumeName>().ok()));
        if let Some(uid) = claim.metadata.uid {
            claims.expect_volume_for(&uid);
        }
    }
    for volume in volumes {
        let Some(csi) = volume.spec.and_then(|spec| spec.csi).filter(|csi| csi.driver == DRIVER_NAME) else {
            continue;
        };
        claims.claim_volume(&volume.metadata.name.unwrap_or_default(), &csi.volume_handle)?;
    }
    Ok(claims)
}

/// Every object of a kind, page by page.
pub(super) async fn list<K: Clone + DeserializeOwned + fmt::Debug>(
    api: &Api<K>,
) -> Result<Vec<K>, kube::Error> {
    let mut params = ListParams::default().limit(PAGE);
    let mut items = Vec::new();
    loop {
        let page = api.list(&params).await?;
        items.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(items),
        }
    }
}

impl Claims {
    /// A PersistentVolume names this volume.
    pub fn claim_volume(&mut self, name: &str, handle: &str) -> Result<(), Error> {
        let id: VolumeId = handle.parse().map_err(|_| Error::Handle {
            kind: "PersistentVolume",
            name: name.into(),
            handle: handle.into(),
        })?;
        self.volumes.insert(id.slot().into());
        Ok(())
    }

    /// A PersistentVolumeClaim is there and its PersistentVolume is not, not yet or not any more: its volume may be.
    pub fn expect_volume_for(&mut self, uid: &str) {
        // The provisioner's names: external-provisioner, `--volume-name-prefix`.
        self.expected.extend(format!("pvc-{uid}").parse::<VolumeName>());
    }

    /// A VolumeSnapshotContent names this snapshot, or is waiting for one.
    pub fn claim_snapshot(&mut self, name: &str, handle: Option<&str>) -> Result<(), Error> {
        if self.snapshots == Snapshots::NotServed {
            self.snapshots = Snapshots::Claimed { slots: BTreeSet::new(), expected: BTreeSet::new() };
        }
        let Snapshots::Claimed { slots, expected } = &mut self.snapshots else { return Ok(()) };
        match handle {
            Some(handle) => {
                let id: SnapshotId = handle.parse().map_err(|_| Error::Handle {
                    kind: "VolumeSnapshotContent",
                    name: name.into(),
                    handle: handle.into(),
                })?;
                slots.insert(id.slot().into());
            }
            // The snapshotter's names: external-snapshotter, `--snapshot-name-prefix`.
            None => expected.extend(
                name.strip_prefix("snapcontent-").and_then(|uid| format!("snapshot-{uid}").parse().ok()),
            ),
        }
        Ok(())
    }

    /// Whether somebody claims this volume of that backend.
    pub fn volume(&self, id: &VolumeId, backend: Option<&BackendName>) -> Claimed {
        let made_for = |name| VolumeId::for_name(backend, name) == *id;
        if self.volumes.contains(id.slot()) || self.expected.iter().any(made_for) {
            Claimed::Yes
        } else {
            Claimed::No
        }
    }

    /// Whether it is known who claims snapshots.
    pub fn tell_of_snapshots(&self) -> bool {
        self.snapshots != Snapshots::NotServed
    }

    /// Whether somebody claims this snapshot of that backend.
    pub fn snapshot(&self, id: &SnapshotId, backend: Option<&BackendName>) -> Claimed {
        match &self.snapshots {
            Snapshots::NotServed => Claimed::Unknown,
            Snapshots::Claimed { slots, expected } => {
                let made_for = |name| SnapshotId::for_name(backend, name) == *id;
                if slots.contains(id.slot()) || expected.iter().any(made_for) {
                    Claimed::Yes
                } else {
                    Claimed::No
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{
        CSIPersistentVolumeSource, PersistentVolumeClaimSpec, PersistentVolumeSpec,
    };
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    const UID: &str = "123e4567-e89b-12d3-a456-426614174000";
    const OLD: &str = "pvc-aaaaaaaa-e89b-12d3-a456-426614174000";

    fn bound_to(volume: &str) -> PersistentVolumeClaim {
        PersistentVolumeClaim {
            metadata: ObjectMeta { uid: Some(UID.into()), ..ObjectMeta::default() },
            spec: Some(PersistentVolumeClaimSpec { volume_name: Some(volume.into()), ..Default::default() }),
            ..Default::default()
        }
    }

    fn volume(name: &str, handle: &str) -> PersistentVolume {
        let (driver, volume_handle) = (DRIVER_NAME.into(), handle.into());
        let csi = CSIPersistentVolumeSource { driver, volume_handle, ..Default::default() };
        PersistentVolume {
            metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() },
            spec: Some(PersistentVolumeSpec { csi: Some(csi), ..Default::default() }),
            ..Default::default()
        }
    }

    #[test]
    fn lesson_6_a_claim_whose_persistent_volume_is_lost_claims_its_volume() {
        let made = |name: &str| VolumeId::for_name(None, &name.parse().unwrap());
        let own = made(&format!("pvc-{UID}"));
        for name in ["", OLD] {
            let claims = of_volumes(vec![bound_to(name)], vec![volume("pv-1", "pvc-1")]).unwrap();
            assert_eq!(claims.volume(&own, None), Claimed::Yes, "{name:?}");
        }
        // The claim was restored, with a uid of its own.
        let claims = of_volumes(vec![bound_to(OLD)], vec![]).unwrap();
        assert_eq!(claims.volume(&made(OLD), None), Claimed::Yes);
        // What its volume is says the PersistentVolume, if it is there.
        let claims = of_volumes(vec![bound_to("pv-1")], vec![volume("pv-1", "pvc-1")]).unwrap();
        assert_eq!(claims.volume(&"pvc-1".parse().unwrap(), None), Claimed::Yes);
        assert_eq!(claims.volume(&own, None), Claimed::No);
    }
}
