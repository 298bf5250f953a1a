//! Its snapshot, and a clone of that.

use std::time::SystemTime;

use super::super::Stopped;
use super::super::check::Check;
use super::{AFTER, BEFORE, SIZE, THERE, Trial, equal, hosts, same};
use crate::array::{Array as _, Content, Source, WantedSnapshot};

impl Trial<'_> {
    pub(super) async fn snapshot_is_taken(&mut self) -> Result<(), Stopped> {
        let id = self.x.scratch.snapshot.clone();
        let wanted = WantedSnapshot { id, source: self.volume.clone(), now: SystemTime::now() };
        let taken = self.x.array.take_snapshot(&wanted).await;
        let taken = self.x.held(Check::Snapshot, taken, |taken| format!("{} of {}", taken.id, taken.source));
        if let Some(first) = &mut self.first {
            let written = first.write(0, &AFTER).await;
            self.x.heard(Check::SnapshotData, written)?;
        }
        taken.map(drop)
    }

    /// A clone of the snapshot holds what the snapshot does.
    pub(super) async fn snapshot_is_cloned(&mut self) -> Result<(), Stopped> {
        let id = self.x.scratch.clone.clone();
        let source = Source::Snapshot(self.x.scratch.snapshot.clone());
        let content = Content::CopyOf { source, least: None, most: None };
        let wanted = self.wanted(&id, content, hosts(&[&self.a]));
        let made = self.x.array.create(&wanted).await;
        let clone = self.x.held(Check::Clone, made, |clone| format!("slot {}", clone.id.slot()))?;
        self.x.must(Check::ExistingFile, equal(clone.size, SIZE))?;
        if self.x.report.outcome(Check::SnapshotData).is_some() {
            return Ok(());
        }
        let connected = self.connects(&clone.nqn, &self.a, THERE).await;
        let mut connected = self.x.heard(Check::SnapshotData, connected)?;
        let read = connected.read(0).await;
        let read = self.x.heard(Check::SnapshotData, read)?;
        self.x.must(Check::SnapshotData, same(&read, &BEFORE, "4 KiB, as they were when it was taken"))
    }
}
