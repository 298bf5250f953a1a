//! A ledger in memory whose authority says what it was told, and which remembers what it passed on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rds_csi_api::{NodeName, VolumeId};

use super::facts::{Attached, Authority, Error, Facts, Freshness, Node, Reported, User};
use super::herald::{Event, Herald, Tally};
use super::record::Record;
use super::store::{self, InMemory, Revision, Store, Stored};

/// The ledger. A node that was told nothing of is ready, and says nothing of what it uses.
#[derive(Debug, Default)]
pub struct FakeLedger {
    /// The records.
    pub records: InMemory,
    world: Mutex<World>,
    tally: Tally,
}

#[derive(Debug, Default)]
struct World {
    /// As the authority has it, and as its caches do, where they are late.
    present: Kubernetes,
    cached: Option<Kubernetes>,
    silent: bool,
    told: Vec<(VolumeId, Event)>,
}

#[derive(Debug, Default, Clone)]
struct Kubernetes {
    wanted: BTreeMap<VolumeId, BTreeMap<NodeName, Attached>>,
    nodes: BTreeMap<NodeName, Node>,
    users: BTreeMap<VolumeId, Vec<User>>,
}

impl FakeLedger {
    /// The node is to hold the volume, and does so already or not.
    pub fn want(&self, volume: &VolumeId, node: &NodeName, attached: Attached) {
        self.world().present.wanted.entry(volume.clone()).or_default().insert(node.clone(), attached);
    }

    /// The node is to hold the volume no more.
    pub fn unwant(&self, volume: &VolumeId, node: &NodeName) {
        self.world().present.wanted.entry(volume.clone()).or_default().remove(node);
    }

    /// From now on the node is so.
    pub fn node(&self, name: &NodeName, node: Node) {
        self.world().present.nodes.insert(name.clone(), node);
    }

    /// From now on these pods use the volume.
    pub fn used_by(&self, volume: &VolumeId, users: Vec<User>) {
        self.world().present.users.insert(volume.clone(), users);
    }

    /// Caches stay as they are, until they catch up.
    pub fn stop_the_watches(&self) {
        let mut world = self.world();
        world.cached = Some(world.present.clone());
    }

    /// Caches catch up.
    pub fn catch_up(&self) {
        self.world().cached = None;
    }

    /// The authority itself answers nobody, or everybody again.
    pub fn silence(&self, silent: bool) {
        self.world().silent = silent;
    }

    /// What was passed on, in that order.
    pub fn told(&self) -> Vec<Event> {
        self.world().told.iter().map(|(_, event)| event.clone()).collect()
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for FakeLedger {
    async fn load(&self, volume: &VolumeId) -> Result<Stored, store::Error> {
        self.records.load(volume).await
    }

    async fn list(&self) -> Result<BTreeMap<VolumeId, Record>, store::Error> {
        self.records.list().await
    }

    fn seen(&self) -> Option<BTreeMap<VolumeId, Record>> {
        self.records.seen()
    }

    async fn replace(
        &self,
        volume: &VolumeId,
        loaded: Revision,
        record: Record,
    ) -> Result<Revision, store::Error> {
        self.records.replace(volume, loaded, record).await
    }
}

impl Authority for FakeLedger {
    async fn facts(
        &self,
        volume: &VolumeId,
        of: &BTreeSet<NodeName>,
        freshness: Freshness,
    ) -> Result<Facts, Error> {
        let world = self.world();
        let kubernetes = match (freshness, &world.cached) {
            (Freshness::Cached, Some(cached)) => cached,
            (Freshness::Confirmed, _) if world.silent => {
                return Err(Error::Unreachable {
                    id: volume.clone(),
                    why: "it was told to be silent".into(),
                });
            }
            _ => &world.present,
        };
        let wanted = kubernetes.wanted.get(volume).cloned().unwrap_or_default();
        let standard = Node::Ready(Reported::Nothing);
        let node = |name: &NodeName| (name.clone(), kubernetes.nodes.get(name).copied().unwrap_or(standard));
        Ok(Facts {
            nodes: wanted.keys().chain(of).map(node).collect(),
            users: kubernetes.users.get(volume).cloned().unwrap_or_default(),
            wanted,
        })
    }

    fn nodes(&self) -> BTreeSet<NodeName> {
        self.world().present.nodes.keys().cloned().collect()
    }
}

impl Herald for FakeLedger {
    fn tally(&self) -> &Tally {
        &self.tally
    }

    fn post(&self, volume: &VolumeId, event: &Event) {
        self.world().told.push((volume.clone(), event.clone()));
    }
}
