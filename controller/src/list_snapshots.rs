//! ListSnapshots: all of them, one, or those of one volume.

use std::sync::Arc;

use rds_csi_api::{Failure, Kind, SnapshotId, VolumeId};

use crate::array::{self, Array, Snapshot};
use crate::backends::{Backend, Backends};
use crate::list_volumes::{self, inventories};
use crate::page::{Asked, Page};

/// Which snapshots.
#[derive(Debug)]
pub enum Which<A> {
    /// Every one of every array.
    All,
    /// This one, which may be of one volume only if anybody says so.
    One(Arc<Backend<A>>, SnapshotId, Option<VolumeId>),
    /// Those of this volume.
    Of(Arc<Backend<A>>, VolumeId),
    /// None: nothing can have such an id.
    None,
}

/// Why there is no listing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// An array did not say what it has.
    #[error(transparent)]
    Listing(#[from] list_volumes::Error),
    /// The array did not say whether it has the one.
    #[error(transparent)]
    Array(#[from] array::Error),
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Listing(error) => error.kind(),
            Self::Array(error) => error.kind(),
        }
    }
}

/// That part of the listing.
pub async fn list_snapshots<A: Array>(
    backends: &Backends<A>,
    which: Which<A>,
    asked: &Asked,
) -> Result<Page<Snapshot>, Error> {
    let snapshots = match which {
        Which::All => of_arrays(backends.iter().cloned()).await?,
        Which::Of(backend, volume) => {
            let mut all = of_arrays(std::iter::once(backend)).await?;
            all.retain(|snapshot| snapshot.source == volume);
            all
        }
        Which::One(backend, id, source) => match backend.array.snapshot(&id).await {
            Ok(found) if source.is_none_or(|source| source == found.source) => vec![found],
            Ok(_) | Err(array::Error::MissingSnapshot(_)) => vec![],
            Err(error) => return Err(error.into()),
        },
        Which::None => vec![],
    };
    Ok(asked.of(snapshots, |snapshot| snapshot.id.as_str()))
}

async fn of_arrays<A: Array>(
    backends: impl Iterator<Item = Arc<Backend<A>>>,
) -> Result<Vec<Snapshot>, list_volumes::Error> {
    let all = inventories(backends).await?;
    Ok(all.into_iter().flat_map(|(_, inventory)| inventory.snapshots).collect())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use rds_csi_api::Bytes;

    use super::*;
    use crate::array::fake::{FakeArray, Fault, wanted};
    use crate::backends::fake::backend;
    use crate::snapshot::take;

    /// Two volumes, and three snapshots of them.
    async fn backends() -> Backends<FakeArray> {
        let backend = backend(None, FakeArray::new(Bytes::gib(10)));
        for (volume, snapshots) in [("pvc-a", &["snap-1", "snap-3"][..]), ("pvc-b", &["snap-2"])] {
            let wanted = wanted(volume, Bytes::gib(1));
            backend.array.create(&wanted).await.unwrap();
            for id in snapshots {
                let at = UNIX_EPOCH + Duration::from_secs(1);
                take(&backend.array, id.parse().unwrap(), wanted.id.clone(), at).await.unwrap();
            }
        }
        Backends::only(backend)
    }

    async fn ids(backends: &Backends<FakeArray>, which: Which<FakeArray>) -> Vec<String> {
        let page = list_snapshots(backends, which, &Asked::default()).await.unwrap();
        page.entries.iter().map(|snapshot| snapshot.id.to_string()).collect()
    }

    #[tokio::test]
    async fn snapshots_are_listed_all_by_volume_or_one() {
        let backends = backends().await;
        let only = backends.of(None).unwrap();
        let one = |id: &str, source: Option<&str>| {
            let source = source.map(|source| source.parse().unwrap());
            Which::One(Arc::clone(&only), id.parse().unwrap(), source)
        };
        assert_eq!(ids(&backends, Which::All).await, ["snap-1", "snap-2", "snap-3"]);
        let of = |volume: &str| Which::Of(Arc::clone(&only), volume.parse().unwrap());
        assert_eq!(ids(&backends, of("pvc-a")).await, ["snap-1", "snap-3"]);
        assert!(ids(&backends, of("pvc-none")).await.is_empty());
        assert_eq!(ids(&backends, one("snap-2", None)).await, ["snap-2"]);
        assert_eq!(ids(&backends, one("snap-2", Some("pvc-b"))).await, ["snap-2"]);
        assert!(ids(&backends, one("snap-2", Some("pvc-a"))).await.is_empty());
        assert!(ids(&backends, one("snap-none", None)).await.is_empty());
        assert!(ids(&backends, Which::None).await.is_empty());
    }

    #[tokio::test]
    async fn an_array_that_does_not_answer_is_no_empty_listing() {
        let backends = backends().await;
        let down = array::Error::Unreachable { reason: "down".into() };
        let only = backends.of(None).unwrap();
        for which in [Which::All, Which::One(Arc::clone(&only), "snap-1".parse().unwrap(), None)] {
            only.array.fail_once(Fault::Before(down.clone()));
            let refused = list_snapshots(&backends, which, &Asked::default()).await.unwrap_err();
            assert_eq!(refused.kind(), Kind::Unreachable);
        }
    }
}
