//! What is on a device: proof that it is blank, or what was found, or the admission that nobody knows.
//!
//! Formatting on a mere absence of evidence has destroyed live volumes: `blkid` exits alike for a blank device and for one
//! that it cannot read. So blank means that the size is right, that every place where a signature could be was read and is
//! zero, and that a low-level probe finds nothing either.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use rds_csi_api::{Bytes, FsType};
use rustix::fs::{Mode, OFlags, fstat, open};

use super::unfinished::{self, Xfs};
use super::{Device, DeviceNumber, Error, Unfinished, exec, nvme, superblock};

const PROBE_TIME: Duration = Duration::from_secs(30);

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// What is read at once, and how its buffer is aligned: direct I/O needs a multiple of the device's block.
pub(super) const CHUNK: usize = 1 << 20;
const ALIGNMENT: usize = 4096;

/// At both ends of the device are nearly all signatures: partition tables, LUKS (up to 4 MiB), LVM, md, ZFS, and superblocks.
const ENDS: u64 = 4 * MIB;

/// Where filesystems keep further copies: ext with blocks of 1 KiB and 4 KiB, and btrfs.
const COPIES: [u64; 6] = [8 * MIB, 24 * MIB, 64 * MIB, 128 * MIB, 384 * MIB, 256 << 30];

/// How much is looked at around each copy.
const COPY_LENGTH: u64 = 64 * KIB;

/// XFS begins each of its allocation groups, four as a rule, with a superblock.
const ALLOCATION_GROUPS: u64 = 4;

/// What [`Look::Inhabited`] is to people.
const INHABITED: &str = "an XFS whose first superblock says that it was never finished, and whose first allocation group may hold \
     inodes (if there may be files in it, xfs_repair on its device puts the superblock right)";

/// What is on a device.
#[derive(Debug)]
pub enum Content {
    /// Nothing, and here is the proof.
    Blank(Blank),
    /// The beginnings of a filesystem and nothing else, and here is the proof.
    Unfinished(Unfinished),
    /// Something.
    Has(Signature),
    /// Nobody knows, and why. It is never blank.
    Unreadable(String),
}

impl Content {
    /// How what is on a device of this size fits it. A filesystem is made of whole blocks, 64 KiB at most: less than one is no
    /// room.
    pub fn fit(&self, device: Bytes) -> Fit {
        match self {
            Self::Has(Signature::Filesystem { size, .. })
                if size.get().saturating_add(64 << 10) <= device.get() =>
            {
                Fit::Smaller
            }
            Self::Has(Signature::Filesystem { .. }) => Fit::Fills,
            Self::Has(Signature::Foreign(found)) => {
                Fit::Unknown(format!("it shows {found} instead of a filesystem that is known here"))
            }
            Self::Blank(_) | Self::Unfinished(_) => Fit::Unknown("it shows no filesystem".into()),
            Self::Unreadable(reason) => Fit::Unknown(reason.clone()),
        }
    }
}

/// How a filesystem fits its device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fit {
    /// It is as large.
    Fills,
    /// The device has room for more.
    Smaller,
    /// Nobody knows, and why.
    Unknown(String),
}

/// The proof that a device is blank. Only a completed probe makes one, and making a filesystem uses it up.
#[derive(Debug)]
pub struct Blank {
    device: Device,
}

impl Blank {
    /// The device that it is about.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Gives the proof up for the device.
    pub(super) fn into_device(self) -> Device {
        self.device
    }

    /// A proof about a device that does not exist.
    #[cfg(any(test, feature = "fake"))]
    pub(super) fn imagined(device: Device) -> Self {
        Self { device }
    }
}

/// Something that is on a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signature {
    /// A filesystem of those that we make.
    Filesystem {
        /// Which.
        fs: FsType,
        /// How many bytes it spans.
        size: Bytes,
        /// What it says of itself.
        state: State,
    },
    /// Anything else, as a person would name it.
    Foreign(String),
}

