//! A recognizer's own port: gRPC over HTTP/2, with TLS where it is configured, both ways where clients are named.
//!
//! Cost: one task a gateway, and one a call. Connections are bounded, handshakes have a deadline, and a gateway that is gone
//! without a word is found by HTTP/2 pings.

use std::{fs, future::Future, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use hearsay_runtime::{GaugeGuard, Readiness, Tasks};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tonic::service::Routes;

use crate::{Config, Recognizer, metrics};

/// After an accept failed for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// For a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// HTTP/2 pings to gateways, and how long an answer may take.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Calls of one connection beside its streams: health, load, probes, and streams that are refused.
const OTHER_CALLS: usize = 64;

/// The `[recognizer.tls]` section.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrpcTls {
    /// PEM: this recognizer's certificate, then those between it and one that gateways trust.
    pub certificate: PathBuf,
    /// PEM: PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
    /// PEM: who signs gateways' certificates. Present, only gateways with such a certificate are served; absent, all are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clients: Option<PathBuf>,
}

/// Why a recognizer's port could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("cannot listen on {address}: {error}")]
    Listen { address: SocketAddr, error: io::Error },
    #[error("recognizer.tls: {}: {error}", path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("recognizer.tls: {}: {error}; PEM with {accepted} is accepted", path.display())]
    Pem { path: PathBuf, error: String, accepted: &'static str },
    #[error("recognizer.tls: certificate and key do not work: {0}")]
    Unusable(String),
}

/// The port of a recognizer that is a process of its own, before it serves: connections wait.
pub struct GrpcServer {
    listener: TcpListener,
    local_addr: SocketAddr,
    tls: Option<TlsAcceptor>,
    permits: Arc<Semaphore>,
    /// Of one connection at once: all places may be one gateway's. HTTP/2 lets the next one wait without a word.
    calls: u32,
}

impl GrpcServer {
    /// Takes the port. Inside a runtime.
    ///
    /// # Errors
    /// See [`BindError`].
    pub async fn bind(config: &Config) -> Result<Self, BindError> {
        let tls = config.tls.as_ref().map(GrpcTls::acceptor).transpose()?;
        let address = config.listen;
        let listen = |error| BindError::Listen { address, error };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let local_addr = listener.local_addr().map_err(listen)?;
        let permits = Arc::new(Semaphore::new(config.connections.get()));
        let calls = u32::try_from(config.streams.get() + OTHER_CALLS).unwrap_or(u32::MAX);
        Ok(Self { listener, local_addr, tls, permits, calls })
    }

    /// The address, with the port that was free when 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until the last stream of a drain has ended; from its beginning, health says so and no stream is taken. The
    /// condition `streams` of `readiness` tells the same.
    pub fn serve(self, recognizer: &Recognizer, readiness: &Readiness, tasks: &Tasks) {
        let taking = readiness.condition("streams");
        taking.set(true);
        let drain = tasks.drain();
        tasks.spawn_background("recognizer readiness", async move {
            drain.cancelled().await;
            taking.set(false);
        });
        drop(tasks.spawn_background("accept", self.accept(recognizer.routes(), tasks.clone())));
    }

    async fn accept(self, routes: Routes, tasks: Tasks) {
        let drain = tasks.drain();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = drain.finished() => return,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
                metrics::not_connected("full");
                continue;
            };
            // Acknowledgements are small and must leave at once.
            let _ = stream.set_nodelay(true);
            let held = (permit, metrics::connection_opened());
            // Not work of its own: its calls are, and the drain waits for those.
            tasks.spawn_background(
                "grpc connection",
                connection(stream, self.tls.clone(), self.calls, routes.clone(), tasks.clone(), held),
            );
        }
    }
}

async fn connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    calls: u32,
    routes: Routes,
    tasks: Tasks,
    _held: (OwnedSemaphorePermit, GaugeGuard),
) {
    let Some(tls) = tls else { return serve(stream, calls, routes, tasks).await };
    match timeout(HANDSHAKE, tls.accept(stream)).await {
        Ok(Ok(stream)) => serve(stream, calls, routes, tasks).await,
        Ok(Err(error)) => {
            metrics::not_connected("tls");
            tracing::warn!(%error, "a TLS handshake failed");
        }
        Err(_) => metrics::not_connected("tls"),
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, calls: u32, routes: Routes, tasks: Tasks) {
    let drain = tasks.drain();
    let serving = hyper::server::conn::http2::Builder::new(OnTasks(tasks))
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(calls)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes.prepare()));
    tokio::select! {
        served = serving => if let Err(error) = served {
            tracing::debug!(%error, "a gRPC connection broke");
        },
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

impl GrpcTls {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn check(&self) -> Result<(), BindError> {
        self.acceptor().map(drop)
    }

    fn acceptor(&self) -> Result<TlsAcceptor, BindError> {
        let key = PrivateKeyDer::from_pem_slice(&read(&self.key)?).map_err(|error| BindError::Pem {
            path: self.key.clone(),
            error: error.to_string(),
            accepted: "one private key",
        })?;
        // Chosen here, so that no other crate's choice of a process-wide one matters.
        let provider = Arc::new(ring::default_provider());
        let unusable = |error: &dyn std::error::Error| BindError::Unusable(error.to_string());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(&error))?;
        let builder = match &self.clients {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(path)? {
                    roots.add(certificate).map_err(|error| unusable(&error))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| unusable(&error))?)
            }
        };
        let mut config =
            builder.with_single_cert(certificates(&self.certificate)?, key).map_err(|error| unusable(&error))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

fn read(path: &PathBuf) -> Result<Vec<u8>, BindError> {
    fs::read(path).map_err(|error| BindError::Read { path: path.clone(), error })
}

fn certificates(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, BindError> {
    let pem = |error: String| BindError::Pem { path: path.clone(), error, accepted: "one or more certificates" };
    let chain = CertificateDer::pem_slice_iter(&read(path)?).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| pem(error.to_string()))?;
    if chain.is_empty() { Err(pem("no certificate found".to_owned())) } else { Ok(chain) }
}
