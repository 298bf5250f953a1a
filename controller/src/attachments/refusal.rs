//! Why a node does not get a volume, or does not get rid of it, in words that say what to do.

use rds_csi_api::{Failure, Kind, NodeName};

use super::decide::Fence;
use super::proof;

/// Why it must not be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another node holds it, and one of the two does not share.
    #[error(
        "node {holder} holds the volume ({how}), and it is not shared: stop the pods that use it there, \
         or wait until it is detached"
    )]
    Held {
        /// The node.
        holder: NodeName,
        /// In which access mode.
        how: &'static str,
    },
    /// As many nodes hold it as may.
    #[error("nodes {holders} hold the volume, and {most} is the most: one of them must let it go first")]
    Full {
        /// Their names.
        holders: String,
        /// How many may.
        most: usize,
    },
    /// The node that holds it may be writing, and nobody hears of it.
    #[error(
        "node {holder} holds the volume and is not ready, so it may be writing unseen: wait until it is ready again, or, once it \
         is shut down for good, taint it node.kubernetes.io/out-of-service"
    )]
    HolderNotReady {
        /// The node.
        holder: NodeName,
    },
    /// Only a migration may have it on two nodes, and there is none.
    #[error(
        "node {holder} holds the volume, and with restrictToKubevirt a second node gets it only for a live migration, of which \
         there is no proof: {why}"
    )]
    NoMigration {
        /// The node.
        holder: NodeName,
        /// What is missing.
        why: proof::Missing,
    },
    /// The node holds it in another way.
    #[error(
        "node {node} holds the volume already, but otherwise: {held}, not {asked}; detach it there before it is \
         attached in another way"
    )]
    Differs {
        /// The node.
        node: NodeName,
        /// How it holds it.
        held: String,
        /// How it asked for it.
        asked: String,
    },
    /// Two nodes would destroy a filesystem.
    #[error(
        "a filesystem cannot be written by several nodes: set volumeMode: Block in the PVC, or ask for ReadWriteOnce"
    )]
    SharedFilesystem,
    /// The node says that it uses it.
    #[error("the volume is still in use on node {node}: {what}")]
    InUse {
        /// The node.
        node: NodeName,
        /// By what.
        what: String,
    },
    /// Under the name that stays, the node has a connection that it was cut off from.
    #[error(
        "node {node} still has a connection of the volume from before, and its array would let it in again with whatever the \
         node holds back: it ends when the volume is unstaged there, or the node restarts"
    )]
    Reconnecting {
        /// The node.
        node: NodeName,
    },
    /// The node did not get to say.
    #[error(
        "node {node} did not say whether it still uses the volume, and not because it is down, so it is not shut out \
         ({why}): check the agent's log, and certificates and addresses on both sides"
    )]
    Unasked {
        /// The node.
        node: NodeName,
        /// Why not.
        why: String,
    },
    /// The node says nothing, and nothing could keep it from writing.
    #[error(
        "node {node} may still write to the volume, since its agent does not say otherwise ({why}), and {}: bring the node's \
         agent back, or {}",
        .fence.why_not(), .fence.remedy()
    )]
    Unfenced {
        /// The node.
        node: NodeName,
        /// What is known of the silence.
        why: String,
        /// What there is instead.
        fence: Fence,
    },
}

impl Refusal {
    /// Whether another node is in the way.
    pub const fn is_conflict(&self) -> bool {
        match self {
            Self::Held { .. }
            | Self::Full { .. }
            | Self::HolderNotReady { .. }
            | Self::NoMigration { .. } => true,
            Self::Differs { .. }
            | Self::SharedFilesystem
            | Self::InUse { .. }
            | Self::Reconnecting { .. }
            | Self::Unasked { .. }
            | Self::Unfenced { .. } => false,
        }
    }
}

impl Failure for Refusal {
    fn kind(&self) -> Kind {
        match self {
            Self::Held { .. }
            | Self::Full { .. }
            | Self::HolderNotReady { .. }
            | Self::NoMigration { .. }
            | Self::Unfenced { .. } => Kind::Refused,
            Self::Differs { .. } => Kind::Conflict,
            Self::SharedFilesystem => Kind::Invalid,
            Self::InUse { .. } => Kind::InUse,
            Self::Unasked { .. } | Self::Reconnecting { .. } => Kind::Unreachable,
        }
    }
}