/// What a filesystem's superblock says of how it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing bad.
    Sound,
    /// A kernel found an error in it. It mounts, and what is written then may make things worse.
    Flawed,
}

/// Opens the device for direct reading, past any cache, and proves that it is still the one that was found.
///
/// Name and number of an NVMe device are used again once it is gone, but not while somebody has it open. So a device is the one
/// it was if, while it is open, it has its number and belongs to its subsystem; and whoever does something to a device by its
/// name keeps this open meanwhile.
pub(super) fn open_device(root: &Path, device: &Device) -> Result<File, Error> {
    open_device_for(root, device, OFlags::RDONLY)
}

/// The same, for more than reading.
pub(super) fn open_device_for(root: &Path, device: &Device, how: OFlags) -> Result<File, Error> {
    let path = root.join("dev").join(&device.name);
    let flags = how | OFlags::CLOEXEC | OFlags::DIRECT;
    let file = open(&path, flags, Mode::empty()).map_err(Error::system("open", path.clone()))?;
    let found = DeviceNumber::from_raw(fstat(&file).map_err(Error::system("look at", path))?.st_rdev);
    if found != device.number {
        return Err(Error::Renumbered { device: device.to_string(), expected: device.number, found });
    }
    match nvme::owner(root, &device.name)? {
        Some(owner) if owner == device.nqn.as_str() => Ok(file.into()),
        owner => Err(Error::Reassigned {
            device: device.to_string(),
            expected: device.nqn.clone(),
            found: owner.unwrap_or_else(|| "nobody".into()),
        }),
    }
}

pub(super) fn probe(root: &Path, device: &Device) -> Result<Content, Error> {
    let mut file = open_device(root, device)?;
    let found = match examine(&mut file, device.size) {
        Ok(Look::Filesystem(fs, size, state)) => {
            return Ok(Content::Has(Signature::Filesystem { fs, size, state }));
        }
        Ok(Look::InProgress) => return Ok(Content::Unfinished(Unfinished::seen(device.clone()))),
        Ok(Look::Inhabited) => return Ok(Content::Has(Signature::Foreign(INHABITED.into()))),
        Ok(found) => found,
        Err(error) => return Ok(Content::Unreadable(format!("{device} cannot be read: {error}"))),
    };
    // `file` is open until the end, so blkid tells of the same device.
    let outcome = exec::run("blkid", &["-p", "-o", "export", &device.path().to_string_lossy()], PROBE_TIME)?;
    Ok(match (judge(&outcome), found) {
        (Verdict::Nothing, Look::InProgress | Look::Marked) => {
            Content::Unfinished(Unfinished::seen(device.clone()))
        }
        (Verdict::Nothing, Look::Inhabited) => Content::Has(Signature::Foreign(INHABITED.into())),
        (Verdict::Nothing, Look::Zero) => Content::Blank(Blank { device: device.clone() }),
        (Verdict::Nothing, Look::Data(at)) => {
            Content::Has(Signature::Foreign(format!("data at byte {at} that blkid does not know")))
        }
        (Verdict::Named(name), _) => Content::Has(Signature::Foreign(name)),
        (Verdict::Failed(reason), _) => Content::Unreadable(reason),
        (Verdict::Nothing, Look::Filesystem(fs, size, state)) => {
            Content::Has(Signature::Filesystem { fs, size, state })
        }
    })
}

/// What reading alone shows.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    /// One of our filesystems, its size, and what it says of itself.
    Filesystem(FsType, Bytes, State),
    /// A filesystem that says itself that it was never ended.
    InProgress,
    /// A filesystem that says the same, and holds something.
    Inhabited,
    /// No filesystem, and the mark of one that was never ended.
    Marked,
    /// Every region is zero.
    Zero,
    /// Something else, first seen at that byte.
    Data(u64),
}

