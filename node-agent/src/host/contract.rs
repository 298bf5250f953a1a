//! What every machine must do, as one suite that the one in memory and Linux both pass, so that the former cannot drift.
//!
//! It wants an array that exports one blank disk, nothing connected to it, and an empty kubelet directory; it leaves both as they
//! were, but for a filesystem on the disk. A broken clause panics.

use std::time::Duration;

use rds_csi_api::{Bytes, FsType, Nqn, Portal, ReconnectPolicy};

use super::{
    Attachment, Connected, Content, Device, Error, Fit, Found, Holder, Host, KubeletDir, KubeletPath,
    ManagedNqn, MountOptions, Signature, State, Target, Use,
};

/// Nothing here takes long; a guest without hardware virtualisation takes ten times as long.
const LIMIT: Duration = Duration::from_secs(30);

/// A machine, and what the suite cannot ask of the trait.
pub trait Machine {
    /// Which kind.
    type Host: Host;

    /// The machine.
    fn host(&self) -> &Self::Host;

    /// A process opens the device.
    fn open_device(&self, device: &Device);

    /// A process opens a directory on the filesystem that is mounted there.
    fn open_files(&self, device: &Device, at: &KubeletPath);

    /// That process closes what it has open.
    fn close(&self);
}

/// What it is tried with.
#[derive(Debug)]
pub struct Place {
    /// The disk that is exported.
    pub nqn: ManagedNqn,
    /// Where.
    pub portal: Portal,
    /// Its size.
    pub size: Bytes,
    /// Where things are mounted and made.
    pub kubelet: KubeletDir,
}

impl Place {
    fn path(&self, name: &str) -> KubeletPath {
        let path = self.kubelet.as_path().join(name);
        self.kubelet.beneath(path.to_str().expect("the suite's names are text")).expect("it is beneath")
    }

    fn target(&self) -> Target {
        Target { nqn: self.nqn.clone(), portal: self.portal, reconnect: ReconnectPolicy::STANDARD }
    }

    fn nqn(&self) -> &Nqn {
        self.nqn.as_nqn()
    }
}

/// All clauses, one after the other. The first makes a filesystem, which the others find.
pub fn every_clause(machine: &impl Machine, place: &Place) {
    what_is_not_connected_is_absent_and_ends_at_once(machine, place);
    an_array_that_nobody_serves_is_unreachable(machine, place);
    a_connection_is_found_by_its_nqn_until_it_is_ended(machine, place);
    a_blank_disk_is_formatted_once(machine, place);
    a_filesystem_is_mounted_bound_and_unmounted(machine, place);
    what_is_mounted_is_neither_disconnected_nor_removed(machine, place);
    who_has_it_open_is_named_and_keeps_its_mount(machine, place);
    a_device_node_is_made_once_and_removed(machine, place);
    what_is_abandoned_is_lost_and_its_mounts_are_dead(machine, place);
}

fn connected(machine: &impl Machine, place: &Place) -> Device {
    let host = machine.host();
    assert_eq!(host.connect(&place.target()).expect("it connects"), Connected::Newly);
    host.wait_for_device(&place.nqn, LIMIT).expect("its device comes")
}

fn disconnected(machine: &impl Machine, place: &Place) {
    machine.host().disconnect(&place.nqn, LIMIT).expect("it disconnects");
    assert_eq!(attachment(machine, place), Attachment::Absent);
}

fn attachment(machine: &impl Machine, place: &Place) -> Attachment {
    machine.host().attachment(place.nqn()).expect("the kernel says how it is connected")
}

fn mounted(machine: &impl Machine, device: &Device, at: &KubeletPath) {
    let options = MountOptions::parse::<&str>(&[]).expect("no options are good options");
    machine.host().make_directory(at).expect("the directory is made");
    machine.host().mount(device, FsType::Ext4, at, &options).expect("it mounts");
}

fn unmounted(machine: &impl Machine, at: &KubeletPath) {
    machine.host().unmount(at).expect("it unmounts");
    machine.host().remove_directory(at).expect("the directory goes");
    assert_eq!(machine.host().found_at(at).expect("the path is looked at"), Found::Nothing);
}

fn holders(machine: &impl Machine, device: &Device) -> Vec<Holder> {
    machine.host().holders(&[device.number]).expect("somebody looks everywhere")
}

