//! TLS to recognizers: whom this gateway trusts, and what it shows of itself.

use std::{fs, io, path::PathBuf};

use tonic::transport::{Certificate, ClientTlsConfig, Identity};

/// The `[uplink.tls]` section.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UplinkTls {
    /// PEM: who signs recognizers' certificates.
    pub ca: PathBuf,
    /// PEM: this gateway's certificate and its key, for recognizers that ask for one. Both or neither.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// The name that recognizers' certificates carry; absent: the host they are reached by. One name for all of them lets
    /// them be reached by address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Why recognizers cannot be reached by TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("uplink.tls: {}: {error}", path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("uplink.tls: certificate and key go together")]
    Half,
    #[error("uplink.tls: {0}")]
    Unusable(String),
}

impl TlsError {
    pub(crate) fn unusable(error: tonic::transport::Error) -> Self {
        // Its own words say only that something is wrong with the transport.
        let source = std::error::Error::source(&error).map(ToString::to_string);
        Self::Unusable(source.unwrap_or_else(|| error.to_string()))
    }
}

impl UplinkTls {
    pub(crate) fn load(&self) -> Result<ClientTlsConfig, TlsError> {
        let read = |path: &PathBuf| fs::read(path).map_err(|error| TlsError::Read { path: path.clone(), error });
        let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(&self.ca)?));
        match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => {
                config = config.identity(Identity::from_pem(read(certificate)?, read(key)?));
            }
            (None, None) => {}
            _ => return Err(TlsError::Half),
        }
        if let Some(name) = &self.name {
            config = config.domain_name(name);
        }
        Ok(config)
    }
}
