//! Our own programs, as cargo left them beside the one that runs now.

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
