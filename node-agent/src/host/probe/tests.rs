use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use super::*;

/// A device's bytes, in a file: it is read like a device, only not directly.
fn disk(size: u64, writes: &[(u64, &[u8])]) -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(size).unwrap();
    for (at, bytes) in writes {
        file.write_all_at(bytes, *at).unwrap();
    }
    file
}

fn look(size: u64, writes: &[(u64, &[u8])]) -> Look {
    examine(&mut disk(size, writes), Bytes::new(size)).unwrap()
}

const GIB: u64 = 1 << 30;

#[test]
fn lesson_1_zeros_everywhere_are_looked_for_where_signatures_live() {
    assert_eq!(look(2 * GIB, &[]), Look::Zero);
    // Each of these has been found alone on a device whose beginning somebody had wiped.
    for (what, at) in [
        ("the boot sector", 0),
        ("a partition table", 510),
        ("LVM", 512),
        ("LUKS 2, its second header", 2 * MIB),
        ("btrfs", 64 * KIB + 64),
        ("ext with small blocks, its first copy", 8 * MIB + KIB + 56),
        ("btrfs, its second copy", 64 * MIB + 64),
        ("ext4, its first copy", 128 * MIB + 56),
        ("ext4, its second copy", 384 * MIB + 56),
        ("XFS, its second group", 512 * MIB),
        ("XFS, its third group", GIB),
        ("XFS, its last group", GIB + 512 * MIB),
        ("ZFS, its third label", 2 * GIB - 512 * KIB),
        ("md 0.90", 2 * GIB - 64 * KIB),
        ("md 1.0", 2 * GIB - 8 * KIB),
        ("GPT, its backup", 2 * GIB - 512),
        ("the last byte", 2 * GIB - 1),
    ] {
        assert_eq!(look(2 * GIB, &[(at, b"\x01")]), Look::Data(at), "{what}");
    }
}

#[test]
fn btrfs_third_copy_is_looked_for_on_large_devices() {
    let at = 256 * GIB + 64;
    assert_eq!(look(300 * GIB, &[(at, b"_BHRfS_M")]), Look::Data(at));
}

#[test]
fn lesson_1_a_device_of_another_size_than_it_should_be_is_unreadable() {
    let error = examine(&mut disk(MIB, &[]), Bytes::new(2 * MIB)).unwrap_err().to_string();
    assert!(error.contains("1048576 bytes (1 MiB) instead of 2097152"), "{error}");
}

#[test]
fn lesson_1_a_device_that_cannot_be_read_is_never_zero() {
    // A file that was opened for writing only stands for a device that fails every read.
    let folder = tempfile::tempdir().unwrap();
    let mut file = File::create(folder.path().join("device")).unwrap();
    file.set_len(8 * MIB).unwrap();
    assert!(examine(&mut file, Bytes::mib(8)).is_err());
}

#[test]
fn small_and_odd_sizes_are_read_to_their_last_byte() {
    for size in [512, 4096, 4608, MIB, 4 * MIB + 512, 9 * MIB - 512] {
        assert_eq!(look(size, &[]), Look::Zero, "{size}");
        assert_eq!(look(size, &[(size - 1, b"x")]), Look::Data(size - 1), "{size}");
    }
}

proptest::proptest! {
    #[test]
    fn regions_stay_within_the_device_and_are_aligned(sectors in 1u64..=1 << 40) {
        let size = sectors * 512;
        for (begin, end) in regions(size) {
            proptest::prop_assert!(begin < end && end <= size);
            proptest::prop_assert_eq!(begin % 4096, 0);
            proptest::prop_assert!(end % 4096 == 0 || end == size);
        }
    }
}

fn outcome(code: i32, stdout: &str, stderr: &str) -> exec::Outcome {
    exec::Outcome { status: ExitStatus::from_raw(code << 8), stdout: stdout.into(), stderr: stderr.into() }
}

#[test]
fn lesson_1_only_silence_of_blkid_is_nothing() {
    assert_eq!(judge(&outcome(2, "", "")), Verdict::Nothing);
    assert_eq!(
        judge(&outcome(0, "DEVNAME=/dev/x\nUUID=1\nVERSION=2\nTYPE=crypto_LUKS\nUSAGE=crypto", "")),
        Verdict::Named("crypto_LUKS".into())
    );
    assert_eq!(
        judge(&outcome(0, "DEVNAME=/dev/x\nPTUUID=1\nPTTYPE=gpt", "")),
        Verdict::Named("a partition table (gpt)".into())
    );
    assert!(matches!(judge(&outcome(8, "", "")), Verdict::Named(_)));
    assert!(matches!(judge(&outcome(2, "", "blkid: error: /dev/x: No such file")), Verdict::Failed(_)));
    assert!(matches!(judge(&outcome(4, "", "usage")), Verdict::Failed(_)));
    let killed =
        exec::Outcome { status: ExitStatus::from_raw(9), stdout: String::new(), stderr: String::new() };
    assert!(matches!(judge(&killed), Verdict::Failed(_)));
}

#[test]
fn lesson_1_blkid_names_what_the_real_tools_leave() {
    let named = |file: &tempfile::NamedTempFile| {
        let path = file.path().to_str().unwrap();
        judge(&exec::run("blkid", &["-p", "-o", "export", path], PROBE_TIME).unwrap())
    };
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(64 * MIB).unwrap();
    assert_eq!(named(&file), Verdict::Nothing);
    // The magic of a LUKS 1 header, of an LVM label, and of a swap area.
    for (at, magic, name) in [
        (0, &b"LUKS\xba\xbe\x00\x01"[..], "crypto_LUKS"),
        (4086, b"SWAPSPACE2", "swap"),
        (64 * KIB + 64, b"_BHRfS_M", "btrfs"),
    ] {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(64 * MIB).unwrap();
        file.as_file().write_all_at(magic, at).unwrap();
        let seen = named(&file);
        assert!(seen == Verdict::Named(name.into()) || seen == Verdict::Nothing, "{name}: {seen:?}");
        assert_eq!(examine(&mut file.reopen().unwrap(), Bytes::mib(64)).unwrap(), Look::Data(at), "{name}");
    }
}

