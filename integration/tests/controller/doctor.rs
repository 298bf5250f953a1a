//! The doctor, as an operator runs it: the real program, against a simulated array that exports nothing for real.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rds_csi_integration::programs;
use rds_csi_integration::rig::{MANAGED_NQN_PREFIX, USER};
use rds_csi_integration::simulator::{Effect, Fault, Options, Simulator, Version, keys};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::world::{self, Site, assert_bare};

/// What needs a target that takes connections.
const OVER_NVME: [&str; 17] = [
    "nvme-connect",
    "nvme-data",
    "write-counters",
    "acl-admits",
    "acl-refuses",
    "grow-seen",
    "host-list",
    "acl-live",
    "acl-cuts",
    "acl-fenced",
    "acl-survivor",
    "epoch-cuts",
    "epoch-old",
    "epoch-new",
    "off-cuts",
    "off-refuses",
    "snapshot-data",
];

/// Where no route leads: TCP knows no connection with everybody.
const NO_ROUTE: &str = "255.255.255.255";

fn command(site: &Site, extra: &[&str]) -> Command {
    command_to(NO_ROUTE, site, extra)
}

/// With another address for NVMe.
fn command_to(nvme: &str, site: &Site, extra: &[&str]) -> Command {
    let mut command = Command::new(programs::path("rds-csi-controller").unwrap());
    let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    command
        .args(["doctor", "--array-address", "127.0.0.1", "--array-user", USER])
        .args(["--array-port", &site.address.port().to_string()])
        .args(["--array-key", &path(&site.key), "--array-known-hosts", &path(&site.known_hosts)])
        .args(["--nvme-address", nvme, "--nvme-port", &site.address.port().to_string()])
        .args(["--cluster-id", "blue", "--managed-nqn-prefix", MANAGED_NQN_PREFIX])
        .args(extra)
        .env("TMPDIR", site.folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// What it reports as JSON, and its exit code.
async fn examined(site: &Site) -> (Value, i32) {
    examined_by(command(site, &["--output", "json"])).await
}

/// The report on the only array.
async fn examined_by(command: Command) -> (Value, i32) {
    let (mut report, code) = all_examined_by(command).await;
    let arrays = report["arrays"].as_array_mut().unwrap();
    assert_eq!(arrays.len(), 1);
    (arrays.remove(0), code)
}

async fn all_examined_by(mut command: Command) -> (Value, i32) {
    let output = command.output().await.unwrap();
    let report = serde_json::from_slice(&output.stdout);
    (report.unwrap_or_else(|_| panic!("no report: {output:?}")), output.status.code().unwrap())
}

/// The line of a check: how it came out, and the evidence.
fn line<'a>(report: &'a Value, id: &str) -> (&'a str, &'a str) {
    let mut lines = report["checks"].as_array().unwrap().iter();
    let line = lines.find(|line| line["id"] == id).unwrap_or_else(|| panic!("no check {id} in {report:#}"));
    (line["result"].as_str().unwrap(), line["evidence"].as_str().unwrap())
}

/// An array that knows the driver's user.
async fn array(change: impl FnOnce(&mut Options)) -> (Simulator, Site) {
    world::simulator(|options| {
        options.access.user = Some(USER.into());
        change(options);
    })
    .await
}

#[tokio::test]
async fn all_but_what_needs_a_connection_is_proved_in_every_release() {
    for version in [Version::new(7, 21), Version::new(7, 24)] {
        let (simulator, site) = array(|options| options.dialect.version = version).await;
        let (report, code) = examined(&site).await;
        for check in report["checks"].as_array().unwrap() {
            let id = check["id"].as_str().unwrap();
            let expected = match id {
                "fence" => "not-available",
                _ if OVER_NVME.contains(&id) => "not-proved",
                _ => "proved",
            };
            assert_eq!(check["result"], expected, "{check:#}");
        }
        assert_eq!((code, &report["result"]), (3, &"incomplete".into()));
        assert_eq!(report["fences"], serde_json::json!([]), "what was not tried is not proved");
        assert_bare(&simulator);
        simulator.stop().await.unwrap();
    }
}

#[tokio::test]
async fn an_export_whose_port_is_closed_has_failed_and_what_rests_on_it_was_skipped() {
    let (simulator, site) = array(|_| {}).await;
    // Nobody listens at the site's other addresses.
    let (report, code) = examined_by(command_to("127.77.0.1", &site, &["--output", "json"])).await;
    assert_eq!((code, &report["result"]), (1, &"failed".into()));
    let (result, evidence) = line(&report, "nvme-connect");
    assert!(result == "failed" && evidence.contains("takes no TCP connection"), "{evidence}");
    for id in &OVER_NVME[1..] {
        assert_eq!(line(&report, id), ("skipped", "not reached: see nvme-connect"), "{id}");
    }
    assert_eq!((line(&report, "clone").0, line(&report, "nothing-left").0), ("proved", "proved"));
    assert_bare(&simulator);
    simulator.stop().await.unwrap();
}

#[tokio::test]
async fn a_wrong_host_key_a_refused_user_and_an_absent_array_are_told_apart() {
    let (simulator, site) = array(|_| {}).await;
    let known = std::fs::read_to_string(&site.known_hosts).unwrap();

    let other =
        keys::load_or_create(&site.folder.path().join("other")).unwrap().public_key().to_openssh().unwrap();
    let place = known.split(' ').next().unwrap();
    std::fs::write(&site.known_hosts, format!("{place} {other}\n")).unwrap();
    let (report, code) = examined(&site).await;
    assert_eq!((line(&report, "host-key").0, line(&report, "login").0, code), ("failed", "skipped", 1));
    std::fs::write(&site.known_hosts, "").unwrap();
    let (report, _) = examined(&site).await;
    assert_eq!((line(&report, "address").0, line(&report, "host-key").0), ("proved", "failed"));
    std::fs::write(&site.known_hosts, &known).unwrap();

    let key = std::fs::read(&site.key).unwrap();
    std::fs::write(&site.key, std::fs::read(site.folder.path().join("other")).unwrap()).unwrap();
    let (report, code) = examined(&site).await;
    assert_eq!((line(&report, "host-key").0, line(&report, "login").0, code), ("proved", "failed", 1));
    assert!(line(&report, "login").1.contains("Permission denied"), "{report:#}");
    std::fs::write(&site.key, key).unwrap();

    assert!(simulator.commands().lines.is_empty(), "nobody got in");
    simulator.stop().await.unwrap();
    let (report, code) = examined(&site).await;
    assert_eq!((line(&report, "address").0, line(&report, "host-key").0, code), ("failed", "skipped", 1));
    assert_eq!(line(&report, "nothing-left"), ("skipped", "not reached: see address"));
}

#[tokio::test]
async fn an_old_release_is_refused_before_anything_is_made() {
    let (simulator, site) = array(|options| options.dialect.version = Version::new(7, 20)).await;
    let (report, code) = examined(&site).await;
    assert_eq!((line(&report, "version").0, line(&report, "create").0, code), ("failed", "skipped", 1));
    assert!(
        simulator.commands().lines.iter().all(|line| !line.line.contains("/disk add")),
        "nothing was made"
    );
    assert_bare(&simulator);
}

#[tokio::test]
async fn a_user_that_may_not_write_is_told_so() {
    let (simulator, site) = array(|_| {}).await;
    simulator.inject(Fault::new(Effect::ReadOnlyUser));
    let (report, code) = examined(&site).await;
    let (result, evidence) = line(&report, "create");
    assert_eq!((result, code), ("failed", 1));
    assert!(evidence.contains("not enough permissions"), "{evidence}");
    let (result, evidence) = line(&report, "firewall");
    assert!(result == "not-available" && evidence.contains("not enough permissions"), "{evidence}");
}

#[tokio::test]
async fn a_user_that_may_do_everything_is_told_from_one_that_may_do_too_much() {
    for (group, result) in
        [("full", "failed"), ("ssh,read,write,reboot", "warning"), ("ssh,read,write", "proved")]
    {
        let (_simulator, site) = array(|options| options.group = group.parse().unwrap()).await;
        let (report, code) = examined(&site).await;
        assert_eq!(
            (line(&report, "policies").0, line(&report, "least-privilege").0),
            ("proved", result),
            "{group}"
        );
        assert!(group != "full" || code == 1);
    }
}

#[tokio::test]
async fn what_cannot_run_says_why_and_exits_with_2() {
    let site = Site::vacant();
    let output = command(&site, &["--array-key", "/nowhere/key"]).output().await.unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "twice is no way to give a flag");
    std::fs::remove_file(&site.key).unwrap();
    let output = command(&site, &[]).output().await.unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && told.contains("--array-key"), "{told}");
}

