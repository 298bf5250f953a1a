//! The Controller service.

use std::sync::Arc;

use rds_csi_api::csi::controller_server;
use rds_csi_api::csi::controller_service_capability::{Rpc as RpcCapability, Type, rpc};
use rds_csi_api::serve::call::{Call, Calls};
use rds_csi_api::{ManagedPrefix, PublishContext, Rpc, csi, status};
use tonic::{Request, Response, Status};

use super::parse;
use crate::array::Array;
use crate::attachments::store::Store;
use crate::backends::{Backend, Backends};
use crate::create::{Created, create};
use crate::delete::delete;
use crate::node_agents::Witness;
use crate::publish::publish;
use crate::unpublish::unpublish;
use crate::validate::validate;

/// What the verbs work with.
#[derive(Debug)]
pub struct Driver<A, S, W> {
    /// The arrays.
    pub backends: Backends<A>,
    /// Who holds what.
    pub store: S,
    /// Who can say what a node has.
    pub nodes: W,
    /// Which volumes of the arrays are the driver's.
    pub prefix: ManagedPrefix,
}

/// The service.
#[derive(Debug)]
pub struct Controller<A, S, W> {
    driver: Arc<Driver<A, S, W>>,
    calls: Calls,
}

type Answer<T> = Result<Response<T>, Status>;

impl<A: Array, S: Store, W: Witness> Controller<A, S, W> {
    /// Serves with this, and counts in `calls`.
    pub fn new(driver: impl Into<Arc<Driver<A, S, W>>>, calls: Calls) -> Self {
        Self { driver: driver.into(), calls }
    }

    /// A request that cannot be served is a call like any other: counted, and logged with its reason.
    async fn refuse<T: Send + 'static>(&self, rpc: Rpc, error: parse::Error) -> Answer<T> {
        self.calls.run(Call::new(rpc), async { Err(error) }).await
    }
}

#[tonic::async_trait]
impl<A: Array, S: Store, W: Witness> controller_server::Controller for Controller<A, S, W> {
    async fn create_volume(
        &self,
        request: Request<csi::CreateVolumeRequest>,
    ) -> Answer<csi::CreateVolumeResponse> {
        let Driver { backends, prefix, .. } = &*self.driver;
        let (backend, request) = match parse::create(&request.into_inner(), backends, prefix) {
            Ok(parsed) => parsed,
            Err(error) => return self.refuse(Rpc::CreateVolume, error).await,
        };
        let id = request.id.clone();
        let work = async move { create(&backend, request).await.map(created) };
        self.calls.run(Call::on(Rpc::CreateVolume, &id), work).await
    }

    async fn delete_volume(
        &self,
        request: Request<csi::DeleteVolumeRequest>,
    ) -> Answer<csi::DeleteVolumeResponse> {
        let driver = Arc::clone(&self.driver);
        let volume_id = request.into_inner().volume_id;
        let (backend, id) = match parse::volume_id(&volume_id, &driver.backends, &driver.prefix) {
            Ok(parsed) => parsed,
            Err(error) => return self.refuse(Rpc::DeleteVolume, error).await,
        };
        let volume = id.clone();
        let work = async move {
            delete(&backend.array, &driver.store, volume).await.map(|()| csi::DeleteVolumeResponse {})
        };
        self.calls.run(Call::on(Rpc::DeleteVolume, &id), work).await
    }

    async fn controller_publish_volume(
        &self,
        request: Request<csi::ControllerPublishVolumeRequest>,
    ) -> Answer<csi::ControllerPublishVolumeResponse> {
        let driver = Arc::clone(&self.driver);
        let (backend, request) = match parse::publish(&request.into_inner(), &driver.backends, &driver.prefix)
        {
            Ok(parsed) => parsed,
            Err(error) => return self.refuse(Rpc::ControllerPublishVolume, error).await,
        };
        let id = request.id.clone();
        let work = async move {
            let context = publish(&backend.array, &driver.store, backend.fence, request).await;
            context.map(|context| published(&context))
        };
        self.calls.run(Call::on(Rpc::ControllerPublishVolume, &id), work).await
    }

    async fn controller_unpublish_volume(
        &self,
        request: Request<csi::ControllerUnpublishVolumeRequest>,
    ) -> Answer<csi::ControllerUnpublishVolumeResponse> {
        let driver = Arc::clone(&self.driver);
        let (backend, (id, from)) =
            match parse::unpublish(&request.into_inner(), &driver.backends, &driver.prefix) {
                Ok(parsed) => parsed,
                Err(error) => return self.refuse(Rpc::ControllerUnpublishVolume, error).await,
            };
        let volume = id.clone();
        let work = async move {
            let Driver { store, nodes, .. } = &*driver;
            unpublish(&backend.array, store, nodes, backend.fence, volume, from).await?;
            Ok::<_, crate::unpublish::Error>(csi::ControllerUnpublishVolumeResponse {})
        };
        self.calls.run(Call::on(Rpc::ControllerUnpublishVolume, &id), work).await
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<csi::ValidateVolumeCapabilitiesRequest>,
    ) -> Answer<csi::ValidateVolumeCapabilitiesResponse> {
        let Driver { backends, prefix, .. } = &*self.driver;
        let request = request.into_inner();
        let parsed = match parse::volume_id(&request.volume_id, backends, prefix) {
            Ok(_) if request.volume_capabilities.is_empty() => Err(parse::Error::NoCapabilities),
            parsed => parsed,
        };
        let (backend, id) = match parsed {
            Ok(parsed) => parsed,
            Err(error) => return self.refuse(Rpc::ValidateVolumeCapabilities, error).await,
        };
        let answer = validated(request, &backend);
        let work = async move { validate(&backend.array, id).await.map(|()| answer) };
        self.calls.run(Call::new(Rpc::ValidateVolumeCapabilities), work).await
    }

