//! ValidateVolumeCapabilities: whether the volume is there, and can be used as somebody wishes.

use rds_csi_api::{Failure, Kind, VolumeId};

use crate::array::{self, Array};

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The array does not say that the volume is there.
    #[error(transparent)]
    Array(#[from] array::Error),
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Array(error) => error.kind(),
        }
    }
}

/// Succeeds if the volume is there. What can be asked of one can be asked of all, so the capabilities themselves are judged
/// when they are read.
pub async fn validate(array: &impl Array, id: VolumeId) -> Result<(), Error> {
    array.volume(&id).await?;
    Ok(())
}
