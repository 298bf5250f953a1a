//! One `ssh -M -N` as a child of ours, in the foreground: we see it die, read why on its standard error, choose every
//! option ourselves, and reap it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio_util::sync::CancellationToken;

/// The program. An absolute path, since nothing that PATH finds first is to see the key.
const SSH: &str = "/usr/bin/ssh";

/// How much of what ssh says on standard error is kept.
const LONGEST_COMPLAINT: usize = 16 << 10;

/// Where an array's SSH service is, as whom to use it, and how to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// User on the array.
    pub user: String,
    /// The private key's file.
    pub key: PathBuf,
    /// The file with the array's host key, in the form of known_hosts. No other key is accepted.
    pub known_hosts: PathBuf,
}

/// What commands use of a master: its control socket.
pub(super) struct Link {
    session: openssh::Session,
    distrusted: CancellationToken,
    /// Reports that have come over it.
    heard: AtomicU64,
    /// The directory of the socket lives as long as anybody may use it.
    _directory: TempDir,
}

impl Link {
    pub(super) fn session(&self) -> &openssh::Session {
        &self.session
    }

    /// Cancelled once the link has swallowed a command: it is given no other, and the keeper makes a new one.
    pub(super) fn distrusted(&self) -> &CancellationToken {
        &self.distrusted
    }

    /// Notes that a report has come.
    pub(super) fn hear(&self) {
        self.heard.fetch_add(1, Ordering::Relaxed);
    }

    /// How many reports have come: two that differ prove that the link was alive in between.
    pub(super) fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }
}

/// A master, from its start to its end. Killed when it is dropped.
pub(super) struct Master {
    child: Child,
    stdout: ChildStdout,
    complaint: Complaint<ChildStderr>,
    link: Arc<Link>,
}

impl Master {
    /// Starts ssh.
    pub(super) fn start(to: &Destination, keep_alive: Duration) -> Result<Self, String> {
        let directory = tempfile::Builder::new()
            .prefix("rds-csi-ssh-")
            .tempdir()
            .map_err(|error| format!("no directory for the control socket: {error}"))?;
        let socket = directory.path().join("master");
        let mut child =
            command(to, keep_alive, &socket).spawn().map_err(|error| format!("cannot run {SSH}: {error}"))?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err("ssh gave no pipes".into());
        };
        let link = Link {
            session: openssh::Session::resume_mux(socket.into_boxed_path(), None),
            distrusted: CancellationToken::new(),
            heard: AtomicU64::new(0),
            _directory: directory,
        };
        Ok(Self { child, stdout, complaint: Complaint::on(stderr), link: Arc::new(link) })
    }

    /// Until it is connected. An error is why it is not, in ssh's own words.
    pub(super) async fn connected(&mut self) -> Result<(), String> {
        // ssh runs its LocalCommand once it is authenticated and listens on the control socket; or it ends.
        let mut word = [0; 1];
        let read = tokio::select! {
            read = self.stdout.read(&mut word) => read,
            // It only ends with ssh, and so does standard output.
            () = self.complaint.gather() => self.stdout.read(&mut word).await,
        };
        match read {
            Ok(1..) => Ok(()),
            Ok(0) | Err(_) => Err(self.ended().await),
        }
    }

    pub(super) fn link(&self) -> Arc<Link> {
        Arc::clone(&self.link)
    }

    /// Until the master has ended; why, in ssh's own words.
    pub(super) async fn ended(&mut self) -> String {
        let ((), status) = tokio::join!(self.complaint.gather(), self.child.wait());
        let said = last_lines(&String::from_utf8_lossy(&self.complaint.tail));
        match status {
            Ok(status) if said.is_empty() => format!("ssh ended without a word ({status})"),
            _ => said,
        }
    }

    /// Kills and reaps it.
    pub(super) async fn kill(mut self) {
        if let Err(error) = self.child.kill().await {
            tracing::debug!(%error, "ssh was gone before it was killed");
        }
    }
}

