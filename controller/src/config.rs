//! The command line, checked in full before anything is opened.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use rds_csi_api::serve::telemetry::{self, LogFormat};
use rds_csi_api::text::Malformed;
use rds_csi_api::{ManagedPrefix, NodeName, Portal};

use crate::array::routeros::{Destination, Settings};
use crate::array::{ClusterId, Pool};
use crate::attachments::Fence;
use crate::node_agents::{AgentAddress, Credentials, NodeAgents};

/// How long connecting to the array may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one command may take. The array needs half a second; the sidecars give up after 10 to 60.
pub(crate) const COMMAND_TIMEOUT: Duration = Duration::from_secs(15);

/// The CSI controller of rds-csi, for one MikroTik ROSE Data Server.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Args {
    /// Unix socket to serve CSI on
    #[arg(long, env = "RDS_CSI_CSI_SOCKET", value_name = "PATH")]
    csi_socket: PathBuf,

    #[command(flatten)]
    array: ArrayArgs,

    /// How a node that does not answer is kept from writing: not at all (none), or by the array's list of admitted hosts (acl)
    #[arg(long, env = "RDS_CSI_FENCE", value_name = "none|acl", value_parser = fence)]
    fence: Fence,

    /// Where a node's agent listens; once per node
    #[arg(long, env = "RDS_CSI_NODE_AGENT", value_name = "NAME=HOST:PORT", value_delimiter = ',')]
    node_agent: Vec<AgentAddress>,
    /// Certificate authority of the agents (PEM)
    #[arg(long, env = "RDS_CSI_AGENT_CA", value_name = "PATH")]
    agent_ca: Option<PathBuf>,
    /// The controller's certificate towards the agents (PEM)
    #[arg(long, env = "RDS_CSI_AGENT_CERT", value_name = "PATH")]
    agent_cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, env = "RDS_CSI_AGENT_KEY", value_name = "PATH")]
    agent_key: Option<PathBuf>,

    /// Where to serve /healthz, /readyz and /metrics
    #[arg(long, env = "RDS_CSI_ADMIN_LISTEN", value_name = "IP:PORT", default_value = "127.0.0.1:9808")]
    admin_listen: SocketAddr,
    /// OTLP endpoint (gRPC) to send traces to, such as http://collector:4317
    #[arg(long, env = "RDS_CSI_OTLP_ENDPOINT", value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// Form of the log on standard error
    #[arg(long, env = "RDS_CSI_LOG_FORMAT", value_name = "text|json", default_value = "text")]
    log_format: LogFormat,
}

/// The array, and what of it is this cluster's.
#[derive(Debug, clap::Args)]
pub struct ArrayArgs {
    /// The array's host name or address for SSH
    #[arg(long, env = "RDS_CSI_ARRAY_ADDRESS", value_name = "HOST", value_parser = word)]
    array_address: String,
    /// The array's SSH port
    #[arg(long, env = "RDS_CSI_ARRAY_PORT", value_name = "PORT", default_value_t = 22)]
    array_port: u16,
    /// User on the array; its group needs the policies ssh, read and write
    #[arg(long, env = "RDS_CSI_ARRAY_USER", value_name = "NAME", value_parser = word)]
    array_user: String,
    /// File of that user's private key, without a passphrase
    #[arg(long, env = "RDS_CSI_ARRAY_KEY", value_name = "PATH")]
    array_key: PathBuf,
    /// File of the array's host key, as in known_hosts
    #[arg(long, env = "RDS_CSI_ARRAY_KNOWN_HOSTS", value_name = "PATH")]
    array_known_hosts: PathBuf,
    /// Commands that run on the array at the same time; it takes 20 from everybody together
    #[arg(long, env = "RDS_CSI_ARRAY_SESSIONS", value_name = "COUNT", default_value = "4")]
    array_sessions: NonZeroUsize,

