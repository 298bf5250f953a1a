//! Upstream's sidecars beside the driver's controller, on its socket.

use std::path::Path;

use anyhow::Result;

use super::access::ATTACHER;
use super::control_plane::ControlPlane;
use super::process::Process;
use crate::programs;
use crate::rig::Keeper;

/// external-attacher: carries VolumeAttachments to ControllerPublishVolume and back.
pub(super) async fn attacher(plane: &ControlPlane, keeper: &Keeper, socket: &Path) -> Result<Process> {
    let arguments = [
        format!("--kubeconfig={}", plane.access().kubeconfig(ATTACHER)?.display()),
        format!("--csi-address={}", socket.display()),
        "--retry-interval-start=500ms".into(),
        "--v=4".into(),
    ];
    Process::start(keeper, plane.folder(), &programs::sidecars()?.join("csi-attacher"), &arguments).await
}
