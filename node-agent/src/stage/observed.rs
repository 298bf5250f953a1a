//! What there is of a volume that is to be staged, and of its earlier attachments.

use std::path::{Path, PathBuf};

use rds_csi_api::{Portal, VolumeId};

use super::{DISCONNECT_TIME, Error, Usage, Wanted};
use crate::host::{Attachment, Content, Device, Fit, Holder, Host, KubeletPath, ManagedNqn, Subsystem, Use};
use crate::storm;
use crate::volumes::Volumes;
use crate::volumes::record::{Form, Mending, Record};

/// What there is.
#[derive(Debug)]
pub(super) enum Observed {
    /// No connection.
    Absent,
    /// A connection without a device that works.
    Pending,
    /// A device that is smaller than it should be. What is on it was not looked at.
    Short(Device),
    /// A device, and what is at the staging path.
    Ready(Device, Staged),
    /// The volume is connected under the name of an earlier attachment.
    Renamed(ManagedNqn, Old),
    /// The topmost mount at this path is of a device that is gone for good.
    Dead(KubeletPath),
    /// A volume of another array, in the same slot, is on this node.
    Namesake(VolumeId),
    /// The volume is connected to where it was at an earlier attachment.
    Moved(Portal),
    /// Its NQN is connected to somewhere else.
    OtherPortal(Portal),
    /// The volume is mounted at another staging path.
    Elsewhere(PathBuf),
    /// The volume is staged as something else.
    OtherForm(Form),
}

/// How the connection of an earlier attachment is.
#[derive(Debug)]
pub(super) enum Old {
    /// Nothing uses it.
    Idle,
    /// It does not work, and nothing uses it but mounts that were made for kubelet, be they there or on their way out. What they have
    /// not written must not reach the volume any more: somebody else may have written to it since.
    Stuck,
    /// Something uses it.
    InUse(Vec<Holder>),
}

/// What is at the staging path.
#[derive(Debug)]
pub(super) enum Staged {
    /// Nothing, and a block volume needs nothing.
    Block,
    /// The volume, and how its filesystem fits its device.
    Mounted(Fit),
    /// Something else.
    Other(String),
    /// Nothing, and this is on the device, of which a repair may have been cut off.
    Unmounted(Content, Mending),
}

/// Another array's volume that has the same slot, and so maybe the same NQN, and is on this node.
pub(super) fn namesake<H: Host>(volumes: &Volumes<H>, wanted: &Wanted) -> Result<Option<VolumeId>, Error> {
    Ok(volumes.records.namesakes(&wanted.volume)?.pop().map(|record| record.volume))
}

/// The record, and what there is: of records, subsystems, mounts and device one reading each.
pub(super) fn observe<H: Host>(
    volumes: &Volumes<H>,
    wanted: &Wanted,
) -> Result<(Option<Record>, Observed), Error> {
    let record = volumes.records.read(&wanted.volume)?;
    let observed = match namesake(volumes, wanted)? {
        Some(other) => Observed::Namesake(other),
        None => observe_own(volumes, wanted, record.as_ref())?,
    };
    Ok((record, observed))
}

