//! The program may die at any moment, and the machine too: before each single change that a call makes, to the machine or to a
//! record. Whatever was cut is made good by the same call again, and taken back by the opposite one.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rds_csi_api::{Bytes, FsType};

use crate::host::fake::{FakeHost, Holds};
use crate::host::{ManagedNqn, MountOptions};
use crate::volumes::{Record, Volumes};
use crate::world::{GIB, World, world};
use crate::{publish, stage, unpublish, unstage};

type Node = Volumes<FakeHost>;

const READ_WRITE: publish::Usage = publish::Usage::Filesystem(publish::Writing::Allowed);
const READ_ONLY: publish::Usage = publish::Usage::Filesystem(publish::Writing::Forbidden);

/// As what the volume is used, and what is on it.
#[derive(Debug, Clone)]
struct Case {
    holds: Holds,
    usage: publish::Usage,
    was: Was,
}

/// What became of the volume before it is staged now.
#[derive(Debug, Clone, Copy)]
enum Was {
    /// It is staged for the first time.
    New,
    /// It was staged and published, and then exported under another name while the node was away.
    Fenced,
    /// It was staged, and the kernel gave its connection up.
    Lost,
    /// It was published as a device before the machine started anew.
    Rebooted,
}

/// A call, or several.
type Calls = fn(&Case, &World, &Node);

fn name_of(case: &Case, world: &World) -> ManagedNqn {
    match case.was {
        Was::Fenced => {
            let nqn = format!("{}:e2", world.nqn).parse().unwrap();
            ManagedNqn::new(&world.volumes.prefix, nqn).unwrap()
        }
        Was::New | Was::Lost | Was::Rebooted => world.managed(),
    }
}

fn wanted(case: &Case, world: &World) -> stage::Wanted {
    let mut wanted = match case.usage {
        publish::Usage::Block => world.stage_as(stage::Usage::Block),
        publish::Usage::Filesystem(_) => {
            let fs = match case.holds {
                Holds::Filesystem(fs, _) | Holds::Damaged(fs, _) => fs,
                _ => FsType::Ext4,
            };
            let options = MountOptions::parse::<&str>(&[]).unwrap();
            world.stage_as(stage::Usage::Filesystem { fs, options })
        }
    };
    wanted.target.nqn = name_of(case, world);
    wanted
}

fn staging(case: &Case, world: &World, node: &Node) {
    stage::stage(node, &wanted(case, world)).unwrap();
}

fn publishing(case: &Case, world: &World, node: &Node) {
    let nqn = name_of(case, world).as_nqn().clone();
    publish::publish(node, &publish::Wanted { nqn, ..world.publish_as(case.usage) }).unwrap();
}

fn unpublishing(_: &Case, world: &World, node: &Node) {
    unpublish::unpublish(node, &world.unpublish()).unwrap();
}

fn unstaging(_: &Case, world: &World, node: &Node) {
    unstage::unstage(node, &world.unstage()).unwrap();
}

fn nothing(_: &Case, _: &World, _: &Node) {}

/// The world in which a case begins.
fn before(case: &Case) -> World {
    let world = world(case.holds.clone());
    let new = Case { was: Was::New, ..case.clone() };
    match case.was {
        Was::New => {}
        Was::Fenced => {
            staging(&new, &world, &world.volumes);
            publishing(&new, &world, &world.volumes);
            world.host.export(name_of(case, &world).as_nqn(), GIB, world.host.holds(&world.nqn));
            world.host.withdraw(&world.nqn);
        }
        Was::Lost => {
            staging(&new, &world, &world.volumes);
            world.host.give_up();
        }
        Was::Rebooted => {
            staging(&new, &world, &world.volumes);
            publishing(&new, &world, &world.volumes);
            world.host.reboot();
        }
    }
    world
}

fn cases() -> Vec<Case> {
    let case = |holds, usage| Case { holds, usage, was: Was::New };
    let ext4 = || Holds::Filesystem(FsType::Ext4, GIB);
    vec![
        case(Holds::Foreign("gpt"), publish::Usage::Block),
        case(Holds::Nothing, READ_WRITE),
        case(ext4(), READ_WRITE),
        case(ext4(), READ_ONLY),
        case(Holds::Unfinished, READ_WRITE),
        case(Holds::Damaged(FsType::Xfs, GIB), READ_WRITE),
        case(Holds::Filesystem(FsType::Xfs, Bytes::mib(512)), READ_WRITE),
        Case { was: Was::Fenced, ..case(ext4(), READ_WRITE) },
        Case { was: Was::Fenced, ..case(Holds::Foreign("gpt"), publish::Usage::Block) },
        Case { was: Was::Lost, ..case(ext4(), READ_WRITE) },
        Case { was: Was::Lost, ..case(Holds::Foreign("gpt"), publish::Usage::Block) },
        Case { was: Was::Rebooted, ..case(ext4(), READ_ONLY) },
        Case { was: Was::Rebooted, ..case(Holds::Foreign("gpt"), publish::Usage::Block) },
    ]
}

