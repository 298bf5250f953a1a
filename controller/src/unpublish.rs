//! ControllerUnpublishVolume: a node lets a volume go by its agent's word, or is shut out by the array first.
//!
//! The array is changed before the record: cut off in between, the node still counts as a holder, and the repeat goes on.

use std::collections::BTreeMap;
use std::time::SystemTime;

use futures_util::future::join_all;
use rds_csi_api::{Failure, HostNqn, Kind, NodeName, Nqn, VolumeId};

use crate::array::{self, Array, Export, Volume};
use crate::attachments::decide::{self, Fence, Leaving, Refusal, Release, Testimony};
use crate::attachments::facts::{self, Facts, Freshness};
use crate::attachments::herald::Event;
use crate::attachments::store::{self, Revision, Stored};
use crate::attachments::{Ledger, Parties, Record};
use crate::node_agents::Witness;
use crate::publish::admitted;

/// Which nodes are to let the volume go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// This one.
    Node(NodeName),
    /// Every one that holds it (an empty `node_id`, CSI 1.13).
    Everywhere,
}

/// Why the volume is still attached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It must not be detached.
    #[error("volume {id} is not detached")]
    Refused {
        /// The volume.
        id: VolumeId,
        /// Why not.
        #[source]
        source: Refusal,
    },
    /// Nobody knows who holds it.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Nobody knows who is to hold it.
    #[error(transparent)]
    Facts(#[from] facts::Error),
    /// The array did not shut the node out.
    #[error(transparent)]
    Array(#[from] array::Error),
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Refused { source, .. } => source.kind(),
            Self::Store(error) => error.kind(),
            Self::Facts(error) => error.kind(),
            Self::Array(error) => error.kind(),
        }
    }
}

/// Detaches the volume.
pub async fn unpublish(
    parties: &Parties<'_, impl Array, impl Ledger, impl Witness>,
    id: VolumeId,
    from: From,
    now: SystemTime,
) -> Result<(), Error> {
    let stored = match parties.ledger.load(&id).await {
        // Without its PersistentVolume a volume has no record, and may be attached all the same.
        Err(store::Error::NoSuchVolume(_)) => {
            Stored { record: Record::default(), revision: Revision::default() }
        }
        stored => stored?,
    };
    let leaving: Vec<NodeName> = match from {
        From::Node(node) if stored.record.of(&node).is_none() => return forget(parties, &id, node).await,
        From::Node(node) => vec![node],
        From::Everywhere => stored.record.nodes().cloned().collect(),
    };
    if leaving.is_empty() {
        return Ok(());
    }
    let_go(parties, &id, stored, &leaving, now).await
}

/// As a detach, of nodes that nobody asked to detach, since nobody knows any more that they hold the volume.
pub(crate) async fn clear(
    parties: &Parties<'_, impl Array, impl Ledger, impl Witness>,
    id: &VolumeId,
    stored: Stored,
    stale: &[NodeName],
    now: SystemTime,
) -> Result<(), Error> {
    let_go(parties, id, stored, stale, now).await?;
    for node in stale {
        parties.ledger.tell(id, &Event::StaleCleared { node: node.clone() });
    }
    Ok(())
}

/// Has nodes of the record let the volume go: asks, shuts out, and writes that down.
pub(crate) async fn let_go(
    parties: &Parties<'_, impl Array, impl Ledger, impl Witness>,
    id: &VolumeId,
    Stored { record, revision }: Stored,
    leaving: &[NodeName],
    now: SystemTime,
) -> Result<(), Error> {
    let Parties { array, fence, ledger, .. } = *parties;
    let (left, ended) = decide::settle(&record, leaving, now);
    let mut revision = revision;
    let (before, after) = (admitted(fence, &record), admitted(fence, &left));
    match asked(parties, id, leaving, left.nodes().count()).await? {
        // Every host may connect as long as the volume is there.
        Release::Clean if fence == Fence::None => {}
        Release::Clean => gone_or(array.dismiss(id, &before, &after).await)?,
        Release::BehindFence(silent) => {
            let name = name(array, id).await?;
            // Nodes take their time to say nothing. Under this name the array lets in whom this record names and nobody who
            // was let in meanwhile, if it is still the record now.
            revision = ledger.replace(id, revision, record).await?;
            cut(parties, id, name, silent, &before, &after).await?;
        }
    }
    ledger.replace(id, revision, left).await?;
    if let Some(event) = ended {
        ledger.tell(id, &event);
    }
    Ok(())
}

