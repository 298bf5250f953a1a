//! Every rule as a row, and what must hold whatever happens as a property.

use std::collections::BTreeSet;

use proptest::prelude::*;
use rds_csi_api::{Failure, Kind};

use super::*;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;
const MODES: [AccessMode; 6] = [
    AccessMode::SingleNodeWriter,
    AccessMode::SingleNodeSingleWriter,
    AccessMode::SingleNodeMultiWriter,
    AccessMode::SingleNodeReader,
    AccessMode::MultiNodeReader,
    AccessMode::MultiNodeWriter,
];
const SHAPES: [Shape; 2] = [Shape::Block, Shape::Filesystem];
const RIGHTS: [Rights; 2] = [Rights::Write, Rights::Read];

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

fn claim(name: &str, shape: Shape, mode: AccessMode) -> Claim {
    Claim { node: node(name), shape, mode, rights: Rights::Write, second: Second::default() }
}

/// Kubernetes wants all of these nodes to have it, and they are well.
fn well<'a>(nodes: impl IntoIterator<Item = &'a NodeName>) -> Facts {
    let nodes: Vec<_> = nodes.into_iter().cloned().collect();
    Facts {
        wanted: nodes.iter().map(|node| (node.clone(), Attached::No)).collect(),
        nodes: nodes.into_iter().map(|node| (node, Node::Ready(Reported::InUse))).collect(),
        users: Vec::new(),
    }
}

fn publish_on(record: &Record, claim: Claim) -> Result<Publish, Refusal> {
    publish(record, &well(record.nodes().chain([&claim.node])), claim, NOW)
}

/// The record after these nodes attached, each of which must succeed.
fn held_by(names: &[&str], shape: Shape, mode: AccessMode) -> Record {
    names.iter().fold(Record::default(), |record, name| match publish_on(&record, claim(name, shape, mode)) {
        Ok(Publish::Attach(record)) => record,
        other => panic!("{name}: {other:?}"),
    })
}

#[test]
fn a_second_node_is_let_in_only_where_both_share() {
    for shape in SHAPES {
        for first in MODES {
            for second in MODES {
                let filesystem_shared =
                    |mode| shape == Shape::Filesystem && mode == AccessMode::MultiNodeWriter;
                if filesystem_shared(first) {
                    continue;
                }
                let record = held_by(&["w1"], shape, first);
                let decision = publish_on(&record, claim("w2", shape, second));
                let both_share = first == second && first.spans_nodes();
                match decision {
                    Ok(Publish::Attach(record)) => assert!(both_share && record.nodes().count() == 2),
                    Err(Refusal::SharedFilesystem) => assert!(filesystem_shared(second)),
                    Err(Refusal::Held { holder, .. }) => {
                        assert!(!both_share && holder == node("w1"));
                    }
                    other => panic!("{shape:?} {first:?} {second:?}: {other:?}"),
                }
            }
        }
    }
}

#[test]
fn a_second_node_reads_who_holds_the_volume() {
    let record = held_by(&["w1"], Shape::Filesystem, AccessMode::SingleNodeWriter);
    let refusal =
        publish_on(&record, claim("w2", Shape::Filesystem, AccessMode::SingleNodeWriter)).unwrap_err();
    assert_eq!(refusal.kind(), Kind::Refused);
    assert_eq!(
        refusal.to_string(),
        "node w1 holds the volume (ReadWriteOnce), and it is not shared: stop the pods that use it there, or wait until \
         it is detached"
    );
}

#[test]
fn a_shared_block_volume_has_two_nodes_and_no_third() {
    let record = held_by(&["w1", "w2"], Shape::Block, AccessMode::MultiNodeWriter);
    let third = publish_on(&record, claim("w3", Shape::Block, AccessMode::MultiNodeWriter));
    assert_eq!(third, Err(Refusal::Full { holders: "w1 and w2".into(), most: 2 }));
}

#[test]
fn a_filesystem_is_never_shared_by_writers() {
    let decision =
        publish_on(&Record::default(), claim("w1", Shape::Filesystem, AccessMode::MultiNodeWriter));
    let refusal = decision.unwrap_err();
    assert_eq!(refusal.kind(), Kind::Invalid);
    assert!(refusal.to_string().contains("volumeMode: Block"));
}

