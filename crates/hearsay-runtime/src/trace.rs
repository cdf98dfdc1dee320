//! Tells a collector what was done for an utterance, and when: spans of OpenTelemetry, by OTLP over gRPC.
//!
//! Spans are told when they are over, with times of their own: most of what there is to time begins before anybody knows
//! that it was speech. Nothing is told, measured or allocated where no collector is configured ([`is_on`]).
//!
//! Cost: a queue of [`TraceConfig::queue`] spans of about 300 bytes, and one task. A span that finds the queue full is
//! dropped and counted, and so is a batch that the collector did not take in time: nobody ever waits for a collector.

use std::{
    sync::OnceLock,
    time::{Duration, Instant, SystemTime},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, trace_service_client::TraceServiceClient},
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    resource::v1::Resource,
    trace::v1::{self, ResourceSpans, ScopeSpans},
};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use crate::{HumanDuration, Tasks, metrics, tasks::Drain};

/// Spans of one call.
const BATCH: usize = 512;
/// How long the first span of a batch waits for others.
const BATCH_WAIT: Duration = Duration::from_secs(1);
/// What a drain leaves for the last spans, however long a call may take otherwise.
const LAST: Duration = Duration::from_secs(2);

/// The `[trace]` section.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TraceConfig {
    /// A collector that speaks OTLP over gRPC, as `http://HOST:4317` or `https://HOST:4317`. Absent: nothing is traced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// PEM: who signs an `https` collector's certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<std::path::PathBuf>,
    /// The part of all utterances that is traced, from 0 to 1. The same everywhere: who hears an utterance decides by its
    /// id, and whoever shows it follows.
    pub ratio: f64,
    /// Spans that may wait for the collector.
    pub queue: std::num::NonZeroUsize,
    /// How long the collector may take for a batch, which is dropped then.
    pub timeout: HumanDuration,
}

impl Default for TraceConfig {
    fn default() -> Self {
        Self {
            endpoint: None,
            ca: None,
            ratio: 0.01,
            queue: const { std::num::NonZeroUsize::new(4_096).expect("not zero") },
            timeout: HumanDuration::from_secs(5),
        }
    }
}

impl TraceConfig {
    /// # Errors
    /// Says which value is none.
    pub fn validate(&self) -> Result<(), String> {
        if !(0.0..=1.0).contains(&self.ratio) {
            return Err(format!("trace.ratio is {}; 0 to 1 is accepted", self.ratio));
        }
        if self.timeout.get().is_zero() {
            return Err("trace.timeout must be above zero, or no span is ever told".to_owned());
        }
        if self.queue.get() > 1 << 20 {
            return Err(format!("trace.queue is {}; 1048576 spans at most", self.queue));
        }
        match (&self.endpoint, &self.ca) {
            (None, _) => Ok(()),
            (Some(endpoint), ca) => {
                let uri: Option<http::Uri> = endpoint.parse().ok().filter(|uri: &http::Uri| uri.authority().is_some());
                match (uri.as_ref().and_then(http::Uri::scheme_str), ca) {
                    (Some("http"), _) | (Some("https"), Some(_)) => Ok(()),
                    (Some("https"), None) => {
                        Err(format!("trace.endpoint {endpoint:?} takes trace.ca, to know the collector by"))
                    }
                    _ => Err(format!(
                        "trace.endpoint {endpoint:?} is no collector; http://HOST:4317 and https://HOST:4317 are accepted"
                    )),
                }
            }
        }
    }
}

/// Something that was done.
#[derive(Debug, Clone)]
pub struct Span {
    pub trace: [u8; 16],
    pub id: [u8; 8],
    pub parent: Option<[u8; 8]>,
    pub name: &'static str,
    pub began: Instant,
    pub ended: Instant,
    pub attributes: Vec<(&'static str, Value)>,
}

/// Of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Text(String),
    Count(u64),
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<usize> for Value {
    fn from(count: usize) -> Self {
        Self::Count(count as u64)
    }
}

impl From<u64> for Value {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

struct Tracer {
    spans: mpsc::Sender<Span>,
    /// Ids below it are traced.
    below: u64,
    all: bool,
}

static TRACER: OnceLock<Tracer> = OnceLock::new();

/// Whether anything is traced in this process.
pub fn is_on() -> bool {
    TRACER.get().is_some()
}

/// Whether what has this random id is traced: the same answer everywhere.
pub fn picks(id: u64) -> bool {
    TRACER.get().is_some_and(|tracer| tracer.all || id < tracer.below)
}

/// Tells a span. Never waits.
pub fn tell(span: Span) {
    if let Some(tracer) = TRACER.get() {
        tracer.tell(span);
    }
}

impl Tracer {
    fn tell(&self, span: Span) {
        if self.spans.try_send(span).is_err() {
            metrics::spans("dropped", 1);
        }
    }
}

/// One moment by both clocks, read as close together as a busy machine lets us. Every other is counted from it, so that
/// what came first in this process is told as having come first.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    at: Instant,
    wall: SystemTime,
}

impl Anchor {
    fn drop() -> Self {
        let read = || {
            let before = Instant::now();
            let wall = SystemTime::now();
            (before.elapsed(), Self { at: before, wall })
        };
        let tries = [read(), read(), read(), read(), read()];
        let closest = tries.into_iter().min_by_key(|(apart, _)| *apart);
        closest.map_or(Self { at: Instant::now(), wall: SystemTime::now() }, |(_, anchor)| anchor)
    }

