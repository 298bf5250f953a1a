//! Nodes that say what they were told to say.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use rds_csi_api::{NodeName, Nqn, VolumeId};

use super::Witness;
use crate::attachments::Testimony;

/// The nodes. One that was told nothing is silent.
#[derive(Debug, Default)]
pub struct FakeNodes(Mutex<BTreeMap<NodeName, Testimony>>);

impl FakeNodes {
    /// From now on the node says this of every volume.
    pub fn say(&self, node: &NodeName, testimony: Testimony) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(node.clone(), testimony);
    }
}

impl Witness for FakeNodes {
    async fn testify(&self, node: &NodeName, _: &VolumeId, _: &Nqn) -> Testimony {
        let nodes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.get(node).cloned().unwrap_or_else(|| Testimony::Silent("no answer".into()))
    }
}
