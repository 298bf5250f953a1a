//! Two commands about one thing at the same time, the one before each change of the other: whichever goes first, what is there
//! then is whole, and both answers are true.

use futures_util::future::join_all;
use rds_csi_controller::array::{Array, Error};
use rds_csi_integration::simulator::{Effect, Fault};

use super::bench::{Act, Bench, LINE, SOURCES, Size, new, source};
use super::{Connected, PATIENT};

/// What a call that was stopped ended with, that of the one which ran meanwhile, and what is there then.
struct Race {
    held: Result<String, Error>,
    meanwhile: Result<String, Error>,
    bench: Bench,
}

impl Race {
    async fn has(&self, act: Act) -> bool {
        let connected = Connected::to(&self.bench.site, 1, PATIENT);
        let there = match act {
            Act::MakeSource => connected.array.volume(&source()).await.is_ok(),
            Act::Take => connected.array.snapshot(&"snap-s".parse().unwrap()).await.is_ok(),
            _ => connected.array.volume(&new()).await.is_ok(),
        };
        connected.close().await;
        there
    }

    /// Every subvolume is a snapshot or holds the image of its disk, and nothing else is there.
    fn assert_whole(&self, what: &str) {
        let state = self.bench.simulator.state().unwrap();
        let files: Vec<_> = state.files.iter().map(|file| file.path.to_string()).collect();
        let is_snapshot = |name: &str| name.starts_with("snap-s.");
        for subvolume in self.bench.subvolumes() {
            let used = state.disks.iter().any(|disk| disk.slot == subvolume);
            assert!(used || is_snapshot(&subvolume), "{what}: {state:#?}");
            assert!(files.contains(&format!("{subvolume}/disk.img")), "{what}: {state:#?}");
        }
        for disk in &state.disks {
            assert_eq!(disk.file_path, format!("/storage-pool/{}/disk.img", disk.slot), "{what}");
            assert!(files.contains(&format!("{}/disk.img", disk.slot)), "{what}: {state:#?}");
        }
    }
}

/// Stops one act before each of its changes, lets the other one run through, and lets the first one go on.
async fn race(before: &[Act], held: Act, meanwhile: Act, judge: impl AsyncFn(&str, &Race)) {
    for change in 1.. {
        assert!(change < 20, "{held:?} never ends");
        let bench = Bench::after(before).await;
        bench.simulator.inject(Fault::new(Effect::PauseBefore { change }).times(1).containing(LINE));
        let mut stopped = Box::pin(bench.ask(held));
        tokio::select! {
            () = bench.simulator.paused() => {}
            outcome = &mut stopped => {
                assert!(change > 1, "{held:?} was not stopped at all: {outcome:?}");
                drop(stopped);
                return bench.leave_nothing().await;
            }
        }
        let meanwhile_told = bench.ask(meanwhile).await;
        bench.simulator.clear_faults();
        let held_told = stopped.await;
        let race = Race { held: held_told, meanwhile: meanwhile_told, bench };
        let what = format!(
            "{held:?} before its change {change}, {meanwhile:?}: {:?}, {:?}",
            race.held, race.meanwhile
        );
        judge(&what, &race).await;
        race.bench.leave_nothing().await;
    }
}

const RESTORE: Act = Act::Restore(Size::LargerWithin);
const CLONE: Act = Act::Clone(Size::LargerWithin);

/// The copy is there and whole, or is refused since its source is gone.
async fn copied_or_missing(what: &str, race: &Race, copied: &Result<String, Error>, from: Act, copy: Act) {
    race.assert_whole(what);
    match copied {
        Ok(_) => assert!(race.has(copy).await, "{what}"),
        Err(error) => {
            let gone = match from {
                Act::Take => Error::MissingSnapshot("snap-s".parse().unwrap()),
                _ => Error::Missing(source()),
            };
            assert!(*error == gone && !race.has(copy).await, "{what}");
        }
    }
    assert!(!race.has(from).await, "{what}");
}

#[tokio::test]
async fn a_copy_and_the_deletion_of_its_source_leave_nothing_half() {
    let cases = [
        (RESTORE, Act::Discard, Act::Take),
        (CLONE, Act::DeleteSource, Act::MakeSource),
        (Act::Take, Act::DeleteSource, Act::MakeSource),
    ];
    join_all(cases.map(async |(copy, delete, from)| {
        let before: &[Act] = if matches!(copy, Act::Take) { &[Act::MakeSource] } else { SOURCES };
        race(before, copy, delete, async |what, race| {
            assert!(race.meanwhile.is_ok(), "{what}");
            copied_or_missing(what, race, &race.held, from, copy).await;
        })
        .await;
        race(before, delete, copy, async |what, race| {
            assert!(race.held.is_ok(), "{what}");
            copied_or_missing(what, race, &race.meanwhile, from, copy).await;
        })
        .await;
    }))
    .await;
}

/// The controller does not let it come to this, but for a call whose answer was lost and that still runs.
#[tokio::test]
async fn a_copy_and_its_own_deletion_leave_all_of_it_or_nothing() {
    join_all([RESTORE, CLONE].map(async |copy| {
        race(SOURCES, copy, Act::Delete, async |what, race| {
            race.assert_whole(what);
            assert!(race.meanwhile.is_ok(), "{what}");
            assert_eq!(race.held.is_ok(), race.has(copy).await, "{what}");
        })
        .await;
    }))
    .await;
}

/// Nor to this.
#[tokio::test]
async fn two_that_make_one_copy_make_it_once_and_neither_takes_it_from_the_other() {
    join_all([RESTORE, CLONE].map(async |copy| {
        race(SOURCES, copy, copy, async |what, race| {
            assert!(race.meanwhile.is_ok() && race.has(copy).await, "{what}");
            assert!(matches!(race.held, Ok(_) | Err(Error::Concurrent { .. })), "{what}");
            // Who lost may have left its mark, which says too little to make anything anew; the repeat takes it away.
            assert!(race.bench.ask(copy).await.is_ok(), "{what}");
            race.assert_whole(what);
        })
        .await;
    }))
    .await;
}
