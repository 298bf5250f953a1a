//! The program's whole life.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use prometheus_client::registry::Registry;
use rds_csi_api::csi::controller_server::ControllerServer;
use rds_csi_api::csi::identity_server::IdentityServer;
use rds_csi_api::csi::plugin_capability::service;
use rds_csi_api::serve::admin::{self, Readiness};
use rds_csi_api::serve::call::Calls;
use rds_csi_api::serve::identity::Identity;
use rds_csi_api::serve::tasks::Tasks;
use rds_csi_api::serve::{socket, telemetry};
use tokio::net::TcpListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::array::routeros::RouterOs;
use crate::attachments::store::InMemory;
use crate::backends::{Backend, Backends};
use crate::config::{self, Config};
use crate::csi::{Controller, Driver};
use crate::metrics::ArrayConnected;
use crate::node_agents;

/// How long running calls may take to end. Shorter than a pod's grace period of 30 s.
const GRACE: Duration = Duration::from_secs(25);

// A call that asks a node and then gives the array one command ends within the grace, whatever hangs.
const _: () = assert!(config::COMMAND_TIMEOUT.as_secs() + node_agents::DEADLINE.as_secs() < GRACE.as_secs());

/// Runs until SIGTERM or SIGINT. Calls that run then are finished, and no ssh is left behind.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let Config {
        csi_socket,
        ssh,
        pool,
        cluster,
        prefix,
        portal,
        fence,
        agents: nodes,
        admin_listen,
        telemetry,
    } = config;
    let telemetry = telemetry::init(&telemetry)?;
    let mut registry = Registry::default();
    let calls = Calls::new(&mut registry);
    let array_address = ssh.destination.host.clone();
    let (array, keeper) = RouterOs::new(ssh, pool.clone(), cluster);
    registry.register_collector(Box::new(ArrayConnected(array.clone())));
    nodes.check().await?;

    let admin_listener = TcpListener::bind(admin_listen)
        .await
        .with_context(|| format!("cannot listen at --admin-listen {admin_listen}"))?;
    let listener = socket::bind(&csi_socket).await?;
    tracing::info!(socket = %csi_socket.display(), admin = %admin_listener.local_addr()?, "serving");

    let mut tasks = Tasks::new();
    // Calls that are being finished still need the array, so its connection ends after them.
    let calls_ended = CancellationToken::new();
    let connection = keeper.run(calls_ended.clone());
    tasks.spawn("the connection to the array", async move {
        connection.await;
        Ok(())
    });
    let connected = array.clone();
    let readiness = move || {
        if connected.is_connected() {
            Readiness::Ready
        } else {
            Readiness::Waiting("the array is not connected".into())
        }
    };
    let admin = admin::serve(admin_listener, admin::router(Arc::new(registry), readiness), tasks.shutdown());
    tasks.spawn("the admin server", async move { Ok(admin.await?) });
    let backend = Backend { name: None, array, fence, pool, portal, address: array_address };
    let driver = Driver { backends: Backends::only(backend), store: InMemory::default(), nodes, prefix };
    let server = Server::builder()
        .add_service(IdentityServer::new(Identity::offering([service::Type::ControllerService])))
        .add_service(ControllerServer::new(Controller::new(driver, calls.clone())))
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), tasks.shutdown().cancelled_owned());
    tasks.spawn("the CSI server", async move {
        let outcome = server.await;
        calls.drain().await;
        calls_ended.cancel();
        Ok(outcome?)
    });
    let outcome = tasks.run(GRACE).await;
    telemetry.shutdown().await;
    Ok(outcome?)
}
