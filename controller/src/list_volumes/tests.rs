//! Listings of one array and of two, whole or not at all.

use std::collections::BTreeMap;
use std::time::SystemTime;

use rds_csi_api::{AccessMode, BackendName, Bytes, VolumeId};

use super::*;
use crate::array::Export;
use crate::array::fake::{FakeArray, Fault, wanted};
use crate::attachments::store::{InMemory, Revision, Stored};
use crate::attachments::{Attachment, Rights, Shape};
use crate::backends::fake::backend;

/// Whatever is asked first is followed by a detach from every node, which the arrays' answers do not show yet.
#[derive(Debug)]
struct DetachedMeanwhile(InMemory);

impl Store for DetachedMeanwhile {
    async fn load(&self, volume: &VolumeId) -> Result<Stored, store::Error> {
        self.0.load(volume).await
    }

    async fn list(&self) -> Result<BTreeMap<VolumeId, Record>, store::Error> {
        let records = self.0.list().await?;
        for id in records.keys() {
            let revision = self.load(id).await?.revision;
            self.replace(id, revision, Record::default()).await?;
        }
        Ok(records)
    }

    fn seen(&self) -> Option<BTreeMap<VolumeId, Record>> {
        self.0.seen()
    }

    async fn replace(
        &self,
        volume: &VolumeId,
        loaded: Revision,
        record: Record,
    ) -> Result<Revision, store::Error> {
        self.0.replace(volume, loaded, record).await
    }
}

struct World {
    backends: Backends<FakeArray>,
    store: InMemory,
}

impl World {
    /// The default array and another, each with volumes.
    async fn new() -> Self {
        let name: BackendName = "rack-2".parse().unwrap();
        let here = backend(None, FakeArray::new(Bytes::gib(10)));
        let there = backend(Some(name.clone()), FakeArray::new(Bytes::gib(10)));
        for id in ["pvc-b", "pvc-a", "nixos-var"] {
            here.array.create(&wanted(id, Bytes::gib(1))).await.unwrap();
        }
        there.array.create(&wanted("rack-2/pvc-c", Bytes::gib(1))).await.unwrap();
        Self { backends: Backends::only(here).with(name, there), store: InMemory::default() }
    }

    /// The node holds the volume, by the record and on the array.
    async fn attach(&self, id: &str, node: &str) {
        let id: VolumeId = id.parse().unwrap();
        let attachment = Attachment {
            shape: Shape::Filesystem,
            mode: AccessMode::SingleNodeWriter,
            rights: Rights::Write,
            since: SystemTime::UNIX_EPOCH,
        };
        let record = Record::default().with(node.parse().unwrap(), attachment);
        let array = &self.backends.of(id.backend().as_ref()).unwrap().array;
        array.admit(&id, &Export::to_hosts(record.hosts())).await.unwrap();
        self.store.replace(&id, Revision::default(), record).await.unwrap();
    }

    async fn list(&self, most: i32, token: &str) -> Result<Page<Told>, Error> {
        let prefix = "nqn.2000-02.com.mikrotik:pvc-".parse().unwrap();
        list_volumes(&self.backends, &self.store, &prefix, &Asked::parse(most, token).unwrap()).await
    }
}

fn told(page: &Page<Told>) -> Vec<(String, Vec<String>)> {
    let nodes = |listed: &Told| listed.holders.iter().map(ToString::to_string).collect();
    page.entries.iter().map(|listed| (listed.volume.id.to_string(), nodes(listed))).collect()
}

#[tokio::test]
async fn volumes_of_all_arrays_are_listed_with_their_holders_page_by_page() {
    let world = World::new().await;
    world.attach("pvc-b", "w1").await;
    world.attach("rack-2/pvc-c", "w2").await;
    let expected = [("pvc-a", None), ("pvc-b", Some("w1")), ("rack-2/pvc-c", Some("w2"))];
    let expected = expected.map(|(id, node)| (id.to_owned(), node.iter().map(ToString::to_string).collect()));
    let whole = world.list(0, "").await.unwrap();
    assert_eq!((told(&whole), &whole.next), (expected.to_vec(), &None));
    let first = world.list(2, "").await.unwrap();
    let second = world.list(2, &first.next.as_ref().unwrap().to_string()).await.unwrap();
    assert_eq!([told(&first), told(&second)].concat(), expected);
    assert_eq!(second.next, None);
}

