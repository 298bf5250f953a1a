//! The Node service.

use std::sync::Arc;
use std::time::Duration;

use rds_csi_api::csi::node_server;
use rds_csi_api::csi::node_service_capability::{Rpc as RpcCapability, Type, rpc};
use rds_csi_api::serve::call::{Call, Calls};
use rds_csi_api::status::chain;
use rds_csi_api::{Failure, HealthCalls, NodeName, Rpc, Topology, csi};
use tonic::{Request, Response, Status};

use super::mount_failures::MountFailures;
use super::{answer, parse};
use crate::breaker::Breakers;
use crate::events::Events;
use crate::expand::{self, expand};
use crate::health;
use crate::host::Host;
use crate::publish::{self, publish};
use crate::stage::{self, stage};
use crate::stats::{Measuring, stats};
use crate::unpublish::unpublish;
use crate::unstage::unstage;
use crate::volumes::Volumes;

/// kubelet waits two minutes for each of its calls; it is better told the reason than left to time out.
const DEADLINE: Duration = Duration::from_secs(110);

/// How long the connection of an earlier attachment may take to end.
const WAY_TIME: Duration = Duration::from_secs(40);

/// How long a filesystem may take to say how full it is. kubelet asks for all of a node's volumes, one after the other.
const MEASURING_TIME: Duration = Duration::from_secs(5);

/// What the node says of itself.
#[derive(Debug, Clone)]
pub struct Place {
    /// Its name in Kubernetes.
    pub name: NodeName,
    /// Where it is.
    pub topology: Topology,
    /// How many volumes the scheduler may place on it. Neither NVMe nor the kernel sets a limit that is met: it is one of means.
    /// Each volume is a controller of its own, with a TCP connection and a queue of 128 requests for every CPU and one more: on
    /// 32 CPUs 33 connections and about 3 MiB. 128 volumes are then 4000 connections of the array's and 400 MiB of the node's,
    /// and as many as the larger clouds let a machine have.
    pub max_volumes: u16,
    /// Whether it answers the health calls of CSI 1.13.
    pub health_calls: HealthCalls,
}

/// The service.
#[derive(Debug)]
pub struct Node<H> {
    volumes: Arc<Volumes<H>>,
    place: Place,
    measuring: Measuring,
    failures: MountFailures,
    breakers: Breakers,
    calls: Calls,
}

type Answer<T> = Result<Response<T>, Status>;

impl<H: Host> Node<H> {
    /// Serves the volumes of this node.
    pub fn new(
        volumes: Arc<Volumes<H>>,
        place: Place,
        events: Events,
        breakers: Breakers,
        calls: Calls,
    ) -> Self {
        Self {
            volumes,
            place,
            measuring: Measuring::new(MEASURING_TIME),
            failures: MountFailures::new(events),
            breakers,
            calls,
        }
    }

    /// A request that cannot be served is a call like any other: counted, and logged with its reason.
    async fn refuse<T: Send + 'static>(&self, rpc: Rpc, error: parse::Error) -> Answer<T> {
        self.calls.run(Call::new(rpc), async { Err(error) }).await
    }

    /// Lets a call on the volume end that waits for the connection of an earlier attachment. That call keeps the volume, so this
    /// goes by its lock.
    async fn make_way(&self, wanted: stage::Wanted) {
        let (volumes, volume) = (Arc::clone(&self.volumes), wanted.volume.clone());
        let made = move || stage::make_way(&volumes, &wanted);
        if let Err(error) = self.volumes.reads.run(format!("volume {volume}"), WAY_TIME, made).await {
            tracing::warn!(%volume, "the connection of an earlier attachment may keep it busy: {}", chain(&error));
        }
    }

    /// Runs a verb on a thread of its own, which keeps the volume for as long as it runs.
    async fn run<T, E>(
        &self,
        call: Call<'_>,
        verb: impl FnOnce(&Volumes<H>) -> Result<(), E> + Send + 'static,
    ) -> Answer<T>
    where
        T: Default + Send + 'static,
        E: Failure + Send + 'static,
    {
        let volumes = Arc::clone(&self.volumes);
        self.calls.run_blocking(call, DEADLINE, move || verb(&volumes).map(|()| T::default())).await
    }
}

