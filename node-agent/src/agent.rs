//! The internal API: what the controller asks a node about its volumes, and what it is told of them. Only its override changes what
//! the node has of one.
//!
//! Mutual TLS lets in whoever has a certificate of the cluster's authority; of those only the controller is answered.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use rds_csi_api::node_agent::{self as wire, node_agent_server};
use rds_csi_api::serve::call::{Call, Calls};
use rds_csi_api::text::Malformed;
use rds_csi_api::{Failure, Kind, Nqn, ReconnectPolicy, Rpc, VolumeId};
use tokio_util::sync::CancellationToken;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use crate::breaker::Breakers;
use crate::detach::{self, Detached, Order};
use crate::events::{Ahead, Event, Events, Reader};
use crate::host::{self, Holder, Host, ManagedNqn, NotManaged, Target, Use};
use crate::inspect::{self, Connection, Volume};
use crate::reads;
use crate::repairs::Permission;
use crate::volumes::{self, Record, Volumes, record};

mod caller;
pub mod tls;

/// Reading sysfs and /proc takes milliseconds; the controller waits for 5 s.
const DEADLINE: Duration = Duration::from_secs(5);

/// Ending a connection takes the kernel longer.
const DETACH_TIME: Duration = Duration::from_mins(1);

/// The longest word for who asks, and why.
const LONGEST: usize = 1024;

