//! Logs for people, spans for a trace: both programs set them up here, and tie one volume's calls into one trace.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::field::Field;
use tracing::level_filters::LevelFilter;
use tracing::{Metadata, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::fmt::format;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::text::Malformed;
use crate::trace::TraceParent;

/// How long a last export may take when the process ends.
const FLUSH: Duration = Duration::from_secs(3);

/// The form of the log on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line, for collectors.
    Json,
}

impl FromStr for LogFormat {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(Malformed::new("log format", text, "give text or json")),
        }
    }
}

/// What to log and where to send spans.
#[derive(Debug, Clone)]
pub struct Config {
    /// `service.name`, the program.
    pub service: &'static str,
    /// `service.instance.id`: the node or the pod.
    pub instance: String,
    /// The OTLP endpoint (gRPC), such as `http://collector:4317`. Without one nothing is exported.
    pub otlp_endpoint: Option<String>,
    /// The form of the log.
    pub log_format: LogFormat,
}

/// Why telemetry cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `RUST_LOG` cannot be read.
    #[error("RUST_LOG cannot be read: give levels such as 'info' or 'rds_csi_controller=debug'")]
    Filter(#[from] tracing_subscriber::filter::FromEnvError),
    /// The OTLP endpoint cannot be used.
    #[error("cannot export spans to {endpoint:?}: give an address such as http://collector:4317")]
    Exporter {
        /// The endpoint.
        endpoint: String,
        /// What is wrong with it.
        #[source]
        source: opentelemetry_otlp::ExporterBuildError,
    },
    /// Somebody was here before.
    #[error("logging is set up already")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Keeps what must be flushed when the process ends.
#[derive(Debug)]
pub struct Telemetry(Option<SdkTracerProvider>);

/// Sets up the log and, with an endpoint, the export of spans. Call it once, within a tokio runtime.
pub fn init(config: &Config) -> Result<Telemetry, Error> {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env()?;
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let log = match config.log_format {
        LogFormat::Text => {
            log.with_ansi(false).with_target(false).fmt_fields(format::debug_fn(readable)).boxed()
        }
        LogFormat::Json => log.json().flatten_event(true).boxed(),
    };
    let provider = config.otlp_endpoint.as_deref().map(|endpoint| provider(config, endpoint)).transpose()?;
    // Its own filter: what our libraries do is noise in a trace, and h2's spans would be those of the export itself.
    let ours = |metadata: &Metadata<'_>| metadata.target().starts_with("rds_csi");
    let spans = provider.as_ref().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer(config.service))
            .with_filter(filter_fn(ours))
    });
    tracing_subscriber::registry().with(log.with_filter(filter)).with(spans).try_init()?;
    Ok(Telemetry(provider))
}

/// A field as people read it. What only the trace needs is left out.
fn readable(writer: &mut format::Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    match field.name() {
        "message" => write!(writer, "{value:?}"),
        name if name.starts_with("otel.") || name.starts_with("rpc.") => Ok(()),
        name => write!(writer, " {name}={value:?}"),
    }
}

fn provider(config: &Config, endpoint: &str) -> Result<SdkTracerProvider, Error> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()
        .map_err(|source| Error::Exporter { endpoint: endpoint.into(), source })?;
    let resource = Resource::builder()
        .with_service_name(config.service)
        .with_attribute(KeyValue::new("service.instance.id", config.instance.clone()))
        .build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

impl Telemetry {
    /// Sends what is left, for three seconds at most.
    pub async fn shutdown(self) {
        let Some(provider) = self.0 else { return };
        // The export blocks, and needs the runtime's other threads to go on.
        let flush = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH));
        if !matches!(flush.await, Ok(Ok(()))) {
            tracing::debug!("the last spans were not exported");
        }
    }
}

/// The current span, in the form in which it travels to the other program. None if nothing is exported.
pub fn current_traceparent() -> Option<TraceParent> {
    let context = Span::current().context();
    let span = context.span();
    let context = span.span_context();
    if !context.is_valid() {
        return None;
    }
    let flags = context.trace_flags().to_u8();
    format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id()).parse().ok()
}

/// Makes a span the child of one that another program began.
pub(crate) fn continue_trace(span: &Span, parent: &TraceParent) {
    let mut parts = parent.as_str().split('-').skip(1);
    let (Some(trace), Some(id), Some(flags)) = (parts.next(), parts.next(), parts.next()) else {
        return;
    };
    let (Ok(trace), Ok(id), Ok(flags)) =
        (TraceId::from_hex(trace), SpanId::from_hex(id), u8::from_str_radix(flags, 16))
    else {
        return;
    };
    let remote = SpanContext::new(trace, id, TraceFlags::new(flags), true, TraceState::default());
    // Fails only without the layer that exports, and then there is nothing to continue.
    let _ = span.set_parent(Context::new().with_remote_span_context(remote));
}
