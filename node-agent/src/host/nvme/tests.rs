use std::fs;
use std::os::unix::fs::symlink;

use rds_csi_api::{CtrlLoss, HostId, NodeName, Nqn, ReconnectPolicy};

use super::sysfs::device_name;
use super::*;
use crate::host::DeviceNumber;

/// A `/sys` as kernel 6.1 lays it out, with as much in it as a test needs.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn root(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root().join("sys").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }

    fn controller(&self, name: &str, nqn: &str, state: &str, path: &str) {
        self.write(&format!("class/nvme/{name}/subsysnqn"), nqn);
        self.write(&format!("class/nvme/{name}/state"), state);
        self.write(&format!("class/nvme/{name}/{path}/ana_state"), "optimized");
        self.write(&format!("class/nvme/{name}/hwmon3/name"), "nvme");
    }

    fn subsystem(&self, name: &str, nqn: &str) {
        self.write(&format!("class/nvme-subsystem/{name}/subsysnqn"), nqn);
    }

    /// `owner` is the subsystem with multipath and the controller without.
    fn block(&self, name: &str, owner: &str, number: &str, sectors: u64) {
        self.write(&format!("class/block/{name}/dev"), number);
        self.write(&format!("class/block/{name}/size"), &sectors.to_string());
        symlink(format!("../../{owner}"), self.root().join(format!("sys/class/block/{name}/device")))
            .unwrap();
    }

    fn attachment(&self, nqn: &str) -> Attachment {
        attachment(self.root(), &nqn.parse().unwrap()).unwrap()
    }
}

const A: &str = "nqn.2000-02.com.mikrotik:pvc-a";
const B: &str = "nqn.2000-02.com.mikrotik:pvc-b";

fn device(name: &str, minor: u32, size: Bytes) -> Device {
    Device { name: name.into(), number: DeviceNumber { major: 259, minor }, size, nqn: A.parse().unwrap() }
}

#[test]
fn lesson_8_a_device_is_resolved_by_nqn_through_multipath_names() {
    let tree = Tree::new();
    tree.subsystem("nvme-subsys2", A);
    tree.controller("nvme1", A, "live", "nvme2c1n2");
    tree.block("nvme2n2", "nvme-subsystem/nvme-subsys2", "259:5", 2_097_152);
    // What a look at the controller's number would have found: somebody else's volume.
    tree.subsystem("nvme-subsys1", B);
    tree.controller("nvme2", B, "live", "nvme1c2n1");
    tree.block("nvme1n1", "nvme-subsystem/nvme-subsys1", "259:9", 4096);
    assert_eq!(tree.attachment(A), Attachment::Live(Some(device("nvme2n2", 5, Bytes::gib(1)))));
    let other = Device { nqn: B.parse().unwrap(), ..device("nvme1n1", 9, Bytes::mib(2)) };
    assert_eq!(tree.attachment(B), Attachment::Live(Some(other)));
}

#[test]
fn without_multipath_the_controller_owns_its_device() {
    let tree = Tree::new();
    tree.subsystem("nvme-subsys0", A);
    tree.controller("nvme3", A, "live", "nvme3n1");
    tree.block("nvme3n1", "nvme/nvme3", "259:1", 2048);
    assert_eq!(tree.attachment(A), Attachment::Live(Some(device("nvme3n1", 1, Bytes::mib(1)))));
}

#[test]
fn lesson_8_a_name_that_was_given_to_another_subsystem_is_not_our_device() {
    let tree = Tree::new();
    tree.subsystem("nvme-subsys0", A);
    tree.controller("nvme0", A, "live", "nvme0c0n1");
    tree.subsystem("nvme-subsys7", B);
    tree.block("nvme0n1", "nvme-subsystem/nvme-subsys7", "259:1", 2048);
    assert_eq!(tree.attachment(A), Attachment::Live(None));
}

#[test]
fn every_state_but_live_counts_as_connecting_and_none_as_gone() {
    for state in ["new", "connecting", "resetting", "deleting", "deleting (no IO)", "dead"] {
        let tree = Tree::new();
        tree.subsystem("nvme-subsys0", A);
        tree.controller("nvme0", A, state, "nvme0c0n1");
        tree.block("nvme0n1", "nvme-subsystem/nvme-subsys0", "259:1", 2048);
        assert_eq!(
            tree.attachment(A),
            Attachment::Connecting(Some(device("nvme0n1", 1, Bytes::mib(1)))),
            "{state}"
        );
    }
}

#[test]
fn one_of_two_paths_is_enough_and_both_lead_to_one_device() {
    let tree = Tree::new();
    tree.subsystem("nvme-subsys0", A);
    tree.controller("nvme0", A, "connecting", "nvme0c0n1");
    tree.controller("nvme1", A, "live", "nvme0c1n1");
    tree.block("nvme0n1", "nvme-subsystem/nvme-subsys0", "259:1", 2048);
    assert_eq!(tree.attachment(A), Attachment::Live(Some(device("nvme0n1", 1, Bytes::mib(1)))));
}

