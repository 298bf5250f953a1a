//! What csi-sanity's report (Ginkgo's JSON) says, and whether that is good enough.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

/// Specs that may be skipped.
#[derive(Debug)]
pub(super) struct Allowance {
    /// How their names begin.
    pub(super) specs: &'static [&'static str],
    /// Why they say nothing about this driver.
    pub(super) why: &'static str,
}

/// How much of the suite was to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Every spec.
    All,
    /// Those that were chosen.
    Some,
}

/// The report of one run.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Report {
    run_time: u64,
    suite_config: Configuration,
    #[serde(default, deserialize_with = "absent_is_empty")]
    special_suite_failure_reasons: Vec<String>,
    #[serde(deserialize_with = "absent_is_empty")]
    spec_reports: Vec<Spec>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Configuration {
    random_seed: i64,
}

/// One node of the suite: a spec, or what runs around all of them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Spec {
    #[serde(deserialize_with = "absent_is_empty")]
    container_hierarchy_texts: Vec<String>,
    leaf_node_type: String,
    leaf_node_text: String,
    state: State,
    #[serde(default)]
    failure: Failure,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Passed,
    Skipped,
    /// Switched off by its authors.
    Pending,
    Failed,
    Aborted,
    Panicked,
    Interrupted,
    Timedout,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Failure {
    message: String,
}

/// What a state means to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Passed,
    Failed,
    Skipped,
    /// Not chosen by the one who started it.
    LeftOut,
    /// Switched off by the suite's authors.
    Pending,
}

impl Allowance {
    fn covers(&self, name: &str) -> bool {
        self.specs.iter().any(|specs| name.starts_with(specs))
    }
}

impl Report {
    /// Reads what Ginkgo wrote: an array with one report for each suite, of which there is one.
    pub(super) fn parse(text: &[u8]) -> Result<Self> {
        let reports: Vec<Self> = serde_json::from_slice(text).context("csi-sanity's report")?;
        let [report] = <[Self; 1]>::try_from(reports).ok().context("csi-sanity reports not one suite")?;
        Ok(report)
    }

    /// An error that says what did not pass, unless all did, or may be skipped.
    pub(super) fn verdict(&self, allowed: &[Allowance], part: Part) -> Result<()> {
        let mut wrong: Vec<_> = self.special_suite_failure_reasons.clone();
        for spec in &self.spec_reports {
            let name = spec.name();
            match spec.outcome() {
                Outcome::Passed | Outcome::Pending => {}
                Outcome::Failed => wrong.push(format!("failed: {name}")),
                Outcome::Skipped if allowed.iter().any(|allowance| allowance.covers(&name)) => {}
                Outcome::Skipped => {
                    wrong.push(format!(
                        "skipped: {name} ({}): it is not among those that may be",
                        spec.failure.message
                    ));
                }
                Outcome::LeftOut if part == Part::Some => {}
                Outcome::LeftOut => wrong.push(format!("not run: {name}")),
            }
        }
        if self.count(Outcome::Passed) == 0 {
            wrong.push("no spec has passed".into());
        }
        for specs in allowed.iter().flat_map(|allowance| allowance.specs) {
            let mut theirs = self.specs().filter(|spec| spec.name().starts_with(specs));
            let holds = theirs.any(|spec| matches!(spec.outcome(), Outcome::Skipped | Outcome::LeftOut));
            if !holds {
                wrong.push(format!("'{specs}' may be skipped, but is not: take it off the list"));
            }
        }
        if wrong.is_empty() {
            return Ok(());
        }
        bail!("csi-sanity, with --seed {}:\n  {}", self.suite_config.random_seed, wrong.join("\n  "));
    }

