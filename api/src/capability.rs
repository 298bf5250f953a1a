//! How a volume is to be used: as a block device or a filesystem, and by whom.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::csi;
use crate::csi::volume_capability::AccessType;
use crate::csi::volume_capability::access_mode::Mode;
use crate::text::Malformed;

/// How a volume is to be used. Only combinations that this driver can serve safely exist as values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capability {
    /// As what.
    pub access: Access,
    /// By whom.
    pub mode: AccessMode,
}

/// As what a volume is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// A raw block device.
    Block,
    /// A filesystem, made by the driver on a device that was proven blank.
    Filesystem {
        /// Which.
        fs: FsType,
        /// Given to mount(2), and never added to.
        mount_flags: Vec<String>,
    },
}

/// The filesystems that the driver makes, mounts and grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FsType {
    /// ext3.
    Ext3,
    /// ext4, what is made if nothing else is asked for.
    Ext4,
    /// XFS.
    Xfs,
}

impl FsType {
    /// As mount(2) and `blkid` name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ext3 => "ext3",
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }
}

impl FromStr for FsType {
    type Err = Malformed;

    /// Empty is ext4, as `csi.storage.k8s.io/fstype` left out.
    fn from_str(text: &str) -> Result<Self, Malformed> {
        match text {
            "" | "ext4" => Ok(Self::Ext4),
            "ext3" => Ok(Self::Ext3),
            "xfs" => Ok(Self::Xfs),
            _ => Err(Malformed::new("filesystem type", text, "give ext4, ext3 or xfs")),
        }
    }
}

/// By whom a volume is used. Written into records that outlive the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AccessMode {
    /// `ReadWriteOnce`: one node, as many pods on it as like.
    SingleNodeWriter,
    /// `ReadWriteOncePod`: one pod.
    SingleNodeSingleWriter,
    /// One node, and several pods that know of each other.
    SingleNodeMultiWriter,
    /// One node, reading only.
    SingleNodeReader,
    /// `ReadOnlyMany`: any number of nodes, reading only.
    MultiNodeReader,
    /// `ReadWriteMany`: two nodes, a block device only, for live migration.
    MultiNodeWriter,
}

impl AccessMode {
    /// Whether the mode lets more than one node hold the volume.
    pub const fn spans_nodes(self) -> bool {
        matches!(self, Self::MultiNodeReader | Self::MultiNodeWriter)
    }

    /// Whether the mode only reads.
    pub const fn reads_only(self) -> bool {
        matches!(self, Self::SingleNodeReader | Self::MultiNodeReader)
    }
}

/// Why a capability cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is none at all.
    #[error(
        "volume_capability is missing: say whether the volume is a block device or a filesystem, and its access mode"
    )]
    Absent,
    /// Neither block nor mount.
    #[error("volume_capability.access_type is missing: set block or mount")]
    NoAccessType,
    /// A mode that CSI does not know, or none.
    #[error("volume_capability.access_mode {0} is not known: set one of the modes of CSI 1.13")]
    UnknownMode(i32),
    /// The mode that no Kubernetes access mode asks for, and no fence could keep.
    #[error(
        "access mode MULTI_NODE_SINGLE_WRITER is not supported: use SINGLE_NODE_WRITER, or MULTI_NODE_MULTI_WRITER with a block volume"
    )]
    SingleWriterManyReaders,
    /// A filesystem on two nodes at once is a destroyed filesystem.
    #[error(
        "access mode MULTI_NODE_MULTI_WRITER (ReadWriteMany) is for block volumes only, since two nodes would destroy a \
         filesystem: set volumeMode: Block in the PVC, or ask for ReadWriteOnce"
    )]
    SharedFilesystem,
    /// A filesystem that the driver does not make.
    #[error(transparent)]
    FsType(Malformed),
    /// Capability VOLUME_MOUNT_GROUP is not advertised.
    #[error("volume_mount_group {0:?} is not supported: use fsGroup in the pod's security context")]
    MountGroup(String),
}

