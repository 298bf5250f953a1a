//! Who uses a device: mounts in every mount namespace, devices built on it, and open files, in one pass over /proc.
//!
//! Compared by number, never by path: a node made by mknod in a pod has another path, and another name means nothing.
//! Needs the host's PID namespace. What cannot be looked at is an error: only a complete look may find nothing.

use std::collections::HashSet;
use std::ffi::{CStr, OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, StatxFlags, open, openat, statx};
use rustix::io::Errno;
use serde::Serialize;

use super::{DeviceNumber, Error, Mount, Mounts, mount};

mod pod;

pub use pod::PodUid;

/// So many threads look at once, on a machine that has as many processors.
const MOST_LOOKERS: usize = 4;

/// Fewer processes are not worth a thread.
const LEAST_SHARE: usize = 128;

/// Something that keeps a device busy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Holder {
    /// Which device.
    #[serde(skip)]
    pub device: DeviceNumber,
    /// How.
    pub how: Use,
    /// Of the process; for a mount, of a process that sees it. 0 for a device, which no process owns.
    pub pid: u32,
    /// That process's name, as in /proc/PID/comm.
    pub command: String,
    /// Whose process it is, or whose volume directory the path lies in.
    pub pod: Option<PodUid>,
    /// The open file, the mount point, or the device on top.
    pub path: PathBuf,
}

/// How a device is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Use {
    /// The device, or a file on its filesystem, is open.
    OpenFile,
    /// Its filesystem is mounted where this program sees it.
    Mount,
    /// Its filesystem is mounted in a mount namespace that this program is not in.
    MountElsewhere,
    /// Another block device is built on it.
    BlockDevice,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { how, pid, command, pod, path, .. } = self;
        let path = path.display();
        let of_pod = pod.as_ref().map(|pod| format!(" of pod {pod}")).unwrap_or_default();
        match how {
            Use::OpenFile => write!(f, "process {pid} ({command}){of_pod} has {path} open"),
            Use::Mount if pod.is_some() => write!(f, "it is mounted at {path}, a directory{of_pod}"),
            Use::Mount => write!(f, "it is mounted at {path}"),
            Use::MountElsewhere => {
                write!(
                    f,
                    "it is mounted at {path} in the mount namespace of process {pid} ({command}){of_pod}"
                )
            }
            Use::BlockDevice => write!(f, "the block device {path} is built on it"),
        }
    }
}

/// Holders in one sentence; the first few are enough to act upon.
pub fn told(holders: &[Holder]) -> String {
    let mut text: Vec<_> = holders.iter().take(5).map(ToString::to_string).collect();
    if holders.len() > 5 {
        text.push(format!("and {} more", holders.len() - 5));
    }
    text.join("; ")
}

pub(super) fn holders(root: &Path, devices: &[DeviceNumber]) -> Result<Vec<Holder>, Error> {
    if devices.is_empty() {
        return Ok(Vec::new());
    }
    let mut found = devices_on_top(root, devices)?;
    let proc = root.join("proc");
    let processes = processes(&proc)?;
    let own = namespace(&proc, OsStr::new("self"))?;
    let look = Look { proc, own, devices: devices.to_vec(), namespaces: Mutex::default() };
    let lookers = thread::available_parallelism().map_or(1, usize::from).min(MOST_LOOKERS);
    let share = processes.len().div_ceil(lookers).max(LEAST_SHARE);
    thread::scope(|scope| {
        let lookers: Vec<_> = processes.chunks(share).map(|share| scope.spawn(|| look.at(share))).collect();
        for looker in lookers {
            found.extend(looker.join().unwrap_or_else(|panic| resume_unwind(panic))?);
        }
        Ok(found)
    })
}

/// A look at who uses these devices, by several threads: nearly all of it is spent in the kernel.
struct Look {
    proc: PathBuf,
    /// One, or a few: faster to look through than any set, and it is done for every open file.
    devices: Vec<DeviceNumber>,
    /// The mount namespace of this program.
    own: Option<PathBuf>,
    /// Those whose mounts have been looked at, by whichever thread.
    namespaces: Mutex<HashSet<PathBuf>>,
}

impl Look {
    fn at(&self, processes: &[OsString]) -> Result<Vec<Holder>, Error> {
        let mut found = Vec::new();
        for process in processes {
            self.at_task(process, process, &mut found)?;
            // A leader that exited has let go of everything, and its threads may go on. Asked last, so that it had not before.
            if namespace(&self.proc, process)?.is_none() {
                let threads = Path::new(process).join("task");
                for thread in entries(&self.proc.join(&threads))? {
                    self.at_task(process, threads.join(thread).as_os_str(), &mut found)?;
                }
            }
        }
        Ok(found)
    }

