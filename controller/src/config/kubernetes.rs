//! Kubernetes: how it is reached, and what the controller is there.

use std::path::PathBuf;
use std::time::Duration;

use rds_csi_api::text::Malformed;

use super::time;
use crate::cluster::Access;

/// Kubernetes, and the controller's own place in it.
#[derive(Debug, clap::Args)]
pub struct KubernetesArgs {
    /// Where to ask who is to hold which volume, and to keep who does: in-cluster, or the path of a kubeconfig; without it
    /// the controller is alone, and what it knows is lost with it
    #[arg(long, env = "RDS_CSI_KUBERNETES", value_name = "in-cluster|PATH")]
    kubernetes: Option<PathBuf>,
    /// Namespace of the controller's pod; replicas find each other there
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME", requires = "pod_name")]
    pod_namespace: Option<String>,
    /// Name of the controller's pod
    #[arg(long, env = "POD_NAME", value_name = "NAME", requires = "pod_namespace")]
    pod_name: Option<String>,
    /// Name of the Lease by which one of several replicas does what only one must do
    #[arg(long, env = "RDS_CSI_LEASE", value_name = "NAME", default_value = "rds-csi-controller")]
    lease: String,
    /// How often to look for what is due and nobody asks for, such as 1m: nodes that are not to hold a volume any more, and
    /// migrations that take too long
    #[arg(long, env = "RDS_CSI_RECONCILE_INTERVAL", value_name = "TIME", default_value = "1m", value_parser = interval)]
    reconcile_interval: Duration,
    /// Labels of the node agents' pods in the controller's namespace, such as app=rds-csi-node-agent: each is asked at its pod's
    /// address
    #[arg(long, env = "RDS_CSI_NODE_AGENT_PODS", value_name = "SELECTOR", requires = "pod_namespace")]
    node_agent_pods: Option<String>,
    /// Port of the agents that are found so
    #[arg(long, env = "RDS_CSI_NODE_AGENT_PORT", value_name = "PORT", default_value_t = 9810)]
    node_agent_port: u16,
}

/// Kubernetes, as the controller uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kubernetes {
    /// How it is reached.
    pub access: Access,
    /// The controller's own pod; without it this replica takes itself for the only one.
    pub pod: Option<Pod>,
    /// The name of the Lease that replicas share.
    pub lease: String,
    /// How often to look for what is due.
    pub reconcile_interval: Duration,
    /// How agents are found, if not by name.
    pub agents: Option<AgentPods>,
}

/// The controller's own pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// The pods of the node agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentPods {
    /// Their namespace.
    pub namespace: String,
    /// Their labels.
    pub labels: String,
    /// Where they listen.
    pub port: u16,
}

impl From<KubernetesArgs> for Option<Kubernetes> {
    fn from(args: KubernetesArgs) -> Self {
        let KubernetesArgs {
            kubernetes,
            pod_namespace,
            pod_name,
            lease,
            reconcile_interval,
            node_agent_pods,
            node_agent_port,
        } = args;
        let kubernetes = kubernetes?;
        let access = match kubernetes.to_str() {
            Some("in-cluster") => Access::InCluster,
            _ => Access::Kubeconfig(kubernetes),
        };
        let agents = node_agent_pods.zip(pod_namespace.clone());
        let agents = agents.map(|(labels, namespace)| AgentPods { namespace, labels, port: node_agent_port });
        let pod = pod_namespace.zip(pod_name).map(|(namespace, name)| Pod { namespace, name });
        Some(Kubernetes { access, pod, lease, reconcile_interval, agents })
    }
}

/// A time that is not 0: nobody looks for ever without a pause.
fn interval(text: &str) -> Result<Duration, Malformed> {
    time(text)?
        .checked_sub(Duration::from_secs(1))
        .map(|rest| rest + Duration::from_secs(1))
        .ok_or_else(|| Malformed::new("interval", text, "give a second or more, such as 1m"))
}
