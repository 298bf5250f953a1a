//! The arrays: one that flags describe, or those of a file.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use rds_csi_api::text::Malformed;
use rds_csi_api::{BackendName, ManagedPrefix, Portal};

use super::{Error, Fencing, file};
use crate::array::routeros::{Destination, Settings};
use crate::array::{ClusterId, Pool};
use crate::backends::topology::Segments;

/// How long connecting to an array may take.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one command may take, unless a file says otherwise. The array needs half a second; the sidecars give up after 10
/// to 60.
pub(super) const COMMAND_TIMEOUT: Duration = Duration::from_secs(15);

/// How often an idle connection is shown to be in use, so that nothing in between forgets it.
pub(super) const KEEP_ALIVE: Duration = Duration::from_mins(1);

/// What a line with several commands may have, unless somebody says otherwise.
pub(super) const LINE_LIMIT: usize = 2048;

/// Commands that run at the same time, unless somebody says otherwise.
pub(super) const SESSIONS: NonZeroUsize = NonZeroUsize::new(4).expect("four is not zero");

/// What RouterOS takes from everybody together, unless its max-sessions was raised.
const ARRAY_SESSIONS: usize = 20;

pub(super) const SSH_PORT: u16 = 22;
pub(super) const NVME_PORT: u16 = 4420;
pub(super) const POOL: &str = "storage-pool";

/// What an array is called that flags describe.
const TITLE: &str = "default";

/// The arrays, and what of them is this cluster's.
#[derive(Debug, clap::Args)]
pub struct ArrayArgs {
    /// File (YAML) that names several arrays, instead of the flags for one; docs/configuration.md has an example
    #[arg(long, env = "RDS_CSI_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The array's host name or address for SSH
    #[arg(long, env = "RDS_CSI_ARRAY_ADDRESS", value_name = "HOST", value_parser = word, required_unless_present = "config")]
    array_address: Option<String>,
    /// The array's SSH port [default: 22]
    #[arg(long, env = "RDS_CSI_ARRAY_PORT", value_name = "PORT")]
    array_port: Option<u16>,
    /// User on the array; its group needs the policies ssh, read and write
    #[arg(long, env = "RDS_CSI_ARRAY_USER", value_name = "NAME", value_parser = word, required_unless_present = "config")]
    array_user: Option<String>,
    /// File of that user's private key, without a passphrase
    #[arg(long, env = "RDS_CSI_ARRAY_KEY", value_name = "PATH", required_unless_present = "config")]
    array_key: Option<PathBuf>,
    /// File of the array's host key, as in known_hosts
    #[arg(long, env = "RDS_CSI_ARRAY_KNOWN_HOSTS", value_name = "PATH", required_unless_present = "config")]
    array_known_hosts: Option<PathBuf>,
    /// Commands that run on the array at the same time; it takes 20 from everybody together, unless its max-sessions was raised [default: 4]
    #[arg(long, env = "RDS_CSI_ARRAY_SESSIONS", value_name = "COUNT", value_parser = file::count)]
    array_sessions: Option<NonZeroUsize>,
    /// How many bytes a line with several commands may have; what RouterOS takes is not documented [default: 2048]
    #[arg(long, env = "RDS_CSI_ARRAY_LINE_LIMIT", value_name = "BYTES")]
    array_line_limit: Option<usize>,

    /// The btrfs pool that volumes live in [default: storage-pool]
    #[arg(long, env = "RDS_CSI_POOL", value_name = "NAME")]
    pool: Option<Pool>,
    /// Address that nodes reach the array's NVMe/TCP exports at
    #[arg(long, env = "RDS_CSI_NVME_ADDRESS", value_name = "IP", required_unless_present = "config")]
    nvme_address: Option<IpAddr>,
    /// TCP port of the exports [default: 4420]
    #[arg(long, env = "RDS_CSI_NVME_PORT", value_name = "PORT")]
    nvme_port: Option<u16>,
    /// What tells this cluster's volumes from those of others on the arrays
    #[arg(long, env = "RDS_CSI_CLUSTER_ID", value_name = "ID")]
    cluster_id: ClusterId,
    /// Beginning of the NQNs of the volumes that may be changed and removed, such as nqn.2000-02.com.mikrotik:pvc-; nodes may
    /// run from other volumes of the same array
    #[arg(long, env = "CSI_MANAGED_NQN_PREFIX", value_name = "PREFIX")]
    managed_nqn_prefix: ManagedPrefix,
}

