//! The recognizer over real gRPC on loopback, with a log in memory, loudness for voice activity and a scripted engine.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{net::SocketAddr, num::NonZeroUsize, sync::Arc, time::Duration};

use bytes::Bytes;
use hearsay_bus::{Batch, Body, Bus, Claim, Delivery, Limits, MemoryBus, Proposal, Read, SystemClock};
use hearsay_protocol::{
    AccountId, AudioFormat, ChunkNumber, ConversationId, ConversationKey, Encoding, Epoch, Event, GatewayId, MeetingId,
    MeetingKey, ParticipantId, Position, PublisherId, Restart, Seen, StreamId, StreamTime,
    event::{Ephemeral, Final, Participant, Redaction, SpeakerConfig, StreamStarted},
};
use hearsay_recognizer::{Config, GrpcServer, LadderConfig, Recognizer};
use hearsay_rpc::{
    Ack, Marker, MarkerKind, Open, Request, Response, SignalKind,
    v1::{self, recognizer_client::RecognizerClient},
};
use hearsay_runtime::{HumanDuration, Readiness, Tasks};
use hearsay_speech::{
    codec::encode,
    engine::{
        Engine,
        scripted::{ScriptedEngine, ScriptedModel},
        streaming::Streaming,
    },
    offline,
    vad::{Energy, Vad, VadError, VadModel},
};
use tokio::{net::TcpListener, sync::mpsc, time::timeout};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Code, Status, transport::Channel};
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(20);

/// A recognizer, its log and one conversation.
struct World {
    bus: Arc<dyn Bus>,
    memory: MemoryBus,
    key: ConversationKey,
    channel: Channel,
    recognizer: Recognizer,
    tasks: Tasks,
}

impl World {
    async fn start(config: Config, engine: impl Engine + 'static) -> Self {
        Self::start_with(config, engine, Arc::new(Energy::default())).await
    }

    async fn start_with(mut config: Config, engine: impl Engine + 'static, vad: Arc<dyn VadModel>) -> Self {
        // Some engines here are slow on purpose.
        if config.rated == 0 {
            config.rated = config.streams.get();
        }
        let memory = MemoryBus::new(Limits::default(), Arc::new(SystemClock::default()));
        let bus: Arc<dyn Bus> = Arc::new(memory.clone());
        let meeting = MeetingKey { account: AccountId::dev(), meeting: MeetingId::new("standup").unwrap() };
        let proposal =
            Proposal { conversation: ConversationId::from_random(7), epoch: Epoch(1), title: "Standup".to_owned() };
        let key = bus.open(&meeting, proposal).await.unwrap().key;
        let tasks = Tasks::new();
        let recognizer =
            Recognizer::start(config, Arc::new(engine), vad, None, Arc::clone(&bus), &tasks).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tonic::transport::Server::builder().add_routes(recognizer.routes());
        let drain = tasks.drain();
        let serve = server.serve_with_incoming_shutdown(TcpListenerStream::new(listener), async move {
            drain.finished().await;
        });
        drop(tasks.spawn_background("grpc", async { serve.await.unwrap() }));
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        Self { bus, memory, key, channel, recognizer, tasks }
    }

    async fn claim(&self, stream: u128) -> Claim {
        self.bus.claim(&self.key, &PublisherId::Stream(StreamId(Uuid::from_u128(stream)))).await.unwrap()
    }

    /// What an uplink opens with.
    async fn open(&self, stream: u128) -> Open {
        let claim = self.claim(stream).await;
        Open {
            key: self.key.clone(),
            stream: StreamId(Uuid::from_u128(stream)),
            participant: participant(stream),
            config: SpeakerConfig::default(),
            generation: claim.generation,
            watermark: StreamTime(claim.watermark),
            restart: claim.restart,
            origin: claim.origin,
            recorded: false,
            first: true,
            seen: claim.top,
        }
    }

    async fn call(&self, open: Open) -> Result<Call, Status> {
        self.call_with(Request::Open(Box::new(open)).into()).await
    }

