//! docs/privileges.md says what the code does, no more and no less.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rds_csi_node_agent::privilege::{KEPT, filter, names};

const DOCUMENT: &str = include_str!("../../docs/privileges.md");

/// The rows of the table below that heading, without its head.
fn table(heading: &str) -> Vec<Vec<&'static str>> {
    let (_, section) = DOCUMENT.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with('|'));
    rows.skip(2).map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// The words in backticks.
fn code(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

fn kept() -> BTreeSet<String> {
    names(KEPT).split(", ").map(ToOwned::to_owned).collect()
}

/// File and function of each row of privileged acts.
fn places() -> BTreeSet<(&'static str, &'static str)> {
    let places =
        table("Privileged acts").into_iter().map(|row| code(row[1])).map(|place| (place[0], place[1]));
    places.collect()
}

fn host(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/host").join(file)
}

/// The lines of a file that are not its tests.
fn program(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    text.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned()
}

#[test]
fn the_capabilities_of_the_document_are_those_that_are_kept_and_each_is_used() {
    let listed: BTreeSet<_> = table("Capabilities").iter().map(|row| code(row[0])[0].to_owned()).collect();
    assert_eq!(listed, kept());
    let used: BTreeSet<_> =
        table("Privileged acts").iter().flat_map(|row| code(row[2])).map(ToOwned::to_owned).collect();
    assert_eq!(used, kept());
}

#[test]
fn the_denied_system_calls_of_the_document_are_those_of_the_filter() {
    let listed: Vec<_> = table("System calls").iter().flat_map(|row| code(row[1])).collect();
    let denied: Vec<_> = filter::DENIED.iter().map(|(name, _)| name.strip_prefix("SYS_").unwrap()).collect();
    assert_eq!(listed, denied);
}

#[test]
fn every_place_of_the_document_is_in_the_code() {
    for (file, function) in places() {
        let text = program(&host(file));
        assert!(text.contains(&format!("fn {function}")), "{file} has no function {function}");
    }
}

/// What needs a privilege, or root's own files, as it is written in the code.
const ACTS: [&str; 15] = [
    "rustix::mount::mount(",
    "rustix::mount::mount_bind",
    "rustix::mount::mount_remount",
    "rustix::mount::unmount",
    " mknodat(",
    " mkdirat(",
    " unlinkat(",
    "OpenOptions::new()",
    "write_all(",
    "OFlags::EXCL",
    "OFlags::DIRECT;",
    "socket_with(",
    "exec::run(",
    "kill_process_group(",
    "join(\"ns/mnt\")",
];

#[test]
fn every_privileged_act_in_the_code_is_in_the_document() {
    let places = places();
    let mut seen = BTreeSet::new();
    for entry in std::fs::read_dir(host("")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if !path.is_file() || name == "fake.rs" {
            continue;
        }
        let mut function = String::new();
        for line in program(&path).lines().map(str::trim_start).filter(|line| !line.starts_with("//")) {
            if let Some((before, after)) = line.split_once("fn ")
                && before.split(' ').all(|word| matches!(word, "" | "pub" | "pub(super)" | "const"))
            {
                function = after.split(['(', '<']).next().unwrap().into();
            }
            let acts = ACTS.iter().filter(|act| format!(" {line}").contains(**act));
            for act in acts.filter(|_| !line.starts_with("use ")) {
                let named = places.iter().any(|(file, place)| *file == name && *place == function);
                assert!(named, "{name}: {function} is not in docs/privileges.md: {line}");
                seen.insert(*act);
            }
        }
    }
    assert_eq!(seen, ACTS.into(), "an act that is not found is written otherwise now");
}

#[test]
fn programs_are_started_and_privileges_used_in_one_room_only() {
    let mut folders = vec![host("").parent().unwrap().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.extend((!path.ends_with("host")).then_some(path));
                continue;
            }
            for line in program(&path).lines().filter(|line| !line.trim_start().starts_with("//")) {
                for forbidden in ["Command::new", "rustix::mount", "mknodat", "/dev/nvme-fabrics", "/sys/"] {
                    assert!(!line.contains(forbidden), "{} has {forbidden}", path.display());
                }
            }
        }
    }
}
