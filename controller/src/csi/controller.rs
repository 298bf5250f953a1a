//! The Controller service.

use std::future::Future;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::SystemTime;

use rds_csi_api::csi::controller_server;
use rds_csi_api::serve::call::{Call, Calls};
use rds_csi_api::{Failure, HealthCalls, ManagedPrefix, Rpc, SnapshotId, VolumeId, csi, status};
use tonic::{Request, Response, Status};

use super::answer;
use super::parse::volume::Validation;
use super::parse::{self, On, attachment, id, snapshot, volume};
use crate::array::Array;
use crate::attachments::{Ledger, Parties};
use crate::backends::{Backend, Backends};
use crate::capacity::{Room, capacity};
use crate::create::create;
use crate::delete::{delete, is_nobodys};
use crate::expand::expand;
use crate::get_volume::get_volume;
use crate::list_snapshots::list_snapshots;
use crate::list_volumes::{list_unwell, list_volumes};
use crate::modify::modify;
use crate::node_agents::Witness;
use crate::page::Asked;
use crate::publish::publish;
use crate::snapshot as snapshots;
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
    /// How many volumes a node holds at most.
    pub volumes_per_node: NonZeroU16,
    /// Whether the health calls of CSI 1.13 are answered.
    pub health_calls: HealthCalls,
}

impl<A, S, W> Driver<A, S, W> {
    /// With whom it is settled who holds a volume of that array.
    pub fn parties<'a>(&'a self, backend: &'a Backend<A>) -> Parties<'a, A, S, W> {
        let Self { store: ledger, nodes, .. } = self;
        Parties { array: &backend.array, fence: backend.fence, ledger, nodes }
    }
}

/// The service.
#[derive(Debug)]
pub struct Controller<A, S, W> {
    driver: Arc<Driver<A, S, W>>,
    calls: Calls,
}

type Answer<T> = Result<Response<T>, Status>;

impl<A: Array, S: Ledger, W: Witness> Controller<A, S, W> {
    /// Serves with this, and counts in `calls`.
    pub fn new(driver: impl Into<Arc<Driver<A, S, W>>>, calls: Calls) -> Self {
        Self { driver: driver.into(), calls }
    }

    fn backends(&self) -> &Backends<A> {
        &self.driver.backends
    }

    fn prefix(&self) -> &ManagedPrefix {
        &self.driver.prefix
    }

    /// Runs a call that changes what its request names. One that cannot be served is a call like any other: counted, and
    /// logged with its reason.
    async fn change<R, T, E, F>(
        &self,
        rpc: Rpc,
        parsed: Result<On<A, R>, parse::Error>,
        place: impl FnOnce(&R) -> VolumeId,
        work: impl FnOnce(Arc<Driver<A, S, W>>, Arc<Backend<A>>, R) -> F,
    ) -> Answer<T>
    where
        T: Send + 'static,
        E: Failure + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        match parsed {
            Ok((backend, request)) => {
                let place = place(&request);
                let work = work(Arc::clone(&self.driver), backend, request);
                self.calls.run(Call::on(rpc, &place), work).await
            }
            Err(error) => self.calls.run(Call::new(rpc), async { Err(error) }).await,
        }
    }

    /// Runs a call that changes nothing, and so waits for nobody.
    async fn look<R, T, E, F>(
        &self,
        rpc: Rpc,
        parsed: Result<R, parse::Error>,
        work: impl FnOnce(Arc<Driver<A, S, W>>, R) -> F,
    ) -> Answer<T>
    where
        T: Send + 'static,
        E: Failure + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        match parsed {
            Ok(request) => self.calls.run(Call::new(rpc), work(Arc::clone(&self.driver), request)).await,
            Err(error) => self.calls.run(Call::new(rpc), async { Err(error) }).await,
        }
    }

    /// As [`Self::change`], for what may be certain not to exist.
    async fn remove<R, T, E, F>(
        &self,
        rpc: Rpc,
        parsed: Result<On<A, R>, parse::Error>,
        place: impl FnOnce(&R) -> VolumeId,
        work: impl FnOnce(Arc<Driver<A, S, W>>, Arc<Backend<A>>, R) -> F,
    ) -> Answer<T>
    where
        T: Default + Send + 'static,
        E: Failure + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        match id::to_delete(parsed) {
            Ok(Some(parsed)) => self.change(rpc, Ok(parsed), place, work).await,
            Ok(None) => self.calls.run(Call::new(rpc), async { Ok::<_, E>(T::default()) }).await,
            Err(error) => self.change(rpc, Err(error), place, work).await,
        }
    }
}

/// A snapshot is locked like a volume of its name: on the array both have one.
fn place(id: &SnapshotId) -> VolumeId {
    id.as_str().parse().expect("every snapshot id is spelt as a volume id may be")
}

