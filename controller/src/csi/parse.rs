//! Requests from the wire, checked and in the words of the verbs.

pub(super) mod attachment;
pub(super) mod id;
pub(super) mod snapshot;
pub(super) mod volume;

use std::sync::Arc;

use rds_csi_api::bytes::Negative;
use rds_csi_api::text::Malformed;
use rds_csi_api::{
    BackendName, Capability, Failure, Kind, ManagedPrefix, Nqn, VolumeId, capability, context, csi,
};

use crate::backends::{Backend, Misplaced, Unknown};
use crate::{page, parameters};

/// A request, and the array that it is about.
pub(super) type On<A, T> = (Arc<Backend<A>>, T);

/// What is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    #[error("the request is malformed")]
    Malformed(#[from] Malformed),
    #[error("{0} is empty: say which one")]
    Empty(&'static str),
    #[error("{what} does not exist, since this driver gives no such ids")]
    NoSuchId { what: &'static str, source: Malformed },
    #[error(
        "volume {id} is not the driver's: its NQN {nqn} does not begin with {prefix}; if it is a volume of this cluster, \
         correct --managed-nqn-prefix, else remove the PersistentVolume that names it"
    )]
    NotManaged { id: VolumeId, nqn: Nqn, prefix: ManagedPrefix },
    #[error(
        "new volumes would not be the driver's: NQN {nqn} of volume {id} does not begin with {prefix}; correct \
         --managed-nqn-prefix"
    )]
    NeverManaged { id: VolumeId, nqn: Nqn, prefix: ManagedPrefix },
    #[error(
        "what {id} names is on no array that is configured, so whether it is there is not known: configure its backend again"
    )]
    Elsewhere { id: String, source: Unknown },
    #[error("backend in parameters is {named}, and the volume is on {is_on}")]
    OnAnother { named: BackendName, is_on: BackendName },
    #[error(transparent)]
    Misplaced(#[from] Misplaced),
    #[error("volume_content_source names neither a snapshot nor a volume: name one, or leave it out")]
    NoSource,
    #[error("{field} is malformed")]
    Size { field: &'static str, source: Negative },
    #[error("capacity_range is missing: say how large the volume is to be")]
    NoRange,
    #[error("volume_capabilities is empty: say what the volume is for")]
    NoCapabilities,
    #[error("the volume cannot be used so")]
    Capability(#[from] capability::Error),
    #[error(transparent)]
    Parameters(#[from] parameters::Error),
    #[error("VolumeSnapshotClass parameter {key:?} is not known, and neither is any other: remove it")]
    SnapshotParameter { key: String },
    #[error(transparent)]
    Context(#[from] context::Error),
    #[error(transparent)]
    Page(#[from] page::Error),
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Malformed(_)
            | Self::Empty(_)
            | Self::NeverManaged { .. }
            | Self::OnAnother { .. }
            | Self::NoSource
            | Self::Size { .. }
            | Self::NoRange
            | Self::NoCapabilities
            | Self::Capability(_)
            | Self::SnapshotParameter { .. }
            | Self::Context(_) => Kind::Invalid,
            // What can be nowhere is not there.
            Self::NoSuchId { .. } | Self::NotManaged { .. } => Kind::Missing,
            // An array that was taken out of the configuration has its volumes still.
            Self::Elsewhere { .. } => Kind::Refused,
            Self::Misplaced(error) => error.kind(),
            Self::Parameters(error) => error.kind(),
            Self::Page(error) => error.kind(),
        }
    }
}

fn capabilities(capabilities: &[csi::VolumeCapability]) -> Result<Vec<Capability>, Error> {
    Ok(capabilities.iter().map(|capability| Capability::parse(Some(capability))).collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests;
