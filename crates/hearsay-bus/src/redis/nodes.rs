//! The Redis nodes that hold the log: which there are, which slots are whose, and the two connections to each.
//!
//! One task looks after all of them ([`Nodes::tend`]): it finds primaries (again when a call was sent elsewhere or a
//! connection broke), connects, and sends each a canary once a second that has to come back through the subscription.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _,
    ProtocolVersion, PushInfo, RedisConnectionInfo, RedisError, TlsCertificates, Value, aio::MultiplexedConnection,
    io::tcp::TcpSettings,
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};

use super::{
    config::{RedisConfig, RedisTopology},
    keys, metrics,
    scripts::Script,
};

/// How long connecting, and asking a node about itself, may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// A node that does not echo its canary for so long is not listening, whatever its connection says.
const CANARY: Duration = Duration::from_secs(5);
const BEAT: Duration = Duration::from_secs(1);
/// Beats between two looks at a node's memory.
const LOOKS: u64 = 3;
/// Topologies change without telling, and a primary that was replaced takes appends for a while that will be lost.
const REFRESH: Duration = Duration::from_secs(1);
const OLDEST: (u32, u32) = (7, 0);

type Address = (String, u16);

/// Why the log's Redis could not be used at start.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("{host}:{port} cannot be reached: {reason}")]
    Unreachable { host: String, port: u16, reason: String },
    #[error("no node of {0} answers")]
    NoNode(String),
    #[error("{host}:{port} is version {version}; 7.0 or newer is needed (sharded publish and subscribe)")]
    Version { host: String, port: u16, version: String },
    #[error(
        "{host}:{port} has maxmemory-policy {policy}, by which a full server drops what was said; set `maxmemory-policy noeviction`"
    )]
    Eviction { host: String, port: u16, policy: String },
    #[error("{what} {path} cannot be read: {reason}")]
    File { what: &'static str, path: String, reason: String },
    #[error("sentinels know no primary of service {service:?}")]
    NoPrimary { service: String },
}

/// One node's connections, while they hold.
pub(super) struct Link {
    pub(super) serial: u64,
    pub(super) address: Address,
    /// For all calls; pipelined.
    pub(super) commands: MultiplexedConnection,
    /// For subscriptions only, so that a flood of announcements delays no call.
    pub(super) subscriptions: MultiplexedConnection,
    /// Of the server's process: another one may hold another history.
    pub(super) identity: [u8; 8],
    pub(super) broken: Arc<AtomicBool>,
    /// When the canary was last heard, ms since `Nodes::began`; 0 before the first.
    heard: Arc<AtomicU64>,
    /// When it was connected.
    made: u64,
    canary: String,
}

impl Link {
    /// How long the canary has been silent, ms.
    fn silence(&self, now: u64) -> u64 {
        now.saturating_sub(self.heard.load(Ordering::Acquire).max(self.made))
    }

    fn has_echoed(&self) -> bool {
        self.heard.load(Ordering::Acquire) > 0
    }
}

/// What is announced to this process: a channel and its message, or the end of a connection.
pub(super) trait Hears: Send + Sync + 'static {
    fn hears(&self, link: u64, channel: &[u8], message: Vec<u8>);
    /// The server ended this subscription without being asked, as it does when a slot moves.
    fn lost(&self, link: u64, channel: &[u8]) -> bool;
}

/// Which link serves which slot.
#[derive(Default)]
struct Table {
    links: BTreeMap<Address, Arc<Link>>,
    /// First and last slot of each range, and whose it is. Empty: everything is the only link's.
    ranges: Vec<(u16, u16, Address)>,
}

impl Table {
    fn owner(&self, slot: u16) -> Option<&Address> {
        if self.ranges.is_empty() {
            return self.links.keys().next();
        }
        self.ranges.iter().find(|(first, last, _)| (*first..=*last).contains(&slot)).map(|(_, _, address)| address)
    }
}

