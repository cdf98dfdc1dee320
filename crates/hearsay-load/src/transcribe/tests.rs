//! Against a scripted server, over real sockets.

use std::sync::{Arc, atomic::AtomicU64, atomic::Ordering};

use futures::{SinkExt, StreamExt};
use hearsay_runtime::Tasks;
use hound::{SampleFormat, WavWriter};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use super::{pace::WINDOW_MS, wav::tests::spec, *};

type Socket = WebSocketStream<TcpStream>;

const TOKEN: &str = "a.good.token";

/// What the server does once the start request has come.
#[derive(Clone, Copy, PartialEq)]
enum Script {
    /// Acknowledges half a window at a time, a final with each, and ends in order.
    Transcribe,
    /// Ends the stream with an error frame.
    Overloaded,
    /// Closes after the first audio.
    Close,
    /// Keeps streams: breaks off three connections in mid-file without a word, and goes on with the stream.
    Break,
}

/// What a server that keeps streams has of one.
#[derive(Default)]
struct Kept {
    audio: Vec<Vec<u8>>,
    restart: usize,
    connections: usize,
    /// Of URLs, what follows the question mark.
    queries: Vec<String>,
}

struct Fake {
    url: Uri,
    /// Most audio that was ever unacknowledged.
    most_ms: Arc<AtomicU64>,
    received_ms: Arc<AtomicU64>,
    kept: Arc<Mutex<Kept>>,
    _tasks: Tasks,
}

impl Fake {
    async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let (most_ms, received_ms, tasks) = (Arc::default(), Arc::default(), Tasks::new());
        let kept = Arc::<Mutex<Kept>>::default();
        let fake = Self {
            url,
            most_ms: Arc::clone(&most_ms),
            received_ms: Arc::clone(&received_ms),
            kept: Arc::clone(&kept),
            _tasks: tasks.clone(),
        };
        let each = tasks.clone();
        tasks.spawn("fake server", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (most, received, kept) = (Arc::clone(&most_ms), Arc::clone(&received_ms), Arc::clone(&kept));
                each.spawn("fake connection", async move {
                    match accept(stream, &kept).await {
                        Some(socket) if script == Script::Break => go_on(socket, &kept).await,
                        Some(socket) => serve(socket, script, &most, &received).await,
                        None => {}
                    }
                });
            }
        });
        fake
    }
}

async fn accept(stream: TcpStream, kept: &Mutex<Kept>) -> Option<Socket> {
    #[expect(clippy::result_large_err, reason = "the callback's type is the library's")]
    let check = |request: &Request, response: Response| {
        kept.lock().unwrap().queries.push(request.uri().query().unwrap_or_default().to_owned());
        if request.headers().get("x-api-key").is_some_and(|token| token == TOKEN) {
            return Ok(response);
        }
        let body = r#"{"message":"Token validation failed for provided token."}"#;
        let mut refusal = ErrorResponse::new(Some(body.to_owned()));
        *refusal.status_mut() = http::StatusCode::UNAUTHORIZED;
        Err(refusal)
    };
    accept_hdr_async(stream, check).await.ok()
}

