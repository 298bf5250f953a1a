//! What happens all the time, while the controller dies again and again.

use anyhow::Result;
use rds_csi_integration::cluster::Cluster;

use super::claims;

pub(crate) async fn controllers_that_die_at_random_moments_spoil_nothing(cluster: &Cluster) -> Result<()> {
    let story = Box::pin(claims::snapshots_and_clones_hold_what_was_there(cluster));
    cluster.while_controllers_die(story).await
}
