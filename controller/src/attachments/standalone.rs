//! One controller alone, without Kubernetes: nobody else says who is to hold a volume, so its own record decides. The record
//! is in memory and is lost with the program; what the array lets in, and what nodes say, keeps the rest safe.

use std::collections::{BTreeMap, BTreeSet};

use rds_csi_api::{NodeName, VolumeId};

use super::facts::{Attached, Authority, Error, Facts, Freshness, Node, Reported};
use super::herald::{Event, Herald, Tally};
use super::record::Record;
use super::store::{self, InMemory, Revision, Store, Stored};

/// Records in memory, and an authority that knows nothing.
#[derive(Debug, Default)]
pub struct Standalone {
    records: InMemory,
    tally: Tally,
}

impl Store for Standalone {
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

/// Whoever is asked about is to hold the volume, for all that anybody knows, and is well.
impl Authority for Standalone {
    async fn facts(&self, _: &VolumeId, of: &BTreeSet<NodeName>, _: Freshness) -> Result<Facts, Error> {
        Ok(Facts {
            wanted: of.iter().map(|node| (node.clone(), Attached::No)).collect(),
            nodes: of.iter().map(|node| (node.clone(), Node::Ready(Reported::Nothing))).collect(),
            users: Vec::new(),
        })
    }

    fn nodes(&self) -> BTreeSet<NodeName> {
        BTreeSet::new()
    }
}

/// There is nowhere to post an event: the log has it.
impl Herald for Standalone {
    fn tally(&self) -> &Tally {
        &self.tally
    }

    fn post(&self, _: &VolumeId, _: &Event) {}
}