/// The service.
#[derive(Debug)]
pub struct Agent<H> {
    volumes: Arc<Volumes<H>>,
    events: Events,
    breakers: Breakers,
    calls: Calls,
    shutdown: CancellationToken,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Caller(#[from] caller::Stranger),
    #[error("the request is malformed")]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    NotManaged(#[from] NotManaged),
    #[error(transparent)]
    Volumes(#[from] volumes::Error),
    #[error(transparent)]
    Reads(#[from] reads::Error),
    #[error(transparent)]
    Ahead(#[from] Ahead),
    #[error(transparent)]
    Record(#[from] record::Error),
    #[error(transparent)]
    Host(#[from] host::Error),
    #[error(transparent)]
    Detach(#[from] detach::Error),
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Caller(_) => Kind::Forbidden,
            Self::Malformed(_) | Self::NotManaged(_) => Kind::Invalid,
            Self::Volumes(error) => error.kind(),
            Self::Reads(error) => error.kind(),
            Self::Ahead(error) => error.kind(),
            Self::Record(error) => error.kind(),
            Self::Host(error) => error.kind(),
            Self::Detach(error) => error.kind(),
        }
    }
}

impl<H: Host> Agent<H> {
    /// Tells of these volumes. Whoever watches events is hung up on at the shutdown.
    pub fn new(
        volumes: Arc<Volumes<H>>,
        events: Events,
        breakers: Breakers,
        calls: Calls,
        shutdown: CancellationToken,
    ) -> Self {
        Self { volumes, events, breakers, calls, shutdown }
    }

    /// Before anything is done for the caller. A stranger's call is counted and logged like any other.
    async fn check<T>(&self, rpc: Rpc, request: &Request<T>) -> Result<(), Status> {
        match caller::check(request) {
            Ok(()) => Ok(()),
            Err(stranger) => self
                .calls
                .run(Call::new(rpc), async { Err::<(), _>(Error::Caller(stranger)) })
                .await
                .map(drop),
        }
    }
}

#[tonic::async_trait]
impl<H: Host> node_agent_server::NodeAgent for Agent<H> {
    async fn list_volumes(
        &self,
        request: Request<wire::ListVolumesRequest>,
    ) -> Result<Response<wire::ListVolumesResponse>, Status> {
        self.check(Rpc::AgentListVolumes, &request).await?;
        let (volumes, reads) = (Arc::clone(&self.volumes), self.volumes.reads.clone());
        let answer = move || {
            let all = inspect::all(&volumes)?;
            let volumes = all.into_iter().map(told).collect();
            Ok::<_, Error>(wire::ListVolumesResponse { volumes })
        };
        let look = async move { reads.run("every volume", DEADLINE, answer).await };
        self.calls.run(Call::new(Rpc::AgentListVolumes), look).await
    }

    async fn get_volume(
        &self,
        request: Request<wire::GetVolumeRequest>,
    ) -> Result<Response<wire::GetVolumeResponse>, Status> {
        self.check(Rpc::AgentGetVolume, &request).await?;
        let (volumes, reads) = (Arc::clone(&self.volumes), self.volumes.reads.clone());
        let what = format!("volume {:?}", request.get_ref().volume_id);
        let answer = move || {
            let wire::GetVolumeRequest { volume_id, nqn } = request.into_inner();
            let (volume, _) = meant(&volumes, &volume_id, &nqn)?;
            let volume = inspect::one(&volumes, &volume)?.map(told);
            Ok::<_, Error>(wire::GetVolumeResponse { volume })
        };
        let look = async move { reads.run(what, DEADLINE, answer).await };
        self.calls.run(Call::new(Rpc::AgentGetVolume), look).await
    }

    type WatchEventsStream = BoxStream<wire::WatchEventsResponse>;

    async fn watch_events(
        &self,
        request: Request<wire::WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        self.check(Rpc::AgentWatchEvents, &request).await?;
        let (events, shutdown) = (self.events.clone(), self.shutdown.clone());
        let answer = async move {
            let wire::WatchEventsRequest { instance, after } = request.into_inner();
            let reader = events.reader(&instance, after)?;
            let first =
                wire::WatchEventsResponse { instance: events.instance().into(), ..Default::default() };
            let rest = stream::unfold(reader, next).take_until(shutdown.cancelled_owned());
            Ok::<_, Error>(stream::once(ready(Ok(first))).chain(rest).boxed())
        };
        self.calls.run(Call::new(Rpc::AgentWatchEvents), answer).await
    }

    async fn reset_breaker(
        &self,
        request: Request<wire::ResetBreakerRequest>,
    ) -> Result<Response<wire::ResetBreakerResponse>, Status> {
        self.check(Rpc::AgentResetBreaker, &request).await?;
        let breakers = self.breakers.clone();
        // Without the volume's lock: a call that hangs does not keep a person from it.
        let answer = async move {
            let volume: VolumeId = request.into_inner().volume_id.parse()?;
            let open = breakers.reset(&volume);
            tracing::info!(%volume, was_open = open.is_some(), "the circuit breaker is reset");
            let was_open = open.map(|open| open.to_string()).unwrap_or_default();
            Ok::<_, Error>(wire::ResetBreakerResponse { was_open })
        };
        self.calls.run(Call::new(Rpc::AgentResetBreaker), answer).await
    }

    async fn set_reconnect_policy(
        &self,
        request: Request<wire::SetReconnectPolicyRequest>,
    ) -> Result<Response<wire::SetReconnectPolicyResponse>, Status> {
        let rpc = Rpc::AgentSetReconnectPolicy;
        self.check(rpc, &request).await?;
        let wire::SetReconnectPolicyRequest { volume_id, nqn, policy } = request.into_inner();
        let parsed = || {
            let reconnect = ReconnectPolicy::parse(|key| policy.get(key).map(String::as_str))?;
            Ok::<_, Error>((meant(&self.volumes, &volume_id, &nqn)?, reconnect))
        };
        let ((volume, nqn), reconnect) = match parsed() {
            Ok(parsed) => parsed,
            Err(error) => return self.calls.run(Call::new(rpc), async { Err(error) }).await,
        };
        let (volumes, id) = (Arc::clone(&self.volumes), volume.clone());
        let change = move || {
            let Some(record) = volumes.records.read(&volume)? else {
                return Ok::<_, Error>(wire::SetReconnectPolicyResponse { kept: false });
            };
            let portal = record.portal;
            // First: a repeated stage goes by it.
            volumes.records.write(&Record { policy: Some(reconnect), ..record })?;
            volumes.host.retune(&Target { nqn, portal, reconnect })?;
            Ok(wire::SetReconnectPolicyResponse { kept: true })
        };
        self.calls.run_blocking(Call::on(rpc, &id), DEADLINE, change).await
    }

    async fn allow_repair(
        &self,
        request: Request<wire::AllowRepairRequest>,
    ) -> Result<Response<wire::AllowRepairResponse>, Status> {
        self.check(Rpc::AgentAllowRepair, &request).await?;
        let repairs = self.volumes.repairs.clone();
        let answer = async move {
            let wire::AllowRepairRequest { volume_id, asked_by, reason } = request.into_inner();
            let volume: VolumeId = volume_id.parse()?;
            let (asked_by, reason) = (line("asked_by", asked_by)?, line("reason", reason)?);
            tracing::warn!(%volume, asked_by, reason, "a repair is allowed that may lose some of the filesystem");
            repairs.allow(&volume, Permission { asked_by, reason });
            Ok::<_, Error>(wire::AllowRepairResponse {})
        };
        self.calls.run(Call::new(Rpc::AgentAllowRepair), answer).await
    }

    async fn detach(
        &self,
        request: Request<wire::DetachRequest>,
    ) -> Result<Response<wire::DetachResponse>, Status> {
        let rpc = Rpc::AgentDetach;
        self.check(rpc, &request).await?;
        let volumes = Arc::clone(&self.volumes);
        let (calls, breakers, events) = (self.calls.clone(), self.breakers.clone(), self.events.clone());
        let forced = move || {
            let wire::DetachRequest { volume_id, nqn, asked_by, reason } = request.into_inner();
            let (volume, _) = meant(&volumes, &volume_id, &nqn)?;
            let (asked_by, reason) = (line("asked_by", asked_by)?, line("reason", reason)?);
            let order = Order { volume, asked_by, reason };
            let Detached { done, holders, left } =
                detach::detach(&volumes, &calls, &breakers, &events, &order)?;
            let holders = holders.into_iter().map(holder).collect();
            Ok::<_, Error>(wire::DetachResponse { done, holders, left })
        };
        // Without the volume's lock, since a call that hangs is what somebody may want to end.
        self.calls.run_blocking(Call::new(rpc), DETACH_TIME, forced).await
    }
}

/// The volume that an asker means, and its NQN. Whoever means another volume than they say are told so, and nothing else.
fn meant<H>(volumes: &Volumes<H>, volume: &str, nqn: &str) -> Result<(VolumeId, ManagedNqn), Error> {
    let volume: VolumeId = volume.parse()?;
    let nqn = ManagedNqn::of_volume(&volumes.prefix, nqn.parse::<Nqn>()?, &volume)?;
    Ok((volume, nqn))
}

/// A line of text for the log. Without one nobody would know later who did what, and why.
fn line(field: &'static str, text: String) -> Result<String, Malformed> {
    let usable = !text.trim().is_empty() && text.len() <= LONGEST && !text.contains(char::is_control);
    let rule = "give one line, 1024 bytes at most, that says who wants it, or why";
    if usable { Ok(text) } else { Err(Malformed::new(field, &text, rule)) }
}

async fn next(mut reader: Reader) -> Option<(Result<wire::WatchEventsResponse, Status>, Reader)> {
    let (missed, Event { sequence, unix_milliseconds, volume, reason, message }) = reader.next().await;
    let event = wire::Event {
        sequence,
        unix_milliseconds: i64::try_from(unix_milliseconds).unwrap_or(i64::MAX),
        volume_id: volume.to_string(),
        reason: reason.to_string(),
        message,
    };
    let instance = reader.instance().to_owned();
    Some((Ok(wire::WatchEventsResponse { instance, missed, event: Some(event) }), reader))
}

fn told(volume: Volume) -> wire::Volume {
    let Volume { volume, nqn, connection, device, staging_path, publish_paths, holders, damage, condition } =
        volume;
    let text = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
    let connection = match connection {
        Connection::Absent => wire::Connection::Absent,
        Connection::Connecting => wire::Connection::Connecting,
        Connection::Live => wire::Connection::Live,
    };
    wire::Volume {
        volume_id: volume.to_string(),
        nqn: nqn.to_string(),
        connection: connection.into(),
        device: device.map(text).unwrap_or_default(),
        staging_path: staging_path.map(text).unwrap_or_default(),
        publish_paths: publish_paths.into_iter().map(text).collect(),
        holders: holders.into_iter().map(holder).collect(),
        damage: damage.unwrap_or_default(),
        condition: condition.unwrap_or_default(),
    }
}

fn holder(holder: Holder) -> wire::Holder {
    let Holder { device: _, how, pid, command, pod, path } = holder;
    let how = match how {
        Use::OpenFile => wire::Use::OpenFile,
        Use::Mount | Use::MountElsewhere => wire::Use::Mount,
        Use::BlockDevice => wire::Use::BlockDevice,
    };
    let pod = pod.map(|pod| pod.to_string()).unwrap_or_default();
    wire::Holder { r#use: how.into(), pid, command, path: path.to_string_lossy().into_owned(), pod }
}

#[cfg(test)]
mod tests;
