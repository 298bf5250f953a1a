//! The program's whole life.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use prometheus_client::registry::Registry;
use rds_csi_api::csi::identity_server::IdentityServer;
use rds_csi_api::csi::node_server::NodeServer;
use rds_csi_api::node_agent::node_agent_server::NodeAgentServer;
use rds_csi_api::serve::admin::{self, Readiness};
use rds_csi_api::serve::call::Calls;
use rds_csi_api::serve::identity::Identity;
use rds_csi_api::serve::tasks::Tasks;
use rds_csi_api::serve::{socket, telemetry};
use rds_csi_api::{HostId, HostNqn};
use tokio::net::TcpListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

use crate::agent::Agent;
use crate::agent::tls::Tls;
use crate::breaker::Breakers;
use crate::config::{Api, Config, Registrar};
use crate::csi::{Node, Place};
use crate::debug;
use crate::events::Events;
use crate::host::{Initiator, Linux, Watch};
use crate::monitor::{Gauges, Monitor};
use crate::orphans::Orphans;
use crate::privilege::Reduced;
use crate::reads::Reads;
use crate::registration::{Registration, Standing};
use crate::repairs::Repairs;
use crate::volumes::{Records, Volumes};

/// How long running calls may take to end. Shorter than a pod's grace period of 30 s.
const GRACE: Duration = Duration::from_secs(25);

/// How many events are kept for a reader: each volume of a full node may tell of eight while the controller is away.
const EVENTS: usize = 1024;

/// Runs until SIGTERM or SIGINT. Calls that run then are finished; nothing is unmounted or disconnected.
pub async fn run(config: Config, reduced: &Reduced) -> anyhow::Result<()> {
    let Config {
        node,
        csi_socket,
        registrar,
        kubelet,
        state_dir,
        prefix,
        topology,
        max_volumes,
        orphan_interval,
        health_calls,
        api,
        admin_listen,
        telemetry,
    } = config;
    let Api { listen, files } = api;
    let telemetry = telemetry::init(&telemetry)?;
    reduced.tell();
    let mut registry = Registry::default();
    let calls = Calls::new(&mut registry);
    let initiator = Initiator { nqn: HostNqn::of(&node), id: HostId::of(&node) };
    let host = Linux::new(initiator.clone());
    let records = Records::open(&state_dir)?;
    let volumes = Arc::new(Volumes {
        host,
        records,
        kubelet: kubelet.clone(),
        prefix,
        reads: Reads::default(),
        repairs: Repairs::default(),
    });

    let events = Events::new(EVENTS);
    let monitor = Monitor::new(Arc::clone(&volumes), events.clone());
    registry.register_collector(Box::new(Gauges(monitor.last_look())));
    let watch = Watch::open()?;
    let breakers = Breakers::new(events.clone());
    registry.register_collector(Box::new(breakers.clone()));
    let orphans = Orphans::new(Arc::clone(&volumes), calls.clone(), events.clone(), &mut registry);

    let tls = Tls::open(files)?;
    // Whoever sees a socket may end the program.
    let mut tasks = Tasks::new()?;
    let bound = |flag, address| async move {
        TcpListener::bind(address).await.with_context(|| format!("cannot listen at {flag} {address}"))
    };
    let api_listener = bound("--api-listen", listen).await?;
    let admin_listener = bound("--admin-listen", admin_listen).await?;
    let csi_listener = socket::bind(&csi_socket).await.context("CSI cannot be served at --csi-socket")?;
    // kubelet calls both as soon as it sees this one, so it comes after the other.
    let registration = match registrar {
        Registrar::Agent => Some(Registration::bind(&kubelet, &csi_socket, &mut registry).await?),
        Registrar::Separate => None,
    };
    tracing::info!(
        %node, hostnqn = %initiator.nqn, socket = %csi_socket.display(),
        api = %api_listener.local_addr()?, admin = %admin_listener.local_addr()?, "serving"
    );

    tasks.spawn("the monitor", monitor.run(watch, tasks.shutdown()));
    tasks.spawn("the look for orphans", orphans.run(orphan_interval, tasks.shutdown()));
    let standing = registration.as_ref().map(Registration::standing);
    let readiness = move || standing.as_ref().map_or(Readiness::Ready, Standing::readiness);
    let routes = admin::router(Arc::new(registry), readiness).merge(debug::router(
        Arc::clone(&volumes),
        calls.clone(),
        events.clone(),
        breakers.clone(),
    ));
    let admin = admin::serve(admin_listener, routes, tasks.shutdown());
    tasks.spawn("the admin server", async move { Ok(admin.await?) });
    let agent = Server::builder()
        .add_service(NodeAgentServer::new(Agent::new(
            Arc::clone(&volumes),
            events.clone(),
            breakers.clone(),
            calls.clone(),
            tasks.shutdown(),
        )))
        .serve_with_incoming_shutdown(tls.incoming(api_listener), tasks.shutdown().cancelled_owned());
    tasks.spawn("the internal API", async move { Ok(agent.await?) });
    let identity = match topology.to_wire() {
        Some(_) => Identity::ByTopology,
        None => Identity::Everywhere,
    };
    let place = Place { name: node, topology, max_volumes, health_calls };
    let csi = Server::builder()
        .add_service(IdentityServer::new(identity))
        .add_service(NodeServer::new(Node::new(volumes, place, events, breakers, calls.clone())))
        .serve_with_incoming_shutdown(
            UnixListenerStream::new(csi_listener),
            tasks.shutdown().cancelled_owned(),
        );
    let draining = calls.clone();
    tasks.spawn("the CSI server", async move {
        let outcome = csi.await;
        draining.drain().await;
        Ok(outcome?)
    });
    if let Some(registration) = registration {
        let serving = registration.serve(tasks.shutdown().cancelled_owned());
        tasks.spawn("the registration with kubelet", async move { Ok(serving.await?) });
    }
    let outcome = tasks.run(GRACE).await;
    calls.tell_left();
    telemetry.shutdown().await;
    Ok(outcome?)
}