pub(super) struct Nodes {
    config: RedisConfig,
    certificates: Option<TlsCertificates>,
    table: ArcSwap<Table>,
    /// Something about the table is wrong: look again at once.
    wrong: Notify,
    stale: AtomicBool,
    /// Counts changes of the table.
    changed: watch::Sender<u64>,
    healthy: watch::Sender<bool>,
    /// Nodes whose canary fell silent, until one comes back: a new connection alone proves nothing.
    silent: Mutex<BTreeSet<Address>>,
    hears: Mutex<Option<Arc<dyn Hears>>>,
    serial: AtomicU64,
    /// How full the fullest node's memory is, percent; 0 when it has no limit.
    fullness: AtomicU8,
    began: Instant,
    /// Added to the servers' time; moved by tests.
    pub(super) shift: AtomicI64,
}

impl Nodes {
    pub(super) fn new(config: RedisConfig) -> Result<Arc<Self>, ConnectError> {
        let read = |what, path: &std::path::Path| {
            std::fs::read(path).map_err(|error| ConnectError::File {
                what,
                path: path.display().to_string(),
                reason: error.to_string(),
            })
        };
        let certificates = match &config.tls {
            None => None,
            Some(tls) => {
                // The client asks for the process's choice. Who made one already keeps it.
                let _ = rustls::crypto::ring::default_provider().install_default();
                Some(TlsCertificates {
                    root_cert: tls.ca.as_ref().map(|path| read("CA file", path)).transpose()?,
                    client_tls: match &tls.certificate {
                        None => None,
                        Some((certificate, key)) => Some(ClientTlsConfig {
                            client_cert: read("client certificate", certificate)?,
                            client_key: read("client key", key)?,
                        }),
                    },
                })
            }
        };
        Ok(Arc::new(Self {
            config,
            certificates,
            table: ArcSwap::default(),
            wrong: Notify::new(),
            stale: AtomicBool::new(true),
            changed: watch::Sender::new(0),
            healthy: watch::Sender::new(false),
            silent: Mutex::default(),
            hears: Mutex::new(None),
            serial: AtomicU64::new(0),
            fullness: AtomicU8::new(0),
            began: Instant::now(),
            shift: AtomicI64::new(0),
        }))
    }

    pub(super) fn heard_by(&self, hears: Arc<dyn Hears>) {
        *self.hears.lock().unwrap_or_else(PoisonError::into_inner) = Some(hears);
    }

    pub(super) fn config(&self) -> &RedisConfig {
        &self.config
    }

    /// The node that has this slot, if it is connected.
    pub(super) fn link(&self, slot: u16) -> Option<Arc<Link>> {
        let table = self.table.load();
        let link = table.links.get(table.owner(slot)?)?;
        (!link.broken.load(Ordering::Acquire)).then(|| Arc::clone(link))
    }

    pub(super) fn link_to(&self, address: &Address) -> Option<Arc<Link>> {
        self.table.load().links.get(address).cloned()
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(super) fn health(&self) -> watch::Receiver<bool> {
        self.healthy.subscribe()
    }

    fn silent(&self) -> MutexGuard<'_, BTreeSet<Address>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is announced in this slot arrives, as far as canaries tell.
    pub(super) fn hears_of(&self, slot: u16) -> bool {
        // Without a node calls fail too, and that is told anyway; unless it is connected anew because it was silent.
        let Some(link) = self.link(slot) else { return self.silent().is_empty() };
        link.silence(self.millis()) <= CANARY.as_millis() as u64 && !self.silent().contains(&link.address)
    }

    pub(super) fn fullness(&self) -> u8 {
        self.fullness.load(Ordering::Relaxed)
    }

    /// A call was sent elsewhere, or failed: look again which node is whose.
    pub(super) fn doubt(&self) {
        self.stale.store(true, Ordering::Release);
        self.wrong.notify_one();
    }

    /// This connection is of no use any more.
    pub(super) fn broke(&self, link: &Link) {
        if !link.broken.swap(true, Ordering::AcqRel) {
            metrics::broken();
            self.doubt();
        }
    }

    fn client(&self, address: &Address, sentinel: bool) -> Result<Client, RedisError> {
        let (host, port) = address.clone();
        let addr = match &self.config.tls {
            Some(_) => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
            None => ConnectionAddr::Tcp(host, port),
        };
        let mut settings = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3);
        if !sentinel {
            settings = settings.set_db(self.config.database);
            if let Some(username) = &self.config.username {
                settings = settings.set_username(username);
            }
            if let Some(password) = &self.config.password {
                settings = settings.set_password(password);
            }
        }
        // A call waits for no acknowledgement of the one before it.
        let tcp = TcpSettings::default().set_nodelay(true);
        let info: ConnectionInfo = addr.into_connection_info()?.set_redis_settings(settings).set_tcp_settings(tcp);
        match &self.certificates {
            Some(certificates) => Client::build_with_tls(info, certificates.clone()),
            None => Client::open(info),
        }
    }

