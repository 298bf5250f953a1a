//! Attachments as Kubernetes sees them: conflicts, migrations, and records that do not agree with it.

use std::time::Duration;

use rds_csi_api::context::Together;
use rds_csi_api::{AccessMode, Bytes, HostNqn};

use super::*;
use crate::array::fake::{FakeArray, wanted};
use crate::attachments::facts::{Attached, Node, Pod, Reported, User};
use crate::attachments::fake::FakeLedger;
use crate::attachments::{Rights, Second, Shape, Testimony};
use crate::node_agents::fake::FakeNodes;
use crate::unpublish::{From, unpublish};

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

/// One volume on one array, and what Kubernetes and the nodes say.
struct World {
    array: FakeArray,
    ledger: FakeLedger,
    nodes: FakeNodes,
    id: VolumeId,
    mode: AccessMode,
    together: Together,
}

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

/// The pod of a VM, the only one that there is, and for a migration if a job is given.
fn launcher(on: &str, job: Option<&str>) -> User {
    let job = job.map(|job| ("kubevirt.io/migrationJobUID".to_owned(), job.to_owned()));
    let labels = [("kubevirt.io/created-by".to_owned(), "vm-1".to_owned())].into_iter().chain(job).collect();
    User { pod: Pod { name: format!("vms/{on}"), node: node(on), labels }, owner: None }
}

impl World {
    async fn new(mode: AccessMode) -> Self {
        let array = FakeArray::new(Bytes::gib(10));
        let id = array.create(&wanted("pvc-a", Bytes::gib(1))).await.unwrap().id;
        let (ledger, nodes) = (FakeLedger::default(), FakeNodes::default());
        Self { array, ledger, nodes, id, mode, together: Together::Anybody }
    }

    /// Two nodes hold it, since a VM goes from the one to the other.
    async fn migrating() -> Self {
        let world = Self::new(AccessMode::MultiNodeWriter).await;
        world.ledger.used_by(&world.id, vec![launcher("w1", None), launcher("w2", Some("job-1"))]);
        world.attach("w1").await.unwrap();
        world.attach("w2").await.unwrap();
        world
    }

    fn parties(&self) -> Parties<'_, FakeArray, FakeLedger, FakeNodes> {
        let Self { array, ledger, nodes, .. } = self;
        Parties { array, fence: Fence::Acl, ledger, nodes }
    }

    /// As the attacher does it: the VolumeAttachment first, and then that it is done.
    async fn attach(&self, name: &str) -> Result<PublishContext, Error> {
        self.ledger.want(&self.id, &node(name), Attached::No);
        let claim = Claim {
            node: node(name),
            shape: Shape::Block,
            mode: self.mode,
            rights: Rights::Write,
            second: Second { together: self.together, ..Second::default() },
        };
        let portal = Portal::parse("10.0.0.1", None).unwrap();
        let request = Request { id: self.id.clone(), claim, portal, reconnect: None };
        let context = publish(&self.parties(), NonZeroU16::MAX, request, NOW).await?;
        self.ledger.want(&self.id, &node(name), Attached::Yes);
        Ok(context)
    }

    async fn detach(&self, name: &str, later: Duration) -> Result<(), unpublish::Error> {
        unpublish(&self.parties(), self.id.clone(), From::Node(node(name)), NOW + later).await?;
        self.ledger.unwant(&self.id, &node(name));
        Ok(())
    }

    async fn record(&self) -> Record {
        self.ledger.load(&self.id).await.unwrap().record
    }

    async fn holders(&self) -> Vec<String> {
        self.record().await.nodes().map(ToString::to_string).collect()
    }

    fn told(&self) -> Vec<&'static str> {
        self.ledger.told().iter().map(Event::reason).collect()
    }

    fn admits(&self, names: &[&str]) -> bool {
        self.array.volumes()[0].export == Export::to_hosts(names.iter().map(|name| HostNqn::of(&node(name))))
    }
}

#[tokio::test]
async fn lesson_10_a_second_node_is_refused_at_once_and_reads_who_holds_the_volume_and_what_to_do() {
    let world = World::new(AccessMode::SingleNodeWriter).await;
    world.attach("w1").await.unwrap();
    let refused = world.attach("w2").await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Refused);
    let told = rds_csi_api::status::chain(&refused);
    assert!(
        told.contains("volume pvc-a") && told.contains("node w1 holds") && told.contains("stop the pods"),
        "{told}"
    );
    assert_eq!((world.told(), world.holders().await), (vec!["AttachmentConflict"], vec!["w1".to_owned()]));
    // Once it has let go, nothing is waited for.
    world.nodes.say(&node("w1"), Testimony::Gone);
    world.detach("w1", Duration::ZERO).await.unwrap();
    world.attach("w2").await.unwrap();
    assert!(world.admits(&["w2"]));
}

