use std::os::unix::fs::{MetadataExt, symlink};

use rds_csi_api::Bytes;

use super::*;
use crate::host::Device;

/// A `/proc` and a `/sys` with as much in them as a test needs.
struct Tree(tempfile::TempDir);

const MOUNTED: &str = "40 22 259:3 / /var/lib/kubelet/pods/p/mount rw - ext4 /dev/nvme1n1 rw\n";
const UNMOUNTED: &str = "22 1 1:1 / / rw - ext4 /dev/root rw\n";

impl Tree {
    fn new() -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        tree.process("1", "init", "mnt:[1]", UNMOUNTED);
        symlink("1", tree.root().join("proc/self")).unwrap();
        tree
    }

    fn root(&self) -> &Path {
        self.0.path()
    }

    fn process(&self, pid: &str, command: &str, namespace: &str, mountinfo: &str) {
        let process = self.root().join("proc").join(pid);
        fs::create_dir_all(process.join("ns")).unwrap();
        fs::create_dir_all(process.join("fd")).unwrap();
        fs::write(process.join("comm"), format!("{command}\n")).unwrap();
        fs::write(process.join("mountinfo"), mountinfo).unwrap();
        symlink(namespace, process.join("ns/mnt")).unwrap();
    }

    fn holders(&self, device: &Device) -> Vec<Holder> {
        holders(self.root(), &[device.number]).unwrap()
    }
}

fn device(name: &str, number: DeviceNumber) -> Device {
    Device {
        name: name.into(),
        number,
        size: Bytes::gib(1),
        nqn: "nqn.2000-02.com.mikrotik:pvc-a".parse().unwrap(),
    }
}

fn nvme1n1() -> Device {
    device("nvme1n1", DeviceNumber { major: 259, minor: 3 })
}

#[test]
fn a_device_that_nobody_uses_has_no_holders() {
    assert_eq!(Tree::new().holders(&nvme1n1()), []);
}

#[test]
fn lesson_3_a_mount_in_any_mount_namespace_is_a_use_and_is_told_once_for_each() {
    let tree = Tree::new();
    tree.process("100", "postgres", "mnt:[2]", MOUNTED);
    tree.process("101", "postgres", "mnt:[2]", MOUNTED);
    let found = tree.holders(&nvme1n1());
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].how, found[0].command.as_str()), (Use::MountElsewhere, "postgres"));
    assert!(found[0].pid == 100 || found[0].pid == 101);
    assert_eq!(found[0].path, Path::new("/var/lib/kubelet/pods/p/mount"));
}

#[test]
fn a_mount_that_we_see_ourselves_is_told_from_others() {
    let tree = Tree::new();
    fs::write(tree.root().join("proc/1/mountinfo"), MOUNTED).unwrap();
    assert_eq!(tree.holders(&nvme1n1())[0].how, Use::Mount);
}

#[test]
fn lesson_3_devices_built_on_it_are_uses() {
    let tree = Tree::new();
    fs::create_dir_all(tree.root().join("sys/dev/block/259:3/holders/dm-0")).unwrap();
    let found = tree.holders(&nvme1n1());
    assert_eq!(
        (found[0].how, found[0].path.as_path(), found[0].pid),
        (Use::BlockDevice, Path::new("/dev/dm-0"), 0)
    );
}

#[test]
fn lesson_3_an_open_file_counts_by_number_and_not_by_path() {
    let tree = Tree::new();
    let file = tree.root().join("file of the volume");
    fs::write(&file, "").unwrap();
    let raw = file.metadata().unwrap().dev();
    tree.process("200", "qemu", "mnt:[1]", UNMOUNTED);
    symlink(&file, tree.root().join("proc/200/fd/7")).unwrap();
    symlink("socket:[12345]", tree.root().join("proc/200/fd/8")).unwrap();
    let found = tree.holders(&device("nvme9n9", DeviceNumber::from_raw(raw)));
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].how, found[0].pid, found[0].path.as_path()), (Use::OpenFile, 200, file.as_path()));
    assert_eq!(tree.holders(&nvme1n1()), []);
}

