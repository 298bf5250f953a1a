//! Mounts: the kernel's table of them, and the system calls that change it.
//!
//! Nothing is remembered: what is mounted is what mountinfo says now (proc_pid_mountinfo(5)).

use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rds_csi_api::FsType;
use rds_csi_api::text::Malformed;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use super::kubelet_path::path_of;
use super::{Device, DeviceNumber, Error, KubeletPath};

/// One line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Of the filesystem's device.
    pub device: DeviceNumber,
    /// Which directory of the filesystem is mounted.
    pub root: PathBuf,
    /// Where.
    pub at: PathBuf,
    /// Of this mount, not of its filesystem: `rw`, `noatime`, ….
    pub options: Vec<String>,
    /// The type, such as `ext4`.
    pub filesystem: String,
    /// What was given to mount(2) as the source.
    pub source: String,
    /// Of the filesystem.
    pub super_options: Vec<String>,
}

impl Mount {
    /// Whether nothing can be written through this mount. After an error ext4 says `ro`, and since Linux 6.15 `emergency_ro`
    /// beside an `rw` that is no longer true.
    pub fn is_read_only(&self) -> bool {
        let mut options = self.options.iter().chain(&self.super_options);
        options.any(|option| matches!(option.as_str(), "ro" | "emergency_ro"))
    }
}

impl Mount {
    /// Whether it was mounted for writing and its filesystem does not take it any more, as after an error.
    pub fn stopped_writing(&self) -> bool {
        let has = |options: &[String], words: &[&str]| {
            options.iter().any(|option| words.contains(&option.as_str()))
        };
        !has(&self.options, &["ro"]) && has(&self.super_options, &["ro", "emergency_ro"])
    }

    /// Whether its filesystem takes no more writes once it has recorded an error. Not every kernel says so among its mounts
    /// (Debian's 6.1.0-56 was seen not to).
    pub fn stops_at_errors(&self) -> bool {
        let has = |options: &[String], word| options.iter().any(|option| option == word);
        !has(&self.options, "ro") && has(&self.super_options, "errors=remount-ro")
    }
}

/// The mounts of one mount namespace, in the order in which the kernel gives them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mounts(Vec<Mount>);

impl Mounts {
    /// Reads the text of a mountinfo file.
    pub(super) fn parse(path: &Path, text: &[u8]) -> Result<Self, Error> {
        let line = |line: &[u8]| {
            parse_line(line).ok_or_else(|| Error::Form {
                path: path.into(),
                text: String::from_utf8_lossy(line).into_owned(),
            })
        };
        text.split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(line)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Mount> {
        self.0.iter()
    }

    /// Everything mounted at exactly this path, the topmost last.
    pub fn layers<'a>(&'a self, at: &'a Path) -> impl DoubleEndedIterator<Item = &'a Mount> {
        self.0.iter().filter(move |mount| mount.at == at)
    }

    /// Those of a device: of its filesystem, or of its own node, which is a file of devtmpfs.
    pub fn of<'a>(&'a self, device: &'a Device) -> impl Iterator<Item = &'a Mount> {
        let is_node = |mount: &Mount| {
            mount.filesystem == "devtmpfs"
                && mount.root.strip_prefix("/").is_ok_and(|name| name == Path::new(&device.name))
        };
        self.0.iter().filter(move |mount| mount.device == device.number || is_node(mount))
    }

    /// What a look at this path meets.
    pub fn top(&self, at: &KubeletPath) -> Option<&Mount> {
        self.0.iter().rfind(|mount| mount.at == at.as_path())
    }
}

impl FromIterator<Mount> for Mounts {
    fn from_iter<I: IntoIterator<Item = Mount>>(mounts: I) -> Self {
        Self(mounts.into_iter().collect())
    }
}

/// `36 35 98:0 /mnt1 /mnt/parent rw,noatime master:1 - ext3 /dev/root rw,errors=continue`; the fields before the dash may
/// be more, and a filesystem may have an empty source.
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let mut next = || fields.next();
    let (_id, _parent, device, root, at, options) = (next()?, next()?, next()?, next()?, next()?, next()?);
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let (filesystem, source, super_options) = (rest.next()?, rest.next()?, rest.next().unwrap_or_default());
    let text = |field: &[u8]| unescape(field).to_string_lossy().into_owned();
    let list = |field: &[u8]| text(field).split(',').map(Into::into).collect();
    Some(Mount {
        device: std::str::from_utf8(device).ok()?.parse().ok()?,
        root: unescape(root).into(),
        at: unescape(at).into(),
        options: list(options),
        filesystem: text(filesystem),
        source: text(source),
        super_options: list(super_options),
    })
}