#[test]
fn two_namespaces_are_an_error_and_not_a_guess() {
    let tree = Tree::new();
    tree.subsystem("nvme-subsys0", A);
    tree.controller("nvme0", A, "live", "nvme0c0n1");
    tree.write("class/nvme/nvme0/nvme0c0n2/ana_state", "optimized");
    tree.block("nvme0n1", "nvme-subsystem/nvme-subsys0", "259:1", 2048);
    tree.block("nvme0n2", "nvme-subsystem/nvme-subsys0", "259:2", 2048);
    let error = attachment(tree.root(), &A.parse().unwrap()).unwrap_err().to_string();
    assert!(error.contains("nvme0n1, nvme0n2"), "{error}");
}

#[test]
fn a_controller_tells_which_array_it_is_connected_to() {
    let tree = Tree::new();
    let portals = |nqn: &str| {
        let of = |known: &Nqn| known.as_str() == nqn;
        let seen = subsystems(tree.root(), &of).unwrap().into_values().next();
        seen.map_or(Ok(Vec::new()), |seen| seen.map(|seen| seen.portals))
    };
    tree.controller("nvme0", A, "live", "nvme0c0n1");
    tree.write("class/nvme/nvme0/address", "traddr=10.77.0.1,trsvcid=4420,src_addr=10.77.0.11");
    tree.controller("nvme1", A, "connecting", "nvme0c1n1");
    tree.write("class/nvme/nvme1/address", "traddr=fd00::1,trsvcid=4421,host_traddr=fd00::2");
    tree.controller("nvme2", B, "live", "nvme2c2n1");
    tree.write("class/nvme/nvme2/address", "0000:01:00.0");
    let portal = |address, port| Portal::parse(address, Some(port)).unwrap();
    assert_eq!(portals(A).unwrap(), [portal("10.77.0.1", "4420"), portal("fd00::1", "4421")]);
    assert!(matches!(portals(B), Err(Error::Form { .. })));
    assert_eq!(portals("nqn.2000-02.com.mikrotik:pvc-c").unwrap(), []);
}

#[test]
fn an_nqn_is_compared_whole() {
    let tree = Tree::new();
    tree.subsystem("nvme-subsys0", &format!("{A}bc"));
    tree.controller("nvme0", &format!("{A}bc"), "live", "nvme0c0n1");
    assert_eq!(tree.attachment(A), Attachment::Absent);
}

#[test]
fn a_subsystem_without_controllers_is_not_gone() {
    let tree = Tree::new();
    tree.subsystem("nvme-subsys0", A);
    assert_eq!(tree.attachment(A), Attachment::Lost);
    let prefix = "nqn.2000-02.com.mikrotik:pvc-".parse().unwrap();
    let managed = ManagedNqn::new(&prefix, A.parse().unwrap()).unwrap();
    let error = disconnect(tree.root(), &managed, Duration::ZERO).unwrap_err();
    assert!(matches!(error, Error::StillThere { .. }), "{error}");
}

#[test]
fn without_the_module_nothing_is_connected() {
    let tree = Tree::new();
    assert_eq!(tree.attachment(A), Attachment::Absent);
    assert!(subsystems(tree.root(), &|_| true).unwrap().is_empty());
}

#[test]
fn everything_with_an_nqn_is_listed_once() {
    let tree = Tree::new();
    tree.subsystem("nvme-subsys0", A);
    tree.controller("nvme0", A, "live", "nvme0c0n1");
    tree.subsystem("nvme-subsys1", "nqn.2019-08.org.qemu:a b");
    tree.subsystem("nvme-subsys2", B);
    tree.write("class/nvme/nvme0/address", "traddr=10.77.0.1,trsvcid=4420");
    let listed = |which: &dyn Fn(&Nqn) -> bool| {
        let told = subsystems(tree.root(), which).unwrap().into_iter();
        told.map(|(nqn, seen)| (nqn.to_string(), seen.unwrap().attachment)).collect::<Vec<_>>()
    };
    let (a, b) = ((A.to_owned(), Attachment::Live(None)), (B.to_owned(), Attachment::Lost));
    assert_eq!(listed(&|_| true), [a, b.clone()]);
    assert_eq!(listed(&|nqn| nqn.as_str() == B), [b]);
}

#[test]
fn names_of_devices_and_paths_are_told_from_everything_else() {
    for (child, name) in [
        ("nvme0n1", Some("nvme0n1")),
        ("nvme2c1n2", Some("nvme2n2")),
        ("nvme12c345n67", Some("nvme12n67")),
        ("nvme0", None),
        ("nvme0n", None),
        ("nvme0cn1", None),
        ("nvmecn1", None),
        ("nvme0n1p1", None),
        ("hwmon3", None),
        ("ng0n1", None),
    ] {
        assert_eq!(device_name(child).as_deref(), name, "{child}");
    }
}

