//! The command line, checked in full before anything is opened.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use rds_csi_api::serve::telemetry::{self, LogFormat};
use rds_csi_api::text::Malformed;
use rds_csi_api::topology::{self, Segment};
use rds_csi_api::{HealthCalls, ManagedPrefix, NodeName, Topology};

use crate::agent::tls::Files;
use crate::host::KubeletDir;

/// The CSI node agent of rds-csi: connects, mounts and publishes volumes on one node.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "rds-csi-node-agent status shows how the node's volumes are; see rds-csi-node-agent status --help"
)]
pub struct Args {
    /// Name of the Kubernetes node
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    node_name: NodeName,
    /// Unix socket to serve CSI on
    #[arg(long, env = "RDS_CSI_CSI_SOCKET", value_name = "PATH")]
    csi_socket: PathBuf,
    /// Register with kubelet, by a socket in its plugins_registry directory; false leaves that to a separate registrar
    #[arg(
        long, env = "RDS_CSI_REGISTER", value_name = "true|false", default_value_t = true,
        action = clap::ArgAction::Set
    )]
    register: bool,
    /// kubelet's directory; no path outside it is ever touched
    #[arg(long, env = "RDS_CSI_KUBELET_DIR", value_name = "PATH", default_value = "/var/lib/kubelet")]
    kubelet_dir: PathBuf,
    /// Where the volumes' records are kept; it must survive a restart
    #[arg(long, env = "RDS_CSI_STATE_DIR", value_name = "PATH", default_value = "/var/lib/rds-csi")]
    state_dir: PathBuf,
    /// Beginning of the NQNs that may be connected and disconnected, such as nqn.2000-02.com.mikrotik:pvc-; required
    #[arg(long, env = "CSI_MANAGED_NQN_PREFIX", value_name = "PREFIX")]
    managed_nqn_prefix: Option<String>,

    /// Where the node is, as StorageClasses and backends call it, such as topology.rds.csi.srvlab.io/rack=r1; may be repeated
    #[arg(long, env = "RDS_CSI_TOPOLOGY", value_name = "KEY=VALUE", value_delimiter = ',')]
    topology: Vec<Segment>,
    /// How many volumes the scheduler may place on the node
    #[arg(
        long, env = "RDS_CSI_MAX_VOLUMES_PER_NODE", value_name = "NUMBER", default_value_t = 128,
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    max_volumes_per_node: u16,
    /// Seconds between two looks for connections of volumes that nobody uses; one that is seen twice is ended
    #[arg(
        long, env = "RDS_CSI_ORPHAN_INTERVAL", value_name = "SECONDS", default_value_t = 60,
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    orphan_interval: u64,
    /// Serve the health calls of that CSI release too, which are alpha; VolumeCondition is served always
    #[arg(long, env = "RDS_CSI_CSI_HEALTH", value_name = "1.13")]
    csi_health: Option<HealthCalls>,

    /// Where to serve the internal API for the controller
    #[arg(long, env = "RDS_CSI_API_LISTEN", value_name = "IP:PORT", default_value = "0.0.0.0:9810")]
    api_listen: SocketAddr,
    /// Certificate of the internal API, for rds-csi-node-agent (PEM)
    #[arg(long, env = "RDS_CSI_API_CERT", value_name = "PATH")]
    api_cert: PathBuf,
    /// Its key (PEM)
    #[arg(long, env = "RDS_CSI_API_KEY", value_name = "PATH")]
    api_key: PathBuf,
    /// Certificate authority of the internal API's callers (PEM)
    #[arg(long, env = "RDS_CSI_API_CLIENT_CA", value_name = "PATH")]
    api_client_ca: PathBuf,

    /// Where to serve /healthz, /readyz, /metrics and /debug
    #[arg(long, env = "RDS_CSI_ADMIN_LISTEN", value_name = "IP:PORT", default_value = "127.0.0.1:9809")]
    admin_listen: SocketAddr,
    /// OTLP endpoint (gRPC) to send traces to, such as http://collector:4317
    #[arg(long, env = "RDS_CSI_OTLP_ENDPOINT", value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// Form of the log on standard error
    #[arg(long, env = "RDS_CSI_LOG_FORMAT", value_name = "text|json", default_value = "text")]
    log_format: LogFormat,
}

/// Everything the program needs to know.
#[derive(Debug)]
pub struct Config {
    /// Which node this is.
    pub node: NodeName,
    /// Where CSI is served.
    pub csi_socket: PathBuf,
    /// Who tells kubelet about it.
    pub registrar: Registrar,
    /// Where kubelet wants volumes.
    pub kubelet: KubeletDir,
    /// Where records are kept.
    pub state_dir: PathBuf,
    /// Which subsystems are the driver's.
    pub prefix: ManagedPrefix,
    /// Where the node is.
    pub topology: Topology,
    /// How many volumes it takes.
    pub max_volumes: u16,
    /// How often connections are looked for that nobody uses.
    pub orphan_interval: Duration,
    /// Whether the health calls of CSI 1.13 are served.
    pub health_calls: HealthCalls,
    /// The internal API.
    pub api: Api,
    /// Where the admin server listens.
    pub admin_listen: SocketAddr,
    /// Logs and traces.
    pub telemetry: telemetry::Config,
}

/// Who registers the driver with kubelet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registrar {
    /// This program.
    Agent,
    /// Another one, such as node-driver-registrar.
    Separate,
}

