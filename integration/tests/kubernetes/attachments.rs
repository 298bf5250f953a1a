//! Who gets a volume, by the objects of a real API server.

use anyhow::{Result, ensure};
use rds_csi_integration::driver::{filesystem, shared_block};
use rds_csi_integration::rig::eventually;
use tonic::{Code, Status};

use crate::plane::{PATIENCE, Plane};
use crate::proxy::Way;
use crate::site::{Claimed, Replica, Site};

/// The refusal, if its code and its message are these.
pub(crate) fn refused<T: std::fmt::Debug>(outcome: Result<T, Status>, code: Code, says: &str) -> Result<()> {
    let status = outcome.expect_err("it should be refused");
    ensure!(status.code() == code && status.message().contains(says), "{status:?} should say {says:?}");
    Ok(())
}

pub(crate) async fn is_recorded(site: &Site<'_>, volume: &Claimed, nodes: &[&str]) -> Result<()> {
    let record = site.record(volume).await?;
    let names = |node: &&str| record.as_ref().is_some_and(|record| record.contains(&format!("\"{node}\"")));
    ensure!(
        nodes.iter().all(names) && record.is_some() != nodes.is_empty(),
        "{record:?} should name {nodes:?}"
    );
    Ok(())
}

/// One volume, two nodes, one replica.
async fn alone<'plane>(plane: &'plane Plane, name: &str) -> Result<(Site<'plane>, Replica, Claimed)> {
    let site = Site::start(plane, &["w1", "w2"]).await?;
    let replica = site.replica("one").await?;
    let volume = site.volume(&replica, name, filesystem("ext4")).await?;
    Ok((site, replica, volume))
}

pub(crate) async fn a_second_node_fails_at_once_and_gets_it_after_the_first(plane: &Plane) -> Result<()> {
    let (site, replica, volume) = alone(plane, "rwo").await?;
    site.attach(&replica, &volume, "w1").await?;
    is_recorded(&site, &volume, &["w1"]).await?;
    site.want(&volume, "w2").await?;
    refused(site.publish(&replica, &volume, "w2").await, Code::FailedPrecondition, "node w1 holds")?;
    site.is_told(&volume, "AttachmentConflict", "w1").await?;
    // Asked again and again, people are told once.
    for _ in 0..5 {
        refused(site.publish(&replica, &volume, "w2").await, Code::FailedPrecondition, "node w1 holds")?;
    }
    let conflicts = site.events(&volume).await?;
    ensure!(
        conflicts.iter().filter(|(reason, _)| reason == "AttachmentConflict").count() == 1,
        "{conflicts:?}"
    );
    ensure!(site.admitted(&volume)?.len() == 1);

    site.detach(&replica, &volume, "w1").await?;
    is_recorded(&site, &volume, &[]).await?;
    site.publish(&replica, &volume, "w2").await?;
    is_recorded(&site, &volume, &["w2"]).await?;
    site.detach(&replica, &volume, "w2").await?;
    ensure!(site.admitted(&volume)?.is_empty());
    site.forget(&replica, volume).await?;
    site.end([replica]).await
}

pub(crate) async fn without_the_api_server_nobody_is_let_in(plane: &Plane) -> Result<()> {
    let (site, replica, volume) = alone(plane, "silence").await?;
    let other = site.volume(&replica, "held", filesystem("ext4")).await?;
    site.attach(&replica, &other, "w1").await?;
    site.want(&volume, "w1").await?;
    for way in [Way::Silent, Way::Closed] {
        replica.proxy.set(way);
        refused(site.publish(&replica, &volume, "w1").await, Code::Unavailable, "not known")?;
        ensure!(site.admitted(&volume)?.is_empty(), "somebody was let in");
        // Who holds it by what was heard may have let it go since.
        refused(site.publish(&replica, &other, "w1").await, Code::Unavailable, "not known")?;
        refused(site.unpublish(&replica, &other, "w1").await, Code::Unavailable, "not known")?;
        replica.proxy.set(Way::Open);
        let published = async || Ok(site.publish(&replica, &other, "w1").await.is_ok());
        eventually("it is asked again", PATIENCE, published).await?;
    }
    site.publish(&replica, &volume, "w1").await?;
    for volume in [volume, other] {
        site.detach(&replica, &volume, "w1").await?;
        site.forget(&replica, volume).await?;
    }
    site.end([replica]).await
}