    async fn plain(&self, address: &Address, sentinel: bool) -> Result<MultiplexedConnection, RedisError> {
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(PATIENCE)).set_response_timeout(Some(PATIENCE));
        self.client(address, sentinel)?.get_multiplexed_async_connection_with_config(&config).await
    }

    /// Which nodes are primaries now, and of which slots.
    async fn discover(&self) -> Result<(Vec<Address>, Vec<(u16, u16, Address)>), ConnectError> {
        match &self.config.topology {
            RedisTopology::Single => Ok((self.config.addresses.clone(), Vec::new())),
            RedisTopology::Sentinel { service } => self.by_sentinel(service).await,
            RedisTopology::Cluster => self.by_cluster().await,
        }
    }

    async fn by_sentinel(&self, service: &str) -> Result<(Vec<Address>, Vec<(u16, u16, Address)>), ConnectError> {
        let mut answered = false;
        for sentinel in &self.config.addresses {
            let asked = async {
                let mut connection = self.plain(sentinel, true).await?;
                redis::cmd("SENTINEL")
                    .arg("GET-MASTER-ADDR-BY-NAME")
                    .arg(service)
                    .query_async::<Option<(String, u16)>>(&mut connection)
                    .await
            };
            match timeout(PATIENCE, asked).await {
                Ok(Ok(Some(primary))) => return Ok((vec![primary], Vec::new())),
                Ok(Ok(None)) => answered = true,
                Ok(Err(error)) => tracing::debug!(?sentinel, %error, "a sentinel does not answer"),
                Err(_) => tracing::debug!(?sentinel, "a sentinel does not answer in time"),
            }
        }
        Err(if answered { ConnectError::NoPrimary { service: service.to_owned() } } else { self.nobody() })
    }

    async fn by_cluster(&self) -> Result<(Vec<Address>, Vec<(u16, u16, Address)>), ConnectError> {
        let known: Vec<Arc<Link>> = self.table.load().links.values().cloned().collect();
        for link in known.iter().filter(|link| !link.broken.load(Ordering::Acquire)) {
            let mut connection = link.commands.clone();
            if let Some(found) = slots(&mut connection, &link.address.0).await {
                return Ok(found);
            }
        }
        let others = known.iter().map(|link| link.address.clone());
        for address in others.chain(self.config.addresses.iter().cloned()) {
            if let Ok(Ok(mut connection)) = timeout(PATIENCE, self.plain(&address, false)).await
                && let Some(found) = slots(&mut connection, &address.0).await
            {
                return Ok(found);
            }
        }
        Err(self.nobody())
    }

    fn nobody(&self) -> ConnectError {
        let all: Vec<_> = self.config.addresses.iter().map(|(host, port)| format!("{host}:{port}")).collect();
        ConnectError::NoNode(all.join(", "))
    }

    /// Connects to a primary and checks that it can hold the log. None: it is no primary.
    async fn connect(&self, address: &Address) -> Result<Option<Link>, ConnectError> {
        let (host, port) = address.clone();
        let unreachable = |reason: String| ConnectError::Unreachable { host: host.clone(), port, reason };
        let work = async {
            let mut commands = self.commands(address).await.map_err(|error| unreachable(error.to_string()))?;
            let info: String =
                redis::cmd("INFO").query_async(&mut commands).await.map_err(|error| unreachable(error.to_string()))?;
            let about = |name: &str| {
                info.lines()
                    .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                    .map(|value| value.trim().to_owned())
            };
            if about("role").as_deref() != Some("master") {
                return Ok(None);
            }
            let version = about("redis_version").unwrap_or_default();
            let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
            if (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) < OLDEST {
                return Err(ConnectError::Version { host: host.clone(), port, version });
            }
            let policy = about("maxmemory_policy").unwrap_or_default();
            // Without a limit nothing is evicted.
            let limited = about("maxmemory").is_some_and(|limit| limit != "0");
            if limited && policy != "noeviction" {
                return Err(ConnectError::Eviction { host: host.clone(), port, policy });
            }
            let run = about("run_id").unwrap_or_default();
            let mut identity = [0; 8];
            identity.copy_from_slice(&blake3::hash(run.as_bytes()).as_bytes()[..8]);
            for script in Script::ALL {
                redis::cmd("SCRIPT")
                    .arg("LOAD")
                    .arg(&script.loaded().source)
                    .query_async::<String>(&mut commands)
                    .await
                    .map_err(|error| unreachable(format!("script {} was refused: {error}", script.name())))?;
            }
            let serial = self.serial.fetch_add(1, Ordering::Relaxed) + 1;
            let broken = Arc::new(AtomicBool::new(false));
            let (heard, made) = (Arc::new(AtomicU64::new(0)), self.millis());
            let owned: Vec<_> =
                self.table.load().ranges.iter().filter(|(.., owner)| owner == address).cloned().collect();
            let owns = |slot| owned.is_empty() || owned.iter().any(|(first, last, _)| (*first..=*last).contains(&slot));
            let canary = keys::canary(owns).unwrap_or_default();
            let mut subscriptions = self
                .subscriptions(address, serial, &canary, &heard, &broken)
                .await
                .map_err(|error| unreachable(error.to_string()))?;
            redis::cmd("SSUBSCRIBE")
                .arg(&canary)
                .query_async::<Value>(&mut subscriptions)
                .await
                .map_err(|error| unreachable(error.to_string()))?;
            let address = address.clone();
            Ok(Some(Link { serial, address, commands, subscriptions, identity, broken, heard, made, canary }))
        };
        timeout(2 * PATIENCE, work).await.unwrap_or_else(|_| Err(unreachable("no answer in time".to_owned())))
    }

    async fn commands(&self, address: &Address) -> Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            // Each call has its own deadline.
            .set_response_timeout(None)
            .set_pipeline_buffer_size(1_024);
        self.client(address, false)?.get_multiplexed_async_connection_with_config(&config).await
    }

    async fn subscriptions(
        &self,
        address: &Address,
        serial: u64,
        canary: &str,
        heard: &Arc<AtomicU64>,
        broken: &Arc<AtomicBool>,
    ) -> Result<MultiplexedConnection, RedisError> {
        let hears = self.hears.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (canary, heard, broken) = (canary.as_bytes().to_vec(), Arc::clone(heard), Arc::clone(broken));
        let began = self.began;
        let lost = self.changed.clone();
        let push = move |info: PushInfo| -> Result<(), ()> {
            let Some(hears) = &hears else { return Ok(()) };
            match info.kind {
                redis::PushKind::SMessage => {
                    let mut data = info.data.into_iter();
                    if let (Some(Value::BulkString(channel)), Some(Value::BulkString(message))) =
                        (data.next(), data.next())
                    {
                        if channel == canary {
                            heard.store(millis_since(began).max(1), Ordering::Release);
                        } else {
                            hears.hears(serial, &channel, message);
                        }
                    }
                }
                redis::PushKind::SUnsubscribe => {
                    if let Some(Value::BulkString(channel)) = info.data.first()
                        && (*channel == canary || hears.lost(serial, channel))
                    {
                        broken.store(true, Ordering::Release);
                        lost.send_modify(|changes| *changes += 1);
                    }
                }
                redis::PushKind::Disconnection => {
                    broken.store(true, Ordering::Release);
                    lost.send_modify(|changes| *changes += 1);
                }
                _ => {}
            }
            Ok(())
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE))
            .set_pipeline_buffer_size(1_024)
            .set_push_sender(push);
        self.client(address, false)?.get_multiplexed_async_connection_with_config(&config).await
    }

    fn millis(&self) -> u64 {
        millis_since(self.began)
    }

    /// Finds the primaries and connects to all of them.
    ///
    /// # Errors
    /// When one cannot be reached or cannot hold the log. Those that could be reached are connected.
    pub(super) async fn look(&self) -> Result<(), ConnectError> {
        self.stale.store(false, Ordering::Release);
        let (primaries, ranges) = self.discover().await.inspect_err(|_| self.stale.store(true, Ordering::Release))?;
        let old = self.table.load_full();
        // Slots first: a new link's canary has to lie in one of its own.
        let links = old.links.iter().filter(|(address, _)| primaries.contains(address));
        let mut links: BTreeMap<_, _> = links.map(|(address, link)| (address.clone(), Arc::clone(link))).collect();
        links.retain(|_, link| !link.broken.load(Ordering::Acquire));
        self.table.store(Arc::new(Table { links: links.clone(), ranges: ranges.clone() }));
        let missing: Vec<&Address> = primaries.iter().filter(|address| !links.contains_key(*address)).collect();
        let connected = futures::future::join_all(
            missing.iter().map(|address| async move { (*address, self.connect(address).await) }),
        );
        let mut failed = None;
        for (address, link) in connected.await {
            match link {
                Ok(Some(link)) => {
                    tracing::info!(host = %address.0, port = address.1, "connected to the log");
                    metrics::connected();
                    links.insert(address.clone(), Arc::new(link));
                }
                Ok(None) => {
                    failed = Some(ConnectError::Unreachable {
                        host: address.0.clone(),
                        port: address.1,
                        reason: "it is a replica".to_owned(),
                    });
                }
                Err(error) => failed = Some(error),
            }
        }
        self.table.store(Arc::new(Table { links, ranges }));
        self.changed.send_modify(|changes| *changes += 1);
        match failed {
            None => Ok(()),
            Some(error) => {
                self.stale.store(true, Ordering::Release);
                Err(error)
            }
        }
    }

    /// One canary to each node, and now and then a look at its memory.
    async fn beat(&self, looks: bool) {
        let links: Vec<Arc<Link>> = self.table.load().links.values().cloned().collect();
        let now = self.millis();
        let mut oldest = 0;
        for link in &links {
            let age = link.silence(now);
            oldest = oldest.max(age);
            if age <= CANARY.as_millis() as u64 {
                if link.has_echoed() {
                    self.silent().remove(&link.address);
                }
            } else if !link.broken.load(Ordering::Acquire) {
                self.silent().insert(link.address.clone());
                tracing::warn!(host = %link.address.0, port = link.address.1, "the log's canary is silent: connecting anew");
                self.broke(link);
            }
        }
        metrics::canary(Duration::from_millis(oldest));
        let full = futures::future::join_all(links.iter().map(|link| async move {
            let mut connection = link.commands.clone();
            let mut pipe = redis::pipe();
            pipe.cmd("SPUBLISH").arg(&link.canary).arg("").ignore();
            if looks {
                pipe.cmd("INFO").arg("memory");
            }
            match timeout(BEAT, pipe.query_async::<Vec<String>>(&mut connection)).await {
                Ok(Ok(answers)) => answers.first().map_or(0, |info| fullness(info)),
                Ok(Err(error)) => {
                    if error.is_unrecoverable_error() || error.code().is_some_and(|code| code != "OOM") {
                        tracing::warn!(host = %link.address.0, port = link.address.1, %error, "a canary could not be sent");
                        self.broke(link);
                    }
                    0
                }
                // It may only be busy: the canary's age decides.
                Err(_) => 0,
            }
        }));
        let full = full.await.into_iter().max().unwrap_or(0);
        if looks {
            self.fullness.store(full, Ordering::Relaxed);
            metrics::fullness(full);
        }
        let complete = !self.stale.load(Ordering::Acquire)
            && !links.is_empty()
            && links.iter().all(|link| !link.broken.load(Ordering::Acquire));
        let all_echo = {
            let mut silent = self.silent();
            if complete {
                // Of nodes that are none any more nothing is expected.
                silent.retain(|address| links.iter().any(|link| link.address == *address));
            }
            silent.is_empty()
        };
        let healthy = complete && all_echo && oldest <= CANARY.as_millis() as u64;
        self.healthy.send_if_modified(|was| std::mem::replace(was, healthy) != healthy);
    }

    /// Looks after the connections until told to stop.
    pub(super) async fn tend(self: Arc<Self>, drain: hearsay_runtime::Drain) {
        let mut beats = 0;
        let mut beat = std::pin::pin!(tokio::time::sleep(Duration::ZERO));
        let mut changes = self.changed.subscribe();
        let mut looked = Instant::now();
        let mut pause = Duration::from_millis(50);
        loop {
            tokio::select! {
                () = drain.finished() => return,
                () = &mut beat => {
                    self.beat(beats % LOOKS == 0).await;
                    beats += 1;
                    // Processes that were started together do not ask together for long.
                    beat.as_mut().reset(Instant::now() + BEAT.mul_f64(rand::random_range(0.8..1.2)));
                }
                () = self.wrong.notified() => {}
                // A connection said that it ended.
                _ = changes.changed() => {}
            }
            let broken = self.table.load().links.values().any(|link| link.broken.load(Ordering::Acquire));
            let due = looked.elapsed() >= REFRESH && self.config.topology != RedisTopology::Single;
            if broken || due || self.stale.load(Ordering::Acquire) {
                looked = Instant::now();
                match self.look().await {
                    Ok(()) => pause = Duration::from_millis(50),
                    Err(error) => {
                        tracing::warn!(%error, "the log is not wholly reachable");
                        self.healthy.send_if_modified(|was| std::mem::replace(was, false));
                        tokio::select! {
                            () = drain.finished() => return,
                            () = tokio::time::sleep(pause) => {}
                        }
                        pause = (2 * pause).min(Duration::from_millis(500));
                        self.wrong.notify_one();
                    }
                }
                changes.mark_unchanged();
                if self.table.load().links.values().any(|link| link.broken.load(Ordering::Acquire)) {
                    self.wrong.notify_one();
                }
            }
        }
    }
}

