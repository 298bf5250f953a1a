use std::path::Path;

use rds_csi_api::Rpc;
use rds_csi_api::serve::call::Call;
use rustix::io::Errno;

use super::*;
use crate::host::fake::{Act, FakeHost, Holds};
use crate::host::{Attachment, KubeletDir, Use};
use crate::stage::{self, stage};
use crate::world::{World, world};

/// A node with a connection that nobody uses, and who looks for it.
struct Left {
    world: World,
    calls: Calls,
    orphans: Orphans<FakeHost>,
}

fn left() -> Left {
    let world = world(Holds::Nothing);
    world.host.connect_by_hand(&world.nqn);
    let mut registry = Registry::default();
    let calls = Calls::new(&mut registry);
    let volumes = Arc::new(world.volumes_again());
    let orphans = Orphans::new(volumes, calls.clone(), Events::new(10), &mut registry);
    Left { world, calls, orphans }
}

impl Left {
    fn look(&mut self) -> &mut Self {
        self.orphans.look(&CancellationToken::new());
        self
    }

    fn is_connected(&self) -> bool {
        self.world.host.attachment(&self.world.nqn).unwrap() != Attachment::Absent
    }

    /// However often somebody looks.
    fn stays(&mut self, why: &str) {
        for _ in 0..4 {
            self.look();
        }
        assert!(self.is_connected(), "{why}");
        assert!(self.orphans.events.kept().is_empty(), "{why}");
        assert_eq!(self.orphans.ended.get(), 0, "{why}");
    }
}

#[test]
fn a_connection_that_nobody_uses_is_ended_when_it_is_seen_twice() {
    let mut left = left();
    assert!(left.look().is_connected());
    assert!(!left.look().is_connected());
    let events = left.orphans.events.kept();
    assert_eq!((events.len(), events[0].reason), (1, Reason::OrphanDisconnected));
    assert!(events[0].message.contains("mikrotik:pvc-a") && events[0].message.contains("/dev/nvme1n1"));
    assert_eq!(left.orphans.ended.get(), 1);
    left.look().look();
    assert_eq!(left.orphans.ended.get(), 1);
}

#[test]
fn lesson_3_a_connection_that_anything_uses_stays() {
    let mut mounted = left();
    mounted.world.host.mount_again(&mounted.world.nqn, Path::new("/mnt"));
    mounted.stays("it is mounted");
    let mut node = left();
    node.world.host.mount_device_node(&node.world.nqn, Path::new("/pods/p/device"));
    node.stays("its node is mounted");
    for how in [Use::OpenFile, Use::MountElsewhere, Use::BlockDevice] {
        let mut used = left();
        used.world.host.use_device(&used.world.nqn, how, 4711, "dd", "/dev/x");
        used.stays(&format!("{how:?}"));
    }
}

#[test]
fn a_connection_with_a_record_of_any_kind_stays() {
    let mut staged = left();
    stage(&staged.world.volumes, &staged.world.stage_as(stage::Usage::Block)).unwrap();
    staged.stays("it is staged as a block volume, and nobody has opened it yet");

    let mut damaged = left();
    damaged.world.damage_record("pvc-a");
    damaged.stays("its record cannot be read");

    let mut namesake = left();
    stage(&namesake.world.volumes, &namesake.world.stage_as(stage::Usage::Block)).unwrap();
    let mut record = namesake.world.volumes.records.read(&namesake.world.volume).unwrap().unwrap();
    namesake.world.volumes.records.remove(&record.volume).unwrap();
    record.volume = "rack-2/pvc-a".parse().unwrap();
    namesake.world.volumes.records.write(&record).unwrap();
    namesake.stays("another array's volume of that name has a record");
}

#[test]
fn a_connection_of_a_volume_that_kubelet_staged_stays_whoever_did_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("plugins/kubernetes.io/csi/volumeDevices/pv-a/data");
    std::fs::create_dir_all(&data).unwrap();
    let file = data.join("vol_data.json");
    std::fs::write(&file, r#"{"driverName":"rds.csi.srvlab.io","volumeHandle":"pvc-a"}"#).unwrap();
    let mut left = left();
    let kubelet = KubeletDir::open(folder.path()).unwrap();
    left.orphans.volumes = Arc::new(Volumes { kubelet, ..left.world.volumes_again() });
    left.stays("an earlier driver staged it as a block volume, and nobody has opened it yet");
    std::fs::write(&file, "{").unwrap();
    left.stays("what kubelet wrote cannot be read");
    std::fs::remove_file(&file).unwrap();
    left.look();
    assert!(!left.look().is_connected());
}

#[test]
fn what_cannot_be_told_counts_as_in_use() {
    let mut left = left();
    left.look();
    left.world.host.fail_once(Act::Holders, Errno::ACCESS);
    assert!(left.look().is_connected(), "nobody could say who holds it");
    assert!(left.look().is_connected(), "two sightings in a row are needed");
    assert!(!left.look().is_connected());

    let mut without_device = self::left();
    without_device.world.host.unscan(&without_device.world.nqn);
    without_device.stays("it has no device that anybody could be asked about");
}

#[test]
fn a_connection_that_was_made_anew_is_seen_for_the_first_time() {
    let mut left = left();
    left.look();
    left.world.host.renumber();
    assert!(left.look().is_connected());
    assert!(!left.look().is_connected());
}

#[tokio::test]
async fn while_a_call_runs_on_the_volume_it_stays() {
    let mut left = left();
    left.look();
    for volume in ["pvc-a", "rack-2/pvc-a"] {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let staging = move || {
            let _ = ended.recv();
            Ok::<_, Error>(())
        };
        let id = volume.parse().unwrap();
        let call = Call::on(Rpc::NodeStageVolume, &id);
        left.calls.run_blocking(call, Duration::ZERO, staging).await.unwrap_err();
        left.stays(volume);
        end.send(()).unwrap();
        while !left.calls.running().is_empty() {
            tokio::task::yield_now().await;
        }
    }
    assert!(!left.look().is_connected());
}

#[test]
fn a_connection_whose_disconnect_fails_is_tried_again() {
    let mut left = left();
    left.look();
    left.world.host.fail_once(Act::Disconnect, Errno::IO);
    assert!(left.look().is_connected());
    assert!(!left.look().is_connected());
}

#[test]
fn nothing_is_ended_when_the_process_ends() {
    let mut left = left();
    left.look();
    let ending = CancellationToken::new();
    ending.cancel();
    left.orphans.look(&ending);
    assert!(left.is_connected());
}

#[test]
fn lesson_17_a_connection_without_the_managed_prefix_stays() {
    let mut left = left();
    let system: Nqn = "nqn.2000-02.com.mikrotik:nixos-var".parse().unwrap();
    left.world.host.connect_by_hand(&system);
    left.look().look().look();
    let known = left.world.host.subsystems(&|_| true).unwrap();
    assert_eq!(known.into_keys().collect::<Vec<_>>(), [system]);
}

#[tokio::test]
async fn it_looks_at_once_and_again_and_ends_with_the_process() {
    let left = left();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(left.orphans.run(Duration::from_millis(1), shutdown.clone()));
    while left.world.host.attachment(&left.world.nqn).unwrap() != Attachment::Absent {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    shutdown.cancel();
    running.await.unwrap().unwrap();
}
