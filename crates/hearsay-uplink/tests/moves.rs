//! Streams over real gRPC to recognizers that die, refuse and are superseded. The recognizer here is a script that keeps
//! what it was sent and acknowledges as told.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::stream::BoxStream;
use hearsay_bus::{Batch, Body, Bus, MemoryBus, Proposal, Read, Replica};
use hearsay_protocol::{
    AccountId, AudioFormat, ChunkNumber, ConversationId, ConversationKey, Epoch, Event, MeetingId, MeetingKey, Offset,
    ParticipantId, Position, PublisherId, Restart, Seen, StreamId, StreamTime, Timestamp, UtteranceId,
    event::{Final, Participant, SpeakerConfig},
};
use hearsay_rpc::{
    Ack, MarkerKind, Open, Request, Response,
    v1::{
        self,
        capacity_server::{Capacity, CapacityServer},
        recognizer_server::{Recognizer, RecognizerServer},
    },
};
use hearsay_runtime::Tasks;
use hearsay_uplink::{Config, Events, OpenError, StreamSpec, Uplink, UplinkError, UplinkEvent, Uplinks};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_stream::{
    StreamExt,
    wrappers::{ReceiverStream, TcpListenerStream},
};
use tonic::{Status, Streaming};
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(30);

/// What a recognizer does with its first call; every later one runs to its end, but for those that say otherwise.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Script {
    Serve,
    /// Acknowledges all chunks before the first number, then breaks off when it has the second.
    Die {
        covered: u64,
        at: u64,
    },
    Full,
    Unsupported,
    /// Every call: takes everything and never answers.
    Mute,
    /// Every call: breaks off at the first chunk.
    Break,
    /// Every call: gives the stream back at the first chunk, as who drains does.
    Drain,
    /// Every call: fails before it has heard anything.
    Faint,
}

impl Script {
    fn is_for_every_call(self) -> bool {
        matches!(self, Self::Mute | Self::Break | Self::Drain | Self::Faint)
    }
}

/// What one call brought.
#[derive(Default, Clone, Debug)]
struct Heard {
    open: Option<Open>,
    chunks: Vec<u64>,
    markers: Vec<MarkerKind>,
}

#[derive(Clone)]
struct Scripted {
    bus: Arc<dyn Bus>,
    script: Arc<Mutex<Script>>,
    calls: Arc<Mutex<Vec<Heard>>>,
    load: watch::Sender<v1::Load>,
    /// Whether it hears recordings.
    hears: Arc<AtomicBool>,
    probed: Arc<AtomicUsize>,
}

fn restart(chunk: u64) -> Restart {
    Restart {
        chunk: ChunkNumber(chunk),
        at: StreamTime(chunk * 100_000),
        bytes_before: chunk * 3_200,
        format: AudioFormat::default(),
        headers: Bytes::new(),
    }
}

/// What was said from here on.
fn said(stream: StreamId, from: StreamTime) -> Event {
    Event::Final(Arc::new(Final {
        sentiment: Vec::new(),
        trace: None,
        stream,
        utterance: UtteranceId::after_cut(stream, from),
        participant: person(),
        origin: Timestamp::ZERO,
        start: from,
        end: from,
        text: format!("from {from}"),
        language: "en-US".to_owned(),
        confidence: 1.0,
        words: Vec::new(),
    }))
}

fn person() -> Arc<Participant> {
    Arc::new(Participant { id: ParticipantId(Uuid::from_u128(1)), user_id: None, name: None, email: None })
}

