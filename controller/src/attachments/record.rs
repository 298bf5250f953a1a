//! What is kept of a volume's attachments. It outlives the program, so its form has a version.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use rds_csi_api::{AccessMode, HostNqn, NodeName};
use serde::{Deserialize, Serialize};

/// Every attachment of one volume. It can only restrict: a node in it is let in again, any other has to ask.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Record {
    attachments: BTreeMap<NodeName, Attachment>,
    migration: Option<Migration>,
}

/// A record's form. Another one must not be half understood, so it is an error.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: Version,
    attachments: BTreeMap<NodeName, Attachment>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    migration: Option<Migration>,
}

/// The first form knew no migrations, and is still written where there is none: whoever knows only that understands it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Version {
    #[serde(rename = "1")]
    One,
    #[serde(rename = "2")]
    Two,
}

/// A VM on its way from one node to another: both hold the volume.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Migration {
    /// The node that held the volume before.
    pub from: NodeName,
    /// The node that came second.
    pub to: NodeName,
    /// Since when both hold it.
    pub since: SystemTime,
    /// After how many seconds it is called failed.
    pub timeout_seconds: u64,
    /// What shows that it is one.
    pub proof: Proof,
    /// Whether it was called failed.
    pub course: Course,
}

/// What shows that a second node takes over what runs on the first one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Proof {
    /// The VM, of which both nodes have a pod.
    pub vm: String,
    /// The migration, for which the second pod was made.
    pub job: String,
}

/// How a migration goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Course {
    /// Within its time.
    Running,
    /// Its time is over, and that was told.
    Overdue,
}

/// Why a record is none.
#[derive(Debug, thiserror::Error)]
#[error("a record of version 1 has no migration")]
struct Malformed;

impl TryFrom<Written> for Record {
    type Error = Malformed;

    fn try_from(written: Written) -> Result<Self, Malformed> {
        let Written { version, attachments, migration } = written;
        match (version, &migration) {
            (Version::One, Some(_)) => Err(Malformed),
            (Version::One, None) | (Version::Two, _) => Ok(Self { attachments, migration }),
        }
    }
}

impl From<Record> for Written {
    fn from(record: Record) -> Self {
        let Record { attachments, migration } = record;
        let version = if migration.is_some() { Version::Two } else { Version::One };
        Self { version, attachments, migration }
    }
}

impl Migration {
    /// How long it has been going on. A clock that was set back has it begin now.
    pub fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.since).unwrap_or_default()
    }

    /// Whether its time is over. By a clock that was set back so far that it cannot have begun, too: the end must come.
    pub fn is_overdue(&self, now: SystemTime) -> bool {
        let apart = now.duration_since(self.since).unwrap_or_else(|ahead| ahead.duration());
        apart >= Duration::from_secs(self.timeout_seconds)
    }
}

/// How one node holds the volume.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Attachment {
    /// As what.
    pub shape: Shape,
    /// Together with whom.
    pub mode: AccessMode,
    /// To do what.
    pub rights: Rights,
    /// When it was attached.
    pub since: SystemTime,
}

/// As what a node uses a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Shape {
    /// A raw device.
    Block,
    /// A filesystem on it.
    Filesystem,
}

/// What a node may do with a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Rights {
    /// Read and write.
    Write,
    /// Read only (`ControllerPublishVolumeRequest.readonly`).
    Read,
}

impl Record {
    /// Whether no node holds the volume.
    pub fn is_empty(&self) -> bool {
        self.attachments.is_empty()
    }

    /// How this node holds it, if it does.
    pub fn of(&self, node: &NodeName) -> Option<&Attachment> {
        self.attachments.get(node)
    }

