//! What the agents are told to do, and what they tell by themselves.

use std::collections::HashMap;
use std::time::Duration;

use rds_csi_api::node_agent as wire;
use rds_csi_api::{NodeName, Nqn, ReconnectPolicy, VolumeId};
use tonic::Streaming;

use super::call::{Unanswered, failed};
use super::{DEADLINE, NodeAgents, holder};

/// How long the override may take: the agent gives its kernel a minute.
const DETACH_TIME: Duration = Duration::from_secs(65);

/// Who wants something done that costs data, and why. Both are told to the node's log and in an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// A person, or the part of this program that decided it.
    pub asked_by: String,
    /// In one line.
    pub reason: String,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Detached {
    /// What the node did, in order; nothing, if nothing of the volume was there.
    pub done: Vec<String>,
    /// Who used the volume until then.
    pub holders: Vec<String>,
    /// What is left of it. Nothing of that reaches the array any more.
    pub left: Vec<String>,
}

/// How far somebody has read a node's events. The default has read nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bookmark {
    /// Which life of the agent.
    pub instance: String,
    /// The last event of it.
    pub after: u64,
}

/// Something that happened to a volume on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happened {
    /// To which volume; the agent tells of none that it has no id of.
    pub volume: VolumeId,
    /// What, as it is called in Kubernetes. Newer agents may know more.
    pub reason: String,
    /// For people.
    pub message: String,
    /// When, since 1970.
    pub at: Duration,
    /// How many events before it are lost to this reader.
    pub missed: u64,
}

/// The events of a node as they happen. Dropped, the agent is hung up on.
#[derive(Debug)]
pub struct Watching {
    node: NodeName,
    events: Streaming<wire::WatchEventsResponse>,
    bookmark: Bookmark,
}

impl NodeAgents {
    /// Everything of the driver's that is on a node.
    pub async fn list_volumes(&self, node: &NodeName) -> Result<Vec<wire::Volume>, Unanswered> {
        let request = wire::ListVolumesRequest {};
        let listed = self.ask(node, DEADLINE, async |mut agent| agent.list_volumes(request).await).await?;
        Ok(listed.volumes)
    }

    /// Lets a volume be staged again at once. Tells what held it back, if anything did.
    pub async fn reset_breaker(
        &self,
        node: &NodeName,
        volume: &VolumeId,
    ) -> Result<Option<String>, Unanswered> {
        let request = wire::ResetBreakerRequest { volume_id: volume.to_string() };
        let reset = self.ask(node, DEADLINE, async |mut agent| agent.reset_breaker(request).await).await?;
        Ok(Some(reset.was_open).filter(|was_open| !was_open.is_empty()))
    }

    /// Gives a volume that is staged on a node another reconnect policy.
    pub async fn set_reconnect_policy(
        &self,
        node: &NodeName,
        volume: &VolumeId,
        nqn: &Nqn,
        policy: ReconnectPolicy,
    ) -> Result<(), Unanswered> {
        let policy: HashMap<_, _> =
            policy.to_pairs().into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let request =
            wire::SetReconnectPolicyRequest { volume_id: volume.to_string(), nqn: nqn.to_string(), policy };
        let set = async |mut agent: super::Client| agent.set_reconnect_policy(request).await;
        self.ask(node, DEADLINE, set).await.map(drop)
    }

    /// Lets the next stage on a node repair a volume's filesystem though some of it may be lost.
    pub async fn allow_repair(
        &self,
        node: &NodeName,
        volume: &VolumeId,
        order: &Order,
    ) -> Result<(), Unanswered> {
        let Order { asked_by, reason } = order.clone();
        let request = wire::AllowRepairRequest { volume_id: volume.to_string(), asked_by, reason };
        self.ask(node, DEADLINE, async |mut agent: super::Client| agent.allow_repair(request).await)
            .await
            .map(drop)
    }

    /// The override: takes a volume off a node although something uses it there. Silence means that nobody knows whether it is done.
    pub async fn detach(
        &self,
        node: &NodeName,
        volume: &VolumeId,
        nqn: &Nqn,
        order: &Order,
    ) -> Result<Detached, Unanswered> {
        let Order { asked_by, reason } = order.clone();
        let request =
            wire::DetachRequest { volume_id: volume.to_string(), nqn: nqn.to_string(), asked_by, reason };
        let wire::DetachResponse { done, holders, left } =
            self.ask(node, DETACH_TIME, async |mut agent| agent.detach(request).await).await?;
        Ok(Detached { done, holders: holders.iter().map(holder).collect(), left })
    }

    /// Hears what happens to a node's volumes, from where somebody has read.
    pub async fn watch_events(&self, node: &NodeName, from: Bookmark) -> Result<Watching, Unanswered> {
        let Bookmark { instance, after } = from.clone();
        let request = wire::WatchEventsRequest { instance, after };
        let events = self.ask(node, DEADLINE, async |mut agent| agent.watch_events(request).await).await?;
        Ok(Watching { node: node.clone(), events, bookmark: from })
    }
}

impl Watching {
    /// The next event; none if the agent hung up, as it does when it ends. It waits for as long as nothing happens and the node is
    /// there: one that is silent is noticed by the connection.
    pub async fn next(&mut self) -> Result<Option<Happened>, Unanswered> {
        loop {
            let told = self.events.message().await.map_err(|status| failed(self.node.clone(), &status))?;
            let Some(wire::WatchEventsResponse { instance, missed, event }) = told else { return Ok(None) };
            if instance != self.bookmark.instance {
                self.bookmark = Bookmark { instance, after: 0 };
            }
            let Some(event) = event else { continue };
            let wire::Event { sequence, unix_milliseconds, volume_id, reason, message } = event;
            self.bookmark.after = sequence;
            let at = Duration::from_millis(u64::try_from(unix_milliseconds).unwrap_or_default());
            match volume_id.parse() {
                Ok(volume) => return Ok(Some(Happened { volume, reason, message, at, missed })),
                Err(error) => tracing::warn!(node = %self.node, reason, "an event is of no volume: {error}"),
            }
        }
    }

    /// From where to read on over another connection.
    pub fn bookmark(&self) -> &Bookmark {
        &self.bookmark
    }
}
