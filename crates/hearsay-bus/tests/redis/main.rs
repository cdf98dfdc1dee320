//! `RedisBus` keeps the contract, on real servers.

mod server;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::{BoxFuture, FutureExt as _};
use hearsay_bus::{
    Bus, Limits,
    conformance::{CASES, Subject},
    redis::{RedisBus, RedisConfig},
};
use hearsay_protocol::ConversationKey;
use hearsay_runtime::Tasks;
use redis::AsyncCommands as _;
use server::Server;

/// A conversation's keys as they were.
type Dump = Vec<(String, Vec<u8>)>;

struct Subjected {
    bus: RedisBus,
    limits: Limits,
    connection: redis::aio::MultiplexedConnection,
    dumps: Mutex<HashMap<ConversationKey, Dump>>,
}

impl Subjected {
    async fn new(server: &Server, tasks: &Tasks) -> Self {
        let mut connection = server.client().get_multiplexed_async_connection().await.expect("the server answers");
        let () = redis::cmd("FLUSHALL").query_async(&mut connection).await.expect("it is emptied");
        let limits = Limits { subscription_capacity: 16, ..Limits::default() };
        let config = RedisConfig::parse(&server.url()).expect("a valid URL");
        let bus = RedisBus::connect(config, limits.clone(), tasks).await.expect("it can hold the log");
        Self { bus, limits, connection, dumps: Mutex::default() }
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
            let mut connection = self.connection.clone();
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
            let mut connection = self.connection.clone();
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
    conforms(&Server::start(&server::redis(), &[])).await;
}

#[tokio::test]
async fn it_conforms_on_valkey() {
    conforms(&Server::start(&server::valkey(), &[])).await;
}

async fn conforms(server: &Server) {
    let mut failed = Vec::new();
    for (name, case) in CASES {
        let tasks = Tasks::new();
        let subject = Subjected::new(server, &tasks).await;
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
