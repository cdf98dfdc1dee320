//! What the log costs on Redis, against what Redis itself costs in the same run.
//!
//! `cargo bench -p hearsay-tests --bench log -- publish` appends to many conversations at once, in batches of 1, 4 and 16
//! events, and publishes the same bytes with bare pipelined PUBLISH: seven interleaved runs, medians. `-- memory` keeps an
//! hour of one speaker and shows what it takes, live and finished. `-- delivery` measures the whole way from a publisher's
//! call to a subscriber's socket, across two gateways, against bare PUBLISH, SUBSCRIBE and one WebSocket write; `-- outage`
//! kills every subscription of 1,000 meetings. Each starts a `redis-server` of its own, the last two also gateways and load.

#![expect(clippy::disallowed_methods, reason = "tasks end with the measurement")]

use std::{
    process::{Child, Command, Stdio},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use hearsay_bus::{
    Batch, Bus, Limits, Proposal,
    redis::{RedisBus, RedisConfig},
};
use hearsay_protocol::{
    AccountId, ConversationId, ConversationKey, Epoch, Event, MeetingId, MeetingKey, ParticipantId, PublisherId,
    StreamId, StreamTime, Timestamp, UtteranceId,
    event::{Final, Participant, SpokenWord},
};
use hearsay_runtime::Tasks;
use redis::aio::MultiplexedConnection;
use serde_json::Value;
use uuid::Uuid;

#[path = "log/bare.rs"]
mod bare;

const RUNS: usize = 7;
const RUN: Duration = Duration::from_millis(1_500);
/// Conversations with one publisher each, whose calls are under way at once.
const PUBLISHERS: usize = 16;
const PIPELINED: usize = 16;
const BATCHES: [(usize, f64); 3] = [(1, 0.15), (4, 0.4), (16, 0.5)];

struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start() -> Self {
        let port =
            std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let program = std::env::var_os("HEARSAY_TEST_REDIS").unwrap_or_else(|| "redis-server".into());
        let child = Command::new(program)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed (apt-get install redis-server)");
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, port }
    }

    async fn connection(&self) -> MultiplexedConnection {
        let url = format!("redis://127.0.0.1:{}/?protocol=resp3", self.port);
        let client = redis::Client::open(url).expect("a valid URL");
        client.get_multiplexed_async_connection().await.expect("it answers")
    }

    /// Connected as a subscriber that counts messages.
    async fn subscriber(&self, channels: &[String]) -> (MultiplexedConnection, Arc<AtomicU64>) {
        let url = format!("redis://127.0.0.1:{}/?protocol=resp3", self.port);
        let client = redis::Client::open(url).expect("a valid URL");
        let heard = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&heard);
        let config = redis::AsyncConnectionConfig::new().set_push_sender(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            Ok::<(), ()>(())
        });
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await.expect("it answers");
        for channel in channels {
            // Sharded and plain are two spaces of names.
            for command in ["SSUBSCRIBE", "SUBSCRIBE"] {
                redis::cmd(command)
                    .arg(channel)
                    .query_async::<redis::Value>(&mut connection)
                    .await
                    .expect("subscribed");
            }
        }
        (connection, heard)
    }

    /// Processor seconds the server has used.
    fn processor(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it runs");
        let fields: Vec<&str> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
        (fields[11].parse::<f64>().expect("ticks") + fields[12].parse::<f64>().expect("ticks")) / 100.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A final of as many words, as the recognizer gives it: what the speech set's voices say, then this project's own pages, so
/// that nothing is said twice in an hour.
fn spoken(stream: StreamId, n: u64, words: usize) -> Event {
    static SAID: LazyLock<Vec<&str>> = LazyLock::new(|| {
        let texts = [
            include_str!("../../xtask/src/speech_set/texts/talk.txt"),
            include_str!("../../xtask/src/speech_set/texts/read.txt"),
            include_str!("../../xtask/src/speech_set/texts/meeting.txt"),
            include_str!("../../ARCHITECTURE.md"),
            include_str!("../../README.md"),
        ];
        texts.iter().flat_map(|text| text.split_whitespace()).collect()
    });
    let mut at = n;
    let from = usize::try_from(n / 4_000_000).expect("small") * words;
    let words: Vec<SpokenWord> = (0..words)
        .map(|index| {
            let start = StreamTime(at + rand::random_range(0..5) * 20_000);
            let end = StreamTime(start.0 + rand::random_range(5..25) * 20_000);
            at = end.0;
            let text = SAID[(from + index) % SAID.len()].to_owned();
            SpokenWord { text, start, end, confidence: 1.0 - rand::random::<f32>().powi(3) / 2.0 }
        })
        .collect();
    Event::Final(Arc::new(Final {
        sentiment: Vec::new(),
        trace: None,
        stream,
        utterance: UtteranceId::after_cut(stream, StreamTime(n)),
        participant: Arc::new(Participant {
            id: ParticipantId(Uuid::from_u128(1)),
            user_id: Some("ada@example.com".to_owned()),
            name: Some("Ada Lovelace".to_owned()),
            email: None,
        }),
        origin: Timestamp(1_900_000_000_000_000),
        start: StreamTime(n),
        end: StreamTime(at),
        text: words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" "),
        language: "en-US".to_owned(),
        confidence: 0.9,
        words,
    }))
}