impl Scripted {
    /// Puts everything before `chunk` on the log, as a recognizer would, and says so.
    async fn cover(&self, open: &Open, chunk: u64, out: &mpsc::Sender<Result<v1::RecognizeResponse, Status>>) {
        let events = vec![said(open.stream, open.watermark)];
        let batch = Batch {
            publisher: PublisherId::Stream(open.stream),
            generation: open.generation,
            from: open.watermark.micros(),
            through: chunk * 100_000,
            events: events.clone(),
            restart: Some(restart(chunk - 2)),
            seen: open.seen,
        };
        // The conversation may be gone by now; then there is nothing to acknowledge.
        let Ok(published) = self.bus.publish(&open.key, batch).await else { return };
        let ack = Ack {
            through_chunk: ChunkNumber(chunk),
            through: StreamTime(chunk * 100_000),
            restart: restart(chunk - 2),
            top: published.top,
            finals: 1,
            from: Some(open.watermark),
            events,
        };
        let _ = out.send(Ok(Response::Ack(ack).into())).await;
    }

    async fn serve(
        self,
        script: Script,
        mut requests: Streaming<v1::RecognizeRequest>,
        out: mpsc::Sender<Result<v1::RecognizeResponse, Status>>,
    ) {
        let call = {
            let mut calls = self.calls.lock().expect("no panic");
            calls.push(Heard::default());
            calls.len() - 1
        };
        let mut open = None;
        while let Some(Ok(request)) = requests.next().await {
            match Request::try_from(request).expect("well-formed") {
                Request::Open(opening) => {
                    self.calls.lock().expect("no panic")[call].open = Some((*opening).clone());
                    open = Some(opening);
                    let _ = out.send(Ok(Response::Opened.into())).await;
                    if script == Script::Faint {
                        let _ = out.send(Err(Status::internal("fainted"))).await;
                        return;
                    }
                }
                Request::Chunk { number, .. } => {
                    self.calls.lock().expect("no panic")[call].chunks.push(number.0);
                    if let (Script::Die { covered, at }, Some(open)) = (script, &open) {
                        if number.0 + 1 == covered {
                            self.cover(open, covered, &out).await;
                        }
                        if number.0 == at {
                            let _ = out.send(Err(Status::unavailable("died"))).await;
                            return;
                        }
                    }
                    if script == Script::Break {
                        let _ = out.send(Err(Status::internal("whatever it hears"))).await;
                        return;
                    }
                    if script == Script::Drain {
                        let _ = out.send(Err(Status::unavailable("this recognizer drains"))).await;
                        return;
                    }
                }
                Request::Marker(marker) => {
                    self.calls.lock().expect("no panic")[call].markers.push(marker.kind.clone());
                    let position = Position { epoch: Epoch(1), offset: Offset(1) };
                    let answer = match marker.kind {
                        MarkerKind::Finalize(id) => Response::Finalized { id, position },
                        MarkerKind::End => Response::Ended { position },
                        MarkerKind::Config(_) | MarkerKind::Reanchor(_) => continue,
                    };
                    if script != Script::Mute {
                        let _ = out.send(Ok(answer.into())).await;
                    }
                }
            }
        }
    }
}

#[tonic::async_trait]
impl Recognizer for Scripted {
    type RecognizeStream = BoxStream<'static, Result<v1::RecognizeResponse, Status>>;