/// What ssh says on standard error: read as long as it says something, lest it wait for a reader, and its end kept.
struct Complaint<R> {
    pipe: R,
    tail: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Complaint<R> {
    fn on(pipe: R) -> Self {
        Self { pipe, tail: Vec::new() }
    }

    /// Until it ends. Left before that, nothing is lost.
    async fn gather(&mut self) {
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = self.pipe.read(&mut chunk).await {
            self.tail.extend_from_slice(&chunk[..count]);
            self.tail.drain(..self.tail.len().saturating_sub(LONGEST_COMPLAINT));
        }
    }
}

/// The cause stands last. Before it come banners, and a warning of eight lines if a host key has changed.
fn last_lines(complaint: &str) -> String {
    let lines: Vec<_> = complaint.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(2)..].join("; ")
}

fn command(to: &Destination, keep_alive: Duration, socket: &Path) -> Command {
    let mut command = Command::new(SSH);
    command
        .env_clear()
        .env("LC_ALL", "C")
        .args(["-F", "none", "-M", "-N", "-T"])
        .arg("-S")
        .arg(socket)
        .args(["-p", &to.port.to_string()])
        .args(["-l", &to.user])
        .args(options(to, keep_alive))
        .arg("--")
        .arg(&to.host)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

fn options(to: &Destination, keep_alive: Duration) -> Vec<String> {
    let files = [("IdentityFile", &to.key), ("UserKnownHostsFile", &to.known_hosts)];
    let fixed = [
        "BatchMode=yes",
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
        "PreferredAuthentications=publickey",
        // The one file given, and nothing that a machine or a user has gathered, decides who the array is.
        "StrictHostKeyChecking=yes",
        "GlobalKnownHostsFile=/dev/null",
        "UpdateHostKeys=no",
        "VerifyHostKeyDNS=no",
        "ForwardAgent=no",
        "ForwardX11=no",
        "ClearAllForwardings=yes",
        "ControlPersist=no",
        "ConnectionAttempts=1",
        // RouterOS leaves keepalive@openssh.com unanswered, so ssh must not take a silent array for a dead one. It is sent all
        // the same: an array that has lost the connection refuses it, and TCP gives up what nobody acknowledges.
        "ServerAliveCountMax=1000000000",
        "TCPKeepAlive=yes",
        "LogLevel=INFO",
        // The sign that the control socket is there.
        "PermitLocalCommand=yes",
        "LocalCommand=echo connected",
    ];
    let files = files.map(|(name, path)| format!("{name}={}", quoted(path)));
    let interval = format!("ServerAliveInterval={}", keep_alive.as_secs().max(1));
    let options = files.into_iter().chain(fixed.map(Into::into)).chain([interval]);
    options.flat_map(|option| ["-o".into(), option]).collect()
}

/// A path as ssh's options take it: in quotes, its percent signs doubled, since `%h` and the like are replaced.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy().replace('%', "%%").replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{text}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_what_ssh_said_last() {
        let warning = "@@@@@@@\r\n@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\r\n@@@@@@@\r\n\
                       Host key for [127.0.0.1]:2222 has changed and you have requested strict checking.\r\n\
                       Host key verification failed.\r\n";
        assert_eq!(
            last_lines(warning),
            "Host key for [127.0.0.1]:2222 has changed and you have requested strict checking.; \
             Host key verification failed."
        );
        assert_eq!(last_lines(""), "");
    }

    #[tokio::test]
    async fn however_much_ssh_says_its_last_words_are_kept() {
        use tokio::io::AsyncWriteExt as _;
        let (mut ssh, pipe) = tokio::io::duplex(1024);
        let mut complaint = Complaint::on(pipe);
        let says = async move {
            for _ in 0..2000 {
                ssh.write_all(&[b'x'; 99]).await.unwrap();
                ssh.write_all(b"\n").await.unwrap();
            }
            ssh.write_all(b"Connection closed by array\n").await.unwrap();
        };
        let both = async { tokio::join!(says, complaint.gather()) };
        tokio::time::timeout(std::time::Duration::from_secs(10), both)
            .await
            .expect("nobody waits for a reader");
        assert_eq!(complaint.tail.len(), LONGEST_COMPLAINT);
        assert!(
            last_lines(&String::from_utf8_lossy(&complaint.tail)).ends_with("; Connection closed by array")
        );
    }

    #[test]
    fn a_path_is_one_value_to_ssh() {
        assert_eq!(quoted(Path::new("/a b/%h\"\\")), r#""/a b/%%h\"\\""#);
    }
}