/// How a world looks, but for what is on the array's disks: a format that has begun is not taken back.
fn look(world: &World) -> (Vec<String>, Vec<Record>) {
    let mut picture = world.host.picture();
    picture.retain(|line| !line.contains(" holds "));
    (picture, world.volumes.records.list().unwrap().records)
}

/// After `first`, and with the program killed before each change that `cut` makes: `then` must lead to what `first` and
/// `expected` lead to without any of that.
fn survives(first: Calls, cut: Calls, accident: fn(&FakeHost), then: Calls, expected: Calls) {
    for case in cases() {
        let whole = before(&case);
        first(&case, &whole, &whole.volumes);
        let life = whole.host.life();
        life.end_after(usize::MAX);
        cut(&case, &whole, &whole.volumes);
        let changes = life.changes();

        let end = before(&case);
        first(&case, &end, &end.volumes);
        expected(&case, &end, &end.volumes);

        for change in 0..changes {
            let world = before(&case);
            first(&case, &world, &world.volumes);
            let life = world.host.life();
            life.end_after(change);
            let died = catch_unwind(AssertUnwindSafe(|| cut(&case, &world, &world.volumes))).is_err();
            assert!(died, "{case:?} lived through its change {change} of {changes}");
            life.begin_again();
            accident(&world.host);
            then(&case, &world, &world.volumes_again());
            assert_eq!(look(&world), look(&end), "{case:?}, cut before change {change} of {changes}");
        }
    }
}

fn no_accident(_: &FakeHost) {}

/// Both names that a volume ever had.
fn is_connected(world: &World) -> bool {
    !world.connected().is_empty()
}

fn all(case: &Case, world: &World, node: &Node) {
    staging(case, world, node);
    publishing(case, world, node);
}

fn none(case: &Case, world: &World, node: &Node) {
    unpublishing(case, world, node);
    unstaging(case, world, node);
    assert!(!is_connected(world) && world.is_clean(), "{case:?}: {:?}", world.everything());
}

fn staging_again(case: &Case, world: &World, node: &Node) {
    unpublishing(case, world, node);
    staging(case, world, node);
}

#[test]
fn a_stage_that_is_cut_anywhere_ends_where_it_should() {
    survives(nothing, staging, no_accident, staging, staging);
}

#[test]
fn a_publish_that_is_cut_anywhere_ends_where_it_should() {
    survives(staging, publishing, no_accident, publishing, publishing);
}

#[test]
fn an_unpublish_that_is_cut_anywhere_ends_where_it_should() {
    survives(all, unpublishing, no_accident, unpublishing, unpublishing);
}

#[test]
fn an_unstage_that_is_cut_anywhere_ends_where_it_should() {
    survives(staging_again, unstaging, no_accident, unstaging, unstaging);
}

#[test]
fn after_a_cut_the_opposite_call_leaves_nothing() {
    survives(nothing, staging, no_accident, none, none);
    survives(staging, publishing, no_accident, none, none);
    survives(all, unpublishing, no_accident, none, none);
    survives(staging_again, unstaging, no_accident, none, none);
}

#[test]
fn after_a_cut_kubelet_may_change_its_mind() {
    survives(all, unpublishing, no_accident, publishing, publishing);
    survives(staging_again, unstaging, no_accident, staging, staging);
}

#[test]
fn a_cut_and_a_reboot_are_made_good() {
    let reboot = FakeHost::reboot;
    survives(nothing, staging, reboot, all, all);
    survives(staging, publishing, reboot, all, all);
    survives(all, unpublishing, reboot, all, all);
    survives(staging_again, unstaging, reboot, all, all);
    survives(nothing, all, reboot, none, none);
    survives(all, none, reboot, none, none);
}

#[test]
fn a_cut_and_a_connection_that_is_given_up_are_made_good() {
    survives(nothing, staging, FakeHost::give_up, all, all);
    survives(staging, publishing, FakeHost::give_up, all, all);
    survives(nothing, all, FakeHost::give_up, none, none);
}
