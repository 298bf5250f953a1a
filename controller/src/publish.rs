//! ControllerPublishVolume: decides whether a node may hold a volume, writes that down, then lets the node in.
//!
//! In this order, since a record can only restrict: cut off in between, the volume is held by a node that cannot reach it
//! yet, and the repeat lets it in. The other way round a node would be let in that nobody knows of.

use std::num::NonZeroU16;
use std::time::SystemTime;

use rds_csi_api::serve::telemetry;
use rds_csi_api::{Failure, Kind, NodeName, Nqn, Portal, PublishContext, ReconnectPolicy, VolumeId};

use crate::array::{self, Array, Export};
use crate::attachments::decide::{self, Claim, Fence, Publish, Refusal};
use crate::attachments::facts::{self, Freshness};
use crate::attachments::herald::Event;
use crate::attachments::record::Migration;
use crate::attachments::store::{self, Store, Stored};
use crate::attachments::{Ledger, Parties, Record};
use crate::node_agents::{Link, Witness};
use crate::unpublish::{self, clear};

/// A node's wish to hold a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The volume.
    pub id: VolumeId,
    /// Which node, and how.
    pub claim: Claim,
    /// Where nodes reach the array, by the volume's own context.
    pub portal: Portal,
    /// How they are to connect, by the same.
    pub reconnect: Option<ReconnectPolicy>,
}

/// Why the node does not hold the volume.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The rules forbid it.
    #[error("volume {id} cannot be attached to {node}")]
    Refused {
        /// The volume.
        id: VolumeId,
        /// The node.
        node: NodeName,
        /// The rule.
        #[source]
        source: Refusal,
    },
    /// A node that is not to hold it any more does not let it go.
    #[error(
        "volume {id} cannot be attached to {node} before a node that is not to hold it any more has let it go"
    )]
    Stale {
        /// The volume.
        id: VolumeId,
        /// The node that asks.
        node: NodeName,
        /// Why the other does not.
        #[source]
        source: Box<unpublish::Error>,
    },
    /// There is no such node.
    #[error("node {0} is not known: give its agent with --node-agent, or correct the node id")]
    NoSuchNode(NodeName),
    /// It holds as many as it may. Two attachments at the same moment may both find room for one: the scheduler counts, too, and
    /// this is for when it is not asked.
    #[error(
        "node {node} holds {most} volumes, and that is the most (--max-volumes-per-node): one of them must be detached first, \
         or the pod placed elsewhere"
    )]
    NodeFull {
        /// The node.
        node: NodeName,
        /// How many it may hold.
        most: NonZeroU16,
    },
    /// Nobody knows who holds it.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Nobody knows who is to hold it.
    #[error(transparent)]
    Facts(#[from] facts::Error),
    /// The array did not let it in.
    #[error(transparent)]
    Array(#[from] array::Error),
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Refused { source, .. } => source.kind(),
            Self::Stale { source, .. } => source.kind(),
            Self::NoSuchNode(_) => Kind::Missing,
            Self::NodeFull { .. } => Kind::Full,
            Self::Store(error) => error.kind(),
            Self::Facts(error) => error.kind(),
            Self::Array(error) => error.kind(),
        }
    }
}

/// Attaches the volume to the node; what the node needs to know about this attachment.
pub async fn publish(
    parties: &Parties<'_, impl Array, impl Ledger, impl Witness>,
    most: NonZeroU16,
    request: Request,
    now: SystemTime,
) -> Result<PublishContext, Error> {
    let Parties { array, fence, ledger, nodes } = *parties;
    let Request { id, claim, portal, reconnect } = request;
    let node = claim.node.clone();
    let (decision, Stored { record: before, revision }) = decided(parties, &id, claim, now).await?;
    let is_new = matches!(decision, Publish::Attach(_));
    // Without a list the record alone tells who came in by an open door, and it may have been lost.
    if fence == Fence::Epoch && is_new && before.is_empty() && array.volume(&id).await?.export != Export::Off
    {
        return Err(array::Error::Open(id).into());
    }
    // The export keeps a name that others know: what the node still tries to get back under it would be let in, too.
    let shares = is_new && !before.is_empty() && fence == Fence::Acl;
    if shares && nodes.link(&node, &id, &Nqn::of_volume(&id)).await == Link::Broken {
        let source = Refusal::Reconnecting { node: node.clone() };
        return Err(Error::Refused { id, node, source });
    }
    let record = match decision {
        Publish::Attach(_) if !nodes.knows(&node) => return Err(Error::NoSuchNode(node)),
        Publish::Attach(_) if holds(ledger, &node) >= usize::from(most.get()) => {
            return Err(Error::NodeFull { node, most });
        }
        Publish::Attach(record) | Publish::Keep(record) => record,
        Publish::Clear(_) => return Err(store::Error::Changed(id).into()),
    };
    let revision = ledger.replace(&id, revision, record.clone()).await?;
    if let Some(Migration { from, to, proof, .. }) = record.migration().filter(|_| is_new) {
        let (from, to) = (from.clone(), to.clone());
        let proof = format!("VM {} is migrated, {}", proof.vm, proof.job);
        ledger.tell(&id, &Event::MigrationStarted { from, to, proof });
    }
    match array.admit(&id, &admitted(fence, &record)).await {
        Ok(volume) => Ok(PublishContext {
            portal: Portal { port: volume.port, ..portal },
            nqn: volume.nqn,
            size: volume.size,
            reconnect: changed(reconnect, volume.reconnect),
            trace: telemetry::current_traceparent(),
        }),
        Err(error) => {
            if left_out(&error, is_new) {
                // Left in the record, the node would keep others from what it does not hold.
                let (undone, ended) = decide::settle(&record, std::slice::from_ref(&node), now);
                match ledger.replace(&id, revision, undone).await {
                    Ok(_) => {
                        if let Some(event) = ended {
                            ledger.tell(&id, &event);
                        }
                    }
                    Err(why) => {
                        tracing::warn!(volume = %id, %node, %why, "a node that was not let in stays a holder until it is detached");
                    }
                }
            }
            Err(error.into())
        }
    }
}