#[test]
fn a_repeat_is_kept_and_anything_else_on_the_same_node_is_a_conflict() {
    for (shape, mode) in
        [(Shape::Filesystem, AccessMode::SingleNodeWriter), (Shape::Block, AccessMode::MultiNodeWriter)]
    {
        let record = held_by(&["w1"], shape, mode);
        for asked_shape in SHAPES {
            for asked_mode in MODES {
                for rights in RIGHTS {
                    let asked = Claim { rights, ..claim("w1", asked_shape, asked_mode) };
                    let same = (asked_shape, asked_mode, rights) == (shape, mode, Rights::Write);
                    match publish_on(&record, asked) {
                        Ok(Publish::Keep(kept)) => assert!(same && kept == record),
                        Err(Refusal::Differs { .. } | Refusal::SharedFilesystem) => {
                            assert!(!same);
                        }
                        other => panic!("{other:?}"),
                    }
                }
            }
        }
    }
}

#[test]
fn readers_are_as_many_as_one_command_can_name() {
    let names = ["w1", "w2", "w3", "w4"];
    let record = held_by(&names, Shape::Filesystem, AccessMode::MultiNodeReader);
    let fifth = publish_on(&record, claim("w5", Shape::Filesystem, AccessMode::MultiNodeReader));
    assert!(matches!(fifth, Err(Refusal::Full { most: 4, .. })));
}

#[test]
fn a_node_leaves_by_its_own_word_or_behind_a_fence() {
    let (in_use, why) = ("process 7 (postgres) has /data/x open", "connection refused");
    let refused_as_used = Err(Refusal::InUse { node: node("w1"), what: in_use.into() });
    let refused_as_unasked = Err(Refusal::Unasked { node: node("w1"), why: why.into() });
    let refused_as_silent = |fence| Err(Refusal::Unfenced { node: node("w1"), why: why.into(), fence });
    let (gone, in_use) = (Testimony::Gone, Testimony::InUse(in_use.into()));
    let (silent, unasked) = (Testimony::Silent(why.into()), Testimony::Unasked(why.into()));
    let (clean, fenced) = (Ok(Release::Clean), Ok(Release::BehindFence([(node("w1"), why.into())].into())));
    let unknown = Node::Ready(Reported::Nothing);
    let unused = [Node::Ready(Reported::NotInUse), Node::NotReady(Reported::NotInUse)];
    let may_write = [
        unknown,
        Node::NotReady(Reported::InUse),
        Node::NotReady(Reported::Nothing),
        Node::OutOfService,
        Node::Gone,
    ];
    let used = Node::Ready(Reported::InUse);
    let told = format!("its kubelet says so, and its agent does not answer ({why})");
    let refused_by_kubelet = Err(Refusal::InUse { node: node("w1"), what: told });
    let mut table = Vec::new();
    for (fence, staying) in Fence::ALL.into_iter().flat_map(|fence| [(fence, 0), (fence, 1)]) {
        let mut row = |testimony, seen, expected| table.push((testimony, seen, fence, staying, expected));
        for seen in may_write {
            let works = matches!((fence, staying), (Fence::Acl, _) | (Fence::Epoch, 0));
            row(&silent, seen, if works { fenced.clone() } else { refused_as_silent(fence) });
            row(&unasked, seen, refused_as_unasked.clone());
        }
        for seen in unused {
            row(&silent, seen, clean.clone());
            row(&unasked, seen, clean.clone());
        }
        row(&silent, used, refused_by_kubelet.clone());
        row(&unasked, used, refused_by_kubelet.clone());
        for seen in may_write.into_iter().chain(unused).chain([used]) {
            row(&gone, seen, clean.clone());
            row(&in_use, seen, refused_as_used.clone());
        }
    }
    for (testimony, seen, fence, staying, expected) in table {
        let leaving = Leaving { testimony: testimony.clone(), node: seen };
        assert_eq!(
            release([(node("w1"), leaving)].into(), fence, staying),
            expected,
            "{testimony:?} {seen:?} {fence:?} {staying}"
        );
    }
}

