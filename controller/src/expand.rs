//! ControllerExpandVolume: more room for a volume, in use or not. It is never made smaller.

use rds_csi_api::{Bytes, Failure, Kind, VolumeId};

use crate::array::{self, Array, Volume};
use crate::size::{self, CapacityRange};

/// Why the volume has not the size that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no such size.
    #[error(transparent)]
    Size(#[from] size::Error),
    /// It is larger already, and stays so.
    #[error(
        "volume {id} has {size}, more than capacity_range.limit_bytes of {limit}, and is never made smaller: raise the limit"
    )]
    Larger {
        /// The volume.
        id: VolumeId,
        /// Its size.
        size: Bytes,
        /// How large it may be.
        limit: Bytes,
    },
    /// The array did not grow it.
    #[error(transparent)]
    Array(#[from] array::Error),
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Size(error) => error.kind(),
            Self::Larger { .. } => Kind::OutOfRange,
            Self::Array(error) => error.kind(),
        }
    }
}

/// Grows the volume into the range; the volume as it is then.
pub async fn expand(array: &impl Array, id: VolumeId, range: CapacityRange) -> Result<Volume, Error> {
    // No size is too small to be asked for: a volume that is larger has it already.
    let volume = match range.least(Bytes::new(0))? {
        Some(size) => array.expand(&id, size).await?,
        None => array.volume(&id).await?,
    };
    match range.limit {
        Some(limit) if volume.size > limit => Err(Error::Larger { id, size: volume.size, limit }),
        _ => Ok(volume),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::fake::{FakeArray, wanted};

    const GIB: u64 = 1 << 30;

    fn range(required: u64, limit: u64) -> CapacityRange {
        let some = |bytes: u64| (bytes > 0).then(|| Bytes::new(bytes));
        CapacityRange { required: some(required), limit: some(limit) }
    }

    async fn array() -> (FakeArray, VolumeId) {
        let (array, wanted) = (FakeArray::new(Bytes::gib(10)), wanted("pvc-a", Bytes::gib(1)));
        array.create(&wanted).await.unwrap();
        (array, wanted.id)
    }

    #[tokio::test]
    async fn a_volume_grows_to_the_next_whole_block_and_never_shrinks() {
        let (array, id) = array().await;
        for (required, limit, size) in [
            (GIB + 1, 0, GIB + 4096),
            (GIB + 1, GIB + 4096, GIB + 4096),
            (1, 0, GIB + 4096),
            (0, 2 * GIB, GIB + 4096),
            (3 * GIB, 3 * GIB, 3 * GIB),
        ] {
            let volume = expand(&array, id.clone(), range(required, limit)).await.unwrap();
            assert_eq!((volume.size.get(), array.volumes()), (size, vec![volume]));
        }
    }

    #[tokio::test]
    async fn what_cannot_be_grown_to_says_why_and_leaves_the_volume_as_it_was() {
        let (array, id) = array().await;
        let before = array.volumes();
        for (required, limit, kind, says) in [
            (2 * GIB, GIB, Kind::Invalid, "raise limit_bytes"),
            (0, GIB / 2, Kind::OutOfRange, "never made smaller"),
            (1 << 60, 0, Kind::OutOfRange, "more than the largest volume"),
            (GIB + 1, GIB + 2, Kind::OutOfRange, "whole blocks"),
            (20 * GIB, 0, Kind::Full, "no space left"),
        ] {
            let refused = expand(&array, id.clone(), range(required, limit)).await.unwrap_err();
            assert!(refused.kind() == kind && refused.to_string().contains(says), "{refused}");
            assert_eq!(array.volumes(), before);
        }
        let missing = expand(&array, "pvc-b".parse().unwrap(), range(GIB, 0)).await.unwrap_err();
        assert_eq!(missing.kind(), Kind::Missing);
    }
}
