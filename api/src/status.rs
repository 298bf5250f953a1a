//! The one place where failures become gRPC codes, for the codes are instructions to the sidecars and kubelet.

use std::error::Error;

use tonic::{Code, Status};

use crate::failure::{Failure, Kind};

/// The RPCs that the two programs serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names are those of the contracts, and are documented there")]
pub enum Rpc {
    CreateVolume,
    DeleteVolume,
    ControllerPublishVolume,
    ControllerUnpublishVolume,
    ValidateVolumeCapabilities,
    ListVolumes,
    ControllerGetVolume,
    ControllerGetVolumeHealth,
    ControllerListVolumeHealth,
    GetCapacity,
    CreateSnapshot,
    DeleteSnapshot,
    ListSnapshots,
    GetSnapshot,
    ControllerExpandVolume,
    ControllerModifyVolume,
    NodeStageVolume,
    NodeUnstageVolume,
    NodePublishVolume,
    NodeUnpublishVolume,
    NodeExpandVolume,
    NodeGetVolumeStats,
    NodeGetVolumeHealth,
    NodeGetStorageHealth,
    NodeGetInfo,
    AgentListVolumes,
    AgentGetVolume,
    AgentWatchEvents,
    AgentResetBreaker,
    AgentSetReconnectPolicy,
    AgentAllowRepair,
    AgentDetach,
}

impl Rpc {
    /// All of them, for tables and tests.
    pub const ALL: [Self; 32] = [
        Self::CreateVolume,
        Self::DeleteVolume,
        Self::ControllerPublishVolume,
        Self::ControllerUnpublishVolume,
        Self::ValidateVolumeCapabilities,
        Self::ListVolumes,
        Self::ControllerGetVolume,
        Self::ControllerGetVolumeHealth,
        Self::ControllerListVolumeHealth,
        Self::GetCapacity,
        Self::CreateSnapshot,
        Self::DeleteSnapshot,
        Self::ListSnapshots,
        Self::GetSnapshot,
        Self::ControllerExpandVolume,
        Self::ControllerModifyVolume,
        Self::NodeStageVolume,
        Self::NodeUnstageVolume,
        Self::NodePublishVolume,
        Self::NodeUnpublishVolume,
        Self::NodeExpandVolume,
        Self::NodeGetVolumeStats,
        Self::NodeGetVolumeHealth,
        Self::NodeGetStorageHealth,
        Self::NodeGetInfo,
        Self::AgentListVolumes,
        Self::AgentGetVolume,
        Self::AgentWatchEvents,
        Self::AgentResetBreaker,
        Self::AgentSetReconnectPolicy,
        Self::AgentAllowRepair,
        Self::AgentDetach,
    ];

    /// Whether the call changes nothing: its success is no outcome that anybody waits for in a log.
    pub const fn only_reads(self) -> bool {
        matches!(
            self,
            Self::ValidateVolumeCapabilities
                | Self::ListVolumes
                | Self::ControllerGetVolume
                | Self::ControllerGetVolumeHealth
                | Self::ControllerListVolumeHealth
                | Self::GetCapacity
                | Self::ListSnapshots
                | Self::GetSnapshot
                | Self::NodeGetVolumeStats
                | Self::NodeGetVolumeHealth
                | Self::NodeGetStorageHealth
                | Self::NodeGetInfo
                | Self::AgentListVolumes
                | Self::AgentGetVolume
                | Self::AgentWatchEvents
        )
    }

    /// The service and the method, as OpenTelemetry's RPC conventions name them.
    pub const fn path(self) -> (&'static str, &'static str) {
        const CONTROLLER: &str = "csi.v1.Controller";
        const NODE: &str = "csi.v1.Node";
        const AGENT: &str = "rds_csi.node_agent.v1.NodeAgent";
        match self {
            Self::CreateVolume => (CONTROLLER, "CreateVolume"),
            Self::DeleteVolume => (CONTROLLER, "DeleteVolume"),
            Self::ControllerPublishVolume => (CONTROLLER, "ControllerPublishVolume"),
            Self::ControllerUnpublishVolume => (CONTROLLER, "ControllerUnpublishVolume"),
            Self::ValidateVolumeCapabilities => (CONTROLLER, "ValidateVolumeCapabilities"),
            Self::ListVolumes => (CONTROLLER, "ListVolumes"),
            Self::ControllerGetVolume => (CONTROLLER, "ControllerGetVolume"),
            Self::ControllerGetVolumeHealth => (CONTROLLER, "ControllerGetVolumeHealth"),
            Self::ControllerListVolumeHealth => (CONTROLLER, "ControllerListVolumeHealth"),
            Self::GetCapacity => (CONTROLLER, "GetCapacity"),
            Self::CreateSnapshot => (CONTROLLER, "CreateSnapshot"),
            Self::DeleteSnapshot => (CONTROLLER, "DeleteSnapshot"),
            Self::ListSnapshots => (CONTROLLER, "ListSnapshots"),
            Self::GetSnapshot => (CONTROLLER, "GetSnapshot"),
            Self::ControllerExpandVolume => (CONTROLLER, "ControllerExpandVolume"),
            Self::ControllerModifyVolume => (CONTROLLER, "ControllerModifyVolume"),
            Self::NodeStageVolume => (NODE, "NodeStageVolume"),
            Self::NodeUnstageVolume => (NODE, "NodeUnstageVolume"),
            Self::NodePublishVolume => (NODE, "NodePublishVolume"),
            Self::NodeUnpublishVolume => (NODE, "NodeUnpublishVolume"),
            Self::NodeExpandVolume => (NODE, "NodeExpandVolume"),
            Self::NodeGetVolumeStats => (NODE, "NodeGetVolumeStats"),
            Self::NodeGetVolumeHealth => (NODE, "NodeGetVolumeHealth"),
            Self::NodeGetStorageHealth => (NODE, "NodeGetStorageHealth"),
            Self::NodeGetInfo => (NODE, "NodeGetInfo"),
            Self::AgentListVolumes => (AGENT, "ListVolumes"),
            Self::AgentGetVolume => (AGENT, "GetVolume"),
            Self::AgentWatchEvents => (AGENT, "WatchEvents"),
            Self::AgentResetBreaker => (AGENT, "ResetBreaker"),
            Self::AgentSetReconnectPolicy => (AGENT, "SetReconnectPolicy"),
            Self::AgentAllowRepair => (AGENT, "AllowRepair"),
            Self::AgentDetach => (AGENT, "Detach"),
        }
    }
}

