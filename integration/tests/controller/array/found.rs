//! What others have left on the array, and what is broken there: told apart, and left alone.

use rds_csi_api::{Bytes, SnapshotId, VolumeId};
use rds_csi_controller::array::{
    Array, Content, Error, IfOpen, Owner, Soundness, Source, Wanted, WantedSnapshot,
};

use super::{Connected, PATIENT, wanted};
use crate::world;

const GO: &str = "pvc-123e4567-e89b-12d3-a456-426614174000";
const OURS: &str = "pvc-ci7ekz7itmjnhjcwijtbif2aaa";

/// A volume as the Go driver makes them.
const GO_VOLUME: [&str; 2] = [
    "/file add name=storage-pool/metal-csi type=directory",
    "/disk add type=file file-path=/storage-pool/metal-csi/pvc-123e4567-e89b-12d3-a456-426614174000.img file-size=1G \
     slot=pvc-123e4567-e89b-12d3-a456-426614174000 \
     nvme-tcp-server-nqn=nqn.2000-02.com.mikrotik:pvc-123e4567-e89b-12d3-a456-426614174000",
];

#[tokio::test]
async fn a_flat_volume_grows_and_is_told_how_to_be_connected_to_and_is_neither_snapshotted_nor_cloned() {
    let (simulator, site) = world::simulator(|_| {}).await;
    let connected = Connected::to(&site, 1, PATIENT);
    for line in GO_VOLUME {
        world::shell(&site, line).await;
    }
    let id: VolumeId = GO.parse().unwrap();
    let flat = Error::Flat(id.clone());
    let snapshot = WantedSnapshot {
        id: "snap-a".parse().unwrap(),
        source: id.clone(),
        now: std::time::SystemTime::now(),
    };
    assert_eq!(connected.array.take_snapshot(&snapshot).await.as_ref(), Err(&flat));
    let content = Content::CopyOf { source: Source::Volume(id.clone()), least: None, most: None };
    assert_eq!(connected.array.create(&Wanted { content, ..wanted(OURS) }).await, Err(flat));
    assert_eq!(connected.array.expand(&id, Bytes::gib(2)).await.unwrap().size, Bytes::gib(2));
    // Who changes what nobody claims makes it its own.
    assert_eq!(connected.array.volume(&id).await.unwrap().owner, Owner::Nobody);
    let policy = "600,2,5,off".parse().unwrap();
    let modified = connected.array.modify(&id, &policy).await.unwrap();
    assert_eq!((modified.owner, modified.reconnect), (Owner::ThisCluster, Some(policy)));
    connected.array.delete(&id, IfOpen::Refuse).await.unwrap();
    let state = simulator.state().unwrap();
    assert!(state.disks.is_empty() && state.files.len() == 1 && state.subvolumes.is_empty(), "{state:#?}");
    connected.close().await;
}

#[tokio::test]
async fn snapshots_of_others_and_what_only_looks_like_one_are_left_alone() {
    for (name, access) in
        [("snap-a.red.1764000007.1073741824.pvc-a", "yes"), ("snap-a.blue.1764000007.1.pvc-a", "no")]
    {
        let (simulator, site) = world::simulator(|_| {}).await;
        let connected = Connected::to(&site, 1, PATIENT);
        connected.array.create(&wanted("pvc-a")).await.unwrap();
        let add = "/disk/btrfs/subvolume add fs=storage-pool parent=pvc-a";
        world::shell(&site, &format!("{add} name={name} read-only={access}")).await;
        let before = simulator.state().unwrap().subvolumes;
        let id: SnapshotId = "snap-a".parse().unwrap();
        let taken = WantedSnapshot {
            id: id.clone(),
            source: "pvc-a".parse().unwrap(),
            now: std::time::SystemTime::now(),
        };
        let content = Content::CopyOf { source: Source::Snapshot(id.clone()), least: None, most: None };
        for refused in [
            connected.array.snapshot(&id).await.err(),
            connected.array.take_snapshot(&taken).await.err(),
            connected.array.delete_snapshot(&id).await.err(),
            connected.array.create(&Wanted { content, ..wanted("pvc-b") }).await.err(),
        ] {
            assert!(matches!(refused, Some(Error::Foreign { .. })), "{name}: {refused:?}");
        }
        assert_eq!(simulator.state().unwrap().subvolumes, before);
        connected.close().await;
    }
}

/// A name proves nothing where people give names, too.
#[tokio::test]
async fn what_people_keep_under_the_name_of_a_volume_stays() {
    let (simulator, site) = world::simulator(|_| {}).await;
    let connected = Connected::to(&site, 1, PATIENT);
    let hollow = "snap-123e4567-e89b-12d3-a456-426614174000-at-3a9f8c02d1";
    for line in [
        "/file add name=storage-pool/metal-csi type=directory",
        "/file add name=storage-pool/metal-csi/backup type=directory",
        "/disk/btrfs/subvolume add fs=storage-pool name=rescue",
        "/disk/btrfs/subvolume add fs=storage-pool name=backup",
        "/file add name=storage-pool/backup/disk.img",
    ] {
        world::shell(&site, line).await;
    }
    for folder in ["metal-csi/backup", "rescue"] {
        for name in [GO, hollow] {
            world::shell(&site, &format!("/file add name=storage-pool/{folder}/{name}.img")).await;
        }
    }
    let paths = || {
        let files = simulator.state().unwrap().files.into_iter().map(|file| file.path.to_string());
        files.collect::<Vec<_>>()
    };
    let kept = paths();
    for (folder, cut) in [("", false), ("metal-csi/", false), ("", true), ("metal-csi/", true)] {
        for name in [GO, hollow] {
            let line = format!(
                "/disk add type=file file-size=1G file-path=/storage-pool/{folder}{name}.img slot={name} nvme-tcp-server-nqn=nqn.2000-02.com.mikrotik:{name}"
            );
            world::shell(&site, &line).await;
            if cut {
                world::shell(&site, &format!("/disk remove [find slot={name}]")).await;
            }
        }
        assert_eq!(paths().len(), kept.len() + 2);
        for _repeated in 0..2 {
            connected.array.delete(&GO.parse().unwrap(), IfOpen::GoOn).await.unwrap();
            connected.array.delete_snapshot(&hollow.parse().unwrap()).await.unwrap();
            assert_eq!(paths(), kept, "{folder}, {cut}");
        }
    }
    connected.array.delete(&"backup".parse().unwrap(), IfOpen::GoOn).await.unwrap();
    assert_eq!(paths(), kept);
    assert_eq!(simulator.state().unwrap().subvolumes.len(), 2);
    connected.close().await;
}