#[tonic::async_trait]
impl<A: Array, S: Ledger, W: Witness> controller_server::Controller for Controller<A, S, W> {
    async fn create_volume(
        &self,
        request: Request<csi::CreateVolumeRequest>,
    ) -> Answer<csi::CreateVolumeResponse> {
        let parsed = volume::create(request.get_ref(), self.backends(), self.prefix());
        let id = |request: &crate::create::Request| request.id.clone();
        self.change(Rpc::CreateVolume, parsed, id, |_, backend, request| async move {
            create(&backend, request).await.map(answer::created)
        })
        .await
    }

    async fn delete_volume(
        &self,
        request: Request<csi::DeleteVolumeRequest>,
    ) -> Answer<csi::DeleteVolumeResponse> {
        let parsed = id::volume(&request.get_ref().volume_id, self.backends(), self.prefix());
        if let Some(parsed) = id::not_managed(&parsed, self.backends()) {
            let work = |_, (backend, id): On<A, _>| async move {
                is_nobodys(&backend.array, id).await.map(|()| csi::DeleteVolumeResponse {})
            };
            return self.look(Rpc::DeleteVolume, parsed, work).await;
        }
        self.remove(Rpc::DeleteVolume, parsed, VolumeId::clone, |driver, backend, id| async move {
            let Driver { store, nodes, .. } = &*driver;
            let outcome = delete(&backend.array, store, nodes, backend.fence, id).await;
            outcome.map(|()| csi::DeleteVolumeResponse {})
        })
        .await
    }

    async fn controller_publish_volume(
        &self,
        request: Request<csi::ControllerPublishVolumeRequest>,
    ) -> Answer<csi::ControllerPublishVolumeResponse> {
        let parsed = attachment::publish(request.get_ref(), self.backends(), self.prefix());
        let id = |request: &crate::publish::Request| request.id.clone();
        self.change(Rpc::ControllerPublishVolume, parsed, id, |driver, backend, request| async move {
            let parties = driver.parties(&backend);
            let context = publish(&parties, driver.volumes_per_node, request, SystemTime::now()).await;
            context.map(|context| answer::published(&context))
        })
        .await
    }

    async fn controller_unpublish_volume(
        &self,
        request: Request<csi::ControllerUnpublishVolumeRequest>,
    ) -> Answer<csi::ControllerUnpublishVolumeResponse> {
        let parsed = attachment::unpublish(request.get_ref(), self.backends(), self.prefix());
        let id = |(id, _): &(VolumeId, _)| id.clone();
        self.change(Rpc::ControllerUnpublishVolume, parsed, id, |driver, backend, (id, from)| async move {
            let outcome = unpublish(&driver.parties(&backend), id, from, SystemTime::now()).await;
            outcome.map(|()| csi::ControllerUnpublishVolumeResponse {})
        })
        .await
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<csi::ValidateVolumeCapabilitiesRequest>,
    ) -> Answer<csi::ValidateVolumeCapabilitiesResponse> {
        let request = request.into_inner();
        let parsed = volume::validate(&request, self.backends(), self.prefix());
        self.look(
            Rpc::ValidateVolumeCapabilities,
            parsed,
            |_, (backend, Validation { id, known })| async move {
                let verdict = validate(&backend.array, &id, known.map_err(|why| status::chain(&why))).await;
                verdict.map(|verdict| answer::validated(request, verdict))
            },
        )
        .await
    }

    async fn list_volumes(
        &self,
        request: Request<csi::ListVolumesRequest>,
    ) -> Answer<csi::ListVolumesResponse> {
        let csi::ListVolumesRequest { max_entries, starting_token } = request.into_inner();
        let parsed = Asked::parse(max_entries, &starting_token).map_err(parse::Error::from);
        self.look(Rpc::ListVolumes, parsed, |driver, asked| async move {
            let Driver { backends, store, prefix, .. } = &*driver;
            list_volumes(backends, store, prefix, &asked).await.map(answer::listed)
        })
        .await
    }

    async fn controller_get_volume(
        &self,
        request: Request<csi::ControllerGetVolumeRequest>,
    ) -> Answer<csi::ControllerGetVolumeResponse> {
        let parsed = id::volume(&request.get_ref().volume_id, self.backends(), self.prefix());
        self.look(Rpc::ControllerGetVolume, parsed, |driver, (backend, id)| async move {
            let Driver { store, nodes, .. } = &*driver;
            get_volume(&backend, store, nodes, id).await.map(answer::found)
        })
        .await
    }

    async fn get_capacity(
        &self,
        request: Request<csi::GetCapacityRequest>,
    ) -> Answer<csi::GetCapacityResponse> {
        let parsed = volume::capacity(request.get_ref(), self.backends());
        self.look(Rpc::GetCapacity, parsed, |_, asked| async move {
            let Some((backend, capabilities)) = asked else { return Ok(answer::capacity(Room::NONE)) };
            capacity(&backend.array, &capabilities).await.map(answer::capacity)
        })
        .await
    }

