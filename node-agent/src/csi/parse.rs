//! Requests from the wire, checked and in the words of the verbs.

use std::collections::HashMap;
use std::path::PathBuf;

use rds_csi_api::bytes::Negative;
use rds_csi_api::text::Malformed;
use rds_csi_api::{
    Access, AccessMode, Bytes, Capability, Failure, Kind, PublishContext, ReconnectPolicy, TraceParent,
    VolumeContext, VolumeId, capability, context, csi,
};

use crate::host::kubelet_path::Outside;
use crate::host::{KubeletPath, ManagedNqn, MountOptions, NotManaged, Target};
use crate::volumes::Volumes;
use crate::{expand, publish, stage, stats, unpublish, unstage};

/// What is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    #[error("the request is malformed")]
    Malformed(#[from] Malformed),
    #[error("{field} cannot be used")]
    Path { field: &'static str, source: Outside },
    #[error("capacity_range.{field} is malformed")]
    Size { field: &'static str, source: Negative },
    #[error(
        "capacity_range asks for at least {least} and at most {most}: raise limit_bytes or lower required_bytes"
    )]
    Range { least: Bytes, most: Bytes },
    #[error("the volume cannot be used so")]
    Capability(#[from] capability::Error),
    #[error(transparent)]
    Context(#[from] context::Error),
    #[error(transparent)]
    NotManaged(#[from] NotManaged),
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Malformed(_)
            | Self::Path { .. }
            | Self::Size { .. }
            | Self::Range { .. }
            | Self::Capability(_)
            | Self::Context(_)
            | Self::NotManaged(_) => Kind::Invalid,
        }
    }
}

/// A verb's input, and the trace that its call continues.
pub(super) type Parsed<T> = Result<(T, Option<TraceParent>), Error>;

pub(super) fn stage<H>(volumes: &Volumes<H>, request: &csi::NodeStageVolumeRequest) -> Parsed<stage::Wanted> {
    let volume: VolumeId = request.volume_id.parse()?;
    let staging = path(volumes, "staging_target_path", &request.staging_target_path)?;
    let Capability { access, mode } = Capability::parse(request.volume_capability.as_ref())?;
    let usage = match access {
        Access::Block => stage::Usage::Block,
        Access::Filesystem { fs, mount_flags } => {
            let options = MountOptions::parse(&mount_flags)?;
            let options = if mode.reads_only() { options.read_only() } else { options };
            stage::Usage::Filesystem { fs, options }
        }
    };
    // What one attachment says wins over what was true when the volume was created.
    let PublishContext { portal, nqn, size, reconnect, trace } =
        attachment(&request.publish_context, &request.volume_context)?;
    let nqn = ManagedNqn::of_volume(&volumes.prefix, nqn, &volume)?;
    let reconnect = match reconnect {
        Some(policy) => policy,
        // A PV made by hand may have none.
        None if request.volume_context.is_empty() => ReconnectPolicy::STANDARD,
        None => VolumeContext::parse(&request.volume_context)?.reconnect,
    };
    let target = Target { nqn, portal, reconnect };
    Ok((stage::Wanted { volume, target, size, usage, staging }, trace))
}

/// What the attachment says. One that the driver before this one made says nothing, and then what was true when the volume was
/// created still is: that driver neither fences nor renames, and how large the device should be nobody says.
fn attachment(
    publish: &HashMap<String, String>,
    volume: &HashMap<String, String>,
) -> Result<PublishContext, context::Error> {
    match PublishContext::parse(publish) {
        Err(_) if !publish.contains_key("nqn") && !volume.is_empty() => {
            let VolumeContext { portal, nqn, .. } = VolumeContext::parse(volume)?;
            Ok(PublishContext { portal, nqn, size: Bytes::new(0), reconnect: None, trace: None })
        }
        parsed => parsed,
    }
}

pub(super) fn unstage<H>(
    volumes: &Volumes<H>,
    request: &csi::NodeUnstageVolumeRequest,
) -> Result<unstage::Wanted, Error> {
    Ok(unstage::Wanted {
        volume: request.volume_id.parse()?,
        staging: path(volumes, "staging_target_path", &request.staging_target_path)?,
    })
}

pub(super) fn publish<H>(
    volumes: &Volumes<H>,
    request: &csi::NodePublishVolumeRequest,
) -> Parsed<publish::Wanted> {
    let volume = request.volume_id.parse()?;
    let staging = path(volumes, "staging_target_path", &request.staging_target_path)?;
    let target = path(volumes, "target_path", &request.target_path)?;
    let Capability { access, mode } = Capability::parse(request.volume_capability.as_ref())?;
    let usage = match access {
        Access::Block => publish::Usage::Block,
        Access::Filesystem { mount_flags, .. } => {
            let reads_only =
                request.readonly || mode.reads_only() || MountOptions::parse(&mount_flags)?.is_read_only();
            let writing = if reads_only { publish::Writing::Forbidden } else { publish::Writing::Allowed };
            publish::Usage::Filesystem(writing)
        }
    };
    let PublishContext { portal, nqn, reconnect, trace, .. } =
        attachment(&request.publish_context, &request.volume_context)?;
    let connection = match reconnect {
        None => None,
        Some(reconnect) => {
            let nqn = ManagedNqn::of_volume(&volumes.prefix, nqn.clone(), &volume)?;
            Some(Target { nqn, portal, reconnect })
        }
    };
    let sharing = match mode {
        AccessMode::SingleNodeSingleWriter => publish::Sharing::Exclusive,
        AccessMode::SingleNodeWriter
        | AccessMode::SingleNodeMultiWriter
        | AccessMode::SingleNodeReader
        | AccessMode::MultiNodeReader
        | AccessMode::MultiNodeWriter => publish::Sharing::Shared,
    };
    Ok((publish::Wanted { volume, nqn, portal, staging, target, usage, sharing, connection }, trace))
}

pub(super) fn unpublish<H>(
    volumes: &Volumes<H>,
    request: &csi::NodeUnpublishVolumeRequest,
) -> Result<unpublish::Wanted, Error> {
    Ok(unpublish::Wanted {
        volume: request.volume_id.parse()?,
        target: path(volumes, "target_path", &request.target_path)?,
    })
}

pub(super) fn expand<H>(
    volumes: &Volumes<H>,
    request: &csi::NodeExpandVolumeRequest,
) -> Result<expand::Wanted, Error> {
    let volume = request.volume_id.parse()?;
    let path = named(volumes, "volume_path", &request.volume_path)?;
    let staging = &request.staging_target_path;
    let staging =
        (!staging.is_empty()).then(|| named(volumes, "staging_target_path", staging)).transpose()?;
    let csi::CapacityRange { required_bytes, limit_bytes } = request.capacity_range.unwrap_or_default();
    let bytes = |field, bytes| Bytes::try_from(bytes).map_err(|source| Error::Size { field, source });
    let least = bytes("required_bytes", required_bytes)?;
    // CSI's zero is 'not given'.
    let most = Some(bytes("limit_bytes", limit_bytes)?).filter(|most| most.get() > 0);
    match most {
        Some(most) if most < least => Err(Error::Range { least, most }),
        _ => Ok(expand::Wanted { volume, path, staging, size: expand::Range { least, most } }),
    }
}

pub(super) fn stats<H>(
    volumes: &Volumes<H>,
    request: &csi::NodeGetVolumeStatsRequest,
) -> Result<stats::Wanted, Error> {
    Ok(stats::Wanted {
        volume: request.volume_id.parse()?,
        path: named(volumes, "volume_path", &request.volume_path)?,
    })
}

/// Where it is staged or published the record says: a volume's health is one, wherever it is asked for.
pub(super) fn health(request: &csi::NodeGetVolumeHealthRequest) -> Result<VolumeId, Error> {
    Ok(request.volume_id.parse()?)
}

/// A path at which nothing is to be done, only to be compared with what is written down. One that is not beneath the kubelet
/// directory is no volume's, which is for the verb to say.
fn named<H>(volumes: &Volumes<H>, field: &'static str, path: &str) -> Result<PathBuf, Error> {
    match volumes.kubelet.beneath(path) {
        Ok(path) => Ok(path.as_path().into()),
        Err(Outside::Elsewhere { .. }) => Ok(path.into()),
        Err(source @ Outside::Empty) => Err(Error::Path { field, source }),
    }
}

fn path<H>(volumes: &Volumes<H>, field: &'static str, path: &str) -> Result<KubeletPath, Error> {
    volumes.kubelet.beneath(path).map_err(|source| Error::Path { field, source })
}
