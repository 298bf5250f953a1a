//! Asks the agents of the nodes what they have of a volume, and tells them what to do. A node that does not answer has not said that it
//! has nothing, nor that it did nothing.

mod call;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod orders;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use rds_csi_api::node_agent::node_agent_client::NodeAgentClient;
use rds_csi_api::node_agent::{self as wire, Connection, GetVolumeRequest};
use rds_csi_api::text::Malformed;
use rds_csi_api::{NodeName, Nqn, VolumeId};
use tonic::transport::Channel;

use crate::attachments::Testimony;

pub use call::Unanswered;
pub use orders::{Bookmark, Detached, Happened, Order, Watching};

/// Who calls an agent.
type Client = NodeAgentClient<Channel>;

/// Of what a certificate is that an agent has.
const AGENT: &str = "rds-csi-node-agent";

/// How long an agent may take. It only reads /proc and /sys; the attacher gives a detach 15 s by default.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);

/// Somebody who can say what a node has of a volume.
pub trait Witness: Send + Sync + 'static {
    /// What the node's agent says. No answer is an answer too.
    fn testify(
        &self,
        node: &NodeName,
        volume: &VolumeId,
        nqn: &Nqn,
    ) -> impl Future<Output = Testimony> + Send;

    /// How the node is connected to the volume, by its agent's word.
    fn link(&self, node: &NodeName, volume: &VolumeId, nqn: &Nqn) -> impl Future<Output = Link> + Send;

    /// Every node that was named; none if none was, and then there may be any.
    fn named(&self) -> Vec<NodeName>;

    /// Whether there may be such a node: not, if those that there are were named, and it is none of them.
    fn knows(&self, node: &NodeName) -> bool;
}

/// How a node is connected to a volume that it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// It is.
    Live,
    /// It was, and the kernel tries to get the connection back.
    Broken,
    /// It is not, and uses the volume all the same.
    Lost,
    /// It is not, and does not use the volume.
    Unused,
    /// It does not say, and why.
    Unknown(String),
}

/// Where one node's agent listens: `NAME=HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentAddress {
    /// The node.
    pub node: NodeName,
    /// Host and port.
    pub authority: String,
}

impl FromStr for AgentAddress {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed =
            || Malformed::new("node agent", text, "give NAME=HOST:PORT, such as worker-1=10.0.0.11:9810");
        let (node, authority) = text.split_once('=').ok_or_else(malformed)?;
        let (host, port) = authority.rsplit_once(':').ok_or_else(malformed)?;
        let usable = !host.is_empty()
            && port.parse::<u16>().is_ok_and(|port| port > 0)
            && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']'));
        if !usable {
            return Err(malformed());
        }
        Ok(Self { node: node.parse()?, authority: authority.into() })
    }
}

/// What proves to an agent that it is the controller who asks, and to us that it is an agent who answers. Files in PEM,
/// read anew for every question, so that certificates may be renewed under a running program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The authority that signed the agents' certificates.
    pub ca: PathBuf,
    /// Our certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The name in an agent's certificate.
    pub names: AgentNames,
}

/// By which name an agent's certificate proves that it is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AgentNames {
    /// `NODE.rds-csi-node-agent`: each agent has a certificate of its own, and none can speak for another node.
    #[default]
    OfNode,
    /// `rds-csi-node-agent`: all have the same, and are told apart by their addresses only.
    Shared,
}

impl AgentNames {
    fn of(self, node: &NodeName) -> String {
        match self {
            Self::OfNode => format!("{node}.{AGENT}"),
            Self::Shared => AGENT.into(),
        }
    }
}

impl FromStr for AgentNames {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        match text {
            "of-node" => Ok(Self::OfNode),
            "shared" => Ok(Self::Shared),
            _ => Err(Malformed::new("agents' certificates", text, "give of-node or shared")),
        }
    }
}

/// The agents of the nodes that have one.
///
/// Every question has its own connection. Questions are rare, and a connection that stood idle since before its node was
/// restarted would make a node silent that answers.
#[derive(Debug, Clone)]
pub enum NodeAgents {
    /// Every node is silent.
    None,
    /// The agents at these addresses, called with these credentials.
    At(BTreeMap<NodeName, String>, Credentials),
}