#[test]
fn lesson_18_a_holder_is_told_by_pid_command_and_path() {
    let holder = Holder {
        device: nvme1n1().number,
        how: Use::OpenFile,
        pid: 4711,
        command: "qemu-system-x86".into(),
        pod: None,
        path: "/dev/disk".into(),
    };
    assert_eq!(holder.to_string(), "process 4711 (qemu-system-x86) has /dev/disk open");
}

#[test]
fn lesson_18_the_pod_of_a_holder_is_told() {
    let uid = "0f1c9d3a-52d1-4a51-9f9e-0c7c8a1e6b11";
    let tree = Tree::new();
    let file = tree.root().join("file of the volume");
    fs::write(&file, "").unwrap();
    let raw = DeviceNumber::from_raw(file.metadata().unwrap().dev());
    tree.process("200", "qemu", "mnt:[2]", MOUNTED);
    fs::write(tree.root().join("proc/200/cgroup"), format!("0::/kubepods/pod{uid}/c1\n")).unwrap();
    symlink(&file, tree.root().join("proc/200/fd/7")).unwrap();
    let mounted_at = format!("/var/lib/kubelet/pods/{uid}/volumes/x/mount");
    let ours = MOUNTED.replace("/var/lib/kubelet/pods/p/mount", &mounted_at);
    fs::write(tree.root().join("proc/1/mountinfo"), ours).unwrap();
    let found = holders(tree.root(), &[nvme1n1().number, raw]).unwrap();
    let mut told: Vec<_> = found.iter().map(ToString::to_string).collect();
    told.sort();
    assert_eq!(
        told,
        [
            format!("it is mounted at {mounted_at}, a directory of pod {uid}"),
            format!(
                "it is mounted at /var/lib/kubelet/pods/p/mount in the mount namespace of process 200 (qemu) of pod {uid}"
            ),
            format!("process 200 (qemu) of pod {uid} has {} open", file.display()),
        ]
    );
}

#[test]
fn lesson_3_what_cannot_be_looked_at_is_an_error_and_not_an_empty_answer() {
    let tree = Tree::new();
    fs::write(tree.root().join("proc/1/mountinfo"), "nonsense\n").unwrap();
    assert!(holders(tree.root(), &[nvme1n1().number]).is_err());
    let tree = Tree::new();
    fs::write(tree.root().join("proc/300"), "not a directory").unwrap();
    assert!(holders(tree.root(), &[nvme1n1().number]).is_err());
}

#[test]
fn a_process_that_is_over_is_passed_by() {
    let tree = Tree::new();
    fs::create_dir_all(tree.root().join("proc/400")).unwrap();
    assert_eq!(tree.holders(&nvme1n1()), []);
}

#[test]
fn a_namespace_is_seen_through_the_next_process_when_one_ends_under_our_eyes() {
    // Whichever of them is met first.
    for (over, lives) in [("100", 101), ("101", 100)] {
        let tree = Tree::new();
        for process in ["100", "101"] {
            tree.process(process, "postgres", "mnt:[2]", MOUNTED);
        }
        fs::remove_file(tree.root().join("proc").join(over).join("mountinfo")).unwrap();
        let found = tree.holders(&nvme1n1());
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].pid, lives);
    }
}

#[test]
fn what_the_threads_of_an_exited_leader_use_counts_once() {
    let tree = Tree::new();
    let file = tree.root().join("file of the volume");
    fs::write(&file, "").unwrap();
    let raw = file.metadata().unwrap().dev();
    tree.process("200", "java", "mnt:[1]", UNMOUNTED);
    fs::remove_file(tree.root().join("proc/200/ns/mnt")).unwrap();
    fs::remove_dir(tree.root().join("proc/200/fd")).unwrap();
    for thread in ["200/task/201", "200/task/202"] {
        tree.process(thread, "worker", "mnt:[7]", MOUNTED);
        symlink(&file, tree.root().join("proc").join(thread).join("fd/7")).unwrap();
    }
    let found = tree.holders(&device("nvme9n9", DeviceNumber::from_raw(raw)));
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].how, found[0].pid, found[0].command.as_str()), (Use::OpenFile, 200, "java"));
    let found = tree.holders(&nvme1n1());
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].how, Use::MountElsewhere);
}