    /// Nanoseconds since the Unix epoch.
    fn nanos(self, at: Instant) -> u64 {
        let before = self.at.saturating_duration_since(at);
        let wall = self.wall.checked_sub(before).unwrap_or(self.wall) + at.saturating_duration_since(self.at);
        let since = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Begins to tell what `service` does, if there is whom to tell. Once per process, inside its runtime.
///
/// # Errors
/// When the collector's address or certificate cannot be used.
pub fn install(config: &TraceConfig, service: &str, instance: &str, tasks: &Tasks) -> Result<(), String> {
    config.validate()?;
    let Some(endpoint) = &config.endpoint else { return Ok(()) };
    let mut channel = Endpoint::from_shared(endpoint.clone())
        .map_err(|error| format!("trace.endpoint {endpoint:?}: {error}"))?
        .connect_timeout(config.timeout.get());
    if let Some(ca) = config.ca.as_ref().filter(|_| endpoint.starts_with("https")) {
        let pem = std::fs::read(ca).map_err(|error| format!("trace.ca: {}: {error}", ca.display()))?;
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
        channel = channel.tls_config(tls).map_err(|error| format!("trace.ca: {}: {error}", ca.display()))?;
    }
    let (sender, spans) = mpsc::channel(config.queue.get());
    let tracer = Tracer { spans: sender, below: (config.ratio * u64::MAX as f64) as u64, all: config.ratio >= 1.0 };
    TRACER.set(tracer).map_err(|_| "spans are told already".to_owned())?;
    let text = |key: &str, text: &str| attribute(key, Value::Text(text.to_owned()));
    let resource = Resource {
        attributes: vec![
            text("service.namespace", "hearsay"),
            text("service.name", service),
            text("service.version", env!("CARGO_PKG_VERSION")),
            text("service.instance.id", instance),
        ],
        ..Resource::default()
    };
    let exporter = Exporter {
        spans,
        client: TraceServiceClient::new(channel.connect_lazy()),
        resource,
        timeout: config.timeout.get(),
        anchor: Anchor::drop(),
    };
    tasks.spawn_background("trace export", exporter.run(tasks.drain()));
    Ok(())
}

struct Exporter {
    spans: mpsc::Receiver<Span>,
    client: TraceServiceClient<Channel>,
    resource: Resource,
    timeout: Duration,
    anchor: Anchor,
}

impl Exporter {
    /// Until the last work of a drain is done; what is told by then is exported, in bounded time.
    async fn run(mut self, drain: Drain) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                _ = self.spans.recv_many(&mut batch, BATCH) => {}
                () = drain.finished() => break,
            }
            let fill = async {
                while batch.len() < BATCH {
                    let room = BATCH - batch.len();
                    self.spans.recv_many(&mut batch, room).await;
                }
            };
            tokio::select! {
                () = fill => {}
                () = sleep(BATCH_WAIT) => {}
                () = drain.finished() => break,
            }
            let took = self.timeout;
            tokio::select! {
                () = export(&mut self.client, &self.resource, encoded(std::mem::take(&mut batch), self.anchor), took) => {}
                // What is under way is bounded by its time-out, which may be longer than a drain has.
                () = async { drain.finished().await; sleep(LAST).await } => return,
            }
        }
        let last = async {
            loop {
                while batch.len() < BATCH
                    && let Ok(span) = self.spans.try_recv()
                {
                    batch.push(span);
                }
                if batch.is_empty() {
                    return;
                }
                export(
                    &mut self.client,
                    &self.resource,
                    encoded(std::mem::take(&mut batch), self.anchor),
                    self.timeout,
                )
                .await;
            }
        };
        if timeout(LAST, last).await.is_err() {
            tracing::warn!("the trace collector did not take the last spans in time");
        }
    }
}

