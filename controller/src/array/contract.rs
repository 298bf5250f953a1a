//! What every array must do, as one suite that the fake and RouterOS both pass, so that the fake cannot drift.
//!
//! It wants an array without volumes and with space for 4 TiB, and leaves it as it was. A broken clause panics.

mod copies;
mod growth;
mod holdings;
mod snapshots;

use rds_csi_api::{Bytes, HostNqn, NodeName, Nqn, VolumeId, VolumeName};

use super::{Array, Content, Digest, Error, Export, IfOpen, Label, Layout, Owner, Soundness, Volume, Wanted};

/// Sizes that something once rounded: to `1T`, to GiB, to a float, to nothing.
const SIZES: [Bytes; 4] = [
    Bytes::new(1_649_267_441_664),
    Bytes::new(1_073_741_824 + 4096),
    Bytes::new(16_777_216),
    Bytes::new(1_099_511_627_776 + 512),
];

/// All clauses, one after the other.
pub async fn every_clause(array: &impl Array) {
    a_volume_is_as_it_was_asked_for(array).await;
    a_repeated_create_gives_the_same_volume(array).await;
    a_create_that_differs_is_a_conflict_and_changes_nothing(array).await;
    how_to_connect_is_kept_until_it_is_modified(array).await;
    what_is_not_there_is_missing_and_deleted_already(array).await;
    who_may_connect_is_set_as_often_as_asked(array).await;
    a_fence_lets_in_those_it_names(array).await;
    a_fence_that_nobody_stays_behind_begins_an_epoch(array).await;
    nobody_joins_or_removes_what_a_stranger_is_let_into(array).await;
    nobody_shuts_out_whom_they_do_not_know(array).await;
    what_is_open_to_every_host_is_not_narrowed_unseen(array).await;
    no_host_is_nobody(array).await;
    growth::every_clause(array).await;
    snapshots::every_clause(array).await;
    copies::every_clause(array).await;
    holdings::every_clause(array).await;
}

fn id(name: &str) -> VolumeId {
    let name: VolumeName = name.parse().expect("the suite's names are valid");
    VolumeId::for_name(None, &name)
}

fn wanted(name: &str, size: Bytes) -> Wanted {
    let (id, content) = (id(name), Content::Empty(size));
    let (parameters, label) = (Digest::of([("kind", "contract")]), Label::default());
    Wanted { id, content, port: 4420, export: Export::Off, reconnect: None, parameters, label }
}

fn hosts(names: &[&str]) -> Export {
    Export::to_hosts(names.iter().map(|name| {
        let node: NodeName = name.parse().expect("the suite's nodes are valid");
        HostNqn::of(&node)
    }))
}

async fn made(array: &impl Array, wanted: &Wanted) -> Volume {
    array.create(wanted).await.expect("the volume is made")
}

async fn removed(array: &impl Array, id: &VolumeId) {
    array.dismiss(id, &Export::AnyHost, &Export::Off).await.expect("nobody is let in");
    array.delete(id, IfOpen::Refuse).await.expect("the volume is removed");
    assert_eq!(array.volume(id).await, Err(Error::Missing(id.clone())));
}

/// Size to the byte, NQN, port and export, and the same when it is asked for later.
async fn a_volume_is_as_it_was_asked_for(array: &impl Array) {
    for size in SIZES {
        for export in [Export::Off, Export::AnyHost, hosts(&["w1", "w2"])] {
            let wanted = Wanted { export: export.clone(), ..wanted("contract exact", size) };
            let expected = Volume {
                nqn: Nqn::of_volume(&wanted.id),
                id: wanted.id.clone(),
                size,
                port: 4420,
                export,
                source: None,
                reconnect: None,
                owner: Owner::ThisCluster,
                layout: Layout::Subvolume,
                soundness: Soundness::Sound,
            };
            assert_eq!(made(array, &wanted).await, expected);
            assert_eq!(array.volume(&wanted.id).await.as_ref(), Ok(&expected));
            removed(array, &wanted.id).await;
        }
    }
}

async fn a_repeated_create_gives_the_same_volume(array: &impl Array) {
    let wanted = wanted("contract repeat", Bytes::gib(1));
    let first = made(array, &wanted).await;
    assert_eq!(made(array, &wanted).await, first);
    // In use meanwhile: the repeat does not take the export back.
    let used = array.admit(&wanted.id, &hosts(&["w1"])).await.expect("it is exported");
    assert_eq!(made(array, &wanted).await, used);
    removed(array, &wanted.id).await;
}

async fn a_create_that_differs_is_a_conflict_and_changes_nothing(array: &impl Array) {
    let wanted = wanted("contract conflict", Bytes::gib(1));
    let first = made(array, &wanted).await;
    for other in [
        Wanted { content: Content::Empty(Bytes::gib(2)), ..wanted.clone() },
        Wanted { content: Content::Empty(Bytes::new((1 << 30) - 4096)), ..wanted.clone() },
        Wanted { port: 4421, ..wanted.clone() },
        Wanted { parameters: Digest::of([("kind", "other")]), ..wanted.clone() },
    ] {
        let refused = array.create(&other).await;
        assert!(matches!(refused, Err(Error::Conflict { .. })), "{refused:?}");
        assert_eq!(array.volume(&wanted.id).await.as_ref(), Ok(&first));
    }
    removed(array, &wanted.id).await;
}