    async fn recognize(
        &self,
        request: tonic::Request<Streaming<v1::RecognizeRequest>>,
    ) -> Result<tonic::Response<Self::RecognizeStream>, Status> {
        let script = {
            let mut script = self.script.lock().expect("no panic");
            let next = if script.is_for_every_call() { *script } else { Script::Serve };
            std::mem::replace(&mut *script, next)
        };
        match script {
            Script::Full => return Err(Status::resource_exhausted("full")),
            Script::Unsupported => return Err(Status::unimplemented("only English is heard here")),
            _ => {}
        }
        let (out, answers) = mpsc::channel(64);
        #[expect(clippy::disallowed_methods, reason = "ends with the call, and the test with it")]
        tokio::spawn(self.clone().serve(script, request.into_inner(), out));
        Ok(tonic::Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}

#[tonic::async_trait]
impl Capacity for Scripted {
    type WatchStream = BoxStream<'static, Result<v1::Load, Status>>;

    async fn probe(&self, _: tonic::Request<v1::ProbeRequest>) -> Result<tonic::Response<v1::ProbeResponse>, Status> {
        self.probed.fetch_add(1, Ordering::Relaxed);
        if self.hears.load(Ordering::Relaxed) {
            return Ok(tonic::Response::new(v1::ProbeResponse {}));
        }
        Err(Status::internal("the engine hears no speech"))
    }

    async fn watch(&self, _: tonic::Request<v1::WatchRequest>) -> Result<tonic::Response<Self::WatchStream>, Status> {
        let mut load = self.load.subscribe();
        load.mark_changed();
        let told = futures::stream::unfold(load, async |mut load| {
            load.changed().await.ok()?;
            let now = *load.borrow_and_update();
            Some((Ok(now), load))
        });
        Ok(tonic::Response::new(Box::pin(told)))
    }
}

struct Stage {
    uplinks: Uplinks,
    bus: MemoryBus,
    spec: StreamSpec,
    recognizers: Vec<Scripted>,
    /// Cuts every connection to the last of them.
    cut: watch::Sender<u32>,
}

async fn stage(scripts: &[Script]) -> Stage {
    let bus = MemoryBus::default();
    let meeting = MeetingKey { account: AccountId::dev(), meeting: MeetingId::new("moves").expect("valid") };
    let proposal =
        Proposal { conversation: ConversationId::from_random(1), epoch: Epoch(1), title: "moves".to_owned() };
    let key: ConversationKey = bus.open(&meeting, proposal).await.expect("open").key;
    let tasks = Tasks::new();
    let (mut recognizers, mut addresses, mut cut) = (Vec::new(), Vec::new(), watch::Sender::new(0));
    for script in scripts {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address;
        (address, cut) = cuttable(listener.local_addr().expect("bound")).await;
        addresses.push(format!("http://{address}").parse().expect("a URI"));
        let scripted = Scripted {
            bus: Arc::new(bus.clone()),
            script: Arc::new(Mutex::new(*script)),
            calls: Arc::default(),
            load: watch::Sender::new(v1::Load { rated: 10, ..v1::Load::default() }),
            hears: Arc::new(AtomicBool::new(true)),
            probed: Arc::default(),
        };
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter.set_serving::<RecognizerServer<Scripted>>().await;
        let serving = tonic::transport::Server::builder()
            .add_service(health)
            .add_service(RecognizerServer::new(scripted.clone()))
            .add_service(CapacityServer::new(scripted.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        drop(tasks.spawn("recognizer", serving));
        recognizers.push(scripted);
    }
    let uplinks = Uplinks::start(Config::default(), addresses, Arc::new(bus.clone()), &tasks).expect("no TLS");
    let ready = async {
        while !uplinks.is_ready() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, ready).await.expect("a recognizer is well");
    let spec = StreamSpec {
        key,
        stream: StreamId(Uuid::from_u128(2)),
        participant: person(),
        config: SpeakerConfig::default(),
        recorded: true,
        resumed: false,
        trace: None,
    };
    Stage { uplinks, bus, spec, recognizers, cut }
}

fn chunk() -> Bytes {
    vec![0; 3_200].into()
}

#[tokio::test]
async fn a_stream_whose_recognizer_dies_is_replayed_from_the_restart_point() {
    // One address, so that the second call is the same worker come back: first it dies.
    let stage = stage(&[Script::Die { covered: 10, at: 15 }]).await;
    let (uplink, mut events) = stage.uplinks.open(stage.spec.clone()).await.expect("placed");
    for number in 0..20 {
        let sent = timeout(PATIENCE, uplink.chunk(chunk())).await.expect("taken").expect("alive");
        assert_eq!(sent, ChunkNumber(number));
    }
    uplink.finalize("here".to_owned()).await.expect("asked");
    let finished = uplink.finish(PATIENCE).await;
    assert!(finished.complete, "{finished:?}");
    let calls = stage.recognizers[0].calls.lock().expect("no panic").clone();
    assert_eq!(calls.len(), 2);
    let (first, second) = (calls[0].open.clone().expect("opened"), calls[1].open.clone().expect("opened"));
    assert!(second.generation > first.generation, "the dead one is fenced");
    assert_eq!(second.watermark, StreamTime(1_000_000));
    assert_eq!(second.restart, Some(restart(8)));
    assert_eq!(calls[1].chunks, (8..20).collect::<Vec<_>>(), "everything a fresh decoder needs, once");
    assert_eq!(calls[1].markers, [MarkerKind::Finalize("here".to_owned()), MarkerKind::End]);
    let mut heard = Vec::new();
    while let Some(event) = timeout(PATIENCE, events.next()).await.expect("events end") {
        heard.push(event);
    }
    assert!(heard.contains(&UplinkEvent::Moved { chunk: ChunkNumber(8) }), "{heard:?}");
    assert!(heard.iter().any(|event| matches!(event, UplinkEvent::Acked { chunk: ChunkNumber(10), .. })));
    let finalized = heard.iter().filter(|event| matches!(event, UplinkEvent::Finalized { .. })).count();
    assert_eq!(finalized, 1, "{heard:?}");
}

#[tokio::test]
async fn a_recognizer_that_failed_is_not_asked_before_it_has_heard_a_recording() {
    let stage = stage(&[Script::Serve, Script::Serve]).await;
    let calls = |n: usize| stage.recognizers[n].calls.lock().expect("no panic").len();
    let open = async || {
        let stream = StreamId(Uuid::new_v4());
        let (uplink, _events) = stage.uplinks.open(StreamSpec { stream, ..stage.spec.clone() }).await.expect("placed");
        uplink.chunk(chunk()).await.expect("taken");
        assert!(uplink.finish(PATIENCE).await.complete);
    };
    open().await;
    let (preferred, other) = if calls(0) > 0 { (0, 1) } else { (1, 0) };
    let deaf = &stage.recognizers[preferred];
    assert_eq!(deaf.probed.load(Ordering::Relaxed), 0, "nobody doubts it");
    deaf.hears.store(false, Ordering::Relaxed);
    *deaf.script.lock().expect("no panic") = Script::Die { covered: 0, at: 0 };
    open().await;
    // It answers that it is well all the time.
    let doubted = async {
        while deaf.probed.load(Ordering::Relaxed) < 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, doubted).await.expect("it is asked again and again");
    let (before, there) = (calls(preferred), calls(other));
    open().await;
    assert_eq!((calls(preferred), calls(other)), (before, there + 1));
    deaf.hears.store(true, Ordering::Relaxed);
    let trusted = async {
        while calls(preferred) == before {
            open().await;
        }
    };
    timeout(PATIENCE, trusted).await.expect("it is trusted again");
}

/// A stream of ten chunks that stand on the log, and a replica of the log of before.
async fn covered(stage: &Stage) -> (Uplink, Events, Replica) {
    let (uplink, mut events) = stage.uplinks.open(stage.spec.clone()).await.expect("placed");
    let replica = stage.bus.replica(&stage.spec.key).expect("it is open");
    for _ in 0..10 {
        uplink.chunk(chunk()).await.expect("alive");
    }
    let acked = async {
        while !matches!(events.next().await.expect("alive"), UplinkEvent::Acked { chunk: ChunkNumber(10), .. }) {}
    };
    timeout(PATIENCE, acked).await.expect("acknowledged");
    (uplink, events, replica)
}

/// What the log says was said.
async fn on_the_log(stage: &Stage) -> Vec<String> {
    let Read::Page(page) = stage.bus.read(&stage.spec.key, Seen::NOTHING, 100).await.expect("read") else {
        panic!("a gap")
    };
    let texts = page.entries.into_iter().filter_map(|entry| match entry.body {
        Body::Event(Event::Final(said)) => Some(said.text.clone()),
        _ => None,
    });
    texts.collect()
}

#[tokio::test]
async fn what_the_log_loses_of_what_was_acknowledged_is_appended_again_once() {
    let stage = stage(&[Script::Die { covered: 10, at: 15 }]).await;
    let (uplink, _events, replica) = covered(&stage).await;
    let said = on_the_log(&stage).await;
    assert_eq!(said.len(), 1);
    stage.bus.fail_over(replica);
    assert_eq!(on_the_log(&stage).await, Vec::<String>::new());
    // The recognizer dies with the log's history, and its audio was forgotten long ago.
    for _ in 10..20 {
        uplink.chunk(chunk()).await.expect("alive");
    }
    let finished = uplink.finish(PATIENCE).await;
    assert!(finished.complete, "{finished:?}");
    assert_eq!(on_the_log(&stage).await, said);
    let calls = stage.recognizers[0].calls.lock().expect("no panic").clone();
    let second = calls[1].open.clone().expect("opened");
    assert_eq!((second.watermark, second.restart), (StreamTime(1_000_000), Some(restart(8))));
    assert_eq!(calls[1].chunks, (8..20).collect::<Vec<_>>(), "only what was not on the log is heard again");
}

#[tokio::test]
async fn what_the_log_loses_while_nobody_speaks_is_appended_again() {
    let stage = stage(&[Script::Die { covered: 10, at: 1_000 }]).await;
    let (uplink, _events, replica) = covered(&stage).await;
    let said = on_the_log(&stage).await;
    stage.bus.fail_over(replica);
    let again = async {
        while on_the_log(&stage).await != said {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, again).await.expect("nothing but the uplink could know");
    assert!(uplink.finish(PATIENCE).await.complete);
    assert_eq!(on_the_log(&stage).await, said);
}

#[tokio::test]
async fn a_full_recognizer_is_passed_over_and_a_full_pool_is_said_so() {
    let two = stage(&[Script::Full, Script::Serve]).await;
    let (uplink, _events) = two.uplinks.open(two.spec.clone()).await.expect("the other one takes it");
    assert!(uplink.finish(PATIENCE).await.complete);
    let one = stage(&[Script::Full]).await;
    let refused = one.uplinks.open(one.spec.clone()).await.err();
    assert!(matches!(refused, Some(OpenError::Overloaded { .. })), "{refused:?}");
    let deaf = stage(&[Script::Unsupported]).await;
    let refused = deaf.uplinks.open(deaf.spec.clone()).await.err();
    assert_eq!(refused, Some(OpenError::Unsupported("only English is heard here".to_owned())));
    // Recognizers of a pool may run different engines.
    let mixed = stage(&[Script::Unsupported, Script::Unsupported, Script::Serve]).await;
    let (uplink, _events) = mixed.uplinks.open(mixed.spec.clone()).await.expect("one understands it");
    assert!(uplink.finish(PATIENCE).await.complete);
}

#[tokio::test]
async fn a_recognizer_that_says_it_has_no_room_is_not_asked() {
    let stage = stage(&[Script::Serve, Script::Serve]).await;
    let calls = |n: usize| stage.recognizers[n].calls.lock().expect("no panic").len();
    let open = async || {
        let stream = StreamId(Uuid::new_v4());
        let (uplink, _events) = stage.uplinks.open(StreamSpec { stream, ..stage.spec.clone() }).await.expect("placed");
        assert!(uplink.finish(PATIENCE).await.complete);
    };
    open().await;
    let (preferred, other) = if calls(0) > 0 { (0, 1) } else { (1, 0) };
    open().await;
    assert_eq!((calls(preferred), calls(other)), (2, 0), "a meeting stays where it is");
    // That it has none is told, and not asked for: until it has arrived, streams go where they went.
    stage.recognizers[preferred].load.send_replace(v1::Load { streams: 10, rated: 10, ..v1::Load::default() });
    let moved = async {
        while calls(other) == 0 {
            open().await;
        }
    };
    timeout(PATIENCE, moved).await.expect("the other one is asked");
    let before = calls(preferred);
    open().await;
    assert_eq!(calls(preferred), before);
}

#[tokio::test]
async fn a_stream_ends_with_its_conversation() {
    let stage = stage(&[Script::Die { covered: 4, at: 6 }]).await;
    let (uplink, _events) = stage.uplinks.open(stage.spec.clone()).await.expect("placed");
    stage.bus.delete(&stage.spec.key).await.expect("deleted");
    let sending = async {
        loop {
            if let Err(error) = uplink.chunk(chunk()).await {
                return error;
            }
        }
    };
    let error = timeout(PATIENCE, sending).await.expect("it ends");
    assert!(matches!(error, UplinkError::Refused(_) | UplinkError::Stalled(_)), "{error:?}");
    let finished = uplink.finish(Duration::from_secs(1)).await;
    assert!(!finished.complete);
}

#[tokio::test]
async fn an_end_that_gets_no_further_is_given_up_and_leaves_nothing() {
    let stage = stage(&[Script::Mute]).await;
    let (uplink, _events) = stage.uplinks.open(stage.spec.clone()).await.expect("placed");
    for _ in 0..5 {
        uplink.chunk(chunk()).await.expect("taken");
    }
    let patience = Duration::from_millis(300);
    let finished = timeout(PATIENCE, uplink.finish(patience)).await.expect("given up");
    assert_eq!(finished.error, Some(UplinkError::Stalled(patience)));
    assert!(!finished.complete);
    let calls = stage.recognizers[0].calls.lock().expect("no panic").clone();
    assert_eq!(calls[0].chunks.len(), 5, "everything was handed on first");
    // A dropped handle is an end, too.
    let spec = StreamSpec { stream: StreamId(Uuid::from_u128(3)), ..stage.spec.clone() };
    let (dropped, mut events) = stage.uplinks.open(spec).await.expect("placed");
    drop(dropped);
    let failed = UplinkEvent::Failed(UplinkError::Stalled(Duration::from_secs(10)));
    let mut next = async || loop {
        let event = timeout(PATIENCE, events.next()).await.expect("given up, and then nothing is left");
        // How it is, is told meanwhile.
        if !matches!(event, Some(UplinkEvent::Health(_))) {
            return event;
        }
    };
    assert_eq!(next().await, Some(failed));
    assert_eq!(next().await, None);
}

#[tokio::test]
async fn a_stream_that_breaks_every_recognizer_is_not_replayed_for_ever() {
    let stage = stage(&[Script::Break]).await;
    let (uplink, mut events) = stage.uplinks.open(stage.spec.clone()).await.expect("placed");
    uplink.chunk(chunk()).await.expect("taken");
    let failed = async {
        while let Some(event) = events.next().await {
            if let UplinkEvent::Failed(error) = event {
                return error;
            }
        }
        panic!("no reason was given");
    };
    let error = timeout(PATIENCE, failed).await.expect("it ends");
    assert!(matches!(error, UplinkError::Broken(_)), "{error:?}");
    let calls = stage.recognizers[0].calls.lock().expect("no panic").len();
    assert!((3..=8).contains(&calls), "{calls}");
}

/// Carries bytes to `address` until it is told to drop all that is carried.
async fn cuttable(address: std::net::SocketAddr) -> (std::net::SocketAddr, watch::Sender<u32>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let (at, cuts) = (listener.local_addr().expect("bound"), watch::Sender::new(0));
    let each = cuts.clone();
    #[expect(clippy::disallowed_methods, reason = "ends with the test")]
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut cut = each.subscribe();
            tokio::spawn(async move {
                let Ok(mut far) = tokio::net::TcpStream::connect(address).await else { return };
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    _ = cut.changed() => {}
                }
            });
        }
    });
    (at, cuts)
}

/// Eight stays in a row get the stream no further, and the ninth hears all of it.
async fn goes_on_after_many_moves(script: Script, chunks: usize) {
    let stage = stage(&[script]).await;
    let recognizer = &stage.recognizers[0];
    let (uplink, mut events) = stage.uplinks.open(stage.spec.clone()).await.expect("placed");
    for _ in 0..chunks {
        uplink.chunk(chunk()).await.expect("taken");
    }
    let many = async {
        loop {
            let calls = recognizer.calls.lock().expect("no panic").clone();
            if calls.len() > 8 {
                return;
            }
            if script == Script::Mute && calls.last().is_some_and(|call| call.chunks.len() == chunks) {
                stage.cut.send_modify(|cuts| *cuts += 1);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, many).await.expect("it is placed again and again");
    *recognizer.script.lock().expect("no panic") = Script::Serve;
    stage.cut.send_modify(|cuts| *cuts += 1);
    let finished = uplink.finish(PATIENCE).await;
    assert!(finished.complete, "{script:?}: {finished:?}");
    while let Some(event) = events.next().await {
        assert!(!matches!(event, UplinkEvent::Failed(_)), "{script:?}: {event:?}");
    }
}

#[tokio::test]
async fn recognizers_that_drain_in_mid_sentence_do_not_break_a_stream() {
    goes_on_after_many_moves(Script::Drain, 5).await;
}

#[tokio::test]
async fn recognizers_that_die_in_one_sentence_do_not_break_a_stream() {
    goes_on_after_many_moves(Script::Mute, 5).await;
}

#[tokio::test]
async fn a_stream_of_which_nothing_is_owed_is_not_broken_by_its_moves() {
    goes_on_after_many_moves(Script::Faint, 0).await;
}

#[tokio::test]
async fn a_speaker_who_mutes_is_taken_at_his_word() {
    let stage = stage(&[Script::Serve]).await;
    let spec = StreamSpec { recorded: false, ..stage.spec.clone() };
    let (uplink, mut events) = stage.uplinks.open(spec).await.expect("placed");
    let marked = |count: usize| {
        let calls = Arc::clone(&stage.recognizers[0].calls);
        async move {
            while calls.lock().expect("no panic")[0].markers.len() < count {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    };
    // Once a silence, at its place in the audio.
    for count in 1..3 {
        uplink.chunk(chunk()).await.expect("taken");
        timeout(PATIENCE, marked(count)).await.expect("an utterance end is asked for");
    }
    assert!(uplink.finish(PATIENCE).await.complete);
    let call = stage.recognizers[0].calls.lock().expect("no panic")[0].clone();
    let muted = call.markers.iter().filter(|marker| matches!(marker, MarkerKind::Finalize(_))).count();
    assert_eq!((muted, call.chunks.len()), (2, 2), "{call:?}");
    while let Some(event) = events.next().await {
        assert!(!matches!(event, UplinkEvent::Finalized { .. }), "nobody asked: {event:?}");
    }
}

/// What a stream is behind by is told by what was taken, though its recognizer says nothing any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_recognizer_is_seen_in_the_streams_health() {
    let stage = stage(&[Script::Mute]).await;
    let (uplink, mut events) = stage.uplinks.open(stage.spec.clone()).await.expect("placed");
    for _ in 0..7 {
        uplink.chunk(chunk()).await.expect("taken");
    }
    loop {
        let event = timeout(PATIENCE, events.next()).await.expect("in time").expect("more");
        if let UplinkEvent::Health(health) = event {
            assert_eq!((health.heard, health.covered), (StreamTime(700_000), StreamTime::ZERO));
            break;
        }
    }
    drop(uplink);
}
