//! Upstream's programs beside the driver's controller: the sidecars on its socket, and the controller of snapshots.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::access::service_account;
use super::control_plane::ControlPlane;
use super::process::Process;
use super::rights::NAMESPACE;
use crate::programs;
use crate::rig::Keeper;

/// Starts the sidecars of a replica of the controller, which they find at that socket.
pub(super) async fn beside(
    plane: &ControlPlane,
    keeper: &Keeper,
    replica: &str,
    socket: &Path,
) -> Result<Vec<Process>> {
    let address = format!("--csi-address={}", socket.display());
    let all = [address.as_str(), "--timeout=60s", "--retry-interval-start=500ms"];
    let [ours, kubernetes] = [programs::sidecars()?, programs::kubernetes()?];
    let mut processes = Vec::new();
    for (folder, name, more) in [
        // Built with Kubernetes, whose packages it shares.
        (&kubernetes, "csi-provisioner", &["--default-fstype=ext4", "--extra-create-metadata"][..]),
        (&ours, "csi-attacher", &[]),
        (&ours, "csi-resizer", &[]),
        (&ours, "csi-snapshotter", &["--extra-create-metadata"]),
    ] {
        let arguments = [&all, more].concat();
        processes.push(start(plane, keeper, replica, folder.join(name), name, &arguments).await?);
    }
    Ok(processes)
}

/// Starts the controller of snapshots, of which a cluster has one, whatever drivers it has.
pub(super) async fn snapshot_controller(plane: &ControlPlane, keeper: &Keeper) -> Result<Process> {
    let name = "snapshot-controller";
    start(plane, keeper, "snapshots-0", programs::sidecars()?.join(name), name, &[]).await
}

async fn start(
    plane: &ControlPlane,
    keeper: &Keeper,
    pod: &str,
    program: PathBuf,
    account: &str,
    more: &[&str],
) -> Result<Process> {
    let mut arguments = vec![
        format!("--kubeconfig={}", plane.access().kubeconfig(&service_account(account))?.display()),
        "--leader-election".into(),
        format!("--leader-election-namespace={NAMESPACE}"),
        "--v=4".into(),
    ];
    arguments.extend(more.iter().map(ToString::to_string));
    Process::start_in_pod(keeper, pod, plane.folder(), &program, &arguments).await
}
