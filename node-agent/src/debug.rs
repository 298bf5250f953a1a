//! What the internal API tells the controller, told to people: JSON over plain HTTP, on loopback.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use rds_csi_api::status;

use crate::host::Host;
use crate::inspect;
use crate::reads;
use crate::volumes::Volumes;

/// A person waits no longer than the controller does.
const DEADLINE: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Inspect(#[from] inspect::Error),
    #[error(transparent)]
    Reads(#[from] reads::Error),
}

/// `/debug/volumes`.
pub fn router<H: Host>(volumes: Arc<Volumes<H>>) -> Router {
    Router::new().route("/debug/volumes", get(list::<H>)).with_state(volumes)
}

async fn list<H: Host>(State(volumes): State<Arc<Volumes<H>>>) -> Response {
    let reads = volumes.reads.clone();
    match reads.run("every volume", DEADLINE, move || Ok(inspect::all(&volumes)?)).await {
        Ok(volumes) => Json(volumes).into_response(),
        Err(Error::Reads(error @ (reads::Error::Late { .. } | reads::Error::Full { .. }))) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response()
        }
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{}\n", status::chain(&error))).into_response()
        }
    }
}