fn target() -> (Initiator, Target) {
    let node: NodeName = "w1".parse().unwrap();
    let prefix = "nqn.2000-02.com.mikrotik:pvc-".parse().unwrap();
    let target = Target {
        nqn: ManagedNqn::new(&prefix, A.parse().unwrap()).unwrap(),
        portal: Portal::parse("127.0.0.1", Some("4421")).unwrap(),
        reconnect: ReconnectPolicy {
            ctrl_loss: CtrlLoss::After(Duration::from_mins(10)),
            ..ReconnectPolicy::STANDARD
        },
    };
    (Initiator { nqn: rds_csi_api::HostNqn::of(&node), id: HostId::of(&node) }, target)
}

#[test]
fn lesson_30_a_node_connects_under_its_own_host_nqn_and_the_host_id_that_belongs_to_it() {
    let (initiator, target) = target();
    assert_eq!(
        options(&initiator, &target),
        "transport=tcp,traddr=127.0.0.1,trsvcid=4421,nqn=nqn.2000-02.com.mikrotik:pvc-a,\
         hostnqn=nqn.2014-08.org.nvmexpress:uuid:ccdb8b5c-0a40-5a93-bb5b-50ae31f073bf,\
         hostid=ccdb8b5c-0a40-5a93-bb5b-50ae31f073bf,ctrl_loss_tmo=600,reconnect_delay=2,keep_alive_tmo=5"
    );
}

#[test]
fn an_array_that_does_not_answer_is_unreachable_before_the_kernel_is_asked() {
    let tree = Tree::new();
    let (initiator, mut target) = target();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    target.portal.port = closed;
    let error = connect(tree.root(), &initiator, &target).unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
}

#[test]
fn lesson_17_an_nqn_outside_the_managed_prefix_cannot_even_be_asked_for() {
    let prefix = "nqn.2000-02.com.mikrotik:pvc-".parse().unwrap();
    let error = ManagedNqn::new(&prefix, "nqn.2000-02.com.mikrotik:nixos-var".parse().unwrap()).unwrap_err();
    assert!(error.to_string().contains("neither connected nor disconnected"), "{error}");
}

#[test]
fn a_device_that_is_too_small_is_asked_for_again() {
    let tree = Tree::new();
    tree.subsystem("nvme-subsys0", A);
    tree.controller("nvme0", A, "live", "nvme0c0n1");
    tree.write("class/nvme/nvme0/rescan_controller", "");
    tree.controller("nvme1", B, "live", "nvme1c1n1");
    tree.write("class/nvme/nvme1/rescan_controller", "");
    tree.block("nvme0n1", "nvme-subsystem/nvme-subsys0", "259:1", 2048);
    let nqn = ManagedNqn::new(&"nqn.2000-02.com.mikrotik:pvc-".parse().unwrap(), A.parse().unwrap()).unwrap();
    let wait = |least| wait_for_size(tree.root(), &nqn, least, Duration::from_millis(10));
    let rescanned = |name: &str| {
        let path = tree.root().join(format!("sys/class/nvme/{name}/rescan_controller"));
        fs::read_to_string(path).unwrap().starts_with('1')
    };
    assert_eq!(wait(Bytes::mib(1)).unwrap().size, Bytes::mib(1));
    assert!(!rescanned("nvme0"), "what is large enough is left alone");
    let error = wait(Bytes::mib(2)).unwrap_err();
    assert!(matches!(&error, Error::NotGrown { seen: Some(seen), .. } if *seen == Bytes::mib(1)), "{error}");
    assert!(rescanned("nvme0") && !rescanned("nvme1"));
}

fn with(policy: &str) -> Target {
    Target { reconnect: policy.parse().unwrap(), ..target().1 }
}

#[test]
fn a_live_connection_follows_another_policy_and_is_left_alone_where_it_does_already() {
    let tree = Tree::new();
    tree.subsystem("nvme-subsys0", A);
    tree.controller("nvme0", A, "connecting", "nvme0c0n1");
    let write = |name: &str, text: &str| tree.write(&format!("class/nvme/nvme0/{name}"), text);
    let read = |name| fs::read_to_string(tree.root().join("sys/class/nvme/nvme0").join(name)).unwrap();
    let all =
        || ["reconnect_delay", "ctrl_loss_tmo", "fast_io_fail_tmo"].map(|name| read(name).trim().to_owned());
    write("reconnect_delay", "2");
    write("ctrl_loss_tmo", "off");
    write("fast_io_fail_tmo", "off");
    retune(tree.root(), &with("-1,2,30,off")).unwrap();
    assert_eq!(all(), ["2", "off", "off"]);
    retune(tree.root(), &with("600,7,30,120")).unwrap();
    assert_eq!(all(), ["7", "600", "120"]);
    // 600 s are 86 attempts of 7 s, which the kernel shows so.
    write("ctrl_loss_tmo", "602");
    retune(tree.root(), &with("600,7,30,120")).unwrap();
    assert_eq!(all(), ["7", "602", "120"]);
}

#[test]
fn failing_fast_is_asked_for_only_if_it_is_wanted() {
    let (initiator, target) = target();
    assert!(!options(&initiator, &target).contains("fast_io_fail"));
    assert!(options(&initiator, &with("-1,2,5,20")).ends_with(",keep_alive_tmo=5,fast_io_fail_tmo=20"));
}