fn what_is_not_connected_is_absent_and_ends_at_once(machine: &impl Machine, place: &Place) {
    let host = machine.host();
    assert_eq!(attachment(machine, place), Attachment::Absent);
    assert!(host.subsystems(&|nqn| nqn == place.nqn()).expect("they are listed").is_empty());
    host.disconnect(&place.nqn, LIMIT).expect("there is nothing to end");
    host.abandon(&place.nqn, LIMIT).expect("there is nothing to end");
    host.retune(&place.target()).expect("there is nothing to tune");
    assert_eq!(host.holders(&[]).expect("nothing is asked"), []);
    let nowhere = place.path("contract-nowhere");
    assert_eq!(host.found_at(&nowhere).expect("the path is looked at"), Found::Nothing);
    assert!(host.unmount(&nowhere).is_err(), "nothing is mounted there");
}

fn an_array_that_nobody_serves_is_unreachable(machine: &impl Machine, place: &Place) {
    let target = Target { portal: Portal { port: 1, ..place.portal }, ..place.target() };
    let error = machine.host().connect(&target).expect_err("nobody serves there");
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert_eq!(attachment(machine, place), Attachment::Absent);
}

fn a_connection_is_found_by_its_nqn_until_it_is_ended(machine: &impl Machine, place: &Place) {
    let host = machine.host();
    let device = connected(machine, place);
    assert_eq!((&device.nqn, device.size), (place.nqn(), place.size));
    assert_eq!(attachment(machine, place), Attachment::Live(Some(device.clone())));
    let listed = host.subsystems(&|nqn| nqn == place.nqn()).expect("they are listed");
    let seen = listed.get(place.nqn()).expect("it is listed").as_ref().expect("it is readable");
    assert_eq!((&seen.attachment, &seen.portals[..]), (&attachment(machine, place), &[place.portal][..]));
    assert!(host.subsystems(&|_| false).expect("none are asked for").is_empty());
    assert_eq!(host.connect(&place.target()).expect("it is connected"), Connected::Already);
    assert_eq!(host.wait_for_size(&place.nqn, place.size, LIMIT).expect("it is so large"), device);
    assert!(host.device_is_there(device.number).expect("it is looked for"));
    disconnected(machine, place);
    assert!(!host.device_is_there(device.number).expect("it is looked for"));
}

fn a_blank_disk_is_formatted_once(machine: &impl Machine, place: &Place) {
    let host = machine.host();
    let device = connected(machine, place);
    let Content::Blank(blank) = host.probe(&device).expect("it is probed") else { panic!("it is blank") };
    host.format(blank, FsType::Ext4).expect("it is formatted");
    let content = host.probe(&device).expect("it is probed");
    assert_eq!(content.fit(device.size), Fit::Fills);
    let Content::Has(Signature::Filesystem { fs, state, .. }) = content else { panic!("{content:?}") };
    assert_eq!((fs, state), (FsType::Ext4, State::Sound));
    disconnected(machine, place);
}

fn a_filesystem_is_mounted_bound_and_unmounted(machine: &impl Machine, place: &Place) {
    let host = machine.host();
    let (staging, target) = (place.path("contract-staging"), place.path("contract-target"));
    let device = connected(machine, place);
    mounted(machine, &device, &staging);
    let mounts = host.mounts().expect("mounts are read");
    let top = mounts.top(&staging).expect("it is mounted");
    assert_eq!((top.device, top.filesystem.as_str(), top.is_read_only()), (device.number, "ext4", false));
    assert_eq!(host.found_at(&staging).expect("the path is looked at"), Found::Directory);
    let usage = host.usage(&staging, device.number).expect("it is measured").expect("it is mounted");
    assert!(usage.bytes.total > Bytes::new(0) && usage.bytes.total <= place.size, "{usage:?}");

    host.make_directory(&target).expect("the directory is made");
    assert!(host.usage(&target, device.number).expect("it is measured").is_none(), "nothing is there");
    host.bind(&staging, &target).expect("it is bound");
    host.make_read_only(&target).expect("it is made read-only");
    let mounts = host.mounts().expect("mounts are read");
    let reads_only = |at: &KubeletPath| mounts.top(at).expect("it is mounted").is_read_only();
    assert_eq!((reads_only(&staging), reads_only(&target)), (false, true));
    unmounted(machine, &target);
    unmounted(machine, &staging);
    assert_eq!(holders(machine, &device), []);
    disconnected(machine, place);
}