/// Where the internal API is served, and what proves who is who.
#[derive(Debug)]
pub struct Api {
    /// Where.
    pub listen: SocketAddr,
    /// The certificates, which are read whenever somebody connects.
    pub files: Files,
}

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody said which volumes are ours.
    #[error(
        "the managed NQN prefix is not set: give --managed-nqn-prefix or CSI_MANAGED_NQN_PREFIX, such as \
         nqn.2000-02.com.mikrotik:pvc-; without it volumes of the node's own system could be disconnected"
    )]
    NoPrefix,
    /// It is no prefix that is safe.
    #[error("--managed-nqn-prefix cannot be used")]
    Prefix(#[source] Malformed),
    /// Labels that do not go together.
    #[error("--topology cannot be used")]
    Topology(#[source] topology::Error),
    /// A directory that is needed is not there.
    #[error("{flag} {} cannot be read", path.display())]
    Path {
        /// Which flag names it.
        flag: &'static str,
        /// The path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

impl TryFrom<Args> for Config {
    type Error = Error;

    fn try_from(args: Args) -> Result<Self, Error> {
        let Args {
            node_name,
            csi_socket,
            register,
            kubelet_dir,
            state_dir,
            managed_nqn_prefix,
            topology,
            max_volumes_per_node,
            orphan_interval,
            csi_health,
            api_listen,
            api_cert,
            api_key,
            api_client_ca,
            admin_listen,
            otlp_endpoint,
            log_format,
        } = args;
        let prefix = managed_nqn_prefix.filter(|prefix| !prefix.is_empty()).ok_or(Error::NoPrefix)?;
        let kubelet = KubeletDir::open(&kubelet_dir).map_err(|source| Error::Path {
            flag: "--kubelet-dir",
            path: kubelet_dir,
            source,
        })?;
        let instance = node_name.to_string();
        Ok(Self {
            node: node_name,
            csi_socket,
            registrar: if register { Registrar::Agent } else { Registrar::Separate },
            kubelet,
            state_dir,
            prefix: prefix.parse().map_err(Error::Prefix)?,
            topology: Topology::new(topology).map_err(Error::Topology)?,
            max_volumes: max_volumes_per_node,
            orphan_interval: Duration::from_secs(orphan_interval),
            health_calls: csi_health.unwrap_or_default(),
            api: Api {
                listen: api_listen,
                files: Files { certificate: api_cert, key: api_key, client_ca: api_client_ca },
            },
            admin_listen,
            telemetry: telemetry::Config {
                service: "rds-csi-node-agent",
                instance,
                otlp_endpoint,
                log_format,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn config(&self, change: &[(&str, &str)]) -> Result<Config, Error> {
            let path = |name: &str| self.0.path().join(name).to_str().unwrap().to_owned();
            let mut flags = std::collections::BTreeMap::from([
                ("--node-name", "w1".to_owned()),
                ("--csi-socket", "/run/csi.sock".into()),
                ("--kubelet-dir", path("")),
                ("--managed-nqn-prefix", "nqn.2000-02.com.mikrotik:pvc-".into()),
                ("--api-cert", path("cert")),
                ("--api-key", path("key")),
                ("--api-client-ca", path("ca")),
            ]);
            for (flag, value) in change {
                flags.insert(flag, (*value).into());
            }
            let arguments = flags.into_iter().map(|(flag, value)| format!("{flag}={value}"));
            Args::try_parse_from(std::iter::once("agent".to_owned()).chain(arguments)).unwrap().try_into()
        }
    }

    #[test]
    fn what_is_given_is_taken() {
        let config = Folder::new().config(&[]).unwrap();
        assert_eq!((config.node.as_str(), config.api.files.key.ends_with("key")), ("w1", true));
    }

    #[test]
    fn the_agent_registers_itself_unless_another_does() {
        let files = Folder::new();
        assert_eq!(files.config(&[]).unwrap().registrar, Registrar::Agent);
        assert_eq!(files.config(&[("--register", "false")]).unwrap().registrar, Registrar::Separate);
    }

    #[test]
    fn lesson_17_without_a_valid_managed_prefix_it_does_not_start() {
        let files = Folder::new();
        let error = files.config(&[("--managed-nqn-prefix", "")]).unwrap_err().to_string();
        assert!(
            error.contains("CSI_MANAGED_NQN_PREFIX") && error.contains("nqn.2000-02.com.mikrotik:pvc-"),
            "{error}"
        );
        for prefix in ["nqn.2000-02.com.mikrotik:", "pvc-", "nqn."] {
            let error = files.config(&[("--managed-nqn-prefix", prefix)]).unwrap_err();
            assert!(matches!(error, Error::Prefix(_)), "{error}");
        }
    }

    #[test]
    fn a_node_says_where_it_is_and_how_much_it_takes() {
        let files = Folder::new();
        let config = files.config(&[]).unwrap();
        assert_eq!((config.topology.to_wire(), config.max_volumes), (None, 128));
        let given = [("--topology", "a.b/rack=1,a.b/zone=2"), ("--max-volumes-per-node", "16")];
        let config = files.config(&given).unwrap();
        assert_eq!((config.topology.to_wire().unwrap().segments.len(), config.max_volumes), (2, 16));
        let error = files.config(&[("--topology", "zone=1,Zone=2")]).unwrap_err();
        assert!(
            rds_csi_api::status::chain(&error).contains("--topology cannot be used: the topology has zone=1")
        );
    }

    #[test]
    fn a_missing_directory_is_named_with_its_flag() {
        let error = Folder::new().config(&[("--kubelet-dir", "/nowhere/at/all")]).unwrap_err().to_string();
        assert!(error.contains("--kubelet-dir") && error.contains("/nowhere/at/all"), "{error}");
    }
}