#[tokio::test]
async fn the_table_is_for_people() {
    let (simulator, site) = array(|_| {}).await;
    let output = command(&site, &[]).output().await.unwrap();
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(
        table.contains("proved      snapshot           a snapshot is taken of a volume in use"),
        "{table}"
    );
    assert!(table.contains("not proved  acl-refuses"), "{table}");
    assert!(table.contains("\nresult: incomplete: "), "{table}");
    let end = "fences proved: none\nto configure: fence: none\n";
    assert!(table.starts_with("array default\n") && table.ends_with(end), "{table}");
    assert_eq!(output.status.code(), Some(3));
    simulator.stop().await.unwrap();
}

/// Starts it, and waits until its volume is there and the array holds its next command.
async fn stuck_with_a_volume(simulator: &Simulator, site: &Site) -> Child {
    // The first line of the removal, when everything is there that it makes.
    simulator.inject(
        Fault::new(Effect::Hold).containing("/disk set [/disk find slot=$volume] nvme-tcp-server-nqn="),
    );
    let doctor = command(site, &["--output", "json"]).spawn().unwrap();
    let made = async {
        while simulator.state().unwrap().disks.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), made).await.expect("it makes a volume");
    doctor
}

fn signal(doctor: &Child, signal: Signal) {
    kill_process(Pid::from_raw(doctor.id().unwrap().try_into().unwrap()).unwrap(), signal).unwrap();
}