/// What a real mkfs writes onto a device of this size.
fn made(program: &'static str, options: &[&str], file: &tempfile::NamedTempFile, size: Option<String>) {
    let path = file.path().to_str().unwrap().to_owned();
    let operands: Vec<_> = [path].into_iter().chain(size).collect();
    let arguments: Vec<_> = options.iter().copied().chain(operands.iter().map(String::as_str)).collect();
    let outcome = exec::run(program, &arguments, Duration::from_mins(1)).unwrap();
    assert!(outcome.status.success(), "{outcome:?}");
}

fn examined(file: &tempfile::NamedTempFile, size: u64) -> Look {
    examine(&mut file.reopen().unwrap(), Bytes::new(size)).unwrap()
}

#[test]
fn an_ext4_that_was_cut_off_is_told_by_its_mark_and_wiped() {
    let size = 320 * MIB;
    let device = tempfile::NamedTempFile::new().unwrap();
    device.as_file().set_len(size).unwrap();
    unfinished::write_mark(device.as_file(), size).unwrap();
    assert_eq!(examined(&device, size), Look::Marked);
    let kib = unfinished::ext_kib(Bytes::new(size));
    made("mkfs.ext4", &["-q", "-m", "0", "-E", "nodiscard"], &device, Some(format!("{kib}k")));
    // The filesystem ends before its mark, and no growth is wanted for what is left there.
    let Look::Filesystem(FsType::Ext4, end, _) = examined(&device, size) else { panic!("no filesystem") };
    assert_eq!(
        Content::Has(Signature::Filesystem { fs: FsType::Ext4, size: end, state: State::Sound })
            .fit(Bytes::new(size)),
        Fit::Fills
    );
    assert!(unfinished::outlived(device.as_file(), size).unwrap());

    // What mke2fs writes last was not written.
    device.as_file().write_all_at(&[0; 1024], 1024).unwrap();
    assert!(!unfinished::outlived(device.as_file(), size).unwrap());
    assert_eq!(examined(&device, size), Look::Marked);
    unfinished::wipe_file(device.as_file(), size).unwrap();
    assert_eq!(examined(&device, size), Look::Zero);
}

#[test]
fn lesson_1_the_same_without_the_mark_is_somebody_s_data() {
    let size = 320 * MIB;
    let device = tempfile::NamedTempFile::new().unwrap();
    device.as_file().set_len(size).unwrap();
    made("mkfs.ext4", &["-q"], &device, None);
    // Even if a file of it ends in what looks like a mark: that is within the filesystem.
    unfinished::write_mark(device.as_file(), size).unwrap();
    assert!(!unfinished::outlived(device.as_file(), size).unwrap());
    device.as_file().write_all_at(&[0; 4096], size - 4096).unwrap();
    device.as_file().write_all_at(&[0; 1024], 1024).unwrap();
    assert!(matches!(examined(&device, size), Look::Data(_)));
}

#[test]
fn an_xfs_that_was_cut_off_says_so_itself_and_one_that_was_in_use_never_does() {
    let size = 320 * MIB;
    let device = tempfile::NamedTempFile::new().unwrap();
    device.as_file().set_len(size).unwrap();
    made("mkfs.xfs", &["-q", "-K"], &device, None);
    assert!(matches!(examined(&device, size), Look::Filesystem(FsType::Xfs, ..)));
    device.as_file().write_all_at(&[1], 126).unwrap();
    assert!(matches!(examined(&device, size), Look::Filesystem(FsType::Xfs, ..)), "it counts inodes");
    device.as_file().write_all_at(&[0; 8], 128).unwrap();
    assert_eq!(examined(&device, size), Look::Inhabited, "its first group counts inodes");
    // So it is until the root directory is made, and so before the groups' headers are written.
    for (at, zeros) in [(1024 + 16, 4), (512, 4096)] {
        device.as_file().write_all_at(&vec![0; zeros], at).unwrap();
        assert_eq!(examined(&device, size), Look::InProgress);
    }
    unfinished::wipe_file(device.as_file(), size).unwrap();
    assert_eq!(examined(&device, size), Look::Zero);
}

#[test]
fn lesson_1_a_finished_xfs_with_another_superblock_in_the_place_of_its_first_is_not_unfinished() {
    let size = 320 * MIB;
    for options in [&["-q", "-K"][..], &["-q", "-K", "-s", "size=4096"]] {
        let device = tempfile::NamedTempFile::new().unwrap();
        device.as_file().set_len(size).unwrap();
        made("mkfs.xfs", options, &device, None);
        let number = |at| {
            let mut bytes = [0; 4];
            device.as_file().read_exact_at(&mut bytes, at).unwrap();
            u64::from(u32::from_be_bytes(bytes))
        };
        // sb_agblocks times sb_blocksize.
        let mut second = [0; 512];
        device.as_file().read_exact_at(&mut second, number(84) * number(4)).unwrap();
        assert_eq!((second[126], &second[128..136]), (1, &[0; 8][..]), "{options:?}");
        device.as_file().write_all_at(&second, 0).unwrap();
        assert_eq!(examined(&device, size), Look::Inhabited, "{options:?}");
        // What xfs_repair makes of it is a filesystem again, as the message says.
        made("xfs_repair", &[], &device, None);
        assert!(matches!(examined(&device, size), Look::Filesystem(FsType::Xfs, ..)), "{options:?}");
    }
}
