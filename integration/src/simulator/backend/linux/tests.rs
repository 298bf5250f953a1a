//! What can be tested of the real backend without the kernel's target: the steps it would take, what it
//! reads back from a tree like configfs, and the tool's output.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use super::nvmet::{Port, Step, Target, export_steps, host_steps, unexport_steps};
use super::{Linux, btrfs};
use crate::simulator::backend::{Access, Error, Export, Hosts, Parent, PoolPath, contract};

const ANYWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const NQN: &str = "nqn.2000-02.com.mikrotik:pvc-x";

fn export(hosts: &[&str]) -> Export {
    let hosts = match hosts {
        [] => Hosts::Any,
        some => Hosts::Only(some.iter().map(|host| (*host).to_owned()).collect()),
    };
    Export { nqn: NQN.to_owned(), port: 4420, file: PoolPath::new("pvc-x/disk.img").unwrap(), hosts }
}

/// Steps as lines, which compare and read better than values.
fn lines(steps: &[Step]) -> Vec<String> {
    let line = |step: &Step| match step {
        Step::Make(path) => format!("mkdir {path}"),
        Step::Write(path, text) => format!("{path} := {text}"),
        Step::Link(to, path) => format!("{path} -> {to}"),
        Step::Unlink(path) => format!("rm {path}"),
        Step::Remove(path) => format!("rmdir {path}"),
        Step::RemoveIfUnused(path) => format!("rmdir {path} unless busy"),
    };
    steps.iter().map(|step| line(step).replace(NQN, "N")).collect()
}

#[test]
fn an_export_is_complete_before_it_is_on_its_port() {
    let file = Path::new("/pool/pvc-x/disk.img");
    let steps = lines(&export_steps(&export(&["h1"]), file, ANYWHERE, false));
    let stable = steps.iter().filter(|line| line.contains("serial") || line.contains("uuid")).count();
    assert_eq!(stable, 2, "serial number and UUID are given, or a host would see another disk");
    let rest: Vec<&String> =
        steps.iter().filter(|line| !line.contains("serial") && !line.contains("uuid")).collect();
    assert_eq!(
        rest,
        [
            "mkdir subsystems/N",
            "subsystems/N/attr_allow_any_host := 0",
            "mkdir hosts/h1",
            "subsystems/N/allowed_hosts/h1 -> hosts/h1",
            "mkdir subsystems/N/namespaces/1",
            "subsystems/N/namespaces/1/device_path := /pool/pvc-x/disk.img",
            "subsystems/N/namespaces/1/enable := 1",
            "mkdir ports/4420",
            "ports/4420/addr_trtype := tcp",
            "ports/4420/addr_adrfam := ipv4",
            "ports/4420/addr_traddr := 0.0.0.0",
            "ports/4420/addr_trsvcid := 4420",
            "ports/4420/subsystems/N -> subsystems/N",
        ]
    );
    let second = lines(&export_steps(&export(&["h1"]), file, ANYWHERE, true));
    assert!(!second.iter().any(|line| line.contains("addr_")), "a port in use cannot be set up again");
}

#[test]
fn the_same_disk_comes_back_with_the_same_identity() {
    let steps = |file: &str| export_steps(&export(&[]), Path::new(file), ANYWHERE, true);
    assert_eq!(steps("/pool/a"), steps("/pool/a"));
    let uuid = |nqn: &str| {
        let export = Export { nqn: nqn.to_owned(), ..export(&[]) };
        let steps = export_steps(&export, Path::new("/pool/a"), ANYWHERE, true);
        steps.into_iter().find_map(|step| match step {
            Step::Write(path, text) if path.ends_with("device_uuid") => Some(text),
            _ => None,
        })
    };
    assert_ne!(uuid("nqn.a"), uuid("nqn.b"));
}

#[test]
fn an_export_ends_at_its_port_first_and_takes_what_only_it_used() {
    let port = |subsystems: &[&str]| Port {
        number: 4420,
        subsystems: subsystems.iter().map(|name| (*name).to_owned()).collect(),
    };
    let shared = unexport_steps(NQN, &[port(&[NQN, "other"])], &["h1".to_owned()], true);
    assert_eq!(
        lines(&shared),
        [
            "rm ports/4420/subsystems/N",
            "subsystems/N/namespaces/1/enable := 0",
            "rmdir subsystems/N/namespaces/1",
            "rm subsystems/N/allowed_hosts/h1",
            "rmdir hosts/h1 unless busy",
            "rmdir subsystems/N",
        ]
    );
    let last = lines(&unexport_steps(NQN, &[port(&[NQN])], &[], false));
    assert_eq!(last, ["rm ports/4420/subsystems/N", "rmdir ports/4420", "rmdir subsystems/N"]);
}

#[test]
fn hosts_change_in_the_order_that_the_kernel_allows() {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let table: [(&[&str], Hosts, &[&str]); 4] = [
        (&[], Hosts::Any, &["subsystems/N/attr_allow_any_host := 1"]),
        (
            &["a"],
            Hosts::Any,
            &[
                "rm subsystems/N/allowed_hosts/a",
                "rmdir hosts/a unless busy",
                "subsystems/N/attr_allow_any_host := 1",
            ],
        ),
        (
            &["a", "b"],
            Hosts::Only(names(&["b", "c"])),
            &[
                "subsystems/N/attr_allow_any_host := 0",
                "mkdir hosts/c",
                "subsystems/N/allowed_hosts/c -> hosts/c",
                "rm subsystems/N/allowed_hosts/a",
                "rmdir hosts/a unless busy",
            ],
        ),
        (&["a"], Hosts::Only(names(&["a"])), &["subsystems/N/attr_allow_any_host := 0"]),
    ];
    for (present, wanted, expected) in table {
        assert_eq!(lines(&host_steps(NQN, &names(present), &wanted)), expected, "{present:?} to {wanted:?}");
    }
}

