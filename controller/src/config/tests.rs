use std::fs;

use super::*;
use crate::cluster::Access;
use crate::orphans::Removal;

fn config(extra: &[&str]) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    let file = file.to_str().unwrap();
    let given = [
        ("--csi-socket", "/run/csi.sock"),
        ("--array-address", "array"),
        ("--array-user", "csi"),
        ("--array-key", file),
        ("--array-known-hosts", file),
        ("--nvme-address", "10.0.0.1"),
        ("--fence", "acl@7.21"),
        ("--cluster-id", "blue"),
        ("--managed-nqn-prefix", "nqn.2000-02.com.mikrotik:pvc-"),
    ];
    let extra: Vec<_> = extra.iter().map(|text| if *text == "FILE" { file } else { text }).collect();
    // A later flag replaces an earlier one in this test only.
    let given = given.iter().filter(|(flag, _)| !extra.contains(flag));
    let mut line = vec!["rds-csi-controller"];
    line.extend(given.flat_map(|(flag, value)| [flag, value]));
    line.extend(extra);
    let args = Args::try_parse_from(line).map_err(|error| error.to_string())?;
    Config::try_from(args).map_err(|error| error.to_string())
}

#[test]
fn what_is_not_given_is_as_the_documents_say() {
    let config = config(&[]).unwrap();
    let array = &config.arrays.standard;
    assert_eq!((array.ssh.destination.port, array.ssh.sessions.get()), (22, 4));
    assert_eq!((array.pool.as_str(), array.portal.to_string()), ("storage-pool", "10.0.0.1:4420".into()));
    assert_eq!((array.title.as_str(), config.arrays.others.len()), ("default", 0));
    assert!(matches!(config.agents, NodeAgents::None));
}

#[test]
fn agents_need_credentials() {
    let error = config(&["--node-agent", "w1=10.0.0.2:9810", "--agent-ca", "FILE"]).err().unwrap();
    assert!(error.contains("--agent-cert is missing"), "{error}");
    let twice = ["--node-agent", "w1=10.0.0.2:9810,w1=10.0.0.3:9810"];
    assert!(config(&twice).err().unwrap().contains("names node w1 twice"));
    let agent = ["--node-agent", "w1=10.0.0.2:9810", "--node-agent", "w2=10.0.0.3:9810"];
    let files = ["--agent-ca", "FILE", "--agent-cert", "FILE", "--agent-key", "FILE"];
    let config = config(&[&agent[..], &files[..]].concat()).unwrap();
    assert!(matches!(config.agents, NodeAgents::At(agents, _) if agents.len() == 2));
}

#[test]
fn a_bad_value_is_named() {
    for (flag, value, told) in [
        ("--array-sessions", "0", "--array-sessions"),
        ("--array-sessions", "1001", "give 1 to 1000, fewer than the array's max-sessions"),
        ("--node-agent", "w1", "NAME=HOST:PORT"),
        ("--pool", "/pool", "without slashes"),
        ("--log-format", "xml", "text or json"),
        ("--agent-ca", "", "--agent-ca"),
        ("--managed-nqn-prefix", "", "managed NQN prefix"),
        ("--managed-nqn-prefix", "nqn.2000-02.com.mikrotik:", "would cover the system's own volumes"),
    ] {
        let error = config(&[flag, value]).err().unwrap_or_else(|| panic!("{flag} {value} is taken"));
        assert!(error.contains(told), "{error}");
    }
}

#[test]
fn one_array_by_flags_and_others_by_a_file_is_told_which_to_use() {
    let error = config(&["--config", "/etc/rds-csi/arrays.yaml"]).err().unwrap();
    assert!(
        error.contains("--array-address and --config /etc/rds-csi/arrays.yaml both name an array"),
        "{error}"
    );
    assert!(error.contains("move this one into it, or leave --config away"), "{error}");
    let neither =
        Args::try_parse_from(["rds-csi-controller", "--cluster-id", "blue"]).unwrap_err().to_string();
    assert!(neither.contains("--array-address") && neither.contains("--fence"), "{neither}");
}

#[test]
fn orphans_are_removed_only_where_somebody_knows_what_is_claimed() {
    let off = config(&[]).unwrap().orphans;
    assert!(matches!(off, Orphans::Off(why) if why.contains("--kubernetes")), "{off:?}");
    let reported = config(&["--kubernetes", "in-cluster"]).unwrap();
    let kubernetes = reported.kubernetes.unwrap();
    let Orphans::Reported { interval, removal } = reported.orphans else { panic!("{:?}", reported.orphans) };
    assert_eq!((interval.as_secs(), removal), (3600, Removal::Off));
    assert_eq!((kubernetes.access, kubernetes.pod, kubernetes.agents), (Access::InCluster, None, None));
    for (flags, told) in [
        (&["--remove-orphans-after", "7d"][..], "only if --kubernetes says whom to ask"),
        (
            &["--remove-orphans-after", "7d", "--kubernetes", "FILE", "--orphan-report-interval", "0"],
            "only if --orphan-report-interval is not 0",
        ),
        (&["--remove-orphans-after", "0", "--kubernetes", "FILE"], "would remove at once"),
        (&["--remove-orphans-after", "1w"], "such as 90s or 7d"),
        (&["--pod-name", "controller-0"], "--pod-namespace"),
    ] {
        let error = config(flags).err().unwrap_or_else(|| panic!("{flags:?} are taken"));
        assert!(error.contains(told), "{error}");
    }
}

#[test]
fn every_flag_is_in_the_documents() {
    use clap::CommandFactory as _;
    let documents = include_str!("../../../docs/configuration.md");
    for flag in Args::command().get_arguments().filter_map(clap::Arg::get_long) {
        assert!(documents.contains(&format!("`--{flag}")), "--{flag} is not in docs/configuration.md");
    }
}

#[test]
fn as_many_sessions_as_an_array_takes_at_all_are_taken_with_a_warning() {
    let doubts =
        |sessions: &str| config(&["--array-sessions", sessions]).unwrap().arrays.doubts().collect::<Vec<_>>();
    assert_eq!(doubts("19"), [""; 0]);
    let [doubt] = &doubts("20")[..] else { panic!("20 is nobody else's") };
    assert!(doubt.contains("array default") && doubt.contains("raise its max-sessions"), "{doubt}");
}