    async fn controller_get_capabilities(
        &self,
        _: Request<csi::ControllerGetCapabilitiesRequest>,
    ) -> Answer<csi::ControllerGetCapabilitiesResponse> {
        use rpc::Type::{CreateDeleteVolume, PublishUnpublishVolume, SingleNodeMultiWriter};
        let capabilities =
            [CreateDeleteVolume, PublishUnpublishVolume, SingleNodeMultiWriter].map(|served| {
                csi::ControllerServiceCapability {
                    r#type: Some(Type::Rpc(RpcCapability { r#type: served.into() })),
                }
            });
        Ok(Response::new(csi::ControllerGetCapabilitiesResponse { capabilities: capabilities.into() }))
    }

    async fn list_volumes(&self, _: Request<csi::ListVolumesRequest>) -> Answer<csi::ListVolumesResponse> {
        not_served("ListVolumes")
    }

    async fn controller_list_volume_health(
        &self,
        _: Request<csi::ControllerListVolumeHealthRequest>,
    ) -> Answer<csi::ControllerListVolumeHealthResponse> {
        not_served("ControllerListVolumeHealth")
    }

    async fn controller_get_volume_health(
        &self,
        _: Request<csi::ControllerGetVolumeHealthRequest>,
    ) -> Answer<csi::ControllerGetVolumeHealthResponse> {
        not_served("ControllerGetVolumeHealth")
    }

    async fn get_capacity(&self, _: Request<csi::GetCapacityRequest>) -> Answer<csi::GetCapacityResponse> {
        not_served("GetCapacity")
    }

    async fn create_snapshot(
        &self,
        _: Request<csi::CreateSnapshotRequest>,
    ) -> Answer<csi::CreateSnapshotResponse> {
        not_served("CreateSnapshot")
    }

    async fn delete_snapshot(
        &self,
        _: Request<csi::DeleteSnapshotRequest>,
    ) -> Answer<csi::DeleteSnapshotResponse> {
        not_served("DeleteSnapshot")
    }

    async fn list_snapshots(
        &self,
        _: Request<csi::ListSnapshotsRequest>,
    ) -> Answer<csi::ListSnapshotsResponse> {
        not_served("ListSnapshots")
    }

    async fn get_snapshot(&self, _: Request<csi::GetSnapshotRequest>) -> Answer<csi::GetSnapshotResponse> {
        not_served("GetSnapshot")
    }

    async fn controller_expand_volume(
        &self,
        _: Request<csi::ControllerExpandVolumeRequest>,
    ) -> Answer<csi::ControllerExpandVolumeResponse> {
        not_served("ControllerExpandVolume")
    }

    async fn controller_get_volume(
        &self,
        _: Request<csi::ControllerGetVolumeRequest>,
    ) -> Answer<csi::ControllerGetVolumeResponse> {
        not_served("ControllerGetVolume")
    }

    async fn controller_modify_volume(
        &self,
        _: Request<csi::ControllerModifyVolumeRequest>,
    ) -> Answer<csi::ControllerModifyVolumeResponse> {
        not_served("ControllerModifyVolume")
    }
}

fn not_served<T>(method: &str) -> Answer<T> {
    Err(Status::unimplemented(format!("{method} is not served; ControllerGetCapabilities lists what is")))
}

fn created(created: Created) -> csi::CreateVolumeResponse {
    let Created { volume, context } = created;
    csi::CreateVolumeResponse {
        volume: Some(csi::Volume {
            capacity_bytes: volume.size.to_wire(),
            volume_id: volume.id.to_string(),
            volume_context: context.to_map(),
            content_source: None,
            accessible_topology: vec![],
        }),
    }
}

fn published(context: &PublishContext) -> csi::ControllerPublishVolumeResponse {
    csi::ControllerPublishVolumeResponse { publish_context: context.to_map() }
}

/// Confirms what was asked if all of it can be served; else says what cannot, which is no error (CSI 1.13).
fn validated<A>(
    request: csi::ValidateVolumeCapabilitiesRequest,
    backend: &Backend<A>,
) -> csi::ValidateVolumeCapabilitiesResponse {
    use csi::validate_volume_capabilities_response::Confirmed;
    match parse::usable(&request, backend) {
        Err(error) => {
            csi::ValidateVolumeCapabilitiesResponse { confirmed: None, message: status::chain(&error) }
        }
        Ok(()) => csi::ValidateVolumeCapabilitiesResponse {
            confirmed: Some(Confirmed {
                volume_context: request.volume_context,
                volume_capabilities: request.volume_capabilities,
                parameters: request.parameters,
                mutable_parameters: [].into(),
            }),
            message: String::new(),
        },
    }
}