async fn export(client: &mut TraceServiceClient<Channel>, resource: &Resource, batch: Vec<v1::Span>, within: Duration) {
    let (count, begun) = (batch.len(), Instant::now());
    let scope = InstrumentationScope { name: "hearsay".to_owned(), ..InstrumentationScope::default() };
    let spans = ScopeSpans { scope: Some(scope), spans: batch, ..ScopeSpans::default() };
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource.clone()),
            scope_spans: vec![spans],
            ..ResourceSpans::default()
        }],
    };
    let outcome = timeout(within, client.export(request)).await;
    metrics::exported(begun.elapsed());
    match outcome {
        Ok(Ok(answer)) => {
            let refused = answer.into_inner().partial_success.map_or(0, |partial| partial.rejected_spans);
            let refused = usize::try_from(refused).unwrap_or_default().min(count);
            metrics::spans("failed", refused);
            metrics::spans("exported", count - refused);
        }
        Ok(Err(status)) => {
            metrics::spans("failed", count);
            tracing::debug!(%status, "the trace collector did not take spans");
        }
        Err(_) => {
            metrics::spans("failed", count);
            tracing::debug!(?within, "the trace collector did not answer");
        }
    }
}

fn encoded(batch: Vec<Span>, anchor: Anchor) -> Vec<v1::Span> {
    let encode = |span: Span| v1::Span {
        trace_id: span.trace.to_vec(),
        span_id: span.id.to_vec(),
        parent_span_id: span.parent.map_or(Vec::new(), |parent| parent.to_vec()),
        name: span.name.to_owned(),
        kind: v1::span::SpanKind::Internal.into(),
        start_time_unix_nano: anchor.nanos(span.began),
        end_time_unix_nano: anchor.nanos(span.ended.max(span.began)),
        attributes: span.attributes.into_iter().map(|(key, value)| attribute(key, value)).collect(),
        ..v1::Span::default()
    };
    batch.into_iter().map(encode).collect()
}

fn attribute(key: &str, value: Value) -> KeyValue {
    let value = match value {
        Value::Text(text) => any_value::Value::StringValue(text),
        Value::Count(count) => any_value::Value::IntValue(i64::try_from(count).unwrap_or(i64::MAX)),
    };
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        TraceConfig::default().validate().unwrap();
        let of = |text: &str| serde_json::from_str::<TraceConfig>(text).unwrap().validate();
        for (text, says) in [
            (r#"{"ratio":1.5}"#, "trace.ratio is 1.5"),
            (r#"{"endpoint":"collector:4317"}"#, "is no collector"),
            (r#"{"endpoint":"https://collector:4317"}"#, "takes trace.ca"),
            (r#"{"timeout":"0s"}"#, "trace.timeout"),
        ] {
            let error = of(text).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
        of(r#"{"endpoint":"http://collector:4317","ratio":0}"#).unwrap();
        assert!(serde_json::from_str::<TraceConfig>(r#"{"sampling":1}"#).is_err());
    }

    #[test]
    fn moments_keep_their_order_and_distance() {
        let anchor = Anchor::drop();
        let (before, after) = (anchor.at - Duration::from_millis(3), anchor.at + Duration::from_millis(4));
        assert_eq!(anchor.nanos(after) - anchor.nanos(before), 7_000_000);
    }

    #[test]
    fn what_finds_the_queue_full_is_dropped_and_counted() {
        let (spans, mut queued) = mpsc::channel(3);
        let tracer = Tracer { spans, below: 0, all: true };
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let now = Instant::now();
        ::metrics::with_local_recorder(&recorder, || {
            for n in 0..5 {
                let attributes = vec![("n", Value::Count(n))];
                tracer.tell(Span {
                    trace: [1; 16],
                    id: [2; 8],
                    parent: None,
                    name: "x",
                    began: now,
                    ended: now,
                    attributes,
                });
            }
        });
        let counted = recorder.handle().render();
        assert!(counted.contains("hearsay_trace_spans_total{outcome=\"dropped\"} 2\n"), "{counted}");
        let kept: Vec<_> =
            std::iter::from_fn(|| queued.try_recv().ok()).map(|span| span.attributes[0].1.clone()).collect();
        assert_eq!(kept, [0, 1, 2].map(Value::Count), "the first come");
    }

    #[test]
    fn where_nobody_is_told_nothing_is_picked() {
        assert!(!is_on() && !picks(0));
    }
}
