//! Every operation, cut off behind each of its changes: its repeat ends as a run does that nothing cuts, and a deletion leaves
//! nothing.

use futures_util::future::join_all;
use rds_csi_api::{Bytes, HostNqn, VolumeId};
use rds_csi_controller::array::{Array, Content, Error, Export, Source, Wanted, WantedSnapshot};
use rds_csi_integration::simulator::backend::PoolPath;
use rds_csi_integration::simulator::{Effect, Fault, Simulator};

use super::{Connected, PATIENT};
use crate::world::{self, Site};

/// Something that is asked of the array.
#[derive(Debug, Clone, Copy)]
enum Act {
    /// A volume of 1 GiB that copies are made of, written to.
    MakeSource,
    Create(&'static [&'static str]),
    CreateOpen,
    Restore(Size),
    Clone(Size),
    Expand,
    Modify,
    Admit(&'static [&'static str]),
    Dismiss(&'static [&'static str], &'static [&'static str]),
    Fence(&'static [&'static str], &'static [&'static str]),
    Take,
    Discard,
    Delete,
    DeleteFlat,
    /// A volume as the Go driver makes them.
    MakeFlat,
    /// What it calls a snapshot.
    MakeHollow,
    DiscardHollow,
}

/// How large a copy of 1 GiB is to be.
#[derive(Debug, Clone, Copy)]
enum Size {
    AsItIs,
    Larger,
    LargerWithin,
    TooLarge,
}

const FLAT: &str = "pvc-123e4567-e89b-12d3-a456-426614174000";
const HOLLOW: &str = "snap-123e4567-e89b-12d3-a456-426614174000-at-3a9f8c02d1";

fn source() -> VolumeId {
    "pvc-source".parse().unwrap()
}

fn new() -> VolumeId {
    "pvc-new".parse().unwrap()
}

fn hosts(names: &[&str]) -> Export {
    Export::to_hosts(names.iter().map(|name| HostNqn::of(&name.parse().unwrap())))
}

fn copy(source: Source, size: Size) -> Wanted {
    let (least, most) = match size {
        Size::AsItIs => (None, None),
        Size::Larger => (Some(Bytes::new((1 << 30) + 4096)), None),
        Size::LargerWithin => (Some(Bytes::new((1 << 30) + 4096)), Some(Bytes::gib(2))),
        Size::TooLarge => (None, Some(Bytes::new((1 << 30) - 4096))),
    };
    Wanted { content: Content::CopyOf { source, least, most }, ..super::wanted("pvc-new") }
}

/// An array of its own for each cut.
struct Bench {
    simulator: Simulator,
    site: Site,
}

impl Bench {
    async fn after(before: &[Act]) -> Self {
        let (simulator, site) = world::simulator(|_| {}).await;
        let bench = Self { simulator, site };
        let connected = Connected::to(&bench.site, 1, PATIENT);
        for act in before {
            bench.on(&connected, *act).await.unwrap();
        }
        connected.close().await;
        bench
    }

    /// Over a connection of its own, as a program that was started anew has it.
    async fn ask(&self, act: Act) -> Result<String, Error> {
        let connected = Connected::to(&self.site, 1, PATIENT);
        let outcome = self.on(&connected, act).await;
        connected.close().await;
        outcome
    }

