//! From a TCP connection to what it is for: HTTP requests, a speaker's task, a listener's row, or gRPC.
//!
//! Each core accepts for itself (the system spreads connections over the cores' sockets), and what a core accepts stays
//! on it. A connection holds one permit from its first byte to its last, whatever it becomes.

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use hearsay_auth::Auth;
use hearsay_bus::Bus;
use hearsay_fanout::{Core, CoreSet, Dialect, Hub, Listen, ListenOutbox, Opted, Renewals, View};
use hearsay_protocol::{GatewayId, MeetingKey};
use hearsay_runtime::{Admin, Condition, GaugeGuard, Readiness, Tasks};
use hearsay_uplink::Uplinks;
use http::StatusCode;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tonic::service::Routes;

use crate::{
    Config, answer, connection,
    connection::Speaker,
    echo, history,
    http_api::{self, Purpose, Upgrade},
    listener, metrics,
    records::MAX_READERS,
    refusal::Refusals,
    renewals::Clerk,
    request::{MAX_TARGET, SocketKind},
    shared::{Shared, random, wall},
    streams::Streams,
    summarizer::Summarizer,
    tls::{TlsError, TlsFiles},
    transport::Transport,
};

/// Connections the system may complete before a core takes them.
const BACKLOG: i32 = 4_096;
/// After an accept failed for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often readiness follows the recognizers' health.
const READINESS_EVERY: Duration = Duration::from_millis(500);
/// How much longer than its spread the closing of listeners may take.
const DRAIN_SLACK: Duration = Duration::from_secs(2);
/// How every HTTP/2 connection begins; four bytes tell it from HTTP/1.
const HTTP2: &[u8; 4] = b"PRI ";

/// What a gateway is put together from.
pub struct Parts {
    pub gateway: GatewayId,
    pub bus: Arc<dyn Bus>,
    pub uplinks: Uplinks,
    pub hub: Hub,
    /// The cores the hub's listeners live on; connections are accepted on the same.
    pub cores: CoreSet,
    pub auth: Auth,
    /// Answers `/healthz`, `/readyz` and `/metrics` on the public port; none: they are served elsewhere.
    pub admin: Option<Admin>,
    pub readiness: Readiness,
    /// Served to callers on this machine that speak HTTP/2 on the same port.
    pub grpc: Option<Routes>,
    pub tasks: Tasks,
}

/// The edge of a cluster, before it serves: the address is known and held, and connections wait.
pub struct Gateway {
    config: Config,
    local_addr: SocketAddr,
    sockets: Vec<std::net::TcpListener>,
    tls: Option<TlsAcceptor>,
    summarizer: Option<Summarizer>,
}

/// A gateway that serves until the drain.
pub struct Running {
    local_addr: SocketAddr,
}

