//! Where a node is, as labels say it (CSI 1.13, `Topology`).

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use crate::csi;
use crate::text::Malformed;

/// One label of a node: `KEY=VALUE`, such as `topology.rds.csi.srvlab.io/rack=r1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    key: String,
    value: String,
}

/// 1 to 63 letters, digits, `-`, `_` and `.`, the first and the last a letter or digit.
fn is_part(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    matches!((bytes.first(), bytes.last()), (Some(first), Some(last))
        if bytes.len() <= 63 && bytes.iter().all(inner) && first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric())
}

/// A domain name: what [`is_part`] says, without capitals and `_`.
fn is_prefix(text: &str) -> bool {
    is_part(text) && !text.contains(|c: char| c.is_ascii_uppercase() || c == '_') && !text.contains("..")
}

impl Segment {
    /// What stands before the slash of its key.
    fn prefix(&self) -> Option<&str> {
        self.key.split_once('/').map(|(prefix, _)| prefix)
    }
}

impl FromStr for Segment {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let rule = "give KEY=VALUE, such as topology.rds.csi.srvlab.io/rack=r1: an optional domain and '/', then a name, and the \
                    value, each of 1 to 63 letters, digits, '-', '_' and '.', the first and the last a letter or digit";
        let (key, value) = text.split_once('=').ok_or_else(|| Malformed::new("topology", text, rule))?;
        let valid = match key.split_once('/') {
            Some((prefix, name)) => is_prefix(prefix) && is_part(name),
            None => is_part(key),
        };
        if valid && is_part(value) {
            Ok(Self { key: key.into(), value: value.into() })
        } else {
            Err(Malformed::new("topology", text, rule))
        }
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

/// All the labels by which a node is found, or none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Topology(Vec<Segment>);

/// Labels that do not go together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// CSI takes 'Zone' and 'zone' for one key.
    #[error("the topology has {0} and {1}: give each key once; capitals make no other key")]
    Twice(Segment, Segment),
    /// CSI wants one prefix for all the keys of a driver.
    #[error("the topology has {0} and {1}: give all keys the same prefix, or none")]
    Prefixes(Segment, Segment),
}

impl Topology {
    /// All of a node's labels.
    pub fn new(segments: Vec<Segment>) -> Result<Self, Error> {
        for (place, one) in segments.iter().enumerate() {
            for other in &segments[place + 1..] {
                if one.key.eq_ignore_ascii_case(&other.key) {
                    return Err(Error::Twice(one.clone(), other.clone()));
                }
                if one.prefix().zip(other.prefix()).is_some_and(|(one, other)| one != other) {
                    return Err(Error::Prefixes(one.clone(), other.clone()));
                }
            }
        }
        Ok(Self(segments))
    }

    /// For the wire; none if nothing is known of where the node is.
    pub fn to_wire(&self) -> Option<csi::Topology> {
        let segments: HashMap<_, _> =
            self.0.iter().map(|Segment { key, value }| (key.clone(), value.clone())).collect();
        (!segments.is_empty()).then_some(csi::Topology { segments })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology(texts: &[&str]) -> Result<Topology, Error> {
        Topology::new(texts.iter().map(|text| text.parse().unwrap()).collect())
    }

    #[test]
    fn labels_of_kubernetes_are_taken() {
        for text in ["rack=1", "topology.kubernetes.io/zone=eu-1.a", "a-b.c/Zone_1=x", "z=A_b.c-d"] {
            assert_eq!(text.parse::<Segment>().unwrap().to_string(), text);
        }
        let long = "x".repeat(63);
        assert!(format!("{long}/{long}={long}").parse::<Segment>().is_ok());
    }

    #[test]
    fn what_csi_does_not_take_is_refused_with_the_rule() {
        let long = "x".repeat(64);
        for text in [
            "",
            "rack",
            "rack=",
            "=1",
            "/rack=1",
            "a/=1",
            "a/b/c=1",
            "-a=1",
            "a-=1",
            "a=1=2",
            "a b=1",
            "a=ü",
            "Example.com/a=1",
            "a_b/c=1",
            "a..b/c=1",
            &format!("{long}=1"),
            &format!("a={long}"),
            &format!("{long}/a=1"),
        ] {
            let error = text.parse::<Segment>().unwrap_err().to_string();
            assert!(error.contains("give KEY=VALUE"), "{text}: {error}");
        }
    }

    #[test]
    fn keys_differ_in_more_than_capitals_and_share_their_prefix() {
        let wire = topology(&["a.b/rack=1", "a.b/zone=2"]).unwrap().to_wire().unwrap();
        assert_eq!((wire.segments["a.b/rack"].as_str(), wire.segments.len()), ("1", 2));
        assert_eq!(topology(&[]).unwrap().to_wire(), None);
        assert!(matches!(topology(&["Zone=1", "zone=1"]), Err(Error::Twice(..))));
        assert!(matches!(topology(&["a.b/rack=1", "c.d/zone=1"]), Err(Error::Prefixes(..))));
    }
}
