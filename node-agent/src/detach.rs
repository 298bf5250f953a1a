//! Detach, the override: takes a volume away from this node although something may use it.
//!
//! (1) Every connection of the volume is ended, without the volume's lock: a call that has it may wait for just that connection. What
//! was not written yet is lost from here on, and nothing of it can arrive. (2) With the lock, what kubelet was given is taken away:
//! mounts and device nodes of devices that are gone. (3) The record goes, unless something could not be taken away. Directories
//! are left for kubelet's own calls, which find nothing else. What is not ours is not even looked at.

use std::path::Path;
use std::time::Duration;

use rds_csi_api::serve::call::Calls;
use rds_csi_api::status::chain;
use rds_csi_api::{Failure, Kind, VolumeId};

use crate::breaker::Breakers;
use crate::events::{Events, Reason};
use crate::host::{self, DeviceNumber, Found, Holder, Host, KubeletPath, in_use};
use crate::volumes::{self, Record, Volumes};

/// How long a connection may take to end.
const END_TIME: Duration = Duration::from_secs(30);

/// How long a call may take to end that waited for it.
const CALL_TIME: Duration = Duration::from_millis(if cfg!(test) { 10 } else { 10_000 });

/// More layers than anybody mounts at one path.
const MOST_LAYERS: usize = 64;

/// Who wants it, and why.
#[derive(Debug, Clone)]
pub struct Order {
    /// Which volume.
    pub volume: VolumeId,
    /// A person, or a part of a program.
    pub asked_by: String,
    /// In their own words.
    pub reason: String,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Detached {
    /// What was done, in order.
    pub done: Vec<String>,
    /// Who used the volume when it was taken away.
    pub holders: Vec<Holder>,
    /// What is left of it here.
    pub left: Vec<String>,
}

/// Why a volume is still connected.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine did not do it.
    #[error(transparent)]
    Host(#[from] host::Error),
    /// The volume could not be looked at.
    #[error(transparent)]
    Volumes(#[from] volumes::Error),
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Host(error) => error.kind(),
            Self::Volumes(error) => error.kind(),
        }
    }
}

/// Takes the volume away. Whatever comes of it is told to the log and as an event.
pub fn detach<H: Host>(
    volumes: &Volumes<H>,
    calls: &Calls,
    breakers: &Breakers,
    events: &Events,
    order: &Order,
) -> Result<Detached, Error> {
    let Order { volume, asked_by, reason } = order;
    tracing::warn!(%volume, asked_by, reason, "a detach is forced");
    let mut detached = Detached::default();
    let outcome = take_away(volumes, calls, volume, &mut detached);
    if outcome.is_ok() {
        breakers.reset(volume);
    }
    let Detached { done, holders, left } = &detached;
    let list = |what: &str, of: String| if of.is_empty() { String::new() } else { format!("; {what}: {of}") };
    let failed = outcome.as_ref().err().map(|error| chain(error)).unwrap_or_default();
    let told = format!(
        "{asked_by} forced volume {volume} off this node ({reason}){}{}{}{}",
        list("done", done.join(", ")),
        list("it was in use", in_use::told(holders)),
        list("left", left.join(", ")),
        list("it failed", failed),
    );
    tracing::warn!(%volume, asked_by, reason, "{told}");
    events.record(volume, Reason::DetachForced, told);
    outcome.map(|()| detached)
}

fn take_away<H: Host>(
    volumes: &Volumes<H>,
    calls: &Calls,
    volume: &VolumeId,
    detached: &mut Detached,
) -> Result<(), Error> {
    let host = &volumes.host;
    // A record that cannot be read must not keep the volume here; the connections are found by their names.
    let record = volumes.records.read(volume).unwrap_or_else(|error| {
        detached.left.push(chain(&error));
        None
    });
    let connections = volumes.connections(volume, record.as_ref())?;
    let mut devices: Vec<DeviceNumber> = Vec::new();
    for seen in connections.values().flatten() {
        devices.extend(seen.attachment.device().map(|device| device.number));
    }
    if let Some(record) = &record {
        devices.extend(volumes.dead(record, &host.mounts()?)?);
    }
    // Who uses it is for the audit: that nobody can say so is no reason to leave it connected.
    match host.holders(&devices) {
        Ok(holders) => detached.holders = holders,
        Err(error) => detached.left.push(format!("nobody can say who used it: {}", chain(&error))),
    }
    for nqn in connections.keys() {
        host.abandon(nqn, END_TIME)?;
        detached.done.push(format!("ended the connection to {nqn}"));
    }
    let Ok(_held) = calls.hold_within(volume, CALL_TIME) else {
        let told = "another call on the volume has not ended: ask again when it has (/debug/operations)";
        detached.left.push(told.into());
        return Ok(());
    };
    // The call that had it may have changed the record.
    let Some(record) = volumes.records.read(volume).ok().flatten() else { return Ok(()) };
    let mut whole = true;
    for path in record.published.iter().chain([&record.staging]) {
        if let Err(why) = clear(volumes, path, &mut detached.done) {
            detached.left.push(why);
            whole = false;
        }
    }
    if whole {
        forget(volumes, &record, detached);
    }
    let still = host.holders(&devices)?;
    let gone = |holder: &Holder| format!("{holder}, of a device that is gone");
    detached.left.extend(still.iter().map(gone));
    Ok(())
}

fn forget<H: Host>(volumes: &Volumes<H>, record: &Record, detached: &mut Detached) {
    match volumes.records.remove(&record.volume) {
        Ok(()) => detached.done.push("removed its record".into()),
        Err(error) => detached.left.push(chain(&error)),
    }
}

/// Takes away what is at a path that kubelet gave, if its device is gone.
fn clear<H: Host>(volumes: &Volumes<H>, path: &Path, done: &mut Vec<String>) -> Result<(), String> {
    let Some(at) = volumes.path(path) else {
        return Err(format!("{} is not beneath the kubelet directory any more", path.display()));
    };
    clear_at(volumes, &at, done).map_err(|error| chain(&error))
}

fn clear_at<H: Host>(volumes: &Volumes<H>, at: &KubeletPath, done: &mut Vec<String>) -> Result<(), Error> {
    let host = &volumes.host;
    for _ in 0..MOST_LAYERS {
        if host.mounts()?.top(at).is_none() {
            break;
        }
        // It fails if the device is there: then it is another one's.
        host.detach_dead(at)?;
        done.push(format!("detached the mount at {at}"));
    }
    if let Found::Node(number) = host.found_at(at)?
        && !host.device_is_there(number)?
    {
        host.remove_node(at)?;
        done.push(format!("removed the device node at {at}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