async fn open(bus: &RedisBus, name: &str) -> ConversationKey {
    let meeting = MeetingKey { account: AccountId::dev(), meeting: MeetingId::new(name).expect("valid") };
    let proposal = Proposal {
        conversation: ConversationId::from_random(rand::random()),
        epoch: Epoch(rand::random()),
        title: name.to_owned(),
    };
    bus.open(&meeting, proposal).await.expect("opened").key
}

/// Events appended a second, and the server's processor time for each, µs.
async fn appended(server: &Server, bus: &RedisBus, keys: &[ConversationKey], batch: usize) -> (f64, f64) {
    let until = Instant::now() + RUN;
    let before = server.processor();
    let begun = Instant::now();
    let work = keys.iter().map(|key| {
        let (bus, key) = (bus.clone(), key.clone());
        tokio::spawn(async move {
            let stream = StreamId(Uuid::new_v4());
            let publisher = PublisherId::Stream(stream);
            let claim = bus.claim(&key, &publisher).await.expect("claimed");
            let (mut at, mut seen) = (claim.watermark, claim.top);
            // What it costs to think of something to say is not the log's.
            let said: Vec<Event> = (0..batch).map(|index| spoken(stream, index as u64 * 4_000_000, 10)).collect();
            while Instant::now() < until {
                let events = said.clone();
                let batch = Batch {
                    publisher: publisher.clone(),
                    generation: claim.generation,
                    from: at,
                    through: at + batch as u64,
                    events,
                    restart: None,
                    seen,
                };
                let published = bus.publish(&key, batch).await.expect("appended");
                (at, seen) = (published.watermark, published.top);
            }
            at - claim.watermark
        })
    });
    let mut events = 0;
    for done in work.collect::<Vec<_>>() {
        events += done.await.expect("without panic");
    }
    let seconds = begun.elapsed().as_secs_f64();
    (events as f64 / seconds, (server.processor() - before) * 1e6 / events as f64)
}

