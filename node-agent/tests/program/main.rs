//! The program itself, on a machine without NVMe: it starts, serves, refuses, and ends.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod agent;
mod certificates;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use agent::{Agent, PREFIX, await_socket, channel, free_port, get, kubelet};
use rds_csi_api::csi::identity_client::IdentityClient;
use rds_csi_api::csi::node_client::NodeClient;
use rds_csi_api::plugin_registration::{InfoRequest, RegistrationStatus};
use rds_csi_api::{DRIVER_NAME, csi};
use rds_csi_node_agent::privilege::KEPT;
use rustix::fs::{FileType, Mode};
use rustix::thread::CapabilitySet;
use tonic::Code;

#[test]
fn lesson_17_without_a_managed_prefix_it_ends_and_says_how_to_set_one() {
    for prefix in [None, Some(("--managed-nqn-prefix", "nqn.2000-02.com.mikrotik:"))] {
        let folder = tempfile::tempdir().unwrap();
        let output = Agent::command(folder.path(), prefix.as_slice()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success());
        assert!(
            said.contains("--managed-nqn-prefix") && said.contains("nqn.2000-02.com.mikrotik:pvc-"),
            "{said}"
        );
        assert!(!folder.path().join("csi.sock").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_serves_csi_on_a_private_socket_and_ends_well() {
    use std::os::unix::fs::PermissionsExt;
    let agent = Agent::start();
    let mode = agent.path("csi.sock").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut identity = IdentityClient::new(agent.socket());
    let info = identity.get_plugin_info(csi::GetPluginInfoRequest {}).await.unwrap().into_inner();
    assert_eq!(info.name, DRIVER_NAME);
    assert_eq!(identity.probe(csi::ProbeRequest {}).await.unwrap().into_inner().ready, Some(true));
    let mut node = NodeClient::new(agent.socket());
    let info = node.node_get_info(csi::NodeGetInfoRequest {}).await.unwrap().into_inner();
    assert_eq!(info.node_id, "w1");
    agent.end();
}

#[test]
fn every_thread_of_it_has_given_up_what_it_does_not_use() {
    let agent = Agent::start();
    let mut threads = 0;
    for thread in std::fs::read_dir(format!("/proc/{}/task", agent.child.id())).unwrap() {
        let status = std::fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
            line.unwrap_or_else(|| panic!("{name} is missing in {status}")).to_owned()
        };
        let set =
            |name: &str| CapabilitySet::from_bits_retain(u64::from_str_radix(&field(name), 16).unwrap());
        assert_eq!((field("NoNewPrivs").as_str(), field("Seccomp").as_str()), ("1", "2"));
        assert_eq!(field("Umask"), "0007");
        assert_eq!(set("CapEff"), set("CapPrm"));
        assert!(KEPT.contains(set("CapPrm")), "{status}");
        assert!((set("CapInh") | set("CapAmb")).is_empty(), "{status}");
        threads += 1;
    }
    assert!(threads > 1, "the runtime has threads");
    agent.end();
}

/// A record that is a named pipe nobody writes to stands for a system call that does not return.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_hangs_keeps_no_other_volume_and_not_the_process_and_is_told() {
    let port = free_port();
    let agent = Agent::start_with(&[PREFIX, ("--admin-listen", &format!("127.0.0.1:{port}"))]);
    let hung = agent.path("state/pvc-hung.json");
    rustix::fs::mknodat(rustix::fs::CWD, &hung, FileType::Fifo, Mode::RUSR, 0).unwrap();
    let unstage = |volume: &str| csi::NodeUnstageVolumeRequest {
        volume_id: volume.into(),
        staging_target_path: agent.path("kubelet/staging").to_str().unwrap().to_owned(),
    };
    let (mut node, request) = (NodeClient::new(agent.socket()), unstage("pvc-hung"));
    let waiting = tokio::spawn(async move { node.node_unstage_volume(request).await });
    let end = Instant::now() + Duration::from_secs(30);
    while !get(port, "/metrics").contains(r#"rds_csi_operations_running{rpc="NodeUnstageVolume"} 1"#) {
        assert!(Instant::now() < end, "the call does not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut node = NodeClient::new(agent.socket());
    node.node_unstage_volume(unstage("pvc-well")).await.unwrap();
    let status = node.node_unstage_volume(unstage("pvc-hung")).await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted, "{status}");
    let page = get(port, "/debug/volumes");
    assert!(page.contains("503") && page.contains("does not say within 5 s"), "{page}");
    drop(node);

    let asked = Instant::now();
    let log = agent.end();
    assert!(asked.elapsed() < Duration::from_secs(35), "kubelet would have killed it");
    let left: Vec<_> = log.lines().filter(|line| line.contains("still runs and is left")).collect();
    assert_eq!(left.len(), 1, "{log}");
    let told = ["WARN", "NodeUnstageVolume", "volume=pvc-hung", "seconds="];
    assert!(told.iter().all(|word| left[0].contains(word)), "{}", left[0]);
    assert!(waiting.await.unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_a_place_tells_it() {
    let rack = ("--topology", "topology.rds.csi.srvlab.io/rack=r1");
    for (more, segments) in [(&[PREFIX][..], 0), (&[PREFIX, rack], 1)] {
        let agent = Agent::start_with(more);
        let mut node = NodeClient::new(agent.socket());
        let info = node.node_get_info(csi::NodeGetInfoRequest {}).await.unwrap().into_inner();
        assert_eq!(info.accessible_topology.map_or(0, |topology| topology.segments.len()), segments);
        agent.end();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_leaves_by_a_link_is_refused_and_an_unknown_volume_is_gone_already() {
    let agent = Agent::start();
    let mut node = NodeClient::new(agent.socket());
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("target"), "").unwrap();
    std::os::unix::fs::symlink(outside.path(), agent.path("kubelet/pods/sly")).unwrap();
    let target = |end: &str| csi::NodeUnpublishVolumeRequest {
        volume_id: "pvc-a".into(),
        target_path: agent.path("kubelet/pods").join(end).to_str().unwrap().into(),
    };
    let status = node.node_unpublish_volume(target("sly/target")).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(outside.path().join("target").exists());
    node.node_unpublish_volume(target("honest/target")).await.unwrap();

    let staging = agent.path("kubelet/staging").to_str().unwrap().to_owned();
    let request = csi::NodeUnstageVolumeRequest { volume_id: "pvc-a".into(), staging_target_path: staging };
    node.node_unstage_volume(request).await.unwrap();
    agent.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_departing_agent_that_was_killed_leaves_no_socket_in_the_way() {
    let mut agent = Agent::start();
    agent.child.kill().unwrap();
    agent.child.wait().unwrap();
    assert!(agent.registration().exists(), "a killed agent cannot remove it");
    agent.child = Agent::command(agent.folder.path(), &[PREFIX]).spawn().unwrap();
    await_socket(&agent.path("csi.sock"));
    await_socket(&agent.registration());
    let mut kubelet = kubelet(&agent);
    assert_eq!(kubelet.get_info(InfoRequest {}).await.unwrap().into_inner().name, DRIVER_NAME);
    agent.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn kubelet_finds_the_driver_asks_it_for_its_node_and_tells_how_that_went() {
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let agent = Agent::start_with(&[PREFIX, ("--admin-listen", &listen)]);
    let ready = || get(port, "/readyz");
    assert!(ready().contains("503") && ready().contains("kubelet has not asked"), "{}", ready());

    let mut kubelet = kubelet(&agent);
    let info = kubelet.get_info(InfoRequest {}).await.unwrap().into_inner();
    assert_eq!((info.r#type.as_str(), info.name.as_str()), ("CSIPlugin", DRIVER_NAME));
    assert_eq!(info.supported_versions, ["1.0.0"]);
    let mut node = NodeClient::new(channel(Path::new(&info.endpoint)));
    assert_eq!(node.node_get_info(csi::NodeGetInfoRequest {}).await.unwrap().into_inner().node_id, "w1");

    let refused = RegistrationStatus { plugin_registered: false, error: "CSINode w1 is forbidden".into() };
    kubelet.notify_registration_status(refused).await.unwrap();
    assert!(ready().contains("503") && ready().contains("CSINode w1 is forbidden"), "{}", ready());
    let metrics = get(port, "/metrics");
    assert!(metrics.contains("rds_csi_registered 0"), "{metrics}");
    assert!(metrics.contains("rds_csi_registration_failures_total 1"), "{metrics}");

    let done = RegistrationStatus { plugin_registered: true, error: String::new() };
    kubelet.notify_registration_status(done).await.unwrap();
    assert!(ready().contains("200 OK"), "{}", ready());
    let metrics = get(port, "/metrics");
    assert!(metrics.contains("rds_csi_registered 1"), "{metrics}");
    assert!(metrics.contains("rds_csi_registration_failures_total 1"), "{metrics}");

    agent.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kubelet_refused_is_logged_with_what_to_do() {
    let agent = Agent::start();
    let mut kubelet = kubelet(&agent);
    let refused = RegistrationStatus { plugin_registered: false, error: "no such socket".into() };
    kubelet.notify_registration_status(refused).await.unwrap();
    let said = agent.end();
    let line = said.lines().find(|line| line.contains("did not register")).expect(&said);
    for part in ["WARN", "no such socket", "csi.sock is the same path for kubelet", "CSINode"] {
        assert!(line.contains(part), "{part} is missing in {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_for_kubelet_that_somebody_removes_is_made_again() {
    let agent = Agent::start();
    let file: fn(&Agent) = |agent| std::fs::remove_file(agent.registration()).unwrap();
    let folder: fn(&Agent) = |agent| std::fs::remove_dir_all(agent.path("kubelet/plugins_registry")).unwrap();
    for remove in [file, folder] {
        remove(&agent);
        await_socket(&agent.registration());
        let info = kubelet(&agent).get_info(InfoRequest {}).await.unwrap().into_inner();
        assert_eq!(info.name, DRIVER_NAME);
    }
    assert!(agent.end().contains("somebody removed the socket"));
}

#[test]
fn who_else_registers_the_driver_is_left_alone() {
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let agent = Agent::start_with(&[PREFIX, ("--register", "false"), ("--admin-listen", &listen)]);
    assert!(!agent.path("kubelet/plugins_registry").exists());
    assert!(get(port, "/readyz").contains("200 OK"));
    assert!(!get(port, "/metrics").contains("rds_csi_registered"));
    agent.end();

    let first = Agent::start();
    let csi = first.path("second.sock");
    let second = [PREFIX, ("--csi-socket", csi.to_str().unwrap())];
    let refused = Agent::command(first.folder.path(), &second).output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && said.contains("--register=false"), "{said}");
    assert!(first.registration().exists());
    first.end();
}

#[test]
fn status_tells_what_a_dead_agent_wrote_down_and_touches_nothing() {
    let agent = Agent::start();
    let folder = &agent.folder;
    let status = |state: &str, output: &str| {
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let mut command = Command::new(env!("CARGO_BIN_EXE_rds-csi-node-agent"));
        command.env_clear().args(["status", "--node-name", "w1", "--kubelet-dir", &path("kubelet")]);
        command.args(["--state-dir", &path(state), "--output", output]);
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    assert_eq!(status("state", "table"), (Some(0), "w1 has no volumes\n".into(), String::new()));
    assert_eq!(status("state", "json").1, "[]\n");
    let (code, _, error) = status("nowhere", "table");
    assert_eq!(code, Some(2));
    assert!(error.contains("--state-dir") && error.contains("nowhere"), "{error}");
    assert!(!agent.path("nowhere").exists());
    agent.end();
}
