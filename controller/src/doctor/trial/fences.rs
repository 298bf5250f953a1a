//! Fencing in every way, watched over live connections.

use std::time::Duration;

use rds_csi_api::Nqn;

use super::super::check::Check;
use super::super::report::Outcome;
use super::super::{Stopped, nvme_tcp};
use super::{AFTER, BACK, Controller, Trial, hosts, same};
use crate::array::routeros::quote;
use crate::array::{Array as _, Error};

/// How long a cut may take to be felt here.
const CUT: Duration = Duration::from_secs(10);

/// How long a live connection is watched that is expected to go on.
const GOES_ON: Duration = Duration::from_secs(2);

impl Trial<'_> {
    /// Fencing by the list of hosts: who is taken off it is cut and stays out, who is left on it comes back.
    pub(super) async fn list_fences(&mut self) -> Result<(), Stopped> {
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
    pub(super) async fn new_name_fences(&mut self) -> Result<(), Stopped> {
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

    pub(super) async fn switch_cuts(&mut self) -> Result<(), Stopped> {
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

    /// Gives the export another NQN; the driver has no operation for it yet.
    pub(super) async fn set_name(&self, nqn: &Nqn) -> Result<(), Error> {
        let nqn = quote(nqn.as_str());
        let set = format!(
            ":if ([:len [/disk find slot=$volume nvme-tcp-server-nqn={nqn}]]=0) \
             do={{/disk set [/disk find slot=$volume] nvme-tcp-server-nqn={nqn}}}"
        );
        self.x.ask(&set).await.map(drop)
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
