//! What all connections of a gateway share.

use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use hearsay_auth::Auth;
use hearsay_bus::Bus;
use hearsay_fanout::Hub;
use hearsay_protocol::{GatewayId, Timestamp};
use hearsay_runtime::{Admin, Tasks};
use hearsay_uplink::Uplinks;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tonic::service::Routes;
use uuid::Uuid;

use crate::{config::Config, metrics, refusal::Refusals, streams::Streams, summarizer::Summarizer};

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) gateway: GatewayId,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) uplinks: Uplinks,
    pub(crate) hub: Hub,
    pub(crate) auth: Auth,
    pub(crate) admin: Option<Admin>,
    pub(crate) refusals: Refusals,
    pub(crate) streams: Streams,
    /// Conversations being read for REST.
    pub(crate) readers: Semaphore,
    pub(crate) summarizer: Option<Summarizer>,
    pub(crate) tasks: Tasks,
    pub(crate) grpc: Option<Routes>,
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) permits: Arc<Semaphore>,
    /// Over how long sockets are closed; set by the drain.
    pub(crate) spread: OnceLock<Duration>,
}

impl Shared {
    /// Over how long the drain that has begun closes sockets: the same for all of them.
    pub(crate) fn spread(&self) -> Duration {
        *self.spread.get_or_init(|| {
            let sockets = self.config.connections.get().saturating_sub(self.permits.available_permits());
            let spread = self.config.spread(sockets);
            metrics::draining(spread);
            tracing::info!(sockets, ?spread, "sockets are asked to return");
            spread
        })
    }
}

/// Wall time by this machine, for tokens; everything else uses the log's.
pub(crate) fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

pub(crate) fn random() -> u32 {
    Uuid::new_v4().as_u64_pair().1 as u32
}

/// Holds a refusal, if it may be held.
pub(crate) async fn hold(shared: &Shared, address: IpAddr) {
    let Some(hold) = shared.refusals.hold(address, random()) else { return };
    let drain = shared.tasks.drain();
    tokio::select! {
        () = hold.wait() => {}
        () = drain.cancelled() => {}
    }
}
