//! RouterOS behind the `Array` trait, over the system's ssh: the contract, and what happens when the line is bad.

mod bench;
mod cuts;
mod fences;
mod found;
mod interleaved;
mod races;
mod smuggling;

use std::num::NonZeroUsize;
use std::time::Duration;

use futures_util::future::select_all;
use rds_csi_api::{Bytes, Nqn, VolumeId};
use rds_csi_controller::array::routeros::{Destination, RouterOs, Settings};
use rds_csi_controller::array::{Array, Content, Digest, Error, Export, IfOpen, Label, Wanted, contract};
use rds_csi_integration::simulator::{Dialect, Effect, Fault, Lists, Numbers, Storage, Unset, Version};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::world::{self, Site};

/// An array that is connected until this is closed.
struct Connected {
    array: RouterOs,
    keeper: JoinHandle<()>,
    end: CancellationToken,
}

impl Connected {
    fn to(site: &Site, sessions: usize, command_timeout: Duration) -> Self {
        let destination = Destination {
            host: site.address.ip().to_string(),
            port: site.address.port(),
            user: "rds-csi".into(),
            key: site.key.clone(),
            known_hosts: site.known_hosts.clone(),
        };
        let settings = Settings {
            destination,
            sessions: NonZeroUsize::new(sessions).unwrap(),
            line_limit: 2048,
            connect_timeout: Duration::from_secs(10),
            command_timeout,
            keep_alive: Duration::from_secs(1),
        };
        let (array, keeper) =
            RouterOs::new(settings, "storage-pool".parse().unwrap(), "blue".parse().unwrap(), None);
        let end = CancellationToken::new();
        let keeper = tokio::spawn(keeper.run(end.clone()));
        Self { array, keeper, end }
    }

    /// The same, once it is connected, so that a fault is for what comes after that.
    async fn now_to(site: &Site, sessions: usize, command_timeout: Duration) -> Self {
        let connected = Self::to(site, sessions, command_timeout);
        let none = connected.array.volume(&"pvc-none".parse().unwrap()).await;
        assert_eq!(none, Err(Error::Missing("pvc-none".parse().unwrap())));
        connected
    }

    async fn close(self) {
        self.end.cancel();
        self.keeper.await.unwrap();
    }
}

const PATIENT: Duration = Duration::from_secs(20);

fn wanted(id: &str) -> Wanted {
    Wanted {
        id: id.parse().unwrap(),
        content: Content::Empty(Bytes::gib(1)),
        port: 4420,
        export: Export::Off,
        reconnect: None,
        parameters: Digest::of([]),
        label: Label::default(),
    }
}

