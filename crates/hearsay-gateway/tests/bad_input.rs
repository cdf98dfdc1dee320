//! Everything that clients do wrong: each is answered as documented, and somebody else's meeting does not notice.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::time::{Duration, Instant};

use futures::{SinkExt, future::join_all};
use hearsay_bus::Limits;
use hearsay_gateway::Config;
use hearsay_runtime::HumanDuration;
use support::{Client, Got, House, PATIENCE, config};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

const START: &str = r#"{"type":"start_request","config":{"speechRecognition":{"encoding":"LINEAR16","sampleRateHertz":16000}},"speaker":{"userId":"ana@example.org","name":"Ana"}}"#;

/// A meeting that has nothing to do with what is tested.
struct Bystanders {
    speaker: Client,
    listener: Client,
    said: usize,
}

impl Bystanders {
    async fn at(house: &House) -> Self {
        let mut speaker = house.socket("/v1/streaming/elsewhere").await;
        let mut listener = house.socket("/v1/subscribe/elsewhere").await;
        speaker.start(START).await;
        listener.until("conversation_created").await;
        Self { speaker, listener, said: 0 }
    }

    /// They speak, and hear each other and nothing else.
    async fn are_well(&mut self) {
        self.said += 100;
        let heard = format!("message Heard {} bytes.", self.said);
        self.speaker.audio(self.said).await;
        self.speaker.text(r#"{"type":"finalize","id":"well"}"#).await;
        for client in [&mut self.speaker, &mut self.listener] {
            loop {
                let short = client.short().await;
                assert!(!short.starts_with("error") && !short.starts_with("closed"), "{short}");
                if short == heard {
                    break;
                }
            }
        }
    }
}

/// A socket whose frames are written by hand.
struct Raw {
    stream: TcpStream,
}

fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![opcode];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length => {
            frame.push(0xfe);
            frame.extend((length as u16).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

const TEXT: u8 = 0x81;
const FIRST_OF_TEXT: u8 = 0x01;
const FIRST_OF_BINARY: u8 = 0x02;
const MORE: u8 = 0x00;
const LAST: u8 = 0x80;
const CLOSE: u8 = 0x88;

impl Raw {
    async fn open(house: &House, path: &str) -> Self {
        Self::on(house, path, TcpSocket::new_v4().unwrap()).await
    }

    async fn on(house: &House, path: &str, socket: TcpSocket) -> Self {
        let mut stream = socket.connect(house.address).await.unwrap();
        let request = format!(
            "GET {path}?access_token={} HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            house.token()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
        Self { stream }
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next frame: opcode and payload. None: the connection ended.
    async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let read = async {
            let opcode = self.stream.read_u8().await? & 0x0f;
            let length = match self.stream.read_u8().await? {
                126 => self.stream.read_u16().await?.into(),
                127 => self.stream.read_u64().await? as usize,
                length => length.into(),
            };
            let mut payload = vec![0; length];
            self.stream.read_exact(&mut payload).await?;
            Ok::<_, std::io::Error>((opcode, payload))
        };
        timeout(PATIENCE, read).await.expect("a frame in time").ok()
    }

    /// The last error that is told, and the code of the close.
    async fn end(&mut self) -> (String, Option<u16>) {
        let mut told = String::new();
        loop {
            match self.next().await {
                Some((8, payload)) => {
                    let code = payload.first_chunk::<2>().map(|code| u16::from_be_bytes(*code));
                    return (told, code);
                }
                Some((1, text)) => {
                    let text = String::from_utf8(text).unwrap();
                    if text.contains("\"error\"") {
                        told = text;
                    }
                }
                Some(_) => {}
                None => return (told, None),
            }
        }
    }
}

/// The next error: its code and details.
async fn error(client: &mut Client) -> (String, String) {
    let value = client.until("error").await;
    let field = |name: &str| value["message"][name].as_str().unwrap_or_default().to_owned();
    (field("code"), field("details"))
}

#[tokio::test(flavor = "multi_thread")]
async fn audio_where_there_is_no_stream_is_dropped_without_a_word() {
    let house = House::open().await;
    let mut others = Bystanders::at(&house).await;
    let mut client = house.socket("/v1/streaming/m").await;
    for _ in 0..20 {
        client.audio(3_200).await;
    }
    client.text("__PING__").await;
    assert_eq!(client.short().await, "__PONG__", "nothing is said to it");
    client
        .start(r#"{"type":"start_request","disconnectOnStopRequest":false,"disconnectOnStopRequestTimeout":60}"#)
        .await;
    client.audio(700).await;
    client.text(r#"{"type":"stop_request"}"#).await;
    client.until("conversation_completed").await;
    client.audio(900).await;
    client.text("__PING__").await;
    assert_eq!(client.short().await, "__PONG__");
    client.start(START).await;
    client.audio(500).await;
    client.text(r#"{"type":"finalize","id":"x"}"#).await;
    client.until("finalized").await;
    // Nor does a listener's audio do anything.
    let mut listener = house.socket("/v1/subscribe/elsewhere").await;
    listener.audio(3_200).await;
    listener.text("__PING__").await;
    while listener.next().await != Got::Bare("__PONG__".to_owned()) {}
    others.are_well().await;
    house.close().await;
}

/// What came, what is accepted, and where, for every message that cannot be meant; the socket stays.
#[tokio::test(flavor = "multi_thread")]
async fn messages_that_cannot_be_meant_are_told_why() {
    let house = House::open().await;
    let mut others = Bystanders::at(&house).await;
    let mut client = house.socket("/v1/streaming/m").await;
    let deep = format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000));
    let long = format!(r#"{{"type":"start_request","config":{{"meetingTitle":"{}"}}}}"#, "x".repeat(5_000));
    for (request, code, parts) in [
        ("garbage", "invalid_request", &["not JSON", "accepted"][..]),
        ("{\"type\":\"start_request\"", "invalid_request", &["not JSON", "EOF"]),
        ("", "invalid_request", &["not JSON"]),
        ("\u{0}", "invalid_request", &["not JSON"]),
        (&deep, "invalid_request", &["not JSON", "recursion"]),
        ("[]", "invalid_request", &["a list", "object"]),
        ("null", "invalid_request", &["null", "object"]),
        ("17", "invalid_request", &["17", "object"]),
        ("{}", "invalid_request", &["type is missing", "start_request"]),
        (r#"{"type":17}"#, "invalid_request", &["type", "17", "string"]),
        (r#"{"type":"begin"}"#, "invalid_request", &["begin", "start_request"]),
        (r#"{"type":"start_request","config":"x"}"#, "invalid_request", &["config", "x", "object"]),
        (r#"{"type":"start_request","speaker":[1]}"#, "invalid_request", &["speaker", "a list", "object"]),
        (r#"{"type":"start_request","speaker":{"name":{}}}"#, "invalid_request", &["speaker.name", "an object"]),
        (
            r#"{"type":"start_request","config":{"confidenceThreshold":"high"}}"#,
            "invalid_request",
            &["confidenceThreshold", "high"],
        ),
        (r#"{"type":"start_request","insightTypes":{"a":1}}"#, "invalid_request", &["insightTypes", "an object"]),
        (r#"{"type":"start_request","trackers":[7]}"#, "invalid_request", &["trackers", "7"]),
        (&long, "invalid_request", &["meetingTitle", "5000"]),
        (r#"{"type":"stop_request"}"#, "not_started", &["stop_request", "start_request is accepted"]),
        (
            r#"{"type":"start_request","config":{"speechRecognition":{"encoding":"MP3"}}}"#,
            "unsupported_encoding",
            &["config.speechRecognition.encoding", "MP3", "LINEAR16", "FLAC", "MULAW", "OPUS"],
        ),
        (
            r#"{"type":"start_request","config":{"speechRecognition":{"encoding":7}}}"#,
            "invalid_request",
            &["encoding", "7"],
        ),
        (
            r#"{"type":"start_request","config":{"speechRecognition":{"encoding":"LINEAR16","sampleRateHertz":7}}}"#,
            "invalid_sample_rate",
            &["config.speechRecognition.sampleRateHertz", "7", "8000", "48000"],
        ),
        (
            r#"{"type":"start_request","config":{"speechRecognition":{"encoding":"LINEAR16","sampleRateHertz":-1}}}"#,
            "invalid_sample_rate",
            &["sampleRateHertz", "-1"],
        ),
    ] {
        client.text(request).await;
        let (got, details) = error(&mut client).await;
        let shown: String = request.chars().take(100).collect();
        assert_eq!(got, code, "{shown}: {details}");
        assert!(parts.iter().all(|part| details.contains(part)), "{shown}: {details}");
        assert!(details.len() < 600, "{shown}: {details}");
    }
    client.start(START).await;
    others.are_well().await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_closes_its_socket_wherever_it_comes() {
    let house = House::with(Config { echo: true, ..config() }, Limits::default()).await;
    let mut others = Bystanders::at(&house).await;
    // One that comes, and those that only say how large they are: what is announced is not waited for.
    let announced = |length: u64| [&[0x82, 0xff][..], &length.to_be_bytes(), &[0; 4]].concat();
    for bytes in
        [frame(TEXT, &[b'x'; 65_000]).repeat(2), announced(65_537), announced(1 << 40), announced((1 << 63) - 1)]
    {
        let mut raw = Raw::open(&house, "/v1/streaming/m").await;
        // Two texts of 65,000 bytes are two messages, and both only garbage.
        let harmless = bytes[1] == 0xfe;
        raw.send(&bytes).await;
        if harmless {
            raw.send(&frame(CLOSE, &1_000_u16.to_be_bytes())).await;
            let (told, code) = raw.end().await;
            assert!(told.contains("invalid_request") && code == Some(1_000), "{told} {code:?}");
            continue;
        }
        let (told, code) = raw.end().await;
        assert!(told.contains("too_large") && told.contains("65536 are accepted"), "{told}");
        assert_eq!(code, Some(1_009));
    }
    // In pieces, too.
    let mut raw = Raw::open(&house, "/v1/streaming/m").await;
    raw.send(&[frame(FIRST_OF_BINARY, &[0; 40_000]), frame(LAST, &[0; 40_000])].concat()).await;
    let (told, code) = raw.end().await;
    assert!(told.contains("too_large") && code == Some(1_009), "{told} {code:?}");
    // A listener has less to say.
    let mut raw = Raw::open(&house, "/v1/subscribe/elsewhere").await;
    raw.send(&announced(1 << 40)).await;
    assert_eq!(raw.end().await.1, Some(1_009));
    others.are_well().await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_pieces_end_their_socket() {
    let house = House::open().await;
    let mut others = Bystanders::at(&house).await;
    for path in ["/v1/streaming/m", "/v1/subscribe/elsewhere"] {
        let mut raw = Raw::open(&house, path).await;
        // It may be cut before all of it is written.
        let flood = [frame(FIRST_OF_BINARY, b"x"), frame(MORE, b"").repeat(100_000)].concat();
        let _ = raw.stream.write_all(&flood).await;
        let (_, code) = raw.end().await;
        assert!(matches!(code, Some(1_008) | None), "{path}: {code:?}");
    }
    others.are_well().await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn text_that_is_none_closes_with_1007() {
    let house = House::open().await;
    let mut others = Bystanders::at(&house).await;
    for bytes in [
        frame(TEXT, &[0xff]),
        // A surrogate, an overlong slash, a character that is not finished.
        frame(TEXT, &[0xed, 0xa0, 0x80]),
        frame(TEXT, &[0xc0, 0xaf]),
        frame(TEXT, &[0xe2, 0x82]),
        [frame(FIRST_OF_TEXT, &[0xe2]), frame(LAST, &[0x28])].concat(),
        frame(CLOSE, &[0x03, 0xe8, 0xff]),
    ] {
        let mut raw = Raw::open(&house, "/v1/streaming/m").await;
        raw.send(&bytes).await;
        let (told, code) = raw.end().await;
        assert_eq!(code, Some(1_007), "{bytes:x?}: {told}");
        assert!(told.contains("UTF-8 is accepted"), "{bytes:x?}: {told}");
    }
    // A character that is divided between two frames is one.
    let mut raw = Raw::open(&house, "/v1/streaming/m").await;
    raw.send(&[frame(FIRST_OF_TEXT, &[0xe2]), frame(LAST, &[0x82, 0xac])].concat()).await;
    let (_, text) = raw.next().await.unwrap();
    assert!(String::from_utf8(text).unwrap().contains("invalid_request"));
    others.are_well().await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_are_gone_without_a_word_are_noticed() {
    let config =
        Config { ping_every: HumanDuration::from_millis(300), silence: HumanDuration::from_millis(1_200), ..config() };
    let house = House::with(config, Limits::default()).await;
    let mut others = house.socket("/v1/streaming/m").await;
    others.start(r#"{"type":"start_request","speaker":{"userId":"ben"},"hearsay":{"presence":true}}"#).await;
    // Its network is gone: the connection stays, and nothing comes, pongs neither.
    let mut raw = Raw::open(&house, "/v1/streaming/m").await;
    raw.send(&frame(TEXT, START.as_bytes())).await;
    for kind in ["joined", "left"] {
        let presence = others.until("presence").await;
        assert_eq!((&presence["kind"], &presence["user"]["name"]), (&kind.into(), &"Ana".into()), "{presence}");
    }
    // Pings were sent to it meanwhile, and it may come back: should it hear that, the close has no code.
    let mut last = Vec::new();
    while let Some(frame) = raw.next().await {
        last.push(frame);
    }
    assert!(last.iter().any(|(opcode, _)| *opcode == 9), "{last:?}");
    assert_eq!(last.last(), Some(&(8, Vec::new())));
    // Who sends nothing but answers pings, as every client library does, stays.
    let quiet = tokio::time::sleep(Duration::from_millis(2_400));
    tokio::pin!(quiet);
    loop {
        tokio::select! {
            () = &mut quiet => break,
            got = others.next() => assert!(!matches!(got, Got::Closed(_)), "{got:?}"),
        }
    }
    others.text("__PING__").await;
    while others.next().await != Got::Bare("__PONG__".to_owned()) {}
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_is_told_and_cut() {
    let config = Config { requests_burst: 1_000_000, ..config() };
    let house = House::with(config, Limits::default()).await;
    let mut others = Bystanders::at(&house).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut raw = Raw::on(&house, "/v1/streaming/m", socket).await;
    // Answers pile up: in what the kernel holds, then in the outbox, then no more.
    let questions = frame(TEXT, b"x").repeat(1_000);
    for round in 0..400 {
        if timeout(Duration::from_secs(2), raw.stream.write_all(&questions)).await.is_err() {
            break;
        }
        if round % 100 == 0 {
            others.are_well().await;
        }
    }
    others.are_well().await;
    let (told, code) = raw.end().await;
    assert!(told.contains("slow_reader") && told.contains("reads too slowly"), "{told}");
    assert_eq!(code, Some(1_008));
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_trickle_are_cut_and_hold_up_nobody() {
    let house = House::open().await;
    let mut others = Bystanders::at(&house).await;
    let trickle = |mut stream: TcpStream| async move {
        let begun = Instant::now();
        // A header that never ends, always just in time for who looks at single bytes.
        let _ = stream.write_all(b"GET /v1/streaming/m HTTP/1.1\r\nx: ").await;
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert!(begun.elapsed() < PATIENCE, "never cut");
        }
        begun.elapsed()
    };
    let slow = join_all((0..50).map(|_| async { trickle(TcpStream::connect(house.address).await.unwrap()).await }));
    let well = async {
        for _ in 0..4 {
            others.are_well().await;
            let mut client = house.socket("/v1/streaming/m").await;
            client.start(START).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let (slow, ()) = tokio::join!(slow, well);
    assert!(slow.iter().all(|took| *took >= Duration::from_millis(1_500)), "{slow:?}");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_no_requests_are_answered_in_http() {
    let house = House::open().await;
    let mut others = Bystanders::at(&house).await;
    let long = format!("GET /v1/streaming/{}", "x".repeat(20_000));
    for (head, status) in [
        ("GET /v1/streaming/%ff", 400),
        ("GET /v1/streaming/", 400),
        ("GET /v1/streaming/m?since=x", 400),
        ("GET /v1/subscribe/m?history=some", 400),
        ("POST /v1/streaming/m", 405),
        ("GET /oauth2/token:generate", 405),
        ("GET /nothing", 404),
        ("GET /v1/conversations/x/messages", 404),
        (&long, 414),
    ] {
        let answer = house.http(&format!("{head} HTTP/1.1\r\nx-api-key: {}", house.token()), "").await;
        let shown: String = head.chars().take(60).collect();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{shown}: {answer}");
        assert!(answer.contains("\"message\""), "{shown}: {answer}");
    }
    for body in ["", "garbage", "[]", r#"{"type":17}"#, &"x".repeat(100_000)] {
        let answer = house.http("POST /oauth2/token:generate HTTP/1.1", body).await;
        let refused = ["400", "401", "413"].iter().any(|status| answer.starts_with(&format!("HTTP/1.1 {status} ")));
        assert!(refused && answer.contains("\"message\""), "{answer}");
    }
    others.are_well().await;
    house.close().await;
}

/// Stock clients that come back without a pause, with a token that will never be good.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_without_end_are_held_and_cost_nobody_else() {
    let house = House::open().await;
    let mut others = Bystanders::at(&house).await;
    let url = house.url("/v1/streaming/elsewhere?access_token=nonsense");
    let reconnecting = join_all((0..40).map(|_| async {
        let begun = Instant::now();
        let mut tries = 0;
        while begun.elapsed() < Duration::from_secs(2) {
            assert!(house.handshake(&url, &[]).await.is_err());
            tries += 1;
        }
        tries
    }));
    let well = async {
        for _ in 0..5 {
            others.are_well().await;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    let (tries, ()) = tokio::join!(reconnecting, well);
    // Each is held for 0.3 s or longer.
    assert!(tries.iter().all(|tries| (1..=8).contains(tries)), "{tries:?}");
    house.close().await;
}

/// Texts of a listener are not the meeting's.
#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_talks_is_answered_and_cut_when_it_does_not_stop() {
    let house = House::open().await;
    let mut others = Bystanders::at(&house).await;
    let mut listener = house.socket("/v1/subscribe/elsewhere").await;
    for _ in 0..5_000 {
        if listener.socket.send(Message::Text(Utf8Bytes::from_static("garbage"))).await.is_err() {
            break;
        }
    }
    let all = listener.rest().await;
    assert!(all.contains(&"error too_fast".to_owned()), "{:?}", all.last());
    assert_eq!(all.last().unwrap(), "closed 1008");
    others.are_well().await;
    house.close().await;
}
