//! The superblocks of the filesystems that we make: which it is, and how large, from a device's first bytes.
//!
//! Anything else on a device is for `blkid` to name; these two are read here since every stage asks for them.

use rds_csi_api::{Bytes, FsType};

use super::probe::State;

/// How much of a device's beginning [`read`] needs.
pub(super) const LENGTH: usize = 4096;

/// Where an ext superblock begins (Documentation/filesystems/ext4/super.rst has its layout).
const EXT: usize = 1024;

/// What a filesystem with a journal may use and still be ext3 (EXT3_FEATURE_INCOMPAT_SUPP: filetype, recover, meta_bg).
const EXT3_INCOMPATIBLE: u32 = 0x2 | 0x4 | 0x10;
/// Likewise EXT3_FEATURE_RO_COMPAT_SUPP: sparse_super, large_file, btree_dir.
const EXT3_READ_ONLY: u32 = 0x1 | 0x2 | 0x4;
const HAS_JOURNAL: u32 = 0x4;
const JOURNAL_DEVICE: u32 = 0x8;
const BITS_64: u32 = 0x80;

/// `EXT4_ERROR_FS` in s_state: the kernel found an error, and e2fsck has not looked since.
const ERROR_FS: u16 = 0x2;

/// The filesystem whose superblock is there, the bytes that it spans, and what it says of itself. None if it is none of ours.
pub(super) fn read(head: &[u8]) -> Option<(FsType, Bytes, State)> {
    // XFS has no such mark: it shuts itself down at the first error that matters, and does not mount what it cannot trust.
    xfs(head).map(|size| (FsType::Xfs, size, State::Sound)).or_else(|| ext(head))
}

/// XFS is big-endian: magic, block size, number of data blocks (xfs_format.h, struct xfs_dsb).
fn xfs(head: &[u8]) -> Option<Bytes> {
    if head.get(..4)? != b"XFSB" {
        return None;
    }
    let block = u32::from_be_bytes(head.get(4..8)?.try_into().ok()?);
    let blocks = u64::from_be_bytes(head.get(8..16)?.try_into().ok()?);
    blocks.checked_mul(block.into()).map(Bytes::new)
}

/// ext is little-endian. ext2 is none of ours, and neither is a journal on a device of its own.
fn ext(head: &[u8]) -> Option<(FsType, Bytes, State)> {
    let superblock = head.get(EXT..)?;
    let number = |at: usize| Some(u32::from_le_bytes(superblock.get(at..at + 4)?.try_into().ok()?));
    if superblock.get(0x38..0x3a)? != [0x53, 0xef] {
        return None;
    }
    let (compatible, incompatible, read_only) = (number(0x5c)?, number(0x60)?, number(0x64)?);
    let newer = incompatible & !EXT3_INCOMPATIBLE != 0 || read_only & !EXT3_READ_ONLY != 0;
    let fs = match (newer, compatible & HAS_JOURNAL != 0) {
        _ if incompatible & JOURNAL_DEVICE != 0 => return None,
        (true, _) => FsType::Ext4,
        (false, true) => FsType::Ext3,
        (false, false) => return None,
    };
    let flags = u16::from_le_bytes(superblock.get(0x3a..0x3c)?.try_into().ok()?);
    let state = if flags & ERROR_FS != 0 { State::Flawed } else { State::Sound };
    let high = if incompatible & BITS_64 != 0 { number(0x150)? } else { 0 };
    let blocks = u64::from(high) << 32 | u64::from(number(0x4)?);
    let block = 1024u64.checked_shl(number(0x18)?)?;
    blocks.checked_mul(block).map(|size| (fs, Bytes::new(size), state))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::time::Duration;

    /// What the real tools write, into a file.
    fn made(program: &'static str, arguments: &[&str], size: u64) -> Option<(FsType, Bytes)> {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(size).unwrap();
        run(program, arguments, file.path());
        let (fs, size, state) = superblock(file.path())?;
        assert_eq!(state, State::Sound);
        Some((fs, size))
    }

    fn run(program: &'static str, arguments: &[&str], file: &Path) {
        let arguments: Vec<_> = arguments.iter().copied().chain(file.to_str()).collect();
        let outcome = crate::host::exec::run(program, &arguments, Duration::from_mins(1)).unwrap();
        // e2fsck says 1 where it has corrected something.
        assert!(matches!(outcome.status.code(), Some(0 | 1)), "{outcome:?}");
    }

    fn superblock(file: &Path) -> Option<(FsType, Bytes, State)> {
        let mut head = std::fs::read(file).unwrap();
        head.truncate(LENGTH);
        read(&head)
    }

    #[test]
    fn a_recorded_error_is_seen_until_e2fsck_has_looked() {
        for program in ["mkfs.ext4", "mkfs.ext3"] {
            let file = tempfile::NamedTempFile::new().unwrap();
            file.as_file().set_len(64 << 20).unwrap();
            let path = file.path();
            run(program, &["-q"], path);
            run("debugfs", &["-w", "-R", "set_super_value state 3"], path);
            assert_eq!(superblock(path).unwrap().2, State::Flawed, "{program}");
            run("e2fsck", &["-p"], path);
            assert_eq!(superblock(path).unwrap().2, State::Sound, "{program}");
        }
    }

    #[test]
    fn what_mkfs_makes_is_recognised_with_its_size() {
        let size = 320 << 20;
        let all = Bytes::new(size);
        assert_eq!(made("mkfs.ext4", &["-q"], size), Some((FsType::Ext4, all)));
        assert_eq!(made("mkfs.ext4", &["-q", "-b", "1024", "-O", "^64bit"], size), Some((FsType::Ext4, all)));
        assert_eq!(made("mkfs.ext3", &["-q"], size), Some((FsType::Ext3, all)));
        assert_eq!(made("mkfs.ext2", &["-q"], size), None);
        assert_eq!(made("mkfs.ext4", &["-q", "-O", "journal_dev"], size), None);
        assert_eq!(made("mkfs.xfs", &["-q"], size), Some((FsType::Xfs, all)));
    }

    #[test]
    fn zeros_noise_and_too_little_are_nothing() {
        assert_eq!(read(&[0; LENGTH]), None);
        assert_eq!(read(&[0xff; LENGTH]), None);
        assert_eq!(read(b"XFSB"), None);
        assert_eq!(read(&[]), None);
    }

    proptest::proptest! {
        #[test]
        fn no_superblock_makes_it_panic(mut head in proptest::collection::vec(proptest::num::u8::ANY, LENGTH)) {
            head[EXT + 0x38..EXT + 0x3a].copy_from_slice(&[0x53, 0xef]);
            read(&head);
            head[..4].copy_from_slice(b"XFSB");
            read(&head);
        }
    }
}
