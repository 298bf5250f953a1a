//! Every operation, cut off behind each of its changes: its repeat ends as a run does that nothing cuts, and a deletion leaves
//! nothing.

use futures_util::future::join_all;
use rds_csi_api::{Bytes, HostNqn};
use rds_csi_controller::array::{Array, Error, KubeName, Label, Source, Wanted};
use rds_csi_integration::simulator::{Effect, Fault};

use super::bench::{Act, Bench, LINE, SOURCES, Size, copy, new, source};
use super::{Connected, PATIENT};

/// Cuts an act off behind as many changes as it makes, one after the other, and hands the array to `then` each time.
async fn cut_everywhere(before: &[Act], act: Act, within: &str, then: impl AsyncFn(u32, Bench) -> Bench) {
    for changes in 0.. {
        assert!(changes < 20, "{act:?} never ends");
        let bench = Bench::after(before).await;
        let fault = Fault::new(Effect::StopAfter { statements: changes }).times(1);
        bench.simulator.inject(fault.containing(within));
        let outcome = bench.ask(act).await;
        let is_cut = bench.simulator.commands().lines.iter().any(|line| line.took.is_none());
        bench.simulator.clear_faults();
        if !is_cut {
            assert!(changes > 0, "{act:?} was not cut at all: {outcome:?}");
            return bench.leave_nothing().await;
        }
        then(changes, bench).await.leave_nothing().await;
    }
}

async fn a_repeat_ends_as_an_uncut_run(before: &[Act], act: Act, within: &str) {
    let uncut = Bench::after(before).await;
    let expected = (uncut.ask(act).await, uncut.looks());
    uncut.leave_nothing().await;
    cut_everywhere(before, act, within, async |changes, bench| {
        let repeated = (bench.ask(act).await, bench.looks());
        assert!(repeated == expected, "{act:?}, cut after {changes}: {} {}", repeated.1, repeated.0.unwrap());
        bench
    })
    .await;
}

const W1: &[&str] = &["w1"];
const W2: &[&str] = &["w2"];
const BOTH: &[&str] = &["w1", "w2"];
const NOBODY: &[&str] = &[];

/// All that makes a volume.
const MAKING: [(&[Act], Act); 7] = [
    (&[], Act::Create(NOBODY)),
    (&[], Act::CreateOpen),
    (SOURCES, Act::Restore(Size::AsItIs)),
    (SOURCES, Act::Restore(Size::Larger)),
    (SOURCES, Act::Restore(Size::LargerWithin)),
    (SOURCES, Act::Clone(Size::AsItIs)),
    (SOURCES, Act::Clone(Size::LargerWithin)),
];

#[tokio::test]
async fn a_create_that_was_cut_off_is_repeated() {
    join_all(MAKING.iter().map(|(before, act)| a_repeat_ends_as_an_uncut_run(before, *act, LINE))).await;
}

#[tokio::test]
async fn a_create_that_was_cut_off_is_deleted_without_a_trace() {
    join_all(MAKING.iter().map(async |(before, act)| {
        let untouched = Bench::after(before).await;
        let expected = untouched.looks();
        untouched.leave_nothing().await;
        cut_everywhere(before, *act, LINE, async |changes, bench| {
            bench.ask(Act::Delete).await.unwrap();
            assert_eq!(bench.looks(), expected, "{act:?}, cut after {changes}");
            bench
        })
        .await;
    }))
    .await;
}

#[tokio::test]
async fn a_copy_that_is_refused_leaves_nothing_wherever_it_is_cut() {
    let too_large = [Act::Restore(Size::TooLarge), Act::Clone(Size::TooLarge)];
    join_all(too_large.iter().map(async |act| {
        let untouched = Bench::after(SOURCES).await;
        let expected = untouched.looks();
        untouched.leave_nothing().await;
        for within in [LINE, "$undo "] {
            cut_everywhere(SOURCES, *act, within, async |changes, bench| {
                let repeated = bench.ask(*act).await;
                assert!(matches!(repeated, Err(Error::SourceTooLarge { .. })), "{repeated:?}");
                assert_eq!(bench.looks(), expected, "{act:?}, cut after {changes}");
                bench
            })
            .await;
        }
    }))
    .await;
}

