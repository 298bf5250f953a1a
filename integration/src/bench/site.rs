//! A simulated array, the controller before it, and a plain ssh beside it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use openssh::{KnownHosts, SessionBuilder};
use rds_csi_api::csi;
use rds_csi_api::csi::controller_client::ControllerClient;
use rds_csi_api::csi::volume_content_source::{SnapshotSource, Type};
use tempfile::TempDir;
use tokio::time::Instant;
use tonic::Status;
use tonic::transport::Channel;

use crate::driver::{Controller, Settings, filesystem};
use crate::rig::USER;
use crate::simulator::{Fault, Options, Simulator, keys};

/// Sessions that the controller may use.
pub(super) const SESSIONS: usize = 10;

/// Bare commands that are timed.
const PROBES: usize = 15;

const GIB: i64 = 1 << 30;

pub(super) struct Site {
    simulator: Simulator,
    controller: Controller,
    client: ControllerClient<Channel>,
    key: PathBuf,
    known_hosts: PathBuf,
    _folder: TempDir,
}

impl Site {
    /// An array that takes so long for each command, and a controller that is connected to it.
    pub(super) async fn start(latency: Duration) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (key, known_hosts) = (folder.path().join("key"), folder.path().join("known_hosts"));
        let public = keys::load_or_create(&key)?.public_key().to_openssh()?;
        let simulator = Simulator::start(Options::in_memory(&public)?).await?;
        std::fs::write(&known_hosts, simulator.known_hosts())?;
        let settings = Settings {
            array: simulator.address(),
            key: key.clone(),
            known_hosts: known_hosts.clone(),
            portal: "10.77.0.1".into(),
            fence: "acl",
            agents: vec![],
            identity: None,
            otlp_endpoint: None,
            cluster: "bench",
            config: None,
            flags: vec![format!("--array-sessions={SESSIONS}")],
        };
        let controller = Controller::start(&folder.path().join("controller"), &settings).await?;
        let client = controller.csi();
        let site = Self { simulator, controller, client, key, known_hosts, _folder: folder };
        // The first call waits for the connection, which is not what is measured.
        let volume = site.create("first").await?;
        site.delete(&volume.volume_id).await?;
        if !latency.is_zero() {
            site.simulator.inject(Fault::latency(latency));
        }
        Ok(site)
    }

    /// What a bare command takes over ssh, in the median.
    pub(super) async fn command_time(&self) -> Result<Duration> {
        let session = SessionBuilder::default()
            .user(USER.into())
            .port(self.simulator.address().port())
            .keyfile(&self.key)
            .known_hosts_check(KnownHosts::Strict)
            .user_known_hosts_file(&self.known_hosts)
            .connect_mux(self.simulator.address().ip().to_string())
            .await?;
        let mut times = Vec::new();
        for _ in 0..PROBES {
            let begun = Instant::now();
            let output = session.raw_command(":put 1").output().await?;
            times.push(begun.elapsed());
            ensure!(output.stdout == b"1\r\n", "a bare command gave {output:?}");
        }
        session.close().await?;
        median(times).context("no command was timed")
    }

    /// Command lines so far.
    pub(super) fn lines(&self) -> usize {
        self.simulator.commands().lines.len()
    }

    /// Lines that were under way at once, at most.
    pub(super) fn most_at_once(&self) -> usize {
        self.simulator.commands().most_at_once
    }

    /// How often anything has arrived.
    pub(super) fn arrivals(&self) -> u64 {
        self.simulator.commands().arrivals
    }

    pub(super) async fn end(self) -> Result<()> {
        self.controller.stop().await?;
        let left = self.simulator.state()?;
        ensure!(left.disks.is_empty() && left.subvolumes.is_empty(), "something is left: {left:#?}");
        self.simulator.stop().await?;
        Ok(())
    }
}

/// What the sidecars call.
impl Site {
    pub(super) async fn create(&self, name: &str) -> Result<csi::Volume, Status> {
        self.create_from(name, GIB, None).await
    }

    pub(super) async fn restore(&self, snapshot: &csi::Snapshot) -> Result<csi::Volume, Status> {
        let snapshot_id = snapshot.snapshot_id.clone();
        let name = format!("restore-{snapshot_id}");
        let source = Type::Snapshot(SnapshotSource { snapshot_id });
        let source = csi::VolumeContentSource { r#type: Some(source) };
        self.create_from(&name, snapshot.size_bytes, Some(source)).await
    }

    async fn create_from(
        &self,
        name: &str,
        size: i64,
        volume_content_source: Option<csi::VolumeContentSource>,
    ) -> Result<csi::Volume, Status> {
        let request = csi::CreateVolumeRequest {
            name: name.into(),
            capacity_range: Some(csi::CapacityRange { required_bytes: size, limit_bytes: 0 }),
            volume_capabilities: vec![filesystem("ext4")],
            volume_content_source,
            ..Default::default()
        };
        let volume = self.client.clone().create_volume(request).await?.into_inner().volume;
        volume.ok_or_else(|| Status::internal("no volume in the answer"))
    }

    pub(super) async fn publish(&self, volume: &csi::Volume) -> Result<(), Status> {
        let request = csi::ControllerPublishVolumeRequest {
            volume_id: volume.volume_id.clone(),
            node_id: "w1".into(),
            volume_capability: Some(filesystem("ext4")),
            volume_context: volume.volume_context.clone(),
            ..Default::default()
        };
        self.client.clone().controller_publish_volume(request).await.map(drop)
    }

    pub(super) async fn unpublish(&self, volume: &csi::Volume) -> Result<(), Status> {
        let request = csi::ControllerUnpublishVolumeRequest {
            volume_id: volume.volume_id.clone(),
            node_id: "w1".into(),
            ..Default::default()
        };
        self.client.clone().controller_unpublish_volume(request).await.map(drop)
    }

    pub(super) async fn expand(&self, volume: &csi::Volume) -> Result<(), Status> {
        let request = csi::ControllerExpandVolumeRequest {
            volume_id: volume.volume_id.clone(),
            capacity_range: Some(csi::CapacityRange { required_bytes: 2 * GIB, limit_bytes: 0 }),
            volume_capability: Some(filesystem("ext4")),
            ..Default::default()
        };
        self.client.clone().controller_expand_volume(request).await.map(drop)
    }

    pub(super) async fn snapshot(&self, volume: &csi::Volume) -> Result<csi::Snapshot, Status> {
        let request = csi::CreateSnapshotRequest {
            source_volume_id: volume.volume_id.clone(),
            name: format!("snap-of-{}", volume.volume_id),
            ..Default::default()
        };
        let snapshot = self.client.clone().create_snapshot(request).await?.into_inner().snapshot;
        snapshot.ok_or_else(|| Status::internal("no snapshot in the answer"))
    }

    pub(super) async fn delete_snapshot(&self, snapshot: &csi::Snapshot) -> Result<(), Status> {
        let request =
            csi::DeleteSnapshotRequest { snapshot_id: snapshot.snapshot_id.clone(), ..Default::default() };
        self.client.clone().delete_snapshot(request).await.map(drop)
    }

    pub(super) async fn delete(&self, id: &str) -> Result<(), Status> {
        let request = csi::DeleteVolumeRequest { volume_id: id.into(), ..Default::default() };
        self.client.clone().delete_volume(request).await.map(drop)
    }
}

/// The one in the middle; none of none.
pub(super) fn median(mut times: Vec<Duration>) -> Option<Duration> {
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}
