//! What of an array's inventory is an orphan, and which of those may go: pure, and the only place where that is decided.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use rds_csi_api::{BackendName, ManagedPrefix, Nqn, VolumeId};

use crate::array::{Export, Inventory, Layout, Owner, Snapshot, Soundness, Source, Volume};
use crate::cluster::claims::{Claimed, Claims};
use crate::doctor::scratch;

/// In how many reports in a row something must be unclaimed to be an orphan.
const SIGHTINGS: u32 = 2;

/// What kind of orphan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A volume of this cluster.
    Volume,
    /// A volume that carries no owner: the Go driver's, or a person's.
    Unmarked,
    /// A snapshot of this cluster.
    Snapshot,
    /// Something that looks like a part of a volume, and belongs to none.
    Stray,
}

impl Kind {
    /// All of them, for metrics.
    pub const ALL: [Self; 4] = [Self::Volume, Self::Unmarked, Self::Snapshot, Self::Stray];

    /// As a metric's label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Volume => "volume",
            Self::Unmarked => "unmarked",
            Self::Snapshot => "snapshot",
            Self::Stray => "stray",
        }
    }
}

/// What becomes of orphans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Whether they are removed.
    pub removal: Removal,
}

/// Whether orphans are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// They are not.
    Off,
    /// Once they have been orphans for so long.
    After(Duration),
}

/// What was unclaimed in the last report, since when, and in how many in a row. It is kept in memory only, so that after a
/// restart every age begins anew.
#[derive(Debug, Default)]
pub struct Seen(BTreeMap<(Kind, String), Sighting>);

#[derive(Debug, Clone, Copy)]
struct Sighting {
    first: Instant,
    times: u32,
}

/// Something that nobody claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// What it is.
    pub kind: Kind,
    /// Its name on the array, or its id.
    pub name: String,
    /// All that the array says about it, for the record.
    pub about: String,
    /// For how long it has been seen so.
    pub age: Duration,
    /// Whether this report is the first that tells of it.
    pub new: bool,
    /// What becomes of it.
    pub verdict: Verdict,
}

/// What becomes of an orphan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It stays.
    Keep(Reason),
    /// It may go.
    Remove(Abandoned),
}

/// A volume whose abandonment is proven. Only [`judge`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abandoned(VolumeId);

impl Abandoned {
    /// Which one.
    pub fn volume(&self) -> &VolumeId {
        &self.0
    }
}

/// Why an orphan stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Nobody has switched removal on.
    SwitchedOff,
    /// Only this cluster's own volumes are ever removed.
    NoVolumeOfOurs,
    /// It has not been one for long enough.
    TooYoung,
    /// The array lets hosts in, so somebody may be connected.
    Exported,
    /// Snapshots were taken of it.
    HasSnapshots,
    /// Kubernetes claims nothing at all on this array: rather the wrong cluster is asked, or it has just been rebuilt.
    NothingIsClaimed,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SwitchedOff => "removal is switched off",
            Self::NoVolumeOfOurs => "only volumes that carry this cluster's id are ever removed",
            Self::TooYoung => "it has not been one for long enough",
            Self::Exported => "the array does not keep everybody out of it, so somebody may be connected",
            Self::HasSnapshots => "snapshots of it are there",
            Self::NothingIsClaimed => {
                "Kubernetes claims nothing on this array at all, which looks like the wrong cluster or a new one"
            }
        })
    }
}

/// For people: what it is, since when, and what becomes of it.
impl fmt::Display for Orphan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, name, about, age, verdict, .. } = self;
        let what = match kind {
            Kind::Volume => "volume",
            Kind::Unmarked => "volume without an owner",
            Kind::Snapshot => "snapshot",
            Kind::Stray => "stray",
        };
        write!(f, "{what} {name} ({about}) is claimed by nobody, seen so for {} s", age.as_secs())?;
        match verdict {
            Verdict::Keep(reason) => write!(f, "; it stays, since {reason}"),
            Verdict::Remove(_) => Ok(()),
        }
    }
}

/// Who claims something on the array, and who does not: one report's view of it.
struct View<'a> {
    inventory: &'a Inventory,
    claims: &'a Claims,
    backend: Option<&'a BackendName>,
    policy: Policy,
}

