//! The server of a stand-in for a node's agent: the real protocol over mutual TLS, on threads of its own.

use std::net::SocketAddr;

use anyhow::Result;
use rds_csi_api::node_agent::node_agent_server::{NodeAgent, NodeAgentServer};
use tokio::runtime::{Builder, Runtime};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity as TlsIdentity, Server, ServerTlsConfig};

use crate::certificates::Identity;

/// An agent that answers. Dropped, it does not any more.
#[derive(Debug)]
pub struct AgentServer {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its own, so that connections end with it, and not only the listener.
    runtime: Option<Runtime>,
}

impl AgentServer {
    /// Answers as that service does, at that address.
    pub fn start(identity: &Identity, address: SocketAddr, service: impl NodeAgent) -> Result<Self> {
        let tls = ServerTlsConfig::new()
            .identity(TlsIdentity::from_pem(
                std::fs::read(&identity.certificate)?,
                std::fs::read(&identity.key)?,
            ))
            .client_ca_root(Certificate::from_pem(std::fs::read(&identity.authority)?));
        let server = Server::builder().tls_config(tls)?.add_service(NodeAgentServer::new(service));
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listening = runtime.enter();
        let bound = TcpIncoming::bind(address)?;
        drop(listening);
        let address = bound.local_addr()?;
        runtime.spawn(server.serve_with_incoming(bound));
        Ok(Self { address, runtime: Some(runtime) })
    }
}

impl Drop for AgentServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
