//! What nobody asks for and has to be done all the same: nodes that are recorded or let in and not to hold a volume any more,
//! migrations that take too long, and nodes that the array lost.
//!
//! A pass looks at caches and at one listing of each array, and asks nobody about a volume with which all is well. What is
//! due is decided anew from what is so at that moment, and done as any detach is, so two passes at once do no harm, and the
//! next one goes on where one was cut off. A node that was deleted is let go when its VolumeAttachment is: until then it may
//! come back, and its pods may run.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use futures_util::future::join_all;
use rds_csi_api::status::chain;
use rds_csi_api::{HostNqn, ManagedPrefix, NodeName, Nqn, VolumeId};

use super::decide::{self, Testimony};
use super::facts::{Attached, Facts, Freshness};
use super::herald::Event;
use super::record::{Course, Migration, Record};
use super::store::{self, Stored};
use super::{Fence, Ledger, Parties};
use crate::array::{Array, Export, Inventory};
use crate::backends::{Backend, Backends};
use crate::node_agents::Witness;
use crate::publish::admitted;
use crate::unpublish::{self, clear, forget, let_go};

/// What is due about a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// These nodes are recorded, and not to hold it any more.
    Clear(BTreeSet<NodeName>),
    /// The time of this migration is over.
    Resolve(Migration),
}

/// What is due first about a volume.
pub fn due(record: &Record, facts: &Facts, now: SystemTime) -> Option<Action> {
    let stale = decide::stale(record, facts);
    if !stale.is_empty() {
        return Some(Action::Clear(stale));
    }
    record.migration().filter(|migration| migration.is_overdue(now)).cloned().map(Action::Resolve)
}

/// What the two nodes of an overdue migration say of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// This node has nothing of the volume, and the other one uses it.
    Detach(NodeName),
    /// It cannot be told from what they say, or both use it, and that is for people.
    Leave(String),
}

/// Which of the two holds it. Only a node's own word that it has nothing of it, beside one that says it does, takes it away.
pub fn judge(from: (&NodeName, &Testimony), to: (&NodeName, &Testimony)) -> Verdict {
    match (from, to) {
        ((node, Testimony::Gone), (_, Testimony::InUse(_)))
        | ((_, Testimony::InUse(_)), (node, Testimony::Gone)) => Verdict::Detach(node.clone()),
        ((from, Testimony::InUse(here)), (to, Testimony::InUse(there))) => Verdict::Leave(format!(
            "both use it ({from}: {here}; {to}: {there}), so nothing is changed: end the migration, or delete one of the two pods"
        )),
        ((from, Testimony::Gone), (to, Testimony::Gone)) => {
            Verdict::Leave(format!("neither {from} nor {to} uses it, so nothing is changed"))
        }
        (from, to) => {
            let silent = [from, to].into_iter().filter_map(|(node, said)| match said {
                Testimony::Silent(why) | Testimony::Unasked(why) => {
                    Some(format!("node {node} does not say ({why})"))
                }
                Testimony::Gone | Testimony::InUse(_) => None,
            });
            let silent = silent.collect::<Vec<_>>().join(" and ");
            Verdict::Leave(format!(
                "{silent}, so nothing is changed: bring the agent back, or the node down for good"
            ))
        }
    }
}

/// One look at everything, and what is due done. An error is that nothing could be looked at; what fails with one volume is
/// logged, and comes again with the next pass.
pub async fn pass(
    backends: &Backends<impl Array>,
    prefix: &ManagedPrefix,
    ledger: &impl Ledger,
    nodes: &impl Witness,
    now: SystemTime,
) -> Result<(), store::Error> {
    let records = ledger.list().await?;
    for (id, record) in &records {
        let Ok(backend) = backends.of(id.backend().as_ref()) else {
            tracing::warn!(volume = %id, "it is recorded, and lies on a backend that is not configured");
            continue;
        };
        let parties = Parties { array: &backend.array, fence: backend.fence, ledger, nodes };
        if let Err(error) = look(&parties, id, record, now).await {
            tracing::warn!(volume = %id, "what is due is not done: {}", chain(&error));
        }
    }
    for backend in backends.iter().filter(|backend| backend.fence != Fence::None) {
        match backend.array.inventory().await {
            Ok(inventory) => compare(backend, inventory, &records, prefix, ledger, nodes).await?,
            Err(error) => {
                tracing::debug!(array = %backend.title, "whom it lets in is not known: {}", chain(&error));
            }
        }
    }
    Ok(())
}

/// Does what is due about one volume, if anything is.
async fn look(
    parties: &Parties<'_, impl Array, impl Ledger, impl Witness>,
    id: &VolumeId,
    record: &Record,
    now: SystemTime,
) -> Result<(), unpublish::Error> {
    let Parties { ledger, .. } = *parties;
    let of = record.nodes().cloned().collect();
    if due(record, &ledger.facts(id, &of, Freshness::Cached).await?, now).is_none() {
        return Ok(());
    }
    let stored = ledger.load(id).await?;
    let of = stored.record.nodes().cloned().collect();
    let facts = ledger.facts(id, &of, Freshness::Confirmed).await?;
    match due(&stored.record, &facts, now) {
        None => Ok(()),
        Some(Action::Clear(stale)) => {
            let stale: Vec<_> = stale.into_iter().collect();
            clear(parties, id, stored, &stale, now).await
        }
        Some(Action::Resolve(migration)) => resolve(parties, id, stored, migration, now).await,
    }
}