    async fn call_with(&self, first: v1::RecognizeRequest) -> Result<Call, Status> {
        let (requests, outgoing) = mpsc::channel(4);
        requests.send(first).await.unwrap();
        let mut client = RecognizerClient::new(self.channel.clone());
        let mut responses = client.recognize(ReceiverStream::new(outgoing)).await?.into_inner();
        assert_eq!(Response::try_from(responses.message().await?.unwrap()).unwrap(), Response::Opened);
        Ok(Call { requests, responses, acks: Vec::new(), signals: Vec::new(), ladder: 0 })
    }

    /// A stream from its claim to its end.
    async fn stream(&self, stream: u128, chunks: &[Bytes]) -> (Call, Position) {
        let mut call = self.call(self.open(stream).await).await.unwrap();
        call.chunks(chunks, 0).await;
        call.marker(chunks.len(), MarkerKind::End).await;
        let position = call.over().await.unwrap();
        (call, position)
    }

    async fn finals(&self, stream: u128) -> Vec<(u64, Arc<Final>)> {
        let Read::Page(page) = self.bus.read(&self.key, Seen::NOTHING, 10_000).await.unwrap() else { panic!("a gap") };
        let finals = page.entries.into_iter().filter_map(|entry| match entry.body {
            Body::Event(Event::Final(said)) if said.stream.0.as_u128() == stream => Some((entry.offset.0, said)),
            _ => None,
        });
        finals.collect()
    }
}

struct Call {
    requests: mpsc::Sender<v1::RecognizeRequest>,
    responses: tonic::Streaming<v1::RecognizeResponse>,
    acks: Vec<Ack>,
    signals: Vec<SignalKind>,
    /// The highest step of the ladder that was told.
    ladder: u32,
}

impl Call {
    async fn send(&self, request: Request) {
        timeout(PATIENCE, self.requests.send(request.into())).await.unwrap().unwrap();
    }

    /// Sends chunks, reading answers meanwhile so that neither side waits for the other.
    async fn chunks(&mut self, chunks: &[Bytes], first: usize) {
        for (index, data) in chunks.iter().enumerate() {
            self.send(Request::Chunk { number: ChunkNumber((first + index) as u64), data: data.clone() }).await;
        }
    }

    /// Sends chunks to one that may end the call before it has them all.
    async fn chunks_until_it_ends(&mut self, chunks: &[Bytes], first: usize) {
        for (index, data) in chunks.iter().enumerate() {
            let chunk = Request::Chunk { number: ChunkNumber((first + index) as u64), data: data.clone() };
            if timeout(PATIENCE, self.requests.send(chunk.into())).await.unwrap().is_err() {
                return;
            }
        }
    }

    async fn marker(&self, chunk: usize, kind: MarkerKind) {
        self.send(Request::Marker(Marker { chunk: ChunkNumber(chunk as u64), kind })).await;
    }

    /// The next answer that is not noted here.
    async fn next(&mut self) -> Result<Option<Response>, Status> {
        loop {
            let response = timeout(PATIENCE, self.responses.message()).await.expect("an answer in time")?;
            match response.map(|response| Response::try_from(response).unwrap()) {
                Some(Response::Ack(ack)) => self.acks.push(ack),
                Some(Response::Signal(signal)) => self.signals.push(signal.kind),
                Some(Response::Health(health)) => self.ladder = self.ladder.max(health.ladder),
                other => return Ok(other),
            }
        }
    }

    async fn over(&mut self) -> Result<Position, Status> {
        match self.next().await? {
            Some(Response::Ended { position }) => {
                assert_eq!(self.next().await?, None, "nothing follows the end");
                Ok(position)
            }
            other => panic!("{other:?}"),
        }
    }

    async fn refused(&mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }
}

fn participant(stream: u128) -> Arc<Participant> {
    let id = ParticipantId(Uuid::from_u128(stream + 1_000));
    Arc::new(Participant { id, user_id: None, name: Some(format!("Speaker {stream}")), email: None })
}

/// Noise, (ms, amplitude), LINEAR16 at 16 kHz.
fn sound(parts: &[(u32, f32)], seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::new();
    for (ms, amplitude) in parts {
        for _ in 0..ms * 16 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let sample = (f32::from((state >> 16) as i16) * amplitude) as i16;
            bytes.extend_from_slice(&sample.to_le_bytes());
        }
    }
    bytes
}

