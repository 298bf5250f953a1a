//! Volumes that grow, and that are connected to in another way from now on.

use super::{Bytes, Error, Export, hosts, id, made, removed, wanted};
use crate::array::Array;

pub(super) async fn every_clause(array: &impl Array) {
    a_volume_grows_to_the_byte_and_never_shrinks(array).await;
    a_policy_is_noted_and_nothing_else_changes(array).await;
    what_is_not_there_does_not_change(array).await;
}

async fn a_volume_grows_to_the_byte_and_never_shrinks(array: &impl Array) {
    let wanted = wanted("contract grow", Bytes::gib(1));
    let mut expected = made(array, &wanted).await;
    let odd = Bytes::new((1 << 40) + 4096);
    for (to, then) in [(Bytes::gib(1), Bytes::gib(1)), (odd, odd), (odd, odd), (Bytes::gib(2), odd)] {
        expected.size = then;
        assert_eq!(array.expand(&wanted.id, to).await.as_ref(), Ok(&expected));
        assert_eq!(array.volume(&wanted.id).await.as_ref(), Ok(&expected));
    }
    // Who is connected stays so.
    let used = array.admit(&wanted.id, &hosts(&["w1"])).await.expect("it is exported");
    let grown = array.expand(&wanted.id, Bytes::new((1 << 40) + 8192)).await.expect("it grows in use");
    assert_eq!(grown.export, used.export);
    removed(array, &wanted.id).await;
}

async fn a_policy_is_noted_and_nothing_else_changes(array: &impl Array) {
    let wanted = wanted("contract modify", Bytes::gib(1));
    let mut expected = made(array, &wanted).await;
    for policy in ["600,2,5,off", "600,2,5,off", "-1,10,5,off", "30,1,5,20"] {
        let policy = policy.parse().expect("the suite's policies are valid");
        expected.reconnect = Some(policy);
        assert_eq!(array.modify(&wanted.id, &policy).await.as_ref(), Ok(&expected));
        assert_eq!(array.volume(&wanted.id).await.as_ref(), Ok(&expected));
    }
    // What it was asked for with is still known.
    assert_eq!(made(array, &wanted).await, expected);
    removed(array, &wanted.id).await;
}

async fn what_is_not_there_does_not_change(array: &impl Array) {
    let id = id("contract missing");
    let policy = "600,2,5,off".parse().expect("the suite's policies are valid");
    assert_eq!(array.expand(&id, Bytes::gib(1)).await, Err(Error::Missing(id.clone())));
    assert_eq!(array.modify(&id, &policy).await, Err(Error::Missing(id.clone())));
    assert_eq!(array.admit(&id, &Export::Off).await, Err(Error::Missing(id.clone())));
}
