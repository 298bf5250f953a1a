//! What is kept of the objects that say who is to hold a volume.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::storage::v1 as storage;
use rds_csi_api::{DRIVER_NAME, NodeName, VolumeId};

use super::cache::Digest;
use crate::attachments::Record;
use crate::attachments::facts::Attached;

/// The annotation that a volume's record is in.
pub const RECORD: &str = "rds.csi.srvlab.io/attachments";

/// The annotation by which a person lets a volume be staged again.
pub const RESET: &str = "rds.csi.srvlab.io/reset-circuit-breaker";

/// Says of a node that it is down for good (KEP-2268).
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// Labels that say what a pod is for begin so.
const KUBEVIRT: &str = "kubevirt.io/";

/// A PersistentVolume of this driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its name, which need not be the volume's.
    pub name: String,
    /// Which state of the object this is.
    pub version: String,
    /// The volume.
    pub id: VolumeId,
    /// The volume's record, or why it cannot be read.
    pub record: Result<Record, String>,
    /// Whether its breakers are to be reset.
    pub reset: Reset,
    /// Who claims it.
    pub claim: Option<Claim>,
}

/// Whether somebody asks for a reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// Nobody does.
    No,
    /// Somebody does.
    Asked,
}

/// A PersistentVolumeClaim, as a PersistentVolume names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claim {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Which one of that name.
    pub uid: String,
}

impl Digest for Volume {
    type Object = core::PersistentVolume;
    type Place = VolumeId;
    const WHAT: &'static str = "PersistentVolumes";

    fn of(object: Self::Object) -> Option<Self> {
        let spec = object.spec?;
        let csi = spec.csi.filter(|csi| csi.driver == DRIVER_NAME)?;
        let annotations = object.metadata.annotations.unwrap_or_default();
        let record = annotations.get(RECORD).map_or_else(
            || Ok(Record::default()),
            |text| serde_json::from_str(text).map_err(|error| format!("annotation {RECORD}: {error}")),
        );
        let reset = match annotations.get(RESET).map(String::as_str) {
            Some("true") => Reset::Asked,
            _ => Reset::No,
        };
        let claim = spec.claim_ref.and_then(|claim| {
            Some(Claim { namespace: claim.namespace?, name: claim.name?, uid: claim.uid.unwrap_or_default() })
        });
        Some(Self {
            name: object.metadata.name?,
            version: object.metadata.resource_version.unwrap_or_default(),
            id: csi.volume_handle.parse().ok()?,
            record,
            reset,
            claim,
        })
    }

    fn places(&self) -> Vec<VolumeId> {
        vec![self.id.clone()]
    }
}

/// A VolumeAttachment of this driver. One that is being deleted is one until it is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The PersistentVolume's name.
    pub volume: String,
    /// The node.
    pub node: NodeName,
    /// Whether the attacher said that it is done.
    pub attached: Attached,
}

impl Digest for Attachment {
    type Object = storage::VolumeAttachment;
    type Place = String;
    const WHAT: &'static str = "VolumeAttachments";

    fn of(object: Self::Object) -> Option<Self> {
        let spec = object.spec;
        if spec.attacher != DRIVER_NAME {
            return None;
        }
        let attached = object.status.is_some_and(|status| status.attached);
        Some(Self {
            volume: spec.source.persistent_volume_name?,
            node: spec.node_name.parse().ok()?,
            attached: if attached { Attached::Yes } else { Attached::No },
        })
    }

    fn places(&self) -> Vec<String> {
        vec![self.volume.clone()]
    }
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// How it is.
    pub health: Health,
    /// Which of our volumes its kubelet uses.
    pub in_use: BTreeSet<String>,
}

/// How a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Its kubelet is heard of.
    Ready,
    /// It is not.
    NotReady,
    /// A person says that it is down for good.
    OutOfService,
}

impl Digest for Node {
    type Object = core::Node;
    type Place = ();
    const WHAT: &'static str = "Nodes";

