//! Where programs lie: our own, as cargo left them beside the one that runs now, and Kubernetes'.

use std::env;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

/// Where a program of ours lies.
pub fn path(name: &str) -> Result<PathBuf> {
    let running = env::current_exe()?;
    // Tests live in `target/debug/deps`, programs in `target/debug`.
    let folder =
        running.ancestors().skip(1).find(|path| !path.ends_with("deps")).context("no target directory")?;
    let program = folder.join(name);
    ensure!(program.exists(), "{} is not built; run ./just build", program.display());
    Ok(program)
}

/// The folder of Kubernetes' programs, which `./just cluster` builds once and names.
pub fn kubernetes() -> Result<PathBuf> {
    built_by_just("RDS_CSI_RIG_KUBERNETES")
}

/// The folder of the sidecars, likewise.
pub fn sidecars() -> Result<PathBuf> {
    built_by_just("RDS_CSI_RIG_SIDECARS")
}

fn built_by_just(variable: &str) -> Result<PathBuf> {
    let folder = env::var_os(variable)
        .with_context(|| format!("{variable} is not set: run this by ./just cluster"))?;
    Ok(folder.into())
}
