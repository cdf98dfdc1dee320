//! A whole gateway on free ports: the real log of one process, a scripted recognizer on the gateway's own port, and
//! clients that say what they received.
#![allow(dead_code, reason = "each test binary uses its part of it")]

mod recognizer;

use std::{net::SocketAddr, num::NonZeroUsize, sync::Arc, time::Duration};

use futures::{SinkExt, StreamExt};
use hearsay_auth::{App, Auth, Claims, Grant, Keys, Permission, Permissions};
use hearsay_bus::{Bus, Limits, MemoryBus, SystemClock};
use hearsay_fanout::{CoreSet, FanoutConfig, Hub};
pub(crate) use hearsay_gateway::Config;
use hearsay_gateway::{Gateway, Parts};
use hearsay_protocol::{AccountId, GatewayId, MeetingId, Timestamp};
use hearsay_rpc::v1::recognizer_server::RecognizerServer;
use hearsay_runtime::{Admin, HumanDuration, Readiness, Tasks};
use hearsay_uplink::Uplinks;
use recognizer::Scripted;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{
        self, Message,
        client::IntoClientRequest,
        http::{HeaderName, HeaderValue, Response},
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};
use tonic::service::Routes;
use uuid::Uuid;

/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct House {
    pub(crate) address: SocketAddr,
    pub(crate) tasks: Tasks,
    pub(crate) readiness: Readiness,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) app: App,
    auth: Auth,
}

/// Times as short as the tests need them.
pub(crate) fn config() -> Config {
    Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        refusal_delay: HumanDuration::from_millis(300),
        close_grace: HumanDuration::from_millis(300),
        drain_spread: HumanDuration::from_millis(200),
        handshake: HumanDuration::from_secs(2),
        ..Config::default()
    }
}

impl House {
    pub(crate) async fn open() -> Self {
        Self::with(config(), Limits::default()).await
    }

    pub(crate) async fn with(config: Config, limits: Limits) -> Self {
        Self::on(Arc::new(MemoryBus::new(limits, Arc::new(SystemClock::default()))), config).await
    }

    /// Another gateway of the same cluster.
    pub(crate) async fn beside(&self) -> Self {
        Self::on(Arc::clone(&self.bus), config()).await
    }

    async fn on(bus: Arc<dyn Bus>, config: Config) -> Self {
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_serving::<RecognizerServer<Scripted>>().await;
        let recognizer = RecognizerServer::new(Scripted { bus: Arc::clone(&bus) });
        let routes = Routes::new(recognizer).add_service(health_service);
        Self::heard_by(routes, bus, config, Tasks::new()).await
    }

    /// With another recognizer than the scripted one.
    pub(crate) async fn heard_by(routes: Routes, bus: Arc<dyn Bus>, config: Config, tasks: Tasks) -> Self {
        let app = App::generate(|bytes| bytes.copy_from_slice(&Uuid::new_v4().as_bytes().repeat(4)));
        let keys = Keys::new(b"0123456789abcdef0123456789abcdef").unwrap();
        let auth = Auth::new(keys, vec![(app.clone(), AccountId::dev())], Duration::from_secs(86_400));
        let fanout = FanoutConfig::default();
        let cores = CoreSet::start(const { NonZeroUsize::new(2).unwrap() }, &fanout, &tasks).unwrap();
        let gateway = GatewayId(Uuid::new_v4());
        let hub = Hub::start(fanout, Arc::clone(&bus), gateway, cores.clone(), &tasks);
        let readiness = Readiness::new();
        let admin = Admin::new(readiness.clone(), hearsay_runtime::metrics::install());
        let bound = Gateway::bind(config, &cores).unwrap();
        let address = bound.local_addr();
        let uri = format!("http://{address}").parse().unwrap();
        let uplinks = Uplinks::start(Default::default(), vec![uri], Arc::clone(&bus), &tasks).unwrap();
        bound.serve(Parts {
            gateway,
            bus: Arc::clone(&bus),
            uplinks,
            hub,
            cores,
            auth: auth.clone(),
            admin: Some(admin),
            readiness: readiness.clone(),
            grpc: Some(routes),
            tasks: tasks.clone(),
        });
        tick(Arc::clone(&bus), &tasks);
        timeout(PATIENCE, readiness.ready()).await.unwrap_or_else(|_| panic!("not ready: {:?}", readiness.missing()));
        Self { address, tasks, readiness, bus, app, auth }
    }

    pub(crate) fn token(&self) -> String {
        self.token_for(&[Permission::Publish, Permission::Subscribe], None)
    }

    pub(crate) fn token_for(&self, permissions: &[Permission], meeting: Option<&str>) -> String {
        let permissions: Permissions = permissions.iter().copied().collect();
        let meeting = meeting.map(|meeting| MeetingId::new(meeting).unwrap());
        self.auth.issue(&Grant { account: AccountId::dev(), permissions, meeting, name: None }, wall()).access_token
    }

    /// A token of another account of the same cluster.
    pub(crate) fn foreign_token(&self) -> String {
        let account = AccountId::new("other").unwrap();
        let grant = Grant { account, permissions: Permissions::of_an_app(), meeting: None, name: None };
        self.auth.issue(&grant, wall()).access_token
    }

    /// A token that is good for so long.
    pub(crate) fn short_token(&self, seconds: u64) -> String {
        let grant =
            Grant { account: AccountId::dev(), permissions: Permissions::of_an_app(), meeting: None, name: None };
        let claims = Claims::new(&grant, wall(), Duration::from_secs(seconds));
        Keys::new(b"0123456789abcdef0123456789abcdef").unwrap().issue(&claims)
    }

