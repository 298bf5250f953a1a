//! What an examination makes on the array, by names that tell it from everything else: its own, and its cluster's.
//!
//! Whatever bears such a name belongs to a run that is over, since one array is examined by one run at a time.

use rds_csi_api::{SnapshotId, VolumeId};
use uuid::Uuid;

use crate::array::names::Digest;
use crate::array::routeros::{literally, quote};
use crate::array::{ClusterId, Pool};

/// The characters of every name, which is as many as a volume's slot has.
pub(super) const LENGTH: usize = 30;

/// The names of one run.
#[derive(Debug)]
pub(super) struct Scratch {
    pub(super) volume: VolumeId,
    pub(super) clone: VolumeId,
    pub(super) snapshot: SnapshotId,
    pool: Pool,
    cluster: ClusterId,
}

impl Scratch {
    pub(super) fn fresh(pool: &Pool, cluster: &ClusterId) -> Self {
        let name = |kind: &str| {
            let random = Uuid::new_v4().simple().to_string();
            let mut name = format!("{kind}-doctor-{}-{random}", mark(cluster));
            name.truncate(LENGTH);
            name
        };
        Self {
            volume: name("pvc").parse().expect("letters, digits and '-' make an id"),
            clone: name("pvc").parse().expect("letters, digits and '-' make an id"),
            snapshot: name("snap").parse().expect("letters, digits and '-' make an id"),
            pool: pool.clone(),
            cluster: cluster.clone(),
        }
    }

    /// Prints whatever is there of this run and of those before it, a line for each.
    pub(super) fn list(&self) -> String {
        let (slots, subvolumes, files) = self.patterns();
        format!(
            ":foreach item in=[/disk find slot~{slots}] do={{:put (\"disk \" . [/disk get $item slot])}}; \
             :foreach item in=[{subvolumes}] do={{\
             :put (\"subvolume \" . [/disk/btrfs/subvolume get $item name])}}; \
             :foreach item in=[/file find name~{files}] do={{:put (\"file \" . [/file get $item name])}}"
        )
    }

    /// Removes it: disks by their names and where their files are, then subvolumes, which take the files along. A file may
    /// go with another that it is in.
    pub(super) fn remove(&self) -> String {
        let (slots, subvolumes, files) = self.patterns();
        let path = quote(format!("^/{}", self.below()));
        format!(
            ":foreach item in=[/disk find slot~{slots} file-path~{path}] do={{/disk remove $item}}; \
             :foreach item in=[{subvolumes}] do={{/disk/btrfs/subvolume remove $item}}; \
             :foreach item in=[/file find name~{files}] do={{:onerror gone in={{/file remove $item}} do={{}}}}"
        )
    }

    /// Slots, subvolumes and files.
    fn patterns(&self) -> (impl std::fmt::Display, String, impl std::fmt::Display) {
        let names = format!("^{}", names(&self.cluster));
        let fs = quote(self.pool.as_str());
        let subvolumes = format!("/disk/btrfs/subvolume find fs={fs} name~{}", quote(names.clone()));
        (quote(names), subvolumes, quote(format!("^{}", self.below())))
    }

    /// A pattern of the files, without a slash before the pool.
    fn below(&self) -> String {
        format!("{}/{}", literally(self.pool.as_str()), names(&self.cluster))
    }
}

/// A pattern of the names of every run.
fn names(cluster: &ClusterId) -> String {
    format!("(pvc|snap)-doctor-{}-", mark(cluster))
}

/// Whether a run of any cluster made what has this name on the array. Whoever lists volumes leaves it out: it is nobody's,
/// lets hosts in that no record names, and a run that was killed leaves it there. No volume that was asked for is named so:
/// `pvc-` stands before 26 letters and digits then.
pub(crate) fn is_scratch(slot: &str) -> bool {
    let rest = ["pvc-doctor-", "snap-doctor-"].into_iter().find_map(|kind| slot.strip_prefix(kind));
    let mark = rest.and_then(|rest| rest.split_once('-'));
    mark.is_some_and(|(mark, _)| mark.parse::<Digest>().is_ok())
}

/// A cluster in eight characters; its own id may be longer than a name.
fn mark(cluster: &ClusterId) -> String {
    Digest::of([("cluster", cluster.as_str())]).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_their_runs_and_their_clusters_own() {
        let scratch = |cluster: &str| Scratch::fresh(&"pool".parse().unwrap(), &cluster.parse().unwrap());
        let (blue, again, red) = (scratch("blue"), scratch("blue"), scratch(&"r".repeat(36)));
        let all = [&blue, &again, &red]
            .map(|s| [s.volume.to_string(), s.clone.to_string(), s.snapshot.to_string()]);
        let distinct: std::collections::BTreeSet<_> = all.iter().flatten().collect();
        assert_eq!(distinct.len(), 9);
        assert!(distinct.iter().all(|name| name.len() == LENGTH));
        assert_eq!(blue.remove(), again.remove());
        assert_ne!(blue.remove(), red.remove());
        assert!(distinct.iter().all(|name| is_scratch(name)));
    }

    #[test]
    fn nothing_that_was_asked_for_is_taken_for_scratch() {
        let asked = VolumeId::for_name(None, &"pvc-doctor-00000000-1".parse().unwrap());
        for name in [asked.slot(), "pvc-doctor", "pvc-doctor-office-1", "nixos-doctor-00000000-1"] {
            assert!(!is_scratch(name), "{name}");
        }
    }
}
