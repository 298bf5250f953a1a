//! The Identity service, by which both programs say that they are one driver.

use tonic::{Request, Response, Status};

use crate::DRIVER_NAME;
use crate::csi::plugin_capability::{Service, Type, VolumeExpansion, service, volume_expansion};
use crate::csi::{self, identity_server};

/// What the plugin as a whole offers beside Identity and Node: every instance says the same, whichever of the services it
/// serves itself (CSI 1.13, `GetPluginCapabilities`).
const OFFERED: [Type; 2] = [
    Type::Service(Service { r#type: service::Type::ControllerService as i32 }),
    Type::VolumeExpansion(VolumeExpansion { r#type: volume_expansion::Type::Online as i32 }),
];

/// The service, which differs only in whether every node reaches every volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// It does.
    Everywhere,
    /// Volumes are reached by nodes with their labels.
    ByTopology,
}

#[tonic::async_trait]
impl identity_server::Identity for Identity {
    async fn get_plugin_info(
        &self,
        _: Request<csi::GetPluginInfoRequest>,
    ) -> Result<Response<csi::GetPluginInfoResponse>, Status> {
        Ok(Response::new(csi::GetPluginInfoResponse {
            name: DRIVER_NAME.into(),
            vendor_version: env!("CARGO_PKG_VERSION").into(),
            manifest: [].into(),
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<csi::GetPluginCapabilitiesRequest>,
    ) -> Result<Response<csi::GetPluginCapabilitiesResponse>, Status> {
        let constraints =
            Type::Service(Service { r#type: service::Type::VolumeAccessibilityConstraints as i32 });
        let offered = OFFERED.into_iter().chain((*self == Self::ByTopology).then_some(constraints));
        let capabilities = offered.map(|offered| csi::PluginCapability { r#type: Some(offered) }).collect();
        Ok(Response::new(csi::GetPluginCapabilitiesResponse { capabilities }))
    }

    /// Ready while the array is away, too: a restart would not bring it back, and detaching, unpublishing and unstaging
    /// must go on.
    async fn probe(&self, _: Request<csi::ProbeRequest>) -> Result<Response<csi::ProbeResponse>, Status> {
        Ok(Response::new(csi::ProbeResponse { ready: Some(true) }))
    }
}
