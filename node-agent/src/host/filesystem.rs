//! Making, repairing and growing filesystems, the only times when a program of the system is run on a device; and measuring them.

use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use rds_csi_api::{Bytes, FsType};
use rustix::fs::{Mode, OFlags, fstat, fstatvfs, openat};

use super::{Blank, Device, DeviceNumber, Error, KubeletPath, Repair, exec, unfinished};

/// Generous: none of them may be cut short on a large device without need, and each stage has its own deadline.
const FORMAT_TIME: Duration = Duration::from_mins(10);
const REPAIR_TIME: Duration = Duration::from_hours(1);
const GROW_TIME: Duration = Duration::from_mins(10);

/// Makes a filesystem. No force flag is given: mkfs.xfs then looks for signatures once more itself.
pub(super) fn format(blank: Blank, fs: FsType) -> Result<(), Error> {
    // Nothing to discard on a blank volume; no blocks kept back for root, since this is nobody's root filesystem.
    let (program, options): (_, &[&str]) = match fs {
        FsType::Ext3 => ("mkfs.ext3", &["-q", "-m", "0", "-E", "nodiscard"]),
        FsType::Ext4 => ("mkfs.ext4", &["-q", "-m", "0", "-E", "nodiscard"]),
        FsType::Xfs => ("mkfs.xfs", &["-q", "-K"]),
    };
    let device = blank.into_device();
    let mut operands = vec![device.path().to_string_lossy().into_owned()];
    if unfinished::needs_mark(fs) {
        operands.push(format!("{}k", unfinished::ext_kib(device.size)));
    }
    let operands: Vec<_> = operands.iter().map(String::as_str).collect();
    run(program, options, &device, &operands, FORMAT_TIME, |code| code == 0)
}

/// Repairs what can be repaired without a person's decision, or with it.
pub(super) fn repair(device: &Device, fs: FsType, how: Repair) -> Result<(), Error> {
    let path = device.path();
    match fs {
        // e2fsck(8): 1 is 'errors corrected', 2 adds 'reboot if it is mounted', which it is not.
        FsType::Ext3 | FsType::Ext4 => {
            let options: &[&str] = match how {
                Repair::Safe => &["-p"],
                Repair::Thorough => &["-f", "-y"],
            };
            run("e2fsck", options, device, &[&path.to_string_lossy()], REPAIR_TIME, |code| code & !3 == 0)
        }
        // Without -L: a log that cannot be replayed holds the last writes, and is not thrown away unasked.
        FsType::Xfs => {
            let options: &[&str] = match how {
                Repair::Safe => &[],
                Repair::Thorough => &["-L"],
            };
            run("xfs_repair", options, device, &[&path.to_string_lossy()], REPAIR_TIME, |code| code == 0)
        }
    }
}

/// Both filesystems grow while mounted; XFS is told by its mount point.
pub(super) fn grow(device: &Device, fs: FsType, mounted_at: &KubeletPath) -> Result<(), Error> {
    match fs {
        FsType::Ext3 | FsType::Ext4 => {
            run("resize2fs", &[], device, &[&device.path().to_string_lossy()], GROW_TIME, |code| code == 0)
        }
        FsType::Xfs => run(
            "xfs_growfs",
            &["-d"],
            device,
            &[&mounted_at.as_path().to_string_lossy()],
            GROW_TIME,
            |code| code == 0,
        ),
    }
}

/// How full a filesystem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// In bytes.
    pub bytes: Amount<Bytes>,
    /// In inodes, that is, files. XFS makes them as they are needed: how many there may be is its guess.
    pub inodes: Amount<u64>,
}

/// How much there is of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amount<T> {
    /// In all.
    pub total: T,
    /// Taken.
    pub used: T,
    /// To be had by everybody; what is kept for root is neither used nor available.
    pub available: T,
}

/// The directory is really opened, since an XFS that has shut itself down still says how full it was.
pub(super) fn usage(mounted_at: &KubeletPath, device: DeviceNumber) -> Result<Option<Usage>, Error> {
    let path = || mounted_at.as_path().to_path_buf();
    let Some(place) = mounted_at.open_directory()? else { return Ok(None) };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(&place, ".", flags, Mode::empty()).map_err(Error::system("open", path()))?;
    let found = fstat(&directory).map_err(Error::system("look at", path()))?.st_dev;
    if DeviceNumber::from_raw(found) != device {
        return Ok(None);
    }
    let stat = fstatvfs(&directory).map_err(Error::system("measure", path()))?;
    let bytes = |blocks: u64| Bytes::new(blocks.saturating_mul(stat.f_frsize));
    Ok(Some(Usage {
        bytes: Amount {
            total: bytes(stat.f_blocks),
            used: bytes(stat.f_blocks.saturating_sub(stat.f_bfree)),
            available: bytes(stat.f_bavail),
        },
        inodes: Amount {
            total: stat.f_files,
            used: stat.f_files.saturating_sub(stat.f_ffree),
            available: stat.f_favail,
        },
    }))
}

/// ext counts them in its superblock (Documentation/ABI/testing/sysfs-fs-ext4); ext3 is served by the same driver. XFS does not
/// count, and shuts itself down at the first that matters.
pub(super) fn recorded_errors(root: &Path, device: &Device, fs: FsType) -> Result<u64, Error> {
    match fs {
        FsType::Xfs => return Ok(0),
        FsType::Ext3 | FsType::Ext4 => {}
    }
    let path = root.join("sys/fs/ext4").join(&device.name).join("errors_count");
    match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map_err(|_| Error::Form { path, text }),
        // It is not mounted, or not any more.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(Error::system("read", path)(error)),
    }
}

fn run(
    program: &'static str,
    options: &[&str],
    device: &Device,
    operands: &[&str],
    limit: Duration,
    good: impl Fn(i32) -> bool,
) -> Result<(), Error> {
    let arguments: Vec<_> = options.iter().chain(operands).copied().collect();
    let outcome = exec::run(program, &arguments, limit)?;
    if outcome.status.code().is_some_and(good) {
        return Ok(());
    }
    let output = format!("{} {}", outcome.stdout, outcome.stderr).trim().to_owned();
    Err(Error::Failed { program, device: device.clone(), status: outcome.status, output })
}
