//! Filesystems that fail: what is told of them, and by which event.

use anyhow::{Context as _, Result, ensure};
use rds_csi_api::csi::volume_capability::AccessType;
use rds_csi_integration::driver::{Driver, Pod, block, filesystem};
use rds_csi_integration::rig::Rig;
use tonic::Code;

use super::health::{Watched, trouble};
use super::{MIB, expect_refusal};

/// A StorageClass may ask for `errors=remount-ro`: then an error makes the filesystem read-only.
pub(crate) async fn a_filesystem_that_stops_writing_is_told_and_well_when_it_is_staged_again(
    rig: &Rig,
) -> Result<()> {
    Driver::on(rig, async |driver| {
        let w1 = rig.worker("w1");
        let mut capability = filesystem("ext4");
        let Some(AccessType::Mount(mount)) = &mut capability.access_type else {
            unreachable!("it is a filesystem")
        };
        mount.mount_flags = vec!["errors=remount-ro".into()];
        let volume = driver.create("read-only", capability, 64 * MIB).await?;
        let pod = driver.attach(&volume, w1).await?;
        w1.sh(&format!("echo precious >{0}/file; sync", pod.path())).await?;
        let mut watched = Watched::begin(driver, &pod).await?;
        let error = format!(
            "echo rig >/sys/fs/ext4/$(basename $(findmnt -n -o SOURCE {}))/trigger_fs_error",
            pod.path()
        );
        w1.sh(&error).await?;
        watched.tells("VolumeReadOnly").await?;
        let told = trouble(&pod).await?.context("a filesystem that takes no writes is not told")?;
        ensure!(told.contains("read-only") && told.contains("delete the pods"), "{told}");
        ensure!(watched.condition().await? == told, "the controller is told something else");

        driver.detach(pod).await?;
        let pod = driver.attach(&volume, w1).await?;
        ensure!(w1.sh(&format!("echo more >>{0}/file; cat {0}/file", pod.path())).await? == "precious\nmore");
        ensure!(trouble(&pod).await?.is_none());
        driver.detach(pod).await?;
        Ok(driver.delete(&volume).await?)
    })
    .await
}

/// Somebody's data is where a filesystem should be.
pub(crate) async fn a_filesystem_that_cannot_be_mounted_is_told_once(rig: &Rig) -> Result<()> {
    Driver::on(rig, async |driver| {
        let w1 = rig.worker("w1");
        let other = driver.create("watched", filesystem("ext4"), 64 * MIB).await?;
        let watching = driver.attach(&other, w1).await?;
        let mut volume = driver.create("unmountable", block(), 64 * MIB).await?;
        let raw = driver.attach(&volume, w1).await?;
        w1.sh(&format!("dd if=/dev/urandom of={} bs=1M count=1 conv=fsync 2>/dev/null", raw.path())).await?;
        raw.unpublish().await?;
        raw.unstage().await?;

        volume.capability = filesystem("ext4");
        let mut watched = Watched::begin_of(driver, &watching, &volume.id).await?;
        let pod = Pod::new(w1, volume.clone(), raw.context.clone(), "pod-1");
        for _ in 0..2 {
            expect_refusal(pod.stage().await, Code::FailedPrecondition, &["holds"])?;
        }
        watched.tells("MountFailure").await?;
        // What is told next is of the breaker: the second failure was no news.
        expect_refusal(pod.stage().await, Code::FailedPrecondition, &["holds"])?;
        watched.tells("BreakerOpened").await?;
        pod.unstage().await?;
        driver.unpublish(&volume, "w1").await?;
        driver.delete(&volume).await?;
        driver.detach(watching).await?;
        Ok(driver.delete(&other).await?)
    })
    .await
}
