//! An array for each case, and all that may be asked of it.

use rds_csi_api::{Bytes, HostNqn, Nqn, VolumeId};
use rds_csi_controller::array::{Array, Content, Error, Export, IfOpen, Source, Wanted, WantedSnapshot};
use rds_csi_integration::simulator::Simulator;
use rds_csi_integration::simulator::backend::PoolPath;

use super::{Connected, PATIENT};
use crate::world::{self, Site};

/// Something that is asked of the array.
#[derive(Debug, Clone, Copy)]
pub(super) enum Act {
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
    DeleteSource,
    /// A volume as the Go driver makes them.
    MakeFlat,
    /// What it calls a snapshot.
    MakeHollow,
    DiscardHollow,
}

/// How large a copy of 1 GiB is to be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Size {
    AsItIs,
    Larger,
    LargerWithin,
    TooLarge,
}

/// In every line that has calls.
pub(super) const LINE: &str = ":onerror e in={";

/// What copies are made of.
pub(super) const SOURCES: &[Act] = &[Act::MakeSource, Act::Take];

const SOURCE: &str = "pvc-rsozmbw3bbm4xldlird4qe4j3y";
const NEW: &str = "pvc-ci7ekz7itmjnhjcwijtbif2aaa";
const FLAT: &str = "pvc-123e4567-e89b-12d3-a456-426614174000";
const HOLLOW: &str = "snap-123e4567-e89b-12d3-a456-426614174000-at-3a9f8c02d1";

pub(super) fn source() -> VolumeId {
    SOURCE.parse().unwrap()
}

pub(super) fn new() -> VolumeId {
    NEW.parse().unwrap()
}

fn hosts(names: &[&str]) -> Export {
    Export::to_hosts(names.iter().map(|name| HostNqn::of(&name.parse().unwrap())))
}

pub(super) fn copy(source: Source, size: Size) -> Wanted {
    let (least, most) = match size {
        Size::AsItIs => (None, None),
        Size::Larger => (Some(Bytes::new((1 << 30) + 4096)), None),
        Size::LargerWithin => (Some(Bytes::new((1 << 30) + 4096)), Some(Bytes::gib(2))),
        Size::TooLarge => (None, Some(Bytes::new((1 << 30) - 4096))),
    };
    Wanted { content: Content::CopyOf { source, least, most }, ..super::wanted(NEW) }
}

/// An array of its own for each cut.
pub(super) struct Bench {
    pub(super) simulator: Simulator,
    pub(super) site: Site,
}

impl Bench {
    pub(super) async fn after(before: &[Act]) -> Self {
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
    pub(super) async fn ask(&self, act: Act) -> Result<String, Error> {
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
                array.create(&super::wanted(SOURCE)).await?;
                let image = PoolPath::new(&format!("{SOURCE}/disk.img")).unwrap();
                self.simulator.write(&image, 7).unwrap();
                Ok(String::new())
            }
            Act::Create(names) => {
                array.create(&Wanted { export: hosts(names), ..super::wanted(NEW) }).await.map(told)
            }
            Act::CreateOpen => {
                array.create(&Wanted { export: Export::AnyHost, ..super::wanted(NEW) }).await.map(told)
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
            Act::Fence(before, after) => {
                let name = Nqn::of_volume(&new());
                array.fence(&new(), &name, &hosts(before), &hosts(after)).await.map(told)
            }
            Act::Take => {
                let now = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_764_000_007);
                let wanted = WantedSnapshot { id: "snap-s".parse().unwrap(), source: source(), now };
                array.take_snapshot(&wanted).await.map(told)
            }
            Act::Discard => array.delete_snapshot(&"snap-s".parse().unwrap()).await.map(told),
            Act::Delete => array.delete(&new(), IfOpen::GoOn).await.map(told),
            Act::DeleteSource => array.delete(&source(), IfOpen::GoOn).await.map(told),
            Act::DeleteFlat => array.delete(&FLAT.parse().unwrap(), IfOpen::GoOn).await.map(told),
            Act::MakeFlat => {
                world::shell(&self.site, "/file add name=storage-pool/metal-csi type=directory").await;
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
    pub(super) fn looks(&self) -> String {
        let state = self.simulator.state().unwrap();
        let subvolumes: Vec<_> =
            state.subvolumes.iter().map(|it| (&it.name, &it.access, &it.snapshot_of)).collect();
        let files: Vec<_> = state.files.iter().map(|file| (&file.path, &file.kind)).collect();
        format!("{:#?}", (&state.disks, subvolumes, files, &state.exports))
    }

    /// The names of all subvolumes.
    pub(super) fn subvolumes(&self) -> Vec<String> {
        self.simulator.state().unwrap().subvolumes.into_iter().map(|subvolume| subvolume.name).collect()
    }

    /// Removes all that any of this makes, and finds nothing left.
    pub(super) async fn leave_nothing(self) {
        let connected = Connected::to(&self.site, 1, PATIENT);
        for id in [new(), source(), FLAT.parse().unwrap()] {
            match connected.array.dismiss(&id, &Export::AnyHost, &Export::Off).await {
                Ok(_) | Err(Error::Missing(_)) => connected.array.delete(&id, IfOpen::Refuse).await.unwrap(),
                Err(error) => panic!("{error}"),
            }
        }
        for id in ["snap-s", HOLLOW] {
            connected.array.delete_snapshot(&id.parse().unwrap()).await.unwrap();
        }
        connected.close().await;
        let state = self.simulator.state().unwrap();
        assert!(
            state.disks.is_empty() && state.exports.is_empty() && state.subvolumes.is_empty(),
            "{state:#?}"
        );
        assert!(state.files.iter().all(|file| file.path.as_str() == "metal-csi"), "{state:#?}");
        self.simulator.stop().await.unwrap();
    }
}
