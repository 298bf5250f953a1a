//! Paths that kubelet gave us: beneath its directory and nowhere else, checked once as text and again when opened.
//!
//! A pod may plant symbolic links in what it can write to, and we act as root; so a path is never followed through one.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};
use rustix::io::Errno;
use serde::{Serialize, Serializer};

use super::Error;

/// The kubelet's own directory, `/var/lib/kubelet` as a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeletDir(Arc<Directory>);

#[derive(Debug, PartialEq, Eq)]
struct Directory {
    /// As kubelet is told, and so as its paths begin.
    given: PathBuf,
    /// Without symbolic links, and so as the mount table names it.
    real: PathBuf,
}

/// Why a path is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Outside {
    /// There is none.
    #[error("it is empty: give an absolute path beneath the kubelet directory")]
    Empty,
    /// It is somewhere else, or goes there.
    #[error(
        "{path:?} is not beneath the kubelet directory {directory:?}: give a path there, without '.' and '..'"
    )]
    Elsewhere {
        /// The path.
        path: PathBuf,
        /// Where it should be.
        directory: PathBuf,
    },
}

impl KubeletDir {
    /// The directory must exist.
    pub fn open(path: &Path) -> io::Result<Self> {
        let real = path.canonicalize()?;
        if !real.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Self(Arc::new(Directory { given: path.into(), real })))
    }

    /// A directory that need not exist, for hosts that do not.
    #[cfg(any(test, feature = "fake"))]
    pub fn imagined(path: &str) -> Self {
        Self(Arc::new(Directory { given: path.into(), real: path.into() }))
    }

    /// Where it is, without symbolic links.
    pub fn as_path(&self) -> &Path {
        &self.0.real
    }

    /// Takes a path of kubelet's.
    pub fn beneath(&self, path: &str) -> Result<KubeletPath, Outside> {
        if path.is_empty() {
            return Err(Outside::Empty);
        }
        let elsewhere = || Outside::Elsewhere { path: path.into(), directory: self.0.given.clone() };
        // `Path` would drop a '.' within a path without a word; here what is given is what is meant.
        let plain = !path.split('/').any(|part| part == "." || part == "..") && !path.contains('\0');
        let relative = Path::new(path)
            .strip_prefix(&self.0.given)
            .or_else(|_| Path::new(path).strip_prefix(&self.0.real))
            .ok()
            .filter(|relative| {
                plain && relative.components().all(|part| matches!(part, Component::Normal(_)))
            })
            .ok_or_else(elsewhere)?;
        if relative.file_name().is_none() {
            return Err(elsewhere());
        }
        Ok(KubeletPath {
            real: self.0.real.join(relative),
            relative: relative.into(),
            directory: self.clone(),
        })
    }
}

/// A path strictly beneath the kubelet directory.
#[derive(Clone, PartialEq, Eq)]
pub struct KubeletPath {
    directory: KubeletDir,
    /// Below the directory; it has a last part.
    relative: PathBuf,
    real: PathBuf,
}

impl KubeletPath {
    /// The whole path, as the mount table has it.
    pub fn as_path(&self) -> &Path {
        &self.real
    }

    /// The last part.
    pub(super) fn name(&self) -> &OsStr {
        self.relative.file_name().unwrap_or_default()
    }

    /// The directory that the last part is in, opened without a way out of the kubelet directory. None if it is not there.
    pub(super) fn open_parent(&self) -> Result<Option<OwnedFd>, Error> {
        self.open_beneath(self.relative.parent().unwrap_or(Path::new("")))
    }

    /// The directory at the path itself. None if it is not there.
    pub(super) fn open_directory(&self) -> Result<Option<OwnedFd>, Error> {
        self.open_beneath(&self.relative)
    }

    fn open_beneath(&self, relative: &Path) -> Result<Option<OwnedFd>, Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let failed = |error: Errno| Error::system("open", self.real.clone())(error);
        let top = open(&self.directory.0.real, flags, Mode::empty()).map_err(failed)?;
        let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
        match openat2(&top, relative, flags, Mode::empty(), resolve) {
            Ok(directory) => Ok(Some(directory)),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::LOOP | Errno::XDEV) => Err(Error::Escapes(self.real.clone())),
            Err(error) => Err(failed(error)),
        }
    }
}

/// A name for what an open descriptor refers to, for system calls that take names only, such as mount(2).
pub(super) fn path_of(descriptor: &OwnedFd) -> PathBuf {
    use std::os::fd::AsRawFd;
    PathBuf::from(format!("/proc/self/fd/{}", descriptor.as_raw_fd()))
}

impl fmt::Display for KubeletPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.real.display().fmt(f)
    }
}

impl fmt::Debug for KubeletPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.real.fmt(f)
    }
}

impl Serialize for KubeletPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.real.serialize(serializer)
    }
}

#[cfg(test)]
mod tests;