async fn serve(mut socket: Socket, script: Script, most: &AtomicU64, received: &AtomicU64) {
    let Some(Ok(Message::Text(start))) = socket.next().await else { return };
    let start: serde_json::Value = serde_json::from_str(&start).unwrap();
    assert_eq!(start["type"], "start_request");
    assert_eq!(start["hearsay"]["ack"], true);
    let name = start["speaker"]["name"].as_str().unwrap().to_owned();
    let rate = start["config"]["speechRecognition"]["sampleRateHertz"].as_u64().unwrap();
    let message = |body: &str| Message::text(format!(r#"{{"type":"message","message":{body}}}"#));
    if script == Script::Overloaded {
        let error = r#"{"type":"error","code":"overloaded","details":"no room","retryAfterMs":1000}"#;
        socket.send(message(error)).await.unwrap();
        return;
    }
    socket.send(message(r#"{"type":"started_listening"}"#)).await.unwrap();
    let (mut bytes, mut acknowledged) = (0, 0);
    while let Some(Ok(frame)) = socket.next().await {
        match frame {
            Message::Binary(audio) => {
                if script == Script::Close {
                    let frame = CloseFrame { code: CloseCode::Again, reason: "full".into() };
                    socket.close(Some(frame)).await.unwrap();
                    return;
                }
                bytes += audio.len() as u64;
                let ms = bytes * 1_000 / (rate * 2);
                received.fetch_max(ms, Ordering::Relaxed);
                most.fetch_max(ms - acknowledged, Ordering::Relaxed);
                if ms - acknowledged >= WINDOW_MS / 2 {
                    acknowledged = ms;
                    socket.send(said(&name, ms)).await.unwrap();
                    socket.send(said(&name, ms)).await.unwrap();
                    let ack = format!(r#"{{"type":"audio_ack","chunk":1,"ms":{ms}}}"#);
                    socket.send(Message::text(ack)).await.unwrap();
                }
            }
            Message::Text(_) => {
                socket.send(said(&name, bytes * 1_000 / (rate * 2))).await.unwrap();
                socket.send(message(r#"{"type":"conversation_completed"}"#)).await.unwrap();
                socket.send(message(r#"{"type":"recognition_stopped"}"#)).await.unwrap();
                socket.close(None).await.ok();
                return;
            }
            _ => return,
        }
    }
}

/// Messages after which something happens to them.
const ACKNOWLEDGED: usize = 40;
const BROKEN_OFF: usize = 130;

async fn go_on(mut socket: Socket, kept: &Mutex<Kept>) {
    let Some(Ok(Message::Text(start))) = socket.next().await else { return };
    let start: serde_json::Value = serde_json::from_str(&start).unwrap();
    let (mut at, connection) = {
        let mut kept = kept.lock().unwrap();
        kept.connections += 1;
        (kept.restart, kept.connections)
    };
    let token = format!("token {connection}");
    match connection {
        1 => assert!(start["hearsay"]["resume"].is_null()),
        _ => assert_eq!(start["hearsay"]["resume"], format!("token {}", connection - 1)),
    }
    let mut told = vec![
        r#"{"type":"message","message":{"type":"started_listening"}}"#.to_owned(),
        format!(r#"{{"type":"resume_token","token":"{token}","stream":"0f4f"}}"#),
    ];
    if connection > 1 {
        told.push(format!(r#"{{"type":"resumed","chunk":{at}}}"#));
        // What the break took with it, as the log would give it.
        let kept = kept.lock().unwrap();
        let query = kept.queries.last().unwrap();
        let since: usize = query.split_once("&since=0badcafe%3A").map_or(0, |(_, offset)| offset.parse().unwrap());
        let missed = (1..).map(|number| number * ACKNOWLEDGED).take_while(|place| *place <= kept.restart + 3);
        told.extend(missed.filter(|place| *place > since).map(final_at));
    }
    for text in told {
        socket.send(Message::text(text)).await.unwrap();
    }
    let mut here = 0;
    while let Some(Ok(frame)) = socket.next().await {
        match frame {
            Message::Binary(audio) => {
                {
                    let mut kept = kept.lock().unwrap();
                    match kept.audio.get(at) {
                        Some(before) => assert_eq!(before, &audio, "message {at} is the same again"),
                        None => kept.audio.push(audio.to_vec()),
                    }
                }
                (at, here) = (at + 1, here + 1);
                if at.is_multiple_of(ACKNOWLEDGED) {
                    let restart = at - 3;
                    kept.lock().unwrap().restart = restart;
                    let ms = at as u64 * 100;
                    socket.send(Message::text(final_at(at))).await.unwrap();
                    let ack = format!(r#"{{"type":"audio_ack","chunk":{at},"restart":{restart},"ms":{ms}}}"#);
                    socket.send(Message::text(ack)).await.unwrap();
                }
                if here == BROKEN_OFF && connection <= 3 {
                    return;
                }
            }
            Message::Text(_) => {
                for end in ["conversation_completed", "recognition_stopped"] {
                    let text = format!(r#"{{"type":"message","message":{{"type":"{end}"}}}}"#);
                    socket.send(Message::text(text)).await.unwrap();
                }
                socket.close(None).await.ok();
                return;
            }
            _ => return,
        }
    }
}

/// With its place on the log.
fn final_at(message: usize) -> String {
    let place = format!(r#""position":"0badcafe:{message}","type":"message""#);
    let text = said("talk", message as u64 * 100).into_text().unwrap();
    text.replacen(r#""type":"message""#, &place, 1)
}

fn said(name: &str, at_ms: u64) -> Message {
    let start = format!(r#"{{"seconds":"{}","nanos":"{}"}}"#, at_ms / 1_000, at_ms % 1_000 * 1_000_000);
    Message::text(format!(
        r#"{{"type":"message","message":{{"type":"recognition_result","isFinal":true,
        "payload":{{"raw":{{"alternatives":[{{"words":[{{"word":"so","startTime":{start},"endTime":{start}}}]}}]}}}},
        "punctuated":{{"transcript":"So."}},"user":{{"name":"{name}"}}}}}}"#
    ))
}

fn record(folder: &Path, name: &str, rate: u32, ms: u64) -> PathBuf {
    let path = folder.join(name);
    let mut writer = WavWriter::create(&path, spec(rate, 1, 16, SampleFormat::Int)).unwrap();
    for sample in 0..u64::from(rate) * ms / 1_000 {
        writer.write_sample((sample / 100 % 30_000) as i16).unwrap();
    }
    writer.finalize().unwrap();
    path
}

async fn run(fake: &Fake, files: Vec<PathBuf>, fast: bool, token: &str) -> (Result<Summary, TranscribeError>, String) {
    let options = Options {
        ca: None,
        url: fake.url.clone(),
        credentials: Credentials::Token(token.to_owned()),
        meeting: Some("stand-up / Monday".to_owned()),
        fast,
        output: Output::Text,
        progress: false,
        files,
    };
    let mut out = Vec::new();
    let summary = transcribe(options, &mut out).await;
    (summary, String::from_utf8(out).unwrap())
}

#[tokio::test]
async fn a_recording_is_sent_as_fast_as_it_is_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let file = record(folder.path(), "talk.wav", 44_100, 65_000);
    let fake = Fake::start(Script::Transcribe).await;
    let (summary, text) = run(&fake, vec![file], true, TOKEN).await;
    let summary = summary.unwrap();
    assert_eq!(fake.received_ms.load(Ordering::Relaxed), 65_000);
    assert!(fake.most_ms.load(Ordering::Relaxed) <= WINDOW_MS);
    assert!(summary.took < Duration::from_secs(30), "not at the pace of speech: {summary}");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "[00:00:10.000] talk: So.");
    assert_eq!(lines.last(), Some(&"[00:01:05.000] talk: So."));
    // Each was sent twice, as by two connections; each is printed once.
    assert_eq!(lines.len(), 7, "{text}");
    assert_eq!(summary.finals, 7);
}

#[tokio::test]
async fn a_stream_whose_connections_break_goes_on_where_the_server_says() {
    let folder = tempfile::tempdir().unwrap();
    let file = record(folder.path(), "talk.wav", 8_000, 50_030);
    let fake = Fake::start(Script::Break).await;
    let (summary, text) = run(&fake, vec![file], true, TOKEN).await;
    assert_eq!(summary.unwrap().finals, 12);
    let times: Vec<_> = text.lines().map(|line| &line[..14]).collect();
    let expected: Vec<_> = (1..=12).map(|it| format!("[00:00:{:02}.000]", it * 4)).collect();
    assert_eq!(times, expected, "each final once");
    let kept = fake.kept.lock().unwrap();
    assert_eq!(kept.connections, 4);
    let whole: Vec<u8> = (0..8 * 50_030).flat_map(|it: u32| ((it / 100 % 30_000) as i16).to_le_bytes()).collect();
    assert_eq!(kept.audio.concat(), whole);
    assert_eq!(kept.queries[0], "source=hearsay");
    assert!(
        kept.queries[1..].iter().all(|it| it.contains("&since=") || it.contains("&history=all")),
        "{:?}",
        kept.queries
    );
}

#[tokio::test]
async fn speech_is_sent_at_its_own_pace_and_speakers_are_named_after_their_files() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("two")).unwrap();
    let files = vec![
        record(folder.path(), "ana.wav", 16_000, 450),
        record(folder.path(), "ben.wav", 8_000, 600),
        record(&folder.path().join("two"), "ana.wav", 16_000, 300),
    ];
    let fake = Fake::start(Script::Transcribe).await;
    let (summary, text) = run(&fake, files, false, TOKEN).await;
    assert!(summary.unwrap().took >= Duration::from_millis(600));
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["[00:00:00.300] ana 2: So.", "[00:00:00.450] ana: So.", "[00:00:00.600] ben: So."]);
}

#[tokio::test]
async fn refusals_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let file = record(folder.path(), "talk.wav", 16_000, 60_000);
    let fake = Fake::start(Script::Overloaded).await;
    let error = run(&fake, vec![file.clone()], true, TOKEN).await.0.unwrap_err();
    assert_eq!(error.to_string(), "talk: the server refused (overloaded): no room; try again in 1.0 s");
    assert_eq!(error.exit_code(), 5);

    let error = run(&fake, vec![file.clone()], true, "a.bad.token").await.0.unwrap_err();
    assert!(error.to_string().contains("Token validation failed"), "{error}");
    assert_eq!(error.exit_code(), 4);

    let fake = Fake::start(Script::Close).await;
    let error = run(&fake, vec![file.clone()], true, TOKEN).await.0.unwrap_err();
    assert!(error.to_string().contains("before the end (code 1013, full)"), "{error}");

    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let nobody = Fake { url: format!("http://{free}").parse().unwrap(), ..fake };
    let error = run(&nobody, vec![file], true, TOKEN).await.0.unwrap_err();
    assert!(error.to_string().contains("Is the server running?"), "{error}");
    assert_eq!(error.exit_code(), 3);

    let error = run(&nobody, vec![folder.path().join("missing.wav")], true, TOKEN).await.0.unwrap_err();
    assert_eq!(error.exit_code(), 2);
}