    /// What a person wants to know of it: each part of the suite with its counts, and what may be skipped and why. Failures
    /// were told in full when they happened.
    pub(super) fn told(&self, allowed: &[Allowance]) -> String {
        let mut parts = BTreeMap::<&str, BTreeMap<Outcome, usize>>::new();
        for spec in self.specs() {
            *parts.entry(spec.part()).or_default().entry(spec.outcome()).or_default() += 1;
        }
        let counts = |outcomes: &BTreeMap<Outcome, usize>| {
            outcomes
                .iter()
                .map(|(outcome, count)| format!("{count} {outcome}"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        parts.retain(|_, outcomes| {
            outcomes.keys().any(|outcome| *outcome != Outcome::LeftOut && *outcome != Outcome::Pending)
        });
        let mut lines: Vec<_> =
            parts.iter().map(|(part, outcomes)| format!("   {part:<32}{}", counts(outcomes))).collect();
        for allowance in allowed {
            let theirs = |spec: &&Spec| spec.outcome() == Outcome::Skipped && allowance.covers(&spec.name());
            let count = self.specs().filter(theirs).count();
            if count > 0 {
                lines.push(format!("   {count} skipped: {}", allowance.why));
            }
        }
        let mut all = BTreeMap::new();
        for spec in self.specs() {
            *all.entry(spec.outcome()).or_default() += 1;
        }
        let took = Duration::from_nanos(self.run_time).as_secs_f32();
        lines.push(format!("   {} in {took:.0} s", counts(&all)));
        lines.join("\n")
    }

    fn specs(&self) -> impl Iterator<Item = &Spec> {
        self.spec_reports.iter().filter(|spec| spec.leaf_node_type == "It")
    }

    fn count(&self, outcome: Outcome) -> usize {
        self.specs().filter(|spec| spec.outcome() == outcome).count()
    }
}

impl Spec {
    fn name(&self) -> String {
        let deeper = self.container_hierarchy_texts.iter().skip(1).map(String::as_str);
        let texts = [self.part()].into_iter().chain(deeper).chain([&*self.leaf_node_text]);
        let texts: Vec<_> = texts.filter(|text| !text.is_empty()).collect();
        // What runs around the specs has no words of its own.
        if texts.is_empty() { self.leaf_node_type.clone() } else { texts.join(": ") }
    }

    /// The part of the suite that it belongs to, without the suite's own labels.
    fn part(&self) -> &str {
        let container = self.container_hierarchy_texts.first().map_or("", String::as_str);
        container.split_once(" [").map_or(container, |(part, _)| part)
    }

    fn outcome(&self) -> Outcome {
        match self.state {
            State::Passed => Outcome::Passed,
            State::Pending => Outcome::Pending,
            // Who skips itself says why; who was not chosen has nothing to say.
            State::Skipped if self.failure.message.is_empty() => Outcome::LeftOut,
            State::Skipped => Outcome::Skipped,
            State::Failed | State::Aborted | State::Panicked | State::Interrupted | State::Timedout => {
                Outcome::Failed
            }
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::LeftOut => "left out",
            Self::Pending => "switched off by its authors",
        })
    }
}

/// Ginkgo writes an empty list as null.
fn absent_is_empty<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ALLOWED: &[Allowance] =
        &[Allowance { specs: &["GroupController Service"], why: "there are no group snapshots" }];

    /// As Ginkgo writes it, without what is not read.
    fn spec(part: &str, text: &str, state: &str, message: &str) -> Value {
        let failure = if message.is_empty() { json!(null) } else { json!({ "Message": message }) };
        let mut spec = json!({
            "ContainerHierarchyTexts": [part],
            "LeafNodeType": "It",
            "LeafNodeText": text,
            "State": state,
            "NumAttempts": 1,
        });
        if !failure.is_null() {
            spec["Failure"] = failure;
        }
        spec
    }

    fn passed() -> Value {
        spec("Controller Service [Controller Server]", "should work", "passed", "")
    }

    fn skipped_group() -> Value {
        spec("GroupController Service [GroupController Server]", "should work", "skipped", "not supported")
    }

    fn report(specs: &Value) -> Report {
        let text = json!([{
            "RunTime": 71_600_000_000_u64,
            "SuiteConfig": { "RandomSeed": 7 },
            "SpecialSuiteFailureReasons": null,
            "SpecReports": specs,
        }]);
        Report::parse(text.to_string().as_bytes()).unwrap()
    }

    fn complaint(specs: &Value) -> String {
        report(specs).verdict(ALLOWED, Part::All).unwrap_err().to_string()
    }

    #[test]
    fn all_is_well_if_all_passed_but_what_may_be_skipped() {
        let pending = spec("Controller Service [Controller Server]", "is fragile", "pending", "");
        let report = report(&json!([passed(), skipped_group(), pending]));
        report.verdict(ALLOWED, Part::All).unwrap();
        let told = [
            "   Controller Service              1 passed, 1 switched off by its authors",
            "   GroupController Service         1 skipped",
            "   1 skipped: there are no group snapshots",
            "   1 passed, 1 skipped, 1 switched off by its authors in 72 s",
        ];
        assert_eq!(report.told(ALLOWED).lines().collect::<Vec<_>>(), told);
    }

    #[test]
    fn every_way_of_not_passing_is_told_by_the_specs_name_and_with_the_seed() {
        for state in ["failed", "aborted", "panicked", "interrupted", "timedout"] {
            let told = complaint(&json!([
                passed(),
                skipped_group(),
                spec("Node Service", "should stage", state, "Expected an error")
            ]));
            assert!(
                told.contains("failed: Node Service: should stage") && told.contains("--seed 7"),
                "{told}"
            );
        }
    }

    #[test]
    fn a_skip_that_is_not_on_the_list_is_told_with_its_reason() {
        let stats = spec("Node Service", "should count bytes", "skipped", "NodeGetVolume not supported");
        let told = complaint(&json!([passed(), skipped_group(), stats]));
        assert!(
            told.contains("skipped: Node Service: should count bytes (NodeGetVolume not supported)"),
            "{told}"
        );
    }

    #[test]
    fn what_is_not_skipped_any_more_comes_off_the_list() {
        let now_passes = spec("GroupController Service", "should work", "passed", "");
        for specs in [json!([passed()]), json!([passed(), now_passes])] {
            assert!(complaint(&specs).contains("take it off the list"));
        }
    }

    #[test]
    fn specs_are_left_out_only_by_who_asked_for_a_part() {
        let left_out = spec("Node Service", "should stage", "skipped", "");
        let specs = json!([passed(), skipped_group(), left_out]);
        report(&specs).verdict(ALLOWED, Part::Some).unwrap();
        assert!(complaint(&specs).contains("not run: Node Service: should stage"));
    }

    #[test]
    fn a_suite_that_ran_nothing_has_shown_nothing() {
        for specs in [json!(null), json!([]), json!([skipped_group()])] {
            assert!(complaint(&specs).contains("no spec has passed"));
        }
    }

    #[test]
    fn a_report_of_no_suite_or_two_is_an_error() {
        assert!(Report::parse(b"[]").is_err() && Report::parse(b"{}").is_err());
    }
}