#[tonic::async_trait]
impl<H: Host> node_server::Node for Node<H> {
    async fn node_stage_volume(
        &self,
        request: Request<csi::NodeStageVolumeRequest>,
    ) -> Answer<csi::NodeStageVolumeResponse> {
        let (wanted, trace) = match parse::stage(&self.volumes, &request.into_inner()) {
            Ok(parsed) => parsed,
            Err(error) => return self.refuse(Rpc::NodeStageVolume, error).await,
        };
        let volume = wanted.volume.clone();
        if self.calls.hold(&volume).is_err() {
            self.make_way(wanted.clone()).await;
        }
        let call = Call::on(Rpc::NodeStageVolume, &volume).continuing(trace.as_ref());
        let (failures, breakers) = (self.failures.clone(), self.breakers.clone());
        self.run(call, move |volumes| {
            let outcome = breakers.guard(&wanted.volume, || stage(volumes, &wanted));
            if let Err(error) = &outcome
                && error.is_of_mount()
            {
                failures.failed(&wanted.volume, error);
            }
            outcome
        })
        .await
    }

    async fn node_unstage_volume(
        &self,
        request: Request<csi::NodeUnstageVolumeRequest>,
    ) -> Answer<csi::NodeUnstageVolumeResponse> {
        let wanted = match parse::unstage(&self.volumes, &request.into_inner()) {
            Ok(wanted) => wanted,
            Err(error) => return self.refuse(Rpc::NodeUnstageVolume, error).await,
        };
        let volume = wanted.volume.clone();
        let (failures, breakers) = (self.failures.clone(), self.breakers.clone());
        self.run(Call::on(Rpc::NodeUnstageVolume, &volume), move |volumes| {
            unstage(volumes, &wanted).inspect(|()| {
                failures.ended(&wanted.volume);
                breakers.forget(&wanted.volume);
            })
        })
        .await
    }

    async fn node_publish_volume(
        &self,
        request: Request<csi::NodePublishVolumeRequest>,
    ) -> Answer<csi::NodePublishVolumeResponse> {
        let (wanted, trace) = match parse::publish(&self.volumes, &request.into_inner()) {
            Ok(parsed) => parsed,
            Err(error) => return self.refuse(Rpc::NodePublishVolume, error).await,
        };
        let volume = wanted.volume.clone();
        let call = Call::on(Rpc::NodePublishVolume, &volume).continuing(trace.as_ref());
        let failures = self.failures.clone();
        self.run(call, move |volumes| {
            let outcome = publish(volumes, &wanted);
            match &outcome {
                Ok(()) => failures.ended(&wanted.volume),
                Err(publish::Error::Host(error)) if error.is_of_mount() => {
                    failures.failed(&wanted.volume, error);
                }
                Err(_) => {}
            }
            outcome
        })
        .await
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<csi::NodeUnpublishVolumeRequest>,
    ) -> Answer<csi::NodeUnpublishVolumeResponse> {
        let wanted = match parse::unpublish(&self.volumes, &request.into_inner()) {
            Ok(wanted) => wanted,
            Err(error) => return self.refuse(Rpc::NodeUnpublishVolume, error).await,
        };
        let volume = wanted.volume.clone();
        self.run(Call::on(Rpc::NodeUnpublishVolume, &volume), move |volumes| unpublish(volumes, &wanted))
            .await
    }