    fn at_task(&self, process: &OsStr, task: &OsStr, found: &mut Vec<Holder>) -> Result<(), Error> {
        let holder = |device, how, path| told_of(&self.proc.join(process), device, how, path);
        if let Some(id) = namespace(&self.proc, task)? {
            let mut namespaces = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
            if !namespaces.contains(&id)
                && let Some(mounts) = mounts(&self.proc, task)?
            {
                let how = if Some(&id) == self.own.as_ref() { Use::Mount } else { Use::MountElsewhere };
                let ours = mounts.iter().filter(|mount| self.devices.contains(&mount.device));
                found.extend(ours.map(|mount| holder(mount.device, how, mount.at.clone())));
                // Only now: a task that ended under our eyes has told nothing, and the next one in there must.
                namespaces.insert(id);
            }
        }
        for (device, path) in open_files(&self.proc.join(task), &self.devices)? {
            let open = holder(device, Use::OpenFile, path);
            // Threads mostly share their files.
            if !found.contains(&open) {
                found.push(open);
            }
        }
        Ok(())
    }
}

/// Who it is, is only read of those that use something: there are few of them among thousands.
fn told_of(process: &Path, device: DeviceNumber, how: Use, path: PathBuf) -> Holder {
    let pid = process.file_name().and_then(OsStr::to_str).and_then(|name| name.parse().ok());
    let command = fs::read_to_string(process.join("comm")).unwrap_or_default();
    let pod = match how {
        // Every process of the namespace sees it, so that it is anybody's.
        Use::Mount => None,
        Use::OpenFile | Use::MountElsewhere | Use::BlockDevice => pod::of_process(process),
    };
    let (pid, command) = (pid.unwrap_or_default(), command.trim_end().to_owned());
    Holder { device, how, pid, command, pod: pod.or_else(|| pod::of_path(&path)), path }
}

/// Device mapper and md link to themselves from what they are built on; a loop device only names its file.
fn devices_on_top(root: &Path, devices: &[DeviceNumber]) -> Result<Vec<Holder>, Error> {
    let mut found = Vec::new();
    let holder = |device: DeviceNumber, name: &OsStr| Holder {
        device,
        how: Use::BlockDevice,
        pid: 0,
        command: String::new(),
        pod: None,
        path: Path::new("/dev").join(name),
    };
    for device in devices {
        let directory = root.join("sys/dev/block").join(device.to_string()).join("holders");
        found.extend(entries(&directory)?.iter().map(|name| holder(*device, name)));
    }
    let blocks = root.join("sys/class/block");
    for name in entries(&blocks)? {
        let Ok(file) = fs::read_to_string(blocks.join(&name).join("loop/backing_file")) else { continue };
        let file = Path::new(file.trim_end_matches('\n'));
        if may_wait(&root.join("proc"), file)? {
            continue;
        }
        // The file is a path in the mount namespace that set the loop up; where it is none here it cannot be followed.
        let Ok(stat) = rustix::fs::stat(root.join(file.strip_prefix("/").unwrap_or(file))) else { continue };
        let number = DeviceNumber::from_raw(stat.st_rdev);
        if FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice && devices.contains(&number) {
            found.push(holder(number, &name));
        }
    }
    Ok(found)
}

/// Whether a path is on a filesystem that asks somebody before it answers, and waits for ever if nobody is there. There are no
/// nodes of our devices on such a one.
fn may_wait(proc: &Path, path: &Path) -> Result<bool, Error> {
    let Some(mounts) = mounts(proc, OsStr::new("self"))? else { return Ok(false) };
    Ok(nearest(&mounts, path).is_some_and(|mount| match mount.filesystem.as_str() {
        "nfs" | "nfs4" | "cifs" | "smb3" | "ceph" | "9p" | "virtiofs" | "afs" | "lustre" | "autofs" => true,
        kind => kind.starts_with("fuse"),
    }))
}

/// The mount that a path is on. Of those at one place it is the last, which covers the others.
fn nearest<'a>(mounts: &'a Mounts, path: &Path) -> Option<&'a Mount> {
    let above = mounts.iter().filter(|mount| path.starts_with(&mount.at));
    above.max_by_key(|mount| mount.at.as_os_str().len())
}

fn processes(proc: &Path) -> Result<Vec<OsString>, Error> {
    let mut all = entries(proc)?;
    all.retain(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit));
    Ok(all)
}

/// Which mount namespace a process is in, as `mnt:[4026531841]`; none if it is over.
fn namespace(proc: &Path, process: &OsStr) -> Result<Option<PathBuf>, Error> {
    let path = proc.join(process).join("ns/mnt");
    match fs::read_link(&path) {
        Ok(id) => Ok(Some(id)),
        Err(error) if is_over(&error) => Ok(None),
        Err(error) => Err(Error::system("read", path)(error)),
    }
}