fn observe_own<H: Host>(
    volumes: &Volumes<H>,
    wanted: &Wanted,
    record: Option<&Record>,
) -> Result<Observed, Error> {
    let host = &volumes.host;
    let mut connections = volumes.connections(&wanted.volume, record)?;
    let recorded = record.is_some_and(|record| connections.keys().any(|nqn| *nqn.as_nqn() == record.nqn));
    let asked_for = connections.remove(&wanted.target.nqn).transpose()?;
    for (old, seen) in connections {
        if let Some(how) = earlier(host, wanted, record, &seen?.attachment)? {
            return Ok(Observed::Renamed(old, how));
        }
    }
    let mounts = host.mounts()?;
    storm::check(volumes, &wanted.volume, &mounts)?;
    if volumes.is_dead(&mounts, &wanted.staging)? {
        return Ok(Observed::Dead(wanted.staging.clone()));
    }
    if let Some(record) = record {
        if let Some(staging) = volumes.path(&record.staging)
            && volumes.is_dead(&mounts, &staging)?
        {
            return Ok(Observed::Dead(staging));
        }
        if record.staging != wanted.staging.as_path() && mounts.layers(&record.staging).next().is_some() {
            return Ok(Observed::Elsewhere(record.staging.clone()));
        }
        if record.form != wanted.usage.form() && recorded {
            return Ok(Observed::OtherForm(record.form));
        }
    }
    let Some(Subsystem { attachment, portals }) = asked_for else { return Ok(Observed::Absent) };
    // Another array may export the same NQN: a connection is this volume's only if it leads to where the volume is.
    if let Some(live) = portals.into_iter().find(|live| *live != wanted.target.portal) {
        let nqn = wanted.target.nqn.as_nqn();
        let known = record.is_some_and(|record| record.nqn == *nqn && record.portal == live);
        return Ok(if known { Observed::Moved(live) } else { Observed::OtherPortal(live) });
    }
    let device = match attachment {
        Attachment::Absent | Attachment::Lost => return Ok(Observed::Absent),
        Attachment::Connecting(_) | Attachment::Live(None) => return Ok(Observed::Pending),
        Attachment::Live(Some(device)) if device.size < wanted.size => return Ok(Observed::Short(device)),
        Attachment::Live(Some(device)) => device,
    };
    let staged = match (&wanted.usage, mounts.top(&wanted.staging)) {
        (Usage::Block, None) => Staged::Block,
        (Usage::Filesystem { .. }, None) => {
            let mending = record.map_or(Mending::Done, |record| record.mending);
            Staged::Unmounted(host.probe(&device)?, mending)
        }
        (Usage::Filesystem { .. }, Some(mount)) if mount.device == device.number => {
            // What is mounted read-only does not grow, however it fits.
            Staged::Mounted(if mount.is_read_only() {
                Fit::Fills
            } else {
                host.probe(&device)?.fit(device.size)
            })
        }
        (_, Some(mount)) => Staged::Other(mount.source.clone()),
    };
    Ok(Observed::Ready(device, staged))
}

/// How a connection of the volume is that is not the one asked for; none if it is over, whatever is still held of it: without a
/// controller nothing of it can be written anywhere.
fn earlier<H: Host>(
    host: &H,
    wanted: &Wanted,
    record: Option<&Record>,
    attachment: &Attachment,
) -> Result<Option<Old>, Error> {
    let devices: Vec<_> = attachment.device().map(|device| device.number).into_iter().collect();
    let ours =
        |path: &Path| path == wanted.staging.as_path() || record.is_some_and(|record| record.names(path));
    let old = match attachment {
        Attachment::Absent | Attachment::Lost => return Ok(None),
        Attachment::Live(_) => Old::Idle,
        Attachment::Connecting(_) => Old::Stuck,
    };
    let mut holders = host.holders(&devices)?;
    if matches!(old, Old::Stuck) {
        holders.retain(|holder| holder.how != Use::Mount || !ours(&holder.path));
    }
    Ok(Some(if holders.is_empty() { old } else { Old::InUse(holders) }))
}

/// Ends the connections of earlier attachments that do not work, while another call on the volume runs and has its lock: that call
/// may sleep until what was written has arrived, on a connection that the array never takes again.
pub fn make_way<H: Host>(volumes: &Volumes<H>, wanted: &Wanted) -> Result<(), Error> {
    let record = volumes.records.read(&wanted.volume)?;
    for (old, seen) in volumes.connections(&wanted.volume, record.as_ref())? {
        if old == wanted.target.nqn {
            continue;
        }
        if let Some(Old::Stuck) = earlier(&volumes.host, wanted, record.as_ref(), &seen?.attachment)? {
            tracing::warn!(volume = %wanted.volume, %old, "the connection of an earlier attachment is ended under a call that may wait for it");
            volumes.host.abandon(&old, DISCONNECT_TIME)?;
        }
    }
    Ok(())
}
