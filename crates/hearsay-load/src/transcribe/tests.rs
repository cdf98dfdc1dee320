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
}

struct Fake {
    url: Uri,
    /// Most audio that was ever unacknowledged.
    most_ms: Arc<AtomicU64>,
    received_ms: Arc<AtomicU64>,
    _tasks: Tasks,
}

impl Fake {
    async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let (most_ms, received_ms, tasks) = (Arc::default(), Arc::default(), Tasks::new());
        let fake =
            Self { url, most_ms: Arc::clone(&most_ms), received_ms: Arc::clone(&received_ms), _tasks: tasks.clone() };
        let each = tasks.clone();
        tasks.spawn("fake server", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (most, received) = (Arc::clone(&most_ms), Arc::clone(&received_ms));
                each.spawn("fake connection", async move {
                    if let Some(socket) = accept(stream).await {
                        serve(socket, script, &most, &received).await;
                    }
                });
            }
        });
        fake
    }
}

async fn accept(stream: TcpStream) -> Option<Socket> {
    #[expect(clippy::result_large_err, reason = "the callback's type is the library's")]
    let check = |request: &Request, response: Response| {
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
    for _ in 0..u64::from(rate) * ms / 1_000 {
        writer.write_sample(100).unwrap();
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