/// What of the inventory is an orphan now. What is seen for the first time is remembered, and not told yet.
pub fn judge(
    inventory: &Inventory,
    claims: &Claims,
    backend: Option<&BackendName>,
    prefix: &ManagedPrefix,
    seen: &mut Seen,
    now: Instant,
    policy: Policy,
) -> Vec<Orphan> {
    let view = View { inventory, claims, backend, policy };
    let mut present = BTreeMap::new();
    let mut orphans = Vec::new();
    let mut sight = |kind, name: String, about: String, verdict: &dyn Fn(Duration) -> Verdict| {
        let key = (kind, name.clone());
        let before = seen.0.get(&key).copied().unwrap_or(Sighting { first: now, times: 0 });
        let sighting = Sighting { times: before.times.saturating_add(1), ..before };
        present.insert(key, sighting);
        if sighting.times >= SIGHTINGS {
            let age = now.saturating_duration_since(sighting.first);
            let new = sighting.times == SIGHTINGS;
            orphans.push(Orphan { kind, name, about, age, new, verdict: verdict(age) });
        }
    };
    // Nodes may run from other volumes of the same array, which are nobody's business here.
    let ours = |volume: &&Volume| {
        prefix.covers(&Nqn::of_volume(&volume.id)) && !scratch::is_scratch(volume.id.slot())
    };
    for volume in inventory.volumes.iter().filter(ours) {
        if view.claimed(volume) == Claimed::No {
            let kind = match volume.owner {
                Owner::ThisCluster => Kind::Volume,
                Owner::Nobody => Kind::Unmarked,
            };
            sight(kind, volume.id.to_string(), about_volume(volume), &|age| view.verdict(volume, age));
        }
    }
    let stays = |_| Verdict::Keep(Reason::NoVolumeOfOurs);
    for snapshot in inventory.snapshots.iter().filter(|snapshot| !scratch::is_scratch(snapshot.id.slot())) {
        if claims.snapshot(&snapshot.id, backend) == Claimed::No {
            sight(Kind::Snapshot, snapshot.id.to_string(), about_snapshot(snapshot), &stays);
        }
    }
    for stray in inventory.strays.iter().filter(|stray| !scratch::is_scratch(&stray.name)) {
        sight(Kind::Stray, stray.name.clone(), stray.why.clone(), &stays);
    }
    // What somebody claims again, or what is gone, begins anew if it comes back.
    seen.0 = present;
    orphans
}

impl View<'_> {
    fn claimed(&self, volume: &Volume) -> Claimed {
        self.claims.volume(&volume.id, self.backend)
    }

    /// The proofs beside Kubernetes' own; each alone keeps the volume.
    fn verdict(&self, volume: &Volume, age: Duration) -> Verdict {
        let Removal::After(least) = self.policy.removal else { return Verdict::Keep(Reason::SwitchedOff) };
        let Inventory { volumes, snapshots, .. } = self.inventory;
        let keep = if volume.owner != Owner::ThisCluster || volume.layout != Layout::Subvolume {
            Reason::NoVolumeOfOurs
        } else if volume.export != Export::Off {
            Reason::Exported
        } else if snapshots.iter().any(|snapshot| snapshot.source == volume.id) {
            Reason::HasSnapshots
        } else if !volumes.iter().any(|other| self.claimed(other) == Claimed::Yes) {
            Reason::NothingIsClaimed
        } else if age < least {
            Reason::TooYoung
        } else {
            return Verdict::Remove(Abandoned(volume.id.clone()));
        };
        Verdict::Keep(keep)
    }
}

fn about_volume(volume: &Volume) -> String {
    let Volume { id: _, size, nqn, port, export, source, reconnect: _, owner, layout, soundness } = volume;
    let owner = match owner {
        Owner::ThisCluster => "this cluster's",
        Owner::Nobody => "without an owner",
    };
    let layout = match layout {
        Layout::Subvolume => "a subvolume",
        Layout::FlatFile => "a flat file",
    };
    let source = match source {
        None => String::new(),
        Some(Source::Snapshot(id)) => format!(", made of snapshot {id}"),
        Some(Source::Volume(id)) => format!(", made of volume {id}"),
    };
    let damage = match soundness {
        Soundness::Sound => String::new(),
        Soundness::Damaged(how) => format!(", damaged: {how}"),
    };
    format!("{size}, {nqn} at port {port}, lets {export} in, {owner}, {layout}{source}{damage}")
}

fn about_snapshot(snapshot: &Snapshot) -> String {
    format!("of volume {}, {}", snapshot.source, snapshot.size)
}

#[cfg(test)]
mod tests;
