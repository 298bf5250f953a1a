//! Who a node is: to Kubernetes by its name, to the array by the host NQN and host id that follow from it.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::nqn::Nqn;
use crate::text::{Malformed, text_newtype};

/// Separates our host ids from everybody else's. Changing it would make every node a stranger to its own connections.
const HOSTS: Uuid = Uuid::from_u128(0x0b1c_42d7_8e5f_5a60_b3f9_41d6_2c7a_9e15);

/// A Kubernetes node's name, which is its id in CSI: a DNS-1123 subdomain of at most 253 characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(String);

text_newtype!(NodeName);

impl FromStr for NodeName {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let label = |label: &str| {
            label.starts_with(inner) && label.ends_with(inner) && label.chars().all(|c| inner(c) || c == '-')
        };
        if text.len() <= 253 && text.split('.').all(label) {
            Ok(Self(text.into()))
        } else {
            Err(Malformed::new(
                "node name",
                text,
                "give the name of the Kubernetes node: lower-case letters, digits, '-' and '.', 253 at most",
            ))
        }
    }
}

/// The 128-bit identity of an initiator (NVMe-oF 1.1, Connect). The kernel demands one host NQN for each host id.
///
/// A pure function of the node's name: two nodes never share it, a restart keeps it, and the controller knows it unasked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HostId(Uuid);

impl HostId {
    /// The host id of a node.
    pub fn of(node: &NodeName) -> Self {
        Self(Uuid::new_v5(&HOSTS, node.as_str().as_bytes()))
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// The NQN by which a node calls itself towards the array, and by which the array admits it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostNqn(Nqn);

impl HostNqn {
    /// The host NQN of a node, paired with its [`HostId`] (NVMe 2.0, 4.5: the UUID form).
    pub fn of(node: &NodeName) -> Self {
        let text = format!("nqn.2014-08.org.nvmexpress:uuid:{}", HostId::of(node));
        Self(text.parse().expect("a UUID is within the alphabet of an NQN"))
    }

    /// The text itself.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for HostNqn {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        text.parse().map(Self)
    }
}

impl fmt::Display for HostNqn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeName {
        name.parse().unwrap()
    }

    #[test]
    fn the_host_nqn_of_a_node_never_changes_and_is_its_own() {
        let w1 = HostNqn::of(&node("w1"));
        assert_eq!(w1.as_str(), "nqn.2014-08.org.nvmexpress:uuid:ccdb8b5c-0a40-5a93-bb5b-50ae31f073bf");
        assert!(w1.as_str().ends_with(&HostId::of(&node("w1")).to_string()));
        assert_ne!(w1, HostNqn::of(&node("w2")));
    }

    #[test]
    fn node_names_are_those_of_kubernetes() {
        assert!("ip-10-0-0-1.eu.example".parse::<NodeName>().is_ok());
        for text in ["", "W1", "w_1", "-w", "w-", "a..b", "a,b", &"x".repeat(254)] {
            assert!(text.parse::<NodeName>().is_err(), "{text:?}");
        }
    }
}
