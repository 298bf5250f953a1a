//! What a person or Prometheus asks over plain HTTP: `/healthz`, `/readyz`, `/metrics`, and what the program adds.

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Whether the program can do its work now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// It can.
    Ready,
    /// A part of it, and what is amiss with the rest.
    Partly(String),
    /// It cannot, and why.
    Waiting(String),
}

/// The routes that every program serves. `readiness` is asked at each `/readyz`, and must not block.
pub fn router(
    registry: Arc<Registry>,
    readiness: impl Fn() -> Readiness + Clone + Send + Sync + 'static,
) -> Router {
    let metrics = move || async move {
        let mut text = String::new();
        match encode(&mut text, &registry) {
            Ok(()) => {
                ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
                    .into_response()
            }
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        }
    };
    let ready = move || async move {
        match readiness() {
            Readiness::Ready => (StatusCode::OK, "ready\n".to_owned()),
            Readiness::Partly(reason) => (StatusCode::OK, format!("ready, but {reason}\n")),
            Readiness::Waiting(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        }
    };
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
}

/// Serves the routes until the token is cancelled.
pub fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: CancellationToken,
) -> impl Future<Output = std::io::Result<()>> {
    axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).into_future()
}
