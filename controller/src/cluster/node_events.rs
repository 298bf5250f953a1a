//! What the nodes' agents tell of volumes, passed on to the volumes' claims. Each event is posted once, whoever reads it and
//! however often: its name in Kubernetes is made of the agent's life and its number there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rds_csi_api::NodeName;
use tokio::task::{AbortHandle, JoinSet};
use uuid::Uuid;

use super::agents::Directory;
use super::ledger::Ledger;
use crate::attachments::herald::Severity;
use crate::node_agents::{Bookmark, Happened, Unanswered};

/// An agent that hung up or does not answer is asked again so much later.
const AGAIN: Duration = Duration::from_secs(5);

/// New agents are looked for so often, even if nothing is heard of their pods.
const LOOK: Duration = Duration::from_mins(1);

/// The namespace of the names of events.
const EVENTS: Uuid = Uuid::from_u128(0x7b0c_2f2e_51d5_4b0e_9a63_0d7a_94f1_6c11);

/// How far each agent's events were read.
type Bookmarks = Arc<Mutex<BTreeMap<NodeName, Bookmark>>>;

/// Reads what all agents tell for as long as it is polled.
pub async fn pass_on(ledger: &Ledger, agents: &Directory) {
    let bookmarks = Bookmarks::default();
    let mut readers = JoinSet::new();
    let mut read: BTreeMap<NodeName, (String, AbortHandle)> = BTreeMap::new();
    let mut changes = agents.changes();
    loop {
        let all = agents.all();
        read.retain(|node, (authority, reader)| {
            let stays = all.get(node) == Some(authority);
            if !stays {
                reader.abort();
            }
            stays
        });
        for (node, authority) in all {
            read.entry(node.clone()).or_insert_with(|| {
                let reader = listen(node, agents.clone(), ledger.clone(), Arc::clone(&bookmarks));
                (authority, readers.spawn(reader))
            });
        }
        // Aborted ones are collected; none ends by itself.
        while readers.try_join_next().is_some() {}
        let heard = async {
            match &mut changes {
                Some(changes) => drop(changes.changed().await),
                None => std::future::pending().await,
            }
        };
        let _ = tokio::time::timeout(LOOK, heard).await;
    }
}

/// Listens to one agent.
async fn listen(node: NodeName, agents: Directory, ledger: Ledger, bookmarks: Bookmarks) {
    loop {
        if let Err(unanswered) = hear(&node, &agents, &ledger, &bookmarks).await {
            tracing::debug!(%node, why = unanswered.why(), "nothing is heard of the node's volumes");
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn hear(
    node: &NodeName,
    agents: &Directory,
    ledger: &Ledger,
    bookmarks: &Bookmarks,
) -> Result<(), Unanswered> {
    let known = bookmarks.lock().unwrap_or_else(PoisonError::into_inner).get(node).cloned();
    let mut events = agents.agent(node).watch_events(node, known.unwrap_or_default()).await?;
    while let Some(happened) = events.next().await? {
        let bookmark = events.bookmark().clone();
        let name = format!("{node}/{}/{}", bookmark.instance, bookmark.after);
        let Happened { volume, reason, message, at, missed } = happened;
        let severity = match reason.as_str() {
            "ConnectionRecovered" | "OrphanDisconnected" => Severity::Normal,
            _ => Severity::Warning,
        };
        let lost = match missed {
            0 => String::new(),
            missed => format!(" ({missed} events before this one are lost)"),
        };
        let message = format!("node {node}: {message}{lost}");
        let name = format!("rds-csi-{}", Uuid::new_v5(&EVENTS, name.as_bytes()));
        ledger.post_once(&volume, severity, &reason, message, name, at);
        bookmarks.lock().unwrap_or_else(PoisonError::into_inner).insert(node.clone(), bookmark);
    }
    Ok(())
}