    fn of(object: Self::Object) -> Option<Self> {
        let taints = object.spec.and_then(|spec| spec.taints).unwrap_or_default();
        let status = object.status.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let ready = conditions.iter().any(|is| is.type_ == "Ready" && is.status == "True");
        let health = if taints.iter().any(|taint| taint.key == OUT_OF_SERVICE) {
            Health::OutOfService
        } else if ready {
            Health::Ready
        } else {
            Health::NotReady
        };
        // kubelet's name of a volume that a CSI driver attaches.
        let used = |name: String| {
            let (driver, handle) = name.strip_prefix("kubernetes.io/csi/")?.split_once('^')?;
            (driver == DRIVER_NAME).then(|| handle.to_owned())
        };
        let in_use = status.volumes_in_use.unwrap_or_default().into_iter().filter_map(used).collect();
        Some(Self { health, in_use })
    }

    fn places(&self) -> Vec<()> {
        Vec::new()
    }
}

/// A pod that has a node, has not ended, and uses a claim or is one that others of these belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Namespace and name.
    pub name: String,
    /// Which one of that name.
    pub uid: String,
    /// Where it runs.
    pub node: NodeName,
    /// Those of its labels that say which VM it is for.
    pub labels: BTreeMap<String, String>,
    /// The pod that owns it, by its uid.
    pub owner: Option<String>,
    /// The claims that it uses, each with its namespace and a `/` before it.
    pub claims: Vec<String>,
}

/// Whereby a pod is found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PodPlace {
    /// By a claim that it uses.
    Claim(String),
    /// By its uid.
    Uid(String),
}

/// Pods that have ended use nothing any more.
pub const RUNNING: &str = "status.phase!=Succeeded,status.phase!=Failed";

impl Digest for Pod {
    type Object = core::Pod;
    type Place = PodPlace;
    const WHAT: &'static str = "Pods";

    fn of(object: Self::Object) -> Option<Self> {
        let phase = object.status.and_then(|status| status.phase);
        if matches!(phase.as_deref(), Some("Succeeded" | "Failed")) {
            return None;
        }
        let (meta, spec) = (object.metadata, object.spec?);
        let (namespace, name) = (meta.namespace?, meta.name?);
        let node = spec.node_name.filter(|node| !node.is_empty())?.parse().ok()?;
        let claims: Vec<_> = spec
            .volumes
            .unwrap_or_default()
            .into_iter()
            .filter_map(|volume| match (volume.persistent_volume_claim, volume.ephemeral) {
                (Some(claim), _) => Some(format!("{namespace}/{}", claim.claim_name)),
                // The claim of an ephemeral volume is named after both.
                (None, Some(_)) => Some(format!("{namespace}/{name}-{}", volume.name)),
                (None, None) => None,
            })
            .collect();
        let labels: BTreeMap<_, _> = meta
            .labels
            .unwrap_or_default()
            .into_iter()
            .filter(|(key, _)| key.starts_with(KUBEVIRT))
            .collect();
        if claims.is_empty() && labels.is_empty() {
            return None;
        }
        let mut owners = meta.owner_references.unwrap_or_default().into_iter();
        let owner = owners.find(|owner| owner.kind == "Pod").map(|owner| owner.uid);
        Some(Self { name: format!("{namespace}/{name}"), uid: meta.uid?, node, labels, owner, claims })
    }

    fn places(&self) -> Vec<PodPlace> {
        let claims = self.claims.iter().cloned().map(PodPlace::Claim);
        claims.chain([PodPlace::Uid(self.uid.clone())]).collect()
    }
}

/// A pod of the node agent, as far as it says where the node's agent listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// Whether it is about to go.
    pub stay: Stay,
    /// Its node.
    pub node: NodeName,
    /// Its address.
    pub address: String,
}

/// Whether a pod is about to go. Of two on one node, the one that stays is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stay {
    /// It stays.
    Staying,
    /// It is being deleted.
    Leaving,
}

impl Digest for Agent {
    type Object = core::Pod;
    type Place = NodeName;
    const WHAT: &'static str = "Pods of the node agent";

    fn of(object: Self::Object) -> Option<Self> {
        let stay = object.metadata.deletion_timestamp.map_or(Stay::Staying, |_| Stay::Leaving);
        let node = object.spec?.node_name?.parse().ok()?;
        let address = object.status?.pod_ip.filter(|address| !address.is_empty())?;
        Some(Self { stay, node, address })
    }

    fn places(&self) -> Vec<NodeName> {
        vec![self.node.clone()]
    }
}