    async fn on(&self, connected: &Connected, act: Act) -> Result<String, Error> {
        fn told(answer: impl std::fmt::Debug) -> String {
            format!("{answer:?}")
        }
        let array = &connected.array;
        match act {
            Act::MakeSource => {
                array.create(&super::wanted("pvc-source")).await?;
                let image = PoolPath::new("pvc-source/disk.img").unwrap();
                self.simulator.write(&image, 7).unwrap();
                Ok(String::new())
            }
            Act::Create(names) => {
                array.create(&Wanted { export: hosts(names), ..super::wanted("pvc-new") }).await.map(told)
            }
            Act::CreateOpen => {
                array.create(&Wanted { export: Export::AnyHost, ..super::wanted("pvc-new") }).await.map(told)
            }
            Act::Restore(size) => {
                array.create(&copy(Source::Snapshot("snap-s".parse().unwrap()), size)).await.map(told)
            }
            Act::Clone(size) => array.create(&copy(Source::Volume(source()), size)).await.map(told),
            Act::Expand => array.expand(&new(), Bytes::gib(3)).await.map(told),
            Act::Modify => array.modify(&new(), &"600,2,5,off".parse().unwrap()).await.map(told),
            Act::Admit(names) => array.admit(&new(), &hosts(names)).await.map(told),
            Act::Dismiss(before, after) => {
                array.dismiss(&new(), &hosts(before), &hosts(after)).await.map(told)
            }
            Act::Fence(before, after) => array.fence(&new(), &hosts(before), &hosts(after)).await.map(told),
            Act::Take => {
                let now = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_764_000_007);
                let wanted = WantedSnapshot { id: "snap-s".parse().unwrap(), source: source(), now };
                array.take_snapshot(&wanted).await.map(told)
            }
            Act::Discard => array.delete_snapshot(&"snap-s".parse().unwrap()).await.map(told),
            Act::Delete => array.delete(&new()).await.map(told),
            Act::DeleteFlat => array.delete(&FLAT.parse().unwrap()).await.map(told),
            Act::MakeFlat => {
                world::shell(&self.site, "/disk/btrfs/subvolume add fs=storage-pool name=metal-csi").await;
                let add = "/disk add type=file file-path=/storage-pool/metal-csi/";
                let rest = "file-size=1G nvme-tcp-server-nqn=nqn.2000-02.com.mikrotik:";
                world::shell(&self.site, &format!("{add}{FLAT}.img slot={FLAT} {rest}{FLAT}")).await;
                Ok(String::new())
            }
            Act::MakeHollow => {
                let add = "/disk add type=file file-size=1G file-path=/storage-pool/metal-csi/";
                world::shell(&self.site, &format!("{add}{HOLLOW}.img slot={HOLLOW}")).await;
                Ok(String::new())
            }
            Act::DiscardHollow => array.delete_snapshot(&HOLLOW.parse().unwrap()).await.map(told),
        }
    }

    /// All that a person would see, without numbers that the array counts on.
    fn looks(&self) -> String {
        let state = self.simulator.state().unwrap();
        let subvolumes: Vec<_> =
            state.subvolumes.iter().map(|it| (&it.name, &it.access, &it.snapshot_of)).collect();
        let files: Vec<_> = state.files.iter().map(|file| (&file.path, &file.kind)).collect();
        format!("{:#?}", (&state.disks, subvolumes, files, &state.exports))
    }

    /// Removes all that any of this makes, and finds nothing left.
    async fn leave_nothing(self) {
        let connected = Connected::to(&self.site, 1, PATIENT);
        for id in [new(), source(), FLAT.parse().unwrap()] {
            match connected.array.dismiss(&id, &Export::AnyHost, &Export::Off).await {
                Ok(_) | Err(Error::Missing(_)) => connected.array.delete(&id).await.unwrap(),
                Err(error) => panic!("{error}"),
            }
        }
        for id in ["snap-s", HOLLOW] {
            connected.array.delete_snapshot(&id.parse().unwrap()).await.unwrap();
        }
        connected.close().await;
        let known = |name: &String| name == "metal-csi";
        let state = self.simulator.state().unwrap();
        assert!(state.disks.is_empty() && state.exports.is_empty(), "{state:#?}");
        assert!(state.subvolumes.iter().all(|subvolume| known(&subvolume.name)), "{state:#?}");
        assert!(state.files.iter().all(|file| file.path.as_str() == "metal-csi"), "{state:#?}");
        self.simulator.stop().await.unwrap();
    }
}

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

/// In every line that has calls.
const LINE: &str = ":onerror e in={";
const W1: &[&str] = &["w1"];
const W2: &[&str] = &["w2"];
const BOTH: &[&str] = &["w1", "w2"];
const NOBODY: &[&str] = &[];
const SOURCES: &[Act] = &[Act::MakeSource, Act::Take];

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
