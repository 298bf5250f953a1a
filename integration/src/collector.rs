//! An OTLP endpoint that keeps the spans it is sent, so that a test can read a trace as an operator would.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::bail;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// A span as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The program that exported it.
    pub service: String,
    /// `csi.v1.Node/NodeStageVolume`.
    pub name: String,
    /// 16 bytes.
    pub trace: Vec<u8>,
    /// 8 bytes.
    pub id: Vec<u8>,
    /// The span it is a child of; empty for a root.
    pub parent: Vec<u8>,
}

/// The endpoint. It ends when it is dropped.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    received: Arc<Received>,
    _stop: DropGuard,
}

#[derive(Debug, Default)]
struct Received {
    spans: Mutex<Vec<Span>>,
    more: Notify,
}

impl Collector {
    /// Listens on a free port of the loopback address, which guests reach too.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let received = Arc::<Received>::default();
        let stop = CancellationToken::new();
        let service = TraceServiceServer::new(Endpoint(received.clone()));
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming_shutdown(TcpIncoming::from(listener), stop.clone().cancelled_owned()),
        );
        Ok(Self { address, received, _stop: stop.drop_guard() })
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Waits until a span of that name has come, for 30 seconds at most, since exporters send in batches.
    pub async fn span(&self, name: &str) -> anyhow::Result<Span> {
        let found = async {
            loop {
                let more = self.received.more.notified();
                if let Some(span) = self.received.spans().iter().rev().find(|span| span.name == name) {
                    return span.clone();
                }
                more.await;
            }
        };
        match tokio::time::timeout(Duration::from_secs(30), found).await {
            Ok(span) => Ok(span),
            Err(_) => bail!("no span {name:?} came; there are {:#?}", self.received.spans()),
        }
    }
}

impl Received {
    fn spans(&self) -> std::sync::MutexGuard<'_, Vec<Span>> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Endpoint(Arc<Received>);

#[tonic::async_trait]
impl TraceService for Endpoint {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut spans = self.0.spans();
        for of_service in request.into_inner().resource_spans {
            let attributes = of_service.resource.unwrap_or_default().attributes;
            let name = attributes.into_iter().find(|attribute| attribute.key == "service.name");
            let service = match name.and_then(|name| name.value?.value) {
                Some(Value::StringValue(name)) => name,
                _ => String::new(),
            };
            for span in of_service.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                spans.push(Span {
                    service: service.clone(),
                    name: span.name,
                    trace: span.trace_id,
                    id: span.span_id,
                    parent: span.parent_span_id,
                });
            }
        }
        drop(spans);
        self.0.more.notify_waiters();
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}
