//! One trace from a speaker's audio, over a gateway, a recognizer and the log, to listeners at another gateway: by what a
//! collector of OTLP is told.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use hearsay_tests::{
    Cluster, Setup,
    client::{Client, wav},
    recordings,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::Span,
};
use serde_json::{Value as Json, json};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Response, Status,
    transport::{Identity, ServerTlsConfig},
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// What a process told, and which one it was.
#[derive(Debug, Clone)]
struct Told {
    service: String,
    instance: String,
    span: Span,
}

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Told>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut told = self.0.lock().map_err(|_| Status::internal("a test failed"))?;
        for of in request.into_inner().resource_spans {
            let attributes = of.resource.map(|resource| resource.attributes).unwrap_or_default();
            let (service, instance) = (text(&attributes, "service.name"), text(&attributes, "service.instance.id"));
            let spans = of.scope_spans.into_iter().flat_map(|scope| scope.spans);
            told.extend(spans.map(|span| Told { service: service.clone(), instance: instance.clone(), span }));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    let value = attributes.iter().find(|attribute| attribute.key == key).and_then(|it| it.value.clone()?.value);
    match value {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(count)) => count.to_string(),
        _ => String::new(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A collector on a port of its own, until the test ends. It proves who it is, or speaks in clear.
async fn collector(identity: Option<Identity>) -> Result<(Collector, String)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (address, scheme) = (listener.local_addr()?, if identity.is_some() { "https" } else { "http" });
    let collector = Collector::default();
    let mut server = tonic::transport::Server::builder();
    if let Some(identity) = identity {
        server = server.tls_config(ServerTlsConfig::new().identity(identity))?;
    }
    let serving = server.add_service(TraceServiceServer::new(collector.clone()));
    tokio::spawn(serving.serve_with_incoming(TcpListenerStream::new(listener)));
    Ok((collector, format!("{scheme}://{address}")))
}

/// A certificate of this machine, and what proves that one has it.
fn certificate() -> Result<(String, Identity)> {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    let pem = made.cert.pem();
    let identity = Identity::from_pem(&pem, made.signing_key.serialize_pem());
    Ok((pem, identity))
}

/// Somebody speaks at one gateway while somebody listens at the other. Answers what the speaker heard.
async fn meet(cluster: &mut Cluster, traceparent: &str) -> Result<Client> {
    let mut listener = Client::connect(&cluster.gateways[1], "/v1/subscribe/traced").await?;
    let listening = tokio::spawn(async move { listener.drain().await.map(|()| listener) });
    let entry = cluster.gateways[0].entry();
    let mut speaker = Client::traced(&entry, "/v1/realtime/insights/traced", traceparent).await?;
    let (samples, rate) = wav(&recordings()?.beckett)?;
    speaker.begin("Ana", rate, json!({ "hearsay": { "health": true } })).await?;
    speaker.speak(&samples, rate, Duration::from_millis(100)).await?;
    speaker.stop().await?;
    let heard = listening.await??;
    assert_eq!(heard.finals().len(), speaker.finals().len());
    Ok(speaker)
}

async fn cluster(endpoint: &str, more: &[(&'static str, &str)]) -> Result<Cluster> {
    let mut settings = vec![
        ("HEARSAY__TRACE__ENDPOINT", endpoint.to_owned()),
        ("HEARSAY__TRACE__RATIO", "1.0".to_owned()),
        ("HEARSAY__GATEWAY__DRAIN_SPREAD", "200ms".to_owned()),
    ];
    settings.extend(more.iter().map(|(key, value)| (*key, (*value).to_owned())));
    Cluster::with(Setup { recognizers: 1, gateways: 2, settings, ..Setup::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_leads_from_audio_to_a_socket_of_another_gateway() -> Result<()> {
    let (pem, identity) = certificate()?;
    let folder = tempfile::tempdir()?;
    let ca = folder.path().join("collector.pem");
    std::fs::write(&ca, pem)?;
    let (collector, endpoint) = collector(Some(identity)).await?;
    let ca = ca.to_str().context("a path")?;
    let mut cluster = cluster(&endpoint, &[("HEARSAY__TRACE__CA", ca)]).await?;
    let speaker = meet(&mut cluster, &format!("00-{TRACE}-{CALLER}-01")).await?;
    // The last spans are told in the drain.
    cluster.stop(Duration::from_secs(35)).await?;
    let finals = speaker.finals().len();
    ensure!(finals > 0, "nothing was heard");
    let health = speaker.frames.iter().find(|(_, frame)| frame["type"] == "stream_health");
    let health: &Json = &health.context("health was asked for")?.1;
    assert_eq!(health["trace"], TRACE, "{health}");

    let told = collector.0.lock().unwrap().clone();
    assert!(told.iter().all(|told| hex(&told.span.trace_id) == TRACE), "one trace");
    let by_id: HashMap<&[u8], &Told> = told.iter().map(|told| (&told.span.span_id[..], told)).collect();
    assert_eq!(by_id.len(), told.len(), "each span has an id of its own");
    for told in &told {
        assert!(told.span.start_time_unix_nano <= told.span.end_time_unix_nano, "{told:?}");
    }
    let named = |name: &str| told.iter().filter(|told| told.span.name == name).collect::<Vec<_>>();
    let streams = named("stream");
    assert_eq!(streams.len(), 1);
    assert_eq!(hex(&streams[0].span.parent_span_id), CALLER);
    let utterances = named("utterance");
    assert_eq!(utterances.len(), finals, "{utterances:?}");
    for utterance in utterances {
        assert_eq!(utterance.span.parent_span_id, streams[0].span.span_id);
        let of = |name: &str| -> Vec<&Told> {
            named(name).into_iter().filter(|told| told.span.parent_span_id == utterance.span.span_id).collect()
        };
        let one = |name: &str| -> Result<&Told> {
            let spans = of(name);
            ensure!(spans.len() == 1, "{} spans {name:?}, not one: {spans:?}", spans.len());
            Ok(spans[0])
        };
        let (audio, listen, decode, publish) = (one("audio")?, one("listen")?, one("decode")?, one("publish")?);
        for (told, service) in [
            (utterance, "gateway"),
            (audio, "gateway"),
            (listen, "recognizer"),
            (decode, "recognizer"),
            (publish, "recognizer"),
        ] {
            assert_eq!(told.service, format!("hearsay-{service}"), "{told:?}");
        }
        assert_ne!(text(&audio.span.attributes, "hearsay.chunks"), "0");
        assert!(text(&publish.span.attributes, "hearsay.position").contains(':'), "{publish:?}");
        // In this order it happened.
        let (began, ended) = (|told: &Told| told.span.start_time_unix_nano, |told: &Told| told.span.end_time_unix_nano);
        assert_eq!(began(utterance), began(audio));
        assert!(began(audio) <= began(decode), "{audio:?} {decode:?}");
        assert!(began(listen) <= began(decode), "{listen:?} {decode:?}");
        assert!(ended(decode) <= ended(publish), "{decode:?} {publish:?}");
        assert!(ended(publish) <= ended(utterance), "{publish:?} {utterance:?}");
        // To the speaker's own gateway and to the other one, whose listener is a socket of a core.
        let deliveries = of("deliver");
        assert_eq!(deliveries.len(), 2, "{deliveries:?}");
        assert_ne!(deliveries[0].instance, deliveries[1].instance);
        for delivery in &deliveries {
            assert!(began(publish) <= began(delivery), "{publish:?} {delivery:?}");
        }
        let other: Vec<_> = deliveries.into_iter().filter(|it| it.instance != audio.instance).collect();
        assert_eq!(other.len(), 1, "at the gateway that did not hear it");
        let flushes: Vec<_> =
            named("flush").into_iter().filter(|told| told.span.parent_span_id == other[0].span.span_id).collect();
        assert_eq!(flushes.len(), 1, "{flushes:?}");
        assert_eq!(flushes[0].instance, other[0].instance);
        assert_eq!(text(&flushes[0].span.attributes, "hearsay.sockets"), "1");
        assert!(began(other[0]) <= began(flushes[0]));
    }
    // Nothing else is told.
    let known = ["stream", "utterance", "audio", "listen", "decode", "publish", "deliver", "flush"];
    assert!(told.iter().all(|told| known.contains(&&*told.span.name)));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_want_to_be_traced_is_not_and_a_collector_that_hangs_harms_nobody() -> Result<()> {
    let (collector, endpoint) = collector(None).await?;
    let mut unwilling = cluster(&endpoint, &[]).await?;
    meet(&mut unwilling, &format!("00-{TRACE}-{CALLER}-00")).await?;
    unwilling.stop(Duration::from_secs(35)).await?;
    assert!(collector.0.lock().unwrap().is_empty());

    // Connections are made there, and nothing is ever answered.
    let hung = TcpListener::bind("127.0.0.1:0").await?;
    let little = [("HEARSAY__TRACE__QUEUE", "1"), ("HEARSAY__TRACE__TIMEOUT", "1s")];
    let mut cluster = cluster(&format!("http://{}", hung.local_addr()?), &little).await?;
    let speaker = meet(&mut cluster, "none at all").await?;
    let health = speaker.frames.iter().find(|(_, frame)| frame["type"] == "stream_health").context("health")?;
    let trace = health.1["trace"].as_str().context("a trace")?;
    assert!(trace.len() == 32 && trace.bytes().all(|digit| digit.is_ascii_hexdigit()), "{trace}");
    // What does not fit into the queue of the gateway that hears is dropped, what waited too long failed: all is counted.
    for outcome in ["dropped", "failed"] {
        let name = format!("hearsay_trace_spans_total{{outcome=\"{outcome}\"}}");
        let until = tokio::time::Instant::now() + hearsay_tests::client::PATIENCE;
        let mut lost = cluster.gateways[0].metric(&name).await?;
        while lost == 0.0 && tokio::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(100)).await;
            lost = cluster.gateways[0].metric(&name).await?;
        }
        assert!(lost > 0.0, "spans that were {outcome} are counted");
    }
    cluster.stop(Duration::from_secs(35)).await
}