    /// The btrfs pool that volumes live in
    #[arg(long, env = "RDS_CSI_POOL", value_name = "NAME", default_value = "storage-pool")]
    pool: Pool,
    /// Address that nodes reach the array's NVMe/TCP exports at
    #[arg(long, env = "RDS_CSI_NVME_ADDRESS", value_name = "IP")]
    nvme_address: IpAddr,
    /// TCP port of the exports
    #[arg(long, env = "RDS_CSI_NVME_PORT", value_name = "PORT", default_value_t = 4420)]
    nvme_port: u16,
    /// What tells this cluster's volumes from those of others on the array
    #[arg(long, env = "RDS_CSI_CLUSTER_ID", value_name = "ID")]
    cluster_id: ClusterId,
    /// Beginning of the NQNs of the volumes that may be changed and removed, such as nqn.2000-02.com.mikrotik:pvc-; nodes may
    /// run from other volumes of the same array
    #[arg(long, env = "CSI_MANAGED_NQN_PREFIX", value_name = "PREFIX")]
    managed_nqn_prefix: ManagedPrefix,
}

/// The array, and what of it is this cluster's.
pub struct ArrayConfig {
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
}

/// Everything the program needs to know.
pub struct Config {
    /// Where CSI is served.
    pub csi_socket: PathBuf,
    /// The array's SSH service.
    pub ssh: Settings,
    /// Where volumes live.
    pub pool: Pool,
    /// Whose they are.
    pub cluster: ClusterId,
    /// Which volumes of the array are the driver's.
    pub prefix: ManagedPrefix,
    /// Where nodes connect.
    pub portal: Portal,
    /// How nodes are shut out.
    pub fence: Fence,
    /// The nodes' agents.
    pub agents: NodeAgents,
    /// Where the admin server listens.
    pub admin_listen: SocketAddr,
    /// Logs and traces.
    pub telemetry: telemetry::Config,
}

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that is needed cannot be read.
    #[error("{flag} {path} cannot be read")]
    File {
        /// Which flag names it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Agents without the credentials to call them.
    #[error(
        "{0} is missing: agents are called with mutual TLS, so --node-agent needs --agent-ca, --agent-cert and --agent-key"
    )]
    Credentials(&'static str),
    /// Two agents for one node.
    #[error("--node-agent names node {0} twice: give each node's agent once")]
    Twice(NodeName),
}

impl TryFrom<ArrayArgs> for ArrayConfig {
    type Error = Error;

    fn try_from(args: ArrayArgs) -> Result<Self, Error> {
        let ArrayArgs {
            array_address,
            array_port,
            array_user,
            array_key,
            array_known_hosts,
            array_sessions,
            pool,
            nvme_address,
            nvme_port,
            cluster_id,
            managed_nqn_prefix,
        } = args;
        // ssh reads these itself, again at every connect; one that is missing now is a mistake to tell at once.
        for (flag, path) in [("--array-key", &array_key), ("--array-known-hosts", &array_known_hosts)] {
            fs::read(path).map_err(|source| Error::File { flag, path: path.clone(), source })?;
        }
        Ok(Self {
            ssh: Settings {
                destination: Destination {
                    host: array_address,
                    port: array_port,
                    user: array_user,
                    key: array_key,
                    known_hosts: array_known_hosts,
                },
                sessions: array_sessions,
                connect_timeout: CONNECT_TIMEOUT,
                command_timeout: COMMAND_TIMEOUT,
            },
            pool,
            cluster: cluster_id,
            prefix: managed_nqn_prefix,
            portal: Portal { address: nvme_address, port: nvme_port },
        })
    }
}

impl TryFrom<Args> for Config {
    type Error = Error;

    fn try_from(args: Args) -> Result<Self, Error> {
        let Args {
            csi_socket,
            array,
            fence,
            node_agent,
            agent_ca,
            agent_cert,
            agent_key,
            admin_listen,
            otlp_endpoint,
            log_format,
        } = args;
        let ArrayConfig { ssh, pool, cluster, prefix, portal } = array.try_into()?;
        let mut addresses = BTreeMap::new();
        for AgentAddress { node, authority } in node_agent {
            if addresses.insert(node.clone(), authority).is_some() {
                return Err(Error::Twice(node));
            }
        }
        let agents = if addresses.is_empty() {
            NodeAgents::None
        } else {
            let needed = |flag, path: Option<PathBuf>| path.ok_or(Error::Credentials(flag));
            let credentials = Credentials {
                ca: needed("--agent-ca", agent_ca)?,
                certificate: needed("--agent-cert", agent_cert)?,
                key: needed("--agent-key", agent_key)?,
            };
            NodeAgents::At(addresses, credentials)
        };
        let instance = cluster.to_string();
        Ok(Self {
            csi_socket,
            ssh,
            pool,
            cluster,
            prefix,
            portal,
            fence,
            agents,
            admin_listen,
            telemetry: telemetry::Config {
                service: "rds-csi-controller",
                instance,
                otlp_endpoint,
                log_format,
            },
        })
    }
}