/// The repeat of a create takes nothing back that was modified meanwhile.
async fn how_to_connect_is_kept_until_it_is_modified(array: &impl Array) {
    let policy = |text: &str| text.parse().expect("the suite's policies are valid");
    let wanted =
        Wanted { reconnect: Some(policy("600,5,30,20")), ..wanted("contract modify", Bytes::gib(1)) };
    assert_eq!(made(array, &wanted).await.reconnect, wanted.reconnect);
    let modified = array.modify(&wanted.id, &policy("-1,5,30,off")).await.expect("it is modified");
    assert_eq!(modified.reconnect, Some(policy("-1,5,30,off")));
    assert_eq!(made(array, &wanted).await, modified);
    assert_eq!(array.volume(&wanted.id).await, Ok(modified));
    removed(array, &wanted.id).await;
    assert_eq!(array.modify(&wanted.id, &policy("-1,5,30,off")).await, Err(Error::Missing(wanted.id)));
}

async fn what_is_not_there_is_missing_and_deleted_already(array: &impl Array) {
    let id = id("contract missing");
    let missing = Err(Error::Missing(id.clone()));
    assert_eq!(array.volume(&id).await, missing);
    assert_eq!(array.admit(&id, &Export::AnyHost).await, missing);
    assert_eq!(array.dismiss(&id, &Export::Off, &Export::Off).await, missing);
    assert_eq!(array.fence(&id, &Nqn::of_volume(&id), &Export::Off, &Export::Off).await, missing);
    assert_eq!(array.delete(&id, IfOpen::Refuse).await, Ok(()));
    assert_eq!(array.delete(&id, IfOpen::Refuse).await, Ok(()));
}

async fn who_may_connect_is_set_as_often_as_asked(array: &impl Array) {
    let wanted = wanted("contract admit", Bytes::gib(1));
    made(array, &wanted).await;
    for export in [
        hosts(&["w1"]),
        hosts(&["w1"]),
        hosts(&["w1", "w2"]),
        hosts(&["w2"]),
        Export::Off,
        Export::AnyHost,
        Export::Off,
    ] {
        let volume = array.dismiss(&wanted.id, &Export::AnyHost, &export).await.expect("it is set");
        assert_eq!(volume.export, export);
    }
    removed(array, &wanted.id).await;
}

/// Those who stay know the name that the volume has.
async fn a_fence_lets_in_those_it_names(array: &impl Array) {
    let wanted = Wanted { export: hosts(&["w1", "w2"]), ..wanted("contract fence", Bytes::gib(1)) };
    let Volume { id, nqn, .. } = made(array, &wanted).await;
    // Twice: a list that is narrowed already says nothing of connections.
    for _ in 0..2 {
        let volume = array.fence(&id, &nqn, &wanted.export, &hosts(&["w2"])).await.expect("it is fenced");
        assert_eq!((volume.export, &volume.nqn), (hosts(&["w2"]), &nqn));
    }
    removed(array, &id).await;
}

/// A name that was fenced is never used again, by any operation.
async fn a_fence_that_nobody_stays_behind_begins_an_epoch(array: &impl Array) {
    let (both, one) = (hosts(&["w1", "w2"]), hosts(&["w1"]));
    let wanted = wanted("contract epoch", Bytes::gib(1));
    let Volume { id, nqn: first, .. } = made(array, &wanted).await;
    let mut cut = first.clone();
    for before in [&both, &one, &Export::AnyHost, &Export::Off] {
        array.dismiss(&id, &Export::AnyHost, before).await.expect("they are let in");
        let fenced = array.fence(&id, &cut, before, &Export::Off).await.expect("it is fenced");
        assert_eq!((&fenced.export, Some(&fenced.nqn)), (&Export::Off, cut.next(&id).as_ref()));
        cut = fenced.nqn;
    }
    let now = array.admit(&id, &one).await.expect("it is exported");
    assert_eq!((&now.nqn, &now.export), (&cut, &one));
    // Whoever repeats a fence, with whatever it knew then, cuts off nobody who came since.
    for (name, before) in [(&first, &both), (&first, &Export::AnyHost), (&first, &hosts(&["w3"]))] {
        assert_eq!(array.fence(&id, name, before, &Export::Off).await.as_ref(), Ok(&now));
        assert_eq!(array.fence(&id, name, before, &hosts(&["w2"])).await.as_ref(), Ok(&now));
    }
    assert_eq!(made(array, &wanted).await, now);
    assert_eq!(array.volume(&id).await, Ok(now.clone()));
    let grown = array.expand(&id, Bytes::gib(2)).await.expect("it grows");
    let policy = "-1,5,30,off".parse().expect("the suite's policies are valid");
    let modified = array.modify(&id, &policy).await.expect("it is modified");
    assert_eq!([grown.nqn, modified.nqn], [cut.clone(), cut.clone()]);
    let listed = array.inventory().await.expect("it tells");
    assert!(listed.volumes.iter().any(|volume| volume.id == id && volume.nqn == cut), "{listed:?}");
    let other: Nqn = "nqn.2000-02.com.mikrotik:other".parse().expect("the suite's names are valid");
    let refused = array.fence(&id, &other, &one, &Export::Off).await;
    assert!(matches!(refused, Err(Error::Foreign { .. })), "{refused:?}");
    removed(array, &id).await;
}