/// What the rules say, and about which record. A node that is recorded and not to hold the volume any more is cleared first.
async fn decided(
    parties: &Parties<'_, impl Array, impl Ledger, impl Witness>,
    id: &VolumeId,
    claim: Claim,
    now: SystemTime,
) -> Result<(Publish, Stored), Error> {
    let Parties { ledger, .. } = *parties;
    let node = &claim.node;
    let mut cleared = false;
    loop {
        let stored = ledger.load(id).await?;
        let of = stored.record.nodes().chain([node]).cloned().collect();
        let mut facts = ledger.facts(id, &of, Freshness::Cached).await?;
        // Who comes first needs no more than the record's compare-and-swap. Whatever else is decided rests on what is so now.
        let is_first =
            stored.record.is_empty() && decide::lost(&stored.record, &facts).all(|other| other == node);
        if !is_first && stored.record.of(node).is_none() {
            facts = ledger.facts(id, &of, Freshness::Confirmed).await?;
        }
        match decide::publish(&stored.record, &facts, claim.clone(), now) {
            Ok(Publish::Clear(stale)) if !cleared => {
                cleared = true;
                let leaving: Vec<_> = stale.into_iter().collect();
                clear(parties, id, stored, &leaving, now).await.map_err(|source| {
                    let id = id.clone();
                    Error::Stale { id, node: node.clone(), source: Box::new(source) }
                })?;
            }
            Ok(decision) => return Ok((decision, stored)),
            Err(source) => {
                if source.is_conflict() {
                    let why = source.to_string();
                    ledger.tell(id, &Event::Conflict { node: node.clone(), why });
                }
                return Err(Error::Refused { id: id.clone(), node: node.clone(), source });
            }
        }
    }
}

/// How many volumes a node holds, as far as was heard: one record that cannot be read is no reason to attach nothing else.
fn holds(store: &impl Store, node: &NodeName) -> usize {
    let records = store.seen().unwrap_or_default();
    records.values().filter(|record| record.nodes().any(|holder| holder == node)).count()
}

/// What the node is to be told over the volume's own context: a policy that was modified since. The keep-alive time is none
/// of what can be, and the context alone knows it for certain.
fn changed(told: Option<ReconnectPolicy>, now: Option<ReconnectPolicy>) -> Option<ReconnectPolicy> {
    let now = match told {
        Some(told) => now.map(|now| ReconnectPolicy { keep_alive: told.keep_alive, ..now }),
        None => now,
    };
    now.filter(|now| told != Some(*now))
}

/// Whether the array certainly does not let the node in by what failed so. Otherwise it may, so the record stays, and the
/// next publish or unpublish goes on from it.
fn left_out(error: &array::Error, is_new: bool) -> bool {
    match error {
        array::Error::Missing(_) => true,
        // Nothing was changed now; a node that was let in before still is.
        array::Error::Strangers(_)
        | array::Error::Open(_)
        | array::Error::Foreign { .. }
        | array::Error::Unreachable { .. } => is_new,
        _ => false,
    }
}

/// Whom the array lets in while these nodes hold the volume.
pub(crate) fn admitted(fence: Fence, record: &Record) -> Export {
    match fence {
        Fence::Acl => Export::to_hosts(record.hosts()),
        Fence::Epoch if record.is_empty() => Export::Off,
        Fence::Epoch | Fence::None => Export::AnyHost,
    }
}

#[cfg(test)]
mod tests;
