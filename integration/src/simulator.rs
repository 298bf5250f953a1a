//! A simulated ROSE Data Server: RouterOS over SSH, as a driver meets it, warts included.
//!
//! From the outside in: [`ssh`] takes command lines, [`console`] runs them by the [`script`] language and its
//! [`menus`], [`device`] gives them RouterOS' meaning, and a [`backend`] stores and exports. [`faults`] break it
//! on purpose, [`control`] lets other processes do so.

pub mod backend;
mod console;
mod control;
mod device;
pub mod faults;
pub mod journal;
mod menus;
mod print;
mod script;
mod ssh;
mod version;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::{PrivateKey, PublicKey};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use backend::linux::Linux;
use backend::memory::Memory;
use backend::{Backend, Connection, PoolPath};
use device::{Device, User};
use ssh::{Limits, Server};

pub use device::{ArrayState, Dialect, FileDisk, Group, InvalidGroup, ListedAddress, Lists, Unset};
pub use faults::{Effect, Fault};
pub use journal::{CommandLine, Commands};
pub use script::{Numbers, outline};
pub use ssh::{Access, keys};
pub use version::{InvalidVersion, Version};

/// A running simulator. It ends when it is stopped or dropped.
pub struct Simulator {
    address: SocketAddr,
    control_address: Option<SocketAddr>,
    host_key: PublicKey,
    server: Arc<Server>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// What to simulate, and where.
#[derive(Debug)]
pub struct Options {
    /// Where SSH listens; port 0 is any free one.
    pub listen: SocketAddr,
    /// Where faults are taken and state is told over HTTP.
    pub control: Option<SocketAddr>,
    /// What stores and exports.
    pub storage: Storage,
    /// Name of the one pool.
    pub pool: String,
    /// What clients know the array by.
    pub host_key: PrivateKey,
    /// Who may log in.
    pub access: Access,
    /// What they may do.
    pub group: Group,
    /// How many connections, and how many channels, may be open at once.
    pub max_sessions: usize,
    /// How many bytes a command line may have; a longer one is refused like a mistake in writing. The device has
    /// a limit, but nobody has published it: the default of 2048 is a guess on the safe side.
    pub max_line: usize,
    /// Release and habits.
    pub dialect: Dialect,
}

/// The default of [`Options::max_line`].
pub const MAX_LINE: usize = 2048;

/// What stores and exports.
#[derive(Debug)]
pub enum Storage {
    /// Memory: any machine will do, nothing is exported for real.
    Memory {
        /// Bytes of the pool.
        pool_size: u64,
    },
    /// A mounted btrfs and the kernel's NVMe target: needs root.
    Linux {
        /// Where the btrfs is mounted.
        pool_mount: PathBuf,
        /// Where the target listens.
        nvme_address: IpAddr,
    },
}

impl Options {
    /// An array in memory with a pool `storage-pool` of 1 TiB, on a free port of loopback, for whoever holds
    /// the private half of `key` (a line of a `.pub` file).
    pub fn in_memory(key: &str) -> Result<Self, keys::Error> {
        let dialect = Dialect {
            version: Version::new(7, 21),
            numbers: Numbers::Floats,
            unset: Unset::Absent,
            lists: Lists::Text,
        };
        Ok(Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            control: None,
            storage: Storage::Memory { pool_size: 1 << 40 },
            pool: "storage-pool".to_owned(),
            host_key: keys::generate(),
            access: Access { user: None, keys: keys::authorized(key)? },
            group: Group::least(),
            max_sessions: 20,
            max_line: MAX_LINE,
            dialect,
        })
    }
}

/// Why no simulator runs.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The storage cannot be used.
    #[error("cannot use the storage")]
    Storage(#[from] backend::Error),
}

