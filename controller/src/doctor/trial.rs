//! The trial of a scratch volume: made, exported, written to, snapshotted, grown, fenced in every way, cloned and removed,
//! by the driver's own operations where there is one, and watched from the other end of NVMe/TCP.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use rds_csi_api::{Bytes, Nqn, VolumeId, status};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::check::Check;
use super::device::judged;
use super::nvme_tcp::{self, BLOCK, Controller, Host, Status};
use super::report::Outcome;
use super::scratch::LENGTH;
use super::{Examination, Stopped};
use crate::array::names::Digest;
use crate::array::routeros::quote;
use crate::array::{Array as _, Content, Error, Export, Label, Source, Volume, Wanted, WantedSnapshot};

/// No multiple of a MiB, so that a size that was rounded is seen.
const SIZE: Bytes = Bytes::new((64 << 20) + 4096);
const GROWN: Bytes = Bytes::new((96 << 20) + 8192);

/// How long a cut may take to be felt here.
const CUT: Duration = Duration::from_secs(10);

/// How long a live connection is watched that is expected to go on.
const GOES_ON: Duration = Duration::from_secs(2);

/// How long an export may take to be there, and to be there again after it was cut.
const THERE: Duration = Duration::from_secs(3);
const BACK: Duration = Duration::from_secs(10);

const PAUSE: Duration = Duration::from_millis(250);

