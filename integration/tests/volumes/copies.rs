//! Snapshots, restores and clones: data that is really there, and volumes that need each other no more.

use anyhow::{Result, ensure};
use rds_csi_integration::driver::{Driver, Pod, filesystem, snapshot_source, volume_source};
use rds_csi_integration::rig::Rig;

use super::MIB;

/// Fills a file of the pod's volume with noise, so that it has arrived on the array; returns its checksum.
async fn write(pod: &Pod<'_>) -> Result<String> {
    let file = format!("{}/data", pod.path());
    pod.worker
        .sh(&format!("dd if=/dev/urandom of={file} bs=1M count=8 conv=notrunc,fsync 2>/dev/null; sync"))
        .await?;
    checksum(pod).await
}

async fn checksum(pod: &Pod<'_>) -> Result<String> {
    pod.worker.sh(&format!("sha256sum <{}/data", pod.path())).await
}

pub(crate) async fn a_snapshot_keeps_what_was_there(rig: &Rig) -> Result<()> {
    Driver::on(rig, async |driver| {
        let w1 = rig.worker("w1");
        let volume = driver.create("kept", filesystem("ext4"), 64 * MIB).await?;
        let pod = driver.attach(&volume, w1).await?;
        let before = write(&pod).await?;
        let snapshot = driver.snapshot("kept-snapshot", &volume).await?;
        let after = write(&pod).await?;
        ensure!(before != after, "nothing was overwritten");
        ensure!(
            driver.snapshot("kept-snapshot", &volume).await? == snapshot,
            "a repetition took another snapshot"
        );

        // Restored to more than it was: its filesystem grows when it is staged, beside its source.
        let source = snapshot_source(&snapshot);
        let restored = driver.copy("kept-restored", source.clone(), &volume, 160 * MIB).await?;
        let second = driver.attach(&restored, w1).await?;
        ensure!(checksum(&second).await? == before, "the restored volume holds something else");
        ensure!(checksum(&pod).await? == after, "the source holds something else");
        let size = w1.sh(&format!("stat -f -c '%b %S' {}", second.path())).await?;
        let (blocks, block) = size.split_once(' ').unwrap_or_default();
        let size = blocks.parse::<u64>()? * block.parse::<u64>()?;
        ensure!(size > 120 * MIB, "the restored filesystem has {size} bytes");

        // A snapshot of what came from a snapshot; then everything before it goes.
        let changed = write(&second).await?;
        let snapshot_2 = driver.snapshot("kept-snapshot-2", &restored).await?;
        driver.detach(pod).await?;
        driver.delete(&volume).await?;
        driver.detach(second).await?;
        driver.delete(&restored).await?;
        for (name, from, expected) in
            [("kept-old", source, &before), ("kept-new", snapshot_source(&snapshot_2), &changed)]
        {
            let copy = driver.copy(name, from, &restored, 160 * MIB).await?;
            let pod = driver.attach(&copy, rig.worker("w2")).await?;
            ensure!(checksum(&pod).await? == *expected, "{name} holds something else");
            driver.detach(pod).await?;
            driver.delete(&copy).await?;
        }
        for id in [&snapshot, &snapshot_2] {
            driver.delete_snapshot(id).await?;
            driver.delete_snapshot(id).await?;
        }
        Ok(())
    })
    .await
}

/// Both have the same UUID, and the clone's log was cut off in the middle.
pub(crate) async fn a_clone_of_a_mounted_xfs_lives_beside_its_source_and_after_it(rig: &Rig) -> Result<()> {
    Driver::on(rig, async |driver| {
        let w1 = rig.worker("w1");
        let volume = driver.create("cloned", filesystem("xfs"), 320 * MIB).await?;
        let pod = driver.attach(&volume, w1).await?;
        let before = write(&pod).await?;
        let clone = driver.copy("clone", volume_source(&volume), &volume, 320 * MIB).await?;
        let beside = driver.attach(&clone, w1).await?;
        ensure!(checksum(&beside).await? == before, "the clone holds something else");
        let uuid = |pod: &Pod<'_>| format!("blkid -s UUID -o value $(findmnt -n -o SOURCE {})", pod.path());
        ensure!(
            w1.sh(&uuid(&pod)).await? == w1.sh(&uuid(&beside)).await?,
            "the clone is no copy of the filesystem"
        );
        let after = write(&pod).await?;
        ensure!(after != before && checksum(&beside).await? == before, "the clone follows its source");

        driver.detach(pod).await?;
        driver.delete(&volume).await?;
        ensure!(checksum(&beside).await? == before, "the clone lost its data with its source");
        driver.detach(beside).await?;
        let elsewhere = driver.attach(&clone, rig.worker("w2")).await?;
        ensure!(checksum(&elsewhere).await? == before, "the clone lost its data when it moved");
        driver.detach(elsewhere).await?;
        driver.delete(&clone).await?;
        Ok(())
    })
    .await
}
