//! What the sidecars may do: an account for each, so that a test fails if one of them needs more than is told here. The
//! controller's rights are those of the manual.

use anyhow::Result;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::access::service_account;
use super::objects::make;

/// Where the driver is installed.
pub(super) const NAMESPACE: &str = "rds-csi";

/// The namespace, and the controller's account with its rights, in the words of the manual.
pub(super) const MANUAL: &str = include_str!("../../../docs/kubernetes.md");

/// The group of the accounts.
pub(super) const GROUP: &str = "system:serviceaccounts";

/// The driver's controller.
pub(super) const CONTROLLER: &str = "rds-csi-controller";

/// The accounts; each but the controller's is called as its program is.
pub(super) const ACCOUNTS: [&str; 6] =
    [CONTROLLER, "csi-provisioner", "csi-attacher", "csi-resizer", "csi-snapshotter", "snapshot-controller"];

const READ: &[&str] = &["get", "list", "watch"];

/// Gives every sidecar its rights.
pub(super) async fn grant(client: &Client) -> Result<()> {
    for account in ACCOUNTS.into_iter().filter(|account| *account != CONTROLLER) {
        let role = json!({ "metadata": { "name": account }, "rules": rules(account) });
        make(&Api::<ClusterRole>::all(client.clone()), role).await?;
        let binding =
            binding("ClusterRole", account, &json!({ "kind": "User", "name": service_account(account) }));
        make(&Api::<ClusterRoleBinding>::all(client.clone()), binding).await?;
    }
    // How replicas choose a leader.
    let leases = allow("coordination.k8s.io", &["leases"], READ, &["create", "update", "patch", "delete"]);
    let role = json!({ "metadata": { "name": "leaders" }, "rules": [leases, events()] });
    make(&Api::<Role>::namespaced(client.clone(), NAMESPACE), role).await?;
    let binding = binding("Role", "leaders", &json!({ "kind": "Group", "name": GROUP }));
    make(&Api::<RoleBinding>::namespaced(client.clone(), NAMESPACE), binding).await
}

fn binding(kind: &str, name: &str, subject: &Value) -> Value {
    let mut subject = subject.clone();
    subject["apiGroup"] = "rbac.authorization.k8s.io".into();
    json!({
        "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name },
        "subjects": [subject],
    })
}

fn allow(group: &str, resources: &[&str], verbs: &[&str], more: &[&str]) -> Value {
    json!({ "apiGroups": [group], "resources": resources, "verbs": ([verbs, more].concat()) })
}

fn events() -> Value {
    allow("", &["events"], READ, &["create", "update", "patch"])
}

fn rules(account: &str) -> Value {
    const SNAPSHOTS: &str = "snapshot.storage.k8s.io";
    const STORAGE: &str = "storage.k8s.io";
    match account {
        "csi-provisioner" => json!([
            allow("", &["persistentvolumes"], READ, &["create", "patch", "delete"]),
            allow("", &["persistentvolumeclaims"], READ, &["update"]),
            allow("", &["nodes"], READ, &[]),
            allow(
                STORAGE,
                &["storageclasses", "csinodes", "volumeattachments", "volumeattributesclasses"],
                READ,
                &[]
            ),
            allow(SNAPSHOTS, &["volumesnapshots"], READ, &["update"]),
            allow(SNAPSHOTS, &["volumesnapshotcontents"], READ, &[]),
            events(),
        ]),
        "csi-attacher" => json!([
            allow("", &["persistentvolumes"], READ, &["patch"]),
            allow(STORAGE, &["csinodes"], READ, &[]),
            allow(STORAGE, &["volumeattachments"], READ, &["patch"]),
            allow(STORAGE, &["volumeattachments/status"], &["patch"], &[]),
        ]),
        "csi-resizer" => json!([
            allow("", &["persistentvolumes"], READ, &["patch"]),
            allow("", &["persistentvolumeclaims", "pods"], READ, &[]),
            allow("", &["persistentvolumeclaims/status"], &["patch"], &[]),
            allow(STORAGE, &["volumeattributesclasses"], READ, &[]),
            events(),
        ]),
        "csi-snapshotter" => json!([
            allow(SNAPSHOTS, &["volumesnapshotclasses"], READ, &[]),
            allow(SNAPSHOTS, &["volumesnapshotcontents"], READ, &["update", "patch"]),
            allow(SNAPSHOTS, &["volumesnapshotcontents/status"], &["update", "patch"], &[]),
            events(),
        ]),
        _ => json!([
            allow("", &["persistentvolumes"], READ, &[]),
            allow("", &["persistentvolumeclaims"], READ, &["update"]),
            allow(SNAPSHOTS, &["volumesnapshotclasses"], READ, &[]),
            allow(SNAPSHOTS, &["volumesnapshots"], READ, &["update", "patch", "delete"]),
            allow(SNAPSHOTS, &["volumesnapshotcontents"], READ, &["create", "update", "patch", "delete"]),
            allow(
                SNAPSHOTS,
                &["volumesnapshots/status", "volumesnapshotcontents/status"],
                &["update", "patch"],
                &[]
            ),
            events(),
        ]),
    }
}
