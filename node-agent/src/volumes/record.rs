//! One durable record per volume, written before the first thing is done to the machine.
//!
//! It says what was wanted, not what is: that, only the machine knows. Without it, unstage would have to guess.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rds_csi_api::text::Malformed;
use rds_csi_api::{Failure, FsType, Kind, Nqn, Portal, ReconnectPolicy, VolumeId};
use serde::{Deserialize, Serialize};

/// The form of the files. A file of another version is not touched: a newer agent wrote it.
const VERSION: u32 = 1;

/// What was wanted of one volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Which volume.
    pub volume: VolumeId,
    /// The subsystem it is exported as.
    pub nqn: Nqn,
    /// Where.
    pub portal: Portal,
    /// As what it is used.
    pub form: Form,
    /// Where kubelet wants it staged.
    pub staging: PathBuf,
    /// Where kubelet wants it published.
    pub published: BTreeSet<PathBuf>,
    /// How its connection is to be held on to, if that was changed after it was staged: it wins over what attachments say.
    pub policy: Option<ReconnectPolicy>,
    /// Whether a repair of its filesystem was begun here and not ended.
    pub mending: Mending,
}

/// Whether a repair is under way. One that was cut off, as by a rollout, is begun again before anything is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mending {
    /// None is.
    Done,
    /// One was begun.
    Begun,
}

impl Record {
    /// Whether kubelet wants the volume at this path.
    pub fn names(&self, path: &Path) -> bool {
        self.staging == path || self.published.contains(path)
    }
}

/// As what a volume is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As a raw block device.
    Block,
    /// As a filesystem.
    Filesystem(FsType),
}

impl std::fmt::Display for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Block => "block",
            Self::Filesystem(fs) => fs.as_str(),
        })
    }
}

/// Why a record cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory or the file cannot be used.
    #[error("cannot {doing} the volume record {}: check --state-dir", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is not one that this version wrote.
    #[error(
        "the volume record {} is not of version {VERSION}, or damaged: {reason}; a newer agent reads newer ones; a damaged \
         one may be removed when nothing of the volume is connected or mounted on this node",
        path.display()
    )]
    Unknown {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Io { .. } => Kind::Bug,
            Self::Unknown { .. } => Kind::Refused,
        }
    }
}

/// All records.
#[derive(Debug)]
pub struct Listing {
    /// Those that can be read.
    pub records: Vec<Record>,
    /// Those that cannot, and why.
    pub damaged: Vec<(VolumeId, Error)>,
}

/// The directory of records.
#[derive(Debug, Clone)]
pub struct Records {
    directory: PathBuf,
    #[cfg(any(test, feature = "fake"))]
    life: crate::host::fake::Life,
}