fn what_is_mounted_is_neither_disconnected_nor_removed(machine: &impl Machine, place: &Place) {
    let host = machine.host();
    let staging = place.path("contract-staging");
    let device = connected(machine, place);
    mounted(machine, &device, &staging);
    let error = host.disconnect(&place.nqn, LIMIT).expect_err("it is mounted");
    assert!(matches!(error, Error::Busy { .. }), "{error}");
    assert_eq!(attachment(machine, place), Attachment::Live(Some(device.clone())));
    let error = host.remove_directory(&staging).expect_err("something is mounted there");
    assert!(matches!(error, Error::Busy { .. }), "{error}");
    let error = host.detach_dead(&staging).expect_err("its device is there");
    assert!(matches!(error, Error::Alive { .. }), "{error}");
    let mounts = |holder: &Holder| holder.how == Use::Mount && holder.path == staging.as_path();
    assert!(holders(machine, &device).iter().any(mounts), "{:?}", holders(machine, &device));
    unmounted(machine, &staging);
    disconnected(machine, place);
}

fn who_has_it_open_is_named_and_keeps_its_mount(machine: &impl Machine, place: &Place) {
    let host = machine.host();
    let staging = place.path("contract-staging");
    let device = connected(machine, place);
    let opens = || {
        let holders = holders(machine, &device);
        holders
            .iter()
            .any(|holder| holder.how == Use::OpenFile && holder.pid > 0 && !holder.command.is_empty())
    };
    machine.open_device(&device);
    assert!(opens());
    machine.close();
    assert!(!opens());
    mounted(machine, &device, &staging);
    machine.open_files(&device, &staging);
    assert!(opens());
    let error = host.unmount(&staging).expect_err("a process is in there");
    assert!(matches!(error, Error::Busy { .. }), "{error}");
    machine.close();
    unmounted(machine, &staging);
    disconnected(machine, place);
}

fn a_device_node_is_made_once_and_removed(machine: &impl Machine, place: &Place) {
    let host = machine.host();
    let target = place.path("contract-node");
    let device = connected(machine, place);
    host.make_node(&device, &target).expect("it is made");
    assert_eq!(host.found_at(&target).expect("the path is looked at"), Found::Node(device.number));
    assert!(host.make_node(&device, &target).is_err(), "there is one");
    host.remove_node(&target).expect("it goes");
    assert_eq!(host.found_at(&target).expect("the path is looked at"), Found::Nothing);
    host.make_directory(&target).expect("the directory is made");
    assert!(host.remove_node(&target).is_err(), "it is a directory");
    host.remove_directory(&target).expect("the directory goes");
    disconnected(machine, place);
}

fn what_is_abandoned_is_lost_and_its_mounts_are_dead(machine: &impl Machine, place: &Place) {
    let host = machine.host();
    let staging = place.path("contract-staging");
    let device = connected(machine, place);
    mounted(machine, &device, &staging);
    host.abandon(&place.nqn, LIMIT).expect("it is given up");
    assert_eq!(attachment(machine, place), Attachment::Lost);
    assert!(!host.device_is_there(device.number).expect("it is looked for"));
    let mounts = host.mounts().expect("mounts are read");
    assert_eq!(mounts.top(&staging).map(|mount| mount.device), Some(device.number), "it is dead, and there");
    host.detach_dead(&staging).expect("what is dead is taken away");
    host.remove_directory(&staging).expect("the directory goes");
    host.disconnect(&place.nqn, LIMIT).expect("nothing of it is left");
    assert_eq!(attachment(machine, place), Attachment::Absent);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::{FakeHost, Holds};

    struct InMemory(FakeHost);

    impl Machine for InMemory {
        type Host = FakeHost;

        fn host(&self) -> &FakeHost {
            &self.0
        }

        fn open_device(&self, device: &Device) {
            self.0.open_file(&device.nqn, 4711, "dd", &device.path().to_string_lossy());
        }

        fn open_files(&self, device: &Device, at: &KubeletPath) {
            self.0.open_file(&device.nqn, 4711, "sh", &at.to_string());
        }

        fn close(&self) {
            self.0.close_files();
        }
    }

    #[test]
    fn the_machine_in_memory_keeps_the_contract() {
        let prefix = "nqn.2000-02.com.mikrotik:pvc-".parse().unwrap();
        let nqn: Nqn = "nqn.2000-02.com.mikrotik:pvc-contract".parse().unwrap();
        let place = Place {
            nqn: ManagedNqn::new(&prefix, nqn.clone()).unwrap(),
            portal: Portal::parse("10.77.0.1", None).unwrap(),
            size: Bytes::gib(1),
            kubelet: KubeletDir::imagined("/var/lib/kubelet"),
        };
        let machine = InMemory(FakeHost::new());
        machine.0.export(&nqn, place.size, Holds::Nothing);
        every_clause(&machine, &place);
        assert!(machine.0.is_clean());
    }
}