#[tokio::test]
async fn half_a_copy_that_a_disk_uses_is_not_made_anew() {
    let (simulator, site) = world::simulator(|_| {}).await;
    let connected = Connected::to(&site, 1, PATIENT);
    connected.array.create(&wanted("pvc-a")).await.unwrap();
    for line in [
        format!("/disk/btrfs/subvolume add fs=storage-pool name={OURS}.blue.making"),
        format!("/disk/btrfs/subvolume add fs=storage-pool name={OURS} parent=pvc-a"),
        format!("/disk add type=file file-path=/storage-pool/{OURS}/disk.img slot=rescue"),
    ] {
        world::shell(&site, &line).await;
    }
    let before = format!("{:?}", simulator.state().unwrap());
    let content =
        Content::CopyOf { source: Source::Volume("pvc-a".parse().unwrap()), least: None, most: None };
    let refused = connected.array.create(&Wanted { content, ..wanted(OURS) }).await;
    assert!(matches!(refused, Err(Error::Concurrent { .. })), "{refused:?}");
    assert_eq!(format!("{:?}", simulator.state().unwrap()), before);
    connected.close().await;
}

#[tokio::test]
async fn an_inventory_tells_ours_from_nobodys_and_others_and_what_is_broken_or_left_over() {
    let (_simulator, site) = world::simulator(|_| {}).await;
    let connected = Connected::to(&site, 1, PATIENT);
    for id in ["pvc-a", "pvc-b"] {
        connected.array.create(&wanted(id)).await.unwrap();
    }
    let nqn = "nvme-tcp-server-nqn=nqn.2000-02.com.mikrotik:";
    let disk = "/disk add type=file file-size=1G";
    for line in GO_VOLUME.map(str::to_owned).into_iter().chain([
        // Another cluster's, a person's, and one of ours with a strange name.
        "/disk/btrfs/subvolume add fs=storage-pool name=theirs".into(),
        format!("{disk} slot=pvc-t file-path=/storage-pool/theirs/t.img {nqn}pvc-t comment=\"rds-csi:red\""),
        format!("{disk} slot=pvc-p file-path=/storage-pool/theirs/p.img {nqn}something"),
        format!("{disk} slot=pvc-o file-path=/storage-pool/theirs/o.img {nqn}other comment=\"rds-csi:blue\""),
        // Left over.
        format!("/disk/btrfs/subvolume add fs=storage-pool name={OURS}"),
        "/disk/btrfs/subvolume add fs=storage-pool name=pvc-c.blue.making".into(),
        "/disk/btrfs/subvolume add fs=storage-pool name=pvc-c.red.making".into(),
        "/disk/btrfs/subvolume add fs=storage-pool name=snap-a.blue.never.1.pvc-a read-only=yes".into(),
        "/disk/btrfs/subvolume add fs=storage-pool name=snap-b.red.never.1.pvc-a read-only=yes".into(),
        "/file add name=storage-pool/metal-csi/pvc-00000000-e89b-12d3-a456-426614174000.img".into(),
    ]) {
        world::shell(&site, &line).await;
    }
    let inventory = connected.array.inventory().await.unwrap();
    let volumes: Vec<_> = inventory.volumes.iter().map(|it| (it.id.as_str(), it.owner)).collect();
    assert_eq!(volumes, [(GO, Owner::Nobody), ("pvc-a", Owner::ThisCluster), ("pvc-b", Owner::ThisCluster)]);
    assert!(inventory.volumes.iter().all(|volume| volume.soundness == Soundness::Sound));
    let strays: Vec<_> = inventory.strays.iter().map(|stray| stray.name.as_str()).collect();
    assert_eq!(
        strays,
        [
            "pvc-c.blue.making",
            OURS,
            "pvc-o",
            "snap-a.blue.never.1.pvc-a",
            "storage-pool/metal-csi/pvc-00000000-e89b-12d3-a456-426614174000.img",
        ]
    );
    connected.close().await;
}

#[tokio::test]
async fn a_pool_that_is_not_there_has_no_capacity_and_says_so() {
    let (_simulator, site) = world::simulator(|options| options.pool = "other-pool".into()).await;
    let connected = Connected::to(&site, 1, PATIENT);
    let refused = connected.array.capacity().await.unwrap_err();
    assert!(
        matches!(refused, Error::NoPool { .. }) && refused.to_string().contains("storage-pool"),
        "{refused}"
    );
    connected.close().await;
}
