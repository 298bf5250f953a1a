//! A simulated array, a controller before it, and what is asked of the two.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rds_csi_api::csi;
use rds_csi_api::csi::volume_capability::access_mode::Mode;
use rds_csi_api::csi::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use rds_csi_api::csi::volume_content_source::{SnapshotSource, Type, VolumeSource};
use rds_csi_integration::driver::{Controller, Settings};
use rds_csi_integration::simulator::{Options, Simulator, keys};
use tempfile::TempDir;
use tokio::net::TcpSocket;
use tonic::{Code, Status};

/// An array's address, and the files that open it.
pub(crate) struct Site {
    pub(crate) folder: TempDir,
    pub(crate) address: SocketAddr,
    pub(crate) key: PathBuf,
    pub(crate) known_hosts: PathBuf,
    /// Bound, and never listening: it keeps the port from everybody but an array that occupies the site, since both
    /// allow the address to be used again. Who calls before that is refused.
    _reserved: TcpSocket,
}

impl Site {
    /// The files without an array, and an address that nobody else gets.
    pub(crate) fn vacant() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key");
        keys::load_or_create(&key).unwrap();
        let known_hosts = folder.path().join("known_hosts");
        std::fs::write(&known_hosts, "").unwrap();
        let reserved = TcpSocket::new_v4().unwrap();
        reserved.set_reuseaddr(true).unwrap();
        reserved.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = reserved.local_addr().unwrap();
        Self { folder, address, key, known_hosts, _reserved: reserved }
    }

    /// Puts an array there, and notes its host key.
    pub(crate) async fn occupy(&self, change: impl FnOnce(&mut Options)) -> Simulator {
        let public = keys::load_or_create(&self.key).unwrap().public_key().to_openssh().unwrap();
        let mut options = Options::in_memory(&public).unwrap();
        options.listen = self.address;
        // The same host key at every start, as on the device.
        options.host_key = keys::load_or_create(&self.folder.path().join("host_key")).unwrap();
        change(&mut options);
        let simulator = Simulator::start(options).await.unwrap();
        std::fs::write(&self.known_hosts, simulator.known_hosts()).unwrap();
        simulator
    }
}

/// A simulator and where it is.
pub(crate) async fn simulator(change: impl FnOnce(&mut Options)) -> (Simulator, Site) {
    let site = Site::vacant();
    (site.occupy(change).await, site)
}

/// Nothing that belongs to a volume is on the array.
pub(crate) fn assert_bare(simulator: &Simulator) {
    let state = simulator.state().unwrap();
    assert!(
        state.disks.is_empty()
            && state.subvolumes.is_empty()
            && state.files.is_empty()
            && state.exports.is_empty(),
        "{state:#?}"
    );
}

/// A controller and its array.
pub(crate) struct World {
    pub(crate) simulator: Simulator,
    pub(crate) controller: Controller,
    pub(crate) site: Site,
}

impl World {
    /// With a fence by the list of admitted hosts, and without node agents.
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::at(Site::vacant(), change).await
    }

    /// With an array and a controller put there.
    pub(crate) async fn at(site: Site, change: impl FnOnce(&mut Settings)) -> Self {
        let simulator = site.occupy(|_| {}).await;
        let controller = controller(&site, change).await;
        is_connected(&controller).await;
        Self { simulator, controller, site }
    }

    /// The command lines that the array has received, but for the one that begins each connection.
    pub(crate) fn commands(&self) -> usize {
        self.simulator.commands().lines.iter().filter(|line| !line.line.contains("/system/resource")).count()
    }

    /// Waits until the array has received a command.
    pub(crate) async fn receives_a_command(&self) {
        let received = async {
            while self.commands() == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), received).await.expect("a command arrives");
    }

    /// Ends the controller, and starts another in its place.
    pub(crate) async fn restart(self) -> Self {
        self.restart_with("acl").await
    }

    /// The same, with that fence.
    pub(crate) async fn restart_with(self, fence: &'static str) -> Self {
        let Self { simulator, controller, site } = self;
        controller.stop().await.unwrap();
        let controller = self::controller(&site, |settings| settings.fence = fence).await;
        is_connected(&controller).await;
        Self { simulator, controller, site }
    }

    /// Ends everything, with volumes left on the array by the test's own doing.
    pub(crate) async fn end_with_leftovers(self) {
        self.controller.stop().await.unwrap();
        assert_no_ssh(&self.site);
        self.simulator.stop().await.unwrap();
    }

    /// Ends everything, and finds nothing left.
    pub(crate) async fn end(self) {
        assert_bare(&self.simulator);
        self.end_with_leftovers().await;
    }
}