/// A node that the record does not name may hold the volume all the same: attached by a program whose records are lost.
/// What its agent says and whom the array lets in are then all there is, and its silence proves nothing.
pub(crate) async fn forget(
    parties: &Parties<'_, impl Array, impl Ledger, impl Witness>,
    id: &VolumeId,
    node: NodeName,
) -> Result<(), Error> {
    let Parties { array, fence, nodes, .. } = *parties;
    let host = HostNqn::of(&node);
    let is_known = nodes.knows(&node);
    let release = match asked(parties, id, &[node], 0).await {
        // No volume can be with a node that there is not.
        Err(Error::Refused { source: Refusal::Unfenced { .. }, .. }) if !is_known => return Ok(()),
        // It may be connected still, unless nobody can be.
        Err(refused @ Error::Refused { source: Refusal::Unfenced { .. }, .. }) => {
            return match array.volume(id).await {
                Ok(Volume { export: Export::Off, .. }) => Ok(()),
                Ok(_) => Err(refused),
                outcome => Ok(gone_or(outcome)?),
            };
        }
        release => release?,
    };
    if fence == Fence::None {
        return Ok(());
    }
    match array.volume(id).await {
        Ok(Volume { export: Export::Hosts(present), nqn, .. }) if present.contains(&host) => {
            let left = Export::to_hosts(present.iter().filter(|other| **other != host).cloned());
            let before = Export::Hosts(present);
            match release {
                Release::Clean => Ok(gone_or(array.dismiss(id, &before, &left).await)?),
                Release::BehindFence(silent) => cut(parties, id, Some(nqn), silent, &before, &left).await,
            }
        }
        // It may be connected like any other. To cut it off would cut off all of them.
        Ok(Volume { export: Export::AnyHost, .. }) if release != Release::Clean => {
            Err(array::Error::Open(id.clone()).into())
        }
        outcome => Ok(gone_or(outcome)?),
    }
}

/// Asks the nodes, and judges by what they say, and where they do not, by what Kubernetes says of them.
async fn asked(
    parties: &Parties<'_, impl Array, impl Ledger, impl Witness>,
    id: &VolumeId,
    leaving: &[NodeName],
    staying: usize,
) -> Result<Release, Error> {
    let Parties { fence, ledger, nodes, .. } = *parties;
    let nqn = Nqn::of_volume(id);
    let testimonies = join_all(leaving.iter().map(|node| nodes.testify(node, id, &nqn))).await;
    let mute = |said: &Testimony| matches!(said, Testimony::Silent(_) | Testimony::Unasked(_));
    let facts = if testimonies.iter().any(mute) {
        ledger.facts(id, &leaving.iter().cloned().collect(), Freshness::Confirmed).await?
    } else {
        Facts::default()
    };
    let leaving = leaving.iter().zip(testimonies).map(|(name, testimony)| {
        let node = facts.node(name);
        (name.clone(), Leaving { testimony, node })
    });
    decide::release(leaving.collect(), fence, staying)
        .map_err(|source| Error::Refused { id: id.clone(), source })
}

/// What the volume's export is called. None if the volume is gone.
async fn name(array: &impl Array, id: &VolumeId) -> Result<Option<Nqn>, array::Error> {
    match array.volume(id).await {
        Ok(volume) => Ok(Some(volume.nqn)),
        gone => gone_or(gone).map(|()| None),
    }
}

/// Shuts silent nodes out of what the array calls so, and tells people.
async fn cut(
    parties: &Parties<'_, impl Array, impl Ledger, impl Witness>,
    id: &VolumeId,
    name: Option<Nqn>,
    silent: BTreeMap<NodeName, String>,
    before: &Export,
    after: &Export,
) -> Result<(), Error> {
    let Parties { array, ledger, .. } = *parties;
    if let Some(name) = name {
        gone_or(array.fence(id, &name, before, after).await)?;
    }
    for (node, why) in silent {
        ledger.tell(id, &Event::Fenced { node, why });
    }
    Ok(())
}

/// A volume that is gone lets nobody in.
fn gone_or<T>(outcome: Result<T, array::Error>) -> Result<(), array::Error> {
    match outcome {
        Ok(_) | Err(array::Error::Missing(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