impl Running {
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }
}

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0}")]
    Config(String),
    #[error("cannot listen on {address}: {error}")]
    Listen { address: SocketAddr, error: io::Error },
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Gateway {
    /// Takes the address, with one socket for each of `cores`.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn bind(config: Config, cores: &CoreSet) -> Result<Self, StartError> {
        config.validate().map_err(StartError::Config)?;
        let tls = config.tls.as_ref().map(TlsFiles::acceptor).transpose()?;
        let summarizer = config.summary.clone().map(Summarizer::new).transpose();
        let summarizer = summarizer.map_err(|error| StartError::Config(format!("gateway.summary: {error}")))?;
        let listen = |error| StartError::Listen { address: config.listen, error };
        let sockets = bind(config.listen, cores.len()).map_err(listen)?;
        let local_addr = sockets[0].local_addr().map_err(listen)?;
        Ok(Self { config, local_addr, sockets, tls, summarizer })
    }

    /// The address, with the port that was free when 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until the drain: then it is unready, answers 503 on new connections (operators' questions as ever), finishes
    /// its streams and closes its sockets with the empty close frame, spread over [`Config::drain_spread`].
    pub fn serve(self, parts: Parts) -> Running {
        metrics::describe();
        hearsay_fanout::describe_metrics();
        let Self { config, local_addr, sockets, tls, summarizer } = self;
        let Parts { gateway, bus, uplinks, hub, cores, auth, admin, readiness, grpc, tasks } = parts;
        let clerk: Arc<dyn Renewals> = Arc::new(Clerk { auth: auth.clone() });
        hub.renew_with(&clerk);
        let refusals =
            Refusals::new(config.refusals.get(), config.refusals_per_address.get(), config.refusal_delay.get());
        let permits = Arc::new(Semaphore::new(config.connections.get()));
        let readers = Semaphore::new(MAX_READERS);
        let shared = Arc::new(Shared {
            config,
            gateway,
            bus,
            uplinks,
            hub,
            auth,
            admin,
            refusals,
            streams: Streams::default(),
            readers,
            summarizer,
            tasks,
            grpc,
            tls,
            permits,
            spread: OnceLock::new(),
        });
        let (accepting, recognizers) = (readiness.condition("accepting"), readiness.condition("recognizers"));
        let first = cores.core(0).handle();
        let watch = watch_recognizers(Arc::clone(&shared), recognizers);
        shared.tasks.spawn_background_on(first, "readiness", watch);
        shared.tasks.spawn_on(first, "drain listeners", drain(Arc::clone(&shared), accepting.clone()));
        for (core, socket) in cores.iter().zip(sockets) {
            let run = accept(Arc::clone(&shared), core.clone(), socket);
            shared.tasks.spawn_background_on(core.handle(), "accept", run);
        }
        accepting.set(true);
        Running { local_addr }
    }

    /// Binds and serves.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(config: Config, parts: Parts) -> Result<Running, StartError> {
        Ok(Self::bind(config, &parts.cores)?.serve(parts))
    }
}

/// One socket a core on the same address. A port that somebody else serves is an error, though it could be shared.
fn bind(address: SocketAddr, count: usize) -> io::Result<Vec<std::net::TcpListener>> {
    drop(socket(address, false)?);
    let first = socket(address, true)?;
    let address = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..count {
        sockets.push(socket(address, true)?);
    }
    Ok(sockets)
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

async fn watch_recognizers(shared: Arc<Shared>, recognizers: Condition) {
    let drain = shared.tasks.drain();
    loop {
        recognizers.set(shared.uplinks.is_ready());
        tokio::select! {
            () = sleep(READINESS_EVERY) => {}
            () = drain.finished() => return,
        }
    }
}

async fn drain(shared: Arc<Shared>, accepting: Condition) {
    shared.tasks.drain().cancelled().await;
    accepting.set(false);
    let spread = shared.spread();
    if timeout(spread + DRAIN_SLACK, shared.hub.drain(spread)).await.is_err() {
        tracing::warn!("listeners were not all asked to return in time");
    }
}

async fn accept(shared: Arc<Shared>, core: Core, socket: std::net::TcpListener) {
    let drain = shared.tasks.drain();
    // Needs the runtime it is polled on, so it is made here.
    let listener = match TcpListener::from_std(socket) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "a core cannot accept");
            return;
        }
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // Until then, whoever asks whether to send traffic here is told.
            () = drain.finished() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Captions are small and must leave at once.
        let _ = stream.set_nodelay(true);
        let (shared, core) = (Arc::clone(&shared), core.clone());
        let tasks = shared.tasks.clone();
        match Arc::clone(&shared.permits).try_acquire_owned() {
            Ok(permit) => {
                let permit = Permit { _permit: permit, _gauge: metrics::connection_opened() };
                if drain.is_draining() {
                    // No work: the drain does not wait for it.
                    let drain = drain.clone();
                    tasks.spawn_background("late connection", async move {
                        tokio::select! {
                            () = serve(shared, core, stream, peer, permit, Since::Drain) => {}
                            () = drain.finished() => {}
                        }
                    });
                } else {
                    tasks.spawn("connection", serve(shared, core, stream, peer, permit, Since::Before));
                }
            }
            // Cut: it is to go elsewhere.
            Err(_) if drain.is_draining() => metrics::connection_refused("draining"),
            Err(_) => {
                metrics::connection_refused("full");
                tasks.spawn("refused connection", refuse(shared, stream, peer));
            }
        }
    }
}

