//! What was found: a line for every check, for people and as JSON.

use std::fmt::Write as _;

use rds_csi_api::BackendName;
use serde::Serialize;

use super::check::Check;
use super::fence;
use crate::attachments::Fence;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Outcome {
    /// It was tried, and holds.
    Proved,
    /// It holds well enough, and should be better.
    Warning,
    /// It was tried, and does not hold.
    Failed,
    /// It could not be tried from here.
    NotProved,
    /// What it rests on did not hold.
    Skipped,
    /// It was looked for, is not there, and nothing rests on it.
    NotAvailable,
}

impl Outcome {
    const ALL: [Self; 6] =
        [Self::Proved, Self::Warning, Self::Failed, Self::NotProved, Self::Skipped, Self::NotAvailable];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Proved => "proved",
            Self::Warning => "warning",
            Self::Failed => "FAILED",
            Self::NotProved => "not proved",
            Self::Skipped => "skipped",
            Self::NotAvailable => "not there",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    outcome: Outcome,
    evidence: String,
}

/// What was found so far.
#[derive(Debug)]
pub(super) struct Report {
    lines: [Option<Line>; Check::ALL.len()],
}

/// What a report comes to, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Summary {
    /// Everything was tried, and holds.
    Good,
    /// Nothing failed, but not everything could be tried.
    Incomplete,
    /// Something failed.
    Failed,
}

impl Summary {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Incomplete => "incomplete: what is not proved may fail, so try it from where a node is",
            Self::Failed => "FAILED",
        }
    }
}

/// The report on an array, in which every check has its line.
#[derive(Debug)]
pub(super) struct Finished {
    array: BackendName,
    fences: Vec<Fence>,
    lines: Vec<(Check, Line)>,
}

impl Report {
    pub(super) fn new() -> Self {
        Self { lines: [const { None }; Check::ALL.len()] }
    }

    /// Notes how a check came out. The first word on it stands.
    pub(super) fn note(&mut self, check: Check, outcome: Outcome, evidence: impl Into<String>) {
        let line = &mut self.lines[check as usize];
        if line.is_none() {
            *line = Some(Line { outcome, evidence: evidence.into() });
        }
    }

    /// How a check came out, if that is known.
    pub(super) fn outcome(&self, check: Check) -> Option<Outcome> {
        self.lines[check as usize].as_ref().map(|line| line.outcome)
    }

    /// What is known of a check.
    pub(super) fn evidence(&self, check: Check) -> &str {
        self.lines[check as usize].as_ref().map_or("", |line| &line.evidence)
    }

    /// The same for all of them.
    pub(super) fn note_all(&mut self, checks: &[Check], outcome: Outcome, evidence: &str) {
        for check in checks {
            self.note(*check, outcome, evidence);
        }
    }

    /// Whatever has no line yet was skipped.
    pub(super) fn finish(self, array: BackendName) -> Finished {
        let fences = fence::WAYS.into_iter().filter(|way| fence::is_proved(*way, &self)).collect();
        let mut because = None;
        let lines = self.lines.into_iter().zip(Check::ALL).map(|(line, check)| match line {
            Some(line) => {
                if matches!(line.outcome, Outcome::Failed | Outcome::NotProved) {
                    because = Some(check);
                }
                line
            }
            None => Line {
                outcome: Outcome::Skipped,
                evidence: because
                    .map_or_else(|| "not reached".into(), |check| format!("not reached: see {}", check.id())),
            },
        });
        Finished { array, fences, lines: Check::ALL.into_iter().zip(lines).collect() }
    }
}

#[derive(Serialize)]
struct Json<'a> {
    result: Summary,
    arrays: Vec<JsonArray<'a>>,
}

#[derive(Serialize)]
struct JsonArray<'a> {
    array: &'a str,
    result: Summary,
    /// The ways to fence that hold there.
    fences: Vec<&'static str>,
    /// What `fence` may be configured to.
    fence: String,
    checks: Vec<JsonLine<'a>>,
}

#[derive(Serialize)]
struct JsonLine<'a> {
    id: &'static str,
    checked: &'static str,
    result: Outcome,
    evidence: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    todo: Option<&'static str>,
}

impl Finished {
    /// What it comes to. What could not be tried is no failure, and no proof.
    pub(super) fn summary(&self) -> Summary {
        if self.count(Outcome::Failed) > 0 {
            Summary::Failed
        } else if self.count(Outcome::NotProved) + self.count(Outcome::Skipped) > 0 {
            Summary::Incomplete
        } else {
            Summary::Good
        }
    }

    /// What `fence` should be configured to: the first of the ways that hold, and a proof is one for a release.
    fn fence(&self) -> String {
        let release = &self.lines[Check::Version as usize].1.evidence;
        self.fences.first().map_or_else(|| "none".into(), |way| format!("{}@{release}", way.as_str()))
    }

