//! Passes over fakes: what is due is done once, and what cannot be told is left.

use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use rds_csi_api::{AccessMode, Bytes};

use super::*;
use crate::array::fake::{FakeArray, wanted};
use crate::attachments::facts::{Node, Reported};
use crate::attachments::fake::FakeLedger;
use crate::attachments::record::Proof;
use crate::attachments::{Attachment, Herald as _, Rights, Shape, Store as _, gauges};
use crate::backends::fake::backend;
use crate::node_agents::fake::FakeNodes;

const THEN: SystemTime = SystemTime::UNIX_EPOCH;
const READY: Node = Node::Ready(Reported::Nothing);
const LATER: Duration = Duration::from_secs(301);

/// One volume of one array, held by w1, and by w2 too if a VM goes there.
struct World {
    backends: Backends<FakeArray>,
    ledger: FakeLedger,
    nodes: FakeNodes,
    id: VolumeId,
}

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

fn hosts(names: &[&str]) -> Export {
    Export::to_hosts(names.iter().map(|name| HostNqn::of(&node(name))))
}

fn in_use(what: &str) -> Testimony {
    Testimony::InUse(what.into())
}

fn silent() -> Testimony {
    Testimony::Silent("no route".into())
}

impl World {
    async fn held_by(names: &[&str]) -> Self {
        let array = FakeArray::new(Bytes::gib(10));
        let id = array.create(&wanted("pvc-a", Bytes::gib(1))).await.unwrap().id;
        array.admit(&id, &hosts(names)).await.unwrap();
        let (ledger, nodes) = (FakeLedger::default(), FakeNodes::default());
        let held = Attachment {
            shape: Shape::Block,
            mode: AccessMode::MultiNodeWriter,
            rights: Rights::Write,
            since: THEN,
        };
        let record =
            names.iter().fold(Record::default(), |record, name| record.with(node(name), held.clone()));
        for name in names {
            ledger.want(&id, &node(name), Attached::Yes);
        }
        let world = Self { backends: Backends::only(backend(None, array)), ledger, nodes, id };
        world.write(record).await;
        world
    }

    async fn migrating() -> Self {
        let world = Self::held_by(&["w1", "w2"]).await;
        let migration = Migration {
            from: node("w1"),
            to: node("w2"),
            since: THEN,
            timeout_seconds: 300,
            proof: Proof { vm: "vm-1".into(), job: "job-1".into() },
            course: Course::Running,
        };
        world.write(world.record().await.migrating(migration)).await;
        world
    }

    async fn write(&self, record: Record) {
        let revision = self.ledger.load(&self.id).await.unwrap().revision;
        self.ledger.replace(&self.id, revision, record).await.unwrap();
    }

    async fn record(&self) -> Record {
        self.ledger.load(&self.id).await.unwrap().record
    }

    async fn pass(&self, after: Duration) {
        let prefix = "nqn.2000-02.com.mikrotik:pvc-".parse().unwrap();
        pass(&self.backends, &prefix, &self.ledger, &self.nodes, THEN + after).await.unwrap();
    }

    fn array(&self) -> std::sync::Arc<Backend<FakeArray>> {
        self.backends.of(None).unwrap()
    }

    fn export(&self) -> Export {
        self.array().array.volumes()[0].export.clone()
    }

    async fn holders(&self) -> Vec<String> {
        self.record().await.nodes().map(ToString::to_string).collect()
    }

    fn told(&self) -> Vec<&'static str> {
        self.ledger.told().iter().map(Event::reason).collect()
    }

    fn metrics(&self) -> String {
        let (mut registry, mut text) = (Registry::default(), String::new());
        self.ledger.tally().register(&mut registry);
        let seen = self.ledger.seen();
        gauges::register(&mut registry, move || seen.clone());
        encode(&mut text, &registry).unwrap();
        text
    }
}

#[tokio::test]
async fn where_all_is_well_nothing_is_done_and_nobody_is_asked() {
    let world = World::migrating().await;
    world.ledger.silence(true);
    world.pass(Duration::from_secs(299)).await;
    assert_eq!((world.told(), world.export()), (vec![], hosts(&["w1", "w2"])));
    assert!(world.metrics().contains("rds_csi_attachments 2\n"));
    assert!(world.metrics().contains("rds_csi_active_migrations 1\n"));
}

#[tokio::test]
async fn who_is_recorded_and_not_wanted_goes_by_evidence_and_is_told_once() {
    let world = World::held_by(&["w1", "w2"]).await;
    world.ledger.unwant(&world.id, &node("w1"));
    world.nodes.say(&node("w1"), in_use("mounted"));
    world.pass(Duration::ZERO).await;
    assert_eq!((world.told(), world.holders().await), (vec![], vec!["w1".to_owned(), "w2".to_owned()]));
    world.nodes.say(&node("w1"), silent());
    for _ in 0..2 {
        world.pass(Duration::ZERO).await;
        assert_eq!(world.told(), ["VolumeFenced", "StaleAttachmentCleared"]);
        assert_eq!((world.export(), world.holders().await), (hosts(&["w2"]), vec!["w2".to_owned()]));
    }
    assert!(world.metrics().contains("rds_csi_stale_attachments_cleared_total 1\n"));
}

