//! A person who lets a volume be staged again annotates its PersistentVolume. The agents of the nodes that hold or want the
//! volume are told, and the annotation goes once all of them have heard it.

use std::collections::BTreeSet;
use std::time::Duration;

use kube::api::{Patch, PatchParams};
use rds_csi_api::{NodeName, VolumeId, status};
use serde_json::json;

use super::agents::Directory;
use super::ledger::Ledger;
use super::objects::{RESET, Reset};
use crate::attachments::Authority as _;
use crate::attachments::facts::Freshness;
use crate::attachments::herald::Severity;

/// After a failure it is tried again so much later.
const AGAIN: Duration = Duration::from_secs(5);

/// Passes resets on for as long as it is polled.
pub async fn pass_on_resets(ledger: &Ledger, agents: &Directory) {
    let mut changes = ledger.volumes.changes();
    loop {
        changes.mark_unchanged();
        let mut failed = false;
        for (name, id) in asked_for(ledger) {
            match reset(ledger, agents, &name, &id).await {
                Ok(told) => {
                    tracing::info!(volume = %id, "it may be staged again at once: {told}");
                    ledger.post(&id, Severity::Normal, "CircuitBreakerReset", told);
                }
                Err(why) => {
                    failed = true;
                    tracing::warn!(volume = %id, "the reset that annotation {RESET} asks for is not done: {why}");
                }
            }
        }
        if failed {
            tokio::time::sleep(AGAIN).await;
        } else if changes.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// The PersistentVolumes whose breakers are to be reset, and their volumes.
fn asked_for(ledger: &Ledger) -> Vec<(String, VolumeId)> {
    let Some(volumes) = ledger.volumes.last() else { return Vec::new() };
    let asked = volumes.all().filter(|(_, volume)| volume.reset == Reset::Asked);
    asked.map(|(name, volume)| (name.to_owned(), volume.id.clone())).collect()
}

/// Tells the agents, then takes the annotation away; what became of it.
async fn reset(ledger: &Ledger, agents: &Directory, name: &str, id: &VolumeId) -> Result<String, String> {
    let recorded: BTreeSet<NodeName> = {
        let volumes = ledger.volumes.last();
        let volume = volumes.as_ref().and_then(|volumes| volumes.named(name));
        let record = volume.and_then(|volume| volume.record.as_ref().ok());
        record.into_iter().flat_map(|record| record.nodes().cloned()).collect()
    };
    let facts = ledger.facts(id, &recorded, Freshness::Cached).await;
    let wanted = facts.map_err(|error| status::chain(&error))?.wanted.into_keys();
    let nodes: BTreeSet<_> = recorded.into_iter().chain(wanted).collect();
    let mut told = Vec::new();
    for node in &nodes {
        match agents.agent(node).reset_breaker(node, id).await {
            Ok(Some(was_open)) => {
                told.push(format!("node {node} held it back ({was_open}), and does no more"));
            }
            Ok(None) => told.push(format!("node {node} did not hold it back")),
            Err(unanswered) => return Err(format!("node {node}: {}", unanswered.why())),
        }
    }
    let patch = Patch::Merge(json!({ "metadata": { "annotations": { RESET: null } } }));
    let patched = ledger.patch(name, &PatchParams::default(), &patch).await;
    patched.map_err(|why| format!("the annotation is not removed: {why}"))?;
    if told.is_empty() {
        return Ok("no node holds or wants it".into());
    }
    Ok(told.join("; "))
}