/// The kernel writes space, tab, newline, backslash and '#' as a backslash and three octal digits (fs/proc_namespace.c).
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = |digits: &[u8]| {
            digits.iter().try_fold(0u32, |sum, digit| {
                (b'0'..=b'7').contains(digit).then(|| sum * 8 + u32::from(digit - b'0'))
            })
        };
        let escaped = tail.get(..3).and_then(octal).and_then(|value| u8::try_from(value).ok());
        if let (b'\\', Some(byte)) = (first, escaped) {
            bytes.push(byte);
            rest = &tail[3..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    OsString::from_vec(bytes)
}

/// How to mount: what mount(2) takes as flags, and what the filesystem reads itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOptions {
    flags: MountFlags,
    data: Vec<String>,
}

impl MountOptions {
    /// Reads the words that mount(8) knows. Only what is given is set; nothing is added.
    pub fn parse<S: AsRef<str>>(words: &[S]) -> Result<Self, Malformed> {
        let mut options = Self { flags: MountFlags::empty(), data: Vec::new() };
        for word in words.iter().flat_map(|words| words.as_ref().split(',')).filter(|word| !word.is_empty()) {
            options.add(word)?;
        }
        Ok(options)
    }

    /// The same, read-only.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.flags |= MountFlags::RDONLY;
        self
    }

    /// Whether the mount is to be read-only.
    pub fn is_read_only(&self) -> bool {
        self.flags.contains(MountFlags::RDONLY)
    }

    fn add(&mut self, word: &str) -> Result<(), Malformed> {
        match word {
            "ro" => self.flags |= MountFlags::RDONLY,
            "rw" => self.flags -= MountFlags::RDONLY,
            "nosuid" => self.flags |= MountFlags::NOSUID,
            "suid" => self.flags -= MountFlags::NOSUID,
            "nodev" => self.flags |= MountFlags::NODEV,
            "dev" => self.flags -= MountFlags::NODEV,
            "noexec" => self.flags |= MountFlags::NOEXEC,
            "exec" => self.flags -= MountFlags::NOEXEC,
            "sync" => self.flags |= MountFlags::SYNCHRONOUS,
            "async" => self.flags -= MountFlags::SYNCHRONOUS,
            "dirsync" => self.flags |= MountFlags::DIRSYNC,
            "noatime" => self.flags |= MountFlags::NOATIME,
            "atime" => self.flags -= MountFlags::NOATIME,
            "nodiratime" => self.flags |= MountFlags::NODIRATIME,
            "diratime" => self.flags -= MountFlags::NODIRATIME,
            "relatime" => self.flags |= MountFlags::RELATIME,
            "norelatime" => self.flags -= MountFlags::RELATIME,
            "strictatime" => self.flags |= MountFlags::STRICTATIME,
            "nostrictatime" => self.flags -= MountFlags::STRICTATIME,
            "lazytime" => self.flags |= MountFlags::LAZYTIME,
            "nolazytime" => self.flags -= MountFlags::LAZYTIME,
            "nosymfollow" => self.flags |= MountFlags::NOSYMFOLLOW,
            "silent" => self.flags |= MountFlags::SILENT,
            // What mount(8) keeps to itself, and what means nothing here.
            "defaults" | "auto" | "noauto" | "nofail" | "_netdev" => {}
            word if word.starts_with("x-") || word.starts_with("X-") => {}
            "bind" | "rbind" | "move" | "remount" | "loop" | "shared" | "rshared" | "private"
            | "rprivate" | "slave" | "rslave" | "unbindable" | "runbindable" => {
                return Err(Malformed::new(
                    "mount flag",
                    word,
                    "it would mount something else than the volume; leave it out",
                ));
            }
            word if word.contains('\0') => {
                return Err(Malformed::new("mount flag", word, "it contains a NUL byte"));
            }
            word => self.data.push(word.into()),
        }
        Ok(())
    }
}

