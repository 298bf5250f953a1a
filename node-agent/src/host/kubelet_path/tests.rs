use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use rds_csi_api::{Bytes, FsType};

use super::*;
use crate::host::{Device, DeviceNumber, Mount, MountOptions, device_node, filesystem, mount};

#[test]
fn a_path_beneath_the_directory_is_taken() {
    let kubelet = KubeletDir::imagined("/var/lib/kubelet");
    let path = kubelet.beneath("/var/lib/kubelet/plugins/x/globalmount").unwrap();
    assert_eq!(path.as_path(), Path::new("/var/lib/kubelet/plugins/x/globalmount"));
    assert!(kubelet.beneath("/var/lib/kubelet/pods/").is_ok());
}

#[test]
fn a_path_anywhere_else_is_refused_by_name() {
    let kubelet = KubeletDir::imagined("/var/lib/kubelet");
    assert_eq!(kubelet.beneath(""), Err(Outside::Empty));
    for path in [
        "/",
        "/etc",
        "/var/lib/kubelet",
        "/var/lib/kubelet/",
        "/var/lib/kubelets/x",
        "/var/lib/kubelet/../x",
        "/var/lib/kubelet/pods/../../../../etc",
        "/var/lib/kubelet/./x",
        "pods/x",
        "./var/lib/kubelet/x",
        "/var/lib/kubelet/x\0y",
    ] {
        let error = kubelet.beneath(path).unwrap_err().to_string();
        assert!(error.contains("not beneath the kubelet directory"), "{path:?}: {error}");
    }
}

#[test]
fn a_directory_behind_a_link_is_named_as_the_mount_table_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let real = folder.path().canonicalize().unwrap().join("data");
    std::fs::create_dir(&real).unwrap();
    let link = folder.path().join("kubelet");
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let kubelet = KubeletDir::open(&link).unwrap();
    for base in [&link, &real] {
        let path = kubelet.beneath(base.join("pods/a").to_str().unwrap()).unwrap();
        assert_eq!(path.as_path(), real.join("pods/a"));
    }
}

#[test]
fn a_link_within_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("pods/honest")).unwrap();
    std::os::unix::fs::symlink("/etc", folder.path().join("pods/sly")).unwrap();
    let kubelet = KubeletDir::open(folder.path()).unwrap();
    let path = |end: &str| kubelet.beneath(folder.path().join(end).to_str().unwrap()).unwrap();
    assert!(path("pods/honest/target").open_parent().unwrap().is_some());
    assert!(path("top").open_parent().unwrap().is_some());
    assert!(path("pods/nobody/target").open_parent().unwrap().is_none());
    assert!(matches!(path("pods/sly/target").open_parent(), Err(Error::Escapes(_))));
    assert!(matches!(path("pods/sly").open_directory(), Err(Error::Escapes(_))));
}

const NUMBER: DeviceNumber = DeviceNumber { major: 259, minor: 77 };

type Act = fn(&KubeletPath) -> Result<(), Error>;

fn device() -> Device {
    let nqn = "nqn.2000-02.com.mikrotik:pvc-a".parse().unwrap();
    Device { name: "nvme77n1".into(), number: NUMBER, size: Bytes::gib(1), nqn }
}

/// Somewhere honest beneath the same directory.
fn beside(at: &KubeletPath) -> KubeletPath {
    at.directory.beneath(at.directory.0.real.join("honest").to_str().unwrap()).unwrap()
}

/// Everything that is done at a path of kubelet's.
const ACTS: [(&str, Act); 11] = [
    ("look", |at| device_node::found_at(at).map(drop)),
    ("mkdir", device_node::make_directory),
    ("mknod", |at| device_node::make_node(&device(), at)),
    ("rmdir", device_node::remove_directory),
    ("unlink", device_node::remove_node),
    ("mount", |at| mount::mount(&device(), FsType::Ext4, at, &MountOptions::parse::<&str>(&[]).unwrap())),
    ("bind from", |at| mount::bind(at, &beside(at))),
    ("bind to", |at| mount::bind(&beside(at), at)),
    ("remount", |at| mount::make_read_only(at, &nothing_mounted(at))),
    ("unmount", mount::unmount),
    ("measure", |at| filesystem::usage(at, NUMBER).map(drop)),
];

