//! A client: the system's `ssh`, with a key of its own, that knows the simulator's host key.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use rds_csi_integration::simulator::{Options, Simulator};
use tempfile::TempDir;

/// A simulator and a client of it.
pub(crate) struct Bench {
    pub(crate) simulator: Simulator,
    pub(crate) client: Client,
}

impl Bench {
    /// An array in memory with 1 TiB.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// An array with some options changed.
    pub(crate) async fn start_with(change: impl FnOnce(&mut Options)) -> Self {
        let mut client = Client::new();
        let public = std::fs::read_to_string(client.home.path().join("id.pub")).unwrap();
        let mut options = Options::in_memory(&public).unwrap();
        change(&mut options);
        let simulator = Simulator::start(options).await.unwrap();
        std::fs::write(client.home.path().join("known_hosts"), simulator.known_hosts()).unwrap();
        client.port = simulator.address().port();
        Self { simulator, client }
    }

    /// Runs one line and returns what it printed.
    pub(crate) async fn run(&self, line: &str) -> String {
        let output = self.client.exec(line).await;
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a line in the frame of a driver and returns what stood before the sentinel, or the error.
    pub(crate) async fn framed(&self, line: &str) -> Result<String, String> {
        let framed =
            format!(r#":onerror e in={{ {line}; :put "OK 4f2a" }} do={{ :put ("ERR 4f2a " . $e) }}"#);
        let output = self.run(&framed).await;
        if let Some(before) = output.strip_suffix("OK 4f2a\r\n") {
            return Ok(before.trim_end().to_owned());
        }
        match output.trim_end().rsplit_once("ERR 4f2a ") {
            Some((_, error)) => Err(error.to_owned()),
            None => panic!("no sentinel in the answer to {framed}: {output:?}"),
        }
    }
}

/// A home directory with a key pair and a `known_hosts`.
pub(crate) struct Client {
    home: TempDir,
    port: u16,
}

impl Client {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let key = home.path().join("id");
        let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(key).status();
        assert!(made.unwrap().success(), "ssh-keygen makes a key");
        Self { home, port: 0 }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// `ssh` with everything but the command; nothing is taken from the user's own configuration.
    pub(crate) fn ssh(&self) -> tokio::process::Command {
        let mut ssh = tokio::process::Command::new("ssh");
        ssh.args(["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"])
            .args(["-o", "ConnectTimeout=10", "-o", "IdentitiesOnly=yes"])
            .arg("-o")
            .arg(format!("UserKnownHostsFile={}", self.path("known_hosts").display()))
            .arg("-o")
            .arg(format!("ControlPath={}", self.path("control").display()))
            .arg("-i")
            .arg(self.path("id"))
            .args(["-p", &self.port.to_string(), "admin@127.0.0.1"])
            .stdin(Stdio::null())
            .kill_on_drop(true);
        ssh
    }

    pub(crate) async fn exec(&self, line: &str) -> Output {
        self.ssh().arg("--").arg(line).output().await.unwrap()
    }
}
