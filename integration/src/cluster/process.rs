//! A server of the cluster on this machine, which ends with the rig, however the rig ends.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::rig::{Keeper, last_lines};

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
        let name = program.file_name().context("a program has a name")?.to_string_lossy();
        let log = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log)?;
        let mut command = Keeper::command(program);
        command.args(arguments).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child =
            keeper.start(command).await.with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { name: name.into_owned(), child, log })
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