/// mount(2).
pub(super) fn mount(
    device: &Device,
    fs: FsType,
    at: &KubeletPath,
    options: &MountOptions,
) -> Result<(), Error> {
    let directory =
        at.open_directory()?.ok_or_else(|| Error::system("mount at", at.as_path())(Errno::NOENT))?;
    let data =
        CString::new(data(fs, options)).map_err(|_| Error::system("mount at", at.as_path())(Errno::INVAL))?;
    match rustix::mount::mount(device.path(), path_of(&directory), fs.as_str(), options.flags, &*data) {
        Ok(()) => Ok(()),
        Err(error) => Err(not_mounted(device, fs, at.as_path(), options, error)),
    }
}

/// What the filesystem itself is told. A clone has the UUID of its source, and XFS mounts no UUID twice unless it is told not to
/// compare them. Nothing is lost by that: which volume a device is, its NQN says.
fn data(fs: FsType, options: &MountOptions) -> String {
    let mut words: Vec<_> = options.data.iter().map(String::as_str).collect();
    if fs == FsType::Xfs && !words.contains(&"nouuid") {
        words.push("nouuid");
    }
    words.join(",")
}

/// What it means that mount(2) failed.
fn not_mounted(device: &Device, fs: FsType, at: &Path, options: &MountOptions, error: Errno) -> Error {
    match error {
        Errno::BUSY => Error::Busy { what: device.to_string() },
        // So a filesystem answers to an option that it does not know, and a repair is not for what may be a slip of the pen.
        Errno::INVAL if !options.data.is_empty() => Error::Options {
            device: device.clone(),
            fs,
            options: options.data.join(","),
            source: error.into(),
        },
        error if is_damage(fs, error) => {
            Error::Unmountable { device: device.clone(), fs, source: error.into() }
        }
        error => Error::system("mount at", at)(error),
    }
}

/// What a filesystem answers to a superblock, a journal or a checksum that is wrong: EUCLEAN is EFSCORRUPTED, and EBADMSG is
/// EFSBADCRC. ext4 says EINVAL too; XFS says so to a bad option or a second copy of itself, which no repair would mend.
fn is_damage(fs: FsType, error: Errno) -> bool {
    match fs {
        FsType::Ext3 | FsType::Ext4 => matches!(error, Errno::UCLEAN | Errno::BADMSG | Errno::INVAL),
        FsType::Xfs => matches!(error, Errno::UCLEAN | Errno::BADMSG),
    }
}

/// A bind mount. It takes over the flags of the mount it is made from.
pub(super) fn bind(from: &KubeletPath, to: &KubeletPath) -> Result<(), Error> {
    let missing = |path: &KubeletPath| Error::system("bind", path.as_path())(Errno::NOENT);
    let source = from.open_directory()?.ok_or_else(|| missing(from))?;
    let target = to.open_directory()?.ok_or_else(|| missing(to))?;
    rustix::mount::mount_bind(path_of(&source), path_of(&target))
        .map_err(Error::system("bind to", to.as_path()))
}

/// Makes one mount read-only. A remount sets all flags of the mount at once, so those it has are given again.
pub(super) fn make_read_only(at: &KubeletPath, present: &Mount) -> Result<(), Error> {
    let directory =
        at.open_directory()?.ok_or_else(|| Error::system("remount", at.as_path())(Errno::NOENT))?;
    let kept = present.options.iter().fold(MountFlags::empty(), |flags, option| {
        flags
            | match option.as_str() {
                "nosuid" => MountFlags::NOSUID,
                "nodev" => MountFlags::NODEV,
                "noexec" => MountFlags::NOEXEC,
                "noatime" => MountFlags::NOATIME,
                "nodiratime" => MountFlags::NODIRATIME,
                "relatime" => MountFlags::RELATIME,
                "nosymfollow" => MountFlags::NOSYMFOLLOW,
                _ => MountFlags::empty(),
            }
    });
    let flags = kept | MountFlags::BIND | MountFlags::RDONLY;
    rustix::mount::mount_remount(path_of(&directory), flags, "")
        .map_err(Error::system("remount read-only", at.as_path()))
}

