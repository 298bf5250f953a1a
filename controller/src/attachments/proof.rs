//! What proves that a second node is to take over the VM that runs on the first: the pods say so, whom only KubeVirt labels
//! like this. It is never a clock: KubeVirt may wait longer than anybody would.
//!
//! A migration's second pod carries the migration's uid, and both pods carry the uid of their VM (kubevirt.io/api, `types.go`).
//! A disk that was plugged into a running VM is used by a pod of its own, `hp-volume-…`, which carries neither, and which the
//! VM's pod on the same node owns. A pod that waits for its disk is Pending, and counts like one that runs.

use std::collections::BTreeSet;

use rds_csi_api::NodeName;

use super::facts::{Pod, User};
use super::record::Proof;

/// Carried by the pod that a VM migrates to, and by no other: the uid of the migration.
const MIGRATION: &str = "kubevirt.io/migrationJobUID";

/// Carried by every pod of a VM: the uid of the VM.
const CREATED_BY: &str = "kubevirt.io/created-by";

/// Why there is no proof.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// No pod at all uses it there.
    #[error("no pod on node {0} uses the volume")]
    NoPod(NodeName),
    /// One does, and is not KubeVirt's second one.
    #[error("no pod that uses the volume on node {0} carries the label {MIGRATION}")]
    NotMigrating(NodeName),
    /// The two are not of one VM.
    #[error("the pods that use the volume on nodes {from} and {to} do not carry the same label {CREATED_BY}")]
    OtherVm {
        /// The first node.
        from: NodeName,
        /// The second one.
        to: NodeName,
    },
}

/// The proof that the volume is to go from the one node to the other with a VM.
pub fn of_migration(users: &[User], from: &NodeName, to: &NodeName) -> Result<Proof, Missing> {
    let on = |node: &NodeName| users.iter().filter(|user| user.pod.node == *node).collect::<Vec<_>>();
    if on(to).is_empty() {
        return Err(Missing::NoPod(to.clone()));
    }
    let arriving: Vec<_> = on(to)
        .into_iter()
        .map(of_vm)
        .filter_map(|pod| Some((label(pod, MIGRATION)?, label(pod, CREATED_BY))))
        .collect();
    if arriving.is_empty() {
        return Err(Missing::NotMigrating(to.clone()));
    }
    let present: BTreeSet<_> =
        on(from).into_iter().map(of_vm).filter_map(|pod| label(pod, CREATED_BY)).collect();
    arriving
        .into_iter()
        .find_map(|(job, vm)| vm.filter(|vm| present.contains(vm)).map(|vm| (job, vm)))
        .map(|(job, vm)| Proof { vm: vm.into(), job: job.into() })
        .ok_or_else(|| Missing::OtherVm { from: from.clone(), to: to.clone() })
}

/// The pod that says which VM it is about. An owner on another node is none of it.
fn of_vm(user: &User) -> &Pod {
    match &user.owner {
        Some(owner) if owner.node == user.pod.node => owner,
        _ => &user.pod,
    }
}

fn label<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.labels.get(key).map(String::as_str).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeName {
        name.parse().unwrap()
    }

    fn pod(name: &str, on: &str, labels: &[(&str, &str)]) -> Pod {
        let labels = labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        Pod { name: format!("vms/{name}"), node: node(on), labels }
    }

    fn launcher(name: &str, on: &str, vm: &str, job: Option<&str>) -> Pod {
        let mut labels = vec![("kubevirt.io", "virt-launcher"), (CREATED_BY, vm)];
        labels.extend(job.map(|job| (MIGRATION, job)));
        pod(name, on, &labels)
    }

    fn direct(pod: Pod) -> User {
        User { pod, owner: None }
    }

    /// The disk was plugged in, so another pod holds it for the launcher.
    fn plugged_in(launcher: Pod) -> User {
        let node = launcher.node.to_string();
        User { pod: pod("hp-volume-x7k2p", &node, &[("kubevirt.io", "hotplug-disk")]), owner: Some(launcher) }
    }

    fn proof(users: &[User]) -> Result<Proof, Missing> {
        of_migration(users, &node("w1"), &node("w2"))
    }

    #[test]
    fn two_pods_of_one_vm_of_which_the_second_is_for_a_migration_prove_it() {
        let (source, target) = (launcher("a", "w1", "vm", None), launcher("b", "w2", "vm", Some("job")));
        let expected = Ok(Proof { vm: "vm".into(), job: "job".into() });
        assert_eq!(proof(&[direct(source.clone()), direct(target.clone())]), expected);
        assert_eq!(proof(&[plugged_in(source.clone()), plugged_in(target.clone())]), expected);
        // It came to w1 by a migration, too.
        let earlier = launcher("a", "w1", "vm", Some("job-0"));
        assert_eq!(proof(&[direct(earlier), direct(target.clone())]), expected);
        // Two pods of the VM on one node, one of which is left from before.
        let left = launcher("c", "w2", "vm", None);
        assert_eq!(proof(&[direct(source), direct(left), direct(target)]), expected);
    }

    #[test]
    fn whatever_is_missing_is_named() {
        let (source, target) = (launcher("a", "w1", "vm", None), launcher("b", "w2", "vm", Some("job")));
        let other = launcher("c", "w1", "vm-2", None);
        let plain = pod("web", "w2", &[]);
        let unlabelled = launcher("b", "w2", "vm", None);
        let nameless = launcher("b", "w2", "", Some("job"));
        let other_vm = Err(Missing::OtherVm { from: node("w1"), to: node("w2") });
        for (users, expected) in [
            (vec![], Err(Missing::NoPod(node("w2")))),
            (vec![direct(source.clone())], Err(Missing::NoPod(node("w2")))),
            (vec![direct(source.clone()), direct(plain)], Err(Missing::NotMigrating(node("w2")))),
            (vec![direct(source.clone()), direct(unlabelled)], Err(Missing::NotMigrating(node("w2")))),
            (vec![direct(target.clone())], other_vm.clone()),
            (vec![direct(other), direct(target.clone())], other_vm.clone()),
            (vec![direct(source.clone()), direct(nameless)], other_vm.clone()),
            // The second pod is on the first one's node.
            (
                vec![direct(source), direct(Pod { node: node("w1"), ..target.clone() })],
                Err(Missing::NoPod(node("w2"))),
            ),
        ] {
            assert_eq!(proof(&users), expected, "{users:?}");
        }
        let elsewhere = User { owner: Some(target), ..plugged_in(launcher("b", "w3", "vm", None)) };
        let elsewhere = User {
            pod: Pod { node: node("w2"), ..elsewhere.pod },
            owner: elsewhere.owner.map(|owner| Pod { node: node("w3"), ..owner }),
        };
        assert_eq!(proof(&[elsewhere]), Err(Missing::NotMigrating(node("w2"))));
    }
}
