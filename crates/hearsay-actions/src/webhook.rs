//! One request to somebody's server: resolved, judged, connected to the address that was judged, and over by its deadline.
//! Redirects are not followed, proxies not asked, and of the answer no more is read than is kept.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::{
    address::{self, Refused},
    config::Config,
};

/// For one address of several.
const CONNECT: Duration = Duration::from_secs(5);
/// Of an answer's head, and of its body.
const MAX_HEAD: usize = 64 * 1024;
const MAX_ANSWER: usize = 4 * 1024;
/// How long the body of an answer is waited for: its status is what counts.
const BODY: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("actions.ca, {}: {error}", path.display())]
    Read { path: PathBuf, error: rustls::pki_types::pem::Error },
    #[error("actions.ca, {}: no certificate in it", path.display())]
    Empty { path: PathBuf },
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

pub(crate) struct Client {
    tls: Arc<ClientConfig>,
    allow: Vec<IpNet>,
    deadline: Duration,
}

/// What is sent.
pub(crate) struct Post<'a> {
    pub(crate) id: &'a str,
    /// Seconds since the Unix epoch.
    pub(crate) at: u64,
    pub(crate) signature: &'a str,
    pub(crate) body: Bytes,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<String>,
    pub(crate) text: String,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("no connection: {0}")]
    Connect(std::io::Error),
    #[error("the exchange broke off: {0}")]
    Exchange(#[from] hyper::Error),
    #[error("no answer within {0:?}")]
    Late(Duration),
    #[error("{0} is no URL to send to")]
    Url(&'static str),
}

impl Client {
    pub(crate) fn new(config: &Config) -> Result<Self, TrustError> {
        let mut roots = RootCertStore::empty();
        match &config.ca {
            Some(path) => trust(path, &mut roots)?,
            // Without any, https fails by itself, and says why.
            None => _ = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let tls = tls.with_root_certificates(roots).with_no_client_auth();
        Ok(Self { tls: Arc::new(tls), allow: config.allow.clone(), deadline: config.timeout.get() })
    }

    pub(crate) async fn post(&self, url: &str, post: Post<'_>) -> Result<Answer, Failed> {
        timeout(self.deadline, Box::pin(self.exchange(url, post))).await.unwrap_or(Err(Failed::Late(self.deadline)))
    }

    async fn exchange(&self, url: &str, post: Post<'_>) -> Result<Answer, Failed> {
        let url: Uri = url.parse().map_err(|_| Failed::Url("what is configured"))?;
        let (Some(authority), Some(host)) = (url.authority(), url.host()) else { return Err(Failed::Url("no server")) };
        let secure = url.scheme_str() == Some("https");
        let port = url.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        let header = |text: &str| HeaderValue::from_str(text).map_err(|_| Failed::Url("a header"));
        let request = Request::post(path)
            .header(header::HOST, authority.as_str())
            .header(header::USER_AGENT, concat!("hearsay/", env!("CARGO_PKG_VERSION")))
            .header(header::CONTENT_TYPE, "application/json")
            .header("webhook-id", header(post.id)?)
            .header("webhook-timestamp", post.at)
            .header("webhook-signature", header(post.signature)?)
            .body(Full::new(post.body))
            .map_err(|_| Failed::Url("no path"))?;
        let stream = self.connect(host, port).await?;
        if !secure {
            return talk(stream, request).await;
        }
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(bare.to_owned()).map_err(|_| Failed::Url("no name of a server"))?;
        let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await.map_err(Failed::Connect)?;
        talk(stream, request).await
    }

    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, Failed> {
        let mut last = std::io::Error::other("no address");
        for address in address::resolve(host, port, &self.allow).await? {
            match timeout(CONNECT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // One small request: nothing follows that it could wait for.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(error)) => last = error,
                Err(_) => last = std::io::ErrorKind::TimedOut.into(),
            }
        }
        Err(Failed::Connect(last))
    }
}

fn trust(path: &Path, roots: &mut RootCertStore) -> Result<(), TrustError> {
    let unreadable = |error| TrustError::Read { path: path.to_owned(), error };
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(unreadable)?.collect();
    roots.add_parsable_certificates(found.map_err(unreadable)?);
    if roots.is_empty() { Err(TrustError::Empty { path: path.to_owned() }) } else { Ok(()) }
}

async fn talk<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer, Failed>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::Builder::new().max_buf_size(MAX_HEAD).handshake(TokioIo::new(stream)).await?;
    let exchange = async move {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let retry_after = response.headers().get(header::RETRY_AFTER).and_then(|it| it.to_str().ok());
        let retry_after = retry_after.map(str::to_owned);
        Ok(Answer { status, retry_after, text: read(response.into_body()).await })
    };
    // The connection ends with the exchange; whatever it has to say about itself, the exchange is told.
    tokio::pin!(connection, exchange);
    let mut open = true;
    loop {
        tokio::select! {
            answer = &mut exchange => return answer,
            _ = &mut connection, if open => open = false,
        }
    }
}

/// The beginning of a body, as text.
async fn read(mut body: Incoming) -> String {
    let mut bytes = Vec::new();
    let reading = async {
        while bytes.len() < MAX_ANSWER {
            match body.frame().await {
                Some(Ok(frame)) => {
                    let room = MAX_ANSWER - bytes.len();
                    bytes.extend(frame.data_ref().into_iter().flatten().take(room));
                }
                // What is said about the status is not worth more trouble.
                Some(Err(_)) | None => break,
            }
        }
    };
    let _ = timeout(BODY, reading).await;
    String::from_utf8_lossy(&bytes).into_owned()
}
