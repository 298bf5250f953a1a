//! What the verbs found, in the words of the wire.

use std::collections::BTreeMap;

use rds_csi_api::csi::controller_service_capability::{Rpc, Type, rpc};
use rds_csi_api::csi::volume_content_source as content;
use rds_csi_api::csi::{self, VolumeContentSource};
use rds_csi_api::{HealthCalls, NodeName, PublishContext};

use crate::array::{Snapshot, Source, Volume};
use crate::backends::Backends;
use crate::backends::topology::Segments;
use crate::capacity::Room;
use crate::condition::{Ailment, Condition, Trouble};
use crate::create::Created;
use crate::holders::Told;
use crate::page::Page;
use crate::validate::Verdict;

/// What ControllerGetCapabilities tells always.
const SERVED: [rpc::Type; 15] = [
    rpc::Type::CreateDeleteVolume,
    rpc::Type::PublishUnpublishVolume,
    rpc::Type::ListVolumes,
    rpc::Type::ListVolumesPublishedNodes,
    rpc::Type::GetVolume,
    rpc::Type::GetCapacity,
    rpc::Type::CreateDeleteSnapshot,
    rpc::Type::ListSnapshots,
    rpc::Type::GetSnapshot,
    rpc::Type::CloneVolume,
    rpc::Type::ExpandVolume,
    rpc::Type::VolumeCondition,
    rpc::Type::PublishReadonly,
    rpc::Type::SingleNodeMultiWriter,
    rpc::Type::ModifyVolume,
];

/// What it tells beside that if the health calls of CSI 1.13 are wanted. VOLUME_CONDITION says the same, and sidecars of 1.12 refuse what
/// they do not know.
const HEALTH: [rpc::Type; 2] = [rpc::Type::GetVolumeHealth, rpc::Type::ListVolumeHealth];

/// The attacher attaches again what a listing does not call published, so that is promised only if it is never too little.
pub(super) fn capabilities<A>(
    backends: &Backends<A>,
    health_calls: HealthCalls,
) -> csi::ControllerGetCapabilitiesResponse {
    let promised =
        |served: &rpc::Type| *served != rpc::Type::ListVolumesPublishedNodes || backends.show_lost_records();
    let capability = |served: rpc::Type| csi::ControllerServiceCapability {
        r#type: Some(Type::Rpc(Rpc { r#type: served.into() })),
    };
    let health = HEALTH.into_iter().filter(|_| health_calls == HealthCalls::On);
    let capabilities = SERVED.into_iter().filter(promised).chain(health).map(capability).collect();
    csi::ControllerGetCapabilitiesResponse { capabilities }
}

pub(super) fn created(created: Created) -> csi::CreateVolumeResponse {
    let Created { volume: made, context, topology } = created;
    csi::CreateVolumeResponse {
        volume: Some(csi::Volume { volume_context: context.to_map(), ..volume(&made, &topology) }),
    }
}

/// Its context is in its PersistentVolume; the array does not keep it.
fn volume(volume: &Volume, topology: &Segments) -> csi::Volume {
    csi::Volume {
        capacity_bytes: volume.size.to_wire(),
        volume_id: volume.id.to_string(),
        volume_context: [].into(),
        content_source: volume.source.as_ref().map(source),
        accessible_topology: topology.to_wire(),
    }
}

fn source(source: &Source) -> VolumeContentSource {
    let r#type = match source {
        Source::Snapshot(id) => {
            content::Type::Snapshot(content::SnapshotSource { snapshot_id: id.to_string() })
        }
        Source::Volume(id) => content::Type::Volume(content::VolumeSource { volume_id: id.to_string() }),
    };
    VolumeContentSource { r#type: Some(r#type) }
}

/// A block device too has to be looked at again by its node, which confirms the size that it sees.
pub(super) fn expanded(volume: &Volume) -> csi::ControllerExpandVolumeResponse {
    csi::ControllerExpandVolumeResponse {
        capacity_bytes: volume.size.to_wire(),
        node_expansion_required: true,
    }
}

pub(super) fn published(context: &PublishContext) -> csi::ControllerPublishVolumeResponse {
    csi::ControllerPublishVolumeResponse { publish_context: context.to_map() }
}

/// Confirms what was asked if all of it can be served; else says what cannot, which is no error (CSI 1.13).
pub(super) fn validated(
    request: csi::ValidateVolumeCapabilitiesRequest,
    verdict: Verdict,
) -> csi::ValidateVolumeCapabilitiesResponse {
    use csi::validate_volume_capabilities_response::Confirmed;
    match verdict {
        Verdict::Different(message) => csi::ValidateVolumeCapabilitiesResponse { confirmed: None, message },
        Verdict::Confirmed => csi::ValidateVolumeCapabilitiesResponse {
            confirmed: Some(Confirmed {
                volume_context: request.volume_context,
                volume_capabilities: request.volume_capabilities,
                parameters: request.parameters,
                mutable_parameters: request.mutable_parameters,
            }),
            message: String::new(),
        },
    }
}

pub(super) fn listed(page: Page<Told>) -> csi::ListVolumesResponse {
    use csi::list_volumes_response::{Entry, VolumeStatus};
    let entry = |listed: Told| Entry {
        volume: Some(volume(&listed.volume, &listed.topology)),
        status: Some(VolumeStatus {
            published_node_ids: names(&listed.holders),
            volume_condition: Some(condition(listed.condition)),
        }),
    };
    csi::ListVolumesResponse {
        entries: page.entries.into_iter().map(entry).collect(),
        next_token: page.next.map(|token| token.to_string()).unwrap_or_default(),
    }
}

