//! Nodes that say what they were told to say.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rds_csi_api::{NodeName, Nqn, VolumeId};

use super::{Link, Witness};
use crate::attachments::Testimony;

/// The one node that does not exist.
pub const NOWHERE: &str = "nowhere";

/// The nodes: those that were told something, and any other, which is silent.
#[derive(Debug, Default)]
pub struct FakeNodes(Mutex<BTreeMap<NodeName, Told>>);

#[derive(Debug, Default, Clone)]
struct Told {
    testimony: Option<Testimony>,
    link: Option<Link>,
}

impl FakeNodes {
    /// From now on the node says this of every volume.
    pub fn say(&self, node: &NodeName, testimony: Testimony) {
        self.nodes().entry(node.clone()).or_default().testimony = Some(testimony);
    }

    /// From now on the node is connected so to every volume.
    pub fn connected(&self, node: &NodeName, link: Link) {
        self.nodes().entry(node.clone()).or_default().link = Some(link);
    }

    fn nodes(&self) -> MutexGuard<'_, BTreeMap<NodeName, Told>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self, node: &NodeName) -> Told {
        self.nodes().get(node).cloned().unwrap_or_default()
    }
}

impl Witness for FakeNodes {
    fn named(&self) -> Vec<NodeName> {
        self.nodes().keys().cloned().collect()
    }

    fn knows(&self, node: &NodeName) -> bool {
        node.as_str() != NOWHERE
    }

    async fn testify(&self, node: &NodeName, _: &VolumeId, _: &Nqn) -> Testimony {
        self.told(node).testimony.unwrap_or_else(|| Testimony::Silent("no answer".into()))
    }

    async fn link(&self, node: &NodeName, _: &VolumeId, _: &Nqn) -> Link {
        self.told(node).link.unwrap_or_else(|| Link::Unknown("no answer".into()))
    }
}
