//! The HTTP side door, for those who are not in this process: faults, the array's state, what was received.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::device::ArrayState;
use super::faults::Fault;
use super::journal::Commands;
use super::ssh::Server;

/// Serves until the simulator stops.
pub(super) async fn serve(listener: TcpListener, server: Arc<Server>, stop: CancellationToken) {
    let routes = Router::new()
        .route("/faults", post(inject).delete(clear).get(pending))
        .route("/state", get(state))
        .route("/commands", get(commands))
        .with_state(server);
    let serving = axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = serving.await {
        tracing::error!(%error, "the control listener ended");
    }
}

async fn inject(State(server): State<Arc<Server>>, Json(fault): Json<Fault>) -> StatusCode {
    server.faults.inject(fault);
    StatusCode::NO_CONTENT
}

async fn clear(State(server): State<Arc<Server>>) -> StatusCode {
    server.faults.clear();
    StatusCode::NO_CONTENT
}

async fn pending(State(server): State<Arc<Server>>) -> Json<Vec<Fault>> {
    Json(server.faults.pending())
}

async fn state(State(server): State<Arc<Server>>) -> Result<Json<ArrayState>, (StatusCode, String)> {
    let told = tokio::task::spawn_blocking(move || server.device.array_state());
    let told = told.await.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    told.map(Json).map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

async fn commands(State(server): State<Arc<Server>>) -> Json<Commands> {
    Json(server.journal.read())
}