/// What the admin server answers; where it listens stands in the log.
pub(crate) async fn admin(controller: &Controller, path: &str) -> (u16, String) {
    let log = controller.log();
    let address = log.rsplit_once("admin=").unwrap().1.split_whitespace().next().unwrap();
    let response = reqwest::get(format!("http://{address}{path}")).await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

/// Until it is connected to its array, so that a fault is for what comes after that.
async fn is_connected(controller: &Controller) {
    let connected = async {
        while admin(controller, "/readyz").await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), connected).await.expect("it connects");
}

/// Starts the program, against whatever is at the site.
pub(crate) async fn controller(site: &Site, change: impl FnOnce(&mut Settings)) -> Controller {
    controller_in(site, "controller", change).await
}

/// Starts another one, with a socket of its own.
pub(crate) async fn controller_beside(site: &Site, change: impl FnOnce(&mut Settings)) -> Controller {
    let controller = controller_in(site, "controller-2", change).await;
    is_connected(&controller).await;
    controller
}

async fn controller_in(site: &Site, folder: &str, change: impl FnOnce(&mut Settings)) -> Controller {
    let mut settings = Settings {
        array: site.address,
        key: site.key.clone(),
        known_hosts: site.known_hosts.clone(),
        portal: "10.77.0.1".into(),
        fence: "acl",
        agents: vec![],
        identity: None,
        otlp_endpoint: None,
        cluster: "rig",
        config: None,
        flags: vec![],
    };
    change(&mut settings);
    Controller::start(&site.folder.path().join(folder), &settings).await.unwrap()
}

/// Runs a line on the array as a person does who is logged in there.
pub(crate) async fn shell(site: &Site, line: &str) {
    let known_hosts = format!("UserKnownHostsFile={}", site.known_hosts.display());
    let output = tokio::process::Command::new("ssh")
        .args(["-F", "none", "-o", "BatchMode=yes", "-o", &known_hosts, "-i", site.key.to_str().unwrap()])
        .args(["-p", &site.address.port().to_string(), "admin@127.0.0.1", line])
        .output()
        .await
        .unwrap();
    assert!(output.stdout.is_empty() && output.status.success(), "{line}: {output:?}");
}

/// No ssh is left that used the site's key.
pub(crate) fn assert_no_ssh(site: &Site) {
    let key = site.key.to_str().unwrap();
    let left = std::fs::read_dir("/proc").unwrap().flatten().filter(|process| {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        Path::new("/proc/self").canonicalize().unwrap() != process.path()
            && String::from_utf8_lossy(&line).contains(key)
    });
    assert_eq!(left.count(), 0);
}

pub(crate) fn filesystem() -> csi::VolumeCapability {
    capability(AccessType::Mount(MountVolume::default()), Mode::SingleNodeWriter)
}

pub(crate) fn shared_filesystem() -> csi::VolumeCapability {
    capability(AccessType::Mount(MountVolume::default()), Mode::MultiNodeMultiWriter)
}

pub(crate) fn shared_block() -> csi::VolumeCapability {
    capability(AccessType::Block(BlockVolume {}), Mode::MultiNodeMultiWriter)
}

fn capability(access: AccessType, mode: Mode) -> csi::VolumeCapability {
    csi::VolumeCapability { access_type: Some(access), access_mode: Some(AccessMode { mode: mode.into() }) }
}

/// A claim for a filesystem of that size.
pub(crate) fn wanted(name: &str, size: i64) -> csi::CreateVolumeRequest {
    csi::CreateVolumeRequest {
        name: name.into(),
        capacity_range: Some(csi::CapacityRange { required_bytes: size, limit_bytes: 0 }),
        volume_capabilities: vec![filesystem()],
        ..csi::CreateVolumeRequest::default()
    }
}

/// What the sidecars call.
impl World {
    pub(crate) async fn create(&self, request: csi::CreateVolumeRequest) -> Result<csi::Volume, Status> {
        create(&self.controller, request).await
    }

    pub(crate) async fn delete(&self, id: &str) -> Result<(), Status> {
        let request = csi::DeleteVolumeRequest { volume_id: id.into(), ..Default::default() };
        self.controller.csi().delete_volume(request).await.map(drop)
    }

