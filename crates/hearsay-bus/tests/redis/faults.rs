//! Speakers and readers on real servers, while servers are killed, frozen, replaced and moved: everybody ends up with the
//! same history, nothing that was acknowledged is missing, and nothing stands there twice.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use hearsay_bus::{
    Batch, Body, Bus, Entry, GapReason, Lease, Limits, Proposal, Read, Seen,
    append::{Appender, patiently},
    follow::{Follower, Step},
    publisher::{AfterBranch, Stretch},
    redis::{RedisBus, RedisConfig},
};
use hearsay_protocol::{
    AccountId, ConversationId, ConversationKey, Epoch, Event, EventId, GatewayId, MeetingId, MeetingKey, Offset,
    ParticipantId, PublisherId, StreamId, StreamTime, Timestamp, UtteranceId,
    event::{EventKind, Final, Participant, SpeakerConfig, StreamStarted},
};
use hearsay_runtime::Tasks;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

use crate::server::{Cluster, Sentinel, Server, ask, redis, until, valkey};

const SPEAKERS: u128 = 3;
/// Processes, each with its own connections.
const READERS: u128 = 3;
const PATIENCE: Duration = Duration::from_secs(40);

/// What is said and heard while a test does its worst.
struct Traffic {
    key: ConversationKey,
    bus: RedisBus,
    stop: Arc<AtomicBool>,
    /// Utterances that were acknowledged, of all speakers.
    said: Arc<AtomicU64>,
    speakers: Vec<JoinHandle<u64>>,
    readers: Vec<JoinHandle<Viewed>>,
    tasks: Tasks,
}

/// What one reader was shown.
struct Viewed {
    entries: Vec<(Offset, EventKind, EventId)>,
    /// How often history branched under it.
    branches: usize,
    /// Ranges read from the log.
    reads: usize,
}

fn person(n: u128) -> Arc<Participant> {
    Arc::new(Participant { id: ParticipantId(Uuid::from_u128(n)), user_id: None, name: None, email: None })
}

fn spoken(stream: StreamId, n: u64) -> Event {
    Event::Final(Arc::new(Final {
        sentiment: Vec::new(),
        trace: None,
        stream,
        utterance: UtteranceId::after_cut(stream, StreamTime(n)),
        participant: person(stream.0.as_u128()),
        origin: Timestamp::ZERO,
        start: StreamTime(n),
        end: StreamTime(n + 1),
        text: n.to_string(),
        language: "en-US".to_owned(),
        confidence: 1.0,
        words: Vec::new(),
    }))
}

async fn bus(url: &str, tasks: &Tasks) -> RedisBus {
    let config = RedisConfig::parse(url).expect("a valid URL");
    RedisBus::connect(config, Limits::default(), tasks).await.expect("it can hold the log")
}

impl Traffic {
    async fn begin(url: &str) -> Self {
        let tasks = Tasks::new();
        let bus = bus(url, &tasks).await;
        let meeting = MeetingKey { account: AccountId::dev(), meeting: MeetingId::new("faults").expect("valid") };
        let proposal = Proposal {
            conversation: ConversationId::from_random(rand::random()),
            epoch: Epoch(rand::random()),
            title: String::new(),
        };
        let key = bus.open(&meeting, proposal).await.expect("opened").key;
        let stop = Arc::new(AtomicBool::new(false));
        let said = Arc::new(AtomicU64::new(0));
        let mut speakers = Vec::new();
        for n in 0..SPEAKERS {
            let bus: Arc<dyn Bus> = Arc::new(self::bus(url, &tasks).await);
            let work = speak(bus, key.clone(), n + 1, Arc::clone(&stop), Arc::clone(&said));
            speakers.push(tasks.spawn("a speaker", work));
        }
        let mut readers = Vec::new();
        for n in 0..READERS {
            let bus: Arc<dyn Bus> = Arc::new(self::bus(url, &tasks).await);
            let work = listen(bus, key.clone(), GatewayId(Uuid::from_u128(0xA0 + n)), Arc::clone(&stop));
            readers.push(tasks.spawn("a reader", work));
        }
        Self { key, bus, stop, said, speakers, readers, tasks }
    }

    /// Until so many more utterances were acknowledged.
    async fn goes_on(&self, more: u64) {
        let from = self.said.load(Ordering::Relaxed);
        until("speakers are acknowledged", async || self.said.load(Ordering::Relaxed) >= from + more).await;
    }

