//! Which recognizers there are, and which are well.
//!
//! A meeting's streams prefer one recognizer (rendezvous hashing over those that are well): a preference for locality that
//! nothing depends on. Health is the standard gRPC health service, asked in the background; a recognizer that failed a
//! stream is not asked for another one until it has decoded a recording: who answers does not therefore hear.
//!
//! Recognizers say how many streams they hear and may hear, and a meeting goes elsewhere when the one it prefers has too many
//! ([`crate::placement`]).
//!
//! A host's name stands for every address it has, looked up again and again ([`crate::discovery`]): recognizers come and go.

use std::{
    collections::{BTreeSet, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hearsay_protocol::MeetingKey;
use hearsay_rpc::v1::{self, capacity_client::CapacityClient};
use hearsay_runtime::Tasks;
use tokio::{
    runtime::{self, Handle},
    time::{Instant, sleep_until, timeout},
};
use tonic::{
    Code, Streaming,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::{
    Config, TlsError,
    discovery::{Place, discover},
    metrics,
    placement::{Known, Load, order},
};

/// How often each recognizer is asked for its health, and how long it may take to answer.
const CHECK_EVERY: Duration = Duration::from_millis(500);
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long it may take to decode a recording.
const PROBE_TIMEOUT: Duration = Duration::from_secs(4);
/// Step of a recognizer's ladder from which on it takes no streams.
const REFUSES: u32 = 3;
/// The service whose health counts.
const SERVICE: &str = "hearsay.v1.Recognizer";

/// All recognizers this gateway knows. Cheap to clone.
#[derive(Clone)]
pub struct Pool {
    /// Read for each placement and check, written when a recognizer comes or goes.
    workers: Arc<RwLock<Vec<Arc<Worker>>>>,
}

/// One recognizer.
pub(crate) struct Worker {
    pub(crate) address: String,
    /// Asked for its health and load; always connected.
    channel: Channel,
    /// What carries streams: a connection for each runtime they run on.
    endpoint: Endpoint,
    channels: Mutex<HashMap<runtime::Id, Channel>>,
    /// Which configured recognizer it is one of, and its address there.
    of: usize,
    at: SocketAddr,
    well: AtomicBool,
    /// It failed a stream, and has not proved since that it hears.
    doubted: AtomicBool,
    /// What it said last, and what was placed there since. None: it says nothing.
    load: Mutex<Option<Load>>,
    /// Nobody asks for its health any more.
    gone: AtomicBool,
}

impl Worker {
    /// Connects when it is first asked. Inside a runtime.
    pub(crate) fn new(address: String, endpoint: Endpoint, of: usize, at: SocketAddr) -> Arc<Self> {
        let [well, doubted, gone] = [const { AtomicBool::new(false) }; 3];
        let channel = endpoint.clone().keep_alive_while_idle(true).connect_lazy();
        let (channels, load) = (Mutex::default(), Mutex::default());
        Arc::new(Self { address, channel, endpoint, channels, of, at, well, doubted, load, gone })
    }

    /// The connection that streams of this runtime share. On its thread audio goes from a client's socket to the
    /// recognizer's without waking another one, which costs as much as all else that is done for it.
    pub(crate) fn streams(&self) -> Channel {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.entry(Handle::current().id()).or_insert_with(|| self.endpoint.connect_lazy()).clone()
    }

    /// A stream failed here: no other is placed here before it has proved that it hears.
    pub(crate) fn failed(&self) {
        self.doubted.store(true, Ordering::Relaxed);
        self.well.store(false, Ordering::Relaxed);
    }

    /// It took a stream, which counts before it says so: many may be placed at once.
    pub(crate) fn took_one(&self) {
        if let Some(load) = &mut *self.load() {
            load.streams = load.streams.saturating_add(1);
        }
    }

    fn load(&self) -> MutexGuard<'_, Option<Load>> {
        self.load.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_well(&self) -> bool {
        self.well.load(Ordering::Relaxed)
    }
}

impl Pool {
    pub(crate) fn start(config: &Config, recognizers: Vec<http::Uri>, tasks: &Tasks) -> Result<Self, TlsError> {
        let pool = Self { workers: Arc::default() };
        for (of, uri) in recognizers.into_iter().enumerate() {
            let place = Place::new(of, uri, config)?;
            match place.literal() {
                Some(address) => pool.follow(&place, &BTreeSet::from([address]), tasks),
                None => {
                    drop(tasks.spawn_background("recognizer discovery", discover(place, pool.clone(), tasks.clone())));
                }
            }
        }
        Ok(pool)
    }

    /// These are the addresses of a configured recognizer. One that is not among them is forgotten once it is not well: what
    /// answers is there, whatever DNS says.
    pub(crate) fn follow(&self, place: &Place, found: &BTreeSet<SocketAddr>, tasks: &Tasks) {
        let mut workers = self.workers.write().unwrap_or_else(PoisonError::into_inner);
        workers.retain(|worker| {
            let stays = worker.of != place.of || found.contains(&worker.at) || worker.is_well();
            if !stays {
                worker.gone.store(true, Ordering::Relaxed);
                tracing::info!(recognizer = worker.address, "recognizer is gone");
            }
            stays
        });
        for &at in found {
            if workers.iter().any(|worker| worker.of == place.of && worker.at == at) {
                continue;
            }
            match place.worker(at) {
                Ok(worker) => {
                    workers.push(Arc::clone(&worker));
                    let checks = check(worker, self.clone(), tasks.drain());
                    drop(tasks.spawn_background("recognizer health", checks));
                }
                Err(error) => tracing::error!(%error, %at, "a recognizer cannot be reached"),
            }
        }
    }

    fn workers(&self) -> Vec<Arc<Worker>> {
        self.workers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// At least one recognizer is well.
    pub fn is_ready(&self) -> bool {
        self.workers().iter().any(|worker| worker.is_well())
    }

    /// The recognizers to try for a meeting, best first: those that are well and not crowded in the meeting's own order, then
    /// the others, which may have recovered since they were asked.
    pub(crate) fn candidates(&self, meeting: &MeetingKey) -> Vec<Arc<Worker>> {
        let workers = self.workers();
        let known = |worker: &Arc<Worker>| {
            let load = *worker.load();
            Known { well: worker.is_well(), weight: weight(worker, meeting), load }
        };
        let known: Vec<_> = workers.iter().map(known).collect();
        order(&known).into_iter().map(|one| Arc::clone(&workers[one])).collect()
    }

    fn report(&self) {
        let workers = self.workers();
        let up = workers.iter().filter(|worker| worker.is_well()).count();
        metrics::workers(up, workers.len() - up);
        let loads = workers.iter().filter(|worker| worker.is_well()).filter_map(|worker| *worker.load());
        let (streams, rated) = loads.fold((0u64, 0u64), |(streams, rated), load| {
            (streams + u64::from(load.streams), rated + u64::from(load.rated))
        });
        metrics::load(streams, rated);
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
    let mut watched = None;
    loop {
        let request = HealthCheckRequest { service: SERVICE.to_owned() };
        let answer = timeout(CHECK_TIMEOUT, client.check(request)).await;
        let serves = matches!(&answer, Ok(Ok(answer)) if answer.get_ref().status() == ServingStatus::Serving);
        let well = serves && proved(&worker).await;
        if worker.well.swap(well, Ordering::Relaxed) != well {
            if well {
                tracing::info!(recognizer = worker.address, "recognizer is up");
            } else {
                tracing::warn!(recognizer = worker.address, answer = ?answer.map(|a| a.map(|a| a.into_inner())), "recognizer is down");
            }
        }
        pool.report();
        if worker.gone.load(Ordering::Relaxed) {
            return;
        }
        if well && watched.is_none() {
            watched = watch(&worker).await;
        }
        let next = Instant::now() + CHECK_EVERY;
        loop {
            tokio::select! {
                () = sleep_until(next) => break,
                load = told(&mut watched) => *worker.load() = load,
                () = drain.finished() => return,
            }
        }
    }
}

/// Whether it is not doubted, or proves now that it hears.
async fn proved(worker: &Worker) -> bool {
    // Before it is asked: what fails meanwhile is doubted again.
    if !worker.doubted.swap(false, Ordering::Relaxed) {
        return true;
    }
    let mut client = CapacityClient::new(worker.channel.clone());
    let heard = match timeout(PROBE_TIMEOUT, client.probe(v1::ProbeRequest {})).await {
        Ok(Ok(_)) => true,
        // An older one cannot be asked.
        Ok(Err(status)) if status.code() == Code::Unimplemented => true,
        failed => {
            tracing::info!(recognizer = worker.address, failed = ?failed.map(|it| it.err()), "recognizer does not hear");
            false
        }
    };
    metrics::probed(heard);
    if !heard {
        worker.doubted.store(true, Ordering::Relaxed);
    }
    heard && !worker.doubted.load(Ordering::Relaxed)
}

/// Asks a recognizer to say its load; one that cannot is placed by preference alone.
async fn watch(worker: &Worker) -> Option<Streaming<v1::Load>> {
    let mut client = CapacityClient::new(worker.channel.clone());
    match timeout(CHECK_TIMEOUT, client.watch(v1::WatchRequest {})).await {
        Ok(Ok(answer)) => Some(answer.into_inner()),
        failed => {
            tracing::debug!(recognizer = worker.address, failed = ?failed.map(|it| it.err()), "no load is told");
            None
        }
    }
}

/// The next load told; none when it is known no longer.
async fn told(watched: &mut Option<Streaming<v1::Load>>) -> Option<Load> {
    let Some(stream) = watched else { return std::future::pending().await };
    if let Ok(Some(v1::Load { streams, rated, ladder, .. })) = stream.message().await {
        return Some(Load { streams, rated, refuses: ladder >= REFUSES });
    }
    *watched = None;
    None
}

#[cfg(test)]
mod tests {
    use hearsay_protocol::{AccountId, MeetingId};

    use super::*;

    fn pool(count: usize) -> Pool {
        let workers = (0..count)
            .map(|n| {
                let address = format!("http://127.0.0.{}:50051", n + 1);
                let endpoint = Endpoint::from_shared(address.clone()).unwrap();
                let worker = Worker::new(address, endpoint, n, format!("127.0.0.{}:50051", n + 1).parse().unwrap());
                worker.well.store(true, Ordering::Relaxed);
                worker
            })
            .collect();
        Pool { workers: Arc::new(RwLock::new(workers)) }
    }

    fn meeting(n: u32) -> MeetingKey {
        MeetingKey { account: AccountId::dev(), meeting: MeetingId::new(&format!("m{n}")).unwrap() }
    }

    #[tokio::test]
    async fn a_meeting_keeps_its_recognizer_when_another_fails() {
        let pool = pool(4);
        let before: Vec<_> = (0..100).map(|n| pool.candidates(&meeting(n))[0].address.clone()).collect();
        let lost = pool.workers().swap_remove(0);
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
    async fn streams_share_a_connection_with_those_of_their_runtime_only() {
        let worker = pool(1).workers().swap_remove(0);
        let connections = |worker: &Worker| {
            worker.streams();
            worker.channels.lock().unwrap().len()
        };
        assert_eq!([connections(&worker), connections(&worker)], [1, 1]);
        let core = std::thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { [connections(&worker), connections(&worker)] })
        });
        assert_eq!(core.join().unwrap(), [2, 2]);
    }

    #[tokio::test]
    async fn streams_placed_at_once_do_not_all_go_to_one() {
        let pool = pool(3);
        for worker in pool.workers() {
            *worker.load() = Some(Load { streams: 0, rated: 20, refuses: false });
        }
        for _ in 0..30 {
            pool.candidates(&meeting(1))[0].took_one();
        }
        let mut streams: Vec<u32> = pool.workers().iter().map(|worker| worker.load().unwrap().streams).collect();
        streams.sort_unstable();
        assert!(streams[2] <= 13, "a third of 30, and a quarter of that more: {streams:?}");
        // What a recognizer says itself counts from then on.
        let first = Arc::clone(&pool.candidates(&meeting(2))[0]);
        *first.load() = Some(Load { streams: 1, rated: 20, refuses: true });
        assert_ne!(pool.candidates(&meeting(2))[0].address, first.address);
    }

    #[tokio::test]
    async fn recognizers_that_failed_are_tried_last_not_never() {
        let pool = pool(2);
        for worker in pool.workers() {
            worker.failed();
        }
        assert_eq!(pool.candidates(&meeting(1)).len(), 2);
        assert!(!pool.is_ready());
    }

    #[tokio::test]
    async fn addresses_come_and_go_but_what_answers_stays() {
        let (pool, tasks) = (Pool { workers: Arc::default() }, Tasks::new());
        let place = Place::new(0, "http://recognizers.test:50051".parse().unwrap(), &Config::default()).unwrap();
        let of =
            |hosts: &[u8]| hosts.iter().map(|host| SocketAddr::from(([127, 0, 0, *host], 1))).collect::<BTreeSet<_>>();
        let known = || pool.workers().iter().map(|worker| worker.at.to_string()).collect::<Vec<_>>();
        pool.follow(&place, &of(&[1, 2]), &tasks);
        assert_eq!(known(), ["127.0.0.1:1", "127.0.0.2:1"]);
        assert_eq!(pool.workers()[0].address, "http://127.0.0.1:1/");
        // The first is well, whatever is heard of it; the second is not.
        let first = pool.workers().swap_remove(0);
        first.well.store(true, Ordering::Relaxed);
        pool.follow(&place, &of(&[3]), &tasks);
        assert_eq!(known(), ["127.0.0.1:1", "127.0.0.3:1"]);
        first.failed();
        pool.follow(&place, &of(&[3]), &tasks);
        assert_eq!(known(), ["127.0.0.3:1"]);
        assert!(first.gone.load(Ordering::Relaxed));
        // Those of another name are not touched.
        let other = Place::new(1, "http://others.test:50051".parse().unwrap(), &Config::default()).unwrap();
        pool.follow(&other, &of(&[3]), &tasks);
        assert_eq!(known(), ["127.0.0.3:1", "127.0.0.3:1"]);
        tasks.finish(Duration::from_secs(10)).await.unwrap();
    }
}
