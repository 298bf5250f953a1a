//! Volumes as people ask for them: by a claim.

use anyhow::{Result, ensure};
use rds_csi_integration::cluster::objects::{Access, Claim, DEVICE, DIRECTORY, PodPlan, Source};
use rds_csi_integration::cluster::{Cluster, PATIENCE};
use rds_csi_integration::rig::eventually;

use super::MIB;
use super::pods::nothing_is_left;

pub(crate) fn claim(name: &str, access: Access, size: u64) -> Claim<'_> {
    Claim { name, access, size, source: Source::Blank }
}

/// The digest of a file or of the beginning of a device, as a pod sees it.
async fn checksum(cluster: &Cluster, pod: &str, path: &str) -> Result<String> {
    cluster.exec(pod, &format!("dd if={path} bs=1M count=8 2>/dev/null | sha256sum")).await
}

/// Writes 8 MiB of noise, and returns their digest.
async fn write_noise(cluster: &Cluster, pod: &str, path: &str) -> Result<String> {
    let write = format!("dd if=/dev/urandom of={path} bs=1M count=8 conv=fsync,notrunc 2>/dev/null");
    cluster.exec(pod, &write).await?;
    checksum(cluster, pod, path).await
}

pub(crate) async fn a_claim_gets_a_volume_and_its_bytes_follow_its_pods(cluster: &Cluster) -> Result<()> {
    let file = format!("{DIRECTORY}/file");
    for (name, access, path) in
        [("files", Access::Filesystem, file.as_str()), ("blocks", Access::Block, DEVICE)]
    {
        cluster.claim(claim(name, access, 64 * MIB)).await?;
        cluster.run_pod(&PodPlan::new("writer", name, access)).await?;
        let volume = cluster.bound(name).await?.metadata.name.unwrap_or_default();
        let first = cluster.node_of("writer").await?;
        cluster.is_attached(&volume, &[&first]).await?;
        let written = write_noise(cluster, "writer", path).await?;
        cluster.end_pod("writer").await?;
        cluster.is_attached(&volume, &[]).await?;

        let second = if first == "w1" { "w2" } else { "w1" };
        cluster.run_pod(&PodPlan::new("reader", name, access).on(second)).await?;
        cluster.is_attached(&volume, &[second]).await?;
        ensure!(checksum(cluster, "reader", path).await? == written, "{name}: other bytes on {second}");
        cluster.end_pod("reader").await?;
        cluster.unclaim(name).await?;
    }
    nothing_is_left(cluster).await
}

pub(crate) async fn a_filesystem_grows_under_the_pod_that_uses_it(cluster: &Cluster) -> Result<()> {
    cluster.claim(claim("growing", Access::Filesystem, 64 * MIB)).await?;
    cluster.run_pod(&PodPlan::new("writer", "growing", Access::Filesystem)).await?;
    let written = write_noise(cluster, "writer", &format!("{DIRECTORY}/file")).await?;
    let size = format!("stat -f -c '%b %S' {DIRECTORY}");
    let blocks = async || -> Result<u64> {
        let told = cluster.exec("writer", &size).await?;
        let [blocks, of] = [0, 1].map(|n| told.split(' ').nth(n).and_then(|word| word.parse::<u64>().ok()));
        Ok(blocks.unwrap_or_default() * of.unwrap_or_default())
    };
    let before = blocks().await?;
    cluster.resize("growing", 192 * MIB).await?;
    let capacity = async || Ok(cluster.capacity("growing").await? == Some(192 * MIB));
    eventually("the claim has 192 MiB", PATIENCE, capacity).await?;
    let after = blocks().await?;
    ensure!(after > before + 100 * MIB, "{before} bytes before, {after} after");
    ensure!(checksum(cluster, "writer", &format!("{DIRECTORY}/file")).await? == written, "other bytes");
    ensure!(cluster.restarts("writer").await? == 0, "the pod was disturbed");
    cluster.end_pod("writer").await?;
    cluster.unclaim("growing").await?;
    nothing_is_left(cluster).await
}

pub(crate) async fn snapshots_and_clones_hold_what_was_there(cluster: &Cluster) -> Result<()> {
    let file = format!("{DIRECTORY}/file");
    cluster.claim(claim("original", Access::Filesystem, 64 * MIB)).await?;
    cluster.run_pod(&PodPlan::new("writer", "original", Access::Filesystem)).await?;
    let first = write_noise(cluster, "writer", &file).await?;
    cluster.snapshot("before", "original").await?;
    let second = write_noise(cluster, "writer", &file).await?;
    ensure!(first != second, "noise repeats itself");

    // Both at once, and beside their source, which goes on being written.
    let copies =
        [("restored", Source::Snapshot("before"), &first), ("cloned", Source::Claim("original"), &second)];
    for (name, source, _) in &copies {
        let wanted = claim(name, Access::Filesystem, 64 * MIB);
        cluster.claim(Claim { source: *source, ..wanted }).await?;
        cluster.make_pod(&PodPlan::new(name, name, Access::Filesystem)).await?;
    }
    for (name, _, wanted) in &copies {
        cluster.pod_runs(name).await?;
        ensure!(checksum(cluster, name, &file).await? == **wanted, "{name} holds other bytes");
        write_noise(cluster, name, &file).await?;
    }
    ensure!(checksum(cluster, "writer", &file).await? == second, "a copy was written into its source");

    for (pod, claim) in [("writer", "original"), ("restored", "restored"), ("cloned", "cloned")] {
        cluster.end_pod(pod).await?;
        cluster.unclaim(claim).await?;
    }
    cluster.delete_snapshot("before").await?;
    nothing_is_left(cluster).await
}
