//! Fences, and the evidence that nobody writes any more.
//!
//! What cuts is the end of the export as it was: `doctor` proves on live connections that it does. On top of that the disk's
//! write counters must stand still, if the array has such: a counter that is absent says nothing, and is not taken for one
//! that stands still. Whose are who stays goes on writing, so there the counters say nothing either.

use std::time::Duration;

use rds_csi_api::{Nqn, VolumeId};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::RouterOs;
use super::outcome::{Concerns, garbled};
use super::reply::exact;
use super::script::{self, Names};
use super::volume::{disobeyed, obedient};
use crate::array::{Error, Export, Volume, next_name};

/// Between two looks at the counters. Nothing writes so seldom that it matters: what a node holds back it writes as quickly as
/// it can.
const PAUSE: Duration = Duration::from_millis(500);

/// How long counters may go on after the cut: what had reached the array by then is still being written.
const DEADLINE: Duration = Duration::from_secs(5);

/// How much was ever written to a disk, and what is being done to it now.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Counters {
    operations: u64,
    bytes: Option<u64>,
    in_flight: Option<u64>,
}

impl RouterOs {
    pub(super) async fn shut_out(
        &self,
        id: &VolumeId,
        cut: &Nqn,
        before: &Export,
        after: &Export,
    ) -> Result<Volume, Error> {
        let next = &next_name(id, cut)?;
        let call = self.place().fence(id, Names { cut, next }, before, after);
        let volume = self.changed(id, call).await?;
        match after.normal() {
            Export::Off if volume.nqn == *cut => {
                return Err(disobeyed(id, "the NQN", &volume.nqn, next));
            }
            Export::Hosts(_) | Export::AnyHost if volume.nqn == *cut => return obedient(volume, after),
            _ => {}
        }
        // It may have been fenced before, and whoever was let in since may write.
        if volume.export == Export::Off {
            self.stands_still(id).await?;
        }
        Ok(volume)
    }

    /// Returns once nothing is written to the disk any more, as far as the array counts that.
    async fn stands_still(&self, id: &VolumeId) -> Result<(), Error> {
        let unproved = |missing: String| Error::Unproved { id: id.clone(), missing };
        let Some(mut before) = self.counters(id).await? else {
            tracing::info!(volume = %id, evidence = "its export is off", "fenced; the array has no write counters");
            return Ok(());
        };
        let deadline = Instant::now() + DEADLINE;
        loop {
            sleep(PAUSE).await;
            let Some(now) = self.counters(id).await? else {
                return Err(unproved("its write counters are not shown any more".into()));
            };
            if now == before && now.in_flight.unwrap_or(0) == 0 {
                let operations = now.operations;
                tracing::info!(volume = %id, evidence = "its export is off, its write counters stand still", operations, "fenced");
                return Ok(());
            }
            if Instant::now() >= deadline {
                let (from, to, waited) = (before.operations, now.operations, DEADLINE.as_secs());
                let in_flight = now.in_flight.map(|count| format!(", {count} in flight")).unwrap_or_default();
                return Err(unproved(format!(
                    "its write counters still move after {waited} s (write-ops from {from} to {to}{in_flight})"
                )));
            }
            before = now;
        }
    }

    /// What the array counts; none if it knows no such counters.
    async fn counters(&self, id: &VolumeId) -> Result<Option<Counters>, Error> {
        let shown = match self.run(script::counters(id), &Concerns::of(id)).await {
            Ok(shown) => shown,
            // What it does not know it does not understand.
            Err(Error::NotUnderstood { .. } | Error::Refused { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let disks: Vec<Value> =
            serde_json::from_str(&shown).map_err(|error| garbled(&error.to_string(), &shown))?;
        match &disks[..] {
            [disk] => read(disk).map_err(|property| garbled(&format!("{property} is no number"), &shown)),
            [] => Err(Error::Missing(id.clone())),
            _ => Err(garbled("there are several disks in one slot", &shown)),
        }
    }
}

/// None without a count of writes.
fn read(disk: &Value) -> Result<Option<Counters>, &'static str> {
    let count = |property: &'static str| match &disk[property] {
        Value::Null => Ok(None),
        value => exact(&value.to_string()).map(Some).ok_or(property),
    };
    let (bytes, in_flight) = (count("write-bytes")?, count("in-flight-ops")?);
    Ok(count("write-ops")?.map(|operations| Counters { operations, bytes, in_flight }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_absent_counter_is_not_one_that_stands_still() {
        assert_eq!(read(&json!({})), Ok(None));
        assert_eq!(read(&json!({ "in-flight-ops": 0 })), Ok(None));
        assert_eq!(read(&json!({ "write-bytes": 4096 })), Ok(None));
        let counted = |bytes, in_flight| Ok(Some(Counters { operations: 7, bytes, in_flight }));
        assert_eq!(read(&json!({ "write-ops": "7" })), counted(None, None));
        let all = json!({ "write-ops": 7, "write-bytes": "8192.000000", "in-flight-ops": 0 });
        assert_eq!(read(&all), counted(Some(8192), Some(0)));
        assert_eq!(read(&json!({ "write-ops": "7 000" })), Err("write-ops"));
    }
}
