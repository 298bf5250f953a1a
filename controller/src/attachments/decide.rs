//! The rules: who may hold a volume, and when one who holds it may be let go.

use std::collections::BTreeMap;
use std::time::SystemTime;

use rds_csi_api::{AccessMode, Failure, Kind, NodeName};

use super::facts::{Attached, Facts};
use super::record::{Attachment, Record, Rights, Shape};

/// A live migration needs two nodes. More would be a cluster filesystem, which this is not for.
const MOST_WRITERS: usize = 2;

/// Every node is named in each command about the volume, and a command has 2 kB.
const MOST_READERS: usize = 4;

/// A node's wish to hold the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Which node.
    pub node: NodeName,
    /// As what.
    pub shape: Shape,
    /// Together with whom.
    pub mode: AccessMode,
    /// To do what.
    pub rights: Rights,
}

/// What a node's agent says about a volume there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Testimony {
    /// Nothing of it is left on the node.
    Gone,
    /// It is in use there, and by what.
    InUse(String),
    /// It gave no usable answer, and why.
    Silent(String),
    /// It did not get to say, by a fault of ours or between us. That is nothing to shut a node out for.
    Unasked(String),
}

/// How a node can be kept from writing without its help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fence {
    /// Not at all: every host may connect to every volume.
    None,
    /// The array admits named hosts only, and cuts the connections of all others.
    Acl,
    /// Every host may connect to what is attached, and the array gives a volume another name to cut all of them: for a
    /// volume that nobody else holds.
    Epoch,
}

impl Fence {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::None, Self::Acl, Self::Epoch];

    /// As it is configured.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Acl => "acl",
            Self::Epoch => "epoch",
        }
    }

    /// Whether the array can shut a node out while so many others stay.
    pub const fn works_with(self, staying: usize) -> bool {
        match self {
            Self::None => false,
            Self::Acl => true,
            Self::Epoch => staying == 0,
        }
    }

    const fn why_not(self) -> &'static str {
        match self {
            Self::None => "with fence: none nothing can stop it",
            Self::Acl => "fence: acl cannot be used",
            Self::Epoch => "fence: epoch would cut off the other node that holds it, too",
        }
    }

    const fn remedy(self) -> &'static str {
        match self {
            Self::None | Self::Acl => "shut the node down for good and run the controller with --fence acl",
            Self::Epoch => "detach it from the other node first",
        }
    }
}

/// What is to be done about a wish to hold a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Publish {
    /// Write this record, then let its nodes in.
    Attach(Record),
    /// The node holds it just so already: let the record's nodes in, in case that was cut off.
    Keep,
}

/// How nodes let a volume go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// Nothing of it is left on them.
    Clean,
    /// One may still write: its connection is to be cut before it counts as gone.
    BehindFence,
}

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

impl Failure for Refusal {
    fn kind(&self) -> Kind {
        match self {
            Self::Held { .. } | Self::Full { .. } | Self::Unfenced { .. } => Kind::Refused,
            Self::Differs { .. } => Kind::Conflict,
            Self::SharedFilesystem => Kind::Invalid,
            Self::InUse { .. } => Kind::InUse,
            Self::Unasked { .. } => Kind::Unreachable,
        }
    }
}

/// Whether a node may hold a volume, given who does.
pub fn publish(record: &Record, facts: &Facts, claim: Claim, now: SystemTime) -> Result<Publish, Refusal> {
    if claim.shape == Shape::Filesystem && claim.mode == AccessMode::MultiNodeWriter {
        return Err(Refusal::SharedFilesystem);
    }
    let Claim { node, shape, mode, rights } = claim;
    if let Some(held) = record.of(&node) {
        return if (held.shape, held.mode, held.rights) == (shape, mode, rights) {
            Ok(Publish::Keep)
        } else {
            let held = told(held.shape, held.mode, held.rights);
            Err(Refusal::Differs { node, held, asked: told(shape, mode, rights) })
        };
    }
    let stranger = record.attachments().find(|(_, held)| !shared(held.mode, mode) || held.shape != shape);
    if let Some((holder, held)) = stranger {
        return Err(Refusal::Held { holder: holder.clone(), how: name(held.mode) });
    }
    // Attached by Kubernetes' word, and in no record: the record was lost.
    let lost = facts.wanted.iter().find(|(other, attached)| {
        **attached == Attached::Yes && **other != node && record.of(other).is_none()
    });
    if let Some((holder, _)) = lost {
        return Err(Refusal::Held { holder: holder.clone(), how: name(mode) });
    }
    let most = if mode == AccessMode::MultiNodeWriter { MOST_WRITERS } else { MOST_READERS };
    if record.nodes().count() >= most {
        let holders = record.nodes().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
        return Err(Refusal::Full { holders, most });
    }
    Ok(Publish::Attach(record.with(node, Attachment { shape, mode, rights, since: now })))
}

/// Whether nodes that hold a volume may let it go, given what they say of it themselves, and how many others keep it.
pub fn release(
    leaving: BTreeMap<NodeName, Testimony>,
    fence: Fence,
    staying: usize,
) -> Result<Release, Refusal> {
    let mut silent = None;
    for (node, testimony) in leaving {
        match testimony {
            Testimony::Gone => {}
            Testimony::InUse(what) => return Err(Refusal::InUse { node, what }),
            Testimony::Unasked(why) => return Err(Refusal::Unasked { node, why }),
            Testimony::Silent(why) => silent = Some((node, why)),
        }
    }
    match silent {
        None => Ok(Release::Clean),
        Some(_) if fence.works_with(staying) => Ok(Release::BehindFence),
        Some((node, why)) => Err(Refusal::Unfenced { node, why, fence }),
    }
}

/// Whether two nodes may hold a volume at once, one in each mode.
const fn shared(one: AccessMode, other: AccessMode) -> bool {
    matches!(
        (one, other),
        (AccessMode::MultiNodeWriter, AccessMode::MultiNodeWriter)
            | (AccessMode::MultiNodeReader, AccessMode::MultiNodeReader)
    )
}

/// As Kubernetes names the mode, where it does.
const fn name(mode: AccessMode) -> &'static str {
    match mode {
        AccessMode::SingleNodeWriter => "ReadWriteOnce",
        AccessMode::SingleNodeSingleWriter => "ReadWriteOncePod",
        AccessMode::SingleNodeMultiWriter => "SINGLE_NODE_MULTI_WRITER",
        AccessMode::SingleNodeReader => "SINGLE_NODE_READER_ONLY",
        AccessMode::MultiNodeReader => "ReadOnlyMany",
        AccessMode::MultiNodeWriter => "ReadWriteMany",
    }
}

fn told(shape: Shape, mode: AccessMode, rights: Rights) -> String {
    let shape = match shape {
        Shape::Block => "block",
        Shape::Filesystem => "filesystem",
    };
    let rights = match rights {
        Rights::Write => "",
        Rights::Read => ", read-only",
    };
    format!("{shape}, {}{rights}", name(mode))
}

#[cfg(test)]
mod tests;
