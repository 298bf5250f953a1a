//! Which nodes reach which array, as CSI tells it: by labels of nodes, which here are called segments.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use rds_csi_api::csi;
use rds_csi_api::text::Malformed;
use rds_csi_api::topology::Segment;

/// Labels with their values: those that a node has, or those that it needs to reach an array.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Segments(BTreeMap<String, String>);

/// From where a volume is to be reached (`TopologyRequirement`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accessibility {
    preferred: Vec<Segments>,
    requisite: Vec<Segments>,
}

impl Segments {
    /// These, once each is a label that a node may have.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self, Malformed> {
        let checked = |(key, value): (String, String)| {
            format!("{key}={value}").parse::<Segment>().map(|_| (key, value))
        };
        pairs.into_iter().map(checked).collect::<Result<_, _>>().map(Self)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether nodes with the labels `node` have all of these.
    pub fn met_by(&self, node: &Self) -> bool {
        self.0.iter().all(|(key, value)| node.0.get(key) == Some(value))
    }

    /// As a volume's `accessible_topology`: nothing, if it is reached from everywhere.
    pub fn to_wire(&self) -> Vec<csi::Topology> {
        if self.is_empty() {
            vec![]
        } else {
            vec![csi::Topology { segments: self.0.clone().into_iter().collect() }]
        }
    }

    fn from_wire(segments: &HashMap<String, String>) -> Self {
        Self(segments.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

/// For people.
impl fmt::Display for Segments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("every node");
        }
        let pairs: Vec<_> = self.0.iter().map(|(key, value)| format!("{key}={value}")).collect();
        f.write_str(&pairs.join("+"))
    }
}

impl Accessibility {
    /// From everywhere.
    pub const ANYWHERE: Self = Self { preferred: vec![], requisite: vec![] };

    /// As CreateVolume asks for it.
    pub fn from_wire(requirement: Option<&csi::TopologyRequirement>) -> Self {
        let Some(csi::TopologyRequirement { requisite, preferred }) = requirement else {
            return Self::ANYWHERE;
        };
        let places = |topologies: &[csi::Topology]| {
            topologies.iter().map(|topology| Segments::from_wire(&topology.segments)).collect()
        };
        Self { preferred: places(preferred), requisite: places(requisite) }
    }

    /// As GetCapacity asks for it.
    pub fn only(place: Option<&csi::Topology>) -> Self {
        let requisite = place.iter().map(|topology| Segments::from_wire(&topology.segments)).collect();
        Self { preferred: vec![], requisite }
    }

    /// The places that are preferred, in their order, then those that would do (CSI 1.13, `TopologyRequirement`).
    fn places(&self) -> impl Iterator<Item = &Segments> {
        self.preferred.iter().chain(&self.requisite)
    }

    /// Of arrays that are reached by nodes with these labels, the index of the one that a volume goes to.
    pub fn first_met<'a>(&self, offers: &(impl Iterator<Item = &'a Segments> + Clone)) -> Option<usize> {
        if self.places().next().is_none() {
            return offers.clone().next().map(|_| 0);
        }
        self.places().find_map(|place| offers.clone().position(|offer| offer.met_by(place)))
    }
}

/// For people.
impl fmt::Display for Accessibility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut places: Vec<_> = self.places().collect();
        places.sort_unstable();
        places.dedup();
        f.write_str(&places.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(text: &str) -> Segments {
        let pair = |pair: &str| pair.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
        Segments::new(text.split_whitespace().filter_map(pair)).unwrap()
    }

    fn met(preferred: &[&str], requisite: &[&str], offers: &[&str]) -> Option<usize> {
        let all = |texts: &[&str]| texts.iter().map(|text| segments(text)).collect::<Vec<_>>();
        let wanted = Accessibility { preferred: all(preferred), requisite: all(requisite) };
        wanted.first_met(&all(offers).iter())
    }

    #[test]
    fn the_first_array_that_the_most_preferred_place_reaches_is_taken() {
        for (preferred, requisite, offers, taken) in [
            // Nothing is asked for: the default one.
            (&[][..], &[][..], &["rack=1", "rack=2"][..], Some(0)),
            // The scheduler's node comes first in `preferred`.
            (&["rack=2", "rack=1"], &["rack=1", "rack=2"], &["rack=1", "rack=2"], Some(1)),
            // What is preferred cannot be had, what would do can.
            (&["rack=3"], &["rack=3", "rack=2"], &["rack=1", "rack=2"], Some(1)),
            // An array without topology is reached from everywhere.
            (&["rack=3"], &[], &["rack=1", ""], Some(1)),
            // A node has more labels than an array asks for, and one with fewer may be anywhere.
            (&["rack=1 zone=a"], &[], &["rack=1"], Some(0)),
            (&["rack=1"], &[], &["rack=1 zone=a"], None),
            (&["rack=3"], &["rack=4"], &["rack=1", "rack=2"], None),
        ] {
            assert_eq!(met(preferred, requisite, offers), taken, "{preferred:?} {requisite:?} {offers:?}");
        }
    }

    #[test]
    fn labels_are_those_of_nodes() {
        let check = |key: &str, value: &str| Segments::new([(key.to_owned(), value.to_owned())]);
        assert!(check("topology.rds.csi.srvlab.io/rack", "r-1").is_ok() && check("rack", "1").is_ok());
        for (key, value) in [("", "1"), ("a b", "1"), ("rack", ""), ("rack", "a b"), ("rack=1", "2")] {
            let error = check(key, value).unwrap_err().to_string();
            assert!(error.contains(&format!("{key}={value}")) && error.contains("give KEY=VALUE"), "{error}");
        }
    }
}