#[test]
fn what_was_exported_is_read_back_and_foreign_exports_are_not_ours() {
    let tree = tempfile::tempdir().unwrap();
    let pool = Path::new("/pool");
    let target = Target::new(tree.path().to_owned(), ANYWHERE);
    assert!(target.check().is_err(), "without configfs there is no target");
    for directory in ["ports/4420/subsystems", &format!("subsystems/{NQN}/allowed_hosts")] {
        fs::create_dir_all(tree.path().join(directory)).unwrap();
    }
    target.check().unwrap();

    let ours = export(&["nqn.host:a", "nqn.host:b"]);
    let already = target.export(&ours, Path::new("/pool/pvc-x/disk.img"));
    assert!(matches!(already, Err(Error::Exists(_))), "a subsystem of that name is in the way: {already:?}");

    fs::remove_dir_all(tree.path().join("subsystems")).unwrap();
    // configfs makes these by itself with the subsystem; a plain directory needs them made.
    let make = |nqn: &str| fs::create_dir_all(tree.path().join(format!("subsystems/{nqn}/allowed_hosts")));
    let steps = export_steps(&ours, Path::new("/pool/pvc-x/disk.img"), ANYWHERE, false);
    make(NQN).unwrap();
    target.apply(&steps).unwrap();

    let foreign = Export { nqn: "nqn.foreign".to_owned(), ..export(&[]) };
    make("nqn.foreign").unwrap();
    target.apply(&export_steps(&foreign, Path::new("/elsewhere/disk.img"), ANYWHERE, true)).unwrap();

    assert_eq!(target.exports(pool).unwrap(), [ours]);
    target.set_hosts(NQN, &Hosts::Any).unwrap();
    assert_eq!(target.exports(pool).unwrap(), [export(&[])]);
}

#[test]
fn subvolumes_are_read_from_the_tools_listing() {
    let all = "\
ID 257 gen 9 top level 5 parent_uuid 77919296-c10e-324f-a6c4-e65b0d249156 uuid 4a4f64e6-26a0-df40-af82-ee25b99c0a9e path snap-y
ID 258 gen 12 top level 5 parent_uuid 4a4f64e6-26a0-df40-af82-ee25b99c0a9e uuid e77ca527-d22a-a04f-a013-4ab7882d01a6 path pvc-z
ID 259 gen 11 top level 258 parent_uuid -                                    uuid ce7d0f42-c291-af4e-af46-51e6acd9303a path pvc-z/inner
ID 260 gen 11 top level 5 parent_uuid -                                    uuid 34aaeea5-84b6-3f4f-8e88-45be58dff641 path with space
";
    let read_only = "ID 257 gen 9 top level 5 path snap-y\n";
    let subvolumes = btrfs::parse(all, read_only).unwrap();
    let told: Vec<_> = subvolumes
        .iter()
        .map(|s| (s.name.as_str(), s.id, s.generation, s.snapshot_of.clone(), s.access))
        .collect();
    assert_eq!(
        told,
        [
            ("snap-y", 257, 9, Some(Parent::Gone), Access::ReadOnly),
            ("pvc-z", 258, 12, Some(Parent::Named("snap-y".to_owned())), Access::ReadWrite),
            ("with space", 260, 11, None, Access::ReadWrite),
        ]
    );
    assert!(btrfs::parse("something else\n", "").is_err());
}

#[test]
fn a_directory_that_is_no_btrfs_is_no_pool() {
    let directory = tempfile::tempdir().unwrap();
    let target = Target::new(directory.path().to_owned(), ANYWHERE);
    let error = Linux::with_target(Path::new("/proc"), target).unwrap_err();
    assert_eq!(error.to_string(), "cannot use /proc as a pool");
}

/// Not run by default: it mounts a filesystem. The rig runs the same contract in the storage guest's kernel.
#[test]
#[ignore = "needs root and a loop device"]
fn a_mounted_btrfs_keeps_the_contract_of_storage() {
    use super::run::run;

    let scratch = tempfile::tempdir().unwrap();
    let (image, mount) = (scratch.path().join("pool.img"), scratch.path().join("pool"));
    fs::create_dir_all(scratch.path().join("target/subsystems")).unwrap();
    fs::create_dir(&mount).unwrap();
    fs::File::create(&image).unwrap().set_len(contract::POOL_SIZE).unwrap();
    run("mkfs.btrfs", &[Path::new("-q"), &image]).unwrap();
    run("mount", &[Path::new("-oloop"), &image, &mount]).unwrap();
    let kept = std::panic::catch_unwind(|| {
        let target = Target::new(scratch.path().join("target"), ANYWHERE);
        contract::storage(&mut Linux::with_target(&mount, target).unwrap());
        let content = fs::read(mount.join("kept/disk.img")).unwrap();
        assert_eq!((content.len(), content[0]), (3 << 20, 7), "real bytes, kept by the snapshot");
    });
    run("umount", &[&mount]).unwrap();
    kept.unwrap();
}
