//! The rules: who may hold a volume, and when one who holds it may be let go.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use rds_csi_api::context::{MIGRATION_TIMEOUT, Together};
use rds_csi_api::{AccessMode, NodeName};

use super::facts::{Attached, Facts, Node, Reported};
use super::herald::Event;
use super::proof;
use super::record::{Attachment, Course, Migration, Proof, Record, Rights, Shape};
pub use super::refusal::Refusal;

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
    /// What a second node of this volume keeps to.
    pub second: Second,
}

/// What a second node of a volume keeps to, by its StorageClass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Second {
    /// Who may be one.
    pub together: Together,
    /// How long a migration may take.
    pub timeout: Duration,
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

    pub(super) const fn why_not(self) -> &'static str {
        match self {
            Self::None => "with fence: none nothing can stop it",
            Self::Acl => "fence: acl cannot be used",
            Self::Epoch => "fence: epoch would cut off the other node that holds it, too",
        }
    }

    pub(super) const fn remedy(self) -> &'static str {
        match self {
            Self::None | Self::Acl => "shut the node down for good and run the controller with --fence acl",
            Self::Epoch => "detach it from the other node first",
        }
    }
}

impl Default for Second {
    fn default() -> Self {
        Self { together: Together::Anybody, timeout: MIGRATION_TIMEOUT }
    }
}

/// What is to be done about a wish to hold a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Publish {
    /// Write this record, then let its nodes in.
    Attach(Record),
    /// The node holds it just so already: write that anew, so that whoever is about to change it begins again, and let the
    /// record's nodes in, in case that was cut off.
    Keep(Record),
    /// These nodes are recorded, and are not to hold it any more: they must let it go first.
    Clear(BTreeSet<NodeName>),
}

/// What is known of a node that is to let a volume go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaving {
    /// What its agent says.
    pub testimony: Testimony,
    /// How Kubernetes sees it.
    pub node: Node,
}

/// How nodes let a volume go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Release {
    /// Nothing of it is left on them.
    Clean,
    /// These may still write, for all that is known: their connections are to be cut before they count as gone.
    BehindFence(BTreeMap<NodeName, String>),
}

/// Whether a node may hold a volume, given who does.
///
/// Who holds it says the record, and Kubernetes where it takes a node for attached: then the record was lost.
pub fn publish(record: &Record, facts: &Facts, claim: Claim, now: SystemTime) -> Result<Publish, Refusal> {
    if claim.shape == Shape::Filesystem && claim.mode == AccessMode::MultiNodeWriter {
        return Err(Refusal::SharedFilesystem);
    }
    let Claim { node, shape, mode, rights, second } = claim;
    if let Some(held) = record.of(&node) {
        return if (held.shape, held.mode, held.rights) == (shape, mode, rights) {
            Ok(Publish::Keep(record.with(node, Attachment { since: now, ..held.clone() })))
        } else {
            let held = told(held.shape, held.mode, held.rights);
            Err(Refusal::Differs { node, held, asked: told(shape, mode, rights) })
        };
    }
    let stale = stale(record, facts);
    if !stale.is_empty() {
        return Ok(Publish::Clear(stale));
    }
    // Kubernetes asks in the same way for every node of a volume, so a node whose record was lost holds it like this.
    let attachment = Attachment { shape, mode, rights, since: now };
    let record = lost(record, facts)
        .filter(|holder| **holder != node)
        .fold(record.clone(), |record, holder| record.with(holder.clone(), attachment.clone()));
    let stranger = record.attachments().find(|(_, held)| !shared(held.mode, mode) || held.shape != shape);
    if let Some((holder, held)) = stranger {
        return Err(Refusal::Held { holder: holder.clone(), how: name(held.mode) });
    }
    let most = if mode == AccessMode::MultiNodeWriter { MOST_WRITERS } else { MOST_READERS };
    if record.nodes().count() >= most {
        let holders = record.nodes().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
        return Err(Refusal::Full { holders, most });
    }
    let attached = record.with(node.clone(), attachment);
    if mode != AccessMode::MultiNodeWriter {
        return Ok(Publish::Attach(attached));
    }
    let Some(holder) = record.nodes().next() else { return Ok(Publish::Attach(attached)) };
    let proof = beside(holder, &node, facts, second.together)?;
    Ok(Publish::Attach(match proof {
        Some(proof) => attached.migrating(Migration {
            from: holder.clone(),
            to: node,
            since: now,
            timeout_seconds: second.timeout.as_secs(),
            proof,
            course: Course::Running,
        }),
        None => attached,
    }))
}

