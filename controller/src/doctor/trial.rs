//! The trial of a scratch volume: made, exported, written to, snapshotted, grown, fenced in every way, cloned and removed,
//! by the driver's own operations where there is one, and watched from the other end of NVMe/TCP.

mod copies;
mod export;
mod fences;
mod volume;

use std::net::SocketAddr;
use std::time::Duration;

use rds_csi_api::{Bytes, Nqn, VolumeId};
use tokio::time::{Instant, sleep};

use super::check::Check;
use super::nvme_tcp::{self, BLOCK, Controller, Host, Status};
use super::report::Outcome;
use super::{Examination, Stopped};
use crate::array::names::Digest;
use crate::array::{Content, Export, Wanted};

/// No multiple of a MiB, so that a size that was rounded is seen.
const SIZE: Bytes = Bytes::new((64 << 20) + 4096);
const GROWN: Bytes = Bytes::new((96 << 20) + 8192);

/// How long an export may take to be there, and to be there again after it was cut.
const THERE: Duration = Duration::from_secs(3);
const BACK: Duration = Duration::from_secs(10);

const PAUSE: Duration = Duration::from_millis(250);

/// All that needs the other end of a connection, but for what comes after a snapshot.
const OVER_NVME: [Check; 17] = [
    Check::NvmeConnect,
    Check::NvmeData,
    Check::Counters,
    Check::AclAdmits,
    Check::AclRefuses,
    Check::GrowSeen,
    Check::HostList,
    Check::AclLive,
    Check::AclCuts,
    Check::AclFenced,
    Check::AclSurvivor,
    Check::EpochCuts,
    Check::EpochOld,
    Check::EpochNew,
    Check::OffCuts,
    Check::OffRefuses,
    Check::SnapshotData,
];

/// What is written before the snapshot, and after it.
const BEFORE: [u8; BLOCK] = [0xb4; BLOCK];
const AFTER: [u8; BLOCK] = [0x2d; BLOCK];

/// Everything that is tried on a volume. What fails stops what rests on it, and nothing else.
pub(super) async fn run(x: &mut Examination) -> Result<(), Stopped> {
    let mut trial = Trial::new(x);
    trial.volume_is_made().await?;
    trial.host_list_reads_back().await?;
    if trial.export_is_reached().await.is_err() {
        trial.x.go_on()?;
    }
    let snapshot = trial.snapshot_is_taken().await;
    trial.x.go_on()?;
    let _ = trial.volume_grows().await;
    trial.x.go_on()?;
    if trial.first.is_some() {
        let _ = trial.list_fences().await;
        trial.x.go_on()?;
        let _ = trial.list_alone().await;
        trial.x.go_on()?;
        let _ = trial.new_name_fences().await;
        trial.x.go_on()?;
        let _ = trial.switch_cuts().await;
        trial.x.go_on()?;
    }
    if snapshot.is_ok() {
        let _ = trial.snapshot_is_cloned().await;
        trial.x.go_on()?;
    } else {
        let rest_on_it = [Check::Clone, Check::ExistingFile, Check::SnapshotData];
        trial.x.report.note_all(&rest_on_it, Outcome::Skipped, "not reached: see snapshot");
    }
    trial.subvolume_in_use_stays().await;
    trial.all_is_removed().await
}

struct Trial<'x> {
    x: &'x mut Examination,
    portal: SocketAddr,
    volume: VolumeId,
    nqn: Nqn,
    /// Two hosts, and the live connection of each.
    a: Host,
    b: Host,
    first: Option<Controller>,
    second: Option<Controller>,
}

impl<'x> Trial<'x> {
    fn new(x: &'x mut Examination) -> Self {
        let portal = SocketAddr::new(x.config.portal.address, x.config.portal.port);
        let volume = x.scratch.volume.clone();
        let nqn = Nqn::of_volume(&volume);
        Self { x, portal, volume, nqn, a: Host::fresh(), b: Host::fresh(), first: None, second: None }
    }

    fn wanted(&self, id: &VolumeId, content: Content, export: Export) -> Wanted {
        Wanted {
            id: id.clone(),
            content,
            port: self.portal.port(),
            export,
            // Another run's volume that happens to have this name is a conflict, and not ours.
            parameters: Digest::of([("host", self.a.nqn().as_str())]),
            reconnect: None,
            label: self.x.label.clone(),
        }
    }

    /// A connection, with patience for an export that is just being made.
    async fn connects(
        &self,
        nqn: &Nqn,
        host: &Host,
        patience: Duration,
    ) -> Result<Controller, nvme_tcp::Error> {
        let deadline = Instant::now() + patience;
        loop {
            match Controller::connect(self.portal, nqn, host).await {
                Err(_) if Instant::now() < deadline && !self.x.is_interrupted() => sleep(PAUSE).await,
                outcome => return outcome,
            }
        }
    }

    /// Only an answer that says no is a refusal; a silence, or a cut, may end.
    async fn refused(&mut self, check: Check, nqn: &Nqn, host: &Host) -> Result<(), Stopped> {
        match Controller::connect(self.portal, nqn, host).await {
            Ok(_) => self.x.must(check, Err(format!("{} connected to {nqn}", host.nqn()))),
            Err(nvme_tcp::Error::Refused { command, status }) => {
                let expected = status.is(Status::INVALID_HOST) || status.is(Status::INVALID_PARAMETERS);
                let told = format!("{command} was answered with {status}");
                self.x.must(check, if expected { Ok(told) } else { Err(told) })
            }
            Err(error) => {
                self.x.report.note(check, Outcome::NotProved, error.to_string());
                Err(Stopped)
            }
        }
    }
}

fn hosts(hosts: &[&Host]) -> Export {
    Export::to_hosts(hosts.iter().map(|host| host.nqn().clone()))
}

fn equal(found: Bytes, wanted: Bytes) -> Result<String, String> {
    if found == wanted {
        Ok(format!("{found} bytes"))
    } else {
        Err(format!("{found} bytes instead of {wanted}"))
    }
}

fn same(found: &[u8; BLOCK], wanted: &[u8; BLOCK], told: &str) -> Result<String, String> {
    if found == wanted { Ok(told.to_owned()) } else { Err("other bytes were read".to_owned()) }
}
