//! From a configured recognizer to those that there are: a host's name stands for every address it has.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hearsay_runtime::Tasks;
use http::Uri;
use tokio::{
    net::lookup_host,
    time::{sleep, timeout},
};
use tonic::transport::{ClientTlsConfig, Endpoint};

use crate::{
    Config, TlsError, UplinkTls,
    pool::{Pool, Worker},
};

/// How often a name is looked up, and how long an answer may take.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const LOOK_TIMEOUT: Duration = Duration::from_secs(3);
/// Until the first answer.
const LOOK_FIRST: Duration = Duration::from_millis(500);
/// Addresses of one name; more are left out.
const MOST: usize = 1_024;

/// One configured recognizer: an address, or a name for any number of them.
pub(crate) struct Place {
    pub(crate) of: usize,
    uri: Uri,
    config: Config,
    tls: Option<ClientTlsConfig>,
}

impl Place {
    pub(crate) fn new(of: usize, uri: Uri, config: &Config) -> Result<Self, TlsError> {
        let secure = uri.scheme() == Some(&http::uri::Scheme::HTTPS);
        let tls = config.tls.as_ref().filter(|_| secure);
        let name = tls.and_then(|tls| tls.name.clone()).unwrap_or_else(|| host(&uri).to_owned());
        let tls = tls.map(UplinkTls::load).transpose()?.map(|tls| tls.domain_name(name));
        let place = Self { of, uri, config: config.clone(), tls };
        // Says at start what would be wrong with each of its addresses.
        place.endpoint(SocketAddr::from(([127, 0, 0, 1], 1)))?;
        Ok(place)
    }

    /// The address, when no name has to be looked up.
    pub(crate) fn literal(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(host(&self.uri).parse::<IpAddr>().ok()?, self.port()))
    }

    /// The recognizer at this address; connects when it is first asked.
    pub(crate) fn worker(&self, at: SocketAddr) -> Result<Arc<Worker>, TlsError> {
        let (address, endpoint) = self.endpoint(at)?;
        Ok(Worker::new(address, endpoint, self.of, at))
    }

    fn port(&self) -> u16 {
        let usual = if self.tls.is_some() { 443 } else { 80 };
        self.uri.port_u16().unwrap_or(usual)
    }

    fn endpoint(&self, at: SocketAddr) -> Result<(String, Endpoint), TlsError> {
        let address = format!("{}://{at}/", self.uri.scheme_str().unwrap_or("http"));
        let mut endpoint = Endpoint::from_shared(address.clone()).map_err(TlsError::unusable)?;
        if let Some(tls) = &self.tls {
            endpoint = endpoint.tls_config(tls.clone()).map_err(TlsError::unusable)?;
        }
        let endpoint = endpoint
            .connect_timeout(self.config.open.get())
            .http2_keep_alive_interval(self.config.ping_every.get())
            .keep_alive_timeout(self.config.ping_timeout.get())
            .tcp_nodelay(true);
        Ok((address, endpoint))
    }
}

/// Without the brackets of an IPv6 address.
fn host(uri: &Uri) -> &str {
    uri.host().unwrap_or_default().trim_matches(['[', ']'])
}

/// Looks a name up, again and again. Without an answer everything stays as it is.
pub(crate) async fn discover(place: Place, pool: Pool, tasks: Tasks) {
    let drain = tasks.drain();
    let mut known = false;
    let mut failing = false;
    loop {
        let answer = timeout(LOOK_TIMEOUT, lookup_host((host(&place.uri), place.port()))).await;
        match answer {
            Ok(Ok(addresses)) => {
                let found: BTreeSet<_> = addresses.take(MOST).collect();
                pool.follow(&place, &found, &tasks);
                (known, failing) = (true, false);
            }
            failed => {
                if !std::mem::replace(&mut failing, true) {
                    let why = match failed {
                        Ok(Err(error)) => error.to_string(),
                        _ => format!("no answer within {LOOK_TIMEOUT:?}"),
                    };
                    tracing::warn!(recognizers = %place.uri, why, "the name could not be looked up");
                }
            }
        }
        tokio::select! {
            () = sleep(if known { LOOK_EVERY } else { LOOK_FIRST }) => {}
            () = drain.finished() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_need_no_lookup_and_names_do() {
        let literal = |uri: &str| Place::new(0, uri.parse().unwrap(), &Config::default()).unwrap().literal();
        assert_eq!(literal("http://127.0.0.1:50051"), Some("127.0.0.1:50051".parse().unwrap()));
        assert_eq!(literal("http://[::1]:50051"), Some("[::1]:50051".parse().unwrap()));
        assert_eq!(literal("http://recognizers:50051"), None);
    }

    #[tokio::test]
    async fn a_name_is_found() {
        let tasks = Tasks::new();
        let pool = Pool::start(&Config::default(), vec!["http://localhost:1".parse().unwrap()], &tasks).unwrap();
        let meeting = hearsay_protocol::MeetingKey {
            account: hearsay_protocol::AccountId::dev(),
            meeting: hearsay_protocol::MeetingId::new("m").unwrap(),
        };
        let found = async {
            while !pool.candidates(&meeting).iter().any(|worker| worker.address == "http://127.0.0.1:1/") {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(30), found).await.unwrap();
        tasks.finish(Duration::from_secs(10)).await.unwrap();
    }
}