    pub(crate) async fn publish(
        &self,
        volume: &csi::Volume,
        node: &str,
        capability: csi::VolumeCapability,
    ) -> Result<csi::ControllerPublishVolumeResponse, Status> {
        let request = csi::ControllerPublishVolumeRequest {
            volume_id: volume.volume_id.clone(),
            node_id: node.into(),
            volume_capability: Some(capability),
            volume_context: volume.volume_context.clone(),
            ..Default::default()
        };
        Ok(self.controller.csi().controller_publish_volume(request).await?.into_inner())
    }

    pub(crate) async fn unpublish(&self, volume: &csi::Volume, node: &str) -> Result<(), Status> {
        let request = csi::ControllerUnpublishVolumeRequest {
            volume_id: volume.volume_id.clone(),
            node_id: node.into(),
            ..Default::default()
        };
        self.controller.csi().controller_unpublish_volume(request).await.map(drop)
    }
}

pub(crate) async fn create(
    controller: &Controller,
    request: csi::CreateVolumeRequest,
) -> Result<csi::Volume, Status> {
    Ok(controller.csi().create_volume(request).await?.into_inner().volume.unwrap())
}

/// The code of a refusal whose message says this.
#[track_caller]
pub(crate) fn assert_refused<T: std::fmt::Debug>(outcome: Result<T, Status>, code: Code, says: &str) {
    let status = outcome.unwrap_err();
    assert!(status.code() == code && status.message().contains(says), "{status:?} should say {says:?}");
}

/// What the resizer, the snapshotter and the health monitor call.
impl World {
    pub(crate) async fn expand(
        &self,
        id: &str,
        size: i64,
    ) -> Result<csi::ControllerExpandVolumeResponse, Status> {
        let request = csi::ControllerExpandVolumeRequest {
            volume_id: id.into(),
            capacity_range: Some(csi::CapacityRange { required_bytes: size, limit_bytes: 0 }),
            ..Default::default()
        };
        Ok(self.controller.csi().controller_expand_volume(request).await?.into_inner())
    }

    pub(crate) async fn modify(&self, id: &str, changes: &[(&str, &str)]) -> Result<(), Status> {
        let request = csi::ControllerModifyVolumeRequest {
            volume_id: id.into(),
            mutable_parameters: map(changes),
            ..Default::default()
        };
        self.controller.csi().controller_modify_volume(request).await.map(drop)
    }

    pub(crate) async fn snapshot(&self, name: &str, source: &str) -> Result<csi::Snapshot, Status> {
        let request = csi::CreateSnapshotRequest {
            name: name.into(),
            source_volume_id: source.into(),
            ..Default::default()
        };
        Ok(self.controller.csi().create_snapshot(request).await?.into_inner().snapshot.unwrap())
    }

    pub(crate) async fn delete_snapshot(&self, id: &str) -> Result<(), Status> {
        let request = csi::DeleteSnapshotRequest { snapshot_id: id.into(), ..Default::default() };
        self.controller.csi().delete_snapshot(request).await.map(drop)
    }

    pub(crate) async fn list_snapshots(
        &self,
        request: csi::ListSnapshotsRequest,
    ) -> Result<csi::ListSnapshotsResponse, Status> {
        Ok(self.controller.csi().list_snapshots(request).await?.into_inner())
    }

    pub(crate) async fn list_volumes(
        &self,
        max_entries: i32,
        starting_token: &str,
    ) -> Result<csi::ListVolumesResponse, Status> {
        let request = csi::ListVolumesRequest { max_entries, starting_token: starting_token.into() };
        Ok(self.controller.csi().list_volumes(request).await?.into_inner())
    }

    pub(crate) async fn get_volume(&self, id: &str) -> Result<csi::ControllerGetVolumeResponse, Status> {
        let request = csi::ControllerGetVolumeRequest { volume_id: id.into() };
        Ok(self.controller.csi().controller_get_volume(request).await?.into_inner())
    }
}

pub(crate) fn map(pairs: &[(&str, &str)]) -> std::collections::HashMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
}

/// A claim for a copy of a snapshot.
pub(crate) fn restored(name: &str, snapshot: &str, size: i64) -> csi::CreateVolumeRequest {
    copied(name, Type::Snapshot(SnapshotSource { snapshot_id: snapshot.into() }), size)
}

/// A claim for a copy of a volume.
pub(crate) fn cloned(name: &str, volume: &str, size: i64) -> csi::CreateVolumeRequest {
    copied(name, Type::Volume(VolumeSource { volume_id: volume.into() }), size)
}

fn copied(name: &str, source: Type, size: i64) -> csi::CreateVolumeRequest {
    let volume_content_source = Some(csi::VolumeContentSource { r#type: Some(source) });
    csi::CreateVolumeRequest { volume_content_source, ..wanted(name, size) }
}
