//! The controller as a process on this machine: the binary that users run, with the flags that they would give it.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rds_csi_api::csi;
use rds_csi_api::csi::controller_client::ControllerClient;
use rds_csi_api::csi::identity_client::IdentityClient;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use super::Volume;
use crate::certificates::Identity;
use crate::programs;
use crate::rig::{MANAGED_NQN_PREFIX, PORTAL, Rig, USER};

/// How long a controller may take to its first answer, on a machine that does ten things at once.
const START: Duration = Duration::from_secs(30);

/// Longer than the grace that it gives to running calls.
const END: Duration = Duration::from_secs(45);

/// What the controller is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the array's SSH server listens.
    pub array: SocketAddr,
    /// The private key that opens it.
    pub key: PathBuf,
    /// The host keys that are trusted.
    pub known_hosts: PathBuf,
    /// The address that nodes connect to.
    pub portal: String,
    /// `none`, `acl` or `epoch`.
    pub fence: &'static str,
    /// Nodes and where their agents answer.
    pub agents: Vec<(String, SocketAddr)>,
    /// Who the controller is to the agents.
    pub identity: Option<Identity>,
    /// Where to send spans.
    pub otlp_endpoint: Option<String>,
    /// Whose volumes are the controller's.
    pub cluster: &'static str,
    /// A file of arrays, instead of the one above.
    pub config: Option<PathBuf>,
    /// What else stands on its command line.
    pub flags: Vec<String>,
}

impl Settings {
    /// What a controller of a rig is told.
    pub fn of(rig: &Rig, identity: &Identity) -> Self {
        let agents = rig.workers().iter().map(|worker| (worker.name().to_owned(), worker.api_address()));
        Self {
            array: rig.array().ssh(),
            key: rig.array().key(),
            known_hosts: rig.array().known_hosts(),
            portal: PORTAL.into(),
            fence: "acl",
            agents: agents.collect(),
            identity: Some(identity.clone()),
            otlp_endpoint: None,
            cluster: "rig",
            config: None,
            flags: Vec::new(),
        }
    }
}

/// A running controller; it is killed when this is dropped.
#[derive(Debug)]
pub struct Controller {
    child: Child,
    folder: PathBuf,
}

impl Controller {
    /// Starts it with its socket and its log in that folder, and waits until it serves.
    pub async fn start(folder: &Path, settings: &Settings) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let log = File::options().create(true).append(true).open(folder.join("log"))?;
        let child = Command::new(programs::path("rds-csi-controller")?)
            .args(arguments(folder, settings))
            // ssh's control sockets live there, and go with the folder even if the controller is killed.
            .env("TMPDIR", folder)
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        let mut controller = Self { child, folder: folder.into() };
        controller.serves().await?;
        Ok(controller)
    }

    /// A client of its CSI socket, as the sidecars are.
    pub fn csi(&self) -> ControllerClient<Channel> {
        ControllerClient::new(self.channel())
    }

    /// A client of its Identity service.
    pub fn identity(&self) -> IdentityClient<Channel> {
        IdentityClient::new(self.channel())
    }

    /// Its CSI socket, as a gRPC endpoint.
    pub fn endpoint(&self) -> String {
        format!("unix:{}", self.socket().display())
    }

    /// Its CSI socket.
    pub fn socket(&self) -> PathBuf {
        socket(&self.folder)
    }

    /// Creates a volume, as the provisioner does for a claim.
    pub async fn create(&self, request: csi::CreateVolumeRequest) -> Result<Volume, Status> {
        let capability = request.volume_capabilities.first().cloned().unwrap_or_default();
        let size = request.capacity_range.map_or(0, |range| range.required_bytes);
        let created = self.csi().create_volume(request).await?.into_inner();
        let volume =
            created.volume.ok_or_else(|| Status::internal("CreateVolume answered without a volume"))?;
        Ok(Volume {
            id: volume.volume_id,
            size: u64::try_from(size).unwrap_or_default(),
            context: volume.volume_context,
            capability,
        })
    }

    /// Deletes a volume.
    pub async fn delete(&self, volume: &Volume) -> Result<(), Status> {
        let request = csi::DeleteVolumeRequest { volume_id: volume.id.clone(), ..Default::default() };
        self.csi().delete_volume(request).await.map(drop)
    }

    /// How much of its memory is resident, in kB.
    pub fn resident(&self) -> Result<u64> {
        let pid = self.child.id().context("the controller has ended")?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        Ok(line.context("its status says nothing of memory")?.trim().trim_end_matches(" kB").parse()?)
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Asks it to end, and checks that it does so with status 0.
    pub async fn stop(mut self) -> Result<()> {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
        kill_process(pid.context("the controller ended before it was asked to")?, Signal::TERM)?;
        let status =
            tokio::time::timeout(END, self.child.wait()).await.context("the controller does not end")??;
        ensure!(status.success(), "the controller ended with {status}:\n{}", self.log());
        Ok(())
    }

    async fn serves(&mut self) -> Result<()> {
        let deadline = tokio::time::Instant::now() + START;
        while self.identity().probe(csi::ProbeRequest {}).await.is_err() {
            let ended = self.child.try_wait()?;
            if ended.is_some() || tokio::time::Instant::now() > deadline {
                bail!("the controller does not serve ({ended:?}):\n{}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    fn channel(&self) -> Channel {
        Endpoint::from_shared(self.endpoint())
            .expect("the path of a temporary folder is a URI")
            .connect_lazy()
    }
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("csi.sock")
}

fn arguments(folder: &Path, settings: &Settings) -> Vec<String> {
    let Settings {
        array,
        key,
        known_hosts,
        portal,
        fence,
        agents,
        identity,
        otlp_endpoint,
        cluster,
        config,
        flags,
    } = settings;
    let path = |path: &Path| path.display().to_string();
    let mut arguments = vec![
        ("--csi-socket", path(&socket(folder))),
        ("--cluster-id", (*cluster).into()),
        ("--managed-nqn-prefix", MANAGED_NQN_PREFIX.into()),
        ("--admin-listen", "127.0.0.1:0".into()),
    ];
    arguments.extend(match config {
        Some(config) => vec![("--config", path(config))],
        None => vec![
            ("--array-address", array.ip().to_string()),
            ("--array-port", array.port().to_string()),
            ("--array-user", USER.into()),
            ("--array-key", path(key)),
            ("--array-known-hosts", path(known_hosts)),
            ("--pool", "storage-pool".into()),
            ("--nvme-address", portal.clone()),
            ("--fence", (*fence).into()),
        ],
    });
    arguments.extend(agents.iter().map(|(node, address)| ("--node-agent", format!("{node}={address}"))));
    if let Some(Identity { authority, certificate, key }) = identity {
        arguments.push(("--agent-ca", path(authority)));
        arguments.push(("--agent-cert", path(certificate)));
        arguments.push(("--agent-key", path(key)));
    }
    arguments.extend(otlp_endpoint.iter().map(|endpoint| ("--otlp-endpoint", endpoint.clone())));
    let arguments = arguments.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]);
    arguments.chain(flags.iter().cloned()).collect()
}
