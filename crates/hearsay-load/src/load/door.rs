//! How every socket of a run gets in: addresses looked up once, sources spread over loopback, small buffers.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
};

use http::{HeaderName, HeaderValue, Uri};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, client_async_tls_with_config,
    tungstenite::{self, client::IntoClientRequest, protocol::WebSocketConfig},
};

use super::listen::ListenError;
use crate::trust::{Trust, is_secure, socket_scheme};

pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Sockets from one source address; loopback has 28,000 ports a source.
const PER_SOURCE: usize = 20_000;

pub(super) struct Door {
    token: HeaderValue,
    trust: Trust,
    targets: Vec<(Uri, SocketAddr)>,
}

impl Door {
    /// # Errors
    /// When an address is none, or token or certificates cannot be used.
    pub(super) async fn of(urls: &[Uri], ca: Option<&Path>, token: &str) -> Result<Self, ListenError> {
        let mut targets = Vec::new();
        for url in urls {
            let wrong = || ListenError::Address { url: url.to_string() };
            let known = matches!(url.scheme_str(), Some("http" | "https"));
            let authority = url.authority().filter(|_| known).ok_or_else(wrong)?;
            let port = authority.port_u16().unwrap_or(if is_secure(url) { 443 } else { 80 });
            let host = authority.host().trim_start_matches('[').trim_end_matches(']');
            let address = lookup_host((host, port)).await.ok().and_then(|mut found| found.next()).ok_or_else(wrong)?;
            targets.push((url.clone(), address));
        }
        if targets.is_empty() {
            return Err(ListenError::Address { url: String::new() });
        }
        let trust = Trust::of(urls, ca)?;
        let mut token = HeaderValue::try_from(token.trim()).map_err(|_| ListenError::Token)?;
        token.set_sensitive(true);
        Ok(Self { token, trust, targets })
    }

    /// The socket `index` of a run, to the gateway `at`, counted round. `path` begins with a slash.
    pub(super) async fn enter(&self, index: usize, at: usize, path: &str) -> Result<Socket, tungstenite::Error> {
        let (url, address) = &self.targets[at % self.targets.len()];
        let socket = match address {
            SocketAddr::V4(v4) if v4.ip().is_loopback() => {
                let socket = TcpSocket::new_v4()?;
                let source = u8::try_from(index / PER_SOURCE + 1).unwrap_or(u8::MAX);
                socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 0, source), 0)))?;
                socket
            }
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        let stream = socket.connect(*address).await?;
        stream.set_nodelay(true)?;
        let authority = url.authority().map_or("", |found| found.as_str());
        let mut request = format!("{}://{authority}{path}", socket_scheme(url)).into_client_request()?;
        request.headers_mut().insert(HeaderName::from_static("x-api-key"), self.token.clone());
        // Thousands of these: small buffers.
        let config = WebSocketConfig::default().read_buffer_size(4 << 10).write_buffer_size(0);
        let connector = self.trust.connector(url);
        Ok(client_async_tls_with_config(request, stream, Some(config), Some(connector)).await?.0)
    }
}
