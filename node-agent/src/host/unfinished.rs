//! Filesystems that were begun and not ended: how they are told from what somebody may need.
//!
//! mkfs.xfs tells it itself: the first thing that it writes is a superblock that says 'in progress' and counts no inode, and the
//! last is one that does not. Its copies say the former for ever, so the first allocation group is asked, too. mke2fs writes its
//! superblock last, and nothing before it tells whose the rest is. So a mark is on the device while it runs, behind the end of
//! the filesystem, put there after the proof of blankness and taken away before the filesystem is mounted for the first time. A
//! device with such a mark and without a superblock holds nothing of value, whichever node began it and whatever happened since.
//! `mkfs` cut off after each of its writes shows that there is no other state, but for the moment in which mkfs.xfs has made the
//! root directory and its superblock does not count it yet: that is left to a person.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rds_csi_api::{Bytes, FsType};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::probe::{self, Buffer};
use super::{Device, Error, superblock};

/// What is written, and zeros behind it.
const MARK: &[u8] = b"rds-csi c1f0a7e5-6f0b-4f4e-9a53-0d6ce3b1c9d2: a blank device is being formatted; it holds nothing yet\n";

/// The mark fills a block.
const LENGTH: u64 = 4096;

/// What is left free at a device's end while ext is made there. Less than what counts as room to grow ([`super::Fit`]).
const ROOM: u64 = 32 << 10;

/// The proof that a device holds nothing but the beginnings of a filesystem. Only a completed probe makes one.
#[derive(Debug)]
pub struct Unfinished {
    device: Device,
}

impl Unfinished {
    /// Of a device on which a probe saw it.
    pub(super) fn seen(device: Device) -> Self {
        Self { device }
    }

    /// The device that it is about.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// A proof about a device that does not exist.
    #[cfg(any(test, feature = "fake"))]
    pub(super) fn imagined(device: Device) -> Self {
        Self { device }
    }
}

/// How large ext may become, in KiB, on a device of this size.
pub(super) fn ext_kib(device: Bytes) -> u64 {
    device.get().saturating_sub(ROOM) >> 10
}

/// Whether the mark is at the device's end.
pub(super) fn is_marked(file: &File, size: u64) -> io::Result<bool> {
    let Some(place) = place(size) else { return Ok(false) };
    let mut buffer = Buffer::new();
    let block = buffer.read(file, place, LENGTH)?;
    Ok(block.strip_prefix(MARK).is_some_and(|rest| rest.iter().all(|byte| *byte == 0)))
}

/// Puts the mark there. When it returns, the mark survives a power failure.
pub(super) fn mark(root: &Path, device: &Device) -> Result<(), Error> {
    let file = open(root, device)?;
    write_mark(&file, device.size.get()).map_err(failed("mark", device))
}

/// Takes the mark away, if there is one behind the end of a filesystem that is whole. Within one it is somebody's data.
pub(super) fn finish(root: &Path, device: &Device) -> Result<(), Error> {
    let pinned = probe::open_device(root, device)?;
    let size = device.size.get();
    if outlived(&pinned, size).map_err(failed("read", device))? {
        let file = open(root, device)?;
        zero(&file, place(size).unwrap_or(size), size).map_err(failed("take the mark off", device))?;
    }
    Ok(())
}

/// Whether there is a mark, and a finished filesystem that ends before it.
pub(super) fn outlived(file: &File, size: u64) -> io::Result<bool> {
    let Some(place) = place(size) else { return Ok(false) };
    let mut buffer = Buffer::new();
    let head = buffer.read(file, 0, superblock::LENGTH as u64)?;
    let ends_before = superblock::read(head).is_some_and(|(_, end, _)| end.get() <= place);
    Ok(ends_before && is_marked(file, size)?)
}

