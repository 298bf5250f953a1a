//! ControllerGetVolume: a volume, who holds it, and how it is.

use futures_util::future::join_all;
use rds_csi_api::{Failure, Kind, VolumeId};

use crate::array::{self, Array};
use crate::attachments::store::{self, Store};
use crate::backends::Backend;
use crate::condition;
use crate::holders::{Around, Told, Unrecorded, holders};
use crate::node_agents::Witness;

/// Why it is not told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nobody knows who holds it.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The record is not the whole truth.
    #[error(transparent)]
    Unrecorded(#[from] Unrecorded),
    /// The array did not say.
    #[error(transparent)]
    Array(#[from] array::Error),
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Unrecorded(error) => error.kind(),
            Self::Array(error) => error.kind(),
        }
    }
}

/// Asks the array, the record, and each node that holds the volume.
pub async fn get_volume(
    backend: &Backend<impl Array>,
    store: &impl Store,
    nodes: &impl Witness,
    id: VolumeId,
) -> Result<Told, Error> {
    let before = store.load(&id).await?.record;
    let volume = backend.array.volume(&id).await?;
    let after = store.load(&id).await?.record;
    let holders = holders(&volume, Around { before: &before, after: &after }, backend.fence)?;
    let links = holders.iter().map(async |node| (node.clone(), nodes.link(node, &id, &volume.nqn).await));
    let links = join_all(links).await;
    let condition = condition::judge(&volume.soundness, &links);
    Ok(Told { volume, holders, condition, topology: backend.topology.clone() })
}

#[cfg(test)]
mod tests {
    use rds_csi_api::{AccessMode, Bytes};

    use super::*;
    use crate::array::fake::{FakeArray, wanted};
    use crate::array::{Export, Soundness, Volume};
    use crate::attachments::store::{InMemory, Revision};
    use crate::attachments::{Attachment, Record, Rights, Shape};
    use crate::backends::fake::backend;
    use crate::condition::Condition;
    use crate::node_agents::Link;
    use crate::node_agents::fake::FakeNodes;

    struct World {
        backend: Backend<FakeArray>,
        store: InMemory,
        nodes: FakeNodes,
        id: VolumeId,
    }

    impl World {
        /// A volume that w1 holds.
        async fn new() -> Self {
            let backend = backend(None, FakeArray::new(Bytes::gib(10)));
            let store = InMemory::default();
            let wanted = wanted("pvc-a", Bytes::gib(1));
            backend.array.create(&wanted).await.unwrap();
            let attachment = Attachment {
                shape: Shape::Filesystem,
                mode: AccessMode::SingleNodeWriter,
                rights: Rights::Write,
                since: std::time::SystemTime::UNIX_EPOCH,
            };
            let record = Record::default().with("w1".parse().unwrap(), attachment);
            backend.array.admit(&wanted.id, &Export::to_hosts(record.hosts())).await.unwrap();
            store.replace(&wanted.id, Revision::default(), record).await.unwrap();
            Self { backend, store, nodes: FakeNodes::default(), id: wanted.id }
        }

        async fn get(&self) -> Result<Told, Error> {
            get_volume(&self.backend, &self.store, &self.nodes, self.id.clone()).await
        }
    }

    #[tokio::test]
    async fn a_volume_is_told_with_its_holders_and_what_they_say() {
        let world = World::new().await;
        let found = world.get().await.unwrap();
        assert_eq!(found.holders, ["w1".parse().unwrap()]);
        assert!(matches!(&found.condition, Condition::Normal(message) if message.contains("not known")));
        world.nodes.connected(&found.holders[0], Link::Broken);
        assert!(matches!(world.get().await.unwrap().condition, Condition::Abnormal(_)));
        world.nodes.connected(&found.holders[0], Link::Live);
        assert!(matches!(world.get().await.unwrap().condition, Condition::Normal(_)));
        world.backend.array.put(Volume { soundness: Soundness::Damaged("no file".into()), ..found.volume });
        assert!(matches!(world.get().await.unwrap().condition, Condition::Abnormal(_)));
    }

    #[tokio::test]
    async fn a_record_that_was_lost_is_not_taken_for_nobody() {
        let mut world = World::new().await;
        world.store = InMemory::default();
        let refused = world.get().await.unwrap_err();
        assert!(refused.kind() == Kind::Unreachable && refused.to_string().contains("no record names them"));
    }
}