impl Capability {
    /// Reads a capability, which every request that has one must have.
    pub fn parse(capability: Option<&csi::VolumeCapability>) -> Result<Self, Error> {
        let capability = capability.ok_or(Error::Absent)?;
        let access = match capability.access_type.as_ref().ok_or(Error::NoAccessType)? {
            AccessType::Block(_) => Access::Block,
            AccessType::Mount(mount) if !mount.volume_mount_group.is_empty() => {
                return Err(Error::MountGroup(mount.volume_mount_group.clone()));
            }
            AccessType::Mount(mount) => Access::Filesystem {
                fs: mount.fs_type.parse().map_err(Error::FsType)?,
                mount_flags: mount.mount_flags.clone(),
            },
        };
        let number = capability.access_mode.map_or(0, |mode| mode.mode);
        let mode = match Mode::try_from(number).map_err(|_| Error::UnknownMode(number))? {
            Mode::Unknown => return Err(Error::UnknownMode(number)),
            Mode::MultiNodeSingleWriter => return Err(Error::SingleWriterManyReaders),
            Mode::SingleNodeWriter => AccessMode::SingleNodeWriter,
            Mode::SingleNodeSingleWriter => AccessMode::SingleNodeSingleWriter,
            Mode::SingleNodeMultiWriter => AccessMode::SingleNodeMultiWriter,
            Mode::SingleNodeReaderOnly => AccessMode::SingleNodeReader,
            Mode::MultiNodeReaderOnly => AccessMode::MultiNodeReader,
            Mode::MultiNodeMultiWriter => AccessMode::MultiNodeWriter,
        };
        match (&access, mode) {
            (Access::Filesystem { .. }, AccessMode::MultiNodeWriter) => Err(Error::SharedFilesystem),
            _ => Ok(Self { access, mode }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::csi::volume_capability::{AccessMode as WireMode, BlockVolume, MountVolume};

    fn capability(access: impl Into<Option<AccessType>>, mode: Mode) -> csi::VolumeCapability {
        csi::VolumeCapability {
            access_type: access.into(),
            access_mode: Some(WireMode { mode: mode.into() }),
        }
    }

    fn mount(fs_type: &str) -> AccessType {
        AccessType::Mount(MountVolume { fs_type: fs_type.into(), ..MountVolume::default() })
    }

    fn error(access: impl Into<Option<AccessType>>, mode: Mode) -> String {
        Capability::parse(Some(&capability(access, mode))).unwrap_err().to_string()
    }

    #[test]
    fn a_filesystem_is_ext4_unless_said_otherwise() {
        let parsed = Capability::parse(Some(&capability(mount(""), Mode::SingleNodeWriter))).unwrap();
        assert_eq!(parsed.access, Access::Filesystem { fs: FsType::Ext4, mount_flags: vec![] });
        let parsed = Capability::parse(Some(&capability(mount("xfs"), Mode::SingleNodeWriter))).unwrap();
        assert_eq!(parsed.access, Access::Filesystem { fs: FsType::Xfs, mount_flags: vec![] });
    }

    #[test]
    fn a_block_volume_may_be_shared_and_a_filesystem_may_not() {
        let block = AccessType::Block(BlockVolume {});
        assert!(Capability::parse(Some(&capability(block, Mode::MultiNodeMultiWriter))).is_ok());
        assert!(error(mount("ext4"), Mode::MultiNodeMultiWriter).contains("volumeMode: Block"));
    }

    #[test]
    fn what_cannot_be_served_is_refused_with_the_way_out() {
        assert!(Capability::parse(None).unwrap_err().to_string().contains("volume_capability is missing"));
        assert!(error(None, Mode::SingleNodeWriter).contains("set block or mount"));
        assert!(error(mount(""), Mode::Unknown).contains("access_mode 0"));
        assert!(error(mount(""), Mode::MultiNodeSingleWriter).contains("SINGLE_NODE_WRITER"));
        assert!(error(mount("zfs"), Mode::SingleNodeWriter).contains("ext4, ext3 or xfs"));
    }
}
