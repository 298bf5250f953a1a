//! All that the array holds, and how much more it may.

use super::snapshots::{discarded, taken};
use super::{Bytes, Content, Export, hosts, made, removed, wanted};
use crate::array::{Array, Inventory, Source, Wanted};

pub(super) async fn every_clause(array: &impl Array) {
    everything_is_listed_as_it_is(array).await;
    room_is_taken_and_given_back(array).await;
}

async fn everything_is_listed_as_it_is(array: &impl Array) {
    assert_eq!(array.inventory().await, Ok(Inventory::default()));
    let one = Wanted { export: hosts(&["w1", "w2"]), ..wanted("contract one", Bytes::new(16_777_216)) };
    let two = Wanted { export: Export::AnyHost, ..wanted("contract two", Bytes::gib(1)) };
    let mut volumes = vec![made(array, &one).await, made(array, &two).await];
    let snapshots = vec![taken(array, "contract listed", &one.id).await];
    let source = Source::Snapshot(snapshots[0].id.clone());
    let content = Content::CopyOf { source, least: Some(Bytes::gib(3)), most: None };
    let copy = Wanted { content, ..wanted("contract copy", Bytes::gib(3)) };
    volumes.push(made(array, &copy).await);
    volumes.sort_by(|a, b| a.id.cmp(&b.id));
    let inventory = array.inventory().await.expect("it is listed");
    assert_eq!(inventory, Inventory { volumes, snapshots, strays: vec![] });
    discarded(array, &inventory.snapshots[0].id).await;
    for wanted in [one, two, copy] {
        removed(array, &wanted.id).await;
    }
    assert_eq!(array.inventory().await, Ok(Inventory::default()));
}

async fn room_is_taken_and_given_back(array: &impl Array) {
    let before = array.capacity().await.expect("it is told");
    assert!(before.free <= before.size);
    let wanted = wanted("contract room", Bytes::gib(1));
    made(array, &wanted).await;
    let meanwhile = array.capacity().await.expect("it is told");
    assert!(meanwhile.size == before.size && meanwhile.free <= before.free);
    removed(array, &wanted.id).await;
    assert_eq!(array.capacity().await, Ok(before));
}