#[test]
fn of_several_that_leave_one_that_uses_it_stops_all_and_one_that_is_silent_fences_all() {
    let says = |name: &str, testimony| (node(name), Leaving { testimony, node: Node::OutOfService });
    let silent = says("w1", Testimony::Silent("no route".into()));
    let in_use = says("w2", Testimony::InUse("mounted".into()));
    let decision = release([silent.clone(), in_use].into(), Fence::Acl, 0);
    assert!(matches!(decision, Err(Refusal::InUse { .. })));
    let fenced = Release::BehindFence([(node("w1"), "no route".into())].into());
    assert_eq!(release([silent, says("w2", Testimony::Gone)].into(), Fence::Acl, 0), Ok(fenced));
}

#[test]
fn lesson_9_a_silent_node_lets_go_behind_a_fence_or_not_at_all() {
    let silent = Leaving { testimony: Testimony::Silent("no route".into()), node: Node::OutOfService };
    let refusal = release([(node("w1"), silent.clone())].into(), Fence::None, 0).unwrap_err();
    assert!(refusal.kind() == Kind::Refused && refusal.to_string().contains("may still write"), "{refusal}");
    assert!(matches!(release([(node("w1"), silent)].into(), Fence::Acl, 0), Ok(Release::BehindFence(_))));
}

#[test]
fn who_is_recorded_and_not_wanted_is_cleared_before_anything_else_is_decided() {
    let record = held_by(&["w1", "w2"], Shape::Block, AccessMode::MultiNodeWriter);
    let facts = well([&node("w2"), &node("w3")]);
    let third = claim("w3", Shape::Block, AccessMode::MultiNodeWriter);
    assert_eq!(publish(&record, &facts, third, NOW), Ok(Publish::Clear([node("w1")].into())));
}

#[test]
fn who_is_attached_and_not_recorded_holds_it_all_the_same() {
    let mut facts = well([&node("w1"), &node("w2")]);
    facts.wanted.insert(node("w1"), Attached::Yes);
    let record = Record::default();
    let alone = publish(&record, &facts, claim("w2", Shape::Block, AccessMode::SingleNodeWriter), NOW);
    assert!(matches!(alone, Err(Refusal::Held { holder, .. }) if holder == node("w1")));
    let shared = publish(&record, &facts, claim("w2", Shape::Block, AccessMode::MultiNodeWriter), NOW);
    assert!(matches!(shared, Ok(Publish::Attach(record)) if record.nodes().count() == 2));
    let itself = publish(&record, &facts, claim("w1", Shape::Block, AccessMode::SingleNodeWriter), NOW);
    assert!(matches!(itself, Ok(Publish::Attach(record)) if record.nodes().eq([&node("w1")])));
}

fn any_claim() -> impl Strategy<Value = Claim> {
    let node = (0..8_u8).prop_map(|number| node(&format!("w{number}")));
    let rights = prop_oneof![Just(Rights::Write), Just(Rights::Read)];
    (node, 0..SHAPES.len(), 0..MODES.len(), rights).prop_map(|(node, shape, mode, rights)| Claim {
        node,
        shape: SHAPES[shape],
        mode: MODES[mode],
        rights,
        second: Second::default(),
    })
}

proptest! {
    #[test]
    fn whatever_is_asked_no_two_nodes_hold_what_one_of_them_does_not_share(
        claims in proptest::collection::vec((any_claim(), any::<bool>()), 0..40),
    ) {
        let mut record = Record::default();
        for (claim, leaves) in claims {
            let (node, before) = (claim.node.clone(), record.clone());
            record = match publish_on(&record, claim) {
                _ if leaves => record.without([&node]),
                Ok(Publish::Attach(after)) => after,
                Ok(_) | Err(_) => record,
            };
            let modes: BTreeSet<_> = record.attachments().map(|(_, held)| held.mode).collect();
            let nodes = record.nodes().count();
            prop_assert!(nodes <= 1 || (modes.len() == 1 && modes.iter().all(|mode| mode.spans_nodes())));
            prop_assert!(nodes <= MOST_WRITERS || modes.contains(&AccessMode::MultiNodeReader));
            let destroyed = |held: &Attachment| {
                held.shape == Shape::Filesystem && held.mode == AccessMode::MultiNodeWriter
            };
            prop_assert!(!record.attachments().any(|(_, held)| destroyed(held)));
            // An attach takes nothing from those who hold the volume.
            let stays = |(holder, held): (&NodeName, &Attachment)| (leaves && *holder == node) || record.of(holder) == Some(held);
            prop_assert!(before.attachments().all(stays));
        }
    }
}