#[tokio::test]
async fn a_change_that_was_cut_off_is_repeated() {
    const OPEN: &[Act] = &[Act::Create(BOTH)];
    let changes: [(&[Act], Act); 11] = [
        (&[], Act::Create(BOTH)),
        (OPEN, Act::Expand),
        (OPEN, Act::Modify),
        (&[Act::Create(BOTH), Act::Modify], Act::Expand),
        (&[Act::Create(NOBODY)], Act::Admit(W1)),
        (&[Act::Create(W1)], Act::Admit(BOTH)),
        (OPEN, Act::Dismiss(BOTH, W2)),
        (OPEN, Act::Dismiss(BOTH, NOBODY)),
        (OPEN, Act::Fence(BOTH, W2)),
        (OPEN, Act::Fence(BOTH, NOBODY)),
        (&[Act::MakeSource], Act::Take),
    ];
    join_all(changes.iter().map(|(before, act)| a_repeat_ends_as_an_uncut_run(before, *act, LINE))).await;
}

#[tokio::test]
async fn a_removal_that_was_cut_off_is_repeated() {
    let removals: [(&[Act], Act); 5] = [
        (&[Act::Create(NOBODY)], Act::Delete),
        (&[Act::MakeSource, Act::Take, Act::Restore(Size::Larger)], Act::Delete),
        (SOURCES, Act::Discard),
        (&[Act::MakeFlat], Act::DeleteFlat),
        (&[Act::MakeFlat, Act::MakeHollow], Act::DiscardHollow),
    ];
    join_all(removals.iter().map(|(before, act)| a_repeat_ends_as_an_uncut_run(before, *act, LINE))).await;
}

/// What people are told about a volume, and the policy, are no part of what was asked for.
#[tokio::test]
async fn a_copy_that_was_cut_off_is_ended_by_a_repeat_with_other_labels() {
    let acts = [
        (Act::Restore(Size::LargerWithin), Source::Snapshot("snap-s".parse().unwrap())),
        (Act::Clone(Size::LargerWithin), Source::Volume(source())),
    ];
    join_all(acts.map(async |(act, from)| {
        let name = |text| Some(KubeName::parse("name", text).unwrap());
        let otherwise = Wanted {
            label: Label { pv: name("pvc-2"), namespace: name("shop"), pvc: name("db-1") },
            reconnect: Some("600,2,5,off".parse().unwrap()),
            ..copy(from.clone(), Size::LargerWithin)
        };
        let uncut = Bench::after(SOURCES).await;
        uncut.ask(act).await.unwrap();
        let subvolumes = uncut.subvolumes();
        uncut.leave_nothing().await;
        cut_everywhere(SOURCES, act, LINE, async |changes, bench| {
            let connected = Connected::to(&bench.site, 1, PATIENT);
            let repeated = connected.array.create(&otherwise).await.unwrap();
            connected.close().await;
            let size = Bytes::new((1 << 30) + 4096);
            assert_eq!((repeated.size, repeated.source), (size, Some(from.clone())));
            assert_eq!(bench.subvolumes(), subvolumes, "{act:?}, cut after {changes}");
            bench
        })
        .await;
    }))
    .await;
}

/// Whoever survives a fence that was cut off is let in again by any of its calls.
#[tokio::test]
async fn a_survivor_of_a_fence_that_was_cut_off_is_served_again() {
    cut_everywhere(&[Act::Create(BOTH)], Act::Fence(BOTH, W2), LINE, async |changes, bench| {
        let admitted = bench.ask(Act::Admit(W2)).await;
        if changes == 0 {
            // Nothing was done: the other one is still let in.
            assert_eq!(admitted, Err(Error::Strangers(new())));
        } else {
            assert!(admitted.is_ok(), "cut after {changes}: {admitted:?}");
            let exports = bench.simulator.state().unwrap().exports;
            assert!(format!("{exports:?}").contains(HostNqn::of(&"w2".parse().unwrap()).as_str()));
            assert!(!format!("{exports:?}").contains(HostNqn::of(&"w1".parse().unwrap()).as_str()));
        }
        bench
    })
    .await;
}

/// What a deletion has left may be data. It is never handed out as a new volume.
#[tokio::test]
async fn nothing_is_made_of_what_a_deletion_has_left() {
    for act in [Act::Restore(Size::AsItIs), Act::Clone(Size::Larger), Act::Create(NOBODY)] {
        let before = [Act::MakeSource, Act::Take, Act::Restore(Size::Larger)];
        let bench = Bench::after(&before).await;
        bench.simulator.inject(Fault::new(Effect::StopAfter { statements: 1 }).times(1).containing(LINE));
        assert!(matches!(bench.ask(Act::Delete).await, Err(Error::Lost { .. })));
        let refused = bench.ask(act).await;
        assert!(matches!(refused, Err(Error::Leftover { .. })), "{act:?}: {refused:?}");
        bench.leave_nothing().await;
    }
}