#[tokio::test]
async fn a_cache_that_is_late_clears_nobody() {
    let world = World::held_by(&["w1"]).await;
    world.ledger.unwant(&world.id, &node("w1"));
    world.ledger.stop_the_watches();
    world.ledger.want(&world.id, &node("w1"), Attached::Yes);
    world.pass(Duration::ZERO).await;
    assert_eq!((world.told(), world.export()), (vec![], hosts(&["w1"])));
    // Nobody can confirm what the caches say.
    world.ledger.unwant(&world.id, &node("w1"));
    world.ledger.silence(true);
    world.pass(Duration::ZERO).await;
    assert_eq!((world.told(), world.export()), (vec![], hosts(&["w1"])));
}

#[tokio::test]
async fn lesson_13_a_migration_that_takes_too_long_is_called_failed_whoever_says_what_and_once() {
    for (from, to, stays, words) in [
        (in_use("qemu"), Testimony::Gone, &["w1"][..], "node w2 has nothing of it"),
        (Testimony::Gone, in_use("qemu"), &["w2"], "node w1 has nothing of it"),
        (in_use("qemu"), in_use("qemu"), &["w1", "w2"], "both use it"),
        (Testimony::Gone, Testimony::Gone, &["w1", "w2"], "neither w1 nor w2"),
        (in_use("qemu"), silent(), &["w1", "w2"], "node w2 does not say (no route)"),
        (silent(), Testimony::Gone, &["w1", "w2"], "node w1 does not say (no route)"),
    ] {
        let world = World::migrating().await;
        world.nodes.say(&node("w1"), from);
        world.nodes.say(&node("w2"), to);
        for _ in 0..2 {
            world.pass(LATER).await;
            assert_eq!(world.told(), ["MigrationFailed"]);
            assert_eq!(
                (world.export(), world.holders().await),
                (hosts(stays), stays.iter().map(ToString::to_string).collect())
            );
        }
        let told = world.ledger.told()[0].to_string();
        assert!(told.contains(words) && told.contains("301 s"), "{told}");
        assert_eq!(world.array().array.fences(), 0);
        assert!(world.metrics().contains("rds_csi_migrations_total{result=\"failed\"} 1\n"));
        assert!(world.metrics().contains("rds_csi_migration_duration_seconds_count 1\n"));
    }
}

#[tokio::test]
async fn an_overdue_migration_is_resolved_when_a_node_says_at_last_that_it_has_nothing() {
    let world = World::migrating().await;
    world.nodes.say(&node("w1"), in_use("qemu"));
    world.pass(LATER).await;
    assert_eq!(world.holders().await, ["w1", "w2"]);
    world.nodes.say(&node("w2"), Testimony::Gone);
    world.pass(LATER).await;
    assert_eq!((world.told(), world.holders().await), (vec!["MigrationFailed"], vec!["w1".to_owned()]));
}

#[tokio::test]
async fn a_clock_that_was_set_back_does_not_keep_a_migration_for_ever() {
    let world = World::migrating().await;
    let migration = world.record().await.migration().unwrap().clone();
    world
        .write(
            world
                .record()
                .await
                .migrating(Migration { since: THEN + Duration::from_hours(9000), ..migration }),
        )
        .await;
    world.pass(Duration::ZERO).await;
    assert_eq!(world.told(), ["MigrationFailed"]);
}

#[tokio::test]
async fn whom_the_array_lets_in_and_nobody_wants_goes_and_whom_somebody_wants_stays() {
    let world = World::held_by(&["w1"]).await;
    world.array().array.admit(&world.id, &hosts(&["w1", "w2", "w3", "unheard-of"])).await.unwrap();
    for name in ["w2", "w3"] {
        world.ledger.node(&node(name), READY);
    }
    world.ledger.want(&world.id, &node("w3"), Attached::No);
    world.nodes.say(&node("w2"), Testimony::Gone);
    world.pass(Duration::ZERO).await;
    assert_eq!(
        (world.told(), world.export()),
        (vec!["StaleAttachmentCleared"], hosts(&["w1", "w3", "unheard-of"]))
    );
}

#[tokio::test]
async fn a_node_that_holds_the_volume_and_was_taken_off_by_a_late_command_is_let_in_again() {
    let world = World::held_by(&["w1", "w2"]).await;
    for left in [hosts(&["w2"]), Export::Off] {
        world.array().array.dismiss(&world.id, &hosts(&["w1", "w2"]), &left).await.unwrap();
        world.pass(Duration::ZERO).await;
        assert_eq!((world.export(), world.told()), (hosts(&["w1", "w2"]), vec![]));
    }
    // One that is being attached or detached is in somebody's hands.
    world.ledger.want(&world.id, &node("w1"), Attached::No);
    world.array().array.dismiss(&world.id, &hosts(&["w1", "w2"]), &Export::Off).await.unwrap();
    world.pass(Duration::ZERO).await;
    assert_eq!(world.export(), Export::Off);
}

#[tokio::test]
async fn a_volume_whose_persistent_volume_is_gone_is_let_go() {
    let world = World::held_by(&["w1"]).await;
    world.write(Record::default()).await;
    world.ledger.unwant(&world.id, &node("w1"));
    world.ledger.node(&node("w1"), READY);
    world.pass(Duration::ZERO).await;
    assert_eq!((world.told(), world.export()), (vec!["VolumeFenced", "StaleAttachmentCleared"], Export::Off));
}
