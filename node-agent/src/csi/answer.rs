//! What the verbs found out, in the words of the wire.

use rds_csi_api::csi;
use rds_csi_api::csi::volume_usage::Unit;

use crate::host::{Amount, Usage};
use crate::stats::{Fullness, Report};
use crate::volumes::health::Condition;

pub(super) fn stats(report: Report) -> csi::NodeGetVolumeStatsResponse {
    let Report { fullness, condition } = report;
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