/// All that needs the other end of a connection, but for what comes after a snapshot.
const OVER_NVME: [Check; 16] = [
    Check::NvmeConnect,
    Check::NvmeData,
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
            parameters: Digest::of([]),
            reconnect: None,
            label: Label::default(),
        }
    }

    async fn volume_is_made(&mut self) -> Result<(), Stopped> {
        let wanted = self.wanted(&self.volume, Content::Empty(SIZE), Export::Off);
        let made = self.x.array.create(&wanted).await;
        if let Err(Error::Conflict { what: "size", found, .. }) = &made {
            self.x.report.note(Check::Create, Outcome::Proved, "its size apart");
            return self.x.must(Check::ExactSize, Err(format!("{found} instead of {SIZE}")));
        }
        let evidence = |volume: &Volume| format!("slot {}, NQN {}", volume.id.slot(), volume.nqn);
        let volume = self.x.held(Check::Create, made, evidence)?;
        self.x.may(Check::ExactSize, equal(volume.size, SIZE));
        let digits = self.x.ask(":put [:tostr [/disk get [/disk find slot=$volume] file-size]]").await;
        self.x.may(Check::PlainSize, judged(digits, |said| said == SIZE.get().to_string()));
        let compared = format!(
            ":put [:len [/disk find slot=$volume file-size<{}]]; :put [:len [/disk find slot=$volume file-size>{}]]",
            GROWN.get(),
            SIZE.get()
        );
        let compared = self.x.ask(&compared).await;
        self.x.may(Check::CompareSizes, judged(compared, |said| said == "1\n0"));

        let shown =
            self.x.ask(":put [:serialize to=json [/disk print detail as-value where slot=$volume]]").await;
        let shown = shown.map_err(|error| status::chain(&error));
        let shown = shown.and_then(|said| serde_json::from_str(&said).map_err(|error| error.to_string()));
        let shown: Value = self.x.tell(Check::Comment, shown)?;
        let comment = shown[0]["comment"].as_str().unwrap_or("");
        let owner = format!("rds-csi:{}", self.x.config.cluster);
        let kept = comment.split(' ').next() == Some(owner.as_str());
        let told = format!("comment {comment:?}");
        self.x.may(Check::Comment, if kept { Ok(told) } else { Err(told) });
        let slot = shown[0]["slot"].as_str().unwrap_or("");
        let whole = slot == self.volume.slot() && slot.len() == LENGTH;
        let told = format!("slot {slot:?}");
        self.x.may(Check::SlotLength, if whole { Ok(told) } else { Err(told) });

        let again = self.x.array.create(&wanted).await;
        let again = again.map_err(|error| status::chain(&error)).and_then(|again| {
            if again == volume {
                Ok("the same volume".to_owned())
            } else {
                Err(format!("another: {again:?}"))
            }
        });
        self.x.must(Check::Repeat, again)
    }

    /// A host on the list connects and writes, another does not.
    async fn export_is_reached(&mut self) -> Result<(), Stopped> {
        let admitted = self.x.array.admit(&self.volume, &hosts(&[&self.a])).await;
        self.x.done(Check::AclAdmits, admitted)?;
        let (portal, a) = (self.portal, self.a.nqn());
        let mut first = match self.connects(&self.nqn, &self.a, THERE).await {
            Ok(connected) => connected,
            Err(error @ nvme_tcp::Error::Refused { .. }) => {
                self.x.report.note(Check::NvmeConnect, Outcome::Proved, format!("{portal} speaks NVMe/TCP"));
                return self.x.must(Check::AclAdmits, Err(format!("{a} is on the list, and {error}")));
            }
            Err(error @ nvme_tcp::Error::Unreachable { .. }) => {
                self.x.report.note_all(&OVER_NVME, Outcome::NotProved, &error.to_string());
                return Err(Stopped);
            }
            // The export is on, and somebody is there: no node could connect to it either.
            Err(error) => {
                self.x.report.note(Check::NvmeConnect, Outcome::Failed, error.to_string());
                self.x.report.note_all(&OVER_NVME, Outcome::Skipped, "not reached: see nvme-connect");
                return Err(Stopped);
            }
        };
        let seen = first.namespace().await.map(|namespace| namespace.size);
        let seen = self.x.heard(Check::NvmeConnect, seen)?;
        let told = equal(seen, SIZE).map(|size| format!("{portal}, {size}"));
        self.x.must(Check::NvmeConnect, told)?;
        self.x.report.note(Check::AclAdmits, Outcome::Proved, format!("{a}, alone on the list"));

        let written = first.write(0, &BEFORE).await;
        self.x.heard(Check::NvmeData, written)?;
        let read = first.read(0).await;
        let read = self.x.heard(Check::NvmeData, read)?;
        self.x.may(Check::NvmeData, same(&read, &BEFORE, "4 KiB, written, flushed and read back"));
        self.first = Some(first);
        self.refused(Check::AclRefuses, &self.nqn.clone(), &self.b.clone()).await
    }

    async fn snapshot_is_taken(&mut self) -> Result<(), Stopped> {
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

    async fn volume_grows(&mut self) -> Result<(), Stopped> {
        let grown = self.x.array.expand(&self.volume, GROWN).await;
        let grown = grown.map_err(|error| status::chain(&error)).and_then(|volume| equal(volume.size, GROWN));
        self.x.must(Check::Grow, grown)?;
        let Some(first) = &mut self.first else { return Ok(()) };
        let deadline = Instant::now() + BACK;
        let seen = loop {
            match first.namespace().await {
                Ok(namespace) if namespace.size != GROWN && Instant::now() < deadline => sleep(PAUSE).await,
                seen => break seen.map(|namespace| namespace.size),
            }
        };
        let seen = self.x.heard(Check::GrowSeen, seen)?;
        self.x.may(Check::GrowSeen, equal(seen, GROWN));
        Ok(())
    }

    /// Fencing by the list of hosts: who is taken off it is cut and stays out, who is left on it comes back.
    async fn list_fences(&mut self) -> Result<(), Stopped> {
        let both = hosts(&[&self.a, &self.b]);
        let admitted = self.x.array.admit(&self.volume, &both).await;
        self.x.done(Check::HostList, admitted)?;
        let second = self.connects(&self.nqn, &self.b, BACK).await;
        let mut second = self.x.heard(Check::HostList, second)?;
        let Some(mut first) = self.first.take() else { return Err(Stopped) };
        let first_lives = match first.answers().await {
            Ok(()) => Ok(first),
            // A list that grows may have cut it; then it comes back.
            Err(_) => self.connects(&self.nqn, &self.a, BACK).await,
        };
        let mut first = self.x.heard(Check::HostList, first_lives)?;
        self.x.report.note(Check::HostList, Outcome::Proved, "two hosts, both connected at once");

        let only_b = hosts(&[&self.b]);
        let dismissed = self.x.array.dismiss(&self.volume, &both, &only_b).await;
        self.x.done(Check::AclLive, dismissed)?;
        let cut = first.is_cut(GOES_ON).await;
        let by_list = self.x.heard(Check::AclLive, cut)?;
        let told =
            if by_list { "it is cut at once" } else { "it goes on, until the export is switched off and on" };
        self.x.report.note(Check::AclLive, Outcome::Proved, told);

        let fenced = self.x.array.fence(&self.volume, &both, &only_b).await;
        self.x.done(Check::AclCuts, fenced)?;
        let cut = if by_list { Ok(true) } else { first.is_cut(CUT).await };
        self.cut(Check::AclCuts, cut)?;
        self.refused(Check::AclFenced, &self.nqn.clone(), &self.a.clone()).await?;

        let was_cut = second.is_cut(GOES_ON).await.unwrap_or(true);
        let back = self.connects(&self.nqn, &self.b, BACK).await;
        let mut back = self.x.heard(Check::AclSurvivor, back)?;
        let read = back.read(0).await;
        let read = self.x.heard(Check::AclSurvivor, read)?;
        let told = if was_cut { "cut as well, back, with its data" } else { "never cut, and with its data" };
        self.second = Some(back);
        self.x.must(Check::AclSurvivor, same(&read, &AFTER, told))
    }

    /// Fencing by another NQN: the old one leads nowhere, for whomever.
    async fn new_name_fences(&mut self) -> Result<(), Stopped> {
        let next: Nqn = format!("{}:e2", self.nqn).parse().expect("an NQN and three characters are one");
        let mut live = if let Some(live) = self.second.take() {
            live
        } else {
            let connected = self.connects(&self.nqn, &self.b, BACK).await;
            self.x.heard(Check::EpochCuts, connected)?
        };
        let renamed = self.set_name(&next).await;
        self.x.done(Check::EpochCuts, renamed)?;
        let cut = live.is_cut(CUT).await;
        self.cut(Check::EpochCuts, cut)?;
        self.refused(Check::EpochOld, &self.nqn.clone(), &self.b.clone()).await?;
        let connected = self.connects(&next, &self.b, BACK).await;
        let mut connected = self.x.heard(Check::EpochNew, connected)?;
        let read = connected.read(0).await;
        let read = self.x.heard(Check::EpochNew, read)?;
        self.second = Some(connected);
        self.x.may(Check::EpochNew, same(&read, &AFTER, next.as_str()));
        Ok(())
    }

    async fn switch_cuts(&mut self) -> Result<(), Stopped> {
        let next: Nqn = format!("{}:e2", self.nqn).parse().expect("an NQN and three characters are one");
        let off = self.x.ask("/disk set [/disk find slot=$volume] nvme-tcp-export=no").await;
        self.x.done(Check::OffCuts, off)?;
        let Some(mut live) = self.second.take() else { return Err(Stopped) };
        let cut = live.is_cut(CUT).await;
        self.cut(Check::OffCuts, cut)?;
        let outcome = match Controller::connect(self.portal, &next, &self.b).await {
            Ok(_) => Err("a host connected to an export that is off".to_owned()),
            // Without any export the port may be closed.
            Err(error) => Ok(error.to_string()),
        };
        self.x.must(Check::OffRefuses, outcome)
    }

    /// A clone of the snapshot holds what the snapshot does.
    async fn snapshot_is_cloned(&mut self) -> Result<(), Stopped> {
        let id = self.x.scratch.clone.clone();
        let source = Source::Snapshot(self.x.scratch.snapshot.clone());
        let content = Content::CopyOf { source, least: None, most: None };
        let wanted = self.wanted(&id, content, hosts(&[&self.a]));
        let made = self.x.array.create(&wanted).await;
        let clone = self.x.held(Check::Clone, made, |clone| format!("slot {}", clone.id.slot()))?;
        self.x.must(Check::ExistingFile, equal(clone.size, SIZE))?;
        if self.x.report.has(Check::SnapshotData) {
            return Ok(());
        }
        let connected = self.connects(&clone.nqn, &self.a, THERE).await;
        let mut connected = self.x.heard(Check::SnapshotData, connected)?;
        let read = connected.read(0).await;
        let read = self.x.heard(Check::SnapshotData, read)?;
        self.x.must(Check::SnapshotData, same(&read, &BEFORE, "4 KiB, as they were when it was taken"))
    }

    /// By the driver's own operations, which demand that the volume be as it was.
    async fn all_is_removed(&mut self) -> Result<(), Stopped> {
        let removed = self.removed().await;
        self.x.done(Check::SubvolumeRemoval, removed)?;
        let left = self.x.ask(&self.x.scratch.list()).await;
        let left = left.map_err(|error| status::chain(&error));
        let left =
            left.and_then(
                |left| if left.is_empty() { Ok("no disk, subvolume or file".into()) } else { Err(left) },
            );
        self.x.must(Check::SubvolumeRemoval, left)
    }

    async fn removed(&mut self) -> Result<(), Error> {
        self.set_name(&self.nqn.clone()).await?;
        let array = &self.x.array;
        for id in [&self.volume, &self.x.scratch.clone] {
            match array.dismiss(id, &Export::AnyHost, &Export::Off).await {
                Ok(_) | Err(Error::Missing(_)) => array.delete(id).await?,
                Err(error) => return Err(error),
            }
        }
        array.delete_snapshot(&self.x.scratch.snapshot).await
    }

    /// Gives the export another NQN; the driver has no operation for it yet.
    async fn set_name(&self, nqn: &Nqn) -> Result<(), Error> {
        let nqn = quote(nqn.as_str());
        let set = format!(
            ":if ([:len [/disk find slot=$volume nvme-tcp-server-nqn={nqn}]]=0) \
             do={{/disk set [/disk find slot=$volume] nvme-tcp-server-nqn={nqn}}}"
        );
        self.x.ask(&set).await.map(drop)
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

    fn cut(&mut self, check: Check, cut: Result<bool, nvme_tcp::Error>) -> Result<(), Stopped> {
        let told = if self.x.heard(check, cut)? {
            Ok("the array closed its connection".to_owned())
        } else {
            Err(format!("it still answers after {} s", CUT.as_secs()))
        };
        self.x.must(check, told)
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