async fn ended(doctor: Child) -> (ExitStatus, String) {
    let ended = tokio::time::timeout(Duration::from_mins(1), doctor.wait_with_output()).await;
    let output = ended.expect("it ends").unwrap();
    (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test]
async fn an_interrupted_run_leaves_nothing_behind() {
    for given in [Signal::TERM, Signal::INT] {
        let (simulator, site) = array(|_| {}).await;
        let doctor = stuck_with_a_volume(&simulator, &site).await;
        signal(&doctor, given);
        simulator.clear_faults();
        let (status, told) = ended(doctor).await;
        assert!(status.code() == Some(2) && told.contains("is removed again"), "{status}: {told}");
        assert_bare(&simulator);
        simulator.stop().await.unwrap();
    }
}

#[tokio::test]
async fn what_a_killed_run_left_behind_goes_with_the_next() {
    let (simulator, site) = world::simulator(|_| {}).await;
    let doctor = stuck_with_a_volume(&simulator, &site).await;
    signal(&doctor, Signal::KILL);
    ended(doctor).await;
    simulator.clear_faults();
    let left = simulator.state().unwrap().disks[0].slot.clone();
    assert!(left.starts_with("pvc-doctor-"), "{left}");
    // Another cluster's, and somebody's own, are none of its business.
    let foreign = "/disk/btrfs/subvolume add fs=storage-pool name=pvc-doctor-00000000-0123456789; \
                   /disk/btrfs/subvolume add fs=storage-pool name=pvc-mine";
    world::shell(&site, foreign).await;

    let at_once = ["--output", "json", "--leftovers-after", "0"];
    let (report, code) = examined_by(command(&site, &at_once)).await;
    let (result, evidence) = line(&report, "leftovers");
    assert!(result == "proved" && evidence.contains(&left), "{evidence}");
    assert_eq!((line(&report, "nothing-left").0, code), ("proved", 3));
    let state = simulator.state().unwrap();
    let names: Vec<_> = state.subvolumes.iter().map(|subvolume| subvolume.name.clone()).collect();
    assert_eq!(names, ["pvc-doctor-00000000-0123456789", "pvc-mine"]);
    assert!(state.disks.is_empty() && state.files.len() == names.len(), "{state:#?}");
    simulator.stop().await.unwrap();
}

#[tokio::test]
async fn a_second_run_goes_away_and_leaves_the_first_alone() {
    let (simulator, site) = array(|_| {}).await;
    let first = stuck_with_a_volume(&simulator, &site).await;
    let made = simulator.state().unwrap().disks[0].slot.clone();
    let (report, code) = examined(&site).await;
    let (result, evidence) = line(&report, "alone");
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_lowercase();
    assert_eq!((result, code), ("failed", 1));
    assert!(
        evidence.contains(&made) && evidence.contains(&host) && evidence.contains("0 min ago"),
        "{evidence}"
    );
    assert_eq!((line(&report, "create").0, line(&report, "nothing-left").0), ("skipped", "proved"));
    assert_eq!(simulator.state().unwrap().disks[0].slot, made);

    simulator.clear_faults();
    let (status, told) = ended(first).await;
    assert_eq!(status.code(), Some(3), "the first one ends as if it had been alone: {told}");
    assert_bare(&simulator);
    simulator.stop().await.unwrap();
}

#[tokio::test]
async fn a_fence_that_is_configured_is_good_only_if_it_was_proved() {
    let (simulator, site) = array(|_| {}).await;
    for (fence, result) in [("acl@7.21.2", "not-proved"), ("none", "proved")] {
        let (report, code) = examined_by(command(&site, &["--output", "json", "--fence", fence])).await;
        assert_eq!(
            (line(&report, "fence").0, &report["fence"], code),
            (result, &"none".into(), 3),
            "{fence}"
        );
    }
    simulator.stop().await.unwrap();
}

#[tokio::test]
async fn every_array_of_a_file_has_its_own_report_and_one_can_be_asked_for() {
    let (simulator, site) = array(|_| {}).await;
    let away = Site::vacant();
    let array = |name: &str, at: &Site| {
        let (port, key, known_hosts) = (at.address.port(), at.key.display(), at.known_hosts.display());
        format!(
            "- {{name: {name}, address: 127.0.0.1, port: {port}, user: {USER}, key: {key}, knownHosts: {known_hosts}, \
             fence: none, nvme: {{address: {NO_ROUTE}}}}}\n"
        )
    };
    let arrays = format!("default: here\nbackends:\n{}{}", array("here", &site), array("away", &away));
    let config = site.folder.path().join("arrays.yaml");
    std::fs::write(&config, arrays).unwrap();
    let doctor = |extra: &[&str]| {
        let mut command = Command::new(programs::path("rds-csi-controller").unwrap());
        command.args(["doctor", "--output", "json", "--cluster-id", "blue"]);
        command.args(["--managed-nqn-prefix", MANAGED_NQN_PREFIX]).arg("--config").arg(&config).args(extra);
        command.env("TMPDIR", site.folder.path()).kill_on_drop(true);
        all_examined_by(command)
    };
    let (report, code) = doctor(&[]).await;
    let told = |index: usize| (&report["arrays"][index]["array"], &report["arrays"][index]["result"]);
    assert_eq!(told(0), (&"here".into(), &"incomplete".into()));
    assert_eq!(told(1), (&"away".into(), &"failed".into()));
    assert_eq!((&report["result"], code), (&"failed".into(), 1));

    let (report, code) = doctor(&["--backend", "here"]).await;
    assert_eq!((report["arrays"].as_array().unwrap().len(), code), (1, 3), "{report:#}");
    assert_bare(&simulator);
    simulator.stop().await.unwrap();
}