/// The code of a failure in an RPC.
///
/// CreateVolume is why this is a table: there the provisioner takes Canceled, DeadlineExceeded, Unavailable and Aborted as 'it
/// may still be going on, ask again with the same name', and every other code as 'nothing is in progress'
/// (external-provisioner, `checkError`). So an unknown outcome must be one of the four. An array that cannot be reached is
/// among them too: nothing was begun, but asking again is exactly what is wanted.
pub const fn code(rpc: Rpc, kind: Kind) -> Code {
    match (kind, rpc) {
        (Kind::Invalid, _) => Code::InvalidArgument,
        (Kind::Forbidden, _) => Code::PermissionDenied,
        (Kind::OutOfRange, _) => Code::OutOfRange,
        (Kind::Missing, _) => Code::NotFound,
        (Kind::Conflict, _) => Code::AlreadyExists,
        (Kind::Refused | Kind::InUse, _) => Code::FailedPrecondition,
        // CSI wants ABORTED for a listing's token that is not valid any more.
        (Kind::Busy | Kind::Stale, _) => Code::Aborted,
        (Kind::Full, _) => Code::ResourceExhausted,
        // On a node the operation itself goes on, and holds its volume; on the array only the answer was lost.
        (
            Kind::Unsure,
            Rpc::NodeStageVolume
            | Rpc::NodeUnstageVolume
            | Rpc::NodePublishVolume
            | Rpc::NodeUnpublishVolume
            | Rpc::NodeExpandVolume,
        ) => Code::DeadlineExceeded,
        (Kind::Unreachable | Kind::Unsure, _) => Code::Unavailable,
        (Kind::Bug, _) => Code::Internal,
    }
}

/// The status of a failure in an RPC: its code, and the whole chain of what happened as one sentence.
pub fn of(rpc: Rpc, failure: &dyn Failure) -> Status {
    Status::new(code(rpc, failure.kind()), chain(failure))
}

/// An error and its sources, joined by colons.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn the_whole_table() {
        let mut table = String::new();
        for kind in Kind::ALL {
            writeln!(table, "{kind:?}").unwrap();
            let mut codes: Vec<_> = Rpc::ALL.map(|rpc| (code(rpc, kind), rpc.path().1)).to_vec();
            codes.sort_by_key(|(code, _)| format!("{code:?}"));
            for same in codes.chunk_by(|one, other| one.0 == other.0) {
                let rpcs: Vec<_> = same.iter().map(|(_, rpc)| *rpc).collect();
                let rpcs = if rpcs.len() == Rpc::ALL.len() { "every RPC".into() } else { rpcs.join(", ") };
                writeln!(table, "  {:?}: {rpcs}", same[0].0).unwrap();
            }
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn an_unknown_outcome_keeps_the_provisioner_waiting_and_a_known_failure_does_not() {
        let waits = |kind| {
            matches!(
                code(Rpc::CreateVolume, kind),
                Code::Cancelled | Code::DeadlineExceeded | Code::Unavailable | Code::Aborted
            )
        };
        for kind in Kind::ALL {
            assert_eq!(
                waits(kind),
                matches!(kind, Kind::Unsure | Kind::Unreachable | Kind::Busy | Kind::Stale),
                "{kind:?}"
            );
        }
    }

    #[test]
    fn a_message_tells_the_whole_chain() {
        #[derive(Debug, thiserror::Error)]
        #[error("the volume was not created")]
        struct Outer(#[source] std::io::Error);
        impl Failure for Outer {
            fn kind(&self) -> Kind {
                Kind::Full
            }
        }
        let status = of(Rpc::CreateVolume, &Outer(std::io::Error::other("the pool is full")));
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.message(), "the volume was not created: the pool is full");
    }
}
