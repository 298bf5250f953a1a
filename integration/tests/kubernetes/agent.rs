//! A node's agent as the controller meets it: the real protocol over mutual TLS, with a state that the test makes up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use rds_csi_api::node_agent::node_agent_server::NodeAgent;
use rds_csi_api::node_agent::{
    Connection, Event, GetVolumeRequest, GetVolumeResponse, Holder, ListVolumesRequest, ListVolumesResponse,
    ResetBreakerRequest, ResetBreakerResponse, Use, Volume, WatchEventsRequest, WatchEventsResponse,
};
use rds_csi_integration::agent_server::AgentServer;
use rds_csi_integration::certificates::Identity;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

/// An agent. Dropped, it does not answer any more.
pub(crate) struct Agent {
    state: Arc<State>,
    _server: AgentServer,
}

struct State {
    volumes: Mutex<BTreeMap<String, Volume>>,
    open_breakers: Mutex<BTreeSet<String>>,
    events: watch::Sender<Vec<Event>>,
}

impl Agent {
    pub(crate) fn start(identity: &Identity, address: &str) -> Self {
        let state = Arc::new(State {
            volumes: Mutex::default(),
            open_breakers: Mutex::default(),
            events: watch::Sender::default(),
        });
        let service = Service(Arc::clone(&state));
        let server = AgentServer::start(identity, address.parse().unwrap(), service).unwrap();
        Self { state, _server: server }
    }

    /// From now on the volume is in use there.
    pub(crate) fn uses(&self, volume: &str) {
        let holder = Holder {
            r#use: Use::OpenFile.into(),
            pid: 4711,
            command: "qemu-kvm".into(),
            path: "/dev/volume".into(),
            pod: String::new(),
        };
        let used = Volume {
            volume_id: volume.into(),
            connection: Connection::Live.into(),
            staging_path: "/stage".into(),
            holders: vec![holder],
            ..Volume::default()
        };
        self.state.volumes.lock().unwrap().insert(volume.into(), used);
    }

    /// From now on nothing of the volume is left there.
    pub(crate) fn lets_go(&self, volume: &str) {
        self.state.volumes.lock().unwrap().remove(volume);
    }

    /// Holds a volume back.
    pub(crate) fn opens_breaker(&self, volume: &str) {
        self.state.open_breakers.lock().unwrap().insert(volume.into());
    }

    pub(crate) fn holds_back(&self, volume: &str) -> bool {
        self.state.open_breakers.lock().unwrap().contains(volume)
    }

    /// Something happens to a volume there.
    pub(crate) fn notices(&self, volume: &str, reason: &str, message: &str) {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        self.state.events.send_modify(|events| {
            events.push(Event {
                sequence: u64::try_from(events.len()).unwrap() + 1,
                unix_milliseconds: now.as_millis().try_into().unwrap(),
                volume_id: volume.into(),
                reason: reason.into(),
                message: message.into(),
            });
        });
    }
}

struct Service(Arc<State>);

#[tonic::async_trait]
impl NodeAgent for Service {
    type WatchEventsStream = BoxStream<WatchEventsResponse>;

    async fn watch_events(
        &self,
        request: Request<WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        let WatchEventsRequest { instance, after } = request.into_inner();
        let mut last = if instance == "one" { after } else { 0 };
        let mut events = self.0.events.subscribe();
        let (answers, stream) = mpsc::channel(16);
        tokio::spawn(async move {
            let answer = |event| Ok(WatchEventsResponse { instance: "one".into(), missed: 0, event });
            let mut unread = vec![None];
            loop {
                let known = events.borrow_and_update().clone();
                unread.extend(known.into_iter().filter(|event| event.sequence > last).map(Some));
                for event in unread.drain(..) {
                    last = event.as_ref().map_or(last, |event| event.sequence);
                    if answers.send(answer(event)).await.is_err() {
                        return;
                    }
                }
                if events.changed().await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn reset_breaker(
        &self,
        request: Request<ResetBreakerRequest>,
    ) -> Result<Response<ResetBreakerResponse>, Status> {
        let was = self.0.open_breakers.lock().unwrap().remove(&request.into_inner().volume_id);
        let was_open = if was { "mkfs failed three times".into() } else { String::new() };
        Ok(Response::new(ResetBreakerResponse { was_open }))
    }

    async fn set_reconnect_policy(
        &self,
        _: Request<rds_csi_api::node_agent::SetReconnectPolicyRequest>,
    ) -> Result<Response<rds_csi_api::node_agent::SetReconnectPolicyResponse>, Status> {
        Err(Status::unimplemented("nobody should ask"))
    }

    async fn allow_repair(
        &self,
        _: Request<rds_csi_api::node_agent::AllowRepairRequest>,
    ) -> Result<Response<rds_csi_api::node_agent::AllowRepairResponse>, Status> {
        Err(Status::unimplemented("nobody should ask"))
    }

    async fn detach(
        &self,
        _: Request<rds_csi_api::node_agent::DetachRequest>,
    ) -> Result<Response<rds_csi_api::node_agent::DetachResponse>, Status> {
        Err(Status::unimplemented("nobody should ask"))
    }

    async fn list_volumes(
        &self,
        _: Request<ListVolumesRequest>,
    ) -> Result<Response<ListVolumesResponse>, Status> {
        let volumes = self.0.volumes.lock().unwrap().values().cloned().collect();
        Ok(Response::new(ListVolumesResponse { volumes }))
    }

    async fn get_volume(
        &self,
        request: Request<GetVolumeRequest>,
    ) -> Result<Response<GetVolumeResponse>, Status> {
        let id = request.into_inner().volume_id;
        Ok(Response::new(GetVolumeResponse { volume: self.0.volumes.lock().unwrap().get(&id).cloned() }))
    }
}