    pub(crate) fn expired_token(&self) -> String {
        let grant =
            Grant { account: AccountId::dev(), permissions: Permissions::of_an_app(), meeting: None, name: None };
        let claims = Claims::new(&grant, Timestamp(1_000_000), Duration::from_secs(60));
        Keys::new(b"0123456789abcdef0123456789abcdef").unwrap().issue(&claims)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("ws://{}{path}", self.address)
    }

    /// A socket with a token in the query.
    pub(crate) async fn socket(&self, path: &str) -> Client {
        let mark = if path.contains('?') { '&' } else { '?' };
        let url = self.url(&format!("{path}{mark}access_token={}", self.token()));
        self.handshake(&url, &[]).await.unwrap().0
    }

    pub(crate) async fn handshake(
        &self,
        url: &str,
        headers: &[(&str, &str)],
    ) -> Result<(Client, Response<Option<Vec<u8>>>), tungstenite::Error> {
        let mut request = url.into_client_request().unwrap();
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            request.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
        }
        let (socket, response) = timeout(PATIENCE, connect_async(request)).await.unwrap()?;
        Ok((Client { socket }, response))
    }

    /// A plain request; the whole answer as text.
    pub(crate) async fn http(&self, head: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!(
            "{head}\r\nhost: {}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut text)).await.unwrap().unwrap();
        text
    }

    pub(crate) async fn close(self) {
        self.tasks.finish(PATIENCE).await.unwrap_or_else(|late| panic!("late: {late:?}"));
    }
}

fn wall() -> Timestamp {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    Timestamp(since.as_micros() as u64)
}

/// Lets the log carry out its deadlines, as every process does.
fn tick(bus: Arc<dyn Bus>, tasks: &Tasks) {
    let drain = tasks.drain();
    tasks.spawn_background("tick", async move {
        while !drain.is_finished() {
            for key in bus.due(64).await.unwrap() {
                let _ = bus.tick(&key).await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
}

pub(crate) struct Client {
    pub(crate) socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

/// What a client received.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Got {
    Json(Value),
    Bare(String),
    Closed(Option<u16>),
}

impl Client {
    pub(crate) async fn text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    pub(crate) async fn audio(&mut self, bytes: usize) {
        self.socket.send(Message::binary(vec![0; bytes])).await.unwrap();
    }

    pub(crate) async fn close(&mut self, code: u16) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: "".into() };
        self.socket.send(Message::Close(Some(frame))).await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> Got {
        loop {
            let message = timeout(PATIENCE, self.socket.next()).await.expect("a message in time");
            return match message {
                Some(Ok(Message::Text(text))) => match serde_json::from_str(&text) {
                    Ok(value) => Got::Json(value),
                    Err(_) => Got::Bare(text.to_string()),
                },
                Some(Ok(Message::Close(frame))) => Got::Closed(frame.map(|frame| frame.code.into())),
                Some(Ok(_)) => continue,
                Some(Err(_)) | None => Got::Closed(Some(1006)),
            };
        }
    }

    /// The next message whose own or wrapped type is this; what comes before it is passed over.
    pub(crate) async fn until(&mut self, kind: &str) -> Value {
        loop {
            match self.next().await {
                Got::Json(value) if value["type"] == kind || value["message"]["type"] == kind => return value,
                Got::Closed(code) => panic!("closed {code:?} before {kind}"),
                _ => {}
            }
        }
    }

    /// The next message in short: the inner type of wrapped ones, with an error's code or a final's text.
    pub(crate) async fn short(&mut self) -> String {
        match self.next().await {
            Got::Bare(text) => text,
            Got::Closed(code) => format!("closed {}", code.map_or("empty".to_owned(), |code| code.to_string())),
            Got::Json(value) => {
                let message = &value["message"];
                let kind = message["type"].as_str().or(value["type"].as_str()).unwrap().to_owned();
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                match kind.as_str() {
                    "error" => format!("error {}", text(&message["code"])),
                    "recognition_result" => format!("caption {}", text(&message["punctuated"]["transcript"])),
                    "message_response" => {
                        let sentences = value["messages"].as_array().unwrap().iter();
                        let content = sentences.map(|message| text(&message["payload"]["content"]));
                        format!("message {}", content.collect::<Vec<_>>().join(" "))
                    }
                    _ => kind,
                }
            }
        }
    }

    /// Everything up to and with the close, in short.
    pub(crate) async fn rest(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let short = self.short().await;
            let last = short.starts_with("closed");
            all.push(short);
            if last {
                return all;
            }
        }
    }

    pub(crate) async fn take(&mut self, count: usize) -> Vec<String> {
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            all.push(self.short().await);
        }
        all
    }

    /// Starts, and gives the conversation's id.
    pub(crate) async fn start(&mut self, request: &str) -> String {
        self.text(request).await;
        let mut ids = Vec::new();
        for kind in ["started_listening", "conversation_created", "recognition_started"] {
            let Got::Json(value) = self.next().await else { panic!("no {kind}") };
            assert_eq!(value["message"]["type"], kind, "{value}");
            ids.extend(value["message"]["data"]["conversationId"].as_str().map(str::to_owned));
        }
        assert!(ids.len() == 2 && ids[0] == ids[1], "{ids:?}");
        ids.remove(0)
    }
}
