//! A fence and its evidence, and what repeats leave alone.

use std::time::Duration;

use rds_csi_api::{Failure as _, HostNqn, Kind, Nqn};
use rds_csi_controller::array::{Array, Error, Export, Volume, Wanted};
use rds_csi_integration::simulator::{Dialect, Effect, Fault, Lists, Numbers, Simulator, Unset, Version};

use rds_csi_integration::simulator::backend::PoolPath;

use super::{Connected, PATIENT, wanted};
use crate::world;

fn hosts(names: &[&str]) -> Export {
    Export::to_hosts(names.iter().map(|name| HostNqn::of(&name.parse().unwrap())))
}

/// Something that writes to the volume without a pause, whoever is let in.
async fn writes_on(simulator: &Simulator) {
    let image = PoolPath::new("pvc-a/disk.img").unwrap();
    for content in 0.. {
        simulator.write(&image, content).unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_fence_counts_only_once_the_array_counts_no_more_writes() {
    let (simulator, site) = world::simulator(|_| {}).await;
    let connected = Connected::now_to(&site, 1, PATIENT).await;
    let array = &connected.array;
    let one = hosts(&["w1"]);
    let made = array.create(&Wanted { export: one.clone(), ..wanted("pvc-a") }).await.unwrap();
    let fence = |cut: Nqn| {
        let (id, one) = (&made.id, &one);
        async move { array.fence(id, &cut, one, &Export::Off).await }
    };
    let unproved = tokio::select! {
        outcome = fence(made.nqn.clone()) => outcome.unwrap_err(),
        () = writes_on(&simulator) => unreachable!("it writes for ever"),
    };
    assert!(matches!(&unproved, Error::Unproved { .. }) && unproved.kind() == Kind::Unsure, "{unproved}");
    assert!(unproved.to_string().contains("its write counters still move after 5 s"), "{unproved}");
    // Whoever writes, no host can any more; only that is not yet believed.
    let Volume { nqn, export, .. } = array.volume(&made.id).await.unwrap();
    assert_eq!((Some(&nqn), export), (made.nqn.next(&made.id).as_ref(), Export::Off));

    // A repeat looks again, whatever it takes the name for.
    let again = fence(made.nqn.clone()).await.unwrap();
    assert_eq!((&again.nqn, again.export), (&nqn, Export::Off));
    let later = fence(nqn.clone()).await.unwrap();
    assert_eq!(Some(later.nqn), nqn.next(&made.id));
    connected.close().await;
}

/// Nobody may count on writes of whoever stays to cease.
#[tokio::test]
async fn a_survivor_may_write_on_while_another_one_is_fenced() {
    let (simulator, site) = world::simulator(|_| {}).await;
    let connected = Connected::now_to(&site, 1, PATIENT).await;
    let both = hosts(&["w1", "w2"]);
    let made = connected.array.create(&Wanted { export: both.clone(), ..wanted("pvc-a") }).await.unwrap();
    let one = hosts(&["w2"]);
    let fenced = tokio::select! {
        outcome = connected.array.fence(&made.id, &made.nqn, &both, &one) => outcome.unwrap(),
        () = writes_on(&simulator) => unreachable!("it writes for ever"),
    };
    assert_eq!((fenced.nqn, fenced.export), (made.nqn, one));
    connected.close().await;
}

/// On the device to set a property may cut whoever is connected, also if it is set to what it is.
#[tokio::test]
async fn a_repeated_admission_sets_nothing_however_the_list_is_read() {
    for lists in [Lists::Text, Lists::Array] {
        let (simulator, site) = world::simulator(|options| {
            let (numbers, unset) = (Numbers::Integers, Unset::Absent);
            options.dialect = Dialect { version: Version::new(7, 21), numbers, unset, lists };
        })
        .await;
        let connected = Connected::now_to(&site, 1, PATIENT).await;
        let both = hosts(&["w1", "w2"]);
        let made = connected.array.create(&Wanted { export: both.clone(), ..wanted("pvc-a") }).await.unwrap();
        // Whatever changes something waits before it does.
        simulator.inject(Fault::new(Effect::PauseBefore { change: 1 }).containing("$admit "));
        assert_eq!(connected.array.admit(&made.id, &both).await.as_ref(), Ok(&made), "{lists:?}");
        let three = hosts(&["w1", "w2", "w3"]);
        tokio::select! {
            outcome = connected.array.admit(&made.id, &three) => panic!("nothing was set: {outcome:?}"),
            () = simulator.paused() => {}
        }
        simulator.clear_faults();
        connected.close().await;
    }
}
