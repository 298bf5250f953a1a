//! What the authority says about a volume: who is to hold it, how those nodes are, and which pods use it. Domain words
//! only: that the authority is Kubernetes stands in `cluster`.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;

use rds_csi_api::{Failure, Kind, NodeName, VolumeId};

/// What the authority says about a volume at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The nodes that are to hold it: a VolumeAttachment names each, also one that is being deleted. A node that is not here
    /// is to hold it no more.
    pub wanted: BTreeMap<NodeName, Attached>,
    /// How each of these nodes is, and each that was asked about.
    pub nodes: BTreeMap<NodeName, Node>,
    /// The pods that use the volume's claim, and are neither finished nor without a node.
    pub users: Vec<User>,
}

impl Facts {
    /// How a node is. One that is not spoken of is not there.
    pub fn node(&self, node: &NodeName) -> Node {
        self.nodes.get(node).copied().unwrap_or(Node::Gone)
    }
}

/// Whether the authority takes a node for attached already (`VolumeAttachment.status.attached`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Attached {
    /// Not yet, or it cannot say.
    No,
    /// It does.
    Yes,
}

/// How a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Node {
    /// Its kubelet is heard of.
    Ready(Reported),
    /// It is not. That says nothing about whether the node writes.
    NotReady(Reported),
    /// A person says that it is down for good (`node.kubernetes.io/out-of-service`).
    OutOfService,
    /// There is no such node any more.
    Gone,
}

/// What the node's kubelet reported about the volume (`Node.status.volumesInUse`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reported {
    /// It uses it. kubelet reports this before it stages the volume.
    InUse,
    /// It does not use it. kubelet reports this after it unstaged the volume.
    NotInUse,
    /// Nobody can say.
    Nothing,
}

/// A pod that uses the volume's claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The pod.
    pub pod: Pod,
    /// The pod that owns it, if a pod does: who plugs a disk into a running VM leaves it to a pod of the VM's.
    pub owner: Option<Pod>,
}

/// A pod, as far as it tells what it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Namespace and name.
    pub name: String,
    /// Where it runs, or will.
    pub node: NodeName,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// How much the answer must be worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// As it was heard of last.
    Cached,
    /// As it is: the authority itself is asked.
    Confirmed,
}

/// Whoever says who is to hold a volume.
pub trait Authority: Send + Sync + 'static {
    /// About this volume and these nodes. Whatever drops an entry of a record, forces a detach or says 'nobody' rests on
    /// [`Freshness::Confirmed`]. Not being able to say is an error, never an empty answer.
    fn facts(
        &self,
        volume: &VolumeId,
        of: &BTreeSet<NodeName>,
        freshness: Freshness,
    ) -> impl Future<Output = Result<Facts, Error>> + Send;

    /// The nodes that there are, as far as was heard: what the array calls a host is found among them.
    fn nodes(&self) -> BTreeSet<NodeName>;
}

/// Why the authority did not say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It could not be asked.
    #[error("who is to hold volume {id} is not known, and nothing is changed until it is: {why}")]
    Unreachable {
        /// The volume.
        id: VolumeId,
        /// Why not.
        why: String,
    },
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Unreachable { .. } => Kind::Unreachable,
        }
    }
}
