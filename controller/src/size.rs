//! Sizes: the exact one out of a range that a node sees to its last byte.

use rds_csi_api::{Access, Bytes, Capability, Failure, FsType, Kind};

/// What is made if nothing is asked for.
const STANDARD: Bytes = Bytes::gib(1);

/// The block that Linux's NVMe target exports a file in: a rest beyond the last whole one would be lost to the node.
pub const BLOCK: u64 = 4096;

/// Below it not even an empty ext4 is of use.
pub const SMALLEST: Bytes = Bytes::mib(16);

/// mkfs.xfs makes nothing smaller (xfsprogs 5.19).
const SMALLEST_XFS: Bytes = Bytes::mib(300);

/// Beyond any pool. What asks for more has mistaken a unit.
pub const LARGEST: Bytes = Bytes::gib(256 << 10);

/// At least, and at most, so large.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CapacityRange {
    /// At least.
    pub required: Option<Bytes>,
    /// At most.
    pub limit: Option<Bytes>,
}

/// Why no size is in the range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The range contradicts itself.
    #[error(
        "capacity_range asks for at least {required} and at most {limit}: raise limit_bytes or lower required_bytes"
    )]
    EmptyRange {
        /// At least.
        required: Bytes,
        /// At most.
        limit: Bytes,
    },
    /// No size that can be made lies in the range.
    #[error(
        "capacity_range.limit_bytes of {limit} cannot be kept: the smallest volume of this kind with at least \
         {required} has {size}, since sizes are whole blocks of {BLOCK} bytes; raise the limit to that"
    )]
    LimitTooLow {
        /// At least.
        required: Bytes,
        /// At most.
        limit: Bytes,
        /// What could be made.
        size: Bytes,
    },
    /// More than there can be.
    #[error("capacity_range.required_bytes of {0} is more than the largest volume, {LARGEST}: ask for less")]
    TooLarge(Bytes),
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::EmptyRange { .. } => Kind::Invalid,
            Self::LimitTooLow { .. } | Self::TooLarge(_) => Kind::OutOfRange,
        }
    }
}

/// The smallest volume that can be used so.
pub fn smallest(capabilities: &[Capability]) -> Bytes {
    let xfs =
        |capability: &Capability| matches!(capability.access, Access::Filesystem { fs: FsType::Xfs, .. });
    if capabilities.iter().any(xfs) { SMALLEST_XFS } else { SMALLEST }
}

impl CapacityRange {
    /// The smallest size in the range; the standard one if nothing is required.
    pub fn size(self, smallest: Bytes) -> Result<Bytes, Error> {
        if let Some(size) = self.least(smallest)? {
            return Ok(size);
        }
        // A limit without a requirement asks for as much of the standard size as it allows.
        let asked = self.limit.map_or(STANDARD, |limit| limit.min(STANDARD));
        let size = Bytes::new(asked.get() / BLOCK * BLOCK).max(smallest);
        self.within(size, smallest)
    }

    /// The smallest size in the range if one is required, for what has a size of its own otherwise.
    pub fn least(self, smallest: Bytes) -> Result<Option<Bytes>, Error> {
        let Some(required) = self.required else { return Ok(None) };
        if let Some(limit) = self.limit
            && required > limit
        {
            return Err(Error::EmptyRange { required, limit });
        }
        if required > LARGEST {
            return Err(Error::TooLarge(required));
        }
        let size = Bytes::new(required.get().div_ceil(BLOCK) * BLOCK).max(smallest);
        self.within(size, required).map(Some)
    }

    fn within(self, size: Bytes, required: Bytes) -> Result<Bytes, Error> {
        match self.limit {
            Some(limit) if size > limit => Err(Error::LimitTooLow { required, limit, size }),
            _ => Ok(size),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rds_csi_api::AccessMode;

    use super::*;

    fn range(required: u64, limit: u64) -> CapacityRange {
        let some = |bytes: u64| (bytes > 0).then(|| Bytes::new(bytes));
        CapacityRange { required: some(required), limit: some(limit) }
    }

    fn of(required: u64, limit: u64) -> Result<u64, Error> {
        range(required, limit).size(SMALLEST).map(Bytes::get)
    }

    const GIB: u64 = 1 << 30;

    #[test]
    fn a_size_is_the_one_asked_for_or_the_next_whole_block() {
        assert_eq!(of(0, 0), Ok(GIB));
        assert_eq!(of(5 * GIB, 0), Ok(5 * GIB));
        assert_eq!(of(5 * GIB, 5 * GIB), Ok(5 * GIB));
        assert_eq!(of(1_649_267_441_664, 0), Ok(1_649_267_441_664));
        assert_eq!(of(GIB + 1, 0), Ok(GIB + 4096));
        assert_eq!(of(GIB + 1, GIB + 4096), Ok(GIB + 4096));
        assert_eq!(of(1, 0), Ok(SMALLEST.get()));
        // Only a limit: no more than it, and no more than usual.
        assert_eq!(of(0, 10 * GIB), Ok(GIB));
        assert_eq!(of(0, 100 << 20), Ok(100 << 20));
        assert_eq!(of(0, (100 << 20) + 1), Ok(100 << 20));
        assert_eq!(of(LARGEST.get(), 0), Ok(LARGEST.get()));
    }

    #[test]
    fn a_range_that_cannot_be_met_is_refused_with_what_could_be() {
        assert!(matches!(of(2 * GIB, GIB), Err(Error::EmptyRange { .. })));
        let refused = of(GIB + 1, GIB + 4095).unwrap_err();
        assert_eq!(refused.kind(), Kind::OutOfRange);
        assert!(refused.to_string().contains("has 1073745920 bytes"), "{refused}");
        assert!(matches!(of(1, 4096), Err(Error::LimitTooLow { .. })));
        assert!(matches!(of(0, 4096), Err(Error::LimitTooLow { .. })));
        assert!(matches!(of(LARGEST.get() + 1, 0), Err(Error::TooLarge(_))));
        assert!(matches!(of(i64::MAX as u64, 0), Err(Error::TooLarge(_))));
    }

    #[test]
    fn what_has_a_size_of_its_own_is_only_told_what_is_required() {
        assert_eq!(range(0, 0).least(SMALLEST), Ok(None));
        assert_eq!(range(0, GIB).least(SMALLEST), Ok(None));
        assert_eq!(range(GIB + 1, 0).least(SMALLEST), Ok(Some(Bytes::new(GIB + 4096))));
        assert!(matches!(range(2 * GIB, GIB).least(SMALLEST), Err(Error::EmptyRange { .. })));
    }

    #[test]
    fn an_xfs_is_never_smaller_than_mkfs_makes_it() {
        let capability = |fs| Capability {
            access: Access::Filesystem { fs, mount_flags: vec![] },
            mode: AccessMode::SingleNodeWriter,
        };
        assert_eq!(smallest(&[capability(FsType::Ext4)]), SMALLEST);
        assert_eq!(smallest(&[capability(FsType::Ext4), capability(FsType::Xfs)]), SMALLEST_XFS);
    }

    proptest! {
        #[test]
        fn a_size_is_in_its_range_and_in_whole_blocks(required in 0..1_u64 << 50, limit in 0..1_u64 << 50) {
            if let Ok(size) = of(required, limit) {
                prop_assert!(size >= required && (limit == 0 || size <= limit));
                prop_assert_eq!(size % BLOCK, 0);
                prop_assert!(size < required + BLOCK || size == SMALLEST.get() || required == 0);
            }
        }
    }
}