/// Why an agent cannot be called at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that is needed cannot be read.
    #[error("{path} cannot be read")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The address or the credentials are unusable.
    #[error(
        "the agent at {authority} cannot be called: check --node-agent, --agent-ca, --agent-cert and --agent-key"
    )]
    Unusable {
        /// The address.
        authority: String,
        /// What is wrong.
        #[source]
        source: tonic::transport::Error,
    },
}

impl NodeAgents {
    /// Whether all of them could be called, as far as that can be told without calling.
    pub async fn check(&self) -> Result<(), Error> {
        if let Self::At(addresses, credentials) = self {
            for (node, authority) in addresses {
                call::endpoint(node, authority, credentials).await?;
            }
        }
        Ok(())
    }
}

impl NodeAgents {
    async fn question(
        &self,
        node: &NodeName,
        volume: &VolumeId,
        nqn: &Nqn,
    ) -> Result<Option<wire::Volume>, Unanswered> {
        let question = GetVolumeRequest { volume_id: volume.to_string(), nqn: nqn.to_string() };
        let answer = self.ask(node, DEADLINE, async |mut agent| agent.get_volume(question).await).await?;
        Ok(answer.volume)
    }
}

impl Witness for NodeAgents {
    fn named(&self) -> Vec<NodeName> {
        match self {
            Self::None => Vec::new(),
            Self::At(addresses, _) => addresses.keys().cloned().collect(),
        }
    }

    fn knows(&self, node: &NodeName) -> bool {
        match self {
            Self::None => true,
            Self::At(addresses, _) => addresses.contains_key(node),
        }
    }

    async fn testify(&self, node: &NodeName, volume: &VolumeId, nqn: &Nqn) -> Testimony {
        // That is a fault of ours too, but to refuse would leave a dead node's volume with it for ever.
        if !matches!(self, Self::At(addresses, _) if addresses.contains_key(node)) {
            tracing::warn!(%node, %volume, "no --node-agent names the node, so it counts as one that does not answer");
        }
        match self.question(node, volume, nqn).await {
            Ok(volume) => testimony(volume.as_ref()),
            Err(Unanswered::Silent { why, .. }) => Testimony::Silent(why),
            Err(Unanswered::Unasked { why, .. } | Unanswered::Refused { why, .. }) => Testimony::Unasked(why),
        }
    }

    async fn link(&self, node: &NodeName, volume: &VolumeId, nqn: &Nqn) -> Link {
        match self.question(node, volume, nqn).await {
            Ok(volume) => link(volume.as_ref()),
            Err(unanswered) => Link::Unknown(unanswered.why().into()),
        }
    }
}

/// How a node that answers is connected. One that has no connection and uses nothing has not begun, or has ended.
fn link(volume: Option<&wire::Volume>) -> Link {
    let Some(volume) = volume else { return Link::Unused };
    let used =
        !volume.staging_path.is_empty() || !volume.publish_paths.is_empty() || !volume.holders.is_empty();
    match volume.connection() {
        Connection::Live => Link::Live,
        Connection::Connecting => Link::Broken,
        Connection::Absent if used => Link::Lost,
        Connection::Absent => Link::Unused,
        Connection::Unspecified => Link::Unknown("its connection is in no known state".into()),
    }
}

/// What an agent's answer means. Only a volume that nothing can reach any more is gone.
fn testimony(volume: Option<&wire::Volume>) -> Testimony {
    let Some(volume) = volume else { return Testimony::Gone };
    let mut uses: Vec<_> = volume.holders.iter().map(holder).collect();
    if uses.is_empty() {
        uses.extend(volume.publish_paths.iter().map(|path| format!("it is published at {path}")));
        if !volume.staging_path.is_empty() {
            uses.push(format!("it is staged at {}", volume.staging_path));
        }
    }
    let device = if volume.device.is_empty() { "" } else { " as " };
    match volume.connection() {
        // A record may be left of a volume that is neither connected nor mounted. Nothing writes by a record.
        Connection::Absent if uses.is_empty() => return Testimony::Gone,
        _ if !uses.is_empty() => {}
        Connection::Absent | Connection::Unspecified => {
            uses.push("its connection is in no known state".into());
        }
        Connection::Connecting => uses.push(format!("it is connecting{device}{}", volume.device)),
        Connection::Live => uses.push(format!("it is connected{device}{}", volume.device)),
    }
    Testimony::InUse(uses.join("; "))
}

