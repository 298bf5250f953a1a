//! The program's whole life.

mod joined;
mod led;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use prometheus_client::registry::Registry;
use rds_csi_api::BackendName;
use rds_csi_api::csi::controller_server::ControllerServer;
use rds_csi_api::csi::identity_server::IdentityServer;
use rds_csi_api::serve::admin::{self, Readiness};
use rds_csi_api::serve::call::Calls;
use rds_csi_api::serve::identity::Identity;
use rds_csi_api::serve::tasks::Tasks;
use rds_csi_api::serve::{socket, telemetry};
use tokio::net::TcpListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::Router;

use self::joined::Joined;
use crate::array::routeros::{Keeper, RouterOs};
use crate::attachments::{Fence, Herald as _, Ledger, Standalone, Store as _, gauges};
use crate::backends::{Backend, Backends};
use crate::config::{Arrays, BackendConfig, Config, Orphans};
use crate::csi::{Controller, Driver};
use crate::metrics::ArrayConnected;
use crate::node_agents::{self, Witness};
use crate::proofs::{FenceProved, Proof};

/// What a call may take beside asking a node and giving an array one command.
const MARGIN: Duration = Duration::from_secs(5);

/// How long running calls may take to end: one that asks a node and then gives an array one command ends within it, whatever
/// hangs. 25 s, shorter than a pod's grace period, unless the configuration gives commands more time.
fn grace(arrays: &Arrays) -> Duration {
    arrays.longest_command() + node_agents::DEADLINE + MARGIN
}

/// Runs until SIGTERM or SIGINT. Calls that run then are finished, and no ssh is left behind.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let Config {
        csi_socket,
        arrays,
        agents: nodes,
        kubernetes,
        volumes_per_node,
        health_calls,
        orphans,
        admin_listen,
        telemetry,
    } = config;
    let telemetry = telemetry::init(&telemetry)?;
    for doubt in arrays.doubts() {
        tracing::warn!("{doubt}");
    }
    let mut registry = Registry::default();
    let calls = Calls::new(&mut registry);
    let grace = grace(&arrays);
    let (prefix, (backends, keepers, proofs)) = (arrays.prefix.clone(), backends(arrays));
    registry.register_collector(Box::new(FenceProved(proofs.clone())));
    registry.register_collector(Box::new(ArrayConnected(backends.clone())));
    nodes.check().await?;
    let identity = if backends.constrain_topology() { Identity::ByTopology } else { Identity::Everywhere };
    let connected = backends.clone();
    let readiness = move || readiness(&connected);

    let mut tasks = Tasks::new()?;
    let service = match kubernetes {
        None => {
            let store = Standalone::default();
            store.tally().register(&mut registry);
            if let Orphans::Off(why) = orphans {
                tracing::info!(why, "orphans are not looked for");
            }
            let driver = Arc::new(Driver { backends, store, nodes, prefix, volumes_per_node, health_calls });
            let seen = Arc::clone(&driver);
            gauges::register(&mut registry, move || seen.store.seen());
            served(identity, driver, &calls)
        }
        Some(kubernetes) => {
            let joined = Joined::new(kubernetes, nodes).await?;
            let (store, nodes) = (joined.ledger.clone(), joined.agents.clone());
            store.tally().register(&mut registry);
            let seen = store.clone();
            gauges::register(&mut registry, move || seen.seen());
            let driver = Arc::new(Driver { backends, store, nodes, prefix, volumes_per_node, health_calls });
            joined.spawn(orphans, &driver, &calls, &mut registry, &mut tasks);
            served(identity, driver, &calls)
        }
    };

    let admin_listener = TcpListener::bind(admin_listen)
        .await
        .with_context(|| format!("cannot listen at --admin-listen {admin_listen}"))?;
    let listener = socket::bind(&csi_socket).await?;
    tracing::info!(socket = %csi_socket.display(), admin = %admin_listener.local_addr()?, grace = ?grace, "serving");

    // Calls that are being finished still need the arrays, so their connections end after them.
    let calls_ended = CancellationToken::new();
    for keeper in keepers {
        let connection = keeper.run(calls_ended.clone());
        tasks.spawn("the connection to an array", async move {
            connection.await;
            Ok(())
        });
    }
    for proof in proofs {
        let watch = proof.watch(tasks.shutdown());
        tasks.spawn("the watch over a fence's proof", async move {
            watch.await;
            Ok(())
        });
    }
    let admin = admin::serve(admin_listener, admin::router(Arc::new(registry), readiness), tasks.shutdown());
    tasks.spawn("the admin server", async move { Ok(admin.await?) });
    let server = service
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), tasks.shutdown().cancelled_owned());
    tasks.spawn("the CSI server", async move {
        let outcome = server.await;
        calls.drain().await;
        calls_ended.cancel();
        Ok(outcome?)
    });
    let outcome = tasks.run(grace).await;
    telemetry.shutdown().await;
    Ok(outcome?)
}

/// The arrays, the tasks that keep them connected, and what their fences rest on.
fn backends(arrays: Arrays) -> (Backends<RouterOs>, Vec<Keeper>, Vec<Proof>) {
    let Arrays { cluster, prefix: _, standard, others } = arrays;
    let (mut keepers, mut proofs) = (Vec::new(), Vec::new());
    let mut backend = |name: Option<BackendName>, config: BackendConfig| {
        let BackendConfig { title, ssh, pool, portal, fence, topology } = config;
        let address = ssh.destination.host.clone();
        let (array, keeper) = RouterOs::new(ssh, pool.clone(), cluster.clone(), name.clone());
        keepers.push(keeper);
        let way = fence.way();
        if way != Fence::None {
            let (title, array) = (title.clone(), array.clone());
            proofs.push(Proof { title, array, fencing: fence });
        }
        Backend { name, title, array, fence: way, pool, portal, address, topology }
    };
    let mut backends = Backends::only(backend(None, standard));
    for (name, config) in others {
        backends = backends.with(name.clone(), backend(Some(name), config));
    }
    (backends, keepers, proofs)
}

/// The services of a driver.
fn served<L: Ledger, W: Witness>(
    identity: Identity,
    driver: impl Into<Arc<Driver<RouterOs, L, W>>>,
    calls: &Calls,
) -> Router {
    Server::builder()
        .add_service(IdentityServer::new(identity))
        .add_service(ControllerServer::new(Controller::new(driver, calls.clone())))
}

/// Ready as long as one array is connected: an array that is down is repaired there, and the volumes on the others go on.
fn readiness(backends: &Backends<RouterOs>) -> Readiness {
    let (up, down): (Vec<_>, Vec<_>) = backends.iter().partition(|backend| backend.array.is_connected());
    let away: Vec<_> =
        down.iter().map(|backend| format!("array {} is not connected", backend.title)).collect();
    match (up.is_empty(), away.is_empty()) {
        (_, true) => Readiness::Ready,
        (false, false) => Readiness::Partly(away.join(", ")),
        (true, false) => Readiness::Waiting(away.join(", ")),
    }
}