pub(super) fn found(found: Told) -> csi::ControllerGetVolumeResponse {
    use csi::controller_get_volume_response::VolumeStatus;
    csi::ControllerGetVolumeResponse {
        volume: Some(volume(&found.volume, &found.topology)),
        status: Some(VolumeStatus {
            published_node_ids: names(&found.holders),
            volume_condition: Some(condition(found.condition)),
        }),
    }
}

fn names(nodes: &[NodeName]) -> Vec<String> {
    nodes.iter().map(ToString::to_string).collect()
}

fn condition(condition: Condition) -> csi::VolumeCondition {
    match condition {
        Condition::Normal(message) => csi::VolumeCondition { abnormal: false, message },
        Condition::Abnormal(troubles) => {
            let told: Vec<_> = troubles.into_iter().map(|trouble| trouble.told).collect();
            csi::VolumeCondition { abnormal: true, message: told.join("; ") }
        }
    }
}

pub(super) fn capacity(room: Room) -> csi::GetCapacityResponse {
    csi::GetCapacityResponse {
        available_capacity: room.available.to_wire(),
        maximum_volume_size: Some(room.largest.to_wire()),
        minimum_volume_size: Some(room.smallest.to_wire()),
    }
}

/// Ready as soon as it is there: the array takes it at once, and copies nothing.
fn snapshot(snapshot: &Snapshot) -> csi::Snapshot {
    csi::Snapshot {
        size_bytes: snapshot.size.to_wire(),
        snapshot_id: snapshot.id.to_string(),
        source_volume_id: snapshot.source.to_string(),
        creation_time: Some(snapshot.taken.into()),
        ready_to_use: true,
        group_snapshot_id: String::new(),
        accessible_topology: vec![],
    }
}

pub(super) fn taken(taken: &Snapshot) -> csi::CreateSnapshotResponse {
    csi::CreateSnapshotResponse { snapshot: Some(snapshot(taken)) }
}

pub(super) fn found_snapshot(found: &Snapshot) -> csi::GetSnapshotResponse {
    csi::GetSnapshotResponse { snapshot: Some(snapshot(found)) }
}

pub(super) fn listed_snapshots(page: &Page<Snapshot>) -> csi::ListSnapshotsResponse {
    let entry = |found: &Snapshot| csi::list_snapshots_response::Entry { snapshot: Some(snapshot(found)) };
    csi::ListSnapshotsResponse {
        entries: page.entries.iter().map(entry).collect(),
        next_token: page.next.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

pub(super) fn found_health(found: Told) -> csi::ControllerGetVolumeHealthResponse {
    csi::ControllerGetVolumeHealthResponse { volume_health: Some(health(found)) }
}

pub(super) fn listed_health(page: Page<Told>) -> csi::ControllerListVolumeHealthResponse {
    csi::ControllerListVolumeHealthResponse {
        next_token: page.next.as_ref().map(ToString::to_string).unwrap_or_default(),
        entries: page.entries.into_iter().map(health).collect(),
    }
}

/// What is wrong in the same way on several nodes is one entry: each way may stand there once.
fn health(told: Told) -> csi::VolumeHealth {
    use csi::VolumeHealthErrorType::{DataLoss, Degraded};
    use csi::volume_health::VolumeHealthEntry;
    let mut ways: BTreeMap<Ailment, Vec<String>> = BTreeMap::new();
    if let Condition::Abnormal(troubles) = told.condition {
        for Trouble { ailment, told } in troubles {
            ways.entry(ailment).or_default().push(told);
        }
    }
    let entries = ways.into_iter().map(|(ailment, told)| {
        // One node without a connection does not make it inaccessible, which would mean from every node.
        let (status, reason) = match ailment {
            Ailment::Damaged => (DataLoss, "Damaged"),
            Ailment::Lost => (Degraded, "ConnectionLost"),
            Ailment::Broken => (Degraded, "ConnectionBroken"),
        };
        VolumeHealthEntry { status: status.into(), reason: reason.into(), message: told.join("; ") }
    });
    csi::VolumeHealth { volume_id: told.volume.id.to_string(), health_statuses: entries.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::fake::{FakeArray, wanted};
    use crate::array::{Array as _, Soundness};
    use crate::condition;
    use crate::node_agents::Link;
    use rds_csi_api::Bytes;

    #[tokio::test]
    async fn each_way_of_being_unwell_stands_once_in_a_volumes_health() {
        let array = FakeArray::new(Bytes::gib(10));
        let volume = array.create(&wanted("pvc-a", Bytes::gib(1))).await.unwrap();
        let of = |soundness: Soundness, links: &[Link]| {
            let nodes = ["w1", "w2"].map(|node| node.parse::<NodeName>().unwrap());
            let links: Vec<_> = nodes.into_iter().zip(links.iter().cloned()).collect();
            let condition = condition::judge(&soundness, &links);
            let topology = Segments::default();
            let health = health(Told { volume: volume.clone(), holders: vec![], condition, topology });
            assert_eq!(health.volume_id, "pvc-a");
            health.health_statuses
        };
        assert_eq!(of(Soundness::Sound, &[Link::Live, Link::Unused]), []);
        let broken = of(Soundness::Damaged("no file".into()), &[Link::Broken, Link::Broken]);
        let [damage, connections] = &broken[..] else { panic!("{broken:?}") };
        assert_eq!(damage.status(), csi::VolumeHealthErrorType::DataLoss);
        assert_eq!(
            (connections.status(), connections.reason.as_str()),
            (csi::VolumeHealthErrorType::Degraded, "ConnectionBroken")
        );
        assert!(connections.message.contains("w1") && connections.message.contains("w2"), "{connections:?}");
    }
}