/// A connection's place; given back when it is dropped.
struct Permit {
    _permit: OwnedSemaphorePermit,
    _gauge: GaugeGuard,
}

/// Tells one asker that there is no room. Held refusals bound how many are told at once; the others are cut.
async fn refuse(shared: Arc<Shared>, stream: TcpStream, peer: SocketAddr) {
    let Some(hold) = shared.refusals.hold(peer.ip(), random()) else { return };
    let drain = shared.tasks.drain();
    tokio::select! {
        () = hold.wait() => {}
        () = drain.cancelled() => {}
    }
    let service = service_fn(|_| async {
        let answer = answer::error_for_now(StatusCode::SERVICE_UNAVAILABLE, "no room for another connection", 5);
        Ok::<_, Infallible>(answer::and_close(answer))
    });
    let Some(stream) = secured(&shared, stream).await else { return };
    let serving = builder(shared.config.handshake.get()).serve_connection(TokioIo::new(stream), service);
    let _ = timeout(shared.config.handshake.get(), serving).await;
}

fn builder(handshake: Duration) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(handshake).max_buf_size(2 * MAX_TARGET);
    builder
}

/// When a connection was made: before the drain, or during it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    Before,
    Drain,
}

async fn serve(shared: Arc<Shared>, core: Core, stream: TcpStream, peer: SocketAddr, permit: Permit, since: Since) {
    let handshake = shared.config.handshake.get();
    if let Some(routes) = shared.grpc.clone()
        && peer.ip().to_canonical().is_loopback()
    {
        match timeout(handshake, begins_http2(&stream)).await {
            // Not work of its own: its calls are relied on by streams, which the drain waits for.
            Ok(Ok(true)) => {
                let serving = serve_grpc(Arc::clone(&shared), stream, routes, permit);
                shared.tasks.spawn_background("grpc connection", serving);
                return;
            }
            Ok(Ok(false)) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
    let Some(stream) = secured(&shared, stream).await else { return };
    let upgrade = Arc::new(Mutex::new(None));
    let address = peer.ip();
    let service = service_fn(|request| {
        let (shared, upgrade) = (Arc::clone(&shared), Arc::clone(&upgrade));
        async move {
            let (answer, wanted) = http_api::answer(&shared, request, address, since).await;
            if wanted.is_some() {
                *upgrade.lock().unwrap_or_else(PoisonError::into_inner) = wanted;
            }
            metrics::request_answered(answer.status());
            Ok::<_, Infallible>(answer)
        }
    });
    let drain = shared.tasks.drain();
    {
        let mut builder = builder(handshake);
        // What comes during the drain has its one answer.
        builder.keep_alive(since == Since::Before);
        let serving = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
        let mut serving = std::pin::pin!(serving);
        let served = tokio::select! {
            served = &mut serving => served,
            () = drain.cancelled(), if since == Since::Before => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(error) = served {
            tracing::debug!(%error, "a connection broke");
        }
    }
    let wanted = upgrade.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(upgrade) = wanted {
        become_socket(shared, core, upgrade, permit).await;
    }
}

/// What is spoken over the connection, once TLS is agreed on where it is served. None: it was not, in time.
async fn secured(shared: &Shared, stream: TcpStream) -> Option<Transport> {
    let Some(tls) = &shared.tls else { return Some(Transport::Plain(stream)) };
    let agreed = async {
        let mut first = [0];
        if stream.peek(&mut first).await? == 1 && first[0] != TLS_HANDSHAKE {
            return plainly_refused(stream).await.map(|()| None);
        }
        tls.accept(stream).await.map(Some)
    };
    match timeout(shared.config.handshake.get(), agreed).await {
        Ok(Ok(stream)) => stream.map(|stream| Transport::Tls(Box::new(stream))),
        Ok(Err(error)) => {
            metrics::handshake_failed();
            tracing::debug!(%error, "a TLS handshake failed");
            None
        }
        Err(_) => {
            metrics::handshake_failed();
            None
        }
    }
}

/// Who speaks HTTP where TLS is spoken learns it in words.
async fn plainly_refused(mut stream: TcpStream) -> io::Result<()> {
    const BODY: &str = r#"{"message":"this port speaks TLS: https and wss are accepted"}"#;
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    // What is unread at the end would take the answer back.
    let mut rest = [0; 1_024];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

/// A speaker stays in this task; so does a listener behind TLS, while any other becomes a row of the core.
async fn become_socket(shared: Arc<Shared>, core: Core, upgrade: Upgrade, permit: Permit) {
    let Upgrade { upgrading, purpose } = upgrade;
    let Some((stream, leftover)) = upgrading.connection().await else { return };
    let Purpose::Meeting { kind, meeting, claims, query } = purpose else {
        return Box::pin(echo::serve(shared, stream, leftover)).await;
    };
    let meeting = MeetingKey { account: claims.account.clone(), meeting };
    if kind == SocketKind::Speak {
        let speaker = Speaker { meeting, claims: *claims, query: *query };
        // On the heap: the request's own future is over, and this one is as large as its largest moment.
        return Box::pin(connection::serve(shared, speaker, stream, leftover)).await;
    }
    let dialect = if kind == SocketKind::ListenTelephony { Dialect::Telephony } else { Dialect::Standard };
    let view = View::listener().unfiltered(query.view_all).dialect(dialect);
    let opted = Opted {
        presence: query.presence,
        // Who wants to see every position wants to know when none can be shown.
        positions: query.view_all,
        analytics: query.presence,
        history: query.presence && history::allowed(&claims),
    };
    let good_for = claims.remaining(wall());
    let (since, replayed) = (query.since, query.history);
    let stream = match stream {
        Transport::Plain(stream) => stream,
        stream @ Transport::Tls(_) => {
            let listen = move |sink| ListenOutbox { meeting, view, opted, since, history: replayed, sink };
            let expires = Instant::now() + good_for;
            return Box::pin(listener::serve(shared, listen, expires, stream, leftover)).await;
        }
    };
    let socket = match stream.into_std() {
        Ok(socket) => socket,
        Err(error) => {
            tracing::warn!(%error, "a listener's socket could not be handed over");
            return;
        }
    };
    shared.hub.listen(Listen {
        meeting,
        view,
        opted,
        since,
        history: replayed,
        socket,
        leftover,
        core: core.index(),
        session: random(),
        good_for: Some(good_for),
        permit: Box::new(permit),
    });
}

/// How every TLS connection begins.
const TLS_HANDSHAKE: u8 = 0x16;

/// Waits for the first bytes without taking them.
async fn begins_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut seen = [0; HTTP2.len()];
    loop {
        let count = stream.peek(&mut seen).await?;
        if count == 0 || seen[..count] != HTTP2[..count] {
            return Ok(false);
        }
        if count == HTTP2.len() {
            return Ok(true);
        }
        // The rest is on its way; what is there stays readable, so readiness cannot be waited for.
        sleep(Duration::from_millis(5)).await;
    }
}

async fn serve_grpc(shared: Arc<Shared>, stream: TcpStream, routes: Routes, _permit: Permit) {
    let service = TowerToHyperService::new(routes.prepare());
    let drain = shared.tasks.drain();
    let serving = hyper::server::conn::http2::Builder::new(OnTasks(shared.tasks.clone()))
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        served = &mut serving => if let Err(error) = served {
            tracing::debug!(%error, "a gRPC connection broke");
        },
        // Streams under way are what the drain waits for.
        () = drain.finished() => {}
    }
}

/// HTTP/2 runs each call as a task; calls end with their connection.
#[derive(Clone)]
struct OnTasks(Tasks);

impl<F> hyper::rt::Executor<F> for OnTasks
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, call: F) {
        self.0.spawn_background("grpc call", call);
    }
}
