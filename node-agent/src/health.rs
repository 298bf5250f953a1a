//! NodeGetVolumeHealth and NodeGetStorageHealth: what NodeGetVolumeStats tells as a volume's condition, in the words of CSI
//! 1.13, and what the connections of all volumes say about the arrays.

use std::collections::BTreeMap;
use std::sync::Arc;

use rds_csi_api::VolumeId;
use rds_csi_api::status::chain;

use crate::host::{Attachment, Host};
use crate::stats::{Error, LOOK_TIME, Measuring, Report, Wanted, stats};
use crate::volumes::Volumes;
use crate::volumes::health::Condition;

/// How a volume, or an array, is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Nothing is known against it.
    Sound,
    /// Something is wrong, and it can be used all the same.
    Degraded(String),
    /// It cannot be used from here.
    Inaccessible(String),
}

/// How a volume is that is staged, or was to be.
pub async fn volume<H: Host>(
    volumes: Arc<Volumes<H>>,
    measuring: &Measuring,
    volume: VolumeId,
) -> Result<Health, Error> {
    let (id, looked_at) = (volume.clone(), Arc::clone(&volumes));
    let read = move || looked_at.records.read(&id).map_err(Error::from);
    let record = volumes.reads.run(format!("volume {volume}"), LOOK_TIME, read).await?;
    let record = record.ok_or_else(|| Error::Unknown { volume: volume.clone() })?;
    let wanted = Wanted { volume: volume.clone(), path: record.staging };
    let (told, attachment) = match stats(volumes, measuring, wanted).await {
        Ok(Report { condition: Condition::Sound, .. }) => return Ok(Health::Sound),
        Ok(Report { condition: Condition::Abnormal(told), attachment, .. }) => (told, attachment),
        // It was to be staged there.
        Err(error @ Error::Elsewhere { .. }) => return Ok(Health::Inaccessible(error.to_string())),
        Err(error) => return Err(error),
    };
    Ok(match attachment {
        Attachment::Live(Some(_)) => Health::Degraded(told),
        Attachment::Live(None) | Attachment::Absent | Attachment::Lost | Attachment::Connecting(_) => {
            Health::Inaccessible(told)
        }
    })
}

/// How the arrays are that this node's volumes lie on. One that no volume is connected to is not looked at.
pub async fn storage<H: Host>(volumes: Arc<Volumes<H>>) -> Result<Vec<Health>, Error> {
    let looked_at = Arc::clone(&volumes);
    volumes.reads.run("every volume", LOOK_TIME, move || arrays(&looked_at)).await
}

fn arrays<H: Host>(volumes: &Volumes<H>) -> Result<Vec<Health>, Error> {
    let mut arrays: BTreeMap<String, (Vec<VolumeId>, Vec<VolumeId>)> = BTreeMap::new();
    let records = volumes.records.list()?.records;
    let subsystems = volumes.host.subsystems(&|nqn| records.iter().any(|record| record.nqn == *nqn))?;
    for record in records {
        let attachment = match subsystems.get(&record.nqn) {
            Some(Ok(seen)) => &seen.attachment,
            None => &Attachment::Absent,
            // What is odd about one volume says nothing about its array.
            Some(Err(error)) => {
                tracing::warn!(volume = %record.volume, "{}", chain(error));
                continue;
            }
        };
        let (live, silent) = arrays.entry(record.portal.to_string()).or_default();
        match attachment {
            Attachment::Absent => {}
            Attachment::Live(_) => live.push(record.volume),
            Attachment::Connecting(_) | Attachment::Lost => silent.push(record.volume),
        }
    }
    let judged = arrays.into_iter().map(|(portal, (live, silent))| {
        let volumes = silent.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        match (live.is_empty(), silent.is_empty()) {
            (_, true) => Health::Sound,
            (true, false) => Health::Inaccessible(format!(
                "the array at {portal} answers for none of its volumes on this node ({volumes})"
            )),
            (false, false) => Health::Degraded(format!(
                "the array at {portal} answers for other volumes on this node, and not for {volumes}"
            )),
        }
    });
    Ok(judged.collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::host::fake::Holds;
    use crate::stage::stage;
    use crate::world::{World, world};

    fn staged() -> World {
        let world = world(Holds::Nothing);
        stage(&world.volumes_again(), &world.stage_filesystem()).unwrap();
        world
    }

    async fn health(world: &World) -> Result<Health, Error> {
        let measuring = Measuring::new(Duration::from_mins(1));
        volume(Arc::new(world.volumes_again()), &measuring, world.volume.clone()).await
    }

    #[tokio::test]
    async fn a_volume_is_degraded_while_it_can_be_used_and_inaccessible_if_not() {
        let world = staged();
        assert_eq!(health(&world).await.unwrap(), Health::Sound);
        world.host.record_errors(3);
        let Health::Degraded(told) = health(&world).await.unwrap() else { panic!("errors are told") };
        assert!(told.contains("recorded 3 errors"), "{told}");
        world.host.unplug();
        let Health::Inaccessible(told) = health(&world).await.unwrap() else { panic!("it is away") };
        assert!(told.contains("pvc-a"), "{told}");
    }

    #[tokio::test]
    async fn a_volume_that_nobody_staged_is_none_of_this_nodes() {
        let world = world(Holds::Nothing);
        assert!(matches!(health(&world).await, Err(Error::Unknown { .. })));
        assert_eq!(storage(Arc::new(world.volumes_again())).await.unwrap(), []);
    }

    #[tokio::test]
    async fn an_odd_volume_hides_no_other_ones_array() {
        let world = staged();
        let odd = "nqn.2000-02.com.mikrotik:pvc-odd".parse().unwrap();
        let record = world.volumes.records.read(&world.volume).unwrap().unwrap();
        let odd = crate::volumes::Record { volume: "pvc-odd".parse().unwrap(), nqn: odd, ..record };
        world.volumes.records.write(&odd).unwrap();
        world.host.confuse(&odd.nqn);
        assert_eq!(storage(Arc::new(world.volumes_again())).await.unwrap(), [Health::Sound]);
    }

    #[tokio::test]
    async fn an_array_that_answers_for_nothing_is_out_of_reach() {
        let world = staged();
        assert_eq!(storage(Arc::new(world.volumes_again())).await.unwrap(), [Health::Sound]);
        world.host.unplug();
        let [Health::Inaccessible(told)] = &storage(Arc::new(world.volumes_again())).await.unwrap()[..]
        else {
            panic!("it answers for none")
        };
        assert!(told.contains("for none of its volumes") && told.contains("pvc-a"), "{told}");
    }
}
