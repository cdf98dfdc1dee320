//! Which recognizers there are, and which are well.
//!
//! A meeting's streams prefer one recognizer (rendezvous hashing over those that are well): a preference for locality that
//! nothing depends on. Health is the standard gRPC health service, asked in the background; a recognizer that failed a
//! stream is not asked for another one until it answered again.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hearsay_protocol::MeetingKey;
use hearsay_runtime::Tasks;
use tokio::time::{sleep, timeout};
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::{Config, TlsError, UplinkTls, metrics};

/// How often each recognizer is asked for its health, and how long it may take to answer.
const CHECK_EVERY: Duration = Duration::from_millis(500);
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// The service whose health counts.
const SERVICE: &str = "hearsay.v1.Recognizer";

/// All recognizers this gateway knows. Cheap to clone.
#[derive(Clone)]
pub struct Pool {
    workers: Arc<[Arc<Worker>]>,
}

/// One recognizer.
pub(crate) struct Worker {
    pub(crate) address: String,
    pub(crate) channel: Channel,
    well: AtomicBool,
}

impl Worker {
    /// A stream failed here: no other is placed here before a health check succeeded.
    pub(crate) fn failed(&self) {
        self.well.store(false, Ordering::Relaxed);
    }

    fn is_well(&self) -> bool {
        self.well.load(Ordering::Relaxed)
    }
}

impl Pool {
    pub(crate) fn start(config: &Config, recognizers: Vec<http::Uri>, tasks: &Tasks) -> Result<Self, TlsError> {
        let tls = config.tls.as_ref().map(UplinkTls::load).transpose()?;
        let workers: Result<Arc<[_]>, TlsError> = recognizers
            .into_iter()
            .map(|uri| {
                let address = uri.to_string();
                let secure = uri.scheme() == Some(&http::uri::Scheme::HTTPS);
                let mut endpoint = Endpoint::from(uri);
                if let Some(tls) = tls.as_ref().filter(|_| secure) {
                    endpoint = endpoint.tls_config(tls.clone()).map_err(TlsError::unusable)?;
                }
                let channel = endpoint
                    .connect_timeout(config.open.get())
                    .http2_keep_alive_interval(config.ping_every.get())
                    .keep_alive_timeout(config.ping_timeout.get())
                    .keep_alive_while_idle(true)
                    .tcp_nodelay(true)
                    .connect_lazy();
                Ok(Arc::new(Worker { address, channel, well: AtomicBool::new(false) }))
            })
            .collect();
        let pool = Self { workers: workers? };
        for worker in pool.workers.iter() {
            let checks = check(Arc::clone(worker), pool.clone(), tasks.drain());
            drop(tasks.spawn_background("recognizer health", checks));
        }
        Ok(pool)
    }

    /// At least one recognizer is well.
    pub fn is_ready(&self) -> bool {
        self.workers.iter().any(|worker| worker.is_well())
    }

    /// The recognizers to try for a meeting, best first: those that are well in the meeting's own order, then the others,
    /// which may have recovered since they were asked.
    pub(crate) fn candidates(&self, meeting: &MeetingKey) -> Vec<Arc<Worker>> {
        let mut ranked: Vec<_> =
            self.workers.iter().map(|worker| (!worker.is_well(), weight(worker, meeting), worker)).collect();
        ranked.sort_by_key(|&(unwell, weight, _)| (unwell, std::cmp::Reverse(weight)));
        ranked.into_iter().map(|(_, _, worker)| Arc::clone(worker)).collect()
    }

    fn report(&self) {
        let up = self.workers.iter().filter(|worker| worker.is_well()).count();
        metrics::workers(up, self.workers.len() - up);
    }
}

/// The same for a (worker, meeting) in every gateway of one version; differing versions cost locality only.
fn weight(worker: &Worker, meeting: &MeetingKey) -> u64 {
    let mut hasher = DefaultHasher::new();
    worker.address.hash(&mut hasher);
    meeting.hash(&mut hasher);
    hasher.finish()
}

async fn check(worker: Arc<Worker>, pool: Pool, drain: hearsay_runtime::Drain) {
    let mut client = HealthClient::new(worker.channel.clone());
    loop {
        let request = HealthCheckRequest { service: SERVICE.to_owned() };
        let answer = timeout(CHECK_TIMEOUT, client.check(request)).await;
        let well = matches!(&answer, Ok(Ok(answer)) if answer.get_ref().status() == ServingStatus::Serving);
        if worker.well.swap(well, Ordering::Relaxed) != well {
            if well {
                tracing::info!(recognizer = worker.address, "recognizer is up");
            } else {
                tracing::warn!(recognizer = worker.address, answer = ?answer.map(|a| a.map(|a| a.into_inner())), "recognizer is down");
            }
        }
        pool.report();
        tokio::select! {
            () = sleep(CHECK_EVERY) => {}
            () = drain.finished() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use hearsay_protocol::{AccountId, MeetingId};

    use super::*;

    fn pool(count: usize) -> Pool {
        let workers = (0..count)
            .map(|n| {
                let address = format!("http://127.0.0.{}:50051", n + 1);
                let channel = Endpoint::from_shared(address.clone()).unwrap().connect_lazy();
                Arc::new(Worker { address, channel, well: AtomicBool::new(true) })
            })
            .collect();
        Pool { workers }
    }

    fn meeting(n: u32) -> MeetingKey {
        MeetingKey { account: AccountId::dev(), meeting: MeetingId::new(&format!("m{n}")).unwrap() }
    }

    #[tokio::test]
    async fn a_meeting_keeps_its_recognizer_when_another_fails() {
        let pool = pool(4);
        let before: Vec<_> = (0..100).map(|n| pool.candidates(&meeting(n))[0].address.clone()).collect();
        let lost = Arc::clone(&pool.workers[0]);
        lost.failed();
        let mut moved = 0;
        for (n, before) in before.iter().enumerate() {
            let now = &pool.candidates(&meeting(n as u32))[0].address;
            assert_ne!(*now, lost.address);
            moved += usize::from(now != before);
        }
        let had = before.iter().filter(|address| **address == lost.address).count();
        assert_eq!(moved, had, "only the lost one's meetings move");
        assert!((10..45).contains(&had), "meetings are spread: {had} of 100");
    }

    #[tokio::test]
    async fn recognizers_that_failed_are_tried_last_not_never() {
        let pool = pool(2);
        for worker in pool.workers.iter() {
            worker.failed();
        }
        assert_eq!(pool.candidates(&meeting(1)).len(), 2);
        assert!(!pool.is_ready());
    }
}