/// Calls an overdue migration failed, once, and takes the volume from the node that has nothing of it.
async fn resolve(
    parties: &Parties<'_, impl Array, impl Ledger, impl Witness>,
    id: &VolumeId,
    Stored { record, revision }: Stored,
    migration: Migration,
    now: SystemTime,
) -> Result<(), unpublish::Error> {
    let Parties { ledger, nodes, .. } = *parties;
    let Migration { from, to, course, .. } = migration.clone();
    let nqn = Nqn::of_volume(id);
    let said = join_all([&from, &to].map(|node| nodes.testify(node, id, &nqn))).await;
    let [from_says, to_says] = &said[..] else { return Ok(()) };
    let verdict = judge((&from, from_says), (&to, to_says));
    let mut stored = Stored { record, revision };
    if course == Course::Running {
        let record = stored.record.migrating(Migration { course: Course::Overdue, ..migration.clone() });
        let revision = ledger.replace(id, stored.revision, record.clone()).await?;
        stored = Stored { record, revision };
        let why = match &verdict {
            Verdict::Detach(node) => format!("node {node} has nothing of it, and is taken off"),
            Verdict::Leave(why) => why.clone(),
        };
        ledger.tell(id, &Event::MigrationFailed { from, to, took: migration.age(now), why });
    }
    match verdict {
        Verdict::Detach(node) => {
            let_go(parties, id, stored, std::slice::from_ref(&node), now).await?;
            tracing::info!(volume = %id, %node, "an overdue migration is resolved: the node that has nothing of the volume is taken off");
            Ok(())
        }
        Verdict::Leave(_) => Ok(()),
    }
}

/// Compares whom an array lets in with who is recorded.
async fn compare<A: Array>(
    backend: &Backend<A>,
    inventory: Inventory,
    before: &BTreeMap<VolumeId, Record>,
    prefix: &ManagedPrefix,
    ledger: &impl Ledger,
    nodes: &impl Witness,
) -> Result<(), store::Error> {
    // An attach is recorded before the array lets the node in, and a detach after it does not any more.
    let after = ledger.list().await?;
    let names: BTreeMap<HostNqn, NodeName> =
        ledger.nodes().into_iter().chain(nodes.named()).map(|node| (HostNqn::of(&node), node)).collect();
    let empty = Record::default();
    let parties = Parties { array: &backend.array, fence: backend.fence, ledger, nodes };
    for volume in inventory.volumes.into_iter().filter(|volume| prefix.covers(&Nqn::of_volume(&volume.id))) {
        let id = &volume.id;
        let [before, after] = [before, &after].map(|records| records.get(id).unwrap_or(&empty));
        let is_let_in = |node: &NodeName| match &volume.export {
            Export::Hosts(present) => present.contains(&HostNqn::of(node)),
            Export::AnyHost => true,
            Export::Off => false,
        };
        let recorded: BTreeSet<_> = before.hosts().chain(after.hosts()).collect();
        let strangers = match &volume.export {
            Export::Hosts(present) => {
                present.difference(&recorded).filter_map(|host| names.get(host)).collect()
            }
            Export::AnyHost | Export::Off => Vec::new(),
        };
        let mut outcome = Ok(());
        for node in strangers {
            outcome = outcome.and(stranger(&parties, id, node).await);
        }
        if let Some(node) = after.nodes().find(|node| before.of(node).is_some() && !is_let_in(node)) {
            outcome = outcome.and(admit_again(&parties, id, node).await);
        }
        if let Err(error) = outcome {
            tracing::warn!(volume = %id, "whom the array lets in is not put right: {}", chain(&error));
        }
    }
    Ok(())
}

/// A node that the array lets in and no record names: unless it is to hold the volume, it goes like any other.
async fn stranger(
    parties: &Parties<'_, impl Array, impl Ledger, impl Witness>,
    id: &VolumeId,
    node: &NodeName,
) -> Result<(), unpublish::Error> {
    let facts = parties.ledger.facts(id, &[node.clone()].into(), Freshness::Confirmed).await?;
    if facts.wanted.contains_key(node) {
        return Ok(());
    }
    forget(parties, id, node.clone()).await?;
    parties.ledger.tell(id, &Event::StaleCleared { node: node.clone() });
    Ok(())
}

/// A node that is recorded, that Kubernetes takes for attached, and that the array does not let in: a command that came late
/// took it off.
async fn admit_again(
    parties: &Parties<'_, impl Array, impl Ledger, impl Witness>,
    id: &VolumeId,
    node: &NodeName,
) -> Result<(), unpublish::Error> {
    let Parties { array, fence, ledger, .. } = *parties;
    let record = ledger.load(id).await?.record;
    let of: BTreeSet<_> = record.nodes().cloned().collect();
    let facts = ledger.facts(id, &of, Freshness::Confirmed).await?;
    let still = |node: &NodeName| facts.wanted.get(node) == Some(&Attached::Yes);
    if record.of(node).is_none() || !record.nodes().all(still) {
        return Ok(());
    }
    array.admit(id, &admitted(fence, &record)).await?;
    tracing::info!(volume = %id, %node, "the array did not let the node in, which holds the volume; it does again");
    Ok(())
}

#[cfg(test)]
mod tests;