    /// Lets everybody come to an end, and compares what they have. Answers how often history branched.
    async fn end(self) -> (usize, usize) {
        self.stop.store(true, Ordering::Relaxed);
        let mut said = BTreeMap::new();
        for (n, speaker) in self.speakers.into_iter().enumerate() {
            let count = timeout(PATIENCE, speaker).await.expect("a speaker ends").expect("without panic");
            said.insert(StreamId(Uuid::from_u128(n as u128 + 1)), count);
        }
        let log = log_of(&self.bus, &self.key).await;
        let mut found: BTreeMap<StreamId, Vec<u64>> = BTreeMap::new();
        for entry in &log {
            if let Body::Event(Event::Final(spoken)) = &entry.body {
                found.entry(spoken.stream).or_default().push(spoken.start.micros());
            }
        }
        for (stream, count) in &said {
            let all: Vec<u64> = (0..*count).collect();
            let found = found.remove(stream).unwrap_or_default();
            assert!(
                found == all,
                "{stream} was acknowledged {count} utterances; on the log stand {} of them, first difference at {:?}",
                found.len(),
                found.iter().zip(&all).position(|(found, said)| found != said)
            );
        }
        let truth: Vec<_> = log.iter().map(seen).collect();
        let (mut branches, mut reads) = (0, 0);
        for reader in self.readers {
            let viewed = timeout(PATIENCE, reader).await.expect("a reader ends").expect("without panic");
            assert!(
                viewed.entries == truth,
                "a reader has {} entries and the log {}; first difference at {:?}",
                viewed.entries.len(),
                truth.len(),
                viewed.entries.iter().zip(&truth).position(|(viewed, stands)| viewed != stands)
            );
            branches = viewed.branches.max(branches);
            reads = viewed.reads.max(reads);
        }
        drop(self.bus);
        self.tasks.finish(Duration::from_secs(10)).await.expect("nothing is left behind");
        (branches, reads)
    }
}

fn seen(entry: &Entry) -> (Offset, EventKind, EventId) {
    let kind = match &entry.body {
        Body::Event(event) => event.kind(),
        Body::Tombstone => panic!("a tombstone at {}", entry.offset),
    };
    (entry.offset, kind, entry.id)
}

async fn log_of(bus: &RedisBus, key: &ConversationKey) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut after = Seen::NOTHING;
    loop {
        match patiently(PATIENCE, || bus.read(key, after, 500)).await.expect("readable") {
            Read::Page(page) => {
                if page.entries.is_empty() {
                    return entries;
                }
                entries.extend(page.entries);
                let last = entries.last().expect("there is one");
                after = Seen { epoch: Some(page.epoch), offset: last.offset, check: Some(last.check) };
            }
            Read::Gap { reason, .. } => panic!("a gap in a log that keeps everything: {reason:?}"),
        }
    }
}

/// Says one thing after another until told to stop; answers how many were acknowledged, which are all.
async fn speak(bus: Arc<dyn Bus>, key: ConversationKey, n: u128, stop: Arc<AtomicBool>, said: Arc<AtomicU64>) -> u64 {
    let stream = StreamId(Uuid::from_u128(n));
    let gateway = PublisherId::Gateway(GatewayId(Uuid::from_u128(0xA0 + n - 1)));
    let started = Event::StreamStarted(Arc::new(StreamStarted {
        stream,
        participant: person(n),
        gateway: GatewayId(Uuid::from_u128(0xA0 + n - 1)),
        config: SpeakerConfig::default(),
        origin: Timestamp::ZERO,
        recorded: false,
        no_connection_timeout: Duration::from_secs(3_600),
    }));
    let (mut presence, _) = Appender::claim(Arc::clone(&bus), key.clone(), gateway, AfterBranch::Reappend, PATIENCE)
        .await
        .expect("claimed");
    presence.append_event(started, PATIENCE).await.expect("begun");
    let id = PublisherId::Stream(stream);
    let (mut appender, _) = Appender::claim(bus, key, id, AfterBranch::Reappend, PATIENCE).await.expect("claimed");
    let mut next = 0;
    while !stop.load(Ordering::Relaxed) {
        let stretch = Stretch { from: next, through: next + 1, events: vec![spoken(stream, next)], restart: None };
        appender.append(stretch, PATIENCE).await.expect("the log comes back");
        next += 1;
        said.fetch_add(1, Ordering::Relaxed);
        if next % 20 == 0 {
            presence.check(PATIENCE).await.expect("the log comes back");
        }
        // Ten times what people do, and within what publishers and readers remember of a lost history.
        sleep(Duration::from_millis(40)).await;
    }
    // What a failover at the last moment lost.
    for _ in 0..3 {
        appender.check(PATIENCE).await.expect("the log comes back");
        presence.check(PATIENCE).await.expect("the log comes back");
        sleep(Duration::from_millis(300)).await;
    }
    next
}

