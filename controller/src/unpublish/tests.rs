//! A volume's attachments, from the first publish to the last detach and its deletion, over the fakes.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::time::SystemTime;

use rds_csi_api::{AccessMode, Bytes, Portal};
use tokio::sync::Notify;

use super::*;
use crate::array::fake::{FakeArray, Fault};
use crate::array::{Content, Digest, IfOpen, Label, Wanted};
use crate::attachments::facts::{Facts, Freshness};
use crate::attachments::herald::{Event, Tally};
use crate::attachments::{
    Attachment, Authority, Claim, Herald, Record, Rights, Second, Shape, Standalone, Store, Testimony,
};
use crate::delete::{self, delete};
use crate::node_agents::Link;
use crate::node_agents::fake::FakeNodes;
use crate::publish::{self, publish};

/// One volume, and everything that a verb needs.
struct World {
    array: FakeArray,
    ledger: Standalone,
    nodes: FakeNodes,
    fence: Fence,
    id: VolumeId,
}

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn most() -> NonZeroU16 {
    NonZeroU16::new(3).unwrap()
}

impl World {
    async fn new(fence: Fence) -> Self {
        let array = FakeArray::new(Bytes::gib(10));
        let id: VolumeId = "pvc-a".parse().unwrap();
        let wanted = Wanted {
            id: id.clone(),
            content: Content::Empty(Bytes::gib(1)),
            port: 4420,
            export: Export::Off,
            reconnect: None,
            parameters: Digest::of([]),
            label: Label::default(),
        };
        array.create(&wanted).await.unwrap();
        Self { array, ledger: Standalone::default(), nodes: FakeNodes::default(), fence, id }
    }

    fn parties(&self) -> Parties<'_, FakeArray, Standalone, FakeNodes> {
        let Self { array, ledger, nodes, fence, .. } = self;
        Parties { array, fence: *fence, ledger, nodes }
    }

    async fn delete(&self) -> Result<(), delete::Error> {
        delete(&self.array, &self.ledger, &self.nodes, self.fence, self.id.clone()).await
    }

    async fn attach(&self, name: &str) -> Result<rds_csi_api::PublishContext, publish::Error> {
        let claim = Claim {
            node: node(name),
            shape: Shape::Block,
            mode: AccessMode::MultiNodeWriter,
            rights: Rights::Write,
            second: Second::default(),
        };
        let portal = Portal::parse("10.0.0.1", None).unwrap();
        let request = publish::Request { id: self.id.clone(), claim, portal, reconnect: None };
        publish(&self.parties(), most(), request, NOW).await
    }

    async fn detach(&self, from: From) -> Result<(), Error> {
        unpublish(&self.parties(), self.id.clone(), from, NOW).await
    }

    fn export(&self) -> Export {
        self.array.volumes()[0].export.clone()
    }

    async fn holders(&self) -> Vec<String> {
        self.ledger.load(&self.id).await.unwrap().record.nodes().map(ToString::to_string).collect()
    }
}

fn hosts(names: &[&str]) -> Export {
    Export::to_hosts(names.iter().map(|name| HostNqn::of(&node(name))))
}

#[tokio::test]
async fn the_array_lets_in_exactly_the_nodes_that_hold_the_volume() {
    let world = World::new(Fence::Acl).await;
    world.attach("w1").await.unwrap();
    assert_eq!(world.export(), hosts(&["w1"]));
    let context = world.attach("w2").await.unwrap();
    assert_eq!((context.size, context.nqn), (Bytes::gib(1), Nqn::of_volume(&world.id)));
    assert_eq!(world.export(), hosts(&["w1", "w2"]));
    for name in ["w1", "w2"] {
        world.nodes.say(&node(name), Testimony::Gone);
        world.detach(From::Node(node(name))).await.unwrap();
        world.detach(From::Node(node(name))).await.unwrap();
    }
    assert_eq!((world.export(), world.holders().await), (Export::Off, vec![]));
    assert_eq!(world.array.fences(), 0);
}

