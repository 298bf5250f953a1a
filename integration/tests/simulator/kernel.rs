//! The simulated array on a real kernel: its answers over SSH, its exports as two workers' initiators see them.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use rds_csi_integration::rig::disk::{self, Disk, connections, host_nqn};
use rds_csi_integration::rig::{self, ArrayKind, Exit, Plan, Rig};

fn main() -> ExitCode {
    rig::group::<Rig>(Plan { array: ArrayKind::RouterOs, ..Plan::default() })
        .test("a_snapshot_keeps_its_bytes_and_a_clone_is_a_disk_of_its_own", snapshots_keep_bytes)
        .test("only_listed_hosts_connect_and_a_list_alone_cuts_nobody", only_listed_hosts_connect)
        .test("a_host_off_the_list_is_fenced_by_switching_the_export_off_and_on", fenced_by_a_switch)
        .test("a_new_nqn_shuts_out_who_held_the_old_one", a_new_nqn_shuts_out)
        .test("a_disk_that_grows_is_larger_at_once_where_it_is_attached", growth_is_seen_at_once)
        .test("a_pool_that_is_full_says_so_and_keeps_nothing", a_full_pool_keeps_nothing)
        .test("an_array_that_reboots_exports_what_it_exported", a_reboot_keeps_exports)
        .run()
}

async fn snapshots_keep_bytes(rig: &Rig) -> Result<()> {
    let w1 = rig.worker("w1");
    let source = Disk::create(rig, "src", 64).await?;
    source.export("").await?;
    let device = source.connect(w1).await?;
    w1.sh(&format!("printf before | dd of={device} conv=sync bs=4k oflag=direct status=none")).await?;
    disk::run(rig, "/disk/btrfs/subvolume add fs=storage-pool parent=src name=snap read-only=yes").await?;
    w1.sh(&format!("printf after_ | dd of={device} conv=sync bs=4k oflag=direct status=none")).await?;

    let frozen = Disk::over_existing_file(rig, "snap").await?;
    disk::refused(frozen.export("").await, "failure: read-only file system")?;
    disk::run(rig, "/disk remove snap").await?;

    disk::run(rig, "/disk/btrfs/subvolume add fs=storage-pool parent=snap name=clone").await?;
    let clone = Disk::over_existing_file(rig, "clone").await?;
    clone.export("").await?;
    let copy = clone.connect(w1).await?;
    ensure!(copy != device, "two disks are two devices: {copy}");
    ensure!(disk::beginning(w1, &copy).await? == "before", "the clone holds what the snapshot kept");
    ensure!(disk::beginning(w1, &device).await? == "after_");

    clone.disconnect(w1).await?;
    source.disconnect(w1).await?;
    let in_use = disk::run(rig, "/disk/btrfs/subvolume remove [find name=clone]").await;
    disk::refused(in_use, "failure: device or resource busy")?;
    clone.remove().await?;
    source.remove().await?;
    disk::run(rig, "/disk/btrfs/subvolume remove [find name=snap]").await.map(drop)
}

async fn only_listed_hosts_connect(rig: &Rig) -> Result<()> {
    let (w1, w2) = (rig.worker("w1"), rig.worker("w2"));
    let disk = Disk::create(rig, "acl", 64).await?;
    ensure!(disk.connect(w1).await.is_err(), "a disk that is not exported cannot be attached");

    disk.export(&host_nqn(w1)).await?;
    let device = disk.connect(w1).await?;
    let messages = w2.kernel_messages("w2 connects uninvited").await?;
    ensure!(disk.connect(w2).await.is_err(), "w2 is not on the list");
    ensure!(w2.sh(&messages).await?.contains("is not allowed"));

    disk.export(&host_nqn(w2)).await?;
    disk::write(w1, &device).await?;
    ensure!(connections(w1).await? == ["live"], "a list alone cuts nobody");
    disk.connect(w2).await?;

    disk.disconnect(w1).await?;
    disk.disconnect(w2).await?;
    disk.remove().await
}

async fn fenced_by_a_switch(rig: &Rig) -> Result<()> {
    let (w1, w2) = (rig.worker("w1"), rig.worker("w2"));
    let disk = Disk::create(rig, "fence", 64).await?;
    disk.export(&format!("{},{}", host_nqn(w1), host_nqn(w2))).await?;
    let (zombie, survivor) = (disk.connect(w1).await?, disk.connect(w2).await?);
    disk::write(w1, &zombie).await?;
    disk::write(w2, &survivor).await?;

    let messages = w1.kernel_messages("w1 is fenced").await?;
    disk::run(
        rig,
        &format!(
            "/disk set fence nvme-tcp-export=no; \
             /disk set fence nvme-tcp-server-allow-host-name=\"{}\" nvme-tcp-export=yes",
            host_nqn(w2)
        ),
    )
    .await?;
    disk::write(w2, &survivor).await?;
    ensure!(disk::beginning(w2, &survivor).await? == "w2", "the survivor goes on with the same device");
    w1.sh(&format!("until {messages} | grep -q 'is not allowed'; do sleep 0.1; done")).await?;
    disk::shut_out(w1).await?;

    disk.disconnect(w1).await?;
    disk.disconnect(w2).await?;
    disk.remove().await
}

async fn a_new_nqn_shuts_out(rig: &Rig) -> Result<()> {
    let (w1, w2) = (rig.worker("w1"), rig.worker("w2"));
    let disk = Disk::create(rig, "epoch", 64).await?;
    disk.export("").await?;
    let old = disk.connect(w1).await?;
    disk::write(w1, &old).await?;

    let next = disk.renamed("nqn.2000-02.com.mikrotik:epoch.e2").await?;
    let new = next.connect(w2).await?;
    ensure!(disk::beginning(w2, &new).await? == "w1", "the new name leads to the same data");
    disk::shut_out(w1).await?;

    disk.disconnect(w1).await?;
    next.disconnect(w2).await?;
    next.remove().await
}

async fn growth_is_seen_at_once(rig: &Rig) -> Result<()> {
    let w1 = rig.worker("w1");
    let disk = Disk::create(rig, "grow", 64).await?;
    disk.export("").await?;
    let device = disk.connect(w1).await?;
    disk::run(rig, "/disk set grow file-size=128M").await?;
    let wait = format!("until [ $(blockdev --getsize64 {device}) = {} ]; do sleep 0.1; done", 128 << 20);
    let seen = w1.guest().run_for(Duration::from_secs(10), &wait).await?;
    ensure!(seen.exit == Exit::Code(0), "the initiator was not told of the new size: {seen}");
    disk.disconnect(w1).await?;
    disk.remove().await
}

async fn a_full_pool_keeps_nothing(rig: &Rig) -> Result<()> {
    let before = rig.array().pool().await?;
    disk::refused(Disk::create(rig, "huge", 1 << 30).await, "failure: not enough space")?;
    ensure!(rig.array().pool().await? == before);
    Ok(())
}

async fn a_reboot_keeps_exports(rig: &Rig) -> Result<()> {
    let w1 = rig.worker("w1");
    let disk = Disk::create(rig, "lasting", 64).await?;
    disk.export(&host_nqn(w1)).await?;
    let device = disk.connect(w1).await?;
    disk::write(w1, &device).await?;
    rig.array().reboot().await?;
    disk::write(w1, &device).await?;
    ensure!(disk::beginning(w1, &device).await? == "w1", "the same device goes on");
    disk.disconnect(w1).await?;
    disk.remove().await
}
