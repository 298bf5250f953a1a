//! What goes between the nodes' agents and the objects of the API server, by way of the controller.

use anyhow::{Result, ensure};
use rds_csi_integration::driver::filesystem;
use rds_csi_integration::rig::eventually;

use crate::leading::leads;
use crate::plane::{PATIENCE, Plane};
use crate::site::Site;

const RESET: &str = "rds.csi.srvlab.io/reset-circuit-breaker";

pub(crate) async fn an_annotation_resets_a_breaker_and_goes_once_that_is_done(plane: &Plane) -> Result<()> {
    let mut site = Site::start(plane, &["w1", "w2"]).await?;
    let replica = site.replica("one").await?;
    let volume = site.volume(&replica, "held-back", filesystem("ext4")).await?;
    let id = volume.volume.id.clone();
    site.attach(&replica, &volume, "w1").await?;
    site.agent("w1").opens_breaker(&id);
    site.annotate(&volume, RESET, Some("true")).await?;
    let gone = async || Ok(site.annotation(&volume, RESET).await?.is_none());
    eventually("the annotation goes", PATIENCE, gone).await?;
    ensure!(!site.agent("w1").holds_back(&id), "the annotation went, and the breaker is open");
    site.is_told(&volume, "CircuitBreakerReset", "mkfs failed three times").await?;

    // As long as the node does not answer, nobody says that it is done.
    site.silence("w1");
    site.annotate(&volume, RESET, Some("true")).await?;
    let tried = async || Ok(replica.controller.log().contains("reset-circuit-breaker asks for is not done"));
    eventually("it is tried", PATIENCE, tried).await?;
    ensure!(site.annotation(&volume, RESET).await?.is_some(), "it is said to be done");
    site.answers("w1", 1);
    site.agent("w1").opens_breaker(&id);
    eventually("the node is back", PATIENCE, async || Ok(site.annotation(&volume, RESET).await?.is_none()))
        .await?;
    ensure!(!site.agent("w1").holds_back(&id), "the annotation went, and the breaker is open");
    site.detach(&replica, &volume, "w1").await?;
    site.forget(&replica, volume).await?;
    site.end([replica]).await
}

pub(crate) async fn what_a_node_tells_is_an_event_of_the_claim_once(plane: &Plane) -> Result<()> {
    let site = Site::start(plane, &["w1", "w2"]).await?;
    let one = site.replica("one").await?;
    eventually("the first leads", PATIENCE, async || leads(&one).await).await?;
    let volume = site.volume(&one, "told", filesystem("ext4")).await?;
    let id = volume.volume.id.clone();
    site.attach(&one, &volume, "w1").await?;
    site.agent("w1").notices(&id, "ConnectionLost", "its connection is lost");
    site.is_told(&volume, "ConnectionLost", "node w1: its connection is lost").await?;

    // Who leads next reads from the beginning, and tells only what was not told.
    one.kill();
    let two = site.replica("two").await?;
    site.agent("w1").notices(&id, "ConnectionRecovered", "its connection is back");
    site.is_told(&volume, "ConnectionRecovered", "is back").await?;
    let events = site.events(&volume).await?;
    ensure!(events.iter().filter(|(reason, _)| reason == "ConnectionLost").count() == 1, "{events:?}");
    site.detach(&two, &volume, "w1").await?;
    site.forget(&two, volume).await?;
    site.end([two]).await
}