async fn published(server: &Server, channels: &[String], payload: &[u8]) -> (f64, f64) {
    let connection = server.connection().await;
    let until = Instant::now() + RUN;
    let before = server.processor();
    let begun = Instant::now();
    let work = (0..1).map(|n| {
        let (mut connection, channel, payload) = (connection.clone(), channels[n].clone(), payload.to_vec());
        tokio::spawn(async move {
            let mut count = 0_u64;
            while Instant::now() < until {
                let mut pipe = redis::pipe();
                for _ in 0..PIPELINED {
                    pipe.cmd("PUBLISH").arg(&channel).arg(&payload);
                }
                pipe.query_async::<Vec<i64>>(&mut connection).await.expect("published");
                count += PIPELINED as u64;
            }
            count
        })
    });
    let mut count = 0;
    for done in work.collect::<Vec<_>>() {
        count += done.await.expect("without panic");
    }
    let seconds = begun.elapsed().as_secs_f64();
    (count as f64 / seconds, (server.processor() - before) * 1e6 / count as f64)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn publish() {
    let server = Server::start();
    let tasks = Tasks::new();
    let config = RedisConfig::parse(&format!("redis://127.0.0.1:{}", server.port)).expect("a valid URL");
    let limits = Limits { max_entries: 10_000_000, ..Limits::default() };
    let bus = RedisBus::connect(config, limits, &tasks).await.expect("it can hold the log");
    let mut connection = server.connection().await;
    let mut bare = (Vec::new(), Vec::new());
    let mut rates: Vec<(Vec<f64>, Vec<f64>, Vec<f64>)> = BATCHES.iter().map(|_| Default::default()).collect();
    let payload = vec![b'x'; 500];
    for run in 0..RUNS {
        let names: Vec<String> = (0..4).map(|n| format!("bare:{n}")).collect();
        let subscriber = server.subscriber(&names).await;
        let (rate, cost) = published(&server, &names, &payload).await;
        bare.0.push(rate);
        bare.1.push(cost);
        drop(subscriber);
        for ((batch, _), rates) in BATCHES.iter().zip(&mut rates) {
            let mut keys = Vec::new();
            for n in 0..PUBLISHERS {
                keys.push(open(&bus, &format!("{run} {batch} {n}")).await);
            }
            let channels: Vec<String> =
                keys.iter().map(|key| bus.key_names(key)[0].replace(":head", ":events")).collect();
            let (subscriber, heard) = server.subscriber(&channels).await;
            let (each, cost) = appended(&server, &bus, &keys, *batch).await;
            assert!(heard.load(Ordering::Relaxed) > 0, "it was announced");
            drop(subscriber);
            rates.0.push(each);
            rates.1.push(each / rate);
            rates.2.push(cost);
            for key in &keys {
                bus.delete(key).await.expect("deleted");
            }
        }
        redis::cmd("MEMORY").arg("PURGE").query_async::<redis::Value>(&mut connection).await.expect("purged");
    }
    println!("{:<24} {:>12} {:>10} {:>10} {:>16}", "", "events/s", "of PUBLISH", "to reach", "µs of Redis each");
    let rate = median(&mut bare.0);
    println!("{:<24} {rate:>12.0} {:>10} {:>10} {:>16.1}", "bare PUBLISH, pipelined", "1.00", "", median(&mut bare.1));
    let mut missed = false;
    for ((batch, reach), (rate, ratio, cost)) in BATCHES.iter().zip(&mut rates) {
        let ratio = median(ratio);
        missed |= ratio < *reach;
        let name = format!("appended, batch {batch}");
        println!("{name:<24} {:>12.0} {ratio:>10.2} {reach:>10.2} {:>16.1}", median(rate), median(cost));
    }
    assert!(!missed, "a figure was not reached");
}

/// What all keys take, as the server counts it.
async fn used(connection: &mut MultiplexedConnection) -> u64 {
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(connection).await.expect("names");
    let mut used = 0;
    for key in keys {
        let usage = redis::cmd("MEMORY").arg("USAGE").arg(key).arg("SAMPLES").arg(0).to_owned();
        used += usage.query_async::<u64>(connection).await.expect("a size");
    }
    used
}

/// An hour of one speaker who speaks all the time: a final of eight words every four seconds.
async fn memory() {
    const SPEAKERS: usize = 20;
    const FINALS: u64 = 900;
    let server = Server::start();
    let tasks = Tasks::new();
    let config = RedisConfig::parse(&format!("redis://127.0.0.1:{}", server.port)).expect("a valid URL");
    let bus = RedisBus::connect(config, Limits::default(), &tasks).await.expect("it can hold the log");
    let mut connection = server.connection().await;
    let mut keys = Vec::new();
    for n in 0..SPEAKERS {
        let key = open(&bus, &format!("hour {n}")).await;
        let stream = StreamId(Uuid::new_v4());
        let publisher = PublisherId::Stream(stream);
        let claim = bus.claim(&key, &publisher).await.expect("claimed");
        let mut seen = claim.top;
        for n in 0..FINALS {
            let batch = Batch {
                publisher: publisher.clone(),
                generation: claim.generation,
                from: n * 4_000_000,
                through: (n + 1) * 4_000_000,
                events: vec![spoken(stream, n * 4_000_000, 10)],
                restart: None,
                seen,
            };
            seen = bus.publish(&key, batch).await.expect("appended").top;
        }
        keys.push((key, seen));
    }
    let live = used(&mut connection).await as f64 / SPEAKERS as f64 / 1_024.0;
    for (key, _) in &keys {
        // Nobody streams: it is abandoned after its grace, and due for its record a minute later.
        bus.advance(Duration::from_secs(16));
        bus.tick(key).await.expect("ticked");
    }
    bus.advance(Duration::from_secs(61));
    for (key, _) in &keys {
        assert!(bus.tick(key).await.expect("ticked").compact, "it is due");
        let entries = all(&bus, key).await;
        let mut conversation = hearsay_conversation::Conversation::default();
        entries.iter().for_each(|entry| conversation.apply(entry));
        let record = hearsay_conversation::Record::of(&conversation).to_bytes();
        let top = entries.last().expect("there are some").offset;
        bus.compact(key, top, Bytes::from(record)).await.expect("compacted");
    }
    let finished = used(&mut connection).await as f64 / SPEAKERS as f64 / 1_024.0;
    println!("{:<46} {:>8} {:>10}", "Redis memory for an hour of speech, 9,000 words", "KiB", "at most");
    println!("{:<46} {live:>8.0} {:>10}", "live", 400);
    println!("{:<46} {finished:>8.0} {:>10}", "finished, as a record", 80);
    assert!(live <= 400.0 && finished <= 80.0, "a figure was not reached");
}

async fn all(bus: &RedisBus, key: &ConversationKey) -> Vec<hearsay_bus::Entry> {
    let mut entries: Vec<hearsay_bus::Entry> = Vec::new();
    let mut after = hearsay_bus::Seen::NOTHING;
    while let hearsay_bus::Read::Page(page) = bus.read(key, after, 500).await.expect("readable") {
        let Some(last) = page.entries.last() else { break };
        after = hearsay_bus::Seen { epoch: Some(page.epoch), offset: last.offset, check: Some(last.check) };
        entries.extend(page.entries);
    }
    entries
}

/// A report that `--json` printed.
async fn report(child: tokio::process::Child) -> Value {
    let output = child.wait_with_output().await.expect("it ends");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    serde_json::from_str(text.trim()).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn number(report: &Value, key: &str) -> f64 {
    report[key].as_f64().unwrap_or_else(|| panic!("no {key} in {report}"))
}

async fn delivery() {
    const DURATION: Duration = Duration::from_secs(5);
    let cluster = hearsay_tests::Cluster::start(2).await.expect("a cluster");
    let mut columns: [Vec<f64>; 6] = Default::default();
    let [whole, alike, alone, ratios, old_ratios, costs] = &mut columns;
    let mut bytes = 0.0;
    for run in 0..RUNS {
        let prefix = format!("delivery-{run}");
        let meetings = bare::CHANNELS.to_string();
        let subscribers = (bare::CHANNELS * cluster.gateways.len()).to_string();
        let arguments = ["load", "listen", "--meetings", &meetings, "--subscribers", &subscribers, "--duration", "9s"];
        let mut listening = cluster.hearsay(&arguments).expect("built");
        listening.args(["--json", "--prefix", &prefix, "--token", &cluster.gateways[0].token]);
        for gateway in &cluster.gateways {
            listening.args(["--url", &gateway.url]);
        }
        let before = used_by(&cluster).await;
        let listening = listening.spawn().expect("started");
        let rate = bare::RATE.to_string();
        let arguments = ["load", "events", "--meetings", &meetings, "--rate", &rate, "--duration", "5s"];
        let mut speaking = cluster.hearsay(&arguments).expect("built");
        speaking.args(["--wait", "2s", "--partials", "0", "--insights", "0", "--json", "--prefix", &prefix]);
        let sent = report(speaking.spawn().expect("started")).await;
        let heard = report(listening).await;
        let used = used_by(&cluster).await;
        assert_eq!(number(&heard, "lost"), 0.0, "{heard}");
        let delivered = number(&heard, "delivered");
        assert!(delivered >= 2.0 * number(&sent, "sent"), "{heard} of {sent}");
        bytes = (used.bytes - before.bytes) / delivered;
        let p99 = number(&heard, "p99_ms");
        let like = bare::alike(cluster.redis_port(), bytes as usize, cluster.gateways.len(), DURATION).await;
        let old = bare::alone(cluster.redis_port(), DURATION).await;
        let cost = (used.gateways - before.gateways) * 1e6 / delivered;
        println!(
            "run {run}: {p99:.2} ms across two gateways ({:.2} at half, {cost:.0} µs of a gateway each), bare in the same \
             shape {:.2} ms ({:.2}, {:.0} µs), bare in one process {:.2} ms ({:.2})",
            number(&heard, "p50_ms"),
            like.p99,
            like.half,
            like.cost,
            old.p99,
            old.half,
        );
        whole.push(p99);
        alike.push(like.p99);
        alone.push(old.p99);
        ratios.push(p99 / like.p99);
        old_ratios.push(p99 / old.p99);
        costs.push(cost);
    }
    let ratio = median(ratios);
    println!(
        "p99, medians of {RUNS} runs: {:.2} ms; bare in the same shape, {bytes:.0} bytes an event, {:.2} ms, ratio \
         {ratio:.2} (at most 2); bare in one process {:.2} ms, ratio {:.2}; {:.0} µs of a gateway each",
        median(whole),
        median(alike),
        median(alone),
        median(old_ratios),
        median(costs),
    );
    assert!(ratio <= 2.0, "a figure was not reached");
}

/// Processor seconds of all gateways, and the bytes they have written to listeners.
struct Used {
    gateways: f64,
    bytes: f64,
}

async fn used_by(cluster: &hearsay_tests::Cluster) -> Used {
    let mut used = Used { gateways: 0.0, bytes: 0.0 };
    for gateway in &cluster.gateways {
        used.gateways += gateway.cpu_seconds().expect("it runs");
        used.bytes += gateway.metric("hearsay_fanout_delivered_bytes_total").await.expect("a number");
    }
    used
}

/// Meetings, and listeners of each, when every subscription is killed.
const MEETINGS: &str = "1000";
const LISTENERS: &str = "10000";

async fn outage() {
    let cluster = hearsay_tests::Cluster::start(2).await.expect("a cluster");
    let mut listening = Vec::new();
    let half = (LISTENERS.parse::<usize>().expect("a number") / 2).to_string();
    for gateway in &cluster.gateways {
        let arguments =
            ["load", "listen", "--meetings", MEETINGS, "--subscribers", &half, "--duration", "75s", "--json"];
        let mut command = cluster.hearsay(&arguments).expect("built");
        command.args(["--connect-rate", "500", "--url", &gateway.url, "--token", &gateway.token]);
        listening.push(command.spawn().expect("started"));
    }
    let arguments =
        ["load", "events", "--meetings", MEETINGS, "--rate", MEETINGS, "--duration", "30s", "--wait", "30s", "--json"];
    let mut speaking = cluster.hearsay(&arguments).expect("built");
    let speaking = speaking.args(["--partials", "0", "--insights", "0"]).spawn().expect("started");
    tokio::time::sleep(Duration::from_secs(45)).await;
    let mut before = Vec::new();
    for gateway in &cluster.gateways {
        before.push(gateway.metric("hearsay_fanout_gap_repairs_total").await.expect("a number"));
    }
    let url = format!("redis://127.0.0.1:{}", cluster.redis_port());
    let mut connection =
        redis::Client::open(url).expect("a valid URL").get_multiplexed_async_connection().await.expect("it answers");
    let killed: i64 =
        redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub").query_async(&mut connection).await.expect("killed");
    println!("{killed} subscriptions killed under 1,000 events a second");
    let sent = report(speaking).await;
    let repaired =
        async |n: usize| cluster.gateways[n].metric("hearsay_fanout_gap_repairs_total").await.expect("a number");
    let repairs = [repaired(0).await - before[0], repaired(1).await - before[1]];
    for (n, listening) in listening.into_iter().enumerate() {
        let heard = report(listening).await;
        println!("gateway {n}: {} range reads for {MEETINGS} meetings; {heard}", repairs[n]);
        assert_eq!((number(&heard, "lost"), number(&heard, "disconnected")), (0.0, 0.0));
        assert!(number(&heard, "delivered") >= number(&sent, "sent") * 5.0, "{sent}");
        assert!(number(&heard, "max_ms") <= 1_000.0, "the latest came too late");
        assert!(repairs[n] <= 1_000.0, "more than one read a conversation");
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if bare::is_role(&arguments) {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(measure(arguments.first().map(String::as_str)));
}

async fn measure(what: Option<&str>) {
    match what {
        Some("publish") => publish().await,
        Some("memory") => memory().await,
        Some("delivery") => delivery().await,
        Some("outage") => outage().await,
        // As `cargo test --all-targets` calls it.
        _ => println!("nothing measured: say `publish`, `memory`, `delivery` or `outage`"),
    }
}
