//! What guests boot: the cached image that `integration/guest/build-image` makes, with our own programs added.

use std::{
    collections::BTreeSet,
    env, fs,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use super::cpio::Archive;
use crate::programs;

/// A kernel and an initramfs.
#[derive(Debug, Clone)]
pub(super) struct Image {
    pub(super) kernel: PathBuf,
    pub(super) initramfs: PathBuf,
}

impl Image {
    /// Builds the image with these programs of ours, into the rig's directory.
    pub(super) fn build(programs: &[&str], directory: &Path) -> Result<Self> {
        let base = base()?;
        let initramfs = directory.join("initramfs");
        fs::copy(base.join("initramfs"), &initramfs)?;
        let mut archive = Archive::new(BufWriter::new(fs::File::options().append(true).open(&initramfs)?));

        let mut libraries = BTreeSet::new();
        for name in programs {
            let program = programs::path(name)?;
            libraries.extend(shared_libraries(&program)?);
            archive.program(&format!("bin/{name}"), &stripped(&program, directory)?)?;
        }
        let mut directories = BTreeSet::new();
        for library in libraries {
            // In the guest /usr/lib and /lib are one directory.
            let inside = library.strip_prefix("/usr").or_else(|_| library.strip_prefix("/"))?.to_owned();
            let parents: Vec<_> = inside.ancestors().skip(1).filter(|path| *path != Path::new("")).collect();
            for parent in parents.into_iter().rev() {
                if directories.insert(parent.to_owned()) {
                    archive.directory(&parent.display().to_string())?;
                }
            }
            archive.program(&inside.display().to_string(), &fs::read(&library)?)?;
        }
        archive.finish()?.flush()?;
        Ok(Self { kernel: base.join("kernel"), initramfs })
    }
}

/// The cached base. The recipe finds it, or makes it.
fn base() -> Result<PathBuf> {
    built(concat!(env!("CARGO_MANIFEST_DIR"), "/guest/build-image"), &[])
}

/// The disk with all that makes a Kubernetes node of a worker, cached as well.
pub(super) fn kubernetes() -> Result<PathBuf> {
    built(concat!(env!("CARGO_MANIFEST_DIR"), "/guest/build-kubernetes"), &[&programs::kubernetes()?])
}

/// What a recipe makes in the cache.
fn built(recipe: &'static str, arguments: &[&Path]) -> Result<PathBuf> {
    let cache = match (env::var_os("RDS_CSI_CACHE"), env::var_os("XDG_CACHE_HOME"), env::var_os("HOME")) {
        (Some(cache), _, _) => PathBuf::from(cache),
        (None, Some(xdg), _) => Path::new(&xdg).join("rds-csi"),
        (None, None, home) => Path::new(&home.context("HOME is not set")?).join(".cache/rds-csi"),
    };
    let built =
        Command::new(recipe).arg(&cache).args(arguments).stderr(Stdio::inherit()).output().context(recipe)?;
    ensure!(built.status.success(), "{recipe} failed ({})", built.status);
    Ok(PathBuf::from(String::from_utf8(built.stdout)?.trim_end()))
}

/// The program without its debug information, which would fill the guest's memory.
fn stripped(program: &Path, directory: &Path) -> Result<Vec<u8>> {
    let out = directory.join("stripped");
    let status = Command::new("strip").arg("-o").args([&out, program]).status().context("strip")?;
    ensure!(status.success(), "strip {} failed ({status})", program.display());
    let content = fs::read(&out)?;
    fs::remove_file(out)?;
    Ok(content)
}

fn shared_libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let told = Command::new("ldd").arg(program).output().context("ldd")?;
    let told = String::from_utf8(told.stdout)?;
    Ok(told.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}
