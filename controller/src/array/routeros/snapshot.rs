//! Snapshots: read-only subvolumes, whose names hold all that is known of them.

use std::time::{Duration, UNIX_EPOCH};

use rds_csi_api::{BackendName, Bytes, SnapshotId, VolumeId};

use super::RouterOs;
use super::outcome::{Concerns, garbled, missing};
use super::reply::{self, Subvolume};
use crate::array::{ClusterId, Error, Snapshot, Source, Subject, WantedSnapshot};

impl RouterOs {
    pub(super) async fn snapshot_of(&self, wanted: &WantedSnapshot) -> Result<Snapshot, Error> {
        let id = takeable(&wanted.id)?;
        let concerns = Concerns::of(id).taking_from(&wanted.source);
        let printed = match self.run(self.place().take_snapshot(wanted), &concerns).await {
            Err(error @ Error::Refused { .. }) => {
                return Err(self.why_refused(&Source::Volume(wanted.source.clone()), error).await);
            }
            printed => printed?,
        };
        let there = self.found(id, &printed)?;
        if there.source == wanted.source {
            return Ok(there);
        }
        let (found, wanted) = (there.source.to_string(), wanted.source.to_string());
        Err(Error::Conflict { subject: id.into(), what: "source volume", found, wanted })
    }

    pub(super) async fn look_at_snapshot(&self, id: &SnapshotId) -> Result<Snapshot, Error> {
        let id = takeable(id)?;
        let printed = self.run(self.place().snapshot(id), &Concerns::of(id)).await?;
        self.found(id, &printed)
    }

    pub(super) async fn discard(&self, id: &SnapshotId) -> Result<(), Error> {
        let Ok(id) = takeable(id) else { return Ok(()) };
        self.run(self.place().delete_snapshot(id), &Concerns::of(id)).await.map(drop)
    }

    /// The snapshot of this id among subvolumes whose names begin with it.
    fn found(&self, id: &SnapshotId, printed: &str) -> Result<Snapshot, Error> {
        let subject = || Subject::from(id);
        let foreign = |why: String| Error::Foreign { subject: subject(), why };
        let subvolumes: Vec<Subvolume> =
            reply::list(printed).map_err(|why| garbled(&why.to_string(), printed))?;
        let Some(first) = subvolumes.first() else { return Err(missing(subject())) };
        let mut ours = subvolumes.iter().filter_map(|subvolume| Named::read(subvolume, &self.cluster));
        match (ours.next(), ours.next()) {
            (Some(Named { access: Access::ReadOnly, facts }), None) => facts
                .snapshot(id.backend().as_ref())
                .ok_or_else(|| foreign(format!("its name is {:?}", first.name))),
            (Some(Named { access: Access::Writable, .. }), None) => {
                Err(foreign("its subvolume can be written to, so it is no snapshot".into()))
            }
            (None, _) => Err(foreign(format!("its subvolume is {:?}", first.name))),
            (Some(_), Some(_)) => {
                Err(Error::Concurrent { subject: subject(), text: "there are several of that id".into() })
            }
        }
    }
}

/// No id that this driver made has a dot, which ends the id in a subvolume's name.
pub(super) fn takeable(id: &SnapshotId) -> Result<&SnapshotId, Error> {
    if id.slot().contains('.') { Err(Error::MissingSnapshot(id.clone())) } else { Ok(id) }
}

/// A subvolume with the name of a snapshot of this cluster.
pub(super) struct Named<'a> {
    pub(super) access: Access,
    pub(super) facts: Facts<'a>,
}

pub(super) enum Access {
    ReadOnly,
    Writable,
}

/// `<id>.<cluster>.<seconds since 1970>.<bytes>.<slot of the source>`. Only the last may hold dots.
pub(super) struct Facts<'a> {
    slot: &'a str,
    taken: u64,
    size: u64,
    source: &'a str,
}

impl<'a> Named<'a> {
    /// None if it is another name, or another cluster's.
    pub(super) fn read(subvolume: &'a Subvolume, cluster: &ClusterId) -> Option<Self> {
        let mut parts = subvolume.name.splitn(5, '.');
        let mut part = || parts.next();
        let (slot, owner, taken, size, source) = (part()?, part()?, part()?, part()?, part()?);
        let ours = slot.starts_with(SnapshotId::PREFIX) && owner == cluster.as_str();
        let access = if subvolume.read_only { Access::ReadOnly } else { Access::Writable };
        let facts = Facts { slot, taken: taken.parse().ok()?, size: size.parse().ok()?, source };
        ours.then_some(Self { access, facts })
    }
}

impl Facts<'_> {
    /// None if a name in it cannot be one.
    pub(super) fn snapshot(&self, backend: Option<&BackendName>) -> Option<Snapshot> {
        Some(Snapshot {
            id: SnapshotId::in_slot(backend, self.slot).ok()?,
            source: VolumeId::in_slot(backend, self.source).ok()?,
            size: Bytes::new(self.size),
            taken: UNIX_EPOCH.checked_add(Duration::from_secs(self.taken))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str) -> Option<Snapshot> {
        let subvolume = Subvolume { name: name.into(), read_only: true };
        Named::read(&subvolume, &"blue".parse().unwrap())?.facts.snapshot(None)
    }

    #[test]
    fn a_snapshots_name_tells_all_of_it() {
        let snapshot = read("snap-a.blue.1700000000.4096.pvc-b.c").unwrap();
        assert_eq!((snapshot.id.as_str(), snapshot.source.as_str()), ("snap-a", "pvc-b.c"));
        assert_eq!(snapshot.size, Bytes::new(4096));
        assert_eq!(snapshot.taken, UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    }

    #[test]
    fn what_is_named_otherwise_is_no_snapshot_of_ours() {
        for name in [
            "",
            "snap-a",
            "snap-a.blue.1.2",
            "snap-a.bluest.1.2.pvc-b",
            "pvc-a.blue.1.2.pvc-b",
            "snap-a.blue.x.2.pvc-b",
            "snap-a.blue.1.2GiB.pvc-b",
            "snap-a.blue.1.2.",
            "snap-a.blue.99999999999999999999.2.pvc-b",
        ] {
            assert_eq!(read(name), None, "{name}");
        }
        assert_eq!(read(&format!("snap-a.blue.{}.2.pvc-b", u64::MAX)), None);
    }
}