#[tokio::test]
async fn a_node_that_holds_as_many_volumes_as_it_may_takes_no_more() {
    let world = World::new(Fence::Acl).await;
    for id in ["pvc-b", "pvc-c", "pvc-d"] {
        let held = Attachment {
            shape: Shape::Block,
            mode: AccessMode::MultiNodeWriter,
            rights: Rights::Write,
            since: SystemTime::UNIX_EPOCH,
        };
        let record = Record::default().with(node("w1"), held);
        world.ledger.replace(&id.parse().unwrap(), store::Revision::default(), record).await.unwrap();
    }
    let refused = world.attach("w1").await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Full);
    assert!(refused.to_string().contains("node w1 holds 3 volumes"), "{refused}");
    assert_eq!((world.export(), world.holders().await), (Export::Off, vec![]));
    world.attach("w2").await.unwrap();

    let (id, revision) =
        ("pvc-b".parse().unwrap(), world.ledger.load(&"pvc-b".parse().unwrap()).await.unwrap().revision);
    world.ledger.replace(&id, revision, Record::default()).await.unwrap();
    world.attach("w1").await.unwrap();
    world.attach("w1").await.expect("to repeat it is no volume more");
}

#[tokio::test]
async fn a_node_that_uses_the_volume_keeps_it() {
    let world = World::new(Fence::Acl).await;
    world.attach("w1").await.unwrap();
    world.nodes.say(&node("w1"), Testimony::InUse("process 7 (dd) has /dev/x open".into()));
    let refused = world.detach(From::Node(node("w1"))).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::InUse);
    assert!(rds_csi_api::status::chain(&refused).ends_with("on node w1: process 7 (dd) has /dev/x open"));
    assert_eq!((world.export(), world.holders().await), (hosts(&["w1"]), vec!["w1".to_owned()]));
}

#[tokio::test]
async fn lesson_9_a_silent_node_is_shut_out_before_it_is_detached() {
    let world = World::new(Fence::Acl).await;
    world.attach("w1").await.unwrap();
    world.attach("w2").await.unwrap();
    world.detach(From::Node(node("w1"))).await.unwrap();
    assert_eq!((world.export(), world.array.fences()), (hosts(&["w2"]), 1));
    assert_eq!(world.holders().await, ["w2"]);
}

#[tokio::test]
async fn while_the_array_does_not_shut_it_out_a_silent_node_stays_a_holder() {
    let world = World::new(Fence::Acl).await;
    world.attach("w1").await.unwrap();
    for fault in [Fault::Before, Fault::After] {
        world.array.fail_once(fault(array::Error::Lost { reason: "reset".into() }));
        assert_eq!(world.detach(From::Node(node("w1"))).await.unwrap_err().kind(), Kind::Unsure);
        assert_eq!(world.holders().await, ["w1"]);
    }
    world.detach(From::Node(node("w1"))).await.unwrap();
    assert_eq!((world.export(), world.holders().await), (Export::Off, vec![]));
}

#[tokio::test]
async fn without_a_fence_a_silent_node_is_not_detached() {
    let world = World::new(Fence::None).await;
    world.attach("w1").await.unwrap();
    assert_eq!(world.export(), Export::AnyHost);
    let refused = world.detach(From::Node(node("w1"))).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Refused);
    assert!(rds_csi_api::status::chain(&refused).contains("--fence acl"));
    assert_eq!(world.holders().await, ["w1"]);
}

#[tokio::test]
async fn an_empty_node_id_means_every_node() {
    let world = World::new(Fence::Acl).await;
    for name in ["w1", "w2"] {
        world.attach(name).await.unwrap();
        world.nodes.say(&node(name), Testimony::Gone);
    }
    world.detach(From::Everywhere).await.unwrap();
    assert_eq!((world.export(), world.holders().await), (Export::Off, vec![]));
}

#[tokio::test]
async fn a_volume_that_is_gone_can_be_detached_but_not_attached() {
    let world = World::new(Fence::Acl).await;
    world.attach("w1").await.unwrap();
    world.array.dismiss(&world.id, &hosts(&["w1"]), &Export::Off).await.unwrap();
    world.array.delete(&world.id, IfOpen::GoOn).await.unwrap();
    world.detach(From::Node(node("w1"))).await.unwrap();
    assert_eq!(world.attach("w1").await.unwrap_err().kind(), Kind::Missing);
    assert!(world.holders().await.is_empty());
}

#[tokio::test]
async fn an_attach_whose_answer_was_lost_is_held_and_goes_on_when_repeated() {
    let world = World::new(Fence::Acl).await;
    world.array.fail_once(Fault::Before(array::Error::Lost { reason: "reset".into() }));
    assert_eq!(world.attach("w1").await.unwrap_err().kind(), Kind::Unsure);
    assert_eq!((world.export(), world.holders().await), (Export::Off, vec!["w1".to_owned()]));
    world.attach("w1").await.unwrap();
    assert_eq!(world.export(), hosts(&["w1"]));
}

