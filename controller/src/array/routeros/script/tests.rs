//! What a line is made of, whatever the names in it are.

use std::collections::BTreeSet;

use proptest::prelude::*;
use rds_csi_api::{HostNqn, NodeName};

use super::*;
use crate::array::KubeName;

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

fn hosts(count: usize) -> Export {
    Export::to_hosts((0..count).map(|n| HostNqn::of(&format!("worker-{n}").parse::<NodeName>().unwrap())))
}

fn lines(id: &str, cluster: &str, label: &Label, export: &Export) -> [String; 6] {
    let (id, cluster): (VolumeId, ClusterId) = (id.parse().unwrap(), cluster.parse().unwrap());
    let (pool, nqn) = ("storage-pool".parse().unwrap(), Nqn::of_volume(&id));
    let place = Place { pool: &pool, cluster: &cluster, id: &id, nqn: &nqn };
    [
        SHOW.into(),
        place.create(Bytes::gib(1), 4420, export, label),
        place.admit(export),
        place.dismiss(export, export),
        place.fence(export, export),
        place.delete(),
    ]
    .map(|statements| place.call("operation", statements).line())
}

#[test]
fn every_line_is_one_line_of_less_than_two_kilobytes() {
    let longest = "x".repeat(63);
    let name = |length| Some(KubeName::parse("name", &"y".repeat(length)).unwrap());
    let label = Label { pv: name(253), namespace: name(63), pvc: name(253) };
    let [show, create, ..] = lines(&longest, &longest, &label, &hosts(2));
    let [_, _, changes @ ..] = lines(&longest, &longest, &label, &hosts(4));
    for line in [show, create].into_iter().chain(changes) {
        assert!(line.len() < 2048 && !line.contains(['\n', '\r']), "{} bytes: {line}", line.len());
    }
}

#[test]
fn a_create_line_reads_as_it_should() {
    let [_, create, ..] = lines("pvc-a", "blue", &Label::default(), &Export::Off);
    assert!(create.contains(
        "/disk add type=file file-path=\"/storage-pool/pvc-a/disk.img\" file-size=1073741824 slot=$volume \
         mount-filesystem=no nvme-tcp-server-port=4420 nvme-tcp-server-nqn=\"nqn.2000-02.com.mikrotik:pvc-a\" \
         nvme-tcp-server-allow-host-name=\"\" nvme-tcp-export=no comment=\"rds-csi:blue\""
    ));
}

#[test]
fn no_host_at_all_never_means_every_host() {
    let nobody = Export::Hosts(BTreeSet::new());
    for line in &lines("pvc-a", "blue", &Label::default(), &nobody)[1..5] {
        assert!(!line.contains("set $ours nvme-tcp-export=yes"), "{line}");
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
        cluster in "[A-Za-z0-9][A-Za-z0-9_-]{0,62}",
        pv in proptest::option::of("[a-z0-9.-]{1,253}"),
        holders in 1_usize..3,
    ) {
        let label = Label { pv: pv.map(|name| KubeName::parse("pv", &name).unwrap()), ..Label::default() };
        let plain = lines("pvc-a", "blue", &Label::default(), &hosts(1)).map(|line| structure(&line));
        let strange = lines(&id, &cluster, &label, &hosts(holders)).map(|line| structure(&line));
        prop_assert_eq!(plain, strange);
    }

    #[test]
    fn whatever_is_no_name_gets_nowhere(text in "\\PC*[\"$\\[\\];{}\\\\ ?]\\PC*") {
        prop_assert!(text.parse::<VolumeId>().is_err());
        prop_assert!(text.parse::<ClusterId>().is_err());
        prop_assert!(text.parse::<Pool>().is_err());
    }
}
