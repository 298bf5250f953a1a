//! The ways to keep a node from writing, what each rests on, and whether the one that is configured was proved.

use super::Examination;
use super::check::Check;
use super::report::{Outcome, Report};
use crate::config::Fencing;

/// A way to keep a node from writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Acl,
    Epoch,
}

impl Way {
    pub(super) const ALL: [Self; 2] = [Self::Acl, Self::Epoch];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Acl => "acl",
            Self::Epoch => "epoch",
        }
    }

    /// What must hold for it.
    pub(super) const fn rests_on(self) -> &'static [Check] {
        match self {
            Self::Acl => &[
                Check::HostListRead,
                Check::AclAdmits,
                Check::AclRefuses,
                Check::HostList,
                Check::AclCuts,
                Check::AclFenced,
                Check::AclSurvivor,
            ],
            Self::Epoch => &[Check::EpochCuts, Check::EpochOld, Check::EpochNew],
        }
    }

    pub(super) fn is_proved(self, report: &Report) -> bool {
        self.rests_on().iter().all(|check| report.outcome(*check) == Some(Outcome::Proved))
    }
}

/// Notes whether what is configured was proved.
pub(super) fn compare(x: &mut Examination) {
    let (outcome, evidence) = judge(&x.report, x.config.fence.as_ref());
    x.report.note(Check::Fence, outcome, evidence);
}

fn judge(report: &Report, configured: Option<&Fencing>) -> (Outcome, String) {
    let proved_on = match configured {
        None => return (Outcome::NotAvailable, "no --fence was given to compare with".into()),
        Some(Fencing::None) => return (Outcome::Proved, "none, which asks nothing of the array".into()),
        Some(Fencing::Acl(proved_on)) => proved_on,
    };
    let with = |outcome| {
        let mut checks = Way::Acl.rests_on().iter();
        checks.find(|check| report.outcome(**check) == Some(outcome)).map(|check| check.id())
    };
    if let Some(id) = with(Outcome::Failed) {
        return (Outcome::Failed, format!("acl is configured, and {id} has failed"));
    }
    if !Way::Acl.is_proved(report) {
        return (Outcome::NotProved, "acl is configured, and was not tried as a whole".into());
    }
    let release = report.evidence(Check::Version);
    match proved_on {
        Some(proved_on) if proved_on.as_str() == release => (Outcome::Proved, format!("acl@{release}")),
        _ => (Outcome::Warning, format!("it is proved now: configure acl@{release}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(configured: &str, but: Option<(Check, Outcome)>) -> (Outcome, String) {
        let mut report = Report::new();
        if let Some((check, outcome)) = but {
            report.note(check, outcome, "");
        }
        report.note_all(&Check::ALL, Outcome::Proved, "7.21.2");
        judge(&report, Some(&configured.parse().unwrap()))
    }

    #[test]
    fn a_fence_that_is_configured_fails_with_anything_that_it_rests_on() {
        for check in Way::Acl.rests_on() {
            let (outcome, evidence) = judged("acl@7.21.2", Some((*check, Outcome::Failed)));
            assert!(outcome == Outcome::Failed && evidence.contains(check.id()), "{evidence}");
            assert_eq!(judged("acl", Some((*check, Outcome::NotProved))).0, Outcome::NotProved);
            assert_eq!(judged("none", Some((*check, Outcome::Failed))).0, Outcome::Proved);
        }
    }

    #[test]
    fn what_is_proved_on_another_release_is_to_be_configured_anew() {
        assert_eq!(judged("acl@7.21.2", None).0, Outcome::Proved);
        for configured in ["acl", "acl@7.21"] {
            let (outcome, evidence) = judged(configured, None);
            assert!(outcome == Outcome::Warning && evidence.contains("acl@7.21.2"), "{evidence}");
        }
        assert_eq!(judge(&Report::new(), None).0, Outcome::NotAvailable);
    }
}
