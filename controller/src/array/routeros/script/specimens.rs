//! Everything that is ever asked, for whoever proves that no name in it changes what is run.

#![allow(clippy::missing_panics_doc, clippy::unwrap_used, reason = "for tests only")]

use std::time::UNIX_EPOCH;

use rds_csi_api::{Bytes, Nqn, SnapshotId, VolumeId};

use super::{Arguments, Call, LARGEST, Names, Place, call, counters, look};
use crate::array::{ClusterId, Content, Digest, Export, IfOpen, Label, Pool, Source, Wanted, WantedSnapshot};

/// Each as the line that it alone is sent in.
pub fn lines(id: &VolumeId, pool: &Pool, cluster: &ClusterId, label: &Label, export: &Export) -> Vec<String> {
    calls(id, pool, cluster, label, export).iter().map(Call::line).collect()
}

/// A line that prints a text, whatever that holds.
pub fn saying(text: &str) -> String {
    let arguments = Arguments::about("a text").text("text", text);
    call("say", ":put $text", arguments).line()
}

/// Everything that is ever asked, with these names in it.
pub(super) fn calls(
    id: &VolumeId,
    pool: &Pool,
    cluster: &ClusterId,
    label: &Label,
    export: &Export,
) -> Vec<Call> {
    let place = Place { pool, cluster };
    let unique = &id.slot()[id.slot().len().saturating_sub(26)..];
    let snapshot: SnapshotId = format!("snap-{unique}").parse().unwrap();
    let (least, most) = (Some(Bytes::new(LARGEST)), Some(Bytes::new(LARGEST)));
    let wanted = |content| Wanted {
        id: id.clone(),
        content,
        port: 65535,
        // When a volume is made nobody is let in by name.
        export: if export.normal() == Export::Off { Export::Off } else { Export::AnyHost },
        reconnect: Some("86400,86400,86400,86400".parse().unwrap()),
        parameters: Digest::of([]),
        label: label.clone(),
    };
    let copy = |source| wanted(Content::CopyOf { source, least, most });
    let taking = WantedSnapshot {
        id: snapshot.clone(),
        source: id.clone(),
        now: UNIX_EPOCH + std::time::Duration::from_secs(9_999_999_999),
    };
    let policy = "86400,86400,86400,86400".parse().unwrap();
    let name: Nqn = format!("{}:e{}", Nqn::of_volume(id), u32::MAX).parse().unwrap();
    let names = Names { cut: &name, next: &name };
    vec![
        look(id),
        place.create(&wanted(Content::Empty(Bytes::new(LARGEST)))),
        place.create(&copy(Source::Snapshot(snapshot.clone()))),
        place.create(&copy(Source::Volume(id.clone()))),
        place.take_back(&copy(Source::Snapshot(snapshot.clone()))),
        place.expand(id, Bytes::new(LARGEST)),
        place.modify(id, &policy),
        place.delete(id, IfOpen::GoOn),
        place.delete(&"pvc-ci7ekz7itmjnhjcwijtbif2aaa".parse().unwrap(), IfOpen::Refuse),
        place.delete(&"pvc-123e4567-e89b-12d3-a456-426614174000".parse().unwrap(), IfOpen::GoOn),
        place.admit(id, export),
        place.dismiss(id, export, export),
        place.dismiss(id, &Export::AnyHost, export),
        place.fence(id, names, export, export),
        place.fence(id, names, export, &Export::Off),
        counters(id),
        place.take_snapshot(&taking),
        place.snapshot(&snapshot),
        place.delete_snapshot(&snapshot),
        place.delete_snapshot(&"snap-123e4567-e89b-12d3-a456-426614174000-at-3a9f8c02d1".parse().unwrap()),
        place.inventory(),
        place.capacity(),
    ]
}