    async fn controller_expand_volume(
        &self,
        request: Request<csi::ControllerExpandVolumeRequest>,
    ) -> Answer<csi::ControllerExpandVolumeResponse> {
        let parsed = volume::expand(request.get_ref(), self.backends(), self.prefix());
        let id = |(id, _): &(VolumeId, _)| id.clone();
        self.change(Rpc::ControllerExpandVolume, parsed, id, |_, backend, (id, range)| async move {
            expand(&backend.array, id, range).await.map(|volume| answer::expanded(&volume))
        })
        .await
    }

    async fn controller_modify_volume(
        &self,
        request: Request<csi::ControllerModifyVolumeRequest>,
    ) -> Answer<csi::ControllerModifyVolumeResponse> {
        let parsed = volume::modify(request.into_inner(), self.backends(), self.prefix());
        let id = |request: &crate::modify::Request| request.id.clone();
        self.change(Rpc::ControllerModifyVolume, parsed, id, |_, backend, request| async move {
            let outcome = modify(&backend.array, request).await;
            outcome.map(|()| csi::ControllerModifyVolumeResponse {})
        })
        .await
    }

    async fn create_snapshot(
        &self,
        request: Request<csi::CreateSnapshotRequest>,
    ) -> Answer<csi::CreateSnapshotResponse> {
        let parsed = snapshot::take(request.get_ref(), self.backends(), self.prefix());
        let id = |(id, _): &(SnapshotId, _)| place(id);
        self.change(Rpc::CreateSnapshot, parsed, id, |_, backend, (id, source)| async move {
            snapshots::take(&backend.array, id, source, SystemTime::now())
                .await
                .map(|taken| answer::taken(&taken))
        })
        .await
    }

    async fn delete_snapshot(
        &self,
        request: Request<csi::DeleteSnapshotRequest>,
    ) -> Answer<csi::DeleteSnapshotResponse> {
        let parsed = id::snapshot(&request.get_ref().snapshot_id, self.backends());
        self.remove(Rpc::DeleteSnapshot, parsed, place, |_, backend, id| async move {
            snapshots::delete(&backend.array, id).await.map(|()| csi::DeleteSnapshotResponse {})
        })
        .await
    }

    async fn list_snapshots(
        &self,
        request: Request<csi::ListSnapshotsRequest>,
    ) -> Answer<csi::ListSnapshotsResponse> {
        let parsed = snapshot::list(request.get_ref(), self.backends(), self.prefix());
        self.look(Rpc::ListSnapshots, parsed, |driver, (which, asked)| async move {
            list_snapshots(&driver.backends, which, &asked).await.map(|page| answer::listed_snapshots(&page))
        })
        .await
    }

    async fn get_snapshot(
        &self,
        request: Request<csi::GetSnapshotRequest>,
    ) -> Answer<csi::GetSnapshotResponse> {
        let parsed = id::snapshot(&request.get_ref().snapshot_id, self.backends());
        self.look(Rpc::GetSnapshot, parsed, |_, (backend, id)| async move {
            snapshots::find(&backend.array, id).await.map(|found| answer::found_snapshot(&found))
        })
        .await
    }

    async fn controller_get_capabilities(
        &self,
        _: Request<csi::ControllerGetCapabilitiesRequest>,
    ) -> Answer<csi::ControllerGetCapabilitiesResponse> {
        Ok(Response::new(answer::capabilities(self.backends(), self.driver.health_calls)))
    }

    async fn controller_list_volume_health(
        &self,
        request: Request<csi::ControllerListVolumeHealthRequest>,
    ) -> Answer<csi::ControllerListVolumeHealthResponse> {
        if self.driver.health_calls == HealthCalls::Off {
            return not_served("ControllerListVolumeHealth");
        }
        let csi::ControllerListVolumeHealthRequest { max_entries, starting_token, .. } = request.into_inner();
        let parsed = Asked::parse(max_entries, &starting_token).map_err(parse::Error::from);
        self.look(Rpc::ControllerListVolumeHealth, parsed, |driver, asked| async move {
            let Driver { backends, store, prefix, .. } = &*driver;
            list_unwell(backends, store, prefix, &asked).await.map(answer::listed_health)
        })
        .await
    }

    async fn controller_get_volume_health(
        &self,
        request: Request<csi::ControllerGetVolumeHealthRequest>,
    ) -> Answer<csi::ControllerGetVolumeHealthResponse> {
        if self.driver.health_calls == HealthCalls::Off {
            return not_served("ControllerGetVolumeHealth");
        }
        let parsed = id::volume(&request.get_ref().volume_id, self.backends(), self.prefix());
        self.look(Rpc::ControllerGetVolumeHealth, parsed, |driver, (backend, id)| async move {
            let Driver { store, nodes, .. } = &*driver;
            get_volume(&backend, store, nodes, id).await.map(answer::found_health)
        })
        .await
    }
}

fn not_served<T>(method: &str) -> Answer<T> {
    Err(Status::unimplemented(format!("{method} is not served; ControllerGetCapabilities lists what is")))
}
