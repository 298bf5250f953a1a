//! How long a burst of attachments takes, and what many of them leave in memory. Figures are printed; only counts are
//! asserted, since a machine may be busy.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use rds_csi_integration::driver::filesystem;
use rds_csi_integration::simulator::Fault;

use crate::plane::Plane;
use crate::site::Site;

/// Attachments at once.
const BURST: usize = 100;

/// What a command takes on the array.
const LATENCY: Duration = Duration::from_millis(20);

/// Rounds of attach and detach, and how many before memory is looked at first.
const CYCLES: usize = 200;
const WARM: usize = 20;

/// How often PersistentVolumes were patched with success, as the API server counts.
async fn patches(plane: &Plane) -> Result<u64> {
    let request = axum::http::Request::get("/metrics").body(Vec::new())?;
    let metrics = plane.client().request_text(request).await?;
    let lines = metrics.lines().filter(|line| {
        line.starts_with("apiserver_request_total{")
            && line.contains(r#"resource="persistentvolumes""#)
            && line.contains(r#"verb="PATCH""#)
            && line.contains(r#"code="200""#)
    });
    lines.map(|line| Ok(line.rsplit_once(' ').context("a value")?.1.parse::<u64>()?)).sum()
}

pub(crate) async fn a_burst_of_attachments_takes_one_patch_and_one_command_each(plane: &Plane) -> Result<()> {
    let site = Site::start(plane, &["w1"]).await?;
    let replica = site.replica("one").await?;
    let mut volumes = Vec::new();
    for number in 0..BURST {
        let volume = site.volume(&replica, &format!("burst-{number}"), filesystem("ext4")).await?;
        site.want(&volume, "w1").await?;
        volumes.push(volume);
    }
    site.simulator.inject(Fault::latency(LATENCY));
    let (before, began) = (patches(plane).await?, Instant::now());
    try_join_all(volumes.iter().map(|volume| site.publish(&replica, volume, "w1"))).await?;
    let took = began.elapsed();
    let patched = patches(plane).await? - before;
    eprintln!(
        "bench: {BURST} attachments at once take {:.2} s with {} ms per command on the array, and {patched} patches",
        took.as_secs_f64(),
        LATENCY.as_millis()
    );
    ensure!(patched == BURST as u64, "{patched} patches");
    site.simulator.clear_faults();
    let began = Instant::now();
    try_join_all(volumes.iter().map(|volume| site.unpublish(&replica, volume, "w1"))).await?;
    eprintln!("bench: {BURST} detachments at once take {:.2} s", began.elapsed().as_secs_f64());
    for volume in volumes {
        site.forget_attachment(&volume, "w1").await?;
        site.forget(&replica, volume).await?;
    }
    site.end([replica]).await
}

pub(crate) async fn attachments_that_are_gone_take_no_memory(plane: &Plane) -> Result<()> {
    let site = Site::start(plane, &["w1"]).await?;
    let replica = site.replica("one").await?;
    let volume = site.volume(&replica, "cycles", filesystem("ext4")).await?;
    let mut first = 0;
    for cycle in 0..WARM + CYCLES {
        if cycle == WARM {
            first = replica.controller.resident()?;
        }
        site.attach(&replica, &volume, "w1").await?;
        site.detach(&replica, &volume, "w1").await?;
    }
    let last = replica.controller.resident()?;
    eprintln!("bench: {CYCLES} cycles of attach and detach: from {first} to {last} kB resident");
    site.forget(&replica, volume).await?;
    site.end([replica]).await
}