#[test]
fn a_file_whose_filesystem_has_shut_down_is_told_by_its_name() {
    let tree = Tree::new();
    tree.process("300", "postgres", "mnt:[1]", &format!("{UNMOUNTED}{MOUNTED}"));
    symlink("/var/lib/kubelet/pods/p/mount/base", tree.root().join("proc/300/fd/7")).unwrap();
    symlink("/var/lib/kubelet/pods/p/mounted", tree.root().join("proc/300/fd/8")).unwrap();
    let devices = [nvme1n1().number];
    let told = |fd| by_name(&tree.root().join("proc/300/fd").join(fd), &devices).unwrap();
    assert_eq!(told("7"), Some((nvme1n1().number, "/var/lib/kubelet/pods/p/mount/base".into())));
    assert_eq!(told("8"), None);
    assert_eq!(told("9"), None);
}

#[test]
fn a_loop_s_file_is_not_looked_at_where_nobody_may_answer() {
    let tree = Tree::new();
    let mountinfo = format!(
        "{UNMOUNTED}\
         23 22 0:40 / /srv rw - nfs4 array:/srv rw\n\
         24 22 0:41 / /home rw - fuse.sshfs array:/home rw\n\
         25 23 8:1 / /srv/local rw - ext4 /dev/sda1 rw\n\
         26 22 8:2 / /covered rw - xfs /dev/sda2 rw\n\
         27 26 0:42 / /covered rw - cifs //array/covered rw\n"
    );
    fs::write(tree.root().join("proc/1/mountinfo"), mountinfo).unwrap();
    let waits = |path: &str| may_wait(&tree.root().join("proc"), Path::new(path)).unwrap();
    for path in ["/srv/disk.img", "/home/me/disk.img", "/covered/disk.img"] {
        assert!(waits(path), "{path}");
    }
    for path in ["/disk.img", "/dev/nvme1n1", "/srvs/disk.img", "/srv/local/disk.img", "relative"] {
        assert!(!waits(path), "{path}");
    }
}

#[test]
fn a_loop_over_a_device_is_a_use_but_for_where_nobody_may_answer() {
    // A node that is there on any machine with a loop module or a disk; where there is none, the test above has to do.
    let nodes = fs::read_dir("/dev").unwrap().flatten().filter_map(|entry| {
        let stat = rustix::fs::stat(entry.path()).ok()?;
        let is_node = FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice;
        is_node.then(|| (entry.path(), DeviceNumber::from_raw(stat.st_rdev)))
    });
    for (node, number) in nodes.take(1) {
        let tree = Tree::new();
        fs::create_dir_all(tree.root().join("sys/class/block/loop7/loop")).unwrap();
        fs::write(tree.root().join("sys/class/block/loop7/loop/backing_file"), "/srv/node\n").unwrap();
        fs::create_dir(tree.root().join("srv")).unwrap();
        symlink(node, tree.root().join("srv/node")).unwrap();
        let found = holders(tree.root(), &[number]).unwrap();
        assert_eq!(found.iter().map(|holder| holder.how).collect::<Vec<_>>(), [Use::BlockDevice]);
        let mountinfo = format!("{UNMOUNTED}23 22 0:40 / /srv rw - nfs4 array:/srv rw\n");
        fs::write(tree.root().join("proc/1/mountinfo"), mountinfo).unwrap();
        assert_eq!(holders(tree.root(), &[number]).unwrap(), []);
    }
}