/// The mounts that a task sees; none if it is over.
fn mounts(proc: &Path, task: &OsStr) -> Result<Option<Mounts>, Error> {
    match mount::of_process(proc, task) {
        Err(Error::System { source, .. }) if is_over(&source) => Ok(None),
        mounts => mounts.map(Some),
    }
}

/// What of these devices a process has open: their nodes, files on them, and its working and root directories.
fn open_files(process: &Path, devices: &[DeviceNumber]) -> Result<Vec<(DeviceNumber, PathBuf)>, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut found = Vec::new();
    let whole = match open(process, flags, Mode::empty()) {
        Ok(directory) => directory,
        Err(Errno::NOENT | Errno::SRCH) => return Ok(found),
        Err(error) => return Err(Error::system("open", process)(error)),
    };
    for name in [c"cwd", c"root"] {
        found.extend(used(&whole, process, name, devices)?);
    }
    let path = process.join("fd");
    let files = match openat(&whole, "fd", flags, Mode::empty()) {
        Ok(files) => files,
        Err(Errno::NOENT | Errno::SRCH) => return Ok(found),
        Err(error) => return Err(Error::system("open", path)(error)),
    };
    for entry in Dir::read_from(&files).map_err(Error::system("list", path.clone()))? {
        match entry {
            Ok(entry) if entry.file_name().to_bytes().starts_with(b".") => {}
            Ok(entry) => found.extend(used(&files, &path, entry.file_name(), devices)?),
            Err(Errno::NOENT | Errno::SRCH) => break,
            Err(error) => return Err(Error::system("list", path)(error)),
        }
    }
    Ok(found)
}

/// Which of these devices an entry of /proc/PID refers to.
fn used(
    directory: &OwnedFd,
    path: &Path,
    name: &CStr,
    devices: &[DeviceNumber],
) -> Result<Option<(DeviceNumber, PathBuf)>, Error> {
    let path = || path.join(OsStr::from_bytes(name.to_bytes()));
    // DONT_SYNC: an answer from memory is enough, and a dead network filesystem must not stop us. Nothing is asked for, since
    // the kernel then fills in what it has, and FUSE does not refuse root on other users' mounts (fuse_update_get_attr).
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let stat = match statx(directory, name, flags, StatxFlags::empty()) {
        Ok(stat) => stat,
        // Closed or over; or on a filesystem that cannot answer, which is none of ours: ours answer from memory.
        Err(Errno::NOENT | Errno::SRCH | Errno::STALE | Errno::NOTCONN | Errno::HOSTDOWN) => return Ok(None),
        // As XFS answers once it has shut itself down. One such filesystem must not hide who uses all the others.
        Err(Errno::IO) => return by_name(&path(), devices),
        Err(error) => return Err(Error::system("look at", path())(error)),
    };
    let node = DeviceNumber { major: stat.stx_rdev_major, minor: stat.stx_rdev_minor };
    let on = DeviceNumber { major: stat.stx_dev_major, minor: stat.stx_dev_minor };
    let is_node = FileType::from_raw_mode(stat.stx_mode.into()) == FileType::BlockDevice;
    let used =
        if is_node && devices.contains(&node) { Some(node) } else { devices.contains(&on).then_some(on) };
    Ok(used.map(|device| (device, fs::read_link(path()).unwrap_or_else(|_| path()))))
}

/// The same, told by the mount that the file's name leads to.
fn by_name(entry: &Path, devices: &[DeviceNumber]) -> Result<Option<(DeviceNumber, PathBuf)>, Error> {
    let process = entry.ancestors().find(|above| above.join("mountinfo").exists());
    let (Some(process), Ok(name)) = (process, fs::read_link(entry)) else { return Ok(None) };
    let Some(mounts) = mounts(process, OsStr::new("."))? else { return Ok(None) };
    Ok(nearest(&mounts, &name)
        .map(|mount| mount.device)
        .filter(|device| devices.contains(device))
        .map(|device| (device, name)))
}

fn entries(directory: &Path) -> Result<Vec<OsString>, Error> {
    let read = fs::read_dir(directory).and_then(|entries| {
        entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<Vec<_>>>()
    });
    match read {
        Err(error) if is_over(&error) => Ok(Vec::new()),
        read => read.map_err(Error::system("list", directory)),
    }
}

/// The process or the device went away; EINVAL is what a zombie's mountinfo answers.
fn is_over(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::SRCH | Errno::INVAL | Errno::NODEV))
}

#[cfg(test)]
mod tests;
