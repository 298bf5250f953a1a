//! Fencing in every way, watched over live connections.

use std::time::Duration;

use super::super::check::Check;
use super::super::report::Outcome;
use super::super::{Stopped, nvme_tcp};
use super::{AFTER, BACK, Controller, Trial, hosts, same};
use crate::array::{Array as _, Export};

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
        let fenced = self.x.array.fence(&self.volume, &self.nqn, &both, &only_b).await;
        self.x.done(Check::AclCuts, fenced)?;
        let cut = first.is_cut(CUT).await;
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

    /// What a list alone does to whoever is connected: the reason why a fence does more.
    pub(super) async fn list_alone(&mut self) -> Result<(), Stopped> {
        let (both, only_b) = (hosts(&[&self.a, &self.b]), hosts(&[&self.b]));
        let admitted = self.x.array.admit(&self.volume, &both).await;
        self.x.done(Check::AclLive, admitted)?;
        let connected = self.connects(&self.nqn, &self.a, BACK).await;
        let mut live = self.x.heard(Check::AclLive, connected)?;
        let dismissed = self.x.array.dismiss(&self.volume, &both, &only_b).await;
        self.x.done(Check::AclLive, dismissed)?;
        let cut = live.is_cut(GOES_ON).await;
        let told = if self.x.heard(Check::AclLive, cut)? {
            "it is cut at once"
        } else {
            "it goes on, until the export is switched off and on"
        };
        self.x.report.note(Check::AclLive, Outcome::Proved, told);
        Ok(())
    }

    /// Fencing by another NQN: the old one leads nowhere, for whomever, also once the export is on again.
    pub(super) async fn new_name_fences(&mut self) -> Result<(), Stopped> {
        let only_b = hosts(&[&self.b]);
        // Whatever came before, its list is that of the one host.
        let set = self.x.array.dismiss(&self.volume, &Export::AnyHost, &only_b).await;
        self.x.done(Check::EpochCuts, set)?;
        let mut live = self.second.take();
        let lives = match &mut live {
            Some(live) => live.answers().await.is_ok(),
            None => false,
        };
        let mut live = if let Some(live) = live.filter(|_| lives) {
            live
        } else {
            let connected = self.connects(&self.nqn, &self.b, BACK).await;
            self.x.heard(Check::EpochCuts, connected)?
        };
        let fenced = self.x.array.fence(&self.volume, &self.nqn, &only_b, &Export::Off).await;
        self.x.done(Check::EpochCuts, fenced)?;
        let cut = live.is_cut(CUT).await;
        self.cut(Check::EpochCuts, cut)?;
        let old = self.nqn.clone();
        let opened = self.x.array.admit(&self.volume, &only_b).await;
        self.nqn = self.x.done(Check::EpochOld, opened)?.nqn;
        self.refused(Check::EpochOld, &old, &self.b.clone()).await?;
        let connected = self.connects(&self.nqn, &self.b, BACK).await;
        let mut connected = self.x.heard(Check::EpochNew, connected)?;
        let read = connected.read(0).await;
        let read = self.x.heard(Check::EpochNew, read)?;
        self.second = Some(connected);
        self.x.may(Check::EpochNew, same(&read, &AFTER, self.nqn.as_str()));
        Ok(())
    }

    pub(super) async fn switch_cuts(&mut self) -> Result<(), Stopped> {
        let off = self.x.ask("/disk set [/disk find slot=$volume] nvme-tcp-export=no").await;
        self.x.done(Check::OffCuts, off)?;
        let Some(mut live) = self.second.take() else { return Err(Stopped) };
        let cut = live.is_cut(CUT).await;
        self.cut(Check::OffCuts, cut)?;
        let outcome = match Controller::connect(self.portal, &self.nqn, &self.b).await {
            Ok(_) => Err("a host connected to an export that is off".to_owned()),
            // Without any export the port may be closed.
            Err(error) => Ok(error.to_string()),
        };
        self.x.must(Check::OffRefuses, outcome)
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