    async fn node_get_info(&self, _: Request<csi::NodeGetInfoRequest>) -> Answer<csi::NodeGetInfoResponse> {
        Ok(Response::new(csi::NodeGetInfoResponse {
            node_id: self.place.name.to_string(),
            max_volumes_per_node: self.place.max_volumes.into(),
            accessible_topology: self.place.topology.to_wire(),
        }))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<csi::NodeGetCapabilitiesRequest>,
    ) -> Answer<csi::NodeGetCapabilitiesResponse> {
        let health: &[_] = match self.place.health_calls {
            HealthCalls::Off => &[],
            HealthCalls::On => &[rpc::Type::GetVolumeHealth, rpc::Type::GetStorageHealth],
        };
        let served = [
            rpc::Type::StageUnstageVolume,
            rpc::Type::GetVolumeStats,
            rpc::Type::ExpandVolume,
            rpc::Type::VolumeCondition,
            rpc::Type::SingleNodeMultiWriter,
        ];
        let capabilities = served.iter().chain(health).map(|served| csi::NodeServiceCapability {
            r#type: Some(Type::Rpc(RpcCapability { r#type: (*served).into() })),
        });
        Ok(Response::new(csi::NodeGetCapabilitiesResponse { capabilities: capabilities.collect() }))
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<csi::NodeGetVolumeStatsRequest>,
    ) -> Answer<csi::NodeGetVolumeStatsResponse> {
        let rpc = Rpc::NodeGetVolumeStats;
        let wanted = match parse::stats(&self.volumes, &request.into_inner()) {
            Ok(wanted) => wanted,
            Err(error) => return self.refuse(rpc, error).await,
        };
        let (volumes, measuring) = (Arc::clone(&self.volumes), self.measuring.clone());
        // Without the volume: a call that only looks waits for nobody, and nobody waits for it.
        self.calls
            .run(Call::new(rpc), async move { stats(volumes, &measuring, wanted).await.map(answer::stats) })
            .await
    }

    async fn node_get_volume_health(
        &self,
        request: Request<csi::NodeGetVolumeHealthRequest>,
    ) -> Answer<csi::NodeGetVolumeHealthResponse> {
        let rpc = Rpc::NodeGetVolumeHealth;
        if self.place.health_calls == HealthCalls::Off {
            return not_served("NodeGetVolumeHealth");
        }
        let volume = match parse::health(request.get_ref()) {
            Ok(volume) => volume,
            Err(error) => return self.refuse(rpc, error).await,
        };
        let (volumes, measuring) = (Arc::clone(&self.volumes), self.measuring.clone());
        self.calls
            .run(Call::new(rpc), async move {
                let health = health::volume(volumes, &measuring, volume.clone()).await;
                health.map(|health| answer::volume_health(&volume, health))
            })
            .await
    }

    async fn node_get_storage_health(
        &self,
        _: Request<csi::NodeGetStorageHealthRequest>,
    ) -> Answer<csi::NodeGetStorageHealthResponse> {
        if self.place.health_calls == HealthCalls::Off {
            return not_served("NodeGetStorageHealth");
        }
        let volumes = Arc::clone(&self.volumes);
        self.calls
            .run(Call::new(Rpc::NodeGetStorageHealth), async move {
                health::storage(volumes).await.map(answer::storage_health)
            })
            .await
    }

    async fn node_expand_volume(
        &self,
        request: Request<csi::NodeExpandVolumeRequest>,
    ) -> Answer<csi::NodeExpandVolumeResponse> {
        let wanted = match parse::expand(&self.volumes, &request.into_inner()) {
            Ok(wanted) => wanted,
            Err(error) => return self.refuse(Rpc::NodeExpandVolume, error).await,
        };
        let (volume, volumes) = (wanted.volume.clone(), Arc::clone(&self.volumes));
        let call = Call::on(Rpc::NodeExpandVolume, &volume);
        self.calls
            .run_blocking(call, DEADLINE, move || {
                let size = expand(&volumes, &wanted)?;
                Ok::<_, expand::Error>(csi::NodeExpandVolumeResponse { capacity_bytes: size.to_wire() })
            })
            .await
    }
}

fn not_served<T>(method: &str) -> Answer<T> {
    Err(Status::unimplemented(format!("{method} is not served; NodeGetCapabilities lists what is")))
}

#[cfg(test)]
mod tests;
