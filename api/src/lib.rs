//! The contract of rds-csi: what both programs, and only both programs, need to agree on.
//!
//! Wire types generated from `proto/`, the identities that outlive any process, the typed volume and publish
//! contexts, and what a failure means to the caller. With the feature `serve` also what a program needs to be a service.

#![forbid(unsafe_code)]

pub mod bytes;
pub mod capability;
pub mod context;
pub mod failure;
pub mod health;
pub mod identity;
pub mod nqn;
pub mod reconnect;
#[cfg(feature = "serve")]
pub mod serve;
pub mod status;
pub mod text;
pub mod topology;
pub mod trace;
pub mod volume_id;

pub use bytes::Bytes;
pub use capability::{Access, AccessMode, Capability, FsType};
pub use context::{Portal, PublishContext, VolumeContext};
pub use failure::{Failure, Kind};
pub use health::HealthCalls;
pub use identity::{HostId, HostNqn, NodeName};
pub use nqn::{ManagedPrefix, Nqn};
pub use reconnect::{CtrlLoss, FastIoFail, ReconnectPolicy};
pub use status::Rpc;
pub use topology::Topology;
pub use trace::TraceParent;
pub use volume_id::{BackendName, SnapshotId, SnapshotName, VolumeId, VolumeName};

/// The name under which the driver is known to Kubernetes. `StorageClass`es and PVs of existing clusters carry it.
pub const DRIVER_NAME: &str = "rds.csi.srvlab.io";

/// `csi.v1`, generated from `proto/csi.proto`.
#[allow(missing_docs, unreachable_pub, clippy::pedantic)]
pub mod csi {
    tonic::include_proto!("csi.v1");
    include!(concat!(env!("OUT_DIR"), "/redacted.rs"));
}

/// `rds_csi.node_agent.v1`, generated from `proto/node_agent.proto`.
#[allow(missing_docs, unreachable_pub, clippy::pedantic)]
pub mod node_agent {
    tonic::include_proto!("rds_csi.node_agent.v1");
}

/// `pluginregistration`, kubelet's own contract, generated from `proto/plugin_registration.proto`.
#[allow(missing_docs, unreachable_pub, clippy::pedantic)]
pub mod plugin_registration {
    tonic::include_proto!("pluginregistration");
}
