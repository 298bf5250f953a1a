//! Requests about snapshots.

use rds_csi_api::{ManagedPrefix, SnapshotId, VolumeId, csi};

use super::{Error, On, id};
use crate::backends::Backends;
use crate::list_snapshots::Which;
use crate::page::Asked;

/// What belongs to the sidecars, not to us.
const SIDECARS: &str = "csi.storage.k8s.io/";

pub(in crate::csi) fn take<A>(
    request: &csi::CreateSnapshotRequest,
    backends: &Backends<A>,
    prefix: &ManagedPrefix,
) -> Result<On<A, (SnapshotId, VolumeId)>, Error> {
    let name = request.name.parse()?;
    let unknown = request.parameters.keys().filter(|key| !key.starts_with(SIDECARS)).min();
    if let Some(key) = unknown {
        return Err(Error::SnapshotParameter { key: key.chars().take(80).collect() });
    }
    if request.source_volume_id.is_empty() {
        return Err(Error::Empty("source_volume_id"));
    }
    let (backend, source) = id::volume(&request.source_volume_id, backends, prefix)?;
    let id = SnapshotId::for_name(backend.name.as_ref(), &name);
    Ok((backend, (id, source)))
}

/// A snapshot or a volume that cannot be there has nothing to list, and is no error.
pub(in crate::csi) fn list<A>(
    request: &csi::ListSnapshotsRequest,
    backends: &Backends<A>,
    prefix: &ManagedPrefix,
) -> Result<(Which<A>, Asked), Error> {
    let asked = Asked::parse(request.max_entries, &request.starting_token)?;
    let given = |text: &str| !text.is_empty();
    let source = given(&request.source_volume_id)
        .then(|| id::volume(&request.source_volume_id, backends, prefix))
        .transpose();
    let one = given(&request.snapshot_id).then(|| id::snapshot(&request.snapshot_id, backends)).transpose();
    let which = match (one, source) {
        (Err(Error::NoSuchId { .. } | Error::NotManaged { .. }), _)
        | (_, Err(Error::NoSuchId { .. } | Error::NotManaged { .. })) => Which::None,
        (one, source) => match (one?, source?) {
            (None, None) => Which::All,
            (None, Some((backend, volume))) => Which::Of(backend, volume),
            (Some((backend, id)), source) => Which::One(backend, id, source.map(|(_, volume)| volume)),
        },
    };
    Ok((which, asked))
}