fn examine(file: &mut File, size: Bytes) -> io::Result<Look> {
    let real = file.seek(SeekFrom::End(0))?;
    if real != size.get() {
        return Err(io::Error::other(format!("it has {} instead of {size}", Bytes::new(real))));
    }
    let mut buffer = Buffer::new();
    let head = buffer.read(file, 0, real.min(unfinished::XFS_LENGTH))?;
    match unfinished::xfs(head) {
        Some(Xfs::Empty) => return Ok(Look::InProgress),
        Some(Xfs::Inhabited) => return Ok(Look::Inhabited),
        None => {}
    }
    if let Some((fs, size, state)) = superblock::read(head) {
        return Ok(Look::Filesystem(fs, size, state));
    }
    for (begin, end) in regions(real) {
        let mut at = begin;
        while at < end {
            let bytes = buffer.read(file, at, (end - at).min(CHUNK as u64))?;
            if let Some(place) = bytes.iter().position(|byte| *byte != 0) {
                let marked = unfinished::is_marked(file, real)?;
                return Ok(if marked { Look::Marked } else { Look::Data(at + place as u64) });
            }
            at += bytes.len() as u64;
        }
    }
    Ok(Look::Zero)
}

/// The ranges to read, within the device. They begin and end at multiples of 4 KiB, or at the device's end.
pub(super) fn regions(size: u64) -> Vec<(u64, u64)> {
    let down = |at: u64| at - at % ALIGNMENT as u64;
    let mut regions = vec![(0, ENDS.min(size))];
    let groups = (1..ALLOCATION_GROUPS).map(|group| size / ALLOCATION_GROUPS * group);
    for copy in COPIES.into_iter().chain(groups) {
        // On both sides: group sizes are rounded.
        let begin = down(copy.saturating_sub(COPY_LENGTH));
        if begin < size {
            regions.push((begin, (down(copy) + COPY_LENGTH).min(size)));
        }
    }
    regions.push((down(size.saturating_sub(ENDS)), size));
    regions
}

/// A buffer that direct I/O takes. It begins as zeros.
pub(super) struct Buffer {
    bytes: Vec<u8>,
    begin: usize,
}

impl Buffer {
    pub(super) fn new() -> Self {
        let bytes = vec![0; CHUNK + ALIGNMENT];
        let begin = bytes.as_ptr().align_offset(ALIGNMENT);
        Self { bytes, begin }
    }

    pub(super) fn read(&mut self, file: &File, at: u64, length: u64) -> io::Result<&[u8]> {
        let bytes = self.bytes(length)?;
        file.read_exact_at(bytes, at)?;
        Ok(bytes)
    }

    /// Its first bytes, [`CHUNK`] at most.
    pub(super) fn bytes(&mut self, length: u64) -> io::Result<&mut [u8]> {
        let length = usize::try_from(length).map_err(io::Error::other)?;
        Ok(&mut self.bytes[self.begin..][..length])
    }
}

/// What `blkid -p` says.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It read the device, and found nothing.
    Nothing,
    /// What it found.
    Named(String),
    /// It could not tell.
    Failed(String),
}

/// blkid(8): 0 found, 2 nothing found or not readable, 8 several signatures that exclude each other, 4 wrong usage.
/// 'Not readable' is ruled out before: we have read the device ourselves.
fn judge(outcome: &exec::Outcome) -> Verdict {
    let field =
        |name: &str| outcome.stdout.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    match outcome.status.code() {
        Some(0) => Verdict::Named(match (field("TYPE"), field("PTTYPE")) {
            (Some(kind), _) => kind.into(),
            (None, Some(table)) => format!("a partition table ({table})"),
            (None, None) => format!("something that blkid calls {:?}", outcome.stdout),
        }),
        Some(2) if outcome.stdout.is_empty() && outcome.stderr.is_empty() => Verdict::Nothing,
        Some(8) => Verdict::Named("several signatures that exclude each other".into()),
        _ => Verdict::Failed(format!(
            "blkid failed with {}: {} {}",
            outcome.status, outcome.stdout, outcome.stderr
        )),
    }
}

#[cfg(test)]
mod tests;