#[tokio::test]
async fn a_vm_goes_to_another_node_and_that_is_a_migration_from_its_first_second_to_its_last() {
    let world = World::migrating().await;
    let record = world.record().await;
    let migration = record.migration().unwrap();
    assert_eq!((migration.from.as_str(), migration.to.as_str(), migration.since), ("w1", "w2", NOW));
    assert_eq!((migration.timeout_seconds, migration.proof.job.as_str()), (300, "job-1"));
    assert!(world.admits(&["w1", "w2"]));
    assert!(world.attach("w3").await.unwrap_err().to_string().contains("pvc-a cannot be attached to w3"));
    world.nodes.say(&node("w1"), Testimony::Gone);
    world.detach("w1", Duration::from_secs(40)).await.unwrap();
    assert_eq!(world.told(), ["MigrationStarted", "AttachmentConflict", "MigrationCompleted"]);
    let (from, to, took) = (node("w1"), node("w2"), Duration::from_secs(40));
    assert_eq!(world.ledger.told().pop(), Some(Event::MigrationCompleted { from, to, took }));
    assert_eq!((world.record().await.migration(), world.holders().await), (None, vec!["w2".to_owned()]));
}

#[tokio::test]
async fn a_migration_that_goes_back_has_failed() {
    let world = World::migrating().await;
    world.nodes.say(&node("w2"), Testimony::Gone);
    world.detach("w2", Duration::from_secs(7)).await.unwrap();
    assert_eq!(world.told(), ["MigrationStarted", "MigrationFailed"]);
    assert!(world.record().await.migration().is_none() && world.admits(&["w1"]));
}

#[tokio::test]
async fn a_node_that_goes_down_in_a_migration_is_shut_out_and_the_other_goes_on() {
    for (down, stays, end) in [("w1", "w2", "MigrationCompleted"), ("w2", "w1", "MigrationFailed")] {
        let world = World::migrating().await;
        world.nodes.say(&node(stays), Testimony::InUse("qemu has it open".into()));
        world.ledger.node(&node(down), Node::NotReady(Reported::InUse));
        world.detach(down, Duration::from_mins(6)).await.unwrap();
        assert_eq!(world.told(), ["MigrationStarted", "VolumeFenced", end]);
        assert!(world.admits(&[stays]) && world.array.fences() == 1);
    }
}

#[tokio::test]
async fn without_proof_a_second_node_is_a_second_writer_or_with_restrict_to_kubevirt_none_at_all() {
    let mut world = World::new(AccessMode::MultiNodeWriter).await;
    world.attach("w1").await.unwrap();
    world.together = Together::KubevirtOnly;
    for users in [vec![], vec![launcher("w1", None), launcher("w2", None)], vec![launcher("w2", Some("job"))]]
    {
        world.ledger.used_by(&world.id, users);
        let refused = world.attach("w2").await.unwrap_err();
        assert!(refused.kind() == Kind::Refused && rds_csi_api::status::chain(&refused).contains("no proof"));
        assert!(world.admits(&["w1"]));
    }
    // Nobody can say what pods there are.
    world.ledger.silence(true);
    assert_eq!(world.attach("w2").await.unwrap_err().kind(), Kind::Unreachable);
    world.ledger.silence(false);
    world.together = Together::Anybody;
    world.attach("w2").await.unwrap();
    assert!(world.admits(&["w1", "w2"]) && world.record().await.migration().is_none());
}

#[tokio::test]
async fn lesson_14_beside_a_node_that_is_not_ready_nobody_is_let_in_until_a_person_says_that_it_is_down() {
    let world = World::new(AccessMode::MultiNodeWriter).await;
    world.attach("w1").await.unwrap();
    for state in [Node::NotReady(Reported::InUse), Node::NotReady(Reported::NotInUse), Node::Gone] {
        world.ledger.node(&node("w1"), state);
        let refused = world.attach("w2").await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Refused);
        let told = rds_csi_api::status::chain(&refused);
        assert!(told.contains("node w1") && told.contains("out-of-service"), "{told}");
    }
    assert!(world.admits(&["w1"]));
    world.ledger.node(&node("w1"), Node::OutOfService);
    world.attach("w2").await.unwrap();
    // It may be writing still: its detach makes sure that it does not.
    world.detach("w1", Duration::ZERO).await.unwrap();
    assert!(world.admits(&["w2"]) && world.array.fences() == 1);
}

#[tokio::test]
async fn lesson_11_as_long_as_the_authority_does_not_answer_nobody_is_let_in_and_nobody_is_shut_out() {
    let world = World::new(AccessMode::MultiNodeWriter).await;
    world.attach("w1").await.unwrap();
    world.ledger.silence(true);
    let refused = world.attach("w2").await.unwrap_err();
    assert!(refused.kind() == Kind::Unreachable && refused.to_string().contains("is not known"), "{refused}");
    assert_eq!(world.detach("w1", Duration::ZERO).await.unwrap_err().kind(), Kind::Unreachable);
    assert!(world.admits(&["w1"]) && world.array.fences() == 0);
    // What the node itself says needs nobody's confirmation.
    world.nodes.say(&node("w1"), Testimony::Gone);
    world.detach("w1", Duration::ZERO).await.unwrap();
    assert!(world.admits(&[]));
}