/// Makes every place zero that a probe looks at. The mark goes last, so that a wipe that is cut off begins again.
pub(super) fn wipe(root: &Path, unfinished: &Unfinished) -> Result<(), Error> {
    let device = unfinished.device();
    wipe_file(&open(root, device)?, device.size.get()).map_err(failed("wipe", device))
}

pub(super) fn wipe_file(file: &File, size: u64) -> io::Result<()> {
    write_mark(file, size)?;
    let place = place(size).unwrap_or(size);
    for (begin, end) in probe::regions(size) {
        zero(file, begin, end.min(place))?;
    }
    zero(file, place, size)
}

/// How much of a device's beginning [`xfs`] needs: the largest sectors have 32 KiB, and the third one is looked at.
pub(super) const XFS_LENGTH: u64 = 128 << 10;

/// What an XFS says that calls itself unfinished.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Xfs {
    /// That it has never held a file.
    Empty,
    /// That it holds inodes all the same: somebody put one of its further superblocks in the place of the first. Those say for
    /// ever what the first one did at the beginning.
    Inhabited,
}

/// Whether XFS calls itself unfinished, and whether it has never held a file: one that was in use counts 64 inodes at least, in
/// its superblock and in the first of its allocation groups. Until mkfs makes the root directory, at its very end, that group's
/// header is not written or counts none. The places are those of struct `xfs_dsb` (`sb_sectsize`, `sb_inprogress`, `sb_icount`)
/// and `xfs_agi` (`agi_magicnum`, `agi_count`).
pub(super) fn xfs(head: &[u8]) -> Option<Xfs> {
    let in_progress =
        head.starts_with(b"XFSB") && head.get(126) == Some(&1) && head.get(128..136) == Some(&[0; 8]);
    in_progress.then(|| if has_no_inodes(head) == Some(true) { Xfs::Empty } else { Xfs::Inhabited })
}

/// Whether the first allocation group has none. None if that cannot be told.
fn has_no_inodes(head: &[u8]) -> Option<bool> {
    let sector = usize::from(u16::from_be_bytes(head.get(102..104)?.try_into().ok()?));
    let group = head.get(2 * sector..)?.get(..20)?;
    Some(group == [0; 20] || (group.starts_with(b"XAGI") && group.ends_with(&[0; 4])))
}

/// Whether a filesystem of this kind is made under a mark.
pub(super) fn needs_mark(fs: FsType) -> bool {
    match fs {
        FsType::Ext3 | FsType::Ext4 => true,
        FsType::Xfs => false,
    }
}

/// The last whole block, if there is room for one.
fn place(size: u64) -> Option<u64> {
    (size / LENGTH).checked_sub(1).map(|block| block * LENGTH)
}

/// Exclusively, so that the kernel refuses if a filesystem or another mkfs has the device; and directly, past any cache.
fn open(root: &Path, device: &Device) -> Result<File, Error> {
    match probe::open_device_for(root, device, OFlags::RDWR | OFlags::EXCL | OFlags::DSYNC) {
        Err(Error::System { source, .. }) if Errno::from_io_error(&source) == Some(Errno::BUSY) => {
            Err(Error::Busy { what: device.to_string() })
        }
        opened => opened,
    }
}

pub(super) fn write_mark(file: &File, size: u64) -> io::Result<()> {
    let Some(place) = place(size) else { return Err(io::Error::other("it has no room for anything")) };
    let mut buffer = Buffer::new();
    let block = buffer.bytes(LENGTH)?;
    block[..MARK.len()].copy_from_slice(MARK);
    file.write_all_at(block, place)
}

fn zero(file: &File, mut at: u64, end: u64) -> io::Result<()> {
    let mut buffer = Buffer::new();
    while at < end {
        let zeros = buffer.bytes((end - at).min(probe::CHUNK as u64))?;
        file.write_all_at(zeros, at)?;
        at += zeros.len() as u64;
    }
    Ok(())
}

fn failed(doing: &'static str, device: &Device) -> impl FnOnce(io::Error) -> Error {
    Error::system(doing, device.path())
}
