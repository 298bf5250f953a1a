//! Kubernetes objects, as manifests would have them: the driver's own, and what stories are about.

mod claims;
mod install;
mod pods;
mod provisioned;
mod snapshots;

use std::fmt::Debug;
use std::future::Future;
use std::time::Instant;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use rds_csi_api::csi::VolumeCapability;
use rds_csi_api::csi::volume_capability::AccessType;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub use self::claims::{Claim, Source};
pub(super) use self::install::install;
pub use self::pods::PodPlan;
use super::{Cluster, PATIENCE};
use crate::rig::eventually;

/// Where a pod finds a filesystem volume.
pub const DIRECTORY: &str = "/data";

/// Where a pod finds a block volume.
pub const DEVICE: &str = "/dev/volume";

/// How a volume is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// ReadWriteOnce, a filesystem.
    Filesystem,
    /// ReadWriteOnce, a block device.
    Block,
    /// ReadWriteMany, a block device: the disk of a virtual machine.
    SharedBlock,
}

impl Access {
    fn of(capability: &VolumeCapability) -> Self {
        match capability.access_type {
            Some(AccessType::Mount(_)) => Self::Filesystem,
            _ => Self::Block,
        }
    }

    fn volume_mode(self) -> &'static str {
        match self {
            Self::Filesystem => "Filesystem",
            Self::Block | Self::SharedBlock => "Block",
        }
    }

    fn access_mode(self) -> &'static str {
        match self {
            Self::Filesystem | Self::Block => "ReadWriteOnce",
            Self::SharedBlock => "ReadWriteMany",
        }
    }

    /// What a container says to have the pod's volume of that name.
    fn use_of(self, volume: &str) -> (&'static str, Value) {
        match self {
            Self::Filesystem => ("volumeMounts", json!([{ "name": volume, "mountPath": DIRECTORY }])),
            Self::Block | Self::SharedBlock => {
                ("volumeDevices", json!([{ "name": volume, "devicePath": DEVICE }]))
            }
        }
    }
}

impl Cluster {
    /// Waits for an event of that reason about an object, and returns its message.
    pub async fn event(&self, about: &str, reason: &str) -> Result<String> {
        let events: Api<Event> = Api::default_namespaced(self.client());
        let of = ListParams::default().fields(&format!("involvedObject.name={about},reason={reason}"));
        let what = format!("{about} has an event {reason}");
        let there = async || Ok(!events.list(&of).await?.items.is_empty());
        timed(&what, eventually(&what, PATIENCE, there)).await?;
        let newest =
            events.list(&of).await?.items.into_iter().max_by_key(|event| event.last_timestamp.clone());
        Ok(newest.and_then(|event| event.message).unwrap_or_default())
    }
}

/// Says how long something took: most of a test's time is spent waiting for one part of Kubernetes or another.
pub(super) async fn timed<T>(what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    let began = Instant::now();
    let outcome = work.await?;
    eprintln!("cluster: {what} ({:.1} s)", began.elapsed().as_secs_f32());
    Ok(outcome)
}

/// Makes an object.
pub(super) async fn make<K>(api: &Api<K>, object: Value) -> Result<()>
where
    K: Clone + Debug + Serialize + DeserializeOwned,
{
    let told = object["metadata"]["name"].to_string();
    let object = serde_json::from_value(object).with_context(|| format!("{told} is malformed"))?;
    api.create(&PostParams::default(), &object).await.with_context(|| format!("cannot make {told}"))?;
    Ok(())
}

/// Deletes an object, and waits until nobody holds it any more.
async fn gone<K>(api: &Api<K>, name: &str) -> Result<()>
where
    K: Clone + Debug + DeserializeOwned,
{
    api.delete(name, &DeleteParams::default()).await?;
    let what = format!("{name} is gone");
    eventually(&what, PATIENCE, async || Ok(api.get_opt(name).await?.is_none())).await
}

/// The kinds of snapshots, which came into the API server with their definitions.
fn snapshot_kind(kind: &str) -> kube::api::ApiResource {
    kube::api::ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk(
        "snapshot.storage.k8s.io",
        "v1",
        kind,
    ))
}