#[tokio::test]
async fn a_program_that_lost_its_records_lets_no_second_writer_in() {
    let mut world = World::new(Fence::Acl).await;
    world.attach("w1").await.unwrap();
    world.ledger = Standalone::default();
    let refused = world.attach("w2").await.unwrap_err();
    assert_eq!(refused, publish::Error::Array(array::Error::Strangers(world.id.clone())));
    assert_eq!((world.export(), world.holders().await), (hosts(&["w1"]), vec![]));
    let refused = world.delete().await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Refused);

    // The node that the array knows may go on, and it may leave, by the same rules as ever.
    world.nodes.say(&node("w1"), Testimony::InUse("mounted".into()));
    assert_eq!(world.detach(From::Node(node("w1"))).await.unwrap_err().kind(), Kind::InUse);
    world.nodes.say(&node("w1"), Testimony::Gone);
    world.detach(From::Node(node("w2"))).await.unwrap();
    assert_eq!(world.export(), hosts(&["w1"]));
    world.detach(From::Node(node("w1"))).await.unwrap();
    assert_eq!(world.export(), Export::Off);
    world.attach("w2").await.unwrap();
}

#[tokio::test]
async fn a_node_that_was_let_in_before_is_not_forgotten_whatever_its_repeat_ends_with() {
    let world = World::new(Fence::Acl).await;
    world.attach("w1").await.unwrap();
    for error in [array::Error::Strangers(world.id.clone()), array::Error::Open(world.id.clone())] {
        for name in ["w1", "w2"] {
            world.array.fail_once(Fault::Before(error.clone()));
            assert_eq!(world.attach(name).await.unwrap_err(), publish::Error::Array(error.clone()));
            assert_eq!(world.holders().await, ["w1"], "{name}");
        }
    }
}

/// The records are lost, and the array lets everybody in: what is left is the word of the nodes.
#[tokio::test]
async fn what_every_host_may_reach_is_deleted_by_the_word_of_every_node() {
    for fence in [Fence::None, Fence::Acl] {
        let world = World::new(fence).await;
        world.array.admit(&world.id, &Export::AnyHost).await.unwrap();
        let refused = world.delete().await.unwrap_err();
        assert!(refused.kind() == Kind::Refused && refused.to_string().contains("--node-agent"), "{refused}");
        world.nodes.say(&node("w1"), Testimony::InUse("mounted".into()));
        world.nodes.say(&node("w2"), Testimony::Silent("no route".into()));
        let refused = world.delete().await.unwrap_err();
        assert!(matches!(&refused, delete::Error::InUse { node, .. } if node.as_str() == "w1"), "{refused}");
        world.nodes.say(&node("w1"), Testimony::Gone);
        for silence in [Testimony::Silent("no route".into()), Testimony::Unasked("no trust".into())] {
            world.nodes.say(&node("w2"), silence);
            let refused = world.delete().await.unwrap_err();
            assert_eq!(refused.kind(), Kind::Refused);
            assert!(
                refused.to_string().contains("node w2")
                    && refused.to_string().contains("switch its export off")
            );
        }
        assert_eq!(world.array.volumes().len(), 1);
        world.nodes.say(&node("w2"), Testimony::Gone);
        world.delete().await.unwrap();
        assert!(world.array.volumes().is_empty());
    }
}

