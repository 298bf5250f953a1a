//! The nodes' agents, found by their pods.

use std::collections::{BTreeMap, BTreeSet};

use kube::{Api, Client};
use rds_csi_api::{NodeName, Nqn, VolumeId};
use tokio_util::sync::CancellationToken;

use super::cache::{Cache, Followed, follow};
use super::objects::{Agent, Node, RUNNING};
use crate::attachments::Testimony;
use crate::config::AgentPods;
use crate::node_agents::{Credentials, Link, NodeAgents, Witness};

/// Where the nodes' agents are: those that were named, and those whose pods are found.
#[derive(Debug, Clone)]
pub struct Directory {
    named: NodeAgents,
    nodes: Cache<Node>,
    found: Option<Found>,
}

/// Agents by their pods.
#[derive(Debug, Clone)]
struct Found {
    pods: Cache<Agent>,
    at: AgentPods,
    credentials: Credentials,
}

impl Directory {
    /// Those that were named, and those at the pods, with the same credentials.
    pub fn new(named: NodeAgents, at: Option<AgentPods>, nodes: Cache<Node>) -> Self {
        let credentials = match &named {
            NodeAgents::None => None,
            NodeAgents::At(_, credentials) => Some(credentials.clone()),
        };
        let found = at.zip(credentials);
        let found = found.map(|(at, credentials)| Found { pods: Cache::default(), at, credentials });
        Self { named, nodes, found }
    }

    /// Hears which pods there are until the token is cancelled.
    pub async fn follow(self, client: Client, shutdown: CancellationToken) {
        match self.found {
            None => shutdown.cancelled().await,
            Some(Found { pods, at: AgentPods { namespace, labels, .. }, .. }) => {
                let api = Api::namespaced(client, &namespace);
                let followed = Followed { api, fields: Some(RUNNING), labels: Some(labels), cache: pods };
                follow(followed, shutdown).await;
            }
        }
    }

    /// Told whenever a pod was found or lost.
    pub fn changes(&self) -> Option<tokio::sync::watch::Receiver<()>> {
        self.found.as_ref().map(|found| found.pods.changes())
    }

    /// Every agent that there is.
    pub fn all(&self) -> BTreeMap<NodeName, String> {
        let mut all: BTreeMap<_, _> = match &self.named {
            NodeAgents::None => BTreeMap::new(),
            NodeAgents::At(addresses, _) => addresses.clone(),
        };
        if let Some(found) = &self.found {
            let pods = found.pods.last();
            let nodes: BTreeSet<_> =
                pods.iter().flat_map(|pods| pods.all().map(|(_, agent)| agent.node.clone())).collect();
            drop(pods);
            for node in nodes {
                if let Some(authority) = found.authority(&node) {
                    all.entry(node).or_insert(authority);
                }
            }
        }
        all
    }

    /// How the node's agent is called.
    pub fn agent(&self, node: &NodeName) -> NodeAgents {
        let named = matches!(&self.named, NodeAgents::At(addresses, _) if addresses.contains_key(node));
        match &self.found {
            Some(found) if !named => {
                let addresses = found.authority(node).map(|authority| (node.clone(), authority));
                NodeAgents::At(addresses.into_iter().collect(), found.credentials.clone())
            }
            _ => self.named.clone(),
        }
    }
}

impl Found {
    /// Host and port of a node's agent. An address that was heard of before is asked also while nothing is heard: whoever
    /// answers there has the agents' certificate.
    fn authority(&self, node: &NodeName) -> Option<String> {
        let pods = self.pods.last()?;
        let Agent { address, .. } = pods.at(node).min_by_key(|agent| agent.stay)?;
        let port = self.at.port;
        Some(if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") })
    }
}

impl Witness for Directory {
    async fn testify(&self, node: &NodeName, volume: &VolumeId, nqn: &Nqn) -> Testimony {
        self.agent(node).testify(node, volume, nqn).await
    }

    async fn link(&self, node: &NodeName, volume: &VolumeId, nqn: &Nqn) -> Link {
        self.agent(node).link(node, volume, nqn).await
    }

    fn named(&self) -> Vec<NodeName> {
        // A node without an agent may use a volume like any other.
        let Some(nodes) = self.nodes.last() else { return Vec::new() };
        let known: BTreeSet<_> =
            nodes.all().filter_map(|(name, _)| name.parse().ok()).chain(self.named.named()).collect();
        known.into_iter().collect()
    }

    fn knows(&self, node: &NodeName) -> bool {
        // Which nodes there are says Kubernetes, and whoever asks has asked it.
        self.found.is_some() || self.named.knows(node)
    }
}
