//! Every rule as a row, and what must hold whatever happens as a property.

use std::collections::BTreeSet;

use proptest::prelude::*;

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
    Claim { node: node(name), shape, mode, rights: Rights::Write }
}

fn publish_on(record: &Record, claim: Claim) -> Result<Publish, Refusal> {
    publish(record, claim, NOW)
}

/// The record after these nodes attached, each of which must succeed.
fn held_by(names: &[&str], shape: Shape, mode: AccessMode) -> Record {
    names.iter().fold(Record::default(), |record, name| match publish_on(&record, claim(name, shape, mode)) {
        Ok(Publish::Attach(record)) => record,
        other => panic!("{name}: {other:?}"),
    })
}

fn unpublish_from(
    record: &Record,
    leaving: &[(&str, Testimony)],
    fence: Fence,
) -> Result<Unpublish, Refusal> {
    let leaving = leaving.iter().map(|(name, testimony)| (node(name), testimony.clone())).collect();
    unpublish(record, leaving, fence)
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
    assert_eq!(third, Err(Refusal::Full { first: node("w1"), second: node("w2") }));
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
                        Ok(Publish::Keep) => assert!(same),
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
fn a_node_leaves_by_its_own_word_or_behind_a_fence() {
    let gone = Testimony::Gone;
    let in_use = Testimony::InUse("process 7 (postgres) has /data/x open".into());
    let silent = Testimony::Silent("connection refused".into());
    let one = held_by(&["w1"], Shape::Block, AccessMode::MultiNodeWriter);
    let two = held_by(&["w1", "w2"], Shape::Block, AccessMode::MultiNodeWriter);
    let w2 = two.without([&node("w1")]);
    let none = Record::default();
    let in_use_refusal =
        Err(Refusal::InUse { node: node("w1"), what: "process 7 (postgres) has /data/x open".into() });
    let unfenced = Err(Refusal::Unfenced { node: node("w1"), why: "connection refused".into() });
    let table = [
        (&one, &gone, Fence::Acl, Ok(Unpublish::Detach(none.clone()))),
        (&one, &gone, Fence::None, Ok(Unpublish::Detach(none.clone()))),
        (&one, &in_use, Fence::Acl, in_use_refusal.clone()),
        (&one, &in_use, Fence::None, in_use_refusal.clone()),
        (&one, &silent, Fence::Acl, Ok(Unpublish::FenceAndDetach(none.clone()))),
        (&one, &silent, Fence::None, unfenced.clone()),
        (&two, &gone, Fence::Acl, Ok(Unpublish::Detach(w2.clone()))),
        (&two, &gone, Fence::None, Ok(Unpublish::Detach(w2.clone()))),
        (&two, &in_use, Fence::Acl, in_use_refusal.clone()),
        (&two, &in_use, Fence::None, in_use_refusal),
        (&two, &silent, Fence::Acl, Ok(Unpublish::FenceAndDetach(w2))),
        (&two, &silent, Fence::None, unfenced),
        (&none, &gone, Fence::Acl, Ok(Unpublish::Nothing)),
        (&none, &in_use, Fence::None, Ok(Unpublish::Nothing)),
        (&none, &silent, Fence::None, Ok(Unpublish::Nothing)),
    ];
    for (record, testimony, fence, expected) in table {
        let decision = unpublish_from(record, &[("w1", testimony.clone())], fence);
        assert_eq!(decision, expected, "{testimony:?} {fence:?}");
    }
}

#[test]
fn of_several_that_leave_one_that_uses_it_stops_all_and_one_that_is_silent_fences_all() {
    let two = held_by(&["w1", "w2"], Shape::Block, AccessMode::MultiNodeWriter);
    let silent = ("w1", Testimony::Silent("no route".into()));
    let in_use = ("w2", Testimony::InUse("mounted".into()));
    let decision = unpublish_from(&two, &[silent.clone(), in_use], Fence::Acl);
    assert!(matches!(decision, Err(Refusal::InUse { .. })));
    let decision = unpublish_from(&two, &[silent, ("w2", Testimony::Gone)], Fence::Acl);
    assert_eq!(decision, Ok(Unpublish::FenceAndDetach(Record::default())));
}

#[derive(Debug, Clone)]
enum Request {
    Publish(Claim),
    Unpublish { leaving: BTreeMap<NodeName, Testimony>, fence: Fence },
}

fn any_request() -> impl Strategy<Value = Request> {
    let node = || (0..4_u8).prop_map(|number| node(&format!("w{number}")));
    let rights = prop_oneof![Just(Rights::Write), Just(Rights::Read)];
    let publish =
        (node(), 0..SHAPES.len(), 0..MODES.len(), rights).prop_map(|(node, shape, mode, rights)| {
            Request::Publish(Claim { node, shape: SHAPES[shape], mode: MODES[mode], rights })
        });
    let testimony = prop_oneof![
        Just(Testimony::Gone),
        Just(Testimony::InUse("mounted".into())),
        Just(Testimony::Silent("no answer".into())),
    ];
    let fence = prop_oneof![Just(Fence::None), Just(Fence::Acl)];
    let leaving = proptest::collection::btree_map(node(), testimony, 0..3);
    let unpublish = (leaving, fence).prop_map(|(leaving, fence)| Request::Unpublish { leaving, fence });
    prop_oneof![publish, unpublish]
}

proptest! {
    #[test]
    fn whatever_is_asked_no_two_nodes_hold_what_one_of_them_does_not_share(
        requests in proptest::collection::vec(any_request(), 0..40),
    ) {
        let mut record = Record::default();
        for request in requests {
            let (asked, before) = (request.clone(), record.clone());
            record = match request {
                Request::Publish(claim) => match publish(&record, claim, NOW) {
                    Ok(Publish::Attach(after)) => after,
                    Ok(Publish::Keep) | Err(_) => record,
                },
                Request::Unpublish { leaving, fence } => match unpublish(&record, leaving, fence) {
                    Ok(Unpublish::Detach(after) | Unpublish::FenceAndDetach(after)) => after,
                    Ok(Unpublish::Nothing) | Err(_) => record,
                },
            };
            let modes: BTreeSet<_> = record.attachments().map(|(_, held)| held.mode).collect();
            let nodes = record.nodes().count();
            prop_assert!(nodes <= 1 || (modes.len() == 1 && modes.iter().all(|mode| mode.spans_nodes())));
            prop_assert!(nodes <= MOST_WRITERS || modes.contains(&AccessMode::MultiNodeReader));
            let destroyed = |held: &Attachment| {
                held.shape == Shape::Filesystem && held.mode == AccessMode::MultiNodeWriter
            };
            prop_assert!(!record.attachments().any(|(_, held)| destroyed(held)));
            // Nobody is detached but by request, and nobody who says that it uses the volume.
            for lost in before.nodes().filter(|node| record.of(node).is_none()) {
                let Request::Unpublish { leaving, .. } = &asked else { panic!("{asked:?} detached {lost}") };
                prop_assert!(matches!(leaving.get(lost), Some(Testimony::Gone | Testimony::Silent(_))));
            }
        }
    }
}
