//! Claims, which the provisioner answers with volumes.

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

use super::install::{CLASS, VM_CLASS};
use super::{Access, gone, make, timed};
use crate::cluster::{Cluster, PATIENCE};
use crate::rig::eventually;

/// A claim for a new volume.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// Its name.
    pub name: &'a str,
    /// How its volume is to be used.
    pub access: Access,
    /// How large it is at least, in bytes.
    pub size: u64,
    /// What is in it.
    pub source: Source<'a>,
}

/// What is in a new volume.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// Nothing.
    Blank,
    /// What was in a snapshot.
    Snapshot(&'a str),
    /// What is in the volume of another claim.
    Claim(&'a str),
}

impl Cluster {
    /// Makes a claim.
    pub async fn claim(&self, claim: Claim<'_>) -> Result<()> {
        let Claim { name, access, size, source } = claim;
        let class = match access {
            Access::Filesystem | Access::Block => CLASS,
            Access::SharedBlock => VM_CLASS,
        };
        let source = match source {
            Source::Blank => json!(null),
            Source::Snapshot(name) => {
                json!({ "apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": name })
            }
            Source::Claim(name) => json!({ "kind": "PersistentVolumeClaim", "name": name }),
        };
        let claim = json!({
            "metadata": { "name": name },
            "spec": {
                "accessModes": [access.access_mode()],
                "volumeMode": access.volume_mode(),
                "storageClassName": class,
                "dataSource": source,
                "resources": { "requests": { "storage": size.to_string() } },
            },
        });
        make(&self.claims(), claim).await
    }

    /// Waits until a claim has its volume.
    pub async fn bound(&self, claim: &str) -> Result<PersistentVolume> {
        let what = format!("claim {claim} has its volume");
        let named = async || -> Result<_> {
            Ok(self.claims().get(claim).await?.spec.and_then(|spec| spec.volume_name))
        };
        timed(&what, eventually(&what, PATIENCE, async || Ok(named().await?.is_some()))).await?;
        let name = named().await?.context("just there")?;
        Ok(self.persistent_volumes().get(&name).await?)
    }

    /// Asks for more space.
    pub async fn resize(&self, claim: &str, size: u64) -> Result<()> {
        let patch = json!({ "spec": { "resources": { "requests": { "storage": size.to_string() } } } });
        self.claims().patch(claim, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// The capacity that a claim's status tells.
    pub async fn capacity(&self, claim: &str) -> Result<Option<u64>> {
        let capacity = self.claims().get(claim).await?.status.and_then(|status| status.capacity);
        let storage = capacity.and_then(|mut capacity| capacity.remove("storage"));
        storage.map(|Quantity(text)| bytes(&text)).transpose()
    }

    /// Deletes a claim, and waits until its volume is gone from the cluster, which the provisioner sees to once the array has
    /// deleted it.
    pub async fn unclaim(&self, claim: &str) -> Result<()> {
        let volume = self.claims().get(claim).await?.spec.and_then(|spec| spec.volume_name);
        gone(&self.claims(), claim).await?;
        let Some(volume) = volume else { return Ok(()) };
        let what = format!("the volume of {claim} is gone");
        let is_gone = async || Ok(self.persistent_volumes().get_opt(&volume).await?.is_none());
        timed(&what, eventually(&what, PATIENCE, is_gone)).await
    }

    /// All VolumeAttachments.
    pub async fn attachments(&self) -> Result<Vec<VolumeAttachment>> {
        Ok(Api::all(self.client()).list(&ListParams::default()).await?.items)
    }

    /// The nodes that a PersistentVolume has VolumeAttachments to, in order, and whether each is attached.
    pub async fn attached(&self, volume: &str) -> Result<Vec<(String, bool)>> {
        let mut of = self.attachments().await?;
        of.retain(|is| is.spec.source.persistent_volume_name.as_deref() == Some(volume));
        let of =
            of.into_iter().map(|is| (is.spec.node_name, is.status.is_some_and(|status| status.attached)));
        let mut of: Vec<_> = of.collect();
        of.sort();
        Ok(of)
    }

    /// Waits until a PersistentVolume is attached to these nodes and no others.
    pub async fn is_attached(&self, volume: &str, nodes: &[&str]) -> Result<()> {
        let wanted: Vec<_> = nodes.iter().map(|node| (String::from(*node), true)).collect();
        let what = format!("{volume} is attached to {nodes:?}");
        let so = async || Ok(self.attached(volume).await? == wanted);
        timed(&what, eventually(&what, PATIENCE, so)).await
    }

    pub(super) fn claims(&self) -> Api<PersistentVolumeClaim> {
        Api::default_namespaced(self.client())
    }
}

/// Reads a quantity of bytes as the API server writes it.
fn bytes(text: &str) -> Result<u64> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match &text[digits.len()..] {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        other => anyhow::bail!("{text:?}: nobody here asks for {other}"),
    };
    Ok(digits.parse::<u64>().with_context(|| format!("{text:?} is no quantity"))? * unit)
}