pub(crate) async fn of_two_replicas_that_race_for_two_nodes_one_wins(plane: &Plane) -> Result<()> {
    let site = Site::start(plane, &["w1", "w2"]).await?;
    let replicas = [site.replica("one").await?, site.replica("two").await?];
    let [one, two] = &replicas;
    for round in 0..10 {
        let volume = site.volume(one, &format!("race-{round}"), filesystem("ext4")).await?;
        site.want(&volume, "w1").await?;
        site.want(&volume, "w2").await?;
        let (first, second) =
            tokio::join!(site.publish(one, &volume, "w1"), site.publish(two, &volume, "w2"));
        ensure!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
        let (winner, loser) = if first.is_ok() { ("w1", "w2") } else { ("w2", "w1") };
        ensure!(site.admitted(&volume)?.len() == 1);
        is_recorded(&site, &volume, &[winner]).await?;
        let again = site.publish(two, &volume, loser).await;
        refused(again, Code::FailedPrecondition, &format!("node {winner} holds"))?;
        site.detach(one, &volume, winner).await?;
        site.forget_attachment(&volume, loser).await?;
        site.forget(two, volume).await?;
    }
    site.end(replicas).await
}

pub(crate) async fn a_replica_that_dies_in_the_middle_is_finished_by_the_other(plane: &Plane) -> Result<()> {
    use rds_csi_integration::simulator::{Effect, Fault};
    let site = Site::start(plane, &["w1", "w2"]).await?;
    let (one, two) = (site.replica("one").await?, site.replica("two").await?);
    let volume = site.volume(&one, "killed", filesystem("ext4")).await?;
    site.want(&volume, "w1").await?;
    // The array is asked, and does not answer before its asker is dead.
    site.simulator.inject(Fault::new(Effect::Hold).times(1));
    let publishing = site.publish(&one, &volume, "w1");
    let recorded = eventually("it is recorded", PATIENCE, async || Ok(site.record(&volume).await?.is_some()));
    tokio::select! {
        outcome = publishing => anyhow::bail!("it ended: {outcome:?}"),
        recorded = recorded => recorded?,
    }
    one.kill();
    site.simulator.clear_faults();
    refused(site.publish(&two, &volume, "w2").await, Code::FailedPrecondition, "node w1 holds")?;
    let finished = async || match site.publish(&two, &volume, "w1").await {
        Ok(_) => Ok(true),
        Err(status) if status.code() == Code::Unavailable || status.code() == Code::Aborted => Ok(false),
        Err(status) => Err(status.into()),
    };
    eventually("the other finishes it", PATIENCE, finished).await?;
    is_recorded(&site, &volume, &["w1"]).await?;
    ensure!(site.admitted(&volume)?.len() == 1);
    site.detach(&two, &volume, "w1").await?;
    site.forget(&two, volume).await?;
    site.end([two]).await
}

pub(crate) async fn a_lost_record_lets_nobody_else_in(plane: &Plane) -> Result<()> {
    let (site, replica, volume) = alone(plane, "lost").await?;
    site.attach(&replica, &volume, "w1").await?;
    site.agent("w1").uses(&volume.volume.id);
    site.write_record(&volume, None).await?;
    site.want(&volume, "w2").await?;
    refused(site.publish(&replica, &volume, "w2").await, Code::FailedPrecondition, "w1")?;
    // Repeated for the node that has it, it is recorded again.
    site.publish(&replica, &volume, "w1").await?;
    is_recorded(&site, &volume, &["w1"]).await?;
    site.agent("w1").lets_go(&volume.volume.id);
    site.forget_attachment(&volume, "w2").await?;
    site.detach(&replica, &volume, "w1").await?;
    site.forget(&replica, volume).await?;
    site.end([replica]).await
}

pub(crate) async fn a_volume_without_a_persistent_volume_is_not_attached(plane: &Plane) -> Result<()> {
    let (site, replica, volume) = alone(plane, "bare").await?;
    site.unclaim(&volume).await?;
    let gone = async || match site.publish(&replica, &volume, "w1").await {
        Err(status) => {
            Ok(status.code() == Code::NotFound && status.message().contains("no PersistentVolume"))
        }
        Ok(_) => Ok(false),
    };
    eventually("it is refused", PATIENCE, gone).await?;
    ensure!(site.admitted(&volume)?.is_empty());
    replica.controller.delete(&volume.volume).await?;
    site.end([replica]).await
}

pub(crate) async fn two_nodes_share_a_block_volume_and_a_third_does_not(plane: &Plane) -> Result<()> {
    let site = Site::start(plane, &["w1", "w2", "w3"]).await?;
    let replica = site.replica("one").await?;
    let volume = site.volume(&replica, "rwx", shared_block()).await?;
    site.attach(&replica, &volume, "w1").await?;
    site.attach(&replica, &volume, "w2").await?;
    site.want(&volume, "w3").await?;
    refused(site.publish(&replica, &volume, "w3").await, Code::FailedPrecondition, "w1 and w2")?;
    ensure!(site.admitted(&volume)?.len() == 2);
    site.forget_attachment(&volume, "w3").await?;
    site.detach(&replica, &volume, "w1").await?;
    is_recorded(&site, &volume, &["w2"]).await?;
    site.detach(&replica, &volume, "w2").await?;
    is_recorded(&site, &volume, &[]).await?;
    site.forget(&replica, volume).await?;
    site.end([replica]).await
}