/// One array, and what of it is this cluster's.
pub struct ArrayConfig {
    /// Its name for people.
    pub title: BackendName,
    /// Its SSH service.
    pub ssh: Settings,
    /// Where volumes live.
    pub pool: Pool,
    /// Whose they are.
    pub cluster: ClusterId,
    /// Which volumes of the array are the driver's.
    pub prefix: ManagedPrefix,
    /// Where nodes connect.
    pub portal: Portal,
    /// How nodes are shut out, if that was said.
    pub fence: Option<Fencing>,
}

/// One array as the driver uses it.
#[derive(Debug)]
pub struct BackendConfig {
    /// Its name for people, StorageClasses and metrics.
    pub title: BackendName,
    /// Its SSH service.
    pub ssh: Settings,
    /// Where volumes live.
    pub pool: Pool,
    /// Where nodes connect.
    pub portal: Portal,
    /// How nodes are shut out.
    pub fence: Fencing,
    /// The labels of the nodes that reach it; none if all do.
    pub topology: Segments,
}

/// Every array, and what of them is this cluster's.
pub struct Arrays {
    /// Whose volumes are ours.
    pub cluster: ClusterId,
    /// Which volumes are the driver's.
    pub prefix: ManagedPrefix,
    /// The one whose volumes have bare ids.
    pub standard: BackendConfig,
    /// The others.
    pub others: BTreeMap<BackendName, BackendConfig>,
}

impl Arrays {
    /// Reads the flags or the file. `fence` is how nodes are shut out of an array that flags describe.
    pub fn read(args: ArrayArgs, fence: Option<Fencing>) -> Result<Self, Error> {
        let ArrayArgs {
            config,
            array_address,
            array_port,
            array_user,
            array_key,
            array_known_hosts,
            array_sessions,
            array_line_limit,
            pool,
            nvme_address,
            nvme_port,
            cluster_id: cluster,
            managed_nqn_prefix: prefix,
        } = args;
        if let Some(path) = config {
            let given = [
                ("--array-address", array_address.is_some()),
                ("--array-port", array_port.is_some()),
                ("--array-user", array_user.is_some()),
                ("--array-key", array_key.is_some()),
                ("--array-known-hosts", array_known_hosts.is_some()),
                ("--array-sessions", array_sessions.is_some()),
                ("--array-line-limit", array_line_limit.is_some()),
                ("--pool", pool.is_some()),
                ("--nvme-address", nvme_address.is_some()),
                ("--nvme-port", nvme_port.is_some()),
                ("--fence", fence.is_some()),
            ];
            if let Some((flag, _)) = given.into_iter().find(|(_, given)| *given) {
                return Err(Error::Both { flag, path });
            }
            let file::Contents { standard, others } = file::read(&path)?;
            return Ok(Self { cluster, prefix, standard, others });
        }
        let needed = |flag| move || Error::Needed(flag);
        let key = array_key.ok_or_else(needed("--array-key"))?;
        let known_hosts = array_known_hosts.ok_or_else(needed("--array-known-hosts"))?;
        // ssh reads these itself, again at every connect; one that is missing now is a mistake to tell at once.
        for (flag, path) in [("--array-key", &key), ("--array-known-hosts", &known_hosts)] {
            fs::read(path).map_err(|source| Error::File { flag, path: path.clone(), source })?;
        }
        let standard = BackendConfig {
            title: TITLE.parse().expect("it is a name"),
            ssh: Settings {
                destination: Destination {
                    host: array_address.ok_or_else(needed("--array-address"))?,
                    port: array_port.unwrap_or(SSH_PORT),
                    user: array_user.ok_or_else(needed("--array-user"))?,
                    key,
                    known_hosts,
                },
                sessions: array_sessions.unwrap_or(SESSIONS),
                line_limit: array_line_limit.unwrap_or(LINE_LIMIT),
                connect_timeout: CONNECT_TIMEOUT,
                command_timeout: COMMAND_TIMEOUT,
                keep_alive: KEEP_ALIVE,
            },
            pool: pool.unwrap_or_else(|| POOL.parse().expect("it is a pool")),
            portal: Portal {
                address: nvme_address.ok_or_else(needed("--nvme-address"))?,
                port: nvme_port.unwrap_or(NVME_PORT),
            },
            fence: fence.ok_or_else(needed("--fence"))?,
            topology: Segments::default(),
        };
        Ok(Self { cluster, prefix, standard, others: BTreeMap::new() })
    }