#[tokio::test]
async fn routeros_keeps_the_contract_in_every_dialect() {
    for (numbers, unset, lists) in [
        (Numbers::Floats, Unset::Absent, Lists::Text),
        (Numbers::Integers, Unset::Empty, Lists::Text),
        (Numbers::Texts, Unset::Absent, Lists::Array),
        (Numbers::Texts, Unset::Empty, Lists::Array),
    ] {
        let (simulator, site) = world::simulator(|options| {
            options.storage = Storage::Memory { pool_size: 8 << 40 };
            options.dialect = Dialect { version: Version::new(7, 21), numbers, unset, lists };
        })
        .await;
        let connected = Connected::to(&site, 4, PATIENT);
        contract::every_clause(&connected.array).await;
        connected.close().await;
        world::assert_bare(&simulator);
        simulator.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_silent_array_costs_one_command_its_deadline_and_nobody_else_anything() {
    let (simulator, site) = world::simulator(|_| {}).await;
    let connected = Connected::to(&site, 4, Duration::from_secs(2));
    connected.array.create(&wanted("pvc-a")).await.unwrap();
    let slow = Fault::latency(Duration::from_mins(1)).times(1).containing("pvc-slow");
    simulator.inject(slow);
    let late = connected.array.create(&wanted("pvc-slow")).await;
    assert_eq!(late, Err(Error::Late { after: Duration::from_secs(2) }));
    // The line that swallowed a command is given up; the next command goes over another.
    connected.array.create(&wanted("pvc-b")).await.unwrap();
    assert_eq!(simulator.commands().connections, 2);
    connected.close().await;
}

#[tokio::test]
async fn no_more_commands_run_at_once_than_allowed_and_what_waits_goes_together() {
    let (simulator, site) = world::simulator(|options| options.max_sessions = 2).await;
    let connected = Connected::now_to(&site, 2, PATIENT).await;
    let before = simulator.commands().lines.len();
    simulator.inject(Fault::latency(Duration::from_millis(200)));
    let created = (0..8).map(|n| {
        let array = connected.array.clone();
        let wanted = wanted(&format!("pvc-{n}"));
        tokio::spawn(async move { array.create(&wanted).await })
    });
    for create in created.collect::<Vec<_>>() {
        create.await.unwrap().unwrap();
    }
    let commands = simulator.commands();
    assert_eq!((commands.refused, commands.most_at_once), (0, 2));
    assert_eq!(simulator.state().unwrap().disks.len(), 8);
    assert!(commands.lines.len() - before < 8, "{:#?}", commands.lines);
    connected.close().await;
}

#[tokio::test]
async fn what_hangs_holds_one_session_however_often_it_is_repeated() {
    let (simulator, site) = world::simulator(|_| {}).await;
    let connected = Connected::now_to(&site, 2, Duration::from_secs(2)).await;
    simulator.inject(Fault::new(Effect::Hold).containing("pvc-slow"));
    let (slow, other) = (wanted("pvc-slow"), wanted("pvc-b"));
    // An answer to another one, that comes later, shows that the connection is alive.
    let another = async {
        while !simulator.commands().lines.iter().any(|sent| sent.line.contains("pvc-slow")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        connected.array.create(&other).await
    };
    let (late, created) = tokio::join!(connected.array.create(&slow), another);
    created.unwrap();
    assert_eq!(late, Err(Error::Late { after: Duration::from_secs(2) }));
    let lines = simulator.commands().lines.len();
    let again = connected.array.create(&slow).await;
    assert!(matches!(&again, Err(Error::Unreachable { reason }) if reason.contains("pvc-slow")), "{again:?}");
    assert_eq!(simulator.commands().lines.len(), lines, "it is not sent again");
    connected.array.delete(&other.id, IfOpen::Refuse).await.unwrap();
    assert_eq!(simulator.commands().connections, 1);
    simulator.clear_faults();
    connected.array.create(&slow).await.unwrap();
    assert_eq!(simulator.state().unwrap().disks.len(), 1);
    connected.close().await;
}

#[tokio::test]
async fn keepalives_without_an_answer_end_no_connection() {
    let (simulator, site) = world::simulator(|_| {}).await;
    let connected = Connected::now_to(&site, 2, PATIENT).await;
    simulator.inject(Fault::new(Effect::Silence));
    // One is sent every second. Left to itself, ssh hangs up after the third.
    tokio::time::sleep(Duration::from_secs(5)).await;
    simulator.clear_faults();
    connected.array.create(&wanted("pvc-a")).await.unwrap();
    assert_eq!(simulator.commands().connections, 1);
    connected.close().await;
}

#[tokio::test]
async fn an_array_without_a_free_session_has_done_nothing() {
    let (simulator, site) = world::simulator(|options| options.max_sessions = 1).await;
    let connected = Connected::now_to(&site, 4, PATIENT).await;
    simulator.inject(Fault::new(Effect::Hold).times(1));
    let (first, second) = (wanted("pvc-a"), wanted("pvc-b"));
    // Whichever comes first is held, and the other one finds no room.
    let creates = [&first, &second].map(|wanted| Box::pin(connected.array.create(wanted)));
    let (refused, _, held) = select_all(creates).await;
    let refused = refused.unwrap_err();
    assert!(matches!(&refused, Error::Unreachable { reason } if reason.contains("no session")), "{refused}");
    assert!(simulator.state().unwrap().disks.is_empty());
    simulator.clear_faults();
    for create in held {
        create.await.unwrap();
    }
    assert_eq!(simulator.state().unwrap().disks.len(), 1);
    connected.close().await;
}

#[tokio::test]
async fn volumes_of_the_go_driver_are_served_and_removed_with_their_files() {
    let (simulator, site) = world::simulator(|_| {}).await;
    let connected = Connected::to(&site, 4, PATIENT);
    let id: VolumeId = "pvc-123e4567-e89b-12d3-a456-426614174000".parse().unwrap();
    world::shell(&site, "/file add name=storage-pool/metal-csi type=directory").await;
    world::shell(
        &site,
        &format!(
            "/disk add type=file file-path=\"/storage-pool/metal-csi/{id}.img\" file-size=1G slot={id} \
             nvme-tcp-export=yes nvme-tcp-server-port=4420 nvme-tcp-server-nqn=nqn.2000-02.com.mikrotik:{id}"
        ),
    )
    .await;
    let volume = connected.array.volume(&id).await.unwrap();
    assert_eq!((volume.size, volume.export), (Bytes::gib(1), Export::AnyHost));
    // That driver let every host in, so who is connected is not known.
    let open = connected.array.admit(&id, &Export::Off).await;
    assert_eq!(open, Err(Error::Open(id.clone())));
    let off = connected.array.dismiss(&id, &Export::AnyHost, &Export::Off).await;
    assert_eq!(off.unwrap().export, Export::Off);
    connected.array.delete(&id, IfOpen::Refuse).await.unwrap();
    let state = simulator.state().unwrap();
    assert!(state.disks.is_empty() && !format!("{:?}", state.files).contains(".img"), "{state:?}");
    connected.close().await;
}

#[tokio::test]
async fn what_another_cluster_or_a_person_made_is_neither_changed_nor_removed() {
    let (simulator, site) = world::simulator(|_| {}).await;
    let connected = Connected::to(&site, 4, PATIENT);
    let id: VolumeId = "pvc-a".parse().unwrap();
    let add = "/disk add type=file file-path=/storage-pool/pvc-a/disk.img file-size=1G slot=pvc-a";
    for change in [
        "nvme-tcp-server-nqn=nqn.2000-02.com.mikrotik:pvc-a comment=\"rds-csi:bluest pv=pvc-1\"",
        "nvme-tcp-server-nqn=nqn.2000-02.com.mikrotik:nixos-var",
    ] {
        world::shell(&site, "/disk/btrfs/subvolume add fs=storage-pool name=pvc-a").await;
        world::shell(&site, &format!("{add} {change}")).await;
        let before = simulator.state().unwrap().disks;
        for refused in [
            connected.array.delete(&id, IfOpen::Refuse).await.err(),
            connected.array.admit(&id, &Export::AnyHost).await.err(),
            connected.array.fence(&id, &Nqn::of_volume(&id), &Export::Off, &Export::Off).await.err(),
        ] {
            assert!(matches!(refused, Some(Error::Foreign { .. })), "{change}: {refused:?}");
        }
        assert!(matches!(connected.array.create(&wanted("pvc-a")).await, Err(Error::Conflict { .. })));
        assert_eq!(simulator.state().unwrap().disks, before);
        world::shell(&site, "/disk remove [find slot=pvc-a]").await;
        // The image of the disk that was: its data may be wanted, so it is not used again.
        let leftover = connected.array.create(&wanted("pvc-a")).await;
        assert!(matches!(leftover, Err(Error::Leftover { .. })), "{leftover:?}");
        world::shell(&site, "/disk/btrfs/subvolume remove [find name=pvc-a]").await;
    }
    connected.close().await;
}
