//! `RedisBus` keeps the contract, on real servers.

mod faults;
mod server;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::{BoxFuture, FutureExt as _};
use hearsay_bus::{
    Batch, Bus, Delivery, Error, Limits, Proposal, Refusal,
    conformance::{CASES, Subject},
    redis::{RedisBus, RedisConfig},
};
use hearsay_protocol::{
    AccountId, ConversationId, ConversationKey, Epoch, Event, GatewayId, MeetingId, MeetingKey, PublisherId, Timestamp,
    event::{EndReason, Ended, Ephemeral},
};
use hearsay_runtime::Tasks;
use redis::AsyncCommands as _;
use server::{Cluster, Muffler, Server, ask, connect};

/// A conversation's keys as they were.
type Dump = Vec<(String, Vec<u8>)>;

struct Subjected {
    bus: RedisBus,
    limits: Limits,
    /// One server, or the primaries of a cluster, of which the first that has a key is asked.
    ports: Vec<u16>,
    dumps: Mutex<HashMap<ConversationKey, Dump>>,
}

impl Subjected {
    async fn new(url: &str, ports: &[u16], tasks: &Tasks) -> Self {
        for port in ports {
            ask(*port, "FLUSHALL").await;
        }
        let limits = Limits { subscription_capacity: 16, followed: true, ..Limits::default() };
        let config = RedisConfig::parse(url).expect("a valid URL");
        let bus = RedisBus::connect(config, limits.clone(), tasks).await.expect("it can hold the log");
        Self { bus, limits, ports: ports.to_vec(), dumps: Mutex::default() }
    }

    /// The server that has this key.
    async fn owner(&self, key: &str) -> redis::aio::MultiplexedConnection {
        for port in &self.ports {
            let mut connection = connect(*port).await;
            if redis::cmd("EXISTS").arg(key).query_async::<i64>(&mut connection).await.is_ok() {
                return connection;
            }
        }
        panic!("nobody has {key}");
    }
}

impl Subject for Subjected {
    fn bus(&self) -> Arc<dyn Bus> {
        Arc::new(self.bus.clone())
    }

    fn limits(&self) -> Limits {
        self.limits.clone()
    }

    fn advance(&self, by: Duration) -> BoxFuture<'_, ()> {
        self.bus.advance(by);
        futures::future::ready(()).boxed()
    }

    fn checkpoint<'a>(&'a self, key: &'a ConversationKey) -> BoxFuture<'a, ()> {
        async move {
            let mut connection = self.owner(&self.bus.key_names(key)[0]).await;
            let mut dump = Vec::new();
            for name in self.bus.key_names(key) {
                let raw: Option<Vec<u8>> =
                    redis::cmd("DUMP").arg(&name).query_async(&mut connection).await.expect("dumped");
                dump.extend(raw.map(|raw| (name, raw)));
            }
            self.dumps.lock().expect("no test panicked").insert(key.clone(), dump);
        }
        .boxed()
    }

    fn fail_over<'a>(&'a self, key: &'a ConversationKey) -> BoxFuture<'a, ()> {
        async move {
            let dump = self.dumps.lock().expect("no test panicked").remove(key).expect("a checkpoint was taken");
            let mut connection = self.owner(&self.bus.key_names(key)[0]).await;
            let () = connection.del(self.bus.key_names(key)).await.expect("deleted");
            for (name, raw) in dump {
                let () = redis::cmd("RESTORE")
                    .arg(name)
                    .arg(0)
                    .arg(raw)
                    .query_async(&mut connection)
                    .await
                    .expect("restored");
            }
        }
        .boxed()
    }
}

#[tokio::test]
async fn it_conforms_on_redis() {
    let server = Server::start(&server::redis(), &[]);
    conforms(&server.url(), &[server.port]).await;
}

#[tokio::test]
async fn it_conforms_on_valkey() {
    let server = Server::start(&server::valkey(), &[]);
    conforms(&server.url(), &[server.port]).await;
}

#[tokio::test]
async fn it_conforms_on_a_cluster() {
    let cluster = Cluster::start(&server::valkey()).await;
    let primaries: Vec<u16> = cluster.servers[..3].iter().map(|server| server.port).collect();
    conforms(&cluster.url(), &primaries).await;
}

