//! What the verbs' tests begin with: a machine in memory, an array that exports one volume, and kubelet's wishes for it.

use std::path::Path;

use rds_csi_api::{Bytes, FsType, ManagedPrefix, Nqn, Portal, ReconnectPolicy, VolumeId};

use crate::host::fake::{FakeHost, Holds};
use crate::host::{KubeletDir, KubeletPath, ManagedNqn, MountOptions, Target};
use crate::reads::Reads;
use crate::repairs::Repairs;
use crate::volumes::{Records, Volumes};
use crate::{publish, stage, unpublish, unstage};

pub(crate) const GIB: Bytes = Bytes::gib(1);

/// A node, and the volume `pvc-a`.
pub(crate) struct World {
    pub(crate) host: FakeHost,
    pub(crate) volumes: Volumes<FakeHost>,
    pub(crate) volume: VolumeId,
    pub(crate) nqn: Nqn,
    state: tempfile::TempDir,
}

/// A world whose array exports `pvc-a`, 1 GiB.
pub(crate) fn world(holds: Holds) -> World {
    let state = tempfile::tempdir().unwrap();
    let host = FakeHost::new();
    let volume: VolumeId = "pvc-a".parse().unwrap();
    let nqn = Nqn::of_volume(&volume);
    host.export(&nqn, GIB, holds);
    let volumes = volumes(&host, state.path());
    World { host, volumes, volume, nqn, state }
}

fn volumes(host: &FakeHost, state: &Path) -> Volumes<FakeHost> {
    Volumes {
        host: host.clone(),
        records: Records::open(state).unwrap().living(host.life()),
        kubelet: KubeletDir::imagined("/var/lib/kubelet"),
        prefix: prefix(),
        reads: Reads::default(),
        repairs: Repairs::default(),
    }
}

fn prefix() -> ManagedPrefix {
    "nqn.2000-02.com.mikrotik:pvc-".parse().unwrap()
}

impl World {
    /// The same node once more, as an agent that was started again finds it.
    pub(crate) fn volumes_again(&self) -> Volumes<FakeHost> {
        volumes(&self.host, self.state.path())
    }

    /// Where the records are.
    pub(crate) fn state(&self) -> &Path {
        self.state.path()
    }

    pub(crate) fn path(&self, end: &str) -> KubeletPath {
        self.volumes.kubelet.beneath(&format!("/var/lib/kubelet/{end}")).unwrap()
    }

    pub(crate) fn staging(&self) -> KubeletPath {
        self.path("plugins/staging")
    }

    pub(crate) fn target(&self) -> KubeletPath {
        self.path("pods/p/target")
    }

    pub(crate) fn managed(&self) -> ManagedNqn {
        ManagedNqn::new(&prefix(), self.nqn.clone()).unwrap()
    }

    pub(crate) fn stage_as(&self, usage: stage::Usage) -> stage::Wanted {
        stage::Wanted {
            volume: self.volume.clone(),
            target: Target {
                nqn: self.managed(),
                portal: Portal::parse("10.77.0.1", None).unwrap(),
                reconnect: ReconnectPolicy::STANDARD,
            },
            size: GIB,
            usage,
            staging: self.staging(),
        }
    }

    pub(crate) fn stage_filesystem(&self) -> stage::Wanted {
        let options = MountOptions::parse::<&str>(&[]).unwrap();
        self.stage_as(stage::Usage::Filesystem { fs: FsType::Ext4, options })
    }

    pub(crate) fn publish_as(&self, usage: publish::Usage) -> publish::Wanted {
        publish::Wanted {
            volume: self.volume.clone(),
            nqn: self.nqn.clone(),
            portal: Portal::parse("10.77.0.1", None).unwrap(),
            staging: self.staging(),
            target: self.target(),
            usage,
            sharing: publish::Sharing::Shared,
            connection: None,
        }
    }

    pub(crate) fn unpublish(&self) -> unpublish::Wanted {
        unpublish::Wanted { volume: self.volume.clone(), target: self.target() }
    }

    pub(crate) fn unstage(&self) -> unstage::Wanted {
        unstage::Wanted { volume: self.volume.clone(), staging: self.staging() }
    }

    /// A record of that volume that cannot be read.
    pub(crate) fn damage_record(&self, volume: &str) {
        std::fs::write(self.state.path().join(format!("{volume}.json")), "damaged").unwrap();
    }

    /// What there is on the machine and in the records, to be compared.
    pub(crate) fn everything(&self) -> (crate::host::fake::World, Vec<crate::volumes::Record>) {
        (self.host.snapshot(), self.volumes.records.list().unwrap().records)
    }

    /// The subsystems of the volume that the kernel knows.
    pub(crate) fn connected(&self) -> Vec<ManagedNqn> {
        let own = self.volumes.records.read(&self.volume).unwrap();
        self.volumes.connections(&self.volume, own.as_ref()).unwrap().into_keys().collect()
    }

    /// Whether no trace of any volume is left on the node.
    pub(crate) fn is_clean(&self) -> bool {
        self.host.is_clean() && self.volumes.records.list().unwrap().records.is_empty()
    }
}