/// Whether a second node may write beside the one that holds the volume, and whether a VM goes there.
fn beside(
    holder: &NodeName,
    node: &NodeName,
    facts: &Facts,
    together: Together,
) -> Result<Option<Proof>, Refusal> {
    match facts.node(holder) {
        // A person says that it writes no more; whether that is so is for its detach to make sure.
        Node::Ready(_) | Node::OutOfService => {}
        Node::NotReady(_) | Node::Gone => {
            return Err(Refusal::HolderNotReady { holder: holder.clone() });
        }
    }
    match (proof::of_migration(&facts.users, holder, node), together) {
        (Ok(proof), _) => Ok(Some(proof)),
        (Err(_), Together::Anybody) => Ok(None),
        (Err(why), Together::KubevirtOnly) => Err(Refusal::NoMigration { holder: holder.clone(), why }),
    }
}

/// The nodes that are recorded, and are not to hold the volume.
pub fn stale(record: &Record, facts: &Facts) -> BTreeSet<NodeName> {
    record.nodes().filter(|node| !facts.wanted.contains_key(*node)).cloned().collect()
}

/// The nodes that Kubernetes takes for attached, and no record names.
pub fn lost<'a>(record: &'a Record, facts: &'a Facts) -> impl Iterator<Item = &'a NodeName> {
    let attached = facts.wanted.iter().filter(|(_, attached)| **attached == Attached::Yes);
    attached.map(|(node, _)| node).filter(|node| record.of(node).is_none())
}

/// Whether nodes that hold a volume may let it go, given what is known of them.
///
/// A node's own word is its agent's, or else its kubelet's. An agent that says 'in use' is believed before everybody, and so is
/// the kubelet of a ready node whose agent is away: there is somebody to unmount it. Whether a fence helps depends on how many
/// others keep the volume.
pub fn release(
    leaving: BTreeMap<NodeName, Leaving>,
    fence: Fence,
    staying: usize,
) -> Result<Release, Refusal> {
    let (mut unasked, mut silent) = (None, BTreeMap::new());
    for (node, Leaving { testimony, node: seen }) in leaving {
        let unused = matches!(seen, Node::Ready(Reported::NotInUse) | Node::NotReady(Reported::NotInUse));
        match testimony {
            Testimony::Gone => {}
            Testimony::InUse(what) => return Err(Refusal::InUse { node, what }),
            Testimony::Silent(_) | Testimony::Unasked(_) if unused => {}
            Testimony::Silent(why) | Testimony::Unasked(why) if seen == Node::Ready(Reported::InUse) => {
                let what = format!("its kubelet says so, and its agent does not answer ({why})");
                return Err(Refusal::InUse { node, what });
            }
            Testimony::Unasked(why) => unasked = Some(Refusal::Unasked { node, why }),
            Testimony::Silent(why) => {
                silent.insert(node, why);
            }
        }
    }
    if let Some(refusal) = unasked {
        return Err(refusal);
    }
    match silent.first_key_value() {
        None => Ok(Release::Clean),
        Some(_) if fence.works_with(staying) => Ok(Release::BehindFence(silent)),
        Some((node, why)) => Err(Refusal::Unfenced { node: node.clone(), why: why.clone(), fence }),
    }
}

/// What becomes of the record when these nodes have let the volume go, and how a migration ended by that.
pub fn settle(record: &Record, left: &[NodeName], now: SystemTime) -> (Record, Option<Event>) {
    let after = record.without(left);
    let ended = record.migration().filter(|migration| {
        // One that was called failed has been told of already.
        migration.course == Course::Running && after.migration().is_none()
    });
    let event = ended.map(|migration| {
        let Migration { from, to, .. } = migration.clone();
        let took = migration.age(now);
        if left.contains(&to) {
            let why = "the second node has let it go".into();
            Event::MigrationFailed { from, to, took, why }
        } else {
            Event::MigrationCompleted { from, to, took }
        }
    });
    (after, event)
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