/// A few utterances and pauses.
fn talk(seed: u32) -> Vec<u8> {
    sound(
        &[
            (700, 0.0),
            (1_400, 0.3),
            (600, 0.0),
            (2_200, 0.2),
            (2_900, 0.0),
            (900, 0.25),
            (150, 0.0),
            (800, 0.3),
            (500, 0.0),
        ],
        seed,
    )
}

fn chunked(bytes: &[u8], size: usize) -> Vec<Bytes> {
    bytes.chunks(size).map(Bytes::copy_from_slice).collect()
}

/// What the same engine makes of the whole at once.
fn whole(bytes: &[u8]) -> Vec<(StreamTime, StreamTime, String)> {
    let settings = Config::default().segment.settings();
    let config = SpeakerConfig::default();
    let audio = Bytes::copy_from_slice(bytes);
    offline::transcribe(&settings, config, &Energy::default(), &ScriptedEngine::default(), audio)
        .unwrap()
        .into_iter()
        .filter_map(|commit| commit.utterance)
        .map(|said| (said.start, said.end, said.text))
        .collect()
}

fn said(finals: &[(u64, Arc<Final>)]) -> Vec<(StreamTime, StreamTime, String)> {
    finals.iter().map(|(_, said)| (said.start, said.end, said.text.clone())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_streams_become_finals_on_one_log() {
    let world = World::start(Config::default(), ScriptedEngine::default()).await;
    let (first, second) = (talk(3), talk(99));
    let (one, two) = (chunked(&first, 640), chunked(&second, 1_111));
    let ((one, one_end), (two, two_end)) = tokio::join!(world.stream(1, &one), world.stream(2, &two));
    for (stream, bytes, end, call) in [(1, first, one_end, one), (2, second, two_end, two)] {
        let finals = world.finals(stream).await;
        assert_eq!(said(&finals), whole(&bytes), "the words of the whole file at once");
        assert_eq!(finals.len(), 3);
        assert_eq!(finals.last().unwrap().0, end.offset.0, "the stream's last event");
        assert!(finals.iter().all(|(_, said)| said.participant == participant(stream)));
        let last = call.acks.last().unwrap();
        assert_eq!(last.through, StreamTime::of_samples(bytes.len() as u64 / 2, 16_000), "all audio is acknowledged");
        assert!(call.acks.is_sorted_by_key(|ack| (ack.through, ack.through_chunk, ack.restart.chunk)));
        assert_eq!(call.signals.iter().filter(|kind| **kind == SignalKind::UtteranceEnd).count(), 3);
    }
    world.tasks.finish(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_finalize_is_answered_with_where_the_last_final_stands() {
    let world = World::start(Config::default(), ScriptedEngine::default()).await;
    let mut call = world.call(world.open(1).await).await.unwrap();
    call.marker(0, MarkerKind::Finalize("before anything".to_owned())).await;
    assert!(matches!(call.next().await, Ok(Some(Response::Finalized { id, .. })) if id == "before anything"));
    let chunks = chunked(&sound(&[(300, 0.0), (1_500, 0.3)], 3), 640);
    call.chunks(&chunks, 0).await;
    call.marker(chunks.len(), MarkerKind::Finalize("now".to_owned())).await;
    let Ok(Some(Response::Finalized { id, position })) = call.next().await else { panic!("no answer") };
    let finals = world.finals(1).await;
    assert_eq!((id.as_str(), position.offset.0), ("now", finals[0].0), "the speech before it is on the log already");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partials_are_announced_and_followed_by_their_final() {
    let world = World::start(Config::default(), ScriptedEngine::default()).await;
    let mut heard = world.bus.subscribe(&world.key).await.unwrap();
    let mut call = world.call(world.open(1).await).await.unwrap();
    let chunks = chunked(&sound(&[(200, 0.0), (1_800, 0.3), (500, 0.0)], 3), 640);
    for (index, chunk) in chunks.iter().enumerate() {
        call.chunks(std::slice::from_ref(chunk), index).await;
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    let mut partials = Vec::new();
    let mut speaking = Vec::new();
    let done = loop {
        match timeout(PATIENCE, heard.next()).await.unwrap().unwrap() {
            Delivery::Ephemeral { ephemerals, .. } => {
                for ephemeral in ephemerals.iter() {
                    match ephemeral {
                        Ephemeral::Partial(partial) => partials.push(Arc::clone(partial)),
                        Ephemeral::Speaking { speaking: now, .. } => speaking.push(*now),
                        _ => {}
                    }
                }
            }
            Delivery::Appended { entries, .. } => {
                if let Some(Body::Event(Event::Final(said))) = entries.first().map(|entry| &entry.body) {
                    break Arc::clone(said);
                }
            }
            other => panic!("{other:?}"),
        }
    };
    assert!(!partials.is_empty());
    assert!(partials.is_sorted_by_key(|partial| partial.revision));
    assert!(partials.iter().all(|partial| partial.utterance == done.utterance && !partial.text.is_empty()));
    assert_eq!(speaking.first(), Some(&true));
}

/// Somebody else of the conversation asks for it, and a word that is said is their name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_personal_is_hidden_before_anybody_hears_of_it() {
    let world = World::start(Config::default(), ScriptedEngine::default()).await;
    let chunks = chunked(&sound(&[(200, 0.0), (1_800, 0.3), (500, 0.0)], 3), 640);
    world.stream(1, &chunks).await;
    let plain = Arc::clone(&world.finals(1).await[0].1);
    let bare = |word: &str| word.trim_matches(|it: char| !it.is_alphanumeric()).to_lowercase();
    let name = bare(plain.text.split(' ').nth(1).unwrap());

    let claim = world.bus.claim(&world.key, &PublisherId::Rest(Uuid::from_u128(5))).await.unwrap();
    let redaction = Some(Redaction { identify: false, redact: true, replacement: "[not told]".to_owned() });
    let started = StreamStarted {
        stream: StreamId(Uuid::from_u128(9)),
        participant: Arc::new(Participant { name: Some(name.clone()), ..Participant::clone(&participant(9)) }),
        gateway: GatewayId(Uuid::from_u128(9)),
        config: SpeakerConfig { redaction, ..SpeakerConfig::default() },
        origin: claim.origin,
        recorded: false,
        no_connection_timeout: Duration::ZERO,
    };
    let batch = Batch {
        publisher: PublisherId::Rest(Uuid::from_u128(5)),
        generation: claim.generation,
        from: 0,
        through: 1,
        events: vec![Event::StreamStarted(Arc::new(started))],
        restart: None,
        seen: claim.top,
    };
    world.bus.publish(&world.key, batch).await.unwrap();

    let mut heard = world.bus.subscribe(&world.key).await.unwrap();
    let mut call = world.call(world.open(2).await).await.unwrap();
    for (index, chunk) in chunks.iter().enumerate() {
        call.chunks(std::slice::from_ref(chunk), index).await;
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    call.marker(chunks.len(), MarkerKind::End).await;
    call.over().await.unwrap();
    let mut partials = 0;
    let done = loop {
        match timeout(PATIENCE, heard.next()).await.unwrap().unwrap() {
            Delivery::Ephemeral { ephemerals, .. } => {
                for ephemeral in ephemerals.iter() {
                    if let Ephemeral::Partial(partial) = ephemeral {
                        partials += 1;
                        assert!(partial.text.split(' ').all(|word| bare(word) != name), "{partial:?}");
                        assert_eq!(partial.stable, 0);
                    }
                }
            }
            Delivery::Appended { entries, .. } => {
                if let Some(Body::Event(Event::Final(said))) = entries.first().map(|entry| &entry.body) {
                    break Arc::clone(said);
                }
            }
            other => panic!("{other:?}"),
        }
    };
    assert!(partials > 0);
    let words = |said: &Final| said.text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let (before, after) = (words(&plain), words(&done));
    assert_eq!(before.len(), after.len());
    for (index, (before, after)) in before.iter().zip(&after).enumerate() {
        let hidden = bare(before) == name;
        assert_eq!(
            *after,
            if hidden { before.to_lowercase().replace(&name, "[not\u{a0}told]") } else { before.clone() }
        );
        assert_eq!(done.words[index].text, *after);
        assert_eq!(
            (done.words[index].start, done.words[index].end),
            (plain.words[index].start, plain.words[index].end)
        );
    }
    assert!(call.acks.iter().all(|ack| ack.events.iter().all(|event| match event {
        Event::Final(kept) => kept.text == done.text,
        _ => true,
    })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_superseded_stay_is_told_and_says_nothing_more() {
    let world = World::start(Config::default(), ScriptedEngine::default()).await;
    let mut call = world.call(world.open(1).await).await.unwrap();
    world.claim(1).await;
    let chunks = chunked(&talk(3), 640);
    for (number, data) in chunks.into_iter().enumerate() {
        let request = Request::Chunk { number: ChunkNumber(number as u64), data };
        if call.requests.send(request.into()).await.is_err() {
            break;
        }
    }
    assert_eq!(call.refused().await.code(), Code::Aborted);
    assert!(world.finals(1).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_put_on_the_log_is_told_and_that_it_was_lost_too() {
    let world = World::start(Config::default(), ScriptedEngine::default()).await;
    let mut call = world.call(world.open(1).await).await.unwrap();
    let replica = world.memory.replica(&world.key).unwrap();
    let chunks = chunked(&talk(3), 640);
    call.chunks(&chunks, 0).await;
    call.marker(chunks.len(), MarkerKind::Finalize("all".to_owned())).await;
    assert!(matches!(call.next().await, Ok(Some(Response::Finalized { .. }))));
    let finals: Vec<Event> = world.finals(1).await.into_iter().map(|(_, said)| Event::Final(said)).collect();
    let told: Vec<Event> = call.acks.iter().flat_map(|ack| ack.events.clone()).collect();
    assert_eq!(told, finals);
    assert!(call.acks.windows(2).all(|pair| pair[1].from == Some(pair[0].through)), "without a hole");
    // History branches: the call ends with a status of its own, so that nobody takes the recognizer for unwell.
    world.memory.fail_over(replica);
    for (index, data) in chunked(&talk(5), 640).into_iter().enumerate() {
        let number = ChunkNumber((chunks.len() + index) as u64);
        // It may end before all is sent.
        if call.requests.send(Request::Chunk { number, data }.into()).await.is_err() {
            break;
        }
    }
    assert_eq!(call.refused().await.code(), Code::DataLoss);
}

/// Panics when it hears the loudest sample there is.
struct Fragile(Energy);

struct FragileVoice(Box<dyn Vad>);

impl VadModel for Fragile {
    fn voice(&self) -> Box<dyn Vad> {
        Box::new(FragileVoice(self.0.voice()))
    }
}

impl Vad for FragileVoice {
    fn reset(&mut self) {
        self.0.reset();
    }

    fn probability(&mut self, frame: &[f32]) -> Result<f32, VadError> {
        assert!(frame.iter().all(|sample| *sample > -1.0), "too loud");
        self.0.probability(frame)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_makes_a_lane_panic_harms_no_other() {
    let config = Config { listening_threads: 1.try_into().unwrap(), ..Config::default() };
    let world = World::start_with(config, ScriptedEngine::default(), Arc::new(Fragile(Energy::default()))).await;
    let mut other = world.call(world.open(2).await).await.unwrap();
    let mut call = world.call(world.open(1).await).await.unwrap();
    call.chunks(&[i16::MIN.to_le_bytes().repeat(1_600).into()], 0).await;
    assert_eq!(call.refused().await.code(), Code::Internal);
    let chunks = chunked(&talk(3), 640);
    other.chunks(&chunks, 0).await;
    other.marker(chunks.len(), MarkerKind::End).await;
    other.over().await.unwrap();
    assert_eq!(world.finals(2).await.len(), 3);
    world.stream(3, &chunks).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_conversation_refuses() {
    let world = World::start(Config::default(), ScriptedEngine::default()).await;
    let mut call = world.call(world.open(1).await).await.unwrap();
    world.bus.delete(&world.key).await.unwrap();
    call.marker(0, MarkerKind::Reanchor(StreamTime(5_000_000))).await;
    assert_eq!(call.refused().await.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_over_capacity_are_refused_until_there_is_room() {
    let config = Config { streams: 1.try_into().unwrap(), ..Config::default() };
    let world = World::start(config, ScriptedEngine::default()).await;
    let call = world.call(world.open(1).await).await.unwrap();
    let refused = world.call(world.open(2).await).await.err().unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    drop(call);
    let admitted = async {
        loop {
            if world.call(world.open(2).await).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, admitted).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_places_may_be_one_connections() {
    let config = Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        streams: const { NonZeroUsize::new(210).unwrap() },
        rated: 210,
        ..Config::default()
    };
    let server = GrpcServer::bind(&config).await.unwrap();
    let address = server.local_addr();
    let mut world = World::start(config, ScriptedEngine::default()).await;
    server.serve(&world.recognizer, &Readiness::new(), &world.tasks);
    world.channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let mut calls = Vec::new();
    for stream in 1..=210 {
        let call = world.call(world.open(stream).await);
        calls.push(timeout(PATIENCE, call).await.unwrap_or_else(|_| panic!("stream {stream} waits")).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn above_what_is_heard_well_only_streams_that_another_lost_are_taken() {
    let config = Config { rated: 1, ..Config::default() };
    let world = World::start(config, ScriptedEngine::default()).await;
    let _first = world.call(world.open(1).await).await.unwrap();
    let refused = world.call(world.open(2).await).await.err().unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(refused.message(), "1 streams are heard here, and 1 can be heard well");
    assert!(world.call(Open { first: false, ..world.open(2).await }).await.is_ok());
}

/// Live decodes wait for one slow engine thread until the ladder is climbed: each step reaches the uplink.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recognizer_that_is_behind_takes_only_streams_that_another_lost() {
    let ms = HumanDuration::from_millis;
    let ladder = LadderConfig { slow_partials: ms(20), no_partials: ms(40), refuse: ms(60) };
    let config = Config { engine_threads: 1, ladder, ..Config::default() };
    let world = World::start(config, ScriptedEngine::with_delay(Duration::from_millis(400))).await;
    let chunks = chunked(&sound(&[(1_000, 0.3), (700, 0.0)].repeat(12), 3), 640);
    let mut calls = Vec::new();
    for stream in 1..=4 {
        let mut call = world.call(world.open(stream).await).await.unwrap();
        call.chunks(&chunks[..600], 0).await;
        calls.push(call);
    }
    let behind = async {
        loop {
            match world.call(world.open(9).await).await {
                Err(refused) => return refused,
                Ok(call) => drop(call),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let refused = timeout(PATIENCE, behind).await.unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(refused.message(), "the engine is behind with the streams it has");
    assert!(world.call(Open { first: false, ..world.open(9).await }).await.is_ok());
    let told = async {
        while calls[0].ladder < 3 {
            let _ = timeout(Duration::from_millis(100), calls[0].next()).await;
        }
    };
    timeout(PATIENCE, told).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_heard_is_refused_by_name() {
    let world = World::start(Config::default(), ScriptedEngine::default()).await;
    let mut open = world.open(1).await;
    open.config.language = "fr-FR".to_owned();
    let refused = world.call(open).await.err().unwrap();
    assert_eq!(refused.code(), Code::Unimplemented);
    assert_eq!(refused.message(), "language \"fr-FR\" is not understood here; en is");
    let mut wrong: v1::Open = world.open(1).await.into();
    wrong.stream = vec![1];
    let request = v1::RecognizeRequest { request: Some(v1::recognize_request::Request::Open(wrong)) };
    let refused = world.call_with(request).await.err().unwrap();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::InvalidArgument, "field Open.stream has 1 bytes; a UUID has 16")
    );
    let early = Request::Chunk { number: ChunkNumber(0), data: Bytes::new() };
    assert_eq!(world.call_with(early.into()).await.err().unwrap().code(), Code::InvalidArgument);
    let mut call = world.call(world.open(1).await).await.unwrap();
    call.send(Request::Chunk { number: ChunkNumber(5), data: Bytes::new() }).await;
    assert_eq!(call.refused().await.code(), Code::InvalidArgument);
}

/// The call is dropped at many places; each next one goes on from the log's claim. The log reads as if nothing happened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_die_anywhere_lose_no_word_and_double_none() {
    let world = World::start(Config::default(), ScriptedEngine::with_delay(Duration::from_millis(3))).await;
    let bytes = talk(3);
    let chunks = chunked(&bytes, 777);
    for stop in [40, 70, 95, 96, 180, 250, 300, chunks.len() - 1] {
        let open = world.open(1).await;
        let first = open.restart.as_ref().map_or(0, |restart| restart.chunk.0 as usize);
        let mut call = world.call(open).await.unwrap();
        call.chunks(&chunks[first..stop.max(first)], first).await;
        // Some of what was sent is heard and committed, and some is not.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let open = world.open(1).await;
    let first = open.restart.as_ref().map_or(0, |restart| restart.chunk.0 as usize);
    assert!(first > 0, "something was committed on the way");
    let mut call = world.call(open).await.unwrap();
    call.chunks(&chunks[first..], first).await;
    call.marker(chunks.len(), MarkerKind::End).await;
    call.over().await.unwrap();
    assert_eq!(said(&world.finals(1).await), whole(&bytes));
}

/// The same with an engine that listens while somebody speaks: what it had heard dies with the call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_die_lose_no_word_of_a_streaming_engine() {
    let model = Arc::new(ScriptedModel::default());
    let world = World::start(Config::default(), Streaming::new(Arc::clone(&model))).await;
    let bytes = talk(3);
    let chunks = chunked(&bytes, 777);
    for stop in [40, 95, 180, 250, 300] {
        let open = world.open(1).await;
        let first = open.restart.as_ref().map_or(0, |restart| restart.chunk.0 as usize);
        let mut call = world.call(open).await.unwrap();
        call.chunks(&chunks[first..stop.max(first)], first).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let open = world.open(1).await;
    let first = open.restart.as_ref().map_or(0, |restart| restart.chunk.0 as usize);
    assert!(first > 0, "something was committed on the way");
    let mut call = world.call(open).await.unwrap();
    call.chunks(&chunks[first..], first).await;
    call.marker(chunks.len(), MarkerKind::End).await;
    call.over().await.unwrap();
    assert_eq!(said(&world.finals(1).await), whole(&bytes));
    assert!(model.heard() > 0);
}

/// The same with compressed audio: each call goes on in the middle of pages, blocks and frames.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_die_lose_no_word_in_any_encoding() {
    let samples: Vec<i16> = talk(3).as_chunks::<2>().0.iter().map(|sample| i16::from_le_bytes(*sample)).collect();
    let (packets, skip) = encode::opus(&samples, &encode::Opus { rate: 16_000, ..encode::Opus::default() }).unwrap();
    let wide: Vec<i32> = samples.iter().map(|sample| i32::from(*sample)).collect();
    let pieces = |bytes: Vec<u8>| chunked(&bytes, 333);
    let streams = [
        (Encoding::Flac, 44_100, pieces(encode::flac(&wide, 1, 16, 16_000, 4_096).unwrap())),
        (Encoding::Opus, 48_000, packets.iter().cloned().map(Bytes::from).collect()),
        (Encoding::Opus, 48_000, pieces(encode::ogg(&packets, skip, 50, 1).unwrap())),
        (Encoding::Opus, 48_000, pieces(encode::webm(&packets, skip, 50))),
    ];
    let world = World::start(Config::default(), ScriptedEngine::with_delay(Duration::from_millis(3))).await;
    for (stream, (encoding, rate, chunks)) in (1..).zip(streams) {
        let config = SpeakerConfig { format: AudioFormat::new(encoding, rate).unwrap(), ..SpeakerConfig::default() };
        let open = async |stream| Open { config: config.clone(), ..world.open(stream).await };
        let mut moved = 0;
        for tenth in [1, 2, 3, 5, 7, 8, 9, 10] {
            let open = open(stream).await;
            let first = open.restart.as_ref().map_or(0, |restart| restart.chunk.0 as usize);
            moved += usize::from(first > 0);
            let mut call = world.call(open).await.unwrap();
            call.chunks(&chunks[first..(chunks.len() * tenth / 10).max(first)], first).await;
            if tenth == 10 {
                call.marker(chunks.len(), MarkerKind::End).await;
                call.over().await.unwrap();
            } else {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        assert!(moved > 1, "something was committed on the way");
        // The same without an accident, as another stream.
        let mut call = world.call(open(stream + 100).await).await.unwrap();
        call.chunks(&chunks, 0).await;
        call.marker(chunks.len(), MarkerKind::End).await;
        call.over().await.unwrap();
        let unharmed = said(&world.finals(stream + 100).await);
        assert!(unharmed.len() >= 3, "{unharmed:?}");
        assert_eq!(said(&world.finals(stream).await), unharmed, "{encoding:?}");
    }
}

/// Bytes that are not what was announced: what was said before is on the log, and the client can be told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_not_what_it_says_is_refused_by_name() {
    let world = World::start(Config::default(), ScriptedEngine::default()).await;
    let wav = Bytes::from(b"RIFF\x24\x10\0\0WAVEfmt ".repeat(50));
    let config =
        SpeakerConfig { format: AudioFormat::new(Encoding::Flac, 16_000).unwrap(), ..SpeakerConfig::default() };
    let mut call = world.call(Open { config: config.clone(), ..world.open(1).await }).await.unwrap();
    call.chunks(std::slice::from_ref(&wav), 0).await;
    let refused = call.refused().await;
    assert_eq!(refused.code(), Code::InvalidArgument);
    let expected = "audio is not FLAC: it begins with 52 49 46 46 24 10 00 00 (a WAV file); ";
    assert!(refused.message().starts_with(expected), "{refused:?}");
    // In mid-stream, after a change of the format.
    let mut call = world.call(world.open(2).await).await.unwrap();
    let speech = chunked(&sound(&[(300, 0.0), (1_500, 0.3)], 3), 640);
    call.chunks(&speech, 0).await;
    call.marker(speech.len(), MarkerKind::Config(Box::new(config))).await;
    call.chunks(&[wav], speech.len()).await;
    assert_eq!(call.refused().await.code(), Code::InvalidArgument);
    assert_eq!(world.finals(2).await.len(), 1);
    // A restart point of another version is for another recognizer.
    let format = AudioFormat::new(Encoding::Flac, 16_000).unwrap();
    let headers = Bytes::from_static(b"\x09unknown");
    let restart = Restart { chunk: ChunkNumber(3), at: StreamTime(1), bytes_before: 9, format, headers };
    let refused = world.call(Open { restart: Some(restart), ..world.open(3).await }).await.err().unwrap();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_hands_streams_back_at_an_utterances_end() {
    let config = Config { handover: HumanDuration::from_secs(10), ..Config::default() };
    let world = World::start(config, ScriptedEngine::default()).await;
    let mut call = world.call(world.open(1).await).await.unwrap();
    let speech = chunked(&sound(&[(300, 0.0), (1_500, 0.3)], 3), 640);
    call.chunks(&speech, 0).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    world.tasks.begin_drain();
    let refused = world.call(world.open(2).await).await.err().unwrap();
    assert_eq!(refused.code(), Code::Unavailable);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(world.finals(1).await.is_empty(), "the utterance may end");
    call.chunks_until_it_ends(&chunked(&sound(&[(600, 0.0)], 3), 640), speech.len()).await;
    assert_eq!(call.refused().await.code(), Code::Unavailable);
    assert_eq!(world.finals(1).await.len(), 1);
    drop(call);
    world.tasks.finish(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_is_told_when_it_changes_and_ends_with_the_drain() {
    let config = Config { streams: NonZeroUsize::new(3).unwrap(), ..Config::default() };
    let world = World::start(config, ScriptedEngine::default()).await;
    let mut client = v1::capacity_client::CapacityClient::new(world.channel.clone());
    let mut loads = client.watch(v1::WatchRequest {}).await.unwrap().into_inner();
    let mut until = async |streams: u32| loop {
        let told = timeout(PATIENCE, loads.message()).await.unwrap()?.expect("it does not end by itself");
        assert_eq!(told.rated, 3);
        if told.streams == streams {
            return Ok::<_, Status>(());
        }
    };
    until(0).await.unwrap();
    let one = world.call(world.open(1).await).await.unwrap();
    let two = world.call(world.open(2).await).await.unwrap();
    until(2).await.unwrap();
    drop(one);
    until(1).await.unwrap();
    drop(two);
    until(0).await.unwrap();
    world.tasks.begin_drain();
    assert_eq!(until(3).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(client.watch(v1::WatchRequest {}).await.unwrap_err().code(), Code::Unavailable);
    world.tasks.finish(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_reflection_answer() {
    let world = World::start(Config::default(), ScriptedEngine::default()).await;
    let mut health = tonic_health::pb::health_client::HealthClient::new(world.channel.clone());
    let service = "hearsay.v1.Recognizer".to_owned();
    let answer = health.check(tonic_health::pb::HealthCheckRequest { service }).await.unwrap().into_inner();
    assert_eq!(answer.status(), tonic_health::pb::health_check_response::ServingStatus::Serving);
    world.tasks.finish(PATIENCE).await.unwrap();
}
