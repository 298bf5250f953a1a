//! What VolumeAttachments, Nodes and Pods say about a volume.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::try_join_all;
use k8s_openapi::api::core::v1 as core;
use kube::Api;
use rds_csi_api::{NodeName, VolumeId, VolumeName};

use super::{Ledger, Unanswered, answer, if_any};
use crate::attachments::facts::{self, Attached, Authority, Error, Facts, Freshness, Reported, User};
use crate::cluster::cache::{Digest as _, State, Unheard};
use crate::cluster::claims::list;
use crate::cluster::objects::{Attachment, Claim, Health, Node, Pod, PodPlace, Volume};

impl Authority for Ledger {
    async fn facts(
        &self,
        volume: &VolumeId,
        of: &BTreeSet<NodeName>,
        freshness: Freshness,
    ) -> Result<Facts, Error> {
        let heard = match freshness {
            Freshness::Cached => self.heard(volume, of).ok(),
            Freshness::Confirmed => None,
        };
        match heard {
            Some(facts) => Ok(facts),
            // A broken watch says nothing about whether the API server would answer.
            None => {
                self.confirmed(volume, of).await.map_err(|why| Error::Unreachable { id: volume.clone(), why })
            }
        }
    }

    fn nodes(&self) -> BTreeSet<NodeName> {
        let Some(nodes) = self.nodes.last() else { return BTreeSet::new() };
        nodes.all().filter_map(|(name, _)| name.parse().ok()).collect()
    }
}

impl Ledger {
    /// As it was heard.
    fn heard(&self, id: &VolumeId, of: &BTreeSet<NodeName>) -> Result<Facts, Unheard> {
        let (volumes, attachments) = (self.volumes.current()?, self.attachments.current()?);
        let all = attachments.all().map(|(_, attachment)| attachment);
        let wanted = wanted(all, id, |name| volumes.named(name).map(|volume| volume.id.clone()));
        let nodes = self.nodes.current()?;
        let states = of.iter().chain(wanted.keys());
        let states = states.map(|node| (node.clone(), state(nodes.named(node.as_str()), id))).collect();
        let claim = volumes.at(id).find_map(|volume| volume.claim.as_ref());
        let pods = self.pods.current()?;
        Ok(Facts { wanted, nodes: states, users: users(&pods, claim) })
    }

    /// As the API server has it.
    async fn confirmed(&self, id: &VolumeId, of: &BTreeSet<NodeName>) -> Result<Facts, String> {
        let attachments = self.volume_attachments();
        let attachments = answer(list(&attachments)).await.map_err(Unanswered::why)?;
        let attachments: Vec<_> = attachments.into_iter().filter_map(Attachment::of).collect();
        let volume = self.asked_for(id).await?.map_err(|error| error.to_string())?;
        // A PersistentVolume never changes which volume it names, so what was heard of it holds.
        let mut handles: BTreeMap<String, VolumeId> = BTreeMap::new();
        if let Some(volume) = &volume {
            handles.insert(volume.name.clone(), volume.id.clone());
        }
        for Attachment { volume, .. } in &attachments {
            if handles.contains_key(volume) {
                continue;
            }
            let heard = self.volumes.last().and_then(|volumes| Some(volumes.named(volume)?.id.clone()));
            let handle = if heard.is_some() {
                heard
            } else {
                let object = if_any(answer(self.persistent_volumes().get(volume)).await)?;
                object.and_then(Volume::of).map(|volume| volume.id)
            };
            handles.extend(handle.map(|handle| (volume.clone(), handle)));
        }
        let wanted = wanted(&attachments, id, |name| handles.get(name).cloned());
        let names: BTreeSet<_> = of.iter().chain(wanted.keys()).cloned().collect();
        let api: Api<core::Node> = Api::all(self.client.clone());
        let states = names.into_iter().map(async |node| {
            let object = if_any(answer(api.get(node.as_str())).await)?;
            let seen = object.and_then(Node::of);
            Ok::<_, String>((node, state(seen.as_ref(), id)))
        });
        let nodes = try_join_all(states).await?.into_iter().collect();
        let users = match volume.and_then(|volume| volume.claim) {
            None => Vec::new(),
            Some(claim) => {
                let pods: Api<core::Pod> = Api::namespaced(self.client.clone(), &claim.namespace);
                let pods = answer(list(&pods)).await.map_err(Unanswered::why)?;
                users(&State::of(pods), Some(&claim))
            }
        };
        Ok(Facts { wanted, nodes, users })
    }
}

/// The nodes that VolumeAttachments name for a volume, which one or several PersistentVolumes stand for.
fn wanted<'all>(
    attachments: impl IntoIterator<Item = &'all Attachment>,
    id: &VolumeId,
    handle: impl Fn(&str) -> Option<VolumeId>,
) -> BTreeMap<NodeName, Attached> {
    let mut wanted = BTreeMap::new();
    for Attachment { volume, node, attached } in attachments {
        let is_its = match handle(volume) {
            Some(handle) => handle == *id,
            None => stood_for(volume, id),
        };
        if is_its {
            let before = wanted.entry(node.clone()).or_insert(*attached);
            *before = (*before).max(*attached);
        }
    }
    wanted
}

/// Whether a PersistentVolume that is gone may have stood for the volume: the provisioner names it like the volume it asks
/// for, and earlier volumes have that very name.
fn stood_for(name: &str, id: &VolumeId) -> bool {
    let made_for = |name: VolumeName| VolumeId::for_name(id.backend().as_ref(), &name) == *id;
    name == id.slot() || name.parse().is_ok_and(made_for)
}

/// How a node is, and what it says of the volume.
fn state(node: Option<&Node>, id: &VolumeId) -> facts::Node {
    let Some(Node { health, in_use }) = node else { return facts::Node::Gone };
    let reported = if in_use.contains(id.as_str()) { Reported::InUse } else { Reported::NotInUse };
    match health {
        Health::Ready => facts::Node::Ready(reported),
        Health::NotReady => facts::Node::NotReady(reported),
        Health::OutOfService => facts::Node::OutOfService,
    }
}

/// The pods that use a claim, each with its owner.
fn users(pods: &State<Pod>, claim: Option<&Claim>) -> Vec<User> {
    let Some(claim) = claim else { return Vec::new() };
    let told = |Pod { name, node, labels, .. }: &Pod| facts::Pod {
        name: name.clone(),
        node: node.clone(),
        labels: labels.clone(),
    };
    let using = pods.at(&PodPlace::Claim(format!("{}/{}", claim.namespace, claim.name)));
    let user = |pod: &Pod| {
        let owner = pod.owner.clone().and_then(|uid| pods.at(&PodPlace::Uid(uid)).next());
        User { pod: told(pod), owner: owner.map(told) }
    };
    using.map(user).collect()
}
