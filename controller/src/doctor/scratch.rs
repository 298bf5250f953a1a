//! What an examination makes on the array, by names that tell it from everything else: its cluster's, its run's, and when that
//! began. So one run removes nothing from under another.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rds_csi_api::{SnapshotId, VolumeId};
use uuid::Uuid;

use crate::array::names::{Digest, KubeName, Label};
use crate::array::routeros::{literally, quote};
use crate::array::{ClusterId, Pool};

/// The characters of the volumes' names, which is as many as a volume's slot has.
pub(super) const LENGTH: usize = 30;

/// What stands before the machine's name in a label.
const AT: &str = "doctor-at-";

/// One run, by the minute in which it began (seven hexadecimal digits) and two random digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Run(String);

impl Run {
    const LENGTH: usize = 9;

    fn fresh(now: SystemTime) -> Self {
        let minutes = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 60;
        let random = Uuid::new_v4().as_bytes()[0];
        Self(format!("{:07x}{random:02x}", minutes & 0xfff_ffff))
    }

    /// The run that made what has this name: the characters behind the cluster's mark.
    fn of(name: &str, cluster: &ClusterId) -> Option<Self> {
        let (_, rest) = name.split_once(&format!("-doctor-{}-", mark(cluster)))?;
        let run = rest.get(..Self::LENGTH)?;
        run.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')).then(|| Self(run.into()))
    }

    /// How long ago it began; nothing for one that began later than now.
    pub(super) fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.begun()).unwrap_or_default()
    }

    fn begun(&self) -> SystemTime {
        let minutes = self.0.get(..7).and_then(|digits| u64::from_str_radix(digits, 16).ok());
        UNIX_EPOCH + Duration::from_secs(minutes.unwrap_or_default() * 60)
    }

    /// Whether it may still be under way. A clock that goes wrong may do so in both directions.
    pub(super) fn is_younger(&self, than: Duration, now: SystemTime) -> bool {
        let ahead = self.begun().duration_since(now).unwrap_or_default();
        self.age(now) < than && ahead < than
    }
}

/// Something on the array that a run of this cluster has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) run: Run,
    /// Where that runs, if a disk says it.
    pub(super) host: Option<String>,
    /// What it is, and its name.
    what: String,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// The names of one run.
#[derive(Debug)]
pub(super) struct Scratch {
    pub(super) volume: VolumeId,
    pub(super) clone: VolumeId,
    pub(super) snapshot: SnapshotId,
    pub(super) run: Run,
    pool: Pool,
    cluster: ClusterId,
}

impl Scratch {
    pub(super) fn fresh(pool: &Pool, cluster: &ClusterId, now: SystemTime) -> Self {
        let run = Run::fresh(now);
        let name = |kind: &str, which: &str| format!("{kind}-doctor-{}-{}{which}", mark(cluster), run.0);
        Self {
            volume: name("pvc", "v").parse().expect("letters, digits and '-' make an id"),
            clone: name("pvc", "c").parse().expect("letters, digits and '-' make an id"),
            snapshot: name("snap", "s").parse().expect("letters, digits and '-' make an id"),
            run,
            pool: pool.clone(),
            cluster: cluster.clone(),
        }
    }

    /// What the disks of this run say of it: on which machine it runs.
    pub(super) fn label(host: &str) -> Label {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
        let host: String = host.trim().chars().filter(|c| plain(*c)).collect();
        Label {
            pv: KubeName::parse("host", &format!("{AT}{}", host.to_lowercase())).ok(),
            ..Label::default()
        }
    }

    /// Prints a line for everything that any run of this cluster has made.
    pub(super) fn list(&self) -> String {
        let Patterns { slots, subvolumes, files } = self.patterns(&[]);
        format!(
            ":foreach item in=[/disk find slot~{slots}] \
             do={{:put (\"disk \" . [/disk get $item slot] . \" \" . [/disk get $item comment])}}; \
             :foreach item in=[{subvolumes}] do={{\
             :put (\"subvolume \" . [/disk/btrfs/subvolume get $item name])}}; \
             :foreach item in=[/file find name~{files}] do={{:put (\"file \" . [/file get $item name])}}"
        )
    }

    /// Reads what was printed.
    pub(super) fn read(&self, printed: &str) -> Vec<Found> {
        let found = printed.lines().filter_map(|line| {
            let mut words = line.trim().splitn(3, ' ');
            let (kind, name) = (words.next()?, words.next()?);
            let mut facts = words.next().unwrap_or_default().split(' ');
            let host = facts.find_map(|fact| fact.strip_prefix("pv=")?.strip_prefix(AT)).map(str::to_owned);
            Some(Found { run: Run::of(name, &self.cluster)?, host, what: format!("{kind} {name}") })
        });
        found.collect()
    }

