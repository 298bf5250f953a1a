//! What a change of a disk's settings means for the target: what may be changed in place and what cuts hosts.

use crate::simulator::backend::{Export, Hosts};

/// One order to the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Take the subsystem away; its hosts lose their connection.
    Unexport(String),
    /// Make a subsystem.
    Export(Export),
    /// Change who may connect; who is connected stays so.
    SetHosts(String, Hosts),
}

/// The steps from one export to another.
pub(super) fn steps(before: Option<Export>, after: Option<Export>) -> Vec<Step> {
    match (before, after) {
        (None, None) => Vec::new(),
        (None, Some(after)) => vec![Step::Export(after)],
        (Some(before), None) => vec![Step::Unexport(before.nqn)],
        (Some(before), Some(after)) if before == after => Vec::new(),
        (Some(before), Some(after)) => {
            if (&before.nqn, before.port, &before.file) == (&after.nqn, after.port, &after.file) {
                vec![Step::SetHosts(after.nqn, after.hosts)]
            } else {
                vec![Step::Unexport(before.nqn), Step::Export(after)]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::backend::PoolPath;

    fn export(nqn: &str, port: u16, hosts: Hosts) -> Export {
        Export { nqn: nqn.to_owned(), port, file: PoolPath::new("v/disk.img").unwrap(), hosts }
    }

    #[test]
    fn only_a_changed_host_list_leaves_connections_alone() {
        let one = Hosts::Only(vec!["nqn.host:1".to_owned()]);
        let old = export("nqn:a", 4420, Hosts::Any);
        let fenced = export("nqn:a", 4420, one.clone());
        let renamed = export("nqn:b", 4420, Hosts::Any);
        let moved = export("nqn:a", 4421, Hosts::Any);
        let take_away = || Step::Unexport("nqn:a".to_owned());

        let table = [
            (None, None, vec![]),
            (None, Some(&old), vec![Step::Export(old.clone())]),
            (Some(&old), None, vec![take_away()]),
            (Some(&old), Some(&old), vec![]),
            (Some(&old), Some(&fenced), vec![Step::SetHosts("nqn:a".to_owned(), one)]),
            (Some(&old), Some(&renamed), vec![take_away(), Step::Export(renamed.clone())]),
            (Some(&old), Some(&moved), vec![take_away(), Step::Export(moved.clone())]),
        ];
        for (before, after, expected) in table {
            assert_eq!(steps(before.cloned(), after.cloned()), expected, "{before:?} to {after:?}");
        }
    }
}
