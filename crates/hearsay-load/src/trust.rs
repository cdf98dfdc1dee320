//! Whom a client of a server behind TLS trusts.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use http::Uri;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem, pem::PemObject},
};
use tokio_tungstenite::Connector;

/// What `https` and `wss` connections are based on; `http` ones need none. Cheap to clone.
#[derive(Clone, Default)]
pub struct Trust {
    tls: Option<Arc<ClientConfig>>,
}

/// Why nobody can be trusted.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("--ca {}: {error}; a PEM file with certificates is accepted", path.display())]
    Read { path: PathBuf, error: pem::Error },
    #[error("--ca {}: there is no certificate in it that can be used; PEM is accepted", path.display())]
    Empty { path: PathBuf },
    #[error("this machine has no list of certificate authorities: name a file of them with --ca")]
    Nobody,
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

impl Trust {
    /// For these servers: who is in the PEM file `ca`, or else whom this machine trusts.
    ///
    /// # Errors
    /// [`TrustError`], only where one of them is behind TLS.
    pub fn of(urls: &[Uri], ca: Option<&Path>) -> Result<Self, TrustError> {
        if !urls.iter().any(is_secure) {
            return Ok(Self::default());
        }
        let mut roots = RootCertStore::empty();
        match ca {
            Some(path) => {
                let unreadable = |error| TrustError::Read { path: path.to_owned(), error };
                let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(unreadable)?.collect();
                roots.add_parsable_certificates(found.map_err(unreadable)?);
                if roots.is_empty() {
                    return Err(TrustError::Empty { path: path.to_owned() });
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                if roots.is_empty() {
                    return Err(TrustError::Nobody);
                }
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let config = config.with_root_certificates(roots).with_no_client_auth();
        Ok(Self { tls: Some(Arc::new(config)) })
    }

    /// What carries a connection to this server.
    pub(crate) fn connector(&self, url: &Uri) -> Connector {
        match &self.tls {
            Some(tls) if is_secure(url) => Connector::Rustls(Arc::clone(tls)),
            _ => Connector::Plain,
        }
    }

    pub(crate) fn tls(&self) -> Option<&Arc<ClientConfig>> {
        self.tls.as_ref()
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls.is_some() { "Trust(TLS)" } else { "Trust(none)" })
    }
}

pub(crate) fn is_secure(url: &Uri) -> bool {
    url.scheme_str() == Some("https")
}

/// Of its sockets.
pub(crate) fn socket_scheme(url: &Uri) -> &'static str {
    if is_secure(url) { "wss" } else { "ws" }
}
