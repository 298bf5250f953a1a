//! What a line is made of, whatever the names in it are.

use std::collections::BTreeSet;

use proptest::prelude::*;
use rds_csi_api::{HostNqn, NodeName};

use super::specimens::calls;
use super::*;
use crate::array::{KubeName, Label};

/// A line without its strings' contents: what RouterOS would run. Panics where a string does not end.
fn structure(line: &str) -> String {
    let mut structure = String::new();
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        structure.push(c);
        if c == '"' {
            loop {
                match characters.next().expect("a string ends") {
                    '"' => break,
                    '\\' => {
                        characters.next();
                    }
                    '$' => panic!("a variable within a string: {line}"),
                    c => assert!((' '..='~').contains(&c), "{c:?} in {line}"),
                }
            }
            structure.push('"');
        }
    }
    structure
}

fn pool() -> Pool {
    "storage-pool".parse().unwrap()
}

fn hosts(count: usize) -> Export {
    Export::to_hosts((0..count).map(|n| HostNqn::of(&format!("worker-{n}").parse::<NodeName>().unwrap())))
}

/// The names that this driver gives, in a pool and a cluster and for a claim with ordinary ones.
fn ordinary() -> Vec<Call> {
    let name = |text| Some(KubeName::parse("name", text).unwrap());
    let label = Label {
        pv: name("pvc-123e4567-e89b-12d3-a456-426614174000"),
        namespace: name("shop"),
        pvc: name("data-postgres-0"),
    };
    let id = "pvc-ci7ekz7itmjnhjcwijtbif2aaa".parse().unwrap();
    calls(&id, &pool(), &"production".parse().unwrap(), &label, &hosts(1))
}

#[test]
fn every_call_alone_is_one_line_that_the_array_takes() {
    let (pool, cluster) = ("x".repeat(32).parse().unwrap(), "x".repeat(36).parse().unwrap());
    let name = |length| Some(KubeName::parse("name", &"y".repeat(length)).unwrap());
    let label = Label { pv: name(253), namespace: name(63), pvc: name(253) };
    let id = format!("pvc-{}", "7".repeat(26)).parse().unwrap();
    let of_go: VolumeId = "pvc-123e4567-e89b-12d3-a456-426614174000".parse().unwrap();
    for id in [id, VolumeId::clone(&of_go)] {
        // Nothing is made any more under the name of one of the Go driver's.
        let is_made = |call: &Call| matches!(call.name, "create" | "restore" | "clone" | "undo");
        for call in calls(&id, &pool, &cluster, &label, &hosts(2)) {
            if id == of_go && is_made(&call) {
                continue;
            }
            let line = call.line();
            assert!(line.len() <= 2048 && line.is_ascii(), "{}: {} bytes: {line}", call.name, line.len());
            assert!(!line.contains(['\n', '\r', '\t']), "{line}");
        }
    }
}

#[test]
fn an_ordinary_call_leaves_room_for_others() {
    for call in ordinary() {
        let line = call.line();
        assert!(line.len() <= 1950, "{}: {} bytes: {line}", call.name, line.len());
        assert!(
            call.arguments.len() <= 430,
            "{}: {} bytes: {}",
            call.name,
            call.arguments.len(),
            call.arguments
        );
    }
}

#[test]
fn bodies_name_the_export_as_everybody_does() {
    let id: VolumeId = "pvc-a".parse().unwrap();
    let nqn = fragments::nqn!().trim_matches('"').replace("$volume", id.slot());
    assert_eq!(nqn, rds_csi_api::Nqn::of_volume(&id).as_str());
}

#[test]
fn a_create_is_called_as_it_should_be() {
    let create = &ordinary()[1];
    assert_eq!(&*create.body, bodies::CREATE);
    assert_eq!(
        create.arguments,
        "volume=\"pvc-ci7ekz7itmjnhjcwijtbif2aaa\" pool=\"storage-pool\" \
             tcp=65535 hosts=\"\" switch=\"yes\" \
             facts=\"rds-csi:production params=c66e7f43\" label=\" pv=pvc-123e4567-e89b-12d3-a456-426614174000 \
             pvc=shop/data-postgres-0 reconnect=86400,86400,86400,86400\" bytes=9223372036854775807"
    );
}

#[test]
fn no_host_at_all_never_means_every_host() {
    let (id, nobody) = ("pvc-a".parse().unwrap(), Export::Hosts(BTreeSet::new()));
    for call in calls(&id, &pool(), &"blue".parse().unwrap(), &Label::default(), &nobody) {
        let line = call.line();
        assert!(!line.contains("nvme-tcp-export=yes}") && !line.contains("switch=\"yes\""), "{line}");
    }
}

