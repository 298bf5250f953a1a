//! Ids, and the arrays that they name.
//!
//! CSI wants what does not exist to be NOT_FOUND, or deleted already, whatever its id looks like. So an id that this driver
//! gives nobody is no malformed request; but nothing on an array is ever looked for by one.

use rds_csi_api::text::Malformed;
use rds_csi_api::{BackendName, ManagedPrefix, Nqn, SnapshotId, VolumeId};

use super::{Error, On};
use crate::backends::{Backends, Unknown};
use crate::delete::NotCovered;

/// A volume that may be there.
pub(in crate::csi) fn volume<A>(
    text: &str,
    backends: &Backends<A>,
    prefix: &ManagedPrefix,
) -> Result<On<A, VolumeId>, Error> {
    let id = parsed("volume_id", "the volume", text)?;
    let id = managed(id, prefix)?;
    on(id, VolumeId::backend, backends)
}

/// A snapshot that may be there.
pub(in crate::csi) fn snapshot<A>(text: &str, backends: &Backends<A>) -> Result<On<A, SnapshotId>, Error> {
    on(parsed("snapshot_id", "the snapshot", text)?, SnapshotId::backend, backends)
}

/// What is to be removed, unless it is certain that there is no such thing.
pub(in crate::csi) fn to_delete<A, T>(found: Result<On<A, T>, Error>) -> Result<Option<On<A, T>>, Error> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(why @ Error::NoSuchId { .. }) => {
            let why = rds_csi_api::status::chain(&why);
            tracing::warn!(why, "what cannot be there is taken for deleted, and nothing is touched");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// A volume that the prefix does not cover, and where it would be.
pub(in crate::csi) fn not_managed<A>(
    found: &Result<On<A, VolumeId>, Error>,
    backends: &Backends<A>,
) -> Option<Result<On<A, NotCovered>, Error>> {
    let Err(Error::NotManaged { id, prefix, .. }) = found else { return None };
    let found = on(id.clone(), VolumeId::backend, backends);
    Some(found.map(|(backend, id)| (backend, NotCovered { id, prefix: prefix.clone() })))
}

/// A node's own system may run from a volume of the same array, and nothing on the array tells it from one of ours.
pub(super) fn managed(id: VolumeId, prefix: &ManagedPrefix) -> Result<VolumeId, Error> {
    let nqn = Nqn::of_volume(&id);
    if prefix.covers(&nqn) { Ok(id) } else { Err(Error::NotManaged { id, nqn, prefix: prefix.clone() }) }
}

fn parsed<T: std::str::FromStr<Err = Malformed>>(
    field: &'static str,
    what: &'static str,
    text: &str,
) -> Result<T, Error> {
    if text.is_empty() {
        return Err(Error::Empty(field));
    }
    text.parse().map_err(|source| Error::NoSuchId { what, source })
}

fn on<A, T: ToString>(
    id: T,
    backend: impl FnOnce(&T) -> Option<BackendName>,
    backends: &Backends<A>,
) -> Result<On<A, T>, Error> {
    let elsewhere = |source: Unknown| Error::Elsewhere { id: id.to_string(), source };
    Ok((backends.of(backend(&id).as_ref()).map_err(elsewhere)?, id))
}
