//! A server of the cluster on this machine, which ends with the rig, however the rig ends.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::rig::{Keeper, last_lines};

/// A container's life as kubelet leads it, with the pod's name as `$0` and the program after it: under the pod's host name, which
/// is all that a sidecar goes by when replicas choose a leader, and started again whenever it ends.
const CONTAINER: &str = r#"
    hostname "$0" || { echo "no host name: are user namespaces forbidden to those who are not root?"; exit 1; }
    while :; do
        setpriv --pdeathsig KILL "$@"
        echo "--- ended with $?; it is started again"
        sleep 1
    done"#;

/// A running program of Kubernetes; it is killed when this is dropped.
#[derive(Debug)]
pub(super) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it with its log in that folder.
    pub(super) async fn start(
        keeper: &Keeper,
        folder: &Path,
        program: &Path,
        arguments: &[String],
    ) -> Result<Self> {
        let mut command = Keeper::command(program);
        command.args(arguments);
        Self::spawn(keeper, command, folder, &name_of(program)?).await
    }

    /// Starts it as a container of the pod of that name, with its log in that folder.
    pub(super) async fn start_in_pod(
        keeper: &Keeper,
        pod: &str,
        folder: &Path,
        program: &Path,
        arguments: &[String],
    ) -> Result<Self> {
        let mut command = Command::new("unshare");
        command.arg("--uts");
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        // After `unshare`: a new user namespace takes the parent's death signal away.
        command.args(["setpriv", "--pdeathsig", "KILL", "sh", "-c", CONTAINER, pod]).arg(program);
        command.args(arguments);
        Self::spawn(keeper, command, folder, &format!("{pod}.{}", name_of(program)?)).await
    }

    async fn spawn(keeper: &Keeper, mut command: Command, folder: &Path, name: &str) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = keeper.start(command).await.with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Fails if it has ended, which no server here does by itself.
    pub(super) fn runs(&mut self) -> Result<()> {
        let ended = self.child.try_wait()?;
        ensure!(ended.is_none(), "{} ended ({ended:?}):\n{}", self.name, self.log_tail(40));
        Ok(())
    }

    /// The last lines of what it has said.
    pub(super) fn log_tail(&self, lines: usize) -> String {
        last_lines(&fs::read_to_string(&self.log).unwrap_or_default(), lines)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be dead already; then there is nothing to kill, but still something to reap.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn name_of(program: &Path) -> Result<String> {
    Ok(program.file_name().context("a program has a name")?.to_string_lossy().into_owned())
}
