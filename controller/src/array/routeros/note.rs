//! What a disk's comment says: whose it is, what it was asked for with, and what it is to people.
//!
//! `rds-csi:<cluster> params=<digest> from=<slot> asked=<bytes> pv=… pvc=… reconnect=<policy>`: facts in this order, each left
//! out if there is none, `from` and `asked` with copies only. Whatever follows that is no fact is kept and not read. Facts are
//! read from the beginning, and the policy, which changes, from the end, so that a script can replace it.

use rds_csi_api::{BackendName, Bytes, ReconnectPolicy, SnapshotId, VolumeId};

use crate::array::{ClusterId, Digest, Label, Source};

/// What stands before the cluster's id.
const OWNER: &str = "rds-csi:";

/// The comment of a new disk.
pub(super) struct Note<'a> {
    pub(super) cluster: &'a ClusterId,
    pub(super) parameters: Digest,
    pub(super) copied: Option<Copied<'a>>,
    pub(super) label: &'a Label,
    pub(super) reconnect: Option<ReconnectPolicy>,
}

/// What a copy was asked for as.
pub(super) struct Copied<'a> {
    pub(super) source: &'a Source,
    pub(super) least: Option<Bytes>,
}

impl Note<'_> {
    /// What decides whether a disk is the one that was asked for.
    pub(super) fn facts(&self) -> String {
        let mut facts = format!("{OWNER}{} params={}", self.cluster, self.parameters);
        if let Some(Copied { source, least }) = &self.copied {
            facts.extend([" from=", slot_of(source), " asked=", &asked(*least).to_string()]);
        }
        facts
    }

    /// What stands behind that: nothing is decided by it, and the policy changes.
    pub(super) fn label(&self) -> String {
        let policy = self.reconnect.map(|policy| format!(" reconnect={policy}"));
        format!("{}{}", self.label, policy.unwrap_or_default())
    }
}

/// What a copy was made of, as its comment has it.
pub(super) fn slot_of(source: &Source) -> &str {
    match source {
        Source::Snapshot(id) => id.slot(),
        Source::Volume(id) => id.slot(),
    }
}

/// What a copy was asked to have at least: nothing is 0.
pub(super) fn asked(least: Option<Bytes>) -> u64 {
    least.map_or(0, Bytes::get)
}

/// What a comment says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// The cluster; none if nobody wrote one.
    pub(super) cluster: Option<String>,
    /// None with a disk that an earlier version made.
    pub(super) parameters: Option<Digest>,
    /// The slot that it is a copy of.
    pub(super) from: Option<String>,
    /// How large the copy was asked to be at least.
    pub(super) asked: u64,
    pub(super) reconnect: Option<ReconnectPolicy>,
}

impl Facts {
    pub(super) fn read(comment: &str) -> Self {
        let mut words = comment.split(' ').peekable();
        let Some(cluster) = words.next().and_then(|word| word.strip_prefix(OWNER)) else {
            return Self::default();
        };
        let mut fact = |key: &str| {
            let value = words.peek().and_then(|word| word.strip_prefix(key)?.strip_prefix('='))?;
            words.next();
            Some(value)
        };
        let parameters = fact("params").and_then(|text| text.parse().ok());
        let from = fact("from").map(Into::into);
        let asked = fact("asked").and_then(|text| text.parse().ok()).unwrap_or_default();
        let last = comment.rsplit_once(" reconnect=").map(|(_, policy)| policy);
        let reconnect = last.and_then(|policy| policy.parse().ok());
        Self { cluster: Some(cluster.into()), parameters, from, asked, reconnect }
    }

    /// What it is a copy of; none too if its name cannot be one.
    pub(super) fn source(&self, backend: Option<&BackendName>) -> Option<Source> {
        let slot = self.from.as_deref()?;
        if slot.starts_with(SnapshotId::PREFIX) {
            SnapshotId::in_slot(backend, slot).ok().map(Source::Snapshot)
        } else {
            VolumeId::in_slot(backend, slot).ok().map(Source::Volume)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::KubeName;

    #[test]
    fn a_comment_is_read_as_it_was_written() {
        let cluster = "blue".parse().unwrap();
        let source = Source::Snapshot("far/snap-a".parse().unwrap());
        let label = Label { pv: Some(KubeName::parse("pv", "pvc-1").unwrap()), ..Label::default() };
        let note = Note {
            cluster: &cluster,
            parameters: Digest::of([]),
            copied: Some(Copied { source: &source, least: Some(Bytes::new(4096)) }),
            label: &label,
            reconnect: Some("600,2,5,off".parse().unwrap()),
        };
        let text = note.facts() + &note.label();
        assert_eq!(
            text,
            "rds-csi:blue params=c66e7f43 from=snap-a asked=4096 pv=pvc-1 reconnect=600,2,5,off"
        );
        let facts = Facts::read(&text);
        assert_eq!(facts.cluster.as_deref(), Some("blue"));
        assert_eq!((facts.parameters, facts.asked), (Some(Digest::of([])), 4096));
        assert_eq!(facts.source(Some(&"far".parse().unwrap())), Some(source));
        assert_eq!(facts.reconnect.unwrap().to_string(), "600,2,5,off");
    }

    #[test]
    fn what_others_wrote_is_no_fact() {
        for text in ["", "backup", "params=c66e7f43", "for rds-csi:blue from=pvc-a reconnect=600,2,5,off"] {
            assert_eq!(Facts::read(text), Facts::default(), "{text}");
        }
        let old = Facts::read("rds-csi:blue pv=from=pvc-a asked=7 params=c66e7f43");
        assert_eq!(old, Facts { cluster: Some("blue".into()), ..Facts::default() });
    }
}