/// Follows the log as a gateway does, until its end has stood still after the stop.
async fn listen(bus: Arc<dyn Bus>, key: ConversationKey, gateway: GatewayId, stop: Arc<AtomicBool>) -> Viewed {
    let mut viewed = Viewed { entries: Vec::new(), branches: 0, reads: 0 };
    let mut follower = Follower::new(Seen::NOTHING);
    let mut steps = Vec::new();
    let mut subscription = patiently(PATIENCE, || bus.subscribe(&key)).await.expect("subscribed");
    let mut quiet = 0;
    let mut renewed = Instant::now();
    let mut ids = HashSet::new();
    while quiet < 8 {
        if follower.is_behind() {
            let read = patiently(PATIENCE, || bus.read(&key, follower.at(), 200)).await.expect("readable");
            viewed.reads += 1;
            if let Read::Gap { reason, .. } = &read {
                assert_eq!(*reason, GapReason::Branch, "only a branch may take something back");
            }
            follower.read(read, &mut steps);
        } else {
            match timeout(Duration::from_millis(250), subscription.next()).await {
                Ok(Some(delivery)) => follower.delivered(&delivery, &mut steps),
                Ok(None) => {
                    subscription = patiently(PATIENCE, || bus.subscribe(&key)).await.expect("subscribed");
                    follower.missed();
                }
                Err(_) => {}
            }
        }
        if renewed.elapsed() >= Duration::from_millis(500) {
            renewed = Instant::now();
            let lease = Lease { key: key.clone(), listeners: 1 };
            // Out of reach: the next one.
            if let Ok(tails) = bus.renew(gateway, &[lease]).await {
                tails.iter().for_each(|tail| follower.tail(tail));
                if stop.load(Ordering::Relaxed) && !follower.is_behind() {
                    quiet += 1;
                }
            }
        }
        for step in steps.drain(..) {
            quiet = 0;
            match step {
                Step::Entry { entry, again } => {
                    let last = viewed.entries.last().map_or(0, |(offset, ..)| offset.0);
                    assert_eq!(entry.offset.0, last + 1, "a run without holes");
                    assert!(ids.insert(entry.id) || again, "{} was shown twice as new", entry.offset);
                    viewed.entries.push(seen(&entry));
                }
                Step::Gap { to, .. } => {
                    let last = viewed.entries.last().map_or(0, |(offset, ..)| offset.0);
                    assert!(to.offset.0 <= last, "a gap from {last} to {}", to.offset);
                    viewed.entries.truncate(to.offset.0 as usize);
                }
                Step::Epoch(_) => viewed.branches += 1,
            }
        }
    }
    viewed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_connections_disturb_nobody() {
    let server = Server::start(&redis(), &[]);
    let traffic = Traffic::begin(&server.url()).await;
    traffic.goes_on(60).await;
    for kind in ["pubsub", "normal", "pubsub", "normal"] {
        // The connection that says so is spared.
        ask(server.port, &format!("CLIENT KILL TYPE {kind} SKIPME yes")).await;
        traffic.goes_on(60).await;
    }
    let (branches, _) = traffic.end().await;
    assert_eq!(branches, 1, "nothing was lost, so nothing branched after the first epoch");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_is_waited_for() {
    let server = Server::start(&valkey(), &[]);
    let traffic = Traffic::begin(&server.url()).await;
    traffic.goes_on(60).await;
    server.signal("-STOP");
    sleep(Duration::from_secs(7)).await;
    server.signal("-CONT");
    traffic.goes_on(60).await;
    let (branches, _) = traffic.end().await;
    assert_eq!(branches, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_server_begins_a_new_epoch() {
    let mut server = Server::start_durable(&redis());
    let traffic = Traffic::begin(&server.url()).await;
    for _ in 0..2 {
        traffic.goes_on(60).await;
        server.restart();
    }
    traffic.goes_on(60).await;
    let (branches, _) = traffic.end().await;
    assert!(branches >= 3, "another process may hold another history: {branches} epochs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_name_another_primary() {
    let mut sentinel = Sentinel::start(&redis()).await;
    let traffic = Traffic::begin(&sentinel.url()).await;
    traffic.goes_on(60).await;
    sentinel.fail_over().await;
    traffic.goes_on(120).await;
    // And in bad order: the present primary dies.
    let roles = async |port: u16| format!("{:?}", ask(port, "ROLE").await);
    until("the replica follows its new primary", async || {
        roles(sentinel.servers[0].port).await.contains("\"connected\"")
    })
    .await;
    sentinel.servers[1].kill();
    traffic.goes_on(120).await;
    let (branches, _) = traffic.end().await;
    assert!(branches >= 3, "{branches} epochs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_moves_slots_and_loses_a_primary_that_was_ahead() {
    let mut cluster = Cluster::start(&redis()).await;
    let traffic = Traffic::begin(&cluster.url()).await;
    let name = traffic.bus.key_names(&traffic.key)[0].clone();
    let (slot, owner) = cluster.owner(&name).await;
    traffic.goes_on(60).await;
    let to = (owner + 1) % 3;
    cluster.migrate(slot, owner, to).await;
    traffic.goes_on(90).await;
    // The replica falls behind, then its primary dies: what is acknowledged meanwhile is lost, and said again.
    let replica = cluster.servers[to + 3].port;
    let primary = &mut cluster.servers[to];
    ask(primary.port, "CLIENT KILL TYPE replica").await;
    ask(primary.port, "CONFIG SET repl-timeout 60").await;
    cluster.servers[to + 3].signal("-STOP");
    traffic.goes_on(60).await;
    cluster.servers[to].kill();
    cluster.servers[to + 3].signal("-CONT");
    until("the replica takes over", async || format!("{:?}", ask(replica, "ROLE").await).contains("master")).await;
    traffic.goes_on(90).await;
    let (branches, _) = traffic.end().await;
    assert!(branches >= 3, "a moved slot and a failover: {branches} epochs");
}

/// With `replicas=1` an append is acknowledged when a replica has it: what was acknowledged outlives the primary.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_replicas_were_asked_to_have_outlives_the_primary() {
    let program = redis();
    let mut primary = Server::start(&program, &[]);
    let port = primary.port.to_string();
    let replica = Server::start(&program, &["--replicaof", "127.0.0.1", &port]);
    let linked = async || format!("{:?}", ask(replica.port, "ROLE").await).contains("\"connected\"");
    until("the replica follows", linked).await;
    let tasks = Tasks::new();
    let bus = bus(&format!("{}/?replicas=1", primary.url()), &tasks).await;
    let meeting = MeetingKey { account: AccountId::dev(), meeting: MeetingId::new("strict").expect("valid") };
    let proposal = Proposal { conversation: ConversationId::from_random(7), epoch: Epoch(7), title: String::new() };
    let key = bus.open(&meeting, proposal).await.expect("opened").key;
    let stream = StreamId(Uuid::from_u128(1));
    let claim = bus.claim(&key, &PublisherId::Stream(stream)).await.expect("claimed");
    let batch = |n: u64, seen| Batch {
        publisher: PublisherId::Stream(stream),
        generation: claim.generation,
        from: n,
        through: n + 1,
        events: vec![spoken(stream, n)],
        restart: None,
        seen,
    };
    let mut seen = claim.top;
    for n in 0..20 {
        seen = bus.publish(&key, batch(n, seen)).await.expect("a replica has it").top;
    }
    replica.signal("-STOP");
    let held = bus.publish(&key, batch(20, seen)).await;
    assert!(held.as_ref().is_err_and(hearsay_bus::Error::is_transient), "no replica has it: {held:?}");
    replica.signal("-CONT");
    let again = until_acknowledged(&bus, &key, batch(20, seen)).await;
    assert_eq!(again.top.offset, seen.offset.next(), "it stood on the primary, and was not appended twice");
    primary.kill();
    ask(replica.port, "REPLICAOF NO ONE").await;
    let survivor = self::bus(&replica.url(), &tasks).await;
    let said: Vec<String> = log_of(&survivor, &key).await.iter().filter_map(text_of).collect();
    assert_eq!(said, (0..=20).map(|n| n.to_string()).collect::<Vec<_>>(), "each that was acknowledged, once");
}

fn text_of(entry: &Entry) -> Option<String> {
    match &entry.body {
        Body::Event(Event::Final(spoken)) => Some(spoken.text.clone()),
        _ => None,
    }
}

/// As a publisher does: what may not have happened is said again.
async fn until_acknowledged(bus: &RedisBus, key: &ConversationKey, batch: Batch) -> hearsay_bus::Published {
    for _ in 0..50 {
        match bus.publish(key, batch.clone()).await {
            Ok(published) => return published,
            Err(error) => assert!(error.is_transient(), "{error}"),
        }
        sleep(Duration::from_millis(200)).await;
    }
    panic!("it was never acknowledged");
}
