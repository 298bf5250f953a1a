//! What is kept of a volume's attachments. It outlives the program, so its form has a version.

use std::collections::BTreeMap;
use std::time::SystemTime;

use rds_csi_api::{AccessMode, HostNqn, NodeName};
use serde::{Deserialize, Serialize};

/// Every attachment of one volume. It can only restrict: a node in it is let in again, any other has to ask.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    version: Version,
    attachments: BTreeMap<NodeName, Attachment>,
}

/// The form of the record. Another one must not be half understood, so it is an error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Version {
    #[default]
    #[serde(rename = "1")]
    One,
}

/// How one node holds the volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Shape {
    /// A raw device.
    Block,
    /// A filesystem on it.
    Filesystem,
}

/// What a node may do with a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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

    /// The record without these nodes.
    #[must_use]
    pub fn without<'a>(&self, nodes: impl IntoIterator<Item = &'a NodeName>) -> Self {
        let mut fewer = self.clone();
        for node in nodes {
            fewer.attachments.remove(node);
        }
        fewer
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
    fn a_record_of_another_form_is_an_error_and_not_an_empty_record() {
        for text in [
            r"{}",
            r#"{"version":"2","attachments":{}}"#,
            r#"{"version":"1","attachments":{},"epoch":2}"#,
            r#"{"version":"1","attachments":{"W_1":{}}}"#,
        ] {
            assert!(serde_json::from_str::<Record>(text).is_err(), "{text}");
        }
    }
}