impl Records {
    /// Makes the directory if it is not there.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed("make", directory))?;
        Ok(Self {
            directory: directory.into(),
            #[cfg(any(test, feature = "fake"))]
            life: crate::host::fake::Life::default(),
        })
    }

    /// The same, of a program that lives no longer than this.
    #[cfg(any(test, feature = "fake"))]
    #[must_use]
    pub fn living(self, life: crate::host::fake::Life) -> Self {
        Self { life, ..self }
    }

    /// The record of a volume, if there is one.
    pub fn read(&self, volume: &VolumeId) -> Result<Option<Record>, Error> {
        let path = self.path(volume);
        match fs::read(&path) {
            Ok(text) => parse(&path, &text).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path)(error)),
        }
    }

    /// Every record, by volume, and those that cannot be read.
    pub fn list(&self) -> Result<Listing, Error> {
        let mut listing = Listing { records: Vec::new(), damaged: Vec::new() };
        for volume in self.volumes()? {
            match self.read(&volume) {
                Ok(record) => listing.records.extend(record),
                Err(error) => listing.damaged.push((volume, error)),
            }
        }
        Ok(listing)
    }

    /// The volumes of which there is a record, told by the files' names.
    fn volumes(&self) -> Result<BTreeSet<VolumeId>, Error> {
        let mut found = BTreeSet::new();
        for entry in fs::read_dir(&self.directory).map_err(failed("list", &self.directory))? {
            let name = entry.map_err(failed("list", &self.directory))?.file_name();
            // Others are remains of a write that a crash cut short, written over by the next one.
            let stem = name.to_str().and_then(|name| name.strip_suffix(".json"));
            found.extend(stem.and_then(|stem| stem.replace('@', "/").parse::<VolumeId>().ok()));
        }
        Ok(found)
    }

    /// The records of other volumes with the same slot, each on a backend of its own: their NQNs tell them not apart.
    pub fn namesakes(&self, volume: &VolumeId) -> Result<Vec<Record>, Error> {
        let mut found = Vec::new();
        // By the file's name: a damaged record of any other volume is in nobody's way.
        for other in self.volumes()? {
            if other != *volume && other.slot() == volume.slot() {
                found.extend(self.read(&other)?);
            }
        }
        Ok(found)
    }

    /// Writes a record. A crash of the program leaves it, and a power failure leaves either it or what was there before, whole. That
    /// is enough, and half as dear as to have it for certain: a power failure leaves nothing connected or mounted, either.
    pub fn write(&self, record: &Record) -> Result<(), Error> {
        #[cfg(any(test, feature = "fake"))]
        self.life.change();
        let path = self.path(&record.volume);
        let new = path.with_extension("json.new");
        let written = serde_json::to_vec_pretty(&Stored::from(record)).map_err(io::Error::other).and_then(
            |mut text| {
                text.push(b'\n');
                let mut file = File::create(&new)?;
                file.write_all(&text)?;
                file.sync_all()?;
                fs::rename(&new, &path)
            },
        );
        written.map_err(failed("write", &path))
    }

    /// Forgets a volume, for good: nobody would ever remove a record that came back.
    pub fn remove(&self, volume: &VolumeId) -> Result<(), Error> {
        #[cfg(any(test, feature = "fake"))]
        self.life.change();
        let path = self.path(volume);
        match fs::remove_file(&path) {
            Ok(()) => {
                let removed = File::open(&self.directory).and_then(|directory| directory.sync_all());
                removed.map_err(failed("remove", &path))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed("remove", &path)(error)),
        }
    }

    /// A volume id is a file name by its alphabet, but for the slash behind its backend.
    fn path(&self, volume: &VolumeId) -> PathBuf {
        self.directory.join(format!("{}.json", volume.as_str().replace('/', "@")))
    }
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::Io { doing, path, source }
}

/// A record as it lies on the disk.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Stored {
    version: u32,
    volume: VolumeId,
    nqn: Nqn,
    nvme_address: IpAddr,
    nvme_port: u16,
    form: String,
    staging_path: PathBuf,
    publish_paths: BTreeSet<PathBuf>,
    /// As [`ReconnectPolicy`] is written. It is left away where there is none, so that earlier agents read the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reconnect_policy: Option<String>,
    /// The same holds for this.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    repair_begun: bool,
}

impl From<&Record> for Stored {
    fn from(record: &Record) -> Self {
        let Record {
            volume,
            nqn,
            portal: Portal { address, port },
            form,
            staging,
            published,
            policy,
            mending,
        } = record;
        Self {
            version: VERSION,
            volume: volume.clone(),
            nqn: nqn.clone(),
            nvme_address: *address,
            nvme_port: *port,
            form: form.to_string(),
            staging_path: staging.clone(),
            publish_paths: published.clone(),
            reconnect_policy: policy.map(|policy| policy.to_string()),
            repair_begun: *mending == Mending::Begun,
        }
    }
}

