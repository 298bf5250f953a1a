//! How a volume is, as far as the array and the nodes that hold it tell.

use rds_csi_api::NodeName;

use crate::array::Soundness;
use crate::node_agents::Link;

/// How a volume is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// As it should be; what is known of it.
    Normal(String),
    /// Somebody should look; at what.
    Abnormal(Vec<Trouble>),
}

/// Something that is wrong with a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Of which kind it is.
    pub ailment: Ailment,
    /// What it is, for people.
    pub told: String,
}

/// What can be wrong with a volume, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ailment {
    /// The array has not all of it.
    Damaged,
    /// A node uses it, and has no connection any more.
    Lost,
    /// A node waits for its connection.
    Broken,
}

/// What the array says, and each node that was asked. A node that does not say is no sign of damage.
pub fn judge(soundness: &Soundness, links: &[(NodeName, Link)]) -> Condition {
    let mut wrong = Vec::new();
    let mut told = vec!["the array has all of it".to_owned()];
    if let Soundness::Damaged(how) = soundness {
        let told = format!("on the array it is damaged: {how}");
        wrong.push(Trouble { ailment: Ailment::Damaged, told });
    }
    for (node, link) in links {
        match link {
            Link::Live => told.push(format!("node {node} is connected to it")),
            Link::Unused => told.push(format!("node {node} does not use it")),
            Link::Unknown(why) => told.push(format!("what node {node} has of it is not known ({why})")),
            Link::Broken => wrong.push(Trouble {
                ailment: Ailment::Broken,
                told: format!("node {node} lost its connection and tries to get it back"),
            }),
            Link::Lost => wrong.push(Trouble {
                ailment: Ailment::Lost,
                told: format!("node {node} uses it, and has no connection to it any more"),
            }),
        }
    }
    if wrong.is_empty() { Condition::Normal(told.join("; ")) } else { Condition::Abnormal(wrong) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_told_and_is_no_damage() {
        let node = |name: &str| name.parse::<NodeName>().unwrap();
        let silent = (node("w1"), Link::Unknown("no answer within 5 s".into()));
        let Condition::Normal(message) =
            judge(&Soundness::Sound, &[silent.clone(), (node("w2"), Link::Live)])
        else {
            panic!("silence is no damage")
        };
        assert_eq!(
            message,
            "the array has all of it; what node w1 has of it is not known (no answer within 5 s); node w2 is connected to it"
        );
        for (soundness, link, says) in [
            (Soundness::Damaged("its file is gone".into()), Link::Live, "its file is gone"),
            (Soundness::Sound, Link::Broken, "node w2 lost its connection"),
            (Soundness::Sound, Link::Lost, "node w2 uses it, and has no connection"),
        ] {
            match judge(&soundness, &[silent.clone(), (node("w2"), link)]) {
                Condition::Abnormal(troubles) => assert!(troubles[0].told.contains(says), "{troubles:?}"),
                Condition::Normal(message) => panic!("{message}"),
            }
        }
    }
}
