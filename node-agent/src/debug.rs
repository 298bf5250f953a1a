//! What the internal API tells the controller, told to people: JSON over plain HTTP, on loopback.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use rds_csi_api::status;

use crate::host::Host;
use crate::inspect;
use crate::volumes::Volumes;

/// `/debug/volumes`.
pub fn router<H: Host>(volumes: Arc<Volumes<H>>) -> Router {
    Router::new().route("/debug/volumes", get(list::<H>)).with_state(volumes)
}

async fn list<H: Host>(State(volumes): State<Arc<Volumes<H>>>) -> Response {
    match tokio::task::spawn_blocking(move || inspect::all(&volumes)).await {
        Ok(Ok(volumes)) => Json(volumes).into_response(),
        Ok(Err(error)) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{}\n", status::chain(&error))).into_response()
        }
        Err(panic) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{panic}\n")).into_response(),
    }
}