fn parse(path: &Path, text: &[u8]) -> Result<Record, Error> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let unknown = |reason: String| Error::Unknown { path: path.into(), reason };
    let Versioned { version } = serde_json::from_slice(text).map_err(|error| unknown(error.to_string()))?;
    if version != VERSION {
        return Err(unknown(format!("it is of version {version}")));
    }
    let stored: Stored = serde_json::from_slice(text).map_err(|error| unknown(error.to_string()))?;
    let form = match stored.form.as_str() {
        "block" => Form::Block,
        // Empty would be read as ext4, which is right for a StorageClass only.
        "" => return Err(unknown("its form is empty".into())),
        fs => Form::Filesystem(fs.parse().map_err(|error| unknown(format!("{error}")))?),
    };
    let policy = stored.reconnect_policy.map(|text| text.parse()).transpose();
    let policy = policy.map_err(|error: Malformed| unknown(error.to_string()))?;
    Ok(Record {
        volume: stored.volume,
        nqn: stored.nqn,
        portal: Portal { address: stored.nvme_address, port: stored.nvme_port },
        form,
        staging: stored.staging_path,
        published: stored.publish_paths,
        policy,
        mending: if stored.repair_begun { Mending::Begun } else { Mending::Done },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(volume: &str, form: Form) -> Record {
        let volume: VolumeId = volume.parse().unwrap();
        Record {
            nqn: Nqn::of_volume(&volume),
            volume,
            portal: Portal::parse("fd00::1", None).unwrap(),
            form,
            staging: "/var/lib/kubelet/plugins/a b".into(),
            published: ["/var/lib/kubelet/pods/p".into()].into(),
            policy: None,
            mending: Mending::Done,
        }
    }

    fn records() -> (tempfile::TempDir, Records) {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::open(&folder.path().join("state")).unwrap();
        (folder, records)
    }

    #[test]
    fn what_is_written_is_read_until_it_is_removed() {
        let (_folder, records) = records();
        let (a, b) = (record("pvc-a", Form::Filesystem(FsType::Xfs)), record("pvc-b", Form::Block));
        assert_eq!(records.read(&a.volume).unwrap(), None);
        records.write(&b).unwrap();
        records.write(&a).unwrap();
        assert_eq!(records.read(&a.volume).unwrap(), Some(a.clone()));
        assert_eq!(records.list().unwrap().records, [a.clone(), b.clone()]);
        let tuned =
            Record { policy: Some("600,7,5,30".parse().unwrap()), mending: Mending::Begun, ..a.clone() };
        records.write(&tuned).unwrap();
        assert_eq!(records.read(&a.volume).unwrap(), Some(tuned));
        records.remove(&a.volume).unwrap();
        records.remove(&a.volume).unwrap();
        assert_eq!(records.list().unwrap().records, [b]);
    }

    #[test]
    fn namesakes_are_volumes_of_other_backends_in_the_same_slot() {
        let (folder, records) = records();
        for volume in ["pvc-a", "rack-2/pvc-a", "pvc-aa"] {
            records.write(&record(volume, Form::Block)).unwrap();
        }
        fs::write(folder.path().join("state/pvc-b.json"), "damaged").unwrap();
        let namesakes = |volume: &str| {
            let found = records.namesakes(&volume.parse().unwrap()).unwrap();
            found.into_iter().map(|record| record.volume.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(namesakes("pvc-a"), ["rack-2/pvc-a"]);
        assert_eq!(namesakes("rack-2/pvc-a"), ["pvc-a"]);
        assert_eq!(namesakes("pvc-aa"), Vec::<String>::new());
        assert!(records.namesakes(&"rack-2/pvc-b".parse().unwrap()).is_err());
    }

    #[test]
    fn a_write_that_a_crash_cut_short_changes_nothing() {
        let (folder, records) = records();
        let old = record("pvc-a", Form::Block);
        records.write(&old).unwrap();
        fs::write(folder.path().join("state/pvc-a.json.new"), "{\"version\":").unwrap();
        assert_eq!(records.list().unwrap().records, std::slice::from_ref(&old));
        let new = Record { published: BTreeSet::new(), ..old };
        records.write(&new).unwrap();
        assert_eq!(records.read(&new.volume).unwrap(), Some(new));
    }

    #[test]
    fn a_record_of_a_newer_agent_or_a_damaged_one_is_refused_and_kept_and_hides_no_other() {
        let (folder, records) = records();
        let other = record("pvc-b", Form::Block);
        records.write(&other).unwrap();
        let path = folder.path().join("state/pvc-a.json");
        for text in ["{\"version\":2,\"more\":true}", "{\"version\":1}", "", "null"] {
            fs::write(&path, text).unwrap();
            let error = records.read(&"pvc-a".parse().unwrap()).unwrap_err();
            assert!(matches!(error, Error::Unknown { .. }), "{error}");
            let Listing { records: sound, damaged } = records.list().unwrap();
            assert_eq!(sound, std::slice::from_ref(&other));
            assert!(matches!(&damaged[..], [(volume, Error::Unknown { .. })] if volume.as_str() == "pvc-a"));
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }
}
