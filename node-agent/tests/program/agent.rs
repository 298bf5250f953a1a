//! The program as a child of the test.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rds_csi_api::plugin_registration::registration_client::RegistrationClient;
use tonic::transport::{Channel, Endpoint};

use crate::certificates::{Authority, Secret, Validity};

pub(crate) const PREFIX: (&str, &str) = ("--managed-nqn-prefix", "nqn.2000-02.com.mikrotik:pvc-");

pub(crate) struct Agent {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) child: Child,
}

impl Agent {
    pub(crate) fn command(folder: &Path, more: &[(&str, &str)]) -> Command {
        let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        if !folder.join("..data").exists() {
            Secret::at(folder).renew(&Authority::new(), Validity::Now);
        }
        std::fs::create_dir_all(path("kubelet/pods")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_rds-csi-node-agent"));
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        for (flag, value) in [
            ("--node-name", "w1"),
            ("--csi-socket", &path("csi.sock")),
            ("--kubelet-dir", &path("kubelet")),
            ("--state-dir", &path("state")),
            ("--api-listen", "127.0.0.1:0"),
            ("--api-cert", &path("tls.crt")),
            ("--api-key", &path("tls.key")),
            ("--api-client-ca", &path("ca.crt")),
            ("--admin-listen", "127.0.0.1:0"),
        ]
        .iter()
        .filter(|(flag, _)| more.iter().all(|(given, _)| given != flag))
        .chain(more)
        {
            command.args([flag, value]);
        }
        command
    }

    pub(crate) fn start() -> Self {
        Self::start_with(&[PREFIX])
    }

    pub(crate) fn start_with(more: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let child = Self::command(folder.path(), more).spawn().unwrap();
        let agent = Self { folder, child };
        await_socket(&agent.path("csi.sock"));
        if !more.contains(&("--register", "false")) {
            await_socket(&agent.registration());
        }
        agent
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn socket(&self) -> Channel {
        channel(&self.path("csi.sock"))
    }

    /// Where kubelet finds it.
    pub(crate) fn registration(&self) -> PathBuf {
        self.path("kubelet/plugins_registry/csi@rds.csi.srvlab.io-reg.sock")
    }

    /// Asks it to end, which it does well and without its socket for kubelet, and returns its log.
    pub(crate) fn end(mut self) -> String {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success(), "it should end well");
        assert!(!self.registration().exists(), "kubelet would go on asking for it");
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        log
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It has ended, as a rule.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn await_socket(socket: &Path) {
    let end = Instant::now() + Duration::from_secs(30);
    while std::os::unix::net::UnixStream::connect(socket).is_err() {
        assert!(Instant::now() < end, "the agent does not serve {}", socket.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn channel(socket: &Path) -> Channel {
    Endpoint::from_shared(format!("unix:{}", socket.display())).unwrap().connect_lazy()
}

/// A client like kubelet's: as grpc-go does, it sends the socket's path as the request's authority.
pub(crate) fn kubelet(agent: &Agent) -> RegistrationClient<Channel> {
    let socket = agent.registration();
    let authority = socket.to_str().unwrap().replace('/', "%2F");
    let origin = format!("http://{authority}").parse().unwrap();
    let endpoint = Endpoint::from_shared(format!("unix:{}", socket.display())).unwrap();
    RegistrationClient::new(endpoint.origin(origin).connect_lazy())
}

/// A port that nobody had a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The answer of the admin server, headers and all.
pub(crate) fn get(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
