//! Ends connections that nobody uses: a node that crashed, or a person who tried something, may leave one behind, and it holds a
//! place at the array and keeps the volume from being deleted.
//!
//! Only a subsystem with the managed prefix, without a record of its volume, ours or kubelet's, a mount, a holder or an open file,
//! and only when two looks in a row found it so. What cannot be told counts as in use. Before the end everything is looked at once more, with the
//! volume's lock held: no call on the volume runs then, and none begins.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use rds_csi_api::serve::call::Calls;
use rds_csi_api::serve::tasks::TaskError;
use rds_csi_api::status::chain;
use rds_csi_api::{Nqn, VolumeId};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::events::{Events, Reason};
use crate::host::{self, Device, DeviceNumber, Host, ManagedNqn};
use crate::volumes::record::Listing;
use crate::volumes::{Error, Volumes};

const DISCONNECT_TIME: Duration = Duration::from_secs(30);

/// Looks for connections that nobody uses.
#[derive(Debug)]
pub struct Orphans<H> {
    volumes: Arc<Volumes<H>>,
    calls: Calls,
    events: Events,
    ended: Counter,
    /// What the last look found. A connection that was made anew has another device.
    seen: BTreeMap<ManagedNqn, DeviceNumber>,
}

/// A connection that nobody uses.
#[derive(Debug)]
struct Orphan {
    nqn: ManagedNqn,
    volume: VolumeId,
    device: Device,
}

impl<H: Host> Orphans<H> {
    /// Among these volumes' connections. `calls` are those that may use them.
    pub fn new(volumes: Arc<Volumes<H>>, calls: Calls, events: Events, registry: &mut Registry) -> Self {
        let ended = Counter::default();
        let help = "Connections that nobody used and that were ended";
        registry.register("rds_csi_orphans_disconnected", help, ended.clone());
        Self { volumes, calls, events, ended, seen: BTreeMap::new() }
    }

    /// Looks at once, and then so often, until the process ends.
    pub async fn run(mut self, every: Duration, shutdown: CancellationToken) -> Result<(), TaskError> {
        let mut ticks = interval(every);
        // A look that took long is no reason to take two in a row for sightings apart.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                _ = ticks.tick() => {}
            }
            let stop = shutdown.clone();
            let look = spawn_blocking(move || {
                self.look(&stop);
                self
            });
            self = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                looked = look => looked?,
            };
        }
    }

    pub(crate) fn look(&mut self, stop: &CancellationToken) {
        let before = std::mem::take(&mut self.seen);
        let found = match self.orphans(&|nqn| self.volumes.prefix.covers(nqn)) {
            Ok(found) => found,
            Err(error) => {
                return tracing::warn!("nobody can say which connections are in use: {}", chain(&error));
            }
        };
        for orphan in found {
            let seen_before = before.get(&orphan.nqn) == Some(&orphan.device.number);
            if !seen_before || stop.is_cancelled() || !self.end(&orphan) {
                self.seen.insert(orphan.nqn, orphan.device.number);
            }
        }
    }

    /// Ends a connection that was seen twice, if nobody began to use it meanwhile. Returns whether it is ended.
    fn end(&self, Orphan { nqn, volume, device }: &Orphan) -> bool {
        // Somebody works on the volume, so it may not be an orphan for long.
        let Ok(_held) = self.calls.hold(volume) else { return false };
        let again = self.orphans(&|known| known == nqn.as_nqn());
        match again.map(|again| again.iter().any(|orphan| orphan.device.number == device.number)) {
            Ok(true) => {}
            Ok(false) => return false,
            Err(error) => {
                tracing::warn!(%nqn, "nobody can say whether it is in use, so it is left: {}", chain(&error));
                return false;
            }
        }
        if let Err(error) = self.volumes.host.disconnect(nqn, DISCONNECT_TIME) {
            tracing::warn!(%nqn, "a connection that nobody uses is left: {}", chain(&error));
            return false;
        }
        self.ended.inc();
        let told = format!(
            "{nqn} was connected as {device}, and no record, mount, device or process used it: the connection was ended"
        );
        self.events.record(volume, Reason::OrphanDisconnected, told);
        true
    }

    /// Those of the subsystems that are ours and that nobody uses.
    fn orphans(&self, which: &dyn Fn(&Nqn) -> bool) -> Result<Vec<Orphan>, Error> {
        let Volumes { host, records, prefix, kubelet, .. } = &*self.volumes;
        // Before the records: a call writes its own before it connects.
        let subsystems = host.subsystems(which)?;
        let Listing { records, damaged } = records.list()?;
        let recorded =
            records.iter().map(|record| &record.volume).chain(damaged.iter().map(|(volume, _)| volume));
        let mut recorded: Vec<_> = recorded.map(VolumeId::slot).collect();
        // An earlier driver wrote no record, and of a raw block volume there may be no other trace while nobody has it open.
        let staged = host::staged(kubelet)?;
        recorded.extend(staged.iter().filter_map(|handle| handle.rsplit('/').next()));
        let mut found = Vec::new();
        for (nqn, seen) in subsystems {
            // The NQN does not tell the array, so a record of any array's volume of that name is one of this.
            let Some(volume) = prefix.volume(&nqn).filter(|volume| !recorded.contains(&volume.slot())) else {
                continue;
            };
            if records.iter().any(|record| record.nqn == nqn) {
                continue;
            }
            let Ok(nqn) = ManagedNqn::new(prefix, nqn) else { continue };
            // Without a device nobody can be asked whether it is used, and what cannot be read is no proof.
            match seen {
                Ok(seen) => {
                    let device = seen.attachment.device().cloned();
                    found.extend(device.map(|device| Orphan { nqn, volume, device }));
                }
                Err(error) => tracing::debug!(%nqn, "its connection cannot be read: {}", chain(&error)),
            }
        }
        if found.is_empty() {
            return Ok(found);
        }
        let mounts = host.mounts()?;
        found.retain(|orphan| mounts.of(&orphan.device).next().is_none());
        let numbers: Vec<_> = found.iter().map(|orphan| orphan.device.number).collect();
        let holders = host.holders(&numbers)?;
        found.retain(|orphan| holders.iter().all(|holder| holder.device != orphan.device.number));
        Ok(found)
    }
}

#[cfg(test)]
mod tests;