    /// Removes what these runs have made: disks by their names and where their files are, then subvolumes, which take the
    /// files along. A file may go with another that it is in.
    pub(super) fn remove(&self, runs: &[Run]) -> String {
        if runs.is_empty() {
            return ":put \"\"".into();
        }
        let Patterns { slots, subvolumes, files } = self.patterns(runs);
        let path = quote(format!("^/{}", self.below(runs)));
        format!(
            ":foreach item in=[/disk find slot~{slots} file-path~{path}] do={{/disk remove $item}}; \
             :foreach item in=[{subvolumes}] do={{/disk/btrfs/subvolume remove $item}}; \
             :foreach item in=[/file find name~{files}] do={{:onerror gone in={{/file remove $item}} do={{}}}}"
        )
    }

    fn patterns(&self, runs: &[Run]) -> Patterns {
        let names = format!("^{}", names(&self.cluster, runs));
        let fs = quote(self.pool.as_str());
        let subvolumes = format!("/disk/btrfs/subvolume find fs={fs} name~{}", quote(names.as_str()));
        let files = quote(format!("^{}", self.below(runs))).to_string();
        Patterns { slots: quote(names.as_str()).to_string(), subvolumes, files }
    }

    /// A pattern of the files, without a slash before the pool.
    fn below(&self, runs: &[Run]) -> String {
        format!("{}/{}", literally(self.pool.as_str()), names(&self.cluster, runs))
    }
}

/// How a script finds what runs have made.
struct Patterns {
    slots: String,
    /// The command that finds them.
    subvolumes: String,
    files: String,
}

/// A pattern of the names of these runs; of every run for none.
fn names(cluster: &ClusterId, runs: &[Run]) -> String {
    let runs: Vec<_> = runs.iter().map(|run| run.0.as_str()).collect();
    format!("(pvc|snap)-doctor-{}-({})", mark(cluster), runs.join("|"))
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

    const NOW: Duration = Duration::from_hours(498_684);

    fn scratch(cluster: &str) -> Scratch {
        Scratch::fresh(&"pool".parse().unwrap(), &cluster.parse().unwrap(), UNIX_EPOCH + NOW)
    }

    #[test]
    fn names_are_their_clusters_own_and_as_long_as_a_slot() {
        let (blue, red) = (scratch("blue"), scratch(&"r".repeat(36)));
        let all = [&blue, &red].map(|s| [s.volume.to_string(), s.clone.to_string(), s.snapshot.to_string()]);
        let distinct: std::collections::BTreeSet<_> = all.iter().flatten().collect();
        assert_eq!(distinct.len(), 6);
        assert!(distinct.iter().all(|name| is_scratch(name)));
        assert!([&blue, &red].iter().all(|scratch| scratch.volume.as_str().len() == LENGTH));
        assert_ne!(blue.list(), red.list());
        assert_eq!(blue.read(&format!("disk {}", red.volume)), []);
    }

    #[test]
    fn what_is_there_tells_its_run_its_time_and_its_machine() {
        let own = scratch("blue");
        let comment = format!("rds-csi:blue params=c66e7f43{}", Scratch::label("Node_1.example\n"));
        let printed = format!(
            "disk {} {comment}\r\nsubvolume {}.blue.making\r\nfile pool/{}/disk.img\r\nfile pool/other",
            own.volume, own.clone, own.snapshot
        );
        let found = own.read(&printed);
        assert!(found.len() == 3 && found.iter().all(|found| found.run == own.run), "{found:?}");
        assert_eq!(found[0].host.as_deref(), Some("node1.example"));
        assert_eq!((found[0].to_string(), &found[1].host), (format!("disk {}", own.volume), &None));

        let (now, limit) = (UNIX_EPOCH + NOW, Duration::from_mins(15));
        assert!(own.run.is_younger(limit, now) && own.run.is_younger(limit, now + Duration::from_mins(14)));
        assert!(!own.run.is_younger(limit, now + limit) && !own.run.is_younger(Duration::ZERO, now));
        assert!(own.run.is_younger(limit, now - Duration::from_mins(14)), "a clock may be behind");
        assert!(!own.run.is_younger(limit, now - Duration::from_hours(1)));
    }

    #[test]
    fn only_what_is_named_is_removed() {
        let (own, other) = (scratch("blue"), Run("0000000ab".into()));
        assert!(own.remove(std::slice::from_ref(&own.run)).contains(&own.run.0));
        let both = own.remove(&[own.run.clone(), other]);
        assert!(both.contains(&format!("({}|0000000ab)", own.run.0)), "{both}");
        assert!(!own.remove(&[]).contains("remove"), "none is not all");
    }

    #[test]
    fn nothing_that_was_asked_for_is_taken_for_scratch() {
        let asked = VolumeId::for_name(None, &"pvc-doctor-00000000-1".parse().unwrap());
        for name in [asked.slot(), "pvc-doctor", "pvc-doctor-office-1", "nixos-doctor-00000000-1"] {
            assert!(!is_scratch(name), "{name}");
        }
    }
}
