//! What the verbs found out, in the words of the wire.

use rds_csi_api::csi::volume_usage::Unit;
use rds_csi_api::{VolumeId, csi};

use crate::health::Health;
use crate::host::{Amount, Usage};
use crate::stats::{Fullness, Report};
use crate::volumes::health::Condition;

pub(super) fn stats(report: Report) -> csi::NodeGetVolumeStatsResponse {
    let Report { fullness, condition, attachment: _ } = report;
    let usage = match fullness {
        Fullness::Filesystem(Usage { bytes, inodes }) => {
            let Amount { total, used, available } = bytes;
            let bytes = csi::VolumeUsage {
                total: total.to_wire(),
                used: used.to_wire(),
                available: available.to_wire(),
                unit: Unit::Bytes.into(),
            };
            let number = |number| i64::try_from(number).unwrap_or(i64::MAX);
            let Amount { total, used, available } = inodes;
            let inodes = csi::VolumeUsage {
                total: number(total),
                used: number(used),
                available: number(available),
                unit: Unit::Inodes.into(),
            };
            vec![bytes, inodes]
        }
        Fullness::Block(size) => {
            vec![csi::VolumeUsage { total: size.to_wire(), unit: Unit::Bytes.into(), ..Default::default() }]
        }
        Fullness::Unknown => Vec::new(),
    };
    let volume_condition = Some(match condition {
        Condition::Sound => csi::VolumeCondition {
            abnormal: false,
            message: "the volume is connected, and no error is known".into(),
        },
        Condition::Abnormal(message) => csi::VolumeCondition { abnormal: true, message },
    });
    csi::NodeGetVolumeStatsResponse { usage, volume_condition }
}

pub(super) fn volume_health(volume: &VolumeId, health: Health) -> csi::NodeGetVolumeHealthResponse {
    use csi::VolumeHealthErrorType::{Degraded, Inaccessible};
    use csi::volume_health::VolumeHealthEntry;
    let entry = match health {
        Health::Sound => None,
        Health::Degraded(told) => Some((Degraded, "Degraded", told)),
        Health::Inaccessible(told) => Some((Inaccessible, "Inaccessible", told)),
    };
    let entries = entry.into_iter().map(|(status, reason, message)| VolumeHealthEntry {
        status: status.into(),
        reason: reason.into(),
        message,
    });
    let health = csi::VolumeHealth { volume_id: volume.to_string(), health_statuses: entries.collect() };
    csi::NodeGetVolumeHealthResponse { volume_health: Some(health) }
}

/// Several arrays that are in the same state are one entry: each state may stand there once.
pub(super) fn storage_health(arrays: Vec<Health>) -> csi::NodeGetStorageHealthResponse {
    use csi::StorageHealthErrorType::{StorageDegraded, StorageUnreachable};
    use csi::node_get_storage_health_response::StorageBackendHealth;
    let (mut degraded, mut unreachable) = (Vec::new(), Vec::new());
    for array in arrays {
        match array {
            Health::Sound => {}
            Health::Degraded(told) => degraded.push(told),
            Health::Inaccessible(told) => unreachable.push(told),
        }
    }
    let states = [
        (StorageUnreachable, "ArrayUnreachable", unreachable),
        (StorageDegraded, "ConnectionsLost", degraded),
    ];
    let entries = states.into_iter().filter(|(.., told)| !told.is_empty());
    let entries = entries.map(|(status, reason, told)| StorageBackendHealth {
        status: status.into(),
        reason: reason.into(),
        message: told.join("; "),
        volume_capability: None,
    });
    csi::NodeGetStorageHealthResponse { backend_health: entries.collect() }
}
