//! TLS on the public port: certificate and key from PEM files, TLS 1.2 and 1.3 by rustls.
//!
//! Cost of a connection beside that of a plain one: the handshake (about a millisecond of a core), and rustls' buffers, up
//! to a record each way while one is incomplete. A listener behind TLS is a task with an outbox and no row, because its
//! bytes are not those of its group: each is encrypted anew.

use std::{fs, io, path::PathBuf, sync::Arc};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio_rustls::TlsAcceptor;

/// Where certificate and key are.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// PEM: the server's certificate, then those between it and one that clients trust.
    pub certificate: PathBuf,
    /// PEM: PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
}

/// Why files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("gateway.tls: {}: {error}", path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("gateway.tls: {}: {error}; PEM with {accepted} is accepted", path.display())]
    Pem { path: PathBuf, error: String, accepted: &'static str },
    #[error("gateway.tls: certificate and key do not work: {0}")]
    Unusable(rustls::Error),
}

impl TlsFiles {
    /// Reads and checks both.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn check(&self) -> Result<(), TlsError> {
        self.config().map(drop)
    }

    fn config(&self) -> Result<ServerConfig, TlsError> {
        let read = |path: &PathBuf| fs::read(path).map_err(|error| TlsError::Read { path: path.clone(), error });
        let pem = |path: &PathBuf, error: String, accepted| TlsError::Pem { path: path.clone(), error, accepted };
        let accepted = "one or more certificates";
        let chain = CertificateDer::pem_slice_iter(&read(&self.certificate)?)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| pem(&self.certificate, error.to_string(), accepted))?;
        if chain.is_empty() {
            return Err(pem(&self.certificate, "no certificate found".to_owned(), accepted));
        }
        let key = PrivateKeyDer::from_pem_slice(&read(&self.key)?)
            .map_err(|error| pem(&self.key, error.to_string(), "one private key"))?;
        // Chosen here, so that no other crate's choice of a process-wide one matters.
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(TlsError::Unusable)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    pub(crate) fn acceptor(&self) -> Result<TlsAcceptor, TlsError> {
        Ok(TlsAcceptor::from(Arc::new(self.config()?)))
    }
}