#[tokio::test]
async fn lesson_11_a_record_that_was_lost_is_not_taken_for_nobody() {
    for mode in [AccessMode::SingleNodeWriter, AccessMode::MultiNodeWriter] {
        let world = World::new(mode).await;
        world.attach("w1").await.unwrap();
        let revision = world.ledger.load(&world.id).await.unwrap().revision;
        world.ledger.replace(&world.id, revision, Record::default()).await.unwrap();
        let second = world.attach("w2").await;
        if mode == AccessMode::SingleNodeWriter {
            assert!(rds_csi_api::status::chain(&second.unwrap_err()).contains("node w1 holds"));
        } else {
            second.unwrap();
            assert_eq!(world.holders().await, ["w1", "w2"], "the lost one is written down again");
            world.attach("w3").await.unwrap_err();
        }
    }
}

#[tokio::test]
async fn lesson_12_a_record_of_a_node_that_is_not_wanted_any_more_is_cleared_by_evidence_and_keeps_nobody_out()
 {
    let world = World::new(AccessMode::SingleNodeWriter).await;
    world.attach("w1").await.unwrap();
    world.ledger.unwant(&world.id, &node("w1"));
    world.nodes.say(&node("w1"), Testimony::InUse("mounted".into()));
    let refused = world.attach("w2").await.unwrap_err();
    assert_eq!(refused.kind(), Kind::InUse, "what it writes is not forgotten");
    assert!(rds_csi_api::status::chain(&refused).contains("in use on node w1: mounted"));
    assert!(world.admits(&["w1"]));
    world.nodes.say(&node("w1"), Testimony::Silent("no route".into()));
    world.attach("w2").await.unwrap();
    assert_eq!(world.told(), ["VolumeFenced", "StaleAttachmentCleared"]);
    assert!(world.admits(&["w2"]) && world.array.fences() == 1);
}

#[tokio::test]
async fn a_cache_that_is_late_neither_clears_a_holder_nor_forgets_one() {
    let world = World::new(AccessMode::SingleNodeWriter).await;
    world.ledger.stop_the_watches();
    world.attach("w1").await.unwrap();
    // The caches know of no attachment yet.
    assert!(rds_csi_api::status::chain(&world.attach("w2").await.unwrap_err()).contains("node w1 holds"));
    assert_eq!((world.told(), world.array.fences()), (vec!["AttachmentConflict"], 0));
}

#[tokio::test]
async fn a_kubelet_is_believed_if_the_agent_is_silent() {
    let (unused, used) = (Reported::NotInUse, Reported::InUse);
    for (seen, fences) in
        [(Node::Ready(unused), 0), (Node::NotReady(used), 1), (Node::Ready(Reported::Nothing), 1)]
    {
        let world = World::new(AccessMode::SingleNodeWriter).await;
        world.attach("w1").await.unwrap();
        world.ledger.node(&node("w1"), Node::Ready(used));
        assert_eq!(world.detach("w1", Duration::ZERO).await.unwrap_err().kind(), Kind::InUse);
        assert!(world.admits(&["w1"]) && world.array.fences() == 0);
        world.ledger.node(&node("w1"), seen);
        world.detach("w1", Duration::ZERO).await.unwrap();
        assert!(world.admits(&[]) && world.array.fences() == fences, "{seen:?}");
    }
}

#[test]
fn a_node_is_told_a_policy_only_if_it_changed() {
    let policy = |text: &str| Some(text.parse::<ReconnectPolicy>().unwrap());
    for (told, now, expected) in [
        (None, None, None),
        (policy("600,2,30,off"), None, None),
        (policy("600,2,30,off"), policy("600,2,30,off"), None),
        (policy("600,2,30,off"), policy("-1,2,5,20"), policy("-1,2,30,20")),
        (None, policy("-1,2,5,20"), policy("-1,2,5,20")),
    ] {
        assert_eq!(changed(told, now), expected, "{told:?} {now:?}");
    }
}

#[tokio::test]
async fn a_node_that_was_fenced_joins_nobody_before_its_old_connection_has_ended() {
    let world = World::migrating().await;
    world.detach("w2", Duration::ZERO).await.unwrap();
    assert!(world.array.fences() == 1 && world.admits(&["w1"]));
    world.nodes.connected(&node("w2"), Link::Broken);
    let refused = world.attach("w2").await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Unreachable);
    assert!(rds_csi_api::status::chain(&refused).contains("holds back"), "{refused}");
    assert!(world.admits(&["w1"]) && world.holders().await == ["w1"]);
    world.nodes.connected(&node("w2"), Link::Unused);
    world.attach("w2").await.unwrap();
    assert!(world.admits(&["w1", "w2"]));
    // Alone it is let in under another name, which the old connection does not know.
    for name in ["w1", "w2"] {
        world.detach(name, Duration::ZERO).await.unwrap();
    }
    world.nodes.connected(&node("w2"), Link::Broken);
    let told = world.attach("w2").await.unwrap();
    assert_ne!(told.nqn, Nqn::of_volume(&world.id));
}
