//! Which replica does what only one does.

use anyhow::{Result, ensure};
use rds_csi_integration::rig::eventually;

use crate::plane::{PATIENCE, Plane};
use crate::proxy::Way;
use crate::site::{Replica, Site};

pub(crate) async fn leads(replica: &Replica) -> Result<bool> {
    Ok(replica.metric("rds_csi_leader").await? == Some(1.0))
}

pub(crate) async fn when_the_leader_dies_or_is_cut_off_the_other_leads(plane: &Plane) -> Result<()> {
    let site = Site::start(plane, &[]).await?;
    let one = site.replica("one").await?;
    eventually("the first leads", PATIENCE, async || leads(&one).await).await?;
    let two = site.replica("two").await?;
    ensure!(!leads(&two).await?, "two lead");

    // Cut off, it leads no more before the other one begins to.
    one.proxy.set(Way::Silent);
    let taken = async || {
        // In this order: what is seen last cannot have ended before it began.
        let (second, first) = (leads(&two).await?, leads(&one).await?);
        ensure!(!(first && second), "two lead");
        Ok(second)
    };
    eventually("the second leads", PATIENCE, taken).await?;
    one.proxy.set(Way::Open);

    two.kill();
    eventually("the first leads again", PATIENCE, async || leads(&one).await).await?;
    // Who ends in order gives it back at once.
    let three = site.replica("three").await?;
    let Replica { controller, proxy } = one;
    let began = std::time::Instant::now();
    controller.stop().await?;
    drop(proxy);
    eventually("the third leads", PATIENCE, async || leads(&three).await).await?;
    eprintln!("leading: handed over within {:.1} s", began.elapsed().as_secs_f32());
    site.end([three]).await
}
