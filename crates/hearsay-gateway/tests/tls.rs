//! A gateway behind its own TLS: speakers, listeners and requests by a client that trusts its certificate and no other.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::{sync::Arc, time::Duration};

use futures::{SinkExt, StreamExt};
use hearsay_bus::Limits;
use hearsay_gateway::{Config, TlsFiles};
use hearsay_runtime::HumanDuration;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::Value;
use support::{House, PATIENCE, config};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

/// A gateway with a certificate of its own, and a client that trusts it.
struct Secure {
    house: House,
    connector: TlsConnector,
    _files: tempfile::TempDir,
}

impl Secure {
    async fn open(config: Config) -> Self {
        let files = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let tls = TlsFiles { certificate: files.path().join("cert.pem"), key: files.path().join("key.pem") };
        std::fs::write(&tls.certificate, made.cert.pem()).unwrap();
        std::fs::write(&tls.key, made.signing_key.serialize_pem()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&tls.certificate).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let house = House::with(Config { tls: Some(tls), ..config }, Limits::default()).await;
        Self { house, connector: TlsConnector::from(Arc::new(client)), _files: files }
    }

    async fn connect(&self, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.house.address).await.unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        timeout(PATIENCE, self.connector.connect(name, stream)).await.unwrap()
    }

    async fn socket(&self, path: &str, token: &str) -> Client {
        let stream = self.connect("127.0.0.1").await.unwrap();
        let url = format!("wss://{}{path}?access_token={token}", self.house.address);
        let (socket, _) = timeout(PATIENCE, client_async(url, stream)).await.unwrap().unwrap();
        Client { socket }
    }
}

struct Client {
    socket: WebSocketStream<TlsStream<TcpStream>>,
}

impl Client {
    async fn text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    /// The next text, or the close, as text.
    async fn next(&mut self) -> String {
        loop {
            return match timeout(PATIENCE, self.socket.next()).await.expect("a message in time") {
                Some(Ok(Message::Text(text))) => text.to_string(),
                Some(Ok(Message::Close(frame))) => frame
                    .map_or("closed".to_owned(), |frame| format!("closed {} {}", u16::from(frame.code), frame.reason)),
                Some(Ok(_)) => continue,
                Some(Err(error)) => format!("broken: {error}"),
                None => "over".to_owned(),
            };
        }
    }

    async fn until(&mut self, word: &str) -> String {
        let mut seen = Vec::new();
        loop {
            let text = self.next().await;
            if text.contains(word) {
                return text;
            }
            assert!(!text.starts_with("closed") && text != "over", "no {word}: {seen:?} {text}");
            seen.push(text);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn speakers_and_listeners_meet_behind_tls() {
    let secure = Secure::open(config()).await;
    let token = secure.house.token();
    let mut listener = secure.socket("/v1/subscribe/m", &token).await;
    listener.text("__PING__").await;
    assert_eq!(listener.next().await, "__PONG__");
    let mut speaker = secure.socket("/v1/streaming/m", &token).await;
    speaker.text(r#"{"type":"start_request"}"#).await;
    listener.until("conversation_created").await;
    // More than a TLS record, and more than a socket takes at once.
    for _ in 0..40 {
        speaker.socket.send(Message::binary(vec![0; 16_000])).await.unwrap();
    }
    speaker.text(r#"{"type":"stop_request"}"#).await;
    let mut heard = 0;
    while heard < 640_000 {
        let message: Value = serde_json::from_str(&listener.until("message_response").await).unwrap();
        let text = message["messages"][0]["payload"]["content"].as_str().unwrap();
        heard += text.split(' ').nth(1).unwrap().parse::<u64>().unwrap();
    }
    assert_eq!(heard, 640_000);
    speaker.until("conversation_completed").await;
    speaker.until("closed 1000").await;
    listener.until("closed 1000").await;
    // A request on a connection of its own.
    let mut stream = secure.connect("localhost").await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    secure.house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_behind_tls_keeps_to_the_rules_of_rows() {
    let secure = Secure::open(config()).await;
    let token = secure.house.token();
    let mut listener = secure.socket("/v1/subscribe/m", &token).await;
    listener.text(r#"{"type":"start_request"}"#).await;
    assert!(listener.next().await.contains("this connection only listens"));
    listener.text(r#"{"type":"token","access_token":"nonsense"}"#).await;
    assert!(listener.next().await.contains(r#""code":"forbidden""#));
    listener.text(&format!(r#"{{"type":"token","access_token":"{token}"}}"#)).await;
    listener.text("{'type': 'stop_request'}").await;
    assert_eq!(listener.next().await, "closed 1000 ");
    let mut flood = secure.socket("/v1/subscribe/m", &token).await;
    for _ in 0..300 {
        let _ = flood.socket.send(Message::Ping(Vec::new().into())).await;
    }
    flood.until("too_fast").await;
    flood.until("closed 1008").await;
    let mut large = secure.socket("/v1/subscribe/m", &token).await;
    let _ = large.socket.send(Message::text("x".repeat(70_000))).await;
    large.until("closed 1009").await;
    let mut stays = secure.socket("/v1/subscribe/m", &token).await;
    stays.text("__PING__").await;
    assert_eq!(stays.next().await, "__PONG__");
    secure.house.tasks.begin_drain();
    assert_eq!(stays.next().await, "closed");
    secure.house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_tls_and_what_stalls_is_cut() {
    let secure = Secure::open(Config { handshake: HumanDuration::from_secs(1), ..config() }).await;
    let answer = secure.house.http("GET / HTTP/1.1", "").await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("speaks TLS"), "{answer}");
    assert!(secure.connect("another.example").await.is_err(), "the certificate is for other names");
    for begun in [&b""[..], b"\x16\x03\x01\x02\x00", &[0x16; 600]] {
        let mut stalls = TcpStream::connect(secure.house.address).await.unwrap();
        stalls.write_all(begun).await.unwrap();
        let cut = timeout(Duration::from_secs(10), async {
            let mut rest = [0; 64];
            while stalls.read(&mut rest).await.is_ok_and(|read| read > 0) {}
        });
        assert!(cut.await.is_ok(), "still open after {begun:?}");
    }
    secure.connect("127.0.0.1").await.unwrap();
    secure.house.close().await;
}

#[test]
fn files_that_do_not_work_are_told_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(path("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(path("key.pem"), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(path("other.pem"), other.signing_key.serialize_pem()).unwrap();
    std::fs::write(path("text.pem"), "nothing").unwrap();
    let check = |certificate: &str, key: &str| {
        TlsFiles { certificate: path(certificate), key: path(key) }.check().map_err(|error| error.to_string())
    };
    assert_eq!(check("cert.pem", "key.pem"), Ok(()));
    for (certificate, key, named) in [
        ("none.pem", "key.pem", "none.pem"),
        ("text.pem", "key.pem", "text.pem"),
        ("cert.pem", "text.pem", "text.pem"),
        ("cert.pem", "cert.pem", "cert.pem"),
        ("cert.pem", "other.pem", "do not work"),
    ] {
        let error = check(certificate, key).unwrap_err();
        assert!(error.starts_with("gateway.tls") && error.contains(named), "{error}");
    }
}
