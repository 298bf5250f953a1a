//! A node's agent as the controller meets it: the real protocol over mutual TLS, with answers made up by the test.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rds_csi_api::node_agent::node_agent_server;
use rds_csi_api::node_agent::{
    self as wire, GetVolumeRequest, GetVolumeResponse, ListVolumesRequest, ListVolumesResponse,
};
use rds_csi_integration::agent_server::AgentServer;
use rds_csi_integration::certificates::Identity;
use tonic::{Request, Response, Status};

/// An agent that says the same of every volume. Dropped, it does not answer any more.
pub(crate) struct Agent {
    pub(crate) address: SocketAddr,
    answer: Answer,
    _server: AgentServer,
}

#[derive(Clone, Default)]
struct Answer(Arc<Mutex<Option<wire::Volume>>>);

impl Agent {
    pub(crate) fn start(identity: &Identity) -> Self {
        let answer = Answer::default();
        let anywhere = "127.0.0.1:0".parse().unwrap();
        let server = AgentServer::start(identity, anywhere, answer.clone()).unwrap();
        Self { address: server.address, answer, _server: server }
    }

    /// From now on it says this; nothing is its word that nothing of the volume is left.
    pub(crate) fn say(&self, volume: Option<wire::Volume>) {
        *self.answer.0.lock().unwrap() = volume;
    }
}

#[tonic::async_trait]
impl node_agent_server::NodeAgent for Answer {
    type WatchEventsStream = tonic::codegen::BoxStream<wire::WatchEventsResponse>;

    async fn watch_events(
        &self,
        _: Request<wire::WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        Err(Status::unimplemented("nobody should ask"))
    }

    async fn reset_breaker(
        &self,
        _: Request<wire::ResetBreakerRequest>,
    ) -> Result<Response<wire::ResetBreakerResponse>, Status> {
        Err(Status::unimplemented("nobody should ask"))
    }

    async fn set_reconnect_policy(
        &self,
        _: Request<wire::SetReconnectPolicyRequest>,
    ) -> Result<Response<wire::SetReconnectPolicyResponse>, Status> {
        Err(Status::unimplemented("nobody should ask"))
    }

    async fn allow_repair(
        &self,
        _: Request<wire::AllowRepairRequest>,
    ) -> Result<Response<wire::AllowRepairResponse>, Status> {
        Err(Status::unimplemented("nobody should ask"))
    }

    async fn detach(
        &self,
        _: Request<wire::DetachRequest>,
    ) -> Result<Response<wire::DetachResponse>, Status> {
        Err(Status::unimplemented("nobody should ask"))
    }

    async fn list_volumes(
        &self,
        _: Request<ListVolumesRequest>,
    ) -> Result<Response<ListVolumesResponse>, Status> {
        Err(Status::unimplemented("nobody should ask"))
    }

    async fn get_volume(
        &self,
        request: Request<GetVolumeRequest>,
    ) -> Result<Response<GetVolumeResponse>, Status> {
        let GetVolumeRequest { volume_id, nqn } = request.into_inner();
        assert_eq!(nqn, format!("nqn.2000-02.com.mikrotik:{volume_id}"));
        Ok(Response::new(GetVolumeResponse { volume: self.0.lock().unwrap().clone() }))
    }
}

/// A volume that a process has open.
pub(crate) fn held_open(pid: u32, command: &str, path: &str) -> wire::Volume {
    wire::Volume {
        connection: wire::Connection::Live.into(),
        device: "/dev/nvme1n1".into(),
        staging_path: "/stage".into(),
        holders: vec![wire::Holder {
            r#use: wire::Use::OpenFile.into(),
            pid,
            command: command.into(),
            path: path.into(),
            pod: String::new(),
        }],
        ..wire::Volume::default()
    }
}

/// A volume that is still connected, and nothing more.
pub(crate) fn connected() -> wire::Volume {
    wire::Volume {
        connection: wire::Connection::Live.into(),
        device: "/dev/nvme1n1".into(),
        ..wire::Volume::default()
    }
}
