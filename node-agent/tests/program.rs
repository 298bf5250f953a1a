//! The program itself, on a machine without NVMe: it starts, serves, refuses, and ends.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rds_csi_api::csi::identity_client::IdentityClient;
use rds_csi_api::csi::node_client::NodeClient;
use rds_csi_api::{DRIVER_NAME, csi};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

const PREFIX: (&str, &str) = ("--managed-nqn-prefix", "nqn.2000-02.com.mikrotik:pvc-");

struct Agent {
    folder: tempfile::TempDir,
    child: Child,
}

impl Agent {
    fn command(folder: &Path, more: &[(&str, &str)]) -> Command {
        let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        certificates(folder);
        std::fs::create_dir_all(path("kubelet/pods")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_rds-csi-node-agent"));
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        for (flag, value) in [
            ("--node-name", "w1"),
            ("--csi-socket", &path("csi.sock")),
            ("--kubelet-dir", &path("kubelet")),
            ("--state-dir", &path("state")),
            ("--api-listen", "127.0.0.1:0"),
            ("--api-cert", &path("agent.crt")),
            ("--api-key", &path("agent.key")),
            ("--api-client-ca", &path("ca.crt")),
            ("--admin-listen", "127.0.0.1:0"),
        ]
        .iter()
        .chain(more)
        {
            command.args([flag, value]);
        }
        command
    }

    fn start() -> Self {
        Self::start_with(&[PREFIX])
    }

    fn start_with(more: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let child = Self::command(folder.path(), more).spawn().unwrap();
        let agent = Self { folder, child };
        let end = Instant::now() + Duration::from_secs(30);
        while std::os::unix::net::UnixStream::connect(agent.path("csi.sock")).is_err() {
            assert!(Instant::now() < end, "the agent does not serve");
            std::thread::sleep(Duration::from_millis(20));
        }
        agent
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn socket(&self) -> Channel {
        Endpoint::from_shared(format!("unix:{}", self.path("csi.sock").display())).unwrap().connect_lazy()
    }

    fn end(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success(), "it should end well");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It has ended, as a rule.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn certificates(folder: &Path) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(["rds-csi-node-agent".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    std::fs::write(folder.join("ca.crt"), issuer.pem()).unwrap();
    std::fs::write(folder.join("agent.crt"), certificate.pem()).unwrap();
    std::fs::write(folder.join("agent.key"), key.serialize_pem()).unwrap();
}

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
    agent.child = Agent::command(agent.folder.path(), &[PREFIX]).spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    while std::os::unix::net::UnixStream::connect(agent.path("csi.sock")).is_err() {
        assert!(Instant::now() < end, "the agent does not serve");
        std::thread::sleep(Duration::from_millis(20));
    }
    agent.end();
}