fn holder(holder: &wire::Holder) -> String {
    let wire::Holder { pid, command, path, pod, .. } = holder;
    let of_pod = if pod.is_empty() { String::new() } else { format!(" of pod {pod}") };
    match holder.r#use() {
        wire::Use::OpenFile => format!("process {pid} ({command}){of_pod} has {path} open"),
        wire::Use::Mount => format!("it is mounted at {path}{of_pod}, as process {pid} ({command}) sees it"),
        wire::Use::BlockDevice => format!("the block device {path} is built on it"),
        wire::Use::Unspecified => format!("process {pid} ({command}) holds {path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(connection: Connection) -> wire::Volume {
        wire::Volume { connection: connection.into(), ..wire::Volume::default() }
    }

    fn use_of(volume: &wire::Volume) -> String {
        match testimony(Some(volume)) {
            Testimony::InUse(what) => what,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_what_nothing_can_reach_is_gone() {
        assert_eq!(testimony(None), Testimony::Gone);
        assert_eq!(testimony(Some(&volume(Connection::Absent))), Testimony::Gone);
        assert!(use_of(&volume(Connection::Unspecified)).contains("no known state"));
        assert!(use_of(&volume(Connection::Connecting)).contains("connecting"));
        let live = wire::Volume { device: "/dev/nvme1n1".into(), ..volume(Connection::Live) };
        assert_eq!(use_of(&live), "it is connected as /dev/nvme1n1");
        let staged = wire::Volume { staging_path: "/stage".into(), ..volume(Connection::Absent) };
        assert_eq!(use_of(&staged), "it is staged at /stage");
        let published = wire::Volume { publish_paths: vec!["/pod".into()], ..staged };
        assert_eq!(use_of(&published), "it is published at /pod; it is staged at /stage");
    }

    #[test]
    fn a_holder_is_named_with_process_command_and_path() {
        let open = wire::Holder {
            r#use: wire::Use::OpenFile.into(),
            pid: 4711,
            command: "postgres".into(),
            path: "/data/base/1".into(),
            pod: String::new(),
        };
        let in_pod = wire::Holder { pod: "0f1c9d3a-52d1".into(), ..open.clone() };
        let held = |holder| wire::Volume { holders: vec![holder], ..volume(Connection::Live) };
        assert_eq!(use_of(&held(open)), "process 4711 (postgres) has /data/base/1 open");
        assert_eq!(
            use_of(&held(in_pod)),
            "process 4711 (postgres) of pod 0f1c9d3a-52d1 has /data/base/1 open"
        );
    }

    #[test]
    fn a_volume_in_use_without_a_connection_is_lost_and_one_that_is_not_is_unused() {
        let staged = |connection| wire::Volume { staging_path: "/stage".into(), ..volume(connection) };
        for (volume, expected) in [
            (None, Link::Unused),
            (Some(volume(Connection::Absent)), Link::Unused),
            (Some(staged(Connection::Absent)), Link::Lost),
            (Some(staged(Connection::Connecting)), Link::Broken),
            (Some(staged(Connection::Live)), Link::Live),
        ] {
            assert_eq!(link(volume.as_ref()), expected, "{volume:?}");
        }
        assert!(matches!(link(Some(&staged(Connection::Unspecified))), Link::Unknown(_)));
    }

    #[test]
    fn an_address_names_its_node() {
        let address: AgentAddress = "w1=[fd00::1]:9810".parse().unwrap();
        assert_eq!((address.node.as_str(), address.authority.as_str()), ("w1", "[fd00::1]:9810"));
        for text in
            ["", "w1", "w1=", "w1=host", "w1=host:0", "w1=:9810", "W 1=host:1", "w1=a/b:1", "w1=u@h:1"]
        {
            assert!(text.parse::<AgentAddress>().is_err(), "{text:?}");
        }
    }
}
