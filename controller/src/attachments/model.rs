//! Every order in which things can happen to a volume, within bounds, tried out on the verbs themselves.
//!
//! `publish`, `unpublish` and `pass` run over seams that hold them at each question ([`actor`]). A state of the model is the
//! world ([`world`]) and, of each call that runs, the answers that it was given so far: run again with those it asks the same
//! next question, so a call is in a state as exactly as anything else. From each state everything that can happen next does
//! ([`happen`], [`explore`]): either of two controllers goes on or is killed, a reply is lost or a command comes late, a cache lags, a
//! node is cut off, dies or comes back, Kubernetes changes its mind, and people remove what they should not.
//!
//! What must hold is written in `docs/attachments.md`.

mod actor;
mod explore;
mod happen;
mod words;
mod world;

use explore::{Bounds, Sabotage, explore};

/// One of two controllers at a time, and one thing that goes wrong.
const BOUNDS: Bounds = Bounds {
    nodes: 2,
    shared: false,
    calls: 1,
    passes: false,
    attaches: 2,
    faults: 1,
    sabotage: Sabotage::None,
};

#[track_caller]
fn holds(bounds: Bounds) {
    match explore(bounds) {
        Ok(seen) => println!("{seen:?} of {bounds:?}"),
        Err(story) => panic!("{story}"),
    }
}

#[test]
fn a_volume_that_is_not_shared_never_has_two_writers_and_is_never_stuck() {
    holds(BOUNDS);
}

#[test]
fn nor_when_two_controllers_work_at_it_at_the_same_time() {
    holds(Bounds { calls: 2, faults: 0, ..BOUNDS });
}

#[test]
fn nor_while_passes_run_beside_the_calls() {
    holds(Bounds { calls: 2, passes: true, attaches: 1, faults: 0, ..BOUNDS });
    holds(Bounds { passes: true, attaches: 1, ..BOUNDS });
}

#[test]
fn a_shared_volume_never_has_three_writers_and_is_never_stuck() {
    holds(Bounds { nodes: 3, shared: true, attaches: 3, faults: 0, ..BOUNDS });
}

#[test]
fn nor_while_migrations_are_resolved_by_passes() {
    holds(Bounds { shared: true, passes: true, faults: 0, ..BOUNDS });
}

#[test]
fn a_rule_that_is_broken_is_found() {
    for (sabotage, calls, faults) in [
        (Sabotage::SilenceIsGone, 1, 1),
        (Sabotage::FenceCutsNothing, 1, 1),
        (Sabotage::NobodyCompares, 2, 0),
        (Sabotage::CachesAreTrusted, 1, 1),
    ] {
        let story = explore(Bounds { calls, faults, sabotage, ..BOUNDS }).expect_err("this must not hold");
        assert!(story.starts_with("2 nodes can write"), "{sabotage:?}: {story}");
    }
}