    fn ways(&self) -> Vec<&'static str> {
        self.fences.iter().copied().map(Fence::as_str).collect()
    }

    fn json(&self) -> JsonArray<'_> {
        let checks = self.lines.iter().map(|(check, line)| JsonLine {
            id: check.id(),
            checked: check.says(),
            result: line.outcome,
            evidence: &line.evidence,
            todo: todo(*check, line),
        });
        JsonArray {
            array: self.array.as_str(),
            result: self.summary(),
            fences: self.ways(),
            fence: self.fence(),
            checks: checks.collect(),
        }
    }

    /// As a table for people.
    pub(super) fn table(&self) -> String {
        let mut text = format!("array {}\n\n", self.array);
        for (check, line) in &self.lines {
            let (outcome, id) = (line.outcome.as_str(), check.id());
            let _ = writeln!(text, "{outcome:<10}  {id:<17}  {}", check.says());
            if !line.evidence.is_empty() {
                let _ = writeln!(text, "{:31}{}", "", one_line(&line.evidence));
            }
            if let Some(todo) = todo(*check, line) {
                let _ = writeln!(text, "{:31}to do: {todo}", "");
            }
        }
        let counts = Outcome::ALL.into_iter().map(|outcome| (self.count(outcome), outcome));
        let counts = counts.filter(|(count, _)| *count > 0);
        let counts: Vec<_> = counts.map(|(count, outcome)| format!("{count} {}", outcome.as_str())).collect();
        let fences = if self.fences.is_empty() { "none".to_owned() } else { self.ways().join(", ") };
        let (result, fence) = (self.summary().as_str(), self.fence());
        let _ = writeln!(text, "\n{}\nresult: {result}", counts.join(", "));
        let _ = writeln!(text, "fences proved: {fences}\nto configure: fence: {fence}");
        text
    }

    fn count(&self, outcome: Outcome) -> usize {
        self.lines.iter().filter(|(_, line)| line.outcome == outcome).count()
    }
}

/// What reports come to together.
pub(super) fn worst(reports: &[Finished]) -> Summary {
    reports.iter().map(Finished::summary).max().unwrap_or(Summary::Good)
}

/// Reports as one JSON object.
pub(super) fn json(reports: &[Finished]) -> String {
    let json = Json { result: worst(reports), arrays: reports.iter().map(Finished::json).collect() };
    serde_json::to_string_pretty(&json).expect("texts are JSON")
}

fn todo(check: Check, line: &Line) -> Option<&'static str> {
    match line.outcome {
        Outcome::Warning | Outcome::Failed | Outcome::NotProved => Some(check.mend()),
        Outcome::Proved | Outcome::Skipped | Outcome::NotAvailable => None,
    }
}

/// What the array said may have lines of its own.
fn one_line(text: &str) -> String {
    text.split(['\r', '\n']).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(report: Report) -> Finished {
        report.finish("rack-1".parse().unwrap())
    }

    #[test]
    fn what_was_not_reached_names_what_it_waits_for() {
        let mut report = Report::new();
        report.note(Check::Address, Outcome::Proved, "it does");
        report.note(Check::HostKey, Outcome::Failed, "another\nkey");
        report.note(Check::HostKey, Outcome::Proved, "a second word does not count");
        let report = finished(report);
        assert!(report.summary() == Summary::Failed && report.fences.is_empty());
        let table = report.table();
        assert!(table.contains("FAILED      host-key") && table.contains("another | key"), "{table}");
        assert!(
            table.contains("skipped     login") && table.contains("not reached: see host-key"),
            "{table}"
        );
        assert!(table.ends_with("fences proved: none\nto configure: fence: none\n"), "{table}");
        let json: serde_json::Value = serde_json::from_str(&json(&[report])).unwrap();
        let json = &json["arrays"][0];
        assert_eq!((&json["array"], &json["fence"]), (&"rack-1".into(), &"none".into()));
        assert_eq!((&json["result"], &json["checks"][1]["result"]), (&"failed".into(), &"failed".into()));
        assert_eq!(json["checks"][1]["todo"], Check::HostKey.mend());
        assert_eq!(json["checks"].as_array().map(Vec::len), Some(Check::ALL.len()));
    }

    #[test]
    fn a_fence_is_proved_by_all_that_it_rests_on() {
        let all = fence::rests_on(Fence::Acl);
        for missing in [None].into_iter().chain(all.iter().map(Some)) {
            let mut report = Report::new();
            if let Some(check) = missing {
                report.note(*check, Outcome::NotProved, "");
            }
            report.note_all(all, Outcome::Proved, "");
            let report = finished(report);
            let expected: &[Fence] = if missing.is_none() { &[Fence::Acl] } else { &[] };
            assert_eq!(report.fences, expected);
            assert_ne!(report.summary(), Summary::Failed, "what is not proved has not failed");
        }
    }

    #[test]
    fn only_a_report_that_proves_everything_is_good() {
        let cases = [
            (None, Summary::Good),
            (Some(Outcome::Warning), Summary::Good),
            (Some(Outcome::NotAvailable), Summary::Good),
            (Some(Outcome::NotProved), Summary::Incomplete),
            (Some(Outcome::Skipped), Summary::Incomplete),
            (Some(Outcome::Failed), Summary::Failed),
        ];
        for (outcome, expected) in cases {
            let mut report = Report::new();
            if let Some(outcome) = outcome {
                report.note(Check::NvmeConnect, outcome, "");
            }
            report.note_all(&Check::ALL, Outcome::Proved, "");
            assert_eq!(finished(report).summary(), expected, "{outcome:?}");
        }
    }
}