#[tokio::test]
async fn it_speaks_tls_with_names_and_passwords() {
    let dir = tempfile::tempdir().expect("a directory");
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let (certificate, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).expect("written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    let port = server::free_port();
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    let args = ["--tls-port", &port.to_string(), "--tls-cert-file", &certificate, "--tls-key-file", &key];
    let more = ["--tls-auth-clients", "no", "--tls-ca-cert-file", &certificate];
    let users = ["--user", "hearsay", "on", ">s3:cret", "~*", "&*", "+@all", "--requirepass", "other"];
    let server = Server::start(&server::redis(), &[&args[..], &more, &users].concat());
    let tasks = Tasks::new();
    let config = |user: &str| {
        let url = format!("rediss://{user}@localhost:{port}?ca={certificate}");
        RedisConfig::parse(&url).expect("a valid URL")
    };
    let bus = RedisBus::connect(config("hearsay:s3%3Acret"), Limits::default(), &tasks).await.expect("let in");
    assert!(bus.now().await.expect("it answers").micros() > 0);
    RedisBus::connect(config(":other"), Limits::default(), &tasks)
        .await
        .expect("let in by the default user's password");
    let refused = RedisBus::connect(config("hearsay:wrong"), Limits::default(), &tasks).await;
    let refused = refused.err().expect("a wrong password is refused").to_string();
    assert!(refused.contains("WRONGPASS") || refused.contains("assword"), "{refused}");
    let plain = RedisConfig::parse(&format!("redis://:other@localhost:{port}")).expect("a valid URL");
    assert!(RedisBus::connect(plain, Limits::default(), &tasks).await.is_err(), "a TLS port takes nothing else");
    drop((server, bus));
    tasks.finish(Duration::from_secs(10)).await.expect("nothing is left behind");
}

#[tokio::test]
async fn what_cannot_hold_the_log_is_told_at_once() {
    let tasks = Tasks::new();
    let config = |port| RedisConfig::parse(&format!("redis://127.0.0.1:{port}")).expect("a valid URL");
    let evicts = Server::start(&server::redis(), &["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    let error = RedisBus::connect(config(evicts.port), Limits::default(), &tasks).await.err().expect("refused");
    assert!(error.to_string().contains("set `maxmemory-policy noeviction`"), "{error}");
    let old = server::of_version("6.2.14").await;
    let error = RedisBus::connect(config(old), Limits::default(), &tasks).await.err().expect("refused");
    let said = format!("127.0.0.1:{old} is version 6.2.14; 7.0 or newer is needed");
    assert!(error.to_string().starts_with(&said), "{error}");
    let nobody = server::free_port();
    let error = RedisBus::connect(config(nobody), Limits::default(), &tasks).await.err().expect("refused");
    assert!(error.to_string().contains(&format!("127.0.0.1:{nobody} cannot be reached")), "{error}");
}

#[tokio::test]
async fn a_full_server_refuses_new_conversations_before_words() {
    let server = Server::start(&server::redis(), &["--maxmemory-policy", "noeviction"]);
    let tasks = Tasks::new();
    let config = RedisConfig::parse(&server.url()).expect("a valid URL");
    let bus = RedisBus::connect(config, Limits::default(), &tasks).await.expect("room is left");
    let meeting = |name: &str| MeetingKey { account: AccountId::dev(), meeting: MeetingId::new(name).expect("valid") };
    let proposal = |n| Proposal { conversation: ConversationId::from_random(n), epoch: Epoch(7), title: String::new() };
    let opened = bus.open(&meeting("early"), proposal(1)).await.expect("room is left");
    let info = server::info(server.port, "memory").await;
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).expect("it says");
    let used: u64 = used.trim().parse().expect("a number");
    ask(server.port, &format!("CONFIG SET maxmemory {}", used * 10 / 8)).await;
    // Each time another, as what is open stays open.
    let late = async || {
        let n = rand::random();
        bus.open(&meeting(&format!("late {n}")), proposal(n)).await
    };
    let full = async || matches!(late().await, Err(Error::Refused(Refusal::Full { .. })));
    server::until("nothing new begins", full).await;
    let rest = PublisherId::Rest(uuid::Uuid::nil());
    let claim = bus.claim(&opened.key, &rest).await.expect("what is open goes on");
    assert_eq!(claim.watermark, 0);
    ask(server.port, &format!("CONFIG SET maxmemory {}", used * 10)).await;
    server::until("there is room again", async || late().await.is_ok()).await;
}

#[tokio::test]
async fn a_server_without_room_carries_words_and_no_partials() {
    let server = Server::start(&server::redis(), &["--maxmemory-policy", "noeviction"]);
    let tasks = Tasks::new();
    let config = RedisConfig::parse(&server.url()).expect("a valid URL");
    let bus = RedisBus::connect(config, Limits::default(), &tasks).await.expect("room is left");
    let meeting = MeetingKey { account: AccountId::dev(), meeting: MeetingId::new("full").expect("valid") };
    let proposal = Proposal { conversation: ConversationId::from_random(1), epoch: Epoch(7), title: String::new() };
    let key = bus.open(&meeting, proposal).await.expect("room is left").key;
    let rest = PublisherId::Rest(uuid::Uuid::nil());
    let claim = bus.claim(&key, &rest).await.expect("claimed");
    let mut subscription = bus.subscribe(&key).await.expect("subscribed");
    // Answers what arrives within a moment of an announcement.
    let mut arrives = async || {
        let gateway = GatewayId(uuid::Uuid::nil());
        let told = vec![Ephemeral::Listeners { gateway, count: 1 }];
        bus.announce(&key, &rest, claim.generation, told).await.expect("the generation stands");
        tokio::time::timeout(Duration::from_millis(300), subscription.next()).await.ok().flatten()
    };
    assert!(matches!(arrives().await, Some(Delivery::Ephemeral { .. })));
    let info = server::info(server.port, "memory").await;
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).expect("it says");
    let used: u64 = used.trim().parse().expect("a number");
    ask(server.port, &format!("CONFIG SET maxmemory {}", used * 100 / 95)).await;
    server::until("what is fleeting is left out", async || arrives().await.is_none()).await;
    let batch = Batch {
        publisher: rest.clone(),
        generation: claim.generation,
        from: 0,
        through: 1,
        events: vec![Event::Ended(Ended { at: Timestamp(1), reason: EndReason::Silence })],
        restart: None,
        seen: claim.top,
    };
    bus.publish(&key, batch).await.expect("what is durable is taken");
    assert!(matches!(arrives().await, Some(Delivery::Appended { .. })), "and announced");
    ask(server.port, &format!("CONFIG SET maxmemory {}", used * 10)).await;
    server::until("there is room again", async || matches!(arrives().await, Some(Delivery::Ephemeral { .. }))).await;
}

#[tokio::test]
async fn a_subscription_that_fell_silent_is_noticed_and_a_new_one_alone_proves_nothing() {
    const SOON: Duration = Duration::from_secs(30);
    let server = Server::start(&server::redis(), &[]);
    let way = Muffler::of(&server).await;
    let tasks = Tasks::new();
    let config = RedisConfig::parse(&format!("redis://127.0.0.1:{}", way.port)).expect("a valid URL");
    let bus = RedisBus::connect(config, Limits::default(), &tasks).await.expect("it can hold the log");
    let mut health = bus.health();
    let mut until = async |well: bool| {
        let turned = tokio::time::timeout(SOON, health.wait_for(|now| *now == well)).await;
        assert!(turned.is_ok(), "health does not become {well}");
    };
    let meeting = MeetingKey { account: AccountId::dev(), meeting: MeetingId::new("deaf").expect("valid") };
    let proposal = Proposal { conversation: ConversationId::from_random(1), epoch: Epoch(7), title: String::new() };
    let key = bus.open(&meeting, proposal).await.expect("opened").key;
    let mut subscription = bus.subscribe(&key).await.expect("subscribed");
    until(true).await;
    assert!(bus.hears(&key));
    way.muffle(true);
    until(false).await;
    assert!(!bus.hears(&key), "calls are answered, and announcements do not come");
    bus.now().await.expect("calls are answered");
    // By a connection that is as silent.
    let told = tokio::time::timeout(SOON, subscription.next()).await.expect("connected anew");
    assert_eq!(told, Some(Delivery::Missed));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!bus.hears(&key) && !*bus.health().borrow(), "nothing has come by the new one either");
    way.muffle(false);
    until(true).await;
    assert!(bus.hears(&key));
}

