//! A simulated ROSE Data Server that anyone may `ssh` into.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use clap::{Parser, ValueEnum};
use rds_csi_integration::simulator::{
    Access, Dialect, Group, Lists, MAX_LINE, Numbers, Options, Simulator, Storage, Unset, Version, keys,
};

/// RouterOS over SSH as a storage driver sees it, without the hardware.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Where SSH listens.
    #[arg(long, env = "RDS_CSI_LISTEN", default_value = "127.0.0.1:2222")]
    listen: SocketAddr,
    /// What stores and exports.
    #[arg(long, env = "RDS_CSI_BACKEND", value_enum, default_value = "memory")]
    backend: BackendName,
    /// Name of the storage pool.
    #[arg(long, env = "RDS_CSI_POOL", default_value = "storage-pool")]
    pool: String,
    /// Bytes of the pool in memory.
    #[arg(long, env = "RDS_CSI_POOL_SIZE", default_value_t = 1 << 40)]
    pool_size: u64,
    /// The mounted btrfs of the linux backend.
    #[arg(long, env = "RDS_CSI_POOL_MOUNT", required_if_eq("backend", "linux"))]
    pool_mount: Option<PathBuf>,
    /// Where the linux backend's NVMe target listens.
    #[arg(long, env = "RDS_CSI_NVME_LISTEN", default_value = "0.0.0.0")]
    nvme_listen: IpAddr,
    /// The host key; created if the file is missing, made anew at each start if no file is named.
    #[arg(long, env = "RDS_CSI_HOST_KEY")]
    host_key: Option<PathBuf>,
    /// Public key (or `authorized_keys`) of who may log in; a key pair is made if none is given.
    #[arg(long, env = "RDS_CSI_AUTHORIZED_KEY")]
    authorized_key: Option<PathBuf>,
    /// The only user name; any will do if it is not given.
    #[arg(long, env = "RDS_CSI_USER")]
    user: Option<String>,
    /// What the user may do: full, write, read, or policies such as ssh,read,write.
    #[arg(long, env = "RDS_CSI_GROUP", default_value = "ssh,read,write")]
    group: Group,
    /// How many connections, and how many channels, may be open at once.
    #[arg(long, env = "RDS_CSI_MAX_SESSIONS", default_value_t = 20)]
    max_sessions: usize,
    /// How many bytes a command line may have.
    #[arg(long, env = "RDS_CSI_MAX_LINE", default_value_t = MAX_LINE)]
    max_line: usize,
    /// Where faults are taken and state is told over HTTP.
    #[arg(long, env = "RDS_CSI_CONTROL_LISTEN")]
    control_listen: Option<SocketAddr>,
    /// The release to play.
    #[arg(long, env = "RDS_CSI_ROUTEROS_VERSION", default_value = "7.21")]
    routeros_version: Version,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum BackendName {
    Memory,
    Linux,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::WARN).init();
    let arguments = Arguments::parse();
    let scratch = tempfile::Builder::new().prefix("rds-csi-simulator.").tempdir()?;
    let identity = match &arguments.authorized_key {
        Some(_) => None,
        None => Some(new_identity(scratch.path())?),
    };
    let user = arguments.user.clone().unwrap_or_else(|| "admin".to_owned());
    let simulator = Simulator::start(arguments.options(identity.as_deref())?).await?;
    introduce(&simulator, &user, identity.as_deref(), scratch.path())?;
    wait_for_the_end().await?;
    simulator.stop().await?;
    Ok(())
}

impl Arguments {
    fn options(self, identity: Option<&Path>) -> anyhow::Result<Options> {
        let Self {
            listen,
            backend,
            pool,
            pool_size,
            pool_mount,
            nvme_listen,
            host_key,
            authorized_key,
            user,
            group,
            max_sessions,
            max_line,
            control_listen,
            routeros_version,
        } = self;
        let storage = match (backend, pool_mount) {
            (BackendName::Memory, _) => Storage::Memory { pool_size },
            (BackendName::Linux, Some(pool_mount)) => {
                Storage::Linux { pool_mount, nvme_address: nvme_listen }
            }
            (BackendName::Linux, None) => bail!("--backend linux needs --pool-mount"),
        };
        let authorized = authorized_key.or_else(|| identity.map(|path| path.with_extension("pub")));
        let authorized = authorized.context("no key may log in")?;
        let authorized = std::fs::read_to_string(&authorized)
            .with_context(|| format!("cannot read the authorized key {}", authorized.display()))?;
        let host_key = match host_key {
            Some(path) => keys::load_or_create(&path)?,
            None => keys::generate(),
        };
        Ok(Options {
            listen,
            control: control_listen,
            storage,
            pool,
            host_key,
            access: Access { user, keys: keys::authorized(&authorized)? },
            group,
            max_sessions,
            max_line,
            dialect: Dialect {
                version: routeros_version,
                numbers: Numbers::Floats,
                unset: Unset::Absent,
                lists: Lists::Text,
            },
        })
    }
}

/// A key pair for whoever started this by hand; it goes with the simulator.
fn new_identity(directory: &Path) -> anyhow::Result<PathBuf> {
    let path = directory.join("id_ed25519");
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&path).status();
    match made.context("cannot run ssh-keygen; name a key with --authorized-key instead")? {
        status if status.success() => Ok(path),
        status => bail!("ssh-keygen made no key: {status}"),
    }
}

/// Says how to get in.
fn introduce(
    simulator: &Simulator,
    user: &str,
    identity: Option<&Path>,
    scratch: &Path,
) -> anyhow::Result<()> {
    let known_hosts = scratch.join("known_hosts");
    std::fs::write(&known_hosts, simulator.known_hosts())?;
    let address = simulator.address();
    println!("A simulated ROSE Data Server listens on {address}. Log in with:\n");
    // Without IdentitiesOnly a full agent offers its own keys first, until the server hangs up.
    let identity =
        identity.map(|path| format!(" -o IdentitiesOnly=yes -i {}", path.display())).unwrap_or_default();
    println!(
        "  ssh -p {} -o UserKnownHostsFile={}{identity} {user}@{}\n",
        address.port(),
        known_hosts.display(),
        address.ip()
    );
    if let Some(control) = simulator.control_address() {
        println!("State and faults: curl http://{control}/state, /commands, /faults\n");
    }
    println!("Try: /disk/btrfs/subvolume add fs=storage-pool name=pvc-1");
    println!("     /disk print detail");
    println!("Ctrl-C ends it; what it held in memory is gone then.");
    Ok(())
}

async fn wait_for_the_end() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminated.recv() => Ok(()),
    }
}