/// A host or a user as ssh takes them: no option, and no part of one.
fn word(text: &str) -> Result<String, Malformed> {
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

fn fence(text: &str) -> Result<Fence, Malformed> {
    match text {
        "none" => Ok(Fence::None),
        "acl" => Ok(Fence::Acl),
        _ => Err(Malformed::new("fence", text, "give none or acl")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(extra: &[&str]) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "x").unwrap();
        let file = file.to_str().unwrap();
        let given = [
            ("--csi-socket", "/run/csi.sock"),
            ("--array-address", "array"),
            ("--array-user", "csi"),
            ("--array-key", file),
            ("--array-known-hosts", file),
            ("--nvme-address", "10.0.0.1"),
            ("--fence", "acl"),
            ("--cluster-id", "blue"),
            ("--managed-nqn-prefix", "nqn.2000-02.com.mikrotik:pvc-"),
        ];
        let extra: Vec<_> = extra.iter().map(|text| if *text == "FILE" { file } else { text }).collect();
        // A later flag replaces an earlier one in this test only.
        let given = given.iter().filter(|(flag, _)| !extra.contains(flag));
        let mut line = vec!["rds-csi-controller"];
        line.extend(given.flat_map(|(flag, value)| [flag, value]));
        line.extend(extra);
        let args = Args::try_parse_from(line).map_err(|error| error.to_string())?;
        Config::try_from(args).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_given_is_as_the_documents_say() {
        let config = config(&[]).unwrap();
        assert_eq!((config.ssh.destination.port, config.ssh.sessions.get()), (22, 4));
        assert_eq!(
            (config.pool.as_str(), config.portal.to_string()),
            ("storage-pool", "10.0.0.1:4420".into())
        );
        assert!(matches!(config.agents, NodeAgents::None));
    }

    #[test]
    fn agents_need_credentials() {
        let error = config(&["--node-agent", "w1=10.0.0.2:9810", "--agent-ca", "FILE"]).err().unwrap();
        assert!(error.contains("--agent-cert is missing"), "{error}");
        let twice = ["--node-agent", "w1=10.0.0.2:9810,w1=10.0.0.3:9810"];
        assert!(config(&twice).err().unwrap().contains("names node w1 twice"));
        let agent = ["--node-agent", "w1=10.0.0.2:9810", "--node-agent", "w2=10.0.0.3:9810"];
        let files = ["--agent-ca", "FILE", "--agent-cert", "FILE", "--agent-key", "FILE"];
        let config = config(&[&agent[..], &files[..]].concat()).unwrap();
        assert!(matches!(config.agents, NodeAgents::At(agents, _) if agents.len() == 2));
    }

    #[test]
    fn a_bad_value_is_named() {
        for (flag, value, told) in [
            ("--array-sessions", "0", "--array-sessions"),
            ("--node-agent", "w1", "NAME=HOST:PORT"),
            ("--pool", "/pool", "without slashes"),
            ("--log-format", "xml", "text or json"),
            ("--agent-ca", "", "--agent-ca"),
            ("--managed-nqn-prefix", "", "managed NQN prefix"),
            ("--managed-nqn-prefix", "nqn.2000-02.com.mikrotik:", "would cover the system's own volumes"),
        ] {
            let error = config(&[flag, value]).err().unwrap_or_else(|| panic!("{flag} {value} is taken"));
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn nothing_can_pass_for_an_option_of_ssh() {
        for text in ["-oProxyCommand=x", "", "a b", "user@host", "a%h"] {
            assert!(word(text).is_err(), "{text:?}");
        }
        assert!(word("fd00::1").is_ok() && word("array-1.example").is_ok());
    }
}
