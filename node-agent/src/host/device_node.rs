//! What lies at a path, and device nodes made there by mknod(2).
//!
//! A block volume is published as a node of its own. Bind-mounting the file out of devtmpfs instead once ended in
//! thousands of mounts, since kubelet's loop devices propagate them.

use rustix::fs::{AtFlags, FileType, Mode, mkdirat, mknodat, statat, unlinkat};
use rustix::io::Errno;

use super::{Device, DeviceNumber, Error, KubeletPath};
use crate::privilege::UMASK;

/// As udev gives disks: a container runtime copies the mode to the node that it makes in the pod.
const NODE_MODE: Mode = Mode::from_raw_mode(0o660);

/// The kernel takes the umask's bits away. If a second step had to give them back, a crash between the two would leave a node that
/// looks whole and is not.
const _: () = assert!(!NODE_MODE.intersects(UMASK));

const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o750);

/// What is at a path. If something is mounted there, it is what the mount shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A directory, empty or not.
    Directory,
    /// A block device node.
    Node(DeviceNumber),
    /// A regular file without content, as left over by a bind mount.
    EmptyFile,
    /// A file with content, a symbolic link, a socket: nothing that we ever made.
    Other,
}

pub(super) fn found_at(at: &KubeletPath) -> Result<Found, Error> {
    let Some(parent) = at.open_parent()? else {
        return Ok(Found::Nothing);
    };
    let stat = match statat(&parent, at.name(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(Found::Nothing),
        Err(error) => return Err(Error::system("look at", at.as_path())(error)),
    };
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Found::Directory,
        FileType::BlockDevice => Found::Node(DeviceNumber::from_raw(stat.st_rdev)),
        FileType::RegularFile if stat.st_size == 0 => Found::EmptyFile,
        _ => Found::Other,
    })
}

pub(super) fn make_directory(at: &KubeletPath) -> Result<(), Error> {
    let parent = parent(at)?;
    match mkdirat(&parent, at.name(), DIRECTORY_MODE) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(Error::system("make the directory", at.as_path())(error)),
    }
}

pub(super) fn make_node(device: &Device, at: &KubeletPath) -> Result<(), Error> {
    let parent = parent(at)?;
    mknodat(&parent, at.name(), FileType::BlockDevice, NODE_MODE, device.number.to_raw())
        .map_err(Error::system("make the device node", at.as_path()))
}

/// rmdir(2): whatever has something in it stays.
pub(super) fn remove_directory(at: &KubeletPath) -> Result<(), Error> {
    remove(at, AtFlags::REMOVEDIR)
}

/// unlink(2), of a node or an empty file only.
pub(super) fn remove_node(at: &KubeletPath) -> Result<(), Error> {
    match found_at(at)? {
        Found::Nothing => Ok(()),
        Found::Node(_) | Found::EmptyFile => remove(at, AtFlags::empty()),
        Found::Directory | Found::Other => Err(Error::system("remove", at.as_path())(Errno::EXIST)),
    }
}

fn remove(at: &KubeletPath, flags: AtFlags) -> Result<(), Error> {
    let Some(parent) = at.open_parent()? else {
        return Ok(());
    };
    match unlinkat(&parent, at.name(), flags) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::BUSY) => Err(Error::Busy { what: at.to_string() }),
        Err(error) => Err(Error::system("remove", at.as_path())(error)),
    }
}

fn parent(at: &KubeletPath) -> Result<std::os::fd::OwnedFd, Error> {
    at.open_parent()?.ok_or_else(|| Error::system("find the parent directory of", at.as_path())(Errno::NOENT))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::host::KubeletDir;

    struct World(tempfile::TempDir, KubeletDir);

    fn world() -> World {
        let folder = tempfile::tempdir().unwrap();
        let kubelet = KubeletDir::open(folder.path()).unwrap();
        World(folder, kubelet)
    }

    impl World {
        fn path(&self, end: &str) -> KubeletPath {
            self.1.beneath(self.0.path().join(end).to_str().unwrap()).unwrap()
        }
    }

    #[test]
    fn everything_is_called_what_it_is() {
        let world = world();
        fs::create_dir(world.path("directory").as_path()).unwrap();
        fs::write(world.path("empty").as_path(), "").unwrap();
        fs::write(world.path("full").as_path(), "x").unwrap();
        std::os::unix::fs::symlink("directory", world.path("link").as_path()).unwrap();
        for (name, found) in [
            ("nothing", Found::Nothing),
            ("no/parent", Found::Nothing),
            ("directory", Found::Directory),
            ("empty", Found::EmptyFile),
            ("full", Found::Other),
            ("link", Found::Other),
        ] {
            assert_eq!(found_at(&world.path(name)).unwrap(), found, "{name}");
        }
    }

    #[test]
    fn lesson_2_only_what_is_empty_is_ever_removed() {
        let world = world();
        let directory = world.path("directory");
        make_directory(&directory).unwrap();
        make_directory(&directory).unwrap();
        fs::write(directory.as_path().join("precious"), "x").unwrap();
        assert!(remove_directory(&directory).is_err());
        assert!(remove_node(&directory).is_err());
        assert!(remove_node(&world.path("directory/precious")).is_err());
        assert!(directory.as_path().join("precious").exists());
        fs::remove_file(directory.as_path().join("precious")).unwrap();
        remove_directory(&directory).unwrap();
        remove_directory(&directory).unwrap();
        remove_node(&directory).unwrap();
        assert!(!directory.as_path().exists());
    }
}
