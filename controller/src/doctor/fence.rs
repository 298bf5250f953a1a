//! The ways to keep a node from writing, what each rests on, and whether the one that is configured was proved.

use super::Examination;
use super::check::Check;
use super::report::{Outcome, Report};
use crate::attachments::Fence;
use crate::config::Fencing;

/// The ways that can be proved.
pub(super) const WAYS: [Fence; 2] = [Fence::Acl, Fence::Epoch];

/// What must hold for it. A list that is empty at the end makes the export another one, too, so that stale buffers find none.
pub(super) const fn rests_on(way: Fence) -> &'static [Check] {
    match way {
        Fence::None => &[],
        Fence::Acl => &[
            Check::HostListRead,
            Check::AclAdmits,
            Check::AclRefuses,
            Check::HostList,
            Check::AclCuts,
            Check::AclFenced,
            Check::AclSurvivor,
            Check::EpochCuts,
            Check::EpochOld,
            Check::EpochNew,
        ],
        Fence::Epoch => {
            &[Check::EpochCuts, Check::EpochOld, Check::EpochNew, Check::OffCuts, Check::OffRefuses]
        }
    }
}

pub(super) fn is_proved(way: Fence, report: &Report) -> bool {
    rests_on(way).iter().all(|check| report.outcome(*check) == Some(Outcome::Proved))
}

/// Notes whether what is configured was proved.
pub(super) fn compare(x: &mut Examination) {
    let (outcome, evidence) = judge(&x.report, x.config.fence.as_ref());
    x.report.note(Check::Fence, outcome, evidence);
}

fn judge(report: &Report, configured: Option<&Fencing>) -> (Outcome, String) {
    let Some(configured) = configured else {
        return (Outcome::NotAvailable, "no --fence was given to compare with".into());
    };
    let way = configured.way();
    if way == Fence::None {
        return (Outcome::Proved, "none, which asks nothing of the array".into());
    }
    let failed = rests_on(way).iter().find(|check| report.outcome(**check) == Some(Outcome::Failed));
    let name = way.as_str();
    if let Some(check) = failed {
        return (Outcome::Failed, format!("{name} is configured, and {} has failed", check.id()));
    }
    if !is_proved(way, report) {
        return (Outcome::NotProved, format!("{name} is configured, and was not tried as a whole"));
    }
    let release = report.evidence(Check::Version);
    match configured.proved_on() {
        Some(proved_on) if proved_on.as_str() == release => (Outcome::Proved, format!("{name}@{release}")),
        _ => (Outcome::Warning, format!("it is proved now: configure {name}@{release}")),
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
        for way in WAYS {
            let name = way.as_str();
            for check in rests_on(way) {
                let (outcome, evidence) = judged(&format!("{name}@7.21.2"), Some((*check, Outcome::Failed)));
                assert!(outcome == Outcome::Failed && evidence.contains(check.id()), "{evidence}");
                assert_eq!(judged(name, Some((*check, Outcome::NotProved))).0, Outcome::NotProved);
                assert_eq!(judged("none", Some((*check, Outcome::Failed))).0, Outcome::Proved);
            }
        }
    }

    #[test]
    fn what_is_proved_on_another_release_is_to_be_configured_anew() {
        for name in WAYS.map(Fence::as_str) {
            assert_eq!(judged(&format!("{name}@7.21.2"), None).0, Outcome::Proved);
            for configured in [name.to_owned(), format!("{name}@7.21")] {
                let (outcome, evidence) = judged(&configured, None);
                let told = evidence.contains(&format!("{name}@7.21.2"));
                assert!(outcome == Outcome::Warning && told, "{evidence}");
            }
        }
        assert_eq!(judge(&Report::new(), None).0, Outcome::NotAvailable);
    }
}