impl Simulator {
    /// Starts a simulator on the current tokio runtime.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let Options {
            listen,
            control,
            storage,
            pool,
            host_key,
            access,
            group,
            max_sessions,
            max_line,
            dialect,
        } = options;
        let backend: Box<dyn Backend> = match storage {
            Storage::Memory { pool_size } => Box::new(Memory::new(pool_size)),
            Storage::Linux { pool_mount, nvme_address } => Box::new(Linux::open(&pool_mount, nvme_address)?),
        };
        let user = User { name: access.user.clone().unwrap_or_else(|| "admin".to_owned()), group };
        let device = Arc::new(Device::new(backend, &pool, dialect, max_sessions, user)?);
        let (listener, address) = bind(listen).await?;
        let limits = Limits { sessions: max_sessions, line: max_line };
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let server = Arc::new(Server::new(device, access, limits, stop.clone(), tasks.clone()));
        let control_address = match control {
            None => None,
            Some(wanted) => {
                let (listener, address) = bind(wanted).await?;
                tasks.spawn(control::serve(listener, Arc::clone(&server), stop.clone()));
                Some(address)
            }
        };
        let public_key = host_key.public_key().clone();
        tasks.spawn(Arc::clone(&server).serve(listener, host_key));
        Ok(Self { address, control_address, host_key: public_key, server, tasks, stop })
    }

    /// Where SSH listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the HTTP control listens, if it does.
    pub fn control_address(&self) -> Option<SocketAddr> {
        self.control_address
    }

    /// The line by which `ssh` knows this array, for a `known_hosts` file.
    pub fn known_hosts(&self) -> String {
        let key = self.host_key.to_openssh().expect("an Ed25519 key has a text form");
        format!("[{}]:{} {key}\n", self.address.ip(), self.address.port())
    }

    /// The array as it is now.
    pub fn state(&self) -> Result<ArrayState, backend::Error> {
        self.server.device.array_state()
    }

    /// What clients sent so far.
    pub fn commands(&self) -> Commands {
        self.server.journal.read()
    }

    /// Makes something go wrong.
    pub fn inject(&self, fault: Fault) {
        self.server.faults.inject(fault);
    }

    /// Lets nothing more go wrong.
    pub fn clear_faults(&self) {
        self.server.faults.clear();
    }

    /// Ends when a line waits as [`Effect::PauseBefore`] has it.
    pub async fn paused(&self) {
        self.server.faults.paused().await;
    }

    /// Reboots the array, which is away for so long; returns when it serves again.
    pub async fn reboot(&self, away: Duration) {
        self.switch_off().await;
        tokio::time::sleep(away).await;
        self.switch_on().await;
    }

    /// Pulls the plug: all connections break, new ones are refused, nothing is exported. Commands under way are
    /// lost, done in part or done.
    pub async fn switch_off(&self) {
        self.server.switch_off(0).await;
    }

    /// Puts the plug in again: the array serves and exports what it holds.
    pub async fn switch_on(&self) {
        self.server.switch_on().await;
    }

    /// Writes a number to a file of the pool, in place of a host that has it attached.
    pub fn write(&self, path: &PoolPath, content: u64) -> Result<(), backend::Error> {
        self.server.device.write(path, content)
    }

    /// Lets a file, directory or subvolume be gone from the pool with all that is in it, as from a filesystem that
    /// lost it: whatever uses it. What is exported from it stays so until the array is switched off.
    pub fn lose(&self, path: &PoolPath) -> Result<(), backend::Error> {
        self.server.device.lose(path)
    }

    /// Lets a host's connection be among those that `/ip/firewall/connection` tells of.
    pub fn connected(&self, source: SocketAddr, destination: SocketAddr) {
        self.server.device.connected(Connection { source, destination });
    }

    /// Lets the connections of this host be gone from there.
    pub fn disconnected(&self, source: IpAddr) {
        self.server.device.disconnected(source);
    }

    /// Ends all connections and exports, and waits until nothing of the simulator runs any more.
    pub async fn stop(self) -> Result<(), backend::Error> {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.server.device.switch_off()
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let listen = async {
        let listener = TcpListener::bind(address).await?;
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    };
    listen.await.map_err(|source| StartError::Listen { address, source })
}