#[tokio::test]
async fn a_broken_subscription_says_so_unasked() {
    let server = Server::start(&server::redis(), &[]);
    let tasks = Tasks::new();
    let config = RedisConfig::parse(&server.url()).expect("a valid URL");
    let bus = RedisBus::connect(config, Limits::default(), &tasks).await.expect("it can hold the log");
    let meeting = MeetingKey { account: AccountId::dev(), meeting: MeetingId::new("quiet").expect("valid") };
    let proposal = |n| Proposal { conversation: ConversationId::from_random(n), epoch: Epoch(7), title: String::new() };
    let mut watch = bus.watch(&meeting).await.expect("watching");
    let key = bus.open(&meeting, proposal(1)).await.expect("opened").key;
    assert_eq!(watch.next().await, Some(key.clone()));
    let mut subscription = bus.subscribe(&key).await.expect("subscribed");
    // Nothing is said: neither a hole nor a later announcement shows that something may be missing.
    ask(server.port, "CLIENT KILL TYPE pubsub").await;
    let told = tokio::time::timeout(Duration::from_secs(20), subscription.next()).await;
    assert_eq!(told.expect("told"), Some(Delivery::Missed));
    // Who waits for a meeting hears of it by the new connection, too.
    bus.delete(&key).await.expect("deleted");
    let next = bus.open(&meeting, proposal(2)).await.expect("opened").key;
    assert_eq!(tokio::time::timeout(Duration::from_secs(20), watch.next()).await.expect("told"), Some(next));
}

async fn conforms(url: &str, ports: &[u16]) {
    let mut failed = Vec::new();
    for (name, case) in CASES {
        let tasks = Tasks::new();
        let subject = Subjected::new(url, ports, &tasks).await;
        let outcome = std::panic::AssertUnwindSafe(case(&subject)).catch_unwind().await;
        println!("{name}: {}", if outcome.is_ok() { "ok" } else { "FAILED" });
        if outcome.is_err() {
            failed.push(*name);
        }
        drop(subject);
        tasks.finish(Duration::from_secs(5)).await.expect("nothing is left behind");
    }
    assert!(failed.is_empty(), "{} of {} cases failed: {failed:?}", failed.len(), CASES.len());
}
