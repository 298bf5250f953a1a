//! Making, repairing and growing filesystems: the only times when a program of the system is run on a device.

use std::time::Duration;

use rds_csi_api::FsType;

use super::{Blank, Device, Error, KubeletPath, exec};

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
    run(program, options, &device, &device.path().to_string_lossy(), FORMAT_TIME, |code| code == 0)
}

/// Repairs what can be repaired without a person's decision.
pub(super) fn repair(device: &Device, fs: FsType) -> Result<(), Error> {
    let path = device.path();
    match fs {
        // e2fsck(8): 1 is 'errors corrected', 2 adds 'reboot if it is mounted', which it is not.
        FsType::Ext3 | FsType::Ext4 => {
            run("e2fsck", &["-p"], device, &path.to_string_lossy(), REPAIR_TIME, |code| code & !3 == 0)
        }
        // Without -L: a log that cannot be replayed holds the last writes, and is not thrown away unasked.
        FsType::Xfs => run("xfs_repair", &[], device, &path.to_string_lossy(), REPAIR_TIME, |code| code == 0),
    }
}

/// Both filesystems grow while mounted; XFS is told by its mount point.
pub(super) fn grow(device: &Device, fs: FsType, mounted_at: &KubeletPath) -> Result<(), Error> {
    match fs {
        FsType::Ext3 | FsType::Ext4 => {
            run("resize2fs", &[], device, &device.path().to_string_lossy(), GROW_TIME, |code| code == 0)
        }
        FsType::Xfs => {
            run("xfs_growfs", &["-d"], device, &mounted_at.as_path().to_string_lossy(), GROW_TIME, |code| {
                code == 0
            })
        }
    }
}

fn run(
    program: &'static str,
    options: &[&str],
    device: &Device,
    operand: &str,
    limit: Duration,
    good: impl Fn(i32) -> bool,
) -> Result<(), Error> {
    let arguments: Vec<_> = options.iter().copied().chain([operand]).collect();
    let outcome = exec::run(program, &arguments, limit)?;
    if outcome.status.code().is_some_and(good) {
        return Ok(());
    }
    let output = format!("{} {}", outcome.stdout, outcome.stderr).trim().to_owned();
    Err(Error::Failed { program, device: device.clone(), status: outcome.status, output })
}
