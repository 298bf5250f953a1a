//! The Identity service, by which both programs say that they are one driver.

use tonic::{Request, Response, Status};

use crate::DRIVER_NAME;
use crate::csi::plugin_capability::{Service, Type, service};
use crate::csi::{self, identity_server};

/// What the plugin as a whole offers beside Identity and Node: every instance says the same, whichever of the services it
/// serves itself (CSI 1.13, `GetPluginCapabilities`).
const OFFERED: [Type; 1] = [Type::Service(Service { r#type: service::Type::ControllerService as i32 })];

/// The service.
#[derive(Debug, Clone, Copy)]
pub struct Identity;

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
        let capability = |offered| csi::PluginCapability { r#type: Some(offered) };
        let capabilities = OFFERED.map(capability).into();
        Ok(Response::new(csi::GetPluginCapabilitiesResponse { capabilities }))
    }

    /// Ready while the array is away, too: a restart would not bring it back, and detaching, unpublishing and unstaging
    /// must go on.
    async fn probe(&self, _: Request<csi::ProbeRequest>) -> Result<Response<csi::ProbeResponse>, Status> {
        Ok(Response::new(csi::ProbeResponse { ready: Some(true) }))
    }
}
