//! Reports and removals over a whole array, in a world that changes while they run.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard};

use rds_csi_api::{Bytes, HealthCalls, HostNqn};

use super::*;
use crate::array::fake::{FakeArray, Fault, wanted};
use crate::array::{self, Export, Owner};
use crate::attachments::store::InMemory;
use crate::backends::Backends;
use crate::backends::fake::backend;
use crate::node_agents::fake::FakeNodes;

const INTERVAL: Duration = Duration::from_hours(1);

/// What happens in the cluster.
type Event = Box<dyn FnOnce(&mut Cluster) + Send>;

/// A cluster that has claims, or does not tell them.
#[derive(Default)]
struct Cluster {
    handles: BTreeSet<String>,
    silent: bool,
    /// What happens right after the next answer.
    then: Option<Event>,
}

#[derive(Clone, Default)]
struct FakeClaims(Arc<Mutex<Cluster>>);

impl FakeClaims {
    fn cluster(&self) -> MutexGuard<'_, Cluster> {
        self.0.lock().unwrap()
    }
}

impl ClaimSource for FakeClaims {
    async fn claims(&self, deadline: Duration) -> Result<Claims, claims::Error> {
        let mut cluster = self.cluster();
        let mut claims = Claims::default();
        for handle in &cluster.handles {
            claims.claim_volume("pv", handle)?;
        }
        let told = if cluster.silent { Err(claims::Error::Late(deadline)) } else { Ok(claims) };
        if let Some(event) = cluster.then.take() {
            event(&mut cluster);
        }
        told
    }
}

type World = Search<FakeArray, InMemory, FakeNodes, FakeClaims>;

/// `pvc-used` is claimed, `pvc-lost` is not; an orphan goes at once.
async fn world() -> (World, FakeClaims) {
    let array = FakeArray::new(Bytes::gib(10));
    for id in ["pvc-used", "pvc-lost"] {
        array.create(&wanted(id, Bytes::gib(1))).await.unwrap();
    }
    let driver = Driver {
        backends: Backends::only(backend(None, array)),
        store: InMemory::default(),
        nodes: FakeNodes::default(),
        prefix: "nqn.2000-02.com.mikrotik:pvc-".parse().unwrap(),
        volumes_per_node: 128.try_into().unwrap(),
        health_calls: HealthCalls::Off,
    };
    let claims = FakeClaims::default();
    claims.cluster().handles.insert("pvc-used".into());
    let mut registry = Registry::default();
    let calls = Calls::new(&mut registry);
    let policy = Policy { removal: Removal::After(Duration::ZERO) };
    (Search::new(Arc::new(driver), claims.clone(), calls, None, policy, &mut registry), claims)
}

fn on(world: &World) -> Arc<Backend<FakeArray>> {
    world.driver.backends.of(None).unwrap()
}

fn is_there(world: &World) -> bool {
    on(world).array.volumes().iter().any(|volume| volume.id.as_str() == "pvc-lost")
}

#[tokio::test]
async fn lesson_6_an_orphan_goes_with_the_second_report_that_tells_of_it() {
    let (mut world, _) = world().await;
    world.report(INTERVAL).await;
    assert!(is_there(&world));
    world.report(INTERVAL).await;
    assert!(!is_there(&world) && on(&world).array.volumes().len() == 1);
}

#[tokio::test]
async fn lesson_6_a_volume_that_is_claimed_after_the_report_stays() {
    let (mut world, claims) = world().await;
    world.report(INTERVAL).await;
    claims.cluster().then = Some(Box::new(|cluster| {
        cluster.handles.insert("pvc-lost".into());
    }));
    world.report(INTERVAL).await;
    assert!(is_there(&world));
}

#[tokio::test]
async fn lesson_11_if_nobody_says_any_more_who_claims_it_it_stays() {
    let (mut world, claims) = world().await;
    world.report(INTERVAL).await;
    claims.cluster().then = Some(Box::new(|cluster| cluster.silent = true));
    world.report(INTERVAL).await;
    assert!(is_there(&world));
}

#[tokio::test]
async fn lesson_6_a_volume_that_is_anothers_or_exported_by_now_is_not_removed() {
    let (world, claims) = world().await;
    let (on, id) = (on(&world), "pvc-lost".parse::<VolumeId>().unwrap());
    let Driver { store, nodes, .. } = &*world.driver;
    let array = &on.array;
    let lost = array.volume(&id).await.unwrap();
    let host = HostNqn::of(&"w1".parse().unwrap());
    let hosts = array::Volume { export: Export::to_hosts([host]), ..lost.clone() };
    let open = array::Volume { export: Export::AnyHost, ..lost.clone() };
    let foreign = array::Volume { owner: Owner::Nobody, ..lost.clone() };
    for changed in [hosts, open, foreign] {
        array.put(changed.clone());
        let refused = removal::remove(&on, store, nodes, &claims, id.clone()).await;
        assert!(refused.is_err() && is_there(&world), "{changed:?}");
    }
    array.put(lost);
    removal::remove(&on, store, nodes, &claims, id).await.unwrap();
    assert!(!is_there(&world));
}

#[tokio::test]
async fn lesson_11_no_age_runs_on_while_nothing_is_known() {
    let (mut world, claims) = world().await;
    world.report(INTERVAL).await;
    claims.cluster().silent = true;
    world.report(INTERVAL).await;
    claims.cluster().silent = false;
    world.report(INTERVAL).await;
    assert!(is_there(&world), "after the claims were not known it was seen once");

    on(&world).array.fail_once(Fault::Before(array::Error::Unreachable { reason: "down".into() }));
    world.report(INTERVAL).await;
    world.report(INTERVAL).await;
    assert!(is_there(&world), "after the array was not known it was seen once");
    world.report(INTERVAL).await;
    assert!(!is_there(&world));
}