#[tokio::test]
async fn what_nobody_can_reach_is_deleted_whatever_nodes_say() {
    for fence in [Fence::None, Fence::Acl] {
        for said in [Testimony::Silent("no route".into()), Testimony::InUse("mounted".into())] {
            let world = World::new(fence).await;
            world.nodes.say(&node("w1"), said);
            world.delete().await.unwrap();
            assert!(world.array.volumes().is_empty());
            world.delete().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_volume_is_deleted_only_when_nobody_holds_it() {
    let world = World::new(Fence::Acl).await;
    world.attach("w1").await.unwrap();
    let refused = world.delete().await.unwrap_err();
    assert!(matches!(&refused, delete::Error::Attached { nodes, .. } if nodes == "w1"));
    assert_eq!((refused.kind(), world.array.volumes().len()), (Kind::InUse, 1));
    world.nodes.say(&node("w1"), Testimony::Gone);
    world.detach(From::Everywhere).await.unwrap();
    world.delete().await.unwrap();
    assert!(world.array.volumes().is_empty());
}

#[tokio::test]
async fn a_record_that_is_wrong_shuts_out_nobody_whom_it_does_not_name() {
    let world = World::new(Fence::Acl).await;
    world.attach("w1").await.unwrap();
    // Let in by another program, or by a person at the array.
    world.array.admit(&world.id, &hosts(&["w1", "w2"])).await.unwrap();
    for testimony in [Testimony::Gone, Testimony::Silent("no route".into())] {
        world.nodes.say(&node("w1"), testimony);
        let refused = world.detach(From::Node(node("w1"))).await.unwrap_err();
        assert_eq!(refused, Error::Array(array::Error::Strangers(world.id.clone())));
        assert_eq!((world.export(), world.holders().await), (hosts(&["w1", "w2"]), vec!["w1".to_owned()]));
    }
}

#[tokio::test]
async fn a_node_that_was_certainly_not_let_in_is_no_holder() {
    let world = World::new(Fence::Acl).await;
    let away = || array::Error::Unreachable { reason: "connection refused".into() };
    world.array.fail_once(Fault::Before(away()));
    assert_eq!(world.attach("w1").await.unwrap_err(), publish::Error::Array(away()));
    assert!(world.holders().await.is_empty());
    // A node that holds it goes on to do so.
    world.attach("w1").await.unwrap();
    world.array.fail_once(Fault::Before(away()));
    world.attach("w1").await.unwrap_err();
    assert_eq!(world.holders().await, ["w1"]);
    // Its first attach may not have happened, and now it cannot any more.
    world.array.dismiss(&world.id, &hosts(&["w1"]), &Export::Off).await.unwrap();
    world.array.delete(&world.id, IfOpen::GoOn).await.unwrap();
    assert_eq!(world.attach("w1").await.unwrap_err().kind(), Kind::Missing);
    assert!(world.holders().await.is_empty());
}

/// A store that is always changed by somebody else between a record and its rollback.
struct Contended(Standalone);

impl Store for Contended {
    async fn load(&self, volume: &VolumeId) -> Result<Stored, store::Error> {
        self.0.load(volume).await
    }

    async fn list(&self) -> Result<BTreeMap<VolumeId, crate::attachments::Record>, store::Error> {
        self.0.list().await
    }

    fn seen(&self) -> Option<BTreeMap<VolumeId, Record>> {
        self.0.seen()
    }

    async fn replace(
        &self,
        volume: &VolumeId,
        loaded: store::Revision,
        record: crate::attachments::Record,
    ) -> Result<store::Revision, store::Error> {
        if record.is_empty() {
            return Err(store::Error::Changed(volume.clone()));
        }
        self.0.replace(volume, loaded, record).await
    }
}

impl Authority for Contended {
    async fn facts(
        &self,
        volume: &VolumeId,
        of: &BTreeSet<NodeName>,
        freshness: Freshness,
    ) -> Result<Facts, facts::Error> {
        self.0.facts(volume, of, freshness).await
    }

    fn nodes(&self) -> BTreeSet<NodeName> {
        self.0.nodes()
    }
}

impl Herald for Contended {
    fn tally(&self) -> &Tally {
        self.0.tally()
    }

    fn post(&self, _: &VolumeId, _: &Event) {}
}

#[tokio::test]
async fn a_rollback_that_fails_does_not_hide_why_there_was_one() {
    let (array, store) = (FakeArray::new(Bytes::gib(1)), Contended(Standalone::default()));
    let id: VolumeId = "pvc-none".parse().unwrap();
    let claim = Claim {
        node: node("w1"),
        shape: Shape::Block,
        mode: AccessMode::MultiNodeWriter,
        rights: Rights::Write,
        second: Second::default(),
    };
    let portal = Portal::parse("10.0.0.1", None).unwrap();
    let request = publish::Request { id: id.clone(), claim, portal, reconnect: None };
    let nodes = FakeNodes::default();
    let parties = Parties { array: &array, fence: Fence::Acl, ledger: &store, nodes: &nodes };
    let refused = publish(&parties, most(), request, NOW).await.unwrap_err();
    assert_eq!(refused, publish::Error::Array(array::Error::Missing(id)));
}

#[tokio::test]
async fn an_export_that_is_open_to_every_host_is_not_held_by_nobody() {
    let world = World::new(Fence::Acl).await;
    world.array.dismiss(&world.id, &Export::Off, &Export::AnyHost).await.unwrap();
    let refused = world.attach("w1").await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Refused);
    assert!(refused.to_string().contains("switch its export off on the array"), "{refused}");
    assert!(world.holders().await.is_empty());
    // A silent node may be connected, and so may others, which a fence would cut off with it.
    let refused = world.detach(From::Node(node("w1"))).await.unwrap_err();
    assert_eq!(refused, Error::Array(array::Error::Open(world.id.clone())));
    world.nodes.say(&node("w1"), Testimony::Gone);
    world.detach(From::Node(node("w1"))).await.unwrap();
    assert_eq!(world.export(), Export::AnyHost);
}

#[tokio::test]
async fn a_node_that_no_record_names_is_asked_all_the_same() {
    for fence in [Fence::Acl, Fence::None] {
        let world = World::new(fence).await;
        world.nodes.say(&node("w1"), Testimony::InUse("mounted".into()));
        assert_eq!(world.detach(From::Node(node("w1"))).await.unwrap_err().kind(), Kind::InUse);
        world.nodes.say(&node("w1"), Testimony::Unasked("no certificate".into()));
        assert_eq!(world.detach(From::Node(node("w1"))).await.unwrap_err().kind(), Kind::Unreachable);
        for testimony in [Testimony::Gone, Testimony::Silent("no route".into())] {
            world.nodes.say(&node("w1"), testimony);
            world.detach(From::Node(node("w1"))).await.unwrap();
        }
        assert_eq!(world.array.fences(), 0);
    }
}

#[tokio::test]
async fn without_records_and_a_fence_a_silent_node_still_counts_as_connected() {
    let mut world = World::new(Fence::None).await;
    world.attach("w1").await.unwrap();
    world.ledger = Standalone::default();
    let detach = |name: &str| world.detach(From::Node(node(name)));
    let refused = detach("w1").await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Refused);
    assert!(rds_csi_api::status::chain(&refused).contains("node w1 may still write"), "{refused:?}");
    // A node that there is not writes nothing.
    detach(crate::node_agents::fake::NOWHERE).await.unwrap();
    world.nodes.say(&node("w1"), Testimony::Gone);
    detach("w1").await.unwrap();

    world.nodes.say(&node("w1"), Testimony::Silent("no route".into()));
    world.array.fail_once(Fault::Before(array::Error::Unreachable { reason: "connection refused".into() }));
    assert_eq!(
        detach("w1").await.unwrap_err().kind(),
        Kind::Unreachable,
        "nobody knows whom the array lets in"
    );
    world.array.dismiss(&world.id, &Export::AnyHost, &Export::Off).await.unwrap();
    detach("w1").await.unwrap();
    world.array.delete(&world.id, IfOpen::GoOn).await.unwrap();
    detach("w1").await.unwrap();
}

/// A node that takes its time to say nothing.
#[derive(Default)]
struct Slow {
    asked: Notify,
    over: Notify,
}

impl Witness for Slow {
    fn named(&self) -> Vec<NodeName> {
        Vec::new()
    }

    fn knows(&self, _: &NodeName) -> bool {
        true
    }

    async fn testify(&self, _: &NodeName, _: &VolumeId, _: &Nqn) -> Testimony {
        self.asked.notify_one();
        self.over.notified().await;
        Testimony::Silent("no answer".into())
    }

    async fn link(&self, _: &NodeName, _: &VolumeId, _: &Nqn) -> Link {
        Link::Unknown("no answer".into())
    }
}

/// Another replica was quicker, and the volume is elsewhere by now.
#[tokio::test]
async fn a_detach_that_comes_late_cuts_off_nobody_who_was_let_in_meanwhile() {
    for fence in [Fence::Acl, Fence::Epoch] {
        let (world, slow) = (World::new(fence).await, Slow::default());
        let first = world.attach("w1").await.unwrap();
        let parties = Parties { array: &world.array, fence, ledger: &world.ledger, nodes: &slow };
        let late = unpublish(&parties, world.id.clone(), From::Node(node("w1")), NOW);
        let meanwhile = async {
            slow.asked.notified().await;
            world.detach(From::Node(node("w1"))).await.unwrap();
            let second = world.attach("w2").await.unwrap();
            assert_ne!(second.nqn, first.nqn);
            slow.over.notify_one();
            (second.nqn, world.export())
        };
        let (refused, (name, export)) = tokio::join!(late, meanwhile);
        assert_eq!(refused.unwrap_err(), Error::Store(store::Error::Changed(world.id.clone())));
        assert_eq!((world.array.volumes()[0].nqn.clone(), world.export()), (name, export));
        assert_eq!((world.array.fences(), world.holders().await), (1, vec!["w2".to_owned()]));
    }
}