    /// The nodes that hold it.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeName> {
        self.attachments.keys()
    }

    /// Every node with how it holds it.
    pub fn attachments(&self) -> impl Iterator<Item = (&NodeName, &Attachment)> {
        self.attachments.iter()
    }

    /// The nodes by the names that the array knows them by.
    pub fn hosts(&self) -> impl Iterator<Item = HostNqn> {
        self.attachments.keys().map(HostNqn::of)
    }

    /// The record with one attachment more.
    #[must_use]
    pub fn with(&self, node: NodeName, attachment: Attachment) -> Self {
        let mut more = self.clone();
        more.attachments.insert(node, attachment);
        more
    }

    /// The record without these nodes, and without a migration that one of them was part of.
    #[must_use]
    pub fn without<'a>(&self, nodes: impl IntoIterator<Item = &'a NodeName>) -> Self {
        let mut fewer = self.clone();
        for node in nodes {
            fewer.attachments.remove(node);
        }
        let Self { attachments, migration } = &mut fewer;
        migration.take_if(|migration| {
            !(attachments.contains_key(&migration.from) && attachments.contains_key(&migration.to))
        });
        fewer
    }

    /// The migration that goes on.
    pub const fn migration(&self) -> Option<&Migration> {
        self.migration.as_ref()
    }

    /// The record with a migration between two of its nodes.
    #[must_use]
    pub fn migrating(&self, migration: Migration) -> Self {
        Self { migration: Some(migration), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let attachment = Attachment {
            shape: Shape::Block,
            mode: AccessMode::MultiNodeWriter,
            rights: Rights::Write,
            since: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        };
        Record::default().with("w1".parse().unwrap(), attachment)
    }

    #[test]
    fn the_written_form_of_a_record_never_changes() {
        let text = r#"{"version":"1","attachments":{"w1":{"shape":"block","mode":"multiNodeWriter","rights":"write","since":{"secs_since_epoch":1700000000,"nanos_since_epoch":0}}}}"#;
        assert_eq!(serde_json::to_string(&record()).unwrap(), text);
        assert_eq!(serde_json::from_str::<Record>(text).unwrap(), record());
    }

    #[test]
    fn the_written_form_of_a_migration_never_changes() {
        let migration = Migration {
            from: "w1".parse().unwrap(),
            to: "w2".parse().unwrap(),
            since: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            timeout_seconds: 300,
            proof: Proof { vm: "vm-1".into(), job: "job-1".into() },
            course: Course::Running,
        };
        let record = Record::default().migrating(migration);
        let text = r#"{"version":"2","attachments":{},"migration":{"from":"w1","to":"w2","since":{"secs_since_epoch":1700000000,"nanos_since_epoch":0},"timeoutSeconds":300,"proof":{"vm":"vm-1","job":"job-1"},"course":"running"}}"#;
        assert_eq!(serde_json::to_string(&record).unwrap(), text);
        assert_eq!(serde_json::from_str::<Record>(text).unwrap(), record);
    }

    #[test]
    fn a_migration_ends_with_either_of_its_nodes() {
        let [w1, w2] = ["w1", "w2"].map(|name| name.parse::<NodeName>().unwrap());
        let held = record().of(&w1).unwrap().clone();
        let migration = Migration {
            from: w1.clone(),
            to: w2.clone(),
            since: SystemTime::UNIX_EPOCH,
            timeout_seconds: 300,
            proof: Proof { vm: "vm-1".into(), job: "job-1".into() },
            course: Course::Running,
        };
        let both = record().with(w2.clone(), held).migrating(migration);
        for node in [&w1, &w2] {
            assert_eq!(both.without([node]).migration(), None);
        }
        assert!(both.without([&"w3".parse().unwrap()]).migration().is_some());
    }

    #[test]
    fn a_record_of_another_form_is_an_error_and_not_an_empty_record() {
        for text in [
            r"{}",
            r#"{"version":"3","attachments":{}}"#,
            r#"{"version":"1","attachments":{},"migration":{"from":"w1","to":"w2","since":{"secs_since_epoch":1,"nanos_since_epoch":0},"timeoutSeconds":300,"proof":{"vm":"a","job":"b"},"course":"running"}}"#,
            r#"{"version":"1","attachments":{},"epoch":2}"#,
            r#"{"version":"1","attachments":{"W_1":{}}}"#,
        ] {
            assert!(serde_json::from_str::<Record>(text).is_err(), "{text}");
        }
    }
}