/// umount(2) of the topmost layer.
pub(super) fn unmount(at: &KubeletPath) -> Result<(), Error> {
    umount(at, UnmountFlags::empty())
}

/// The topmost layer vanishes at once, and its filesystem when the last open file of it is closed.
pub(super) fn detach(at: &KubeletPath) -> Result<(), Error> {
    umount(at, UnmountFlags::DETACH)
}

/// Named through its parent: an open descriptor of the mount itself would keep it busy.
fn umount(at: &KubeletPath, flags: UnmountFlags) -> Result<(), Error> {
    let parent = at.open_parent()?.ok_or_else(|| Error::system("unmount", at.as_path())(Errno::NOENT))?;
    match rustix::mount::unmount(path_of(&parent).join(at.name()), UnmountFlags::NOFOLLOW | flags) {
        Ok(()) => Ok(()),
        Err(Errno::BUSY) => Err(Error::Busy { what: at.to_string() }),
        Err(error) => Err(Error::system("unmount", at.as_path())(error)),
    }
}

/// The mounts as one process sees them. A process without a mount namespace (a zombie) has none.
pub(super) fn of_process(proc: &Path, process: &OsStr) -> Result<Mounts, Error> {
    let path = proc.join(process).join("mountinfo");
    match fs::read(&path) {
        Ok(text) => Mounts::parse(&path, &text),
        Err(error) => Err(Error::system("read", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use rds_csi_api::{Bytes, Failure, Kind};

    use super::*;

    fn parse(text: &str) -> Result<Mounts, Error> {
        Mounts::parse(Path::new("mountinfo"), text.as_bytes())
    }

    #[test]
    fn a_table_is_read_with_its_escapes_and_optional_fields() {
        let mounts = parse(
            "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
             40 22 259:3 /sub /var/lib/kubelet/a\\040b\\134c\\011d\\012e\\043f ro,noatime shared:7 master:2 propagate_from:3 - xfs /dev/nvme1n1 rw,attr2\n\
             41 22 0:31 / /mnt rw - tmpfs  rw\n",
        )
        .unwrap();
        let all: Vec<_> = mounts.iter().collect();
        assert_eq!(all.len(), 3);
        assert_eq!(all[1].at, Path::new("/var/lib/kubelet/a b\\c\td\ne#f"));
        assert_eq!(
            (all[1].device, all[1].root.as_path()),
            (DeviceNumber { major: 259, minor: 3 }, Path::new("/sub"))
        );
        assert_eq!((all[1].filesystem.as_str(), all[1].source.as_str()), ("xfs", "/dev/nvme1n1"));
        assert!(all[1].is_read_only() && !all[0].is_read_only());
        assert_eq!((all[2].filesystem.as_str(), all[2].source.as_str()), ("tmpfs", ""));
    }

    #[test]
    fn a_line_of_another_form_is_an_error_and_not_a_missing_mount() {
        for line in
            ["22 1 254:0 / /", "22 1 254 / / rw - ext4 /dev/vda rw", "22 1 254:0 / / rw ext4 /dev/vda rw"]
        {
            assert!(matches!(parse(line), Err(Error::Form { .. })), "{line}");
        }
    }

    #[test]
    fn the_last_of_several_layers_is_on_top() {
        let mounts = parse(
            "30 1 259:1 / /k/x rw - ext4 /dev/nvme0n1 rw\n\
             31 1 259:9 / /k/xy rw - ext4 /dev/nvme9n1 rw\n\
             32 30 259:2 / /k/x rw - ext4 /dev/nvme1n1 rw\n",
        )
        .unwrap();
        assert_eq!(mounts.layers(Path::new("/k/x")).count(), 2);
        assert_eq!(mounts.layers(Path::new("/k/x")).next_back().unwrap().device.minor, 2);
    }

    #[test]
    fn a_broken_escape_is_left_as_it_is() {
        assert_eq!(unescape(b"a\\04"), "a\\04");
        assert_eq!(unescape(b"a\\777"), "a\\777");
        assert_eq!(unescape(b"\\\\040"), "\\ ");
    }

    #[test]
    fn lesson_21_mount_flags_are_honoured_and_nothing_is_added() {
        let none = MountOptions::parse::<&str>(&[]).unwrap();
        assert_eq!((none.flags, none.data.len()), (MountFlags::empty(), 0));
        let some =
            MountOptions::parse(&["noatime,nodev", "discard", "ro", "logbsize=256k", "_netdev"]).unwrap();
        assert_eq!(some.flags, MountFlags::NOATIME | MountFlags::NODEV | MountFlags::RDONLY);
        assert_eq!(some.data, ["discard", "logbsize=256k"]);
        let last = MountOptions::parse(&["ro", "noexec", "rw", "exec"]).unwrap();
        assert_eq!(last.flags, MountFlags::empty());
    }

    #[test]
    fn lesson_20_a_clone_of_an_xfs_is_mounted_beside_its_source() {
        let given = |flags: &[&str]| MountOptions::parse(flags).unwrap();
        assert_eq!(data(FsType::Xfs, &given(&["noatime"])), "nouuid");
        assert_eq!(data(FsType::Xfs, &given(&["nouuid", "logbsize=256k"])), "nouuid,logbsize=256k");
        assert_eq!(data(FsType::Ext4, &given(&["discard"])), "discard");
    }

    #[test]
    fn lesson_20_a_bad_option_for_xfs_is_no_damage() {
        assert!(is_damage(FsType::Ext4, Errno::INVAL) && is_damage(FsType::Xfs, Errno::UCLEAN));
        assert!(!is_damage(FsType::Xfs, Errno::INVAL) && !is_damage(FsType::Ext4, Errno::IO));
    }

    #[test]
    fn a_filesystem_that_ext4_stopped_writing_to_is_read_only() {
        for (options, read_only) in
            [("rw,errors=remount-ro", false), ("ro,errors=remount-ro", true), ("rw,emergency_ro", true)]
        {
            let mounts = parse(&format!("30 1 259:1 / /k/x rw - ext4 /dev/nvme0n1 {options}\n")).unwrap();
            assert_eq!(mounts.iter().next().unwrap().is_read_only(), read_only, "{options}");
        }
    }

    #[test]
    fn a_wrong_mount_flag_is_named_and_is_no_damage() {
        let number = DeviceNumber { major: 259, minor: 3 };
        let nqn = "nqn.2000-02.com.mikrotik:pvc-a".parse().unwrap();
        let device = Device { name: "nvme1n1".into(), number, size: Bytes::gib(1), nqn };
        let refusal = |fs, flags: &[&str], error| {
            not_mounted(&device, fs, Path::new("/k/x"), &MountOptions::parse(flags).unwrap(), error)
        };
        for fs in [FsType::Ext4, FsType::Xfs] {
            let error = refusal(fs, &["noatime", "discrad", "commit=5"], Errno::INVAL);
            assert_eq!(error.kind(), Kind::Invalid);
            assert!(error.to_string().contains("\"discrad,commit=5\": correct mountOptions"), "{error}");
        }
        for (flags, error) in [(&["noatime"][..], Errno::INVAL), (&["discard"], Errno::UCLEAN)] {
            assert!(matches!(refusal(FsType::Ext4, flags, error), Error::Unmountable { .. }), "{flags:?}");
        }
    }

    #[test]
    fn a_flag_that_would_mount_something_else_is_refused() {
        for flag in ["bind", "remount", "rw,move", "rshared"] {
            assert!(MountOptions::parse(&[flag]).unwrap_err().to_string().contains("leave it out"), "{flag}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_mount_point_comes_back_as_it_was(name in "[ -~\t\n]{1,20}") {
            let escaped: String = name
                .bytes()
                .map(|byte| match byte {
                    b' ' | b'\t' | b'\n' | b'\\' | b'#' => format!("\\{byte:03o}"),
                    byte => char::from(byte).to_string(),
                })
                .collect();
            let mounts = parse(&format!("1 2 3:4 / /{escaped} rw - ext4 /dev/x rw\n")).unwrap();
            let expected = format!("/{name}");
            proptest::prop_assert_eq!(mounts.iter().next().unwrap().at.as_os_str(), OsStr::from_bytes(expected.as_bytes()));
        }
    }
}