fn nothing_mounted(at: &KubeletPath) -> Mount {
    Mount {
        device: NUMBER,
        root: "/".into(),
        at: at.as_path().into(),
        options: Vec::new(),
        filesystem: "ext4".into(),
        source: String::new(),
        super_options: Vec::new(),
    }
}

/// Each path below a directory, with what changes if anything is done to it.
fn everything(directory: &Path) -> Vec<(PathBuf, u32, u64, i64, i64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let stat = path.symlink_metadata().unwrap();
        found.push((path.clone(), stat.mode(), stat.rdev(), stat.ctime(), stat.ctime_nsec()));
        if stat.is_dir() {
            found.extend(everything(&path));
        }
    }
    found.sort();
    found
}

/// As root too, when these calls would do what they are asked.
#[test]
fn no_act_leaves_by_a_link_at_any_part_of_its_path() {
    let parts = ["pods", "uid", "volumes", "target"];
    for (name, act) in ACTS {
        for link in 0..parts.len() {
            let folder = tempfile::tempdir().unwrap();
            let (inside, outside) = (folder.path().join("kubelet"), folder.path().join("outside"));
            let (before, rest) = (parts[..link].iter(), parts[link + 1..].iter());
            let parent = before.fold(inside.clone(), |path, part| path.join(part));
            fs::create_dir_all(&parent).unwrap();
            fs::create_dir(inside.join("honest")).unwrap();
            // What the act would meet there is what it is looking for: an empty directory, or nothing.
            let end = rest.fold(outside.clone(), |path, part| path.join(part));
            let makes = matches!(name, "mkdir" | "mknod") && link + 1 < parts.len();
            fs::create_dir_all(if makes { end.parent().unwrap() } else { &end }).unwrap();
            symlink(&outside, parent.join(parts[link])).unwrap();
            let kubelet = KubeletDir::open(&inside).unwrap();
            let target = kubelet.beneath(inside.join(parts.join("/")).to_str().unwrap()).unwrap();

            let untouched = everything(folder.path());
            let outcome = act(&target);
            assert_eq!(everything(folder.path()), untouched, "{name} with a link at {}", parts[link]);
            if link + 1 < parts.len() {
                assert!(matches!(outcome, Err(Error::Escapes(_))), "{name} at {}: {outcome:?}", parts[link]);
            } else {
                // A link at the end is found to be there already, or refused.
                assert_eq!(outcome.is_ok(), matches!(name, "look" | "mkdir"), "{name}: {outcome:?}");
            }
        }
    }
}

#[test]
fn a_link_that_comes_and_goes_between_check_and_use_leads_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let (inside, outside) = (folder.path().join("kubelet"), folder.path().join("outside"));
    fs::create_dir_all(inside.join("pods/uid")).unwrap();
    fs::create_dir(&outside).unwrap();
    let kubelet = KubeletDir::open(&inside).unwrap();
    let target = kubelet.beneath(inside.join("pods/uid/target").to_str().unwrap()).unwrap();
    let untouched = outside.metadata().unwrap();
    let end = AtomicBool::new(false);
    let (mut escapes, mut made) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (honest, aside) = (inside.join("pods/uid"), inside.join("pods/aside"));
            while !end.load(Ordering::Relaxed) {
                fs::rename(&honest, &aside).unwrap();
                symlink(&outside, &honest).unwrap();
                fs::remove_file(&honest).unwrap();
                fs::rename(&aside, &honest).unwrap();
            }
        });
        // Until both were met often, or for as long as it is reasonable to try.
        for _ in 0..100_000 {
            match device_node::make_directory(&target) {
                Ok(()) => made += 1,
                Err(Error::Escapes(_)) => escapes += 1,
                Err(_) => {}
            }
            let _ = device_node::remove_directory(&target);
            if made > 100 && escapes > 100 {
                break;
            }
        }
        end.store(true, Ordering::Relaxed);
    });
    let now = outside.metadata().unwrap();
    let changed = |stat: &fs::Metadata| (stat.ctime(), stat.ctime_nsec(), stat.mtime_nsec(), stat.nlink());
    assert_eq!(changed(&now), changed(&untouched), "something was made outside");
    assert!(made > 0 && escapes > 0, "{made} made, {escapes} refused: nothing was tried");
}