/// Lines of two programs may run at the same time, and each may be cut off anywhere. An export that is switched on by one
/// command, with a list that another one empties, would be open to everybody.
#[test]
fn who_may_connect_is_said_by_whatever_opens_the_export_and_by_nothing_that_leaves_it_open() {
    let mut opening = 0;
    for call in ordinary() {
        for command in
            call.body.split(['{', '}', ';']).filter(|text| text.contains("/disk ") && !text.contains("find"))
        {
            let names_hosts = command.contains("nvme-tcp-server-allow-host-name=$hosts");
            let switches_on =
                command.contains("nvme-tcp-export=yes") || command.contains("nvme-tcp-export=$switch");
            let switches = switches_on || command.contains("nvme-tcp-export=no");
            assert!(names_hosts || !switches_on, "{}: {command}", call.name);
            assert!(switches || !names_hosts, "{}: {command}", call.name);
            opening += usize::from(switches_on);
        }
    }
    assert!(opening > 4, "{opening}");
}

/// Names in regular expressions that are put together in a body mean themselves.
#[test]
fn pools_and_clusters_hold_nothing_that_an_expression_takes_for_more() {
    let anything = (0..=127_u8).map(char::from).filter(|c| format!("a{c}").parse::<Pool>().is_ok());
    for c in anything {
        assert_eq!(literally(&c.to_string()), c.to_string());
        assert!(format!("a{c}").parse::<ClusterId>().is_ok());
    }
}

#[test]
fn a_regular_expression_matches_its_text_only() {
    assert_eq!(literally("a.b-c_1/:+(^$"), r"a\.b-c_1/:\+\(\^\$");
}

proptest! {
    #[test]
    fn no_text_can_leave_its_quotes(text in any::<String>()) {
        let quoted = quote(&*text).to_string();
        prop_assert_eq!(structure(&quoted), "\"\"");
    }

    #[test]
    fn no_name_can_add_a_command(
        id in "[A-Za-z0-9]([._-]?[A-Za-z0-9]){0,30}",
        pool in "[A-Za-z0-9][A-Za-z0-9_-]{0,31}",
        cluster in "[A-Za-z0-9][A-Za-z0-9_-]{0,35}",
        pv in proptest::option::of("[a-z0-9.-]{1,253}"),
        holders in 1_usize..3,
    ) {
        let label = Label { pv: pv.map(|name| KubeName::parse("pv", &name).unwrap()), ..Label::default() };
        let plain = calls(
            &"pvc-a".parse().unwrap(), &self::pool(), &"blue".parse().unwrap(), &Label::default(), &hosts(1)
        );
        let strange = calls(
            &id.parse().unwrap(), &pool.parse().unwrap(), &cluster.parse().unwrap(), &label, &hosts(holders)
        );
        for (plain, strange) in plain.iter().zip(&strange) {
            prop_assert_eq!(&plain.body, &strange.body);
            prop_assert_eq!(structure(&plain.arguments), structure(&strange.arguments));
        }
    }

    #[test]
    fn whatever_is_no_name_gets_nowhere(text in "\\PC*[\"$\\[\\];{}\\\\ ?]\\PC*") {
        prop_assert!(text.parse::<VolumeId>().is_err());
        prop_assert!(text.parse::<SnapshotId>().is_err());
        prop_assert!(text.parse::<ClusterId>().is_err());
        prop_assert!(text.parse::<Pool>().is_err());
    }
}

/// The commands in a text, as `/disk add`.
fn commands(text: &str) -> BTreeSet<String> {
    const VERBS: [&str; 6] = ["add", "set", "remove", "find", "get", "print"];
    let starts =
        text.match_indices('/').filter(|(at, _)| !text[..*at].ends_with(|c: char| c.is_alphanumeric()));
    starts
        .filter_map(|(at, _)| {
            let word = |text: &str| -> String { text.chars().take_while(char::is_ascii_lowercase).collect() };
            let menu: String =
                text[at..].chars().take_while(|c| c.is_ascii_lowercase() || matches!(c, '/' | '-')).collect();
            let verb = word(text[at + menu.len()..].strip_prefix(' ')?);
            VERBS.contains(&verb.as_str()).then(|| format!("{menu} {verb}"))
        })
        .collect()
}

#[test]
fn the_document_for_operators_tells_every_command() {
    let document = include_str!("../../../../../docs/array.md");
    let (_, table) = document.split_once("| Operation |").unwrap();
    let (table, _) = table.split_once("\n## ").unwrap();
    let sent: BTreeSet<_> = ordinary()
        .iter()
        .flat_map(|call| commands(&call.body))
        .chain(["/system/resource get".into()])
        .collect();
    assert_eq!(commands(table), sent);
}