#[tokio::test]
async fn one_array_that_is_down_is_an_error_and_no_shorter_list() {
    let world = World::new().await;
    let other = world.backends.of(Some(&"rack-2".parse().unwrap())).unwrap();
    other.array.fail_once(Fault::Before(array::Error::Unreachable { reason: "down".into() }));
    let refused = world.list(0, "").await.unwrap_err();
    assert!(refused.kind() == Kind::Unreachable && refused.to_string().contains("without it"), "{refused}");
    assert_eq!(world.list(0, "").await.unwrap().entries.len(), 3);
}

#[tokio::test]
async fn the_scratch_volume_of_a_doctor_is_not_listed_and_disturbs_nobody() {
    let world = World::new().await;
    let scratch: VolumeId = "pvc-doctor-00c0ffee-0123456789".parse().unwrap();
    let array = &world.backends.of(None).unwrap().array;
    array.create(&wanted(scratch.as_str(), Bytes::gib(1))).await.unwrap();
    let invented = "nqn.2014-08.org.nvmexpress:uuid:123e4567-e89b-12d3-a456-426614174000".parse().unwrap();
    array.admit(&scratch, &Export::to_hosts([invented])).await.unwrap();
    assert_eq!(world.list(0, "").await.unwrap().entries.len(), 3);
}

#[tokio::test]
async fn records_that_were_lost_are_an_error_and_no_list_of_nobody() {
    let mut world = World::new().await;
    world.attach("pvc-b", "w1").await;
    world.store = InMemory::default();
    let refused = world.list(0, "").await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Unreachable);
    assert!(refused.to_string().contains("volume pvc-b is not known"), "{refused}");
}

#[tokio::test]
async fn a_volume_that_every_host_may_reach_and_no_record_names_is_not_listed_as_nobody_s() {
    let world = World::new().await;
    let array = &world.backends.of(None).unwrap().array;
    let volume = array.volume(&"pvc-b".parse().unwrap()).await.unwrap();
    array.put(Volume { export: Export::AnyHost, ..volume.clone() });
    let refused = world.list(0, "").await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Unreachable);
    assert!(
        refused.to_string().contains("volume pvc-b is not known: the array lets every host in"),
        "{refused}"
    );
    array.put(Volume { export: Export::Off, ..volume });
    assert_eq!(world.list(0, "").await.unwrap().entries.len(), 3);
}

#[tokio::test]
async fn a_detach_meanwhile_is_no_error_and_its_node_is_not_listed() {
    let world = World::new().await;
    world.attach("pvc-b", "w1").await;
    let World { backends, store } = world;
    let prefix = "nqn.2000-02.com.mikrotik:pvc-".parse().unwrap();
    let all = Asked::parse(0, "").unwrap();
    let listed = list_volumes(&backends, &DetachedMeanwhile(store), &prefix, &all).await.unwrap();
    assert_eq!(told(&listed)[1], ("pvc-b".to_owned(), vec![]));
}

#[tokio::test]
async fn only_those_that_somebody_should_look_at_are_listed_as_unwell() {
    let world = World::new().await;
    let prefix = "nqn.2000-02.com.mikrotik:pvc-".parse().unwrap();
    let unwell = async || {
        let page = list_unwell(&world.backends, &world.store, &prefix, &Asked::parse(1, "").unwrap()).await;
        told(&page.unwrap())
    };
    assert_eq!(unwell().await, []);
    let array = &world.backends.of(None).unwrap().array;
    let volume = array.volume(&"pvc-b".parse().unwrap()).await.unwrap();
    array.put(Volume { soundness: array::Soundness::Damaged("no file".into()), ..volume });
    assert_eq!(unwell().await, [("pvc-b".to_owned(), vec![])]);
}
