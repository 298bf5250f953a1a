//! The command line and the file of arrays, checked in full before anything is opened.

mod array;
mod fence;
mod file;
mod kubernetes;
mod orphans;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;

use clap::Parser;
use rds_csi_api::serve::telemetry::{self, LogFormat};
use rds_csi_api::{BackendName, HealthCalls, NodeName};

use crate::node_agents::{AgentAddress, AgentNames, Credentials, NodeAgents};

pub use array::{ArrayArgs, ArrayConfig, Arrays, BackendConfig};
pub use fence::{Fencing, Release};
pub use file::Mistake;
pub use kubernetes::{AgentPods, Kubernetes, KubernetesArgs, Pod};
pub(crate) use orphans::time;
pub use orphans::{OrphanArgs, Orphans};

/// The CSI controller of rds-csi, for MikroTik ROSE Data Servers.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "rds-csi-controller doctor examines an array; see rds-csi-controller doctor --help"
)]
pub struct Args {
    /// Unix socket to serve CSI on
    #[arg(long, env = "RDS_CSI_CSI_SOCKET", value_name = "PATH")]
    csi_socket: PathBuf,

    #[command(flatten)]
    array: ArrayArgs,

    /// How a node that does not answer is kept from writing: not at all (none), by the array's list of admitted hosts
    /// (acl@RELEASE), or by another name of the volume's export (epoch@RELEASE), on the RouterOS release that doctor proved it on
    #[arg(
        long,
        env = "RDS_CSI_FENCE",
        value_name = "none|acl@RELEASE|epoch@RELEASE",
        required_unless_present = "config"
    )]
    fence: Option<Fencing>,

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
    /// Whose an agent's certificate is: its node's (for NODE.rds-csi-node-agent), or one that all agents share (for
    /// rds-csi-node-agent)
    #[arg(
        long,
        env = "RDS_CSI_AGENT_CERTIFICATES",
        value_name = "of-node|shared",
        default_value = "of-node"
    )]
    agent_certificates: AgentNames,

    #[command(flatten)]
    kubernetes: KubernetesArgs,

    #[command(flatten)]
    orphans: OrphanArgs,

    /// How many volumes a node may hold; what the nodes' agents tell the scheduler
    #[arg(
        long, env = "RDS_CSI_MAX_VOLUMES_PER_NODE", value_name = "NUMBER",
        default_value_t = const { NonZeroU16::new(128).unwrap() }
    )]
    max_volumes_per_node: NonZeroU16,

    /// Serve the health calls of that CSI release too, which are alpha; VolumeCondition is served always
    #[arg(long, env = "RDS_CSI_CSI_HEALTH", value_name = "1.13")]
    csi_health: Option<HealthCalls>,

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

/// Everything the program needs to know.
pub struct Config {
    /// Where CSI is served.
    pub csi_socket: PathBuf,
    /// The arrays.
    pub arrays: Arrays,
    /// The nodes' agents.
    pub agents: NodeAgents,
    /// Kubernetes, if there is one.
    pub kubernetes: Option<Kubernetes>,
    /// Whether what nobody claims is looked for.
    pub orphans: Orphans,
    /// How many volumes a node may hold.
    pub volumes_per_node: NonZeroU16,
    /// Whether the health calls of CSI 1.13 are served.
    pub health_calls: HealthCalls,
    /// Where the admin server listens.
    pub admin_listen: SocketAddr,
    /// Logs and traces.
    pub telemetry: telemetry::Config,
}

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What the file of arrays says cannot be taken.
    #[error(transparent)]
    Arrays(#[from] file::Error),
    /// One array by flags, and others by a file.
    #[error(
        "{flag} and --config {} both name an array: several arrays are all named in the file, so move this one into it, or \
         leave --config away",
        path.display()
    )]
    Both {
        /// The flag.
        flag: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A flag that one array needs.
    #[error("{0} is missing: an array needs it; several arrays are named in a file with --config")]
    Needed(&'static str),
    /// Somebody asks for an array that is not there.
    #[error("there is no backend {0}: give one that the file names, or `default` without one")]
    NoBackend(BackendName),
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
        "{0} is missing: agents are called with mutual TLS, so --node-agent and --node-agent-pods need --agent-ca, --agent-cert and --agent-key"
    )]
    Credentials(&'static str),
    /// Removal without anybody who knows what is claimed.
    #[error("--remove-orphans-after works only if {0}: without a report nothing is known to be an orphan")]
    RemoveUnasked(&'static str),
    /// Removal without an age.
    #[error(
        "--remove-orphans-after 0 would remove at once what may be about to be claimed: give a time such as 7d, or leave it away"
    )]
    RemoveAtOnce,
    /// Two agents for one node.
    #[error("--node-agent names node {0} twice: give each node's agent once")]
    Twice(NodeName),
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
            agent_certificates,
            kubernetes,
            orphans,
            max_volumes_per_node,
            csi_health,
            admin_listen,
            otlp_endpoint,
            log_format,
        } = args;
        let arrays = Arrays::read(array, fence)?;
        let mut addresses = BTreeMap::new();
        for AgentAddress { node, authority } in node_agent {
            if addresses.insert(node.clone(), authority).is_some() {
                return Err(Error::Twice(node));
            }
        }
        let kubernetes: Option<Kubernetes> = kubernetes.into();
        let are_found = kubernetes.as_ref().is_some_and(|kubernetes| kubernetes.agents.is_some());
        let agents = if addresses.is_empty() && !are_found {
            NodeAgents::None
        } else {
            let needed = |flag, path: Option<PathBuf>| path.ok_or(Error::Credentials(flag));
            let credentials = Credentials {
                ca: needed("--agent-ca", agent_ca)?,
                certificate: needed("--agent-cert", agent_cert)?,
                key: needed("--agent-key", agent_key)?,
                names: agent_certificates,
            };
            NodeAgents::At(addresses, credentials)
        };
        let instance = arrays.cluster.to_string();
        Ok(Self {
            csi_socket,
            arrays,
            agents,
            orphans: Orphans::read(orphans, kubernetes.as_ref())?,
            kubernetes,
            volumes_per_node: max_volumes_per_node,
            health_calls: csi_health.unwrap_or_default(),
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

#[cfg(test)]
mod tests;