/// What the array itself knows holds against every record: a program that lost its own lets no second writer in.
async fn nobody_joins_or_removes_what_a_stranger_is_let_into(array: &impl Array) {
    let wanted = Wanted { export: hosts(&["w1", "w2"]), ..wanted("contract strangers", Bytes::gib(1)) };
    let before = made(array, &wanted).await;
    let strangers = Error::Strangers(wanted.id.clone());
    for export in [hosts(&["w1"]), hosts(&["w3"]), hosts(&["w1", "w3"]), Export::Off] {
        assert_eq!(array.admit(&wanted.id, &export).await.as_ref(), Err(&strangers));
    }
    assert_eq!(array.delete(&wanted.id, IfOpen::GoOn).await.as_ref(), Err(&strangers));
    assert_eq!(array.volume(&wanted.id).await, Ok(before));
    for export in [hosts(&["w1", "w2"]), hosts(&["w1", "w2", "w3"])] {
        assert_eq!(array.admit(&wanted.id, &export).await.expect("nobody is a stranger").export, export);
    }
    removed(array, &wanted.id).await;
}

/// Whoever's record is wrong takes nothing from a host that it does not name.
async fn nobody_shuts_out_whom_they_do_not_know(array: &impl Array) {
    let wanted = Wanted { export: hosts(&["w1", "w2"]), ..wanted("contract unknown", Bytes::gib(1)) };
    let before = made(array, &wanted).await;
    let strangers = Err(Error::Strangers(wanted.id.clone()));
    for known in [hosts(&["w1"]), hosts(&["w1", "w3"]), Export::Off] {
        assert_eq!(array.dismiss(&wanted.id, &known, &Export::Off).await, strangers);
        assert_eq!(array.fence(&wanted.id, &before.nqn, &known, &hosts(&["w1"])).await, strangers);
        assert_eq!(array.fence(&wanted.id, &before.nqn, &known, &Export::Off).await, strangers);
    }
    assert_eq!(array.volume(&wanted.id).await.as_ref(), Ok(&before));
    let known = hosts(&["w1", "w2", "w3"]);
    for after in [hosts(&["w2", "w3"]), hosts(&["w3"])] {
        assert_eq!(array.dismiss(&wanted.id, &known, &after).await.expect("all are known").export, after);
    }
    assert_eq!(
        array.fence(&wanted.id, &before.nqn, &known, &Export::Off).await.expect("all are known").export,
        Export::Off
    );
    removed(array, &wanted.id).await;
}

/// Hosts that nobody can name may be connected; a list would leave them so.
async fn what_is_open_to_every_host_is_not_narrowed_unseen(array: &impl Array) {
    let wanted = Wanted { export: Export::AnyHost, ..wanted("contract open", Bytes::gib(1)) };
    let before = made(array, &wanted).await;
    for export in [hosts(&["w1"]), Export::Off] {
        assert_eq!(array.admit(&wanted.id, &export).await, Err(Error::Open(wanted.id.clone())));
    }
    assert_eq!(
        array.dismiss(&wanted.id, &hosts(&["w1"]), &hosts(&["w1"])).await,
        Err(Error::Open(wanted.id.clone()))
    );
    assert_eq!(array.delete(&wanted.id, IfOpen::Refuse).await, Err(Error::Open(wanted.id.clone())));
    assert_eq!(array.admit(&wanted.id, &Export::AnyHost).await, Ok(before));
    // Who is shut out altogether is shut out, whoever it is.
    let shut = array.dismiss(&wanted.id, &hosts(&["w1"]), &Export::Off).await;
    assert_eq!(shut.expect("nobody is let in").export, Export::Off);
    let opened = array.dismiss(&wanted.id, &Export::Off, &Export::AnyHost).await;
    assert_eq!(opened.expect("it is opened").export, Export::AnyHost);
    assert_eq!(array.delete(&wanted.id, IfOpen::GoOn).await, Ok(()));
    assert_eq!(array.volume(&wanted.id).await, Err(Error::Missing(wanted.id)));
}

async fn no_host_is_nobody(array: &impl Array) {
    let nobody = Export::Hosts([].into());
    let wanted = Wanted { export: nobody.clone(), ..wanted("contract nobody", Bytes::gib(1)) };
    let Volume { nqn, export, .. } = made(array, &wanted).await;
    assert_eq!(export, Export::Off);
    assert_eq!(array.admit(&wanted.id, &nobody).await.expect("it is set").export, Export::Off);
    assert_eq!(array.fence(&wanted.id, &nqn, &nobody, &nobody).await.expect("it is set").export, Export::Off);
    removed(array, &wanted.id).await;
}