fn millis_since(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Memory in use of what the node may use, percent.
fn fullness(info: &str) -> u8 {
    let number = |name: &str| -> Option<u64> {
        info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?.trim().parse().ok()
    };
    match (number("used_memory"), number("maxmemory")) {
        (Some(used), Some(limit)) if limit > 0 => u8::try_from((used * 100 / limit).min(100)).unwrap_or(100),
        _ => 0,
    }
}

/// `CLUSTER SLOTS`: primaries and their ranges. A node that does not know its own name is reached as it was asked.
async fn slots(
    connection: &mut MultiplexedConnection,
    asked: &str,
) -> Option<(Vec<Address>, Vec<(u16, u16, Address)>)> {
    let answer = timeout(PATIENCE, redis::cmd("CLUSTER").arg("SLOTS").query_async::<Value>(connection)).await;
    let Ok(Ok(Value::Array(rows))) = answer else { return None };
    let mut ranges = Vec::new();
    let mut primaries: Vec<Address> = Vec::new();
    for row in rows {
        let Value::Array(row) = row else { return None };
        let [Value::Int(first), Value::Int(last), Value::Array(primary), ..] = row.as_slice() else { return None };
        let (host, port) = (primary.first()?, primary.get(1)?);
        let host = match host {
            Value::BulkString(host) if !host.is_empty() && host != b"?" => String::from_utf8(host.clone()).ok()?,
            _ => asked.to_owned(),
        };
        let Value::Int(port) = port else { return None };
        let address = (host, u16::try_from(*port).ok()?);
        ranges.push((u16::try_from(*first).ok()?, u16::try_from(*last).ok()?, address.clone()));
        if !primaries.contains(&address) {
            primaries.push(address);
        }
    }
    (!ranges.is_empty()).then_some((primaries, ranges))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fullness_is_a_share_of_the_limit() {
        assert_eq!(fullness("used_memory:750\r\nmaxmemory:1000\r\n"), 75);
        assert_eq!(fullness("used_memory:750\r\nmaxmemory:0\r\n"), 0);
        assert_eq!(fullness("used_memory:7500\r\nmaxmemory:1000\r\n"), 100);
        assert_eq!(fullness("nothing"), 0);
    }

    #[test]
    fn slots_are_their_owners() {
        let (a, b) = (("a".to_owned(), 1), ("b".to_owned(), 2));
        let table = Table { links: BTreeMap::new(), ranges: vec![(0, 99, a.clone()), (100, 16_383, b.clone())] };
        assert_eq!(table.owner(99), Some(&a));
        assert_eq!(table.owner(100), Some(&b));
    }
}
