//! GetCapacity: how much there is on the array that a StorageClass picks, and how large one volume may be.

use rds_csi_api::{Bytes, Capability};

use crate::array::{self, Array};
use crate::size::{BLOCK, LARGEST, SMALLEST, smallest};

/// How much room there is for volumes of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Altogether.
    pub available: Bytes,
    /// For one of them.
    pub largest: Bytes,
    /// Less is of no use.
    pub smallest: Bytes,
}

impl Room {
    /// Where no array is in reach.
    pub const NONE: Self = Self { available: Bytes::new(0), largest: Bytes::new(0), smallest: SMALLEST };
}

/// What the array says is free. Images are sparse, so volumes that are there already may come to use more of it.
pub async fn capacity(array: &impl Array, capabilities: &[Capability]) -> Result<Room, array::Error> {
    let available = array.capacity().await?.free;
    let largest = Bytes::new(available.get() / BLOCK * BLOCK).min(LARGEST);
    Ok(Room { available, largest, smallest: smallest(capabilities) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::fake::{FakeArray, wanted};

    #[tokio::test]
    async fn the_largest_volume_that_is_told_can_be_made() {
        let array = FakeArray::new(Bytes::new((10 << 30) + 1));
        let room = capacity(&array, &[]).await.unwrap();
        assert_eq!((room.available.get(), room.largest), ((10 << 30) + 1, Bytes::gib(10)));
        array.create(&wanted("pvc-a", room.largest)).await.unwrap();
        assert_eq!(capacity(&array, &[]).await.unwrap().largest, Bytes::new(0));
    }
}