    /// Every array, the default one first.
    pub fn iter(&self) -> impl Iterator<Item = &BackendConfig> {
        std::iter::once(&self.standard).chain(self.others.values())
    }

    /// What is allowed, and works only if something else is so, too.
    pub fn doubts(&self) -> impl Iterator<Item = String> {
        let sessions = self.iter().filter(|backend| backend.ssh.sessions.get() >= ARRAY_SESSIONS).map(|backend| {
            let BackendConfig { title, ssh, .. } = backend;
            format!(
                "array {title} is to run {} commands at the same time, and RouterOS takes {ARRAY_SESSIONS} sessions from everybody \
                 together unless told otherwise: raise its max-sessions above that, or lower the number here",
                ssh.sessions
            )
        });
        let fences = self.iter().filter(|backend| backend.fence.is_only_believed_in()).map(|backend| {
            let BackendConfig { title, fence, .. } = backend;
            format!(
                "array {title} has the fence {fence}, and nobody says that it works there: run rds-csi-controller doctor, and \
                 configure what it proved, such as {fence}@7.21.2"
            )
        });
        sessions.chain(fences)
    }

    /// The longest that a command may take on any of them.
    pub fn longest_command(&self) -> Duration {
        self.iter().map(|backend| backend.ssh.command_timeout).max().unwrap_or(COMMAND_TIMEOUT)
    }
}

impl ArrayConfig {
    /// The array of that name in the file, or the one that flags describe; every one for no name.
    pub fn of(
        args: ArrayArgs,
        backend: Option<&BackendName>,
        fence: Option<&Fencing>,
    ) -> Result<Vec<Self>, Error> {
        let by_flags = args.config.is_none();
        // Who looks at an array shuts nobody out, and need not say how.
        let any_fence = if by_flags { fence.or(Some(&Fencing::NONE)) } else { fence };
        let Arrays { cluster, prefix, standard, others } = Arrays::read(args, any_fence.cloned())?;
        let chosen = std::iter::once(standard)
            .chain(others.into_values())
            .filter(|array| backend.is_none_or(|name| *name == array.title));
        let configs =
            chosen.map(|BackendConfig { title, ssh, pool, portal, fence: configured, topology: _ }| {
                let fence = if by_flags { fence.cloned() } else { Some(configured) };
                Self { title, ssh, pool, cluster: cluster.clone(), prefix: prefix.clone(), portal, fence }
            });
        let configs: Vec<_> = configs.collect();
        match backend {
            Some(name) if configs.is_empty() => Err(Error::NoBackend(name.clone())),
            _ => Ok(configs),
        }
    }
}

/// A host or a user as ssh takes them: no option, and no part of one.
pub(super) fn word(text: &str) -> Result<String, Malformed> {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '_' | '-');
    if (1..=253).contains(&text.len()) && !text.starts_with('-') && text.chars().all(inner) {
        Ok(text.into())
    } else {
        Err(Malformed::new(
            "name",
            text,
            "give letters, digits, '.', ':', '_' or '-', not beginning with '-'",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_can_pass_for_an_option_of_ssh() {
        for text in ["-oProxyCommand=x", "", "a b", "user@host", "a%h"] {
            assert!(word(text).is_err(), "{text:?}");
        }
        assert!(word("fd00::1").is_ok() && word("array-1.example").is_ok());
    }
}
