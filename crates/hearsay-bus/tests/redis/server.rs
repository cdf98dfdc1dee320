//! Real servers, started on free ports and stopped with the test.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::join_all;
use redis::aio::MultiplexedConnection;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// A server of its own.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    program: PathBuf,
    args: Vec<String>,
    dir: TempDir,
}

/// Redis: what the test command names, or this machine's.
pub(crate) fn redis() -> PathBuf {
    named("HEARSAY_TEST_REDIS", "redis-server")
}

/// Valkey: what the test command names, or this machine's.
pub(crate) fn valkey() -> PathBuf {
    named("HEARSAY_TEST_VALKEY", "valkey-server")
}

fn named(variable: &str, default: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(|| PathBuf::from(default), PathBuf::from)
}

pub(crate) fn free_port() -> u16 {
    // Below the ports that outgoing connections take, and with room for the cluster bus port above it.
    loop {
        let port = rand::random_range(10_000..22_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
            return port;
        }
    }
}

impl Server {
    pub(crate) fn start(program: &Path, args: &[&str]) -> Self {
        Self::start_in(program, args, tempfile::tempdir().expect("a directory for the server"))
    }

    /// A configuration file comes before everything else, and is written to.
    fn start_with_config(program: &Path, config: &Path, args: &[&str], dir: TempDir) -> Self {
        let config = config.display().to_string();
        Self::start_in(program, &[&[config.as_str()], args].concat(), dir)
    }

    fn start_in(program: &Path, args: &[&str], dir: TempDir) -> Self {
        let port = free_port();
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        let child = Self::launch(program, port, &args, dir.path());
        let server = Self { child, port, program: program.to_owned(), args, dir };
        server.wait();
        server
    }

    /// With what a server that is to survive its own end needs.
    pub(crate) fn start_durable(program: &Path) -> Self {
        Self::start(program, &["--appendonly", "yes", "--appendfsync", "always"])
    }

    fn launch(program: &Path, port: u16, args: &[String], dir: &Path) -> Child {
        let (config, args) = match args {
            [config, rest @ ..] if !config.starts_with("--") => (Some(config), rest),
            args => (None, args),
        };
        Command::new(program)
            .args(config)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--dir", &dir.display().to_string()])
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!(
                    "{} does not start ({error}): `cargo xtask test` brings it; or install it and name it by \
                     HEARSAY_TEST_REDIS or HEARSAY_TEST_VALKEY",
                    program.display()
                )
            })
    }

    fn wait(&self) {
        let until = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < until, "the server on port {} did not begin to listen", self.port);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Kills it without notice; everything it held is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ran");
    }

    pub(crate) fn restart(&mut self) {
        self.kill();
        self.child = Self::launch(&self.program, self.port, &self.args, self.dir.path());
        self.wait();
    }

    pub(crate) fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(status.expect("kill runs").success(), "the server took {signal}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have been stopped by the test.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) async fn connect(port: u16) -> MultiplexedConnection {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).expect("a valid URL");
    client.get_multiplexed_async_connection().await.expect("the server answers")
}

/// One command, by its words.
pub(crate) async fn ask(port: u16, words: &str) -> redis::Value {
    let mut connection = connect(port).await;
    let mut command = redis::Cmd::new();
    for word in words.split(' ') {
        command.arg(word);
    }
    command.query_async(&mut connection).await.unwrap_or_else(|error| panic!("{words}: {error}"))
}

/// Until the condition holds; said when it does not within 30 s.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(Instant::now() < give_up, "{what}: not within 30 s");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) async fn info(port: u16, section: &str) -> String {
    let mut connection = connect(port).await;
    redis::cmd("INFO").arg(section).query_async(&mut connection).await.expect("it says")
}

/// A primary, its replica and a Sentinel that watches them.
pub(crate) struct Sentinel {
    pub(crate) servers: Vec<Server>,
    watcher: Server,
}

impl Sentinel {
    pub(crate) async fn start(program: &Path) -> Self {
        // Diskless replication waits five seconds for more replicas to come.
        let quick = ["--repl-diskless-sync-delay", "0"];
        let primary = Server::start(program, &quick);
        let port = primary.port.to_string();
        let of = format!("127.0.0.1 {port}");
        let replica = Server::start(program, &[&quick[..], &["--replicaof", &of]].concat());
        until("the replica follows", async || {
            info(replica.port, "replication").await.contains("master_link_status:up")
        })
        .await;
        let dir = tempfile::tempdir().expect("a directory");
        let config = dir.path().join("sentinel.conf");
        let text = format!(
            "sentinel monitor main 127.0.0.1 {port} 1\nsentinel down-after-milliseconds main 1000\n\
             sentinel failover-timeout main 3000\n"
        );
        std::fs::write(&config, text).expect("written");
        let watcher = Server::start_with_config(program, &config, &["--sentinel"], dir);
        until("the sentinel knows the replica", async || info(watcher.port, "sentinel").await.contains("slaves=1"))
            .await;
        Self { servers: vec![primary, replica], watcher }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis+sentinel://127.0.0.1:{}/main", self.watcher.port)
    }

    /// Promotes the replica in good order.
    pub(crate) async fn fail_over(&self) {
        ask(self.watcher.port, "SENTINEL FAILOVER main").await;
    }
}

/// Three primaries with a replica each.
pub(crate) struct Cluster {
    pub(crate) servers: Vec<Server>,
}

const SLOTS: u16 = 16_384;

impl Cluster {
    pub(crate) async fn start(program: &Path) -> Self {
        let args = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1500", "--repl-diskless-sync-delay", "0"];
        let servers: Vec<Server> = (0..6).map(|_| Server::start(program, &args)).collect();
        let ids = join_all(servers.iter().map(|server| async {
            let id = ask(server.port, "CLUSTER MYID").await;
            redis::from_redis_value::<String>(id).expect("an id")
        }))
        .await;
        for (index, server) in servers.iter().enumerate().take(3) {
            let (first, last) =
                (SLOTS / 3 * index as u16, if index == 2 { SLOTS } else { SLOTS / 3 * (index as u16 + 1) });
            ask(server.port, &format!("CLUSTER ADDSLOTSRANGE {first} {}", last - 1)).await;
        }
        for server in &servers[1..] {
            ask(servers[0].port, &format!("CLUSTER MEET 127.0.0.1 {}", server.port)).await;
        }
        for (index, server) in servers.iter().enumerate().skip(3) {
            until("everybody knows everybody", async || {
                let nodes: String = redis::from_redis_value(ask(server.port, "CLUSTER NODES").await).expect("text");
                nodes.lines().count() == 6 && !nodes.contains("handshake")
            })
            .await;
            ask(server.port, &format!("CLUSTER REPLICATE {}", ids[index - 3])).await;
        }
        for server in &servers[3..] {
            until("replicas follow", async || info(server.port, "replication").await.contains("master_link_status:up"))
                .await;
        }
        for server in &servers {
            until("the cluster stands", async || {
                let info: String = redis::from_redis_value(ask(server.port, "CLUSTER INFO").await).expect("text");
                info.contains("cluster_state:ok")
            })
            .await;
        }
        Self { servers }
    }

    pub(crate) fn url(&self) -> String {
        let hosts: Vec<_> = self.servers[..3].iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    /// Which of the first three has this key's slot.
    pub(crate) async fn owner(&self, key: &str) -> (u16, usize) {
        let slot = redis::from_redis_value(ask(self.servers[0].port, &format!("CLUSTER KEYSLOT {key}")).await);
        let slot: u16 = slot.expect("a number");
        (slot, usize::from(slot / (SLOTS / 3)).min(2))
    }

    /// Moves a slot with all its keys to another primary, as a rebalancing operator does.
    pub(crate) async fn migrate(&self, slot: u16, from: usize, to: usize) {
        let id = |index: usize| async move {
            let id = ask(self.servers[index].port, "CLUSTER MYID").await;
            redis::from_redis_value::<String>(id).expect("an id")
        };
        let (from_id, to_id) = (id(from).await, id(to).await);
        let (from, to) = (self.servers[from].port, self.servers[to].port);
        ask(to, &format!("CLUSTER SETSLOT {slot} IMPORTING {from_id}")).await;
        ask(from, &format!("CLUSTER SETSLOT {slot} MIGRATING {to_id}")).await;
        loop {
            let keys = ask(from, &format!("CLUSTER GETKEYSINSLOT {slot} 1")).await;
            let keys: Vec<String> = redis::from_redis_value(keys).expect("names");
            let Some(key) = keys.first() else { break };
            ask(from, &format!("MIGRATE 127.0.0.1 {to} {key} 0 5000")).await;
        }
        ask(to, &format!("CLUSTER SETSLOT {slot} NODE {to_id}")).await;
        ask(from, &format!("CLUSTER SETSLOT {slot} NODE {to_id}")).await;
    }
}

/// A way to a server on which announcements can be swallowed: connections stay open and calls are answered.
pub(crate) struct Muffler {
    pub(crate) port: u16,
    on: Arc<AtomicBool>,
    carrying: tokio::task::JoinHandle<()>,
}

impl Muffler {
    #[expect(clippy::disallowed_methods, reason = "ends with the way")]
    pub(crate) async fn of(server: &Server) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let (port, to) = (listener.local_addr().expect("bound").port(), server.port);
        let on = Arc::<AtomicBool>::default();
        let muffled = Arc::clone(&on);
        let carrying = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let muffled = Arc::clone(&muffled);
                connections.spawn(async move {
                    let Ok(far) = tokio::net::TcpStream::connect(("127.0.0.1", to)).await else { return };
                    let (mut near_in, mut near_out) = near.into_split();
                    let (mut far_in, mut far_out) = far.into_split();
                    let there = tokio::io::copy(&mut near_in, &mut far_out);
                    let back = async {
                        let mut buffer = vec![0; 64 * 1024];
                        while let Ok(count @ 1..) = far_in.read(&mut buffer).await {
                            // A message of a channel comes in one piece, apart from answers.
                            let message = buffer[..count].windows(8).any(|word| word == b"smessage");
                            if !(message && muffled.load(Ordering::Relaxed))
                                && near_out.write_all(&buffer[..count]).await.is_err()
                            {
                                return;
                            }
                        }
                    };
                    tokio::select! { _ = there => {} () = back => {} }
                });
            }
        });
        Self { port, on, carrying }
    }

    pub(crate) fn muffle(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
    }
}

impl Drop for Muffler {
    fn drop(&mut self) {
        self.carrying.abort();
    }
}

/// Answers as a primary of this version would, as far as a client that connects asks.
#[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
pub(crate) async fn of_version(version: &'static str) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut heard, mut buffer) = (Vec::new(), vec![0; 4_096]);
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    heard.extend_from_slice(&buffer[..count]);
                    let mut answers = Vec::new();
                    while let Some((command, length)) = command(&heard) {
                        heard.drain(..length);
                        let info = format!("redis_version:{version}\r\nrole:master\r\nrun_id:0\r\n");
                        answers.extend(match command.as_str() {
                            "HELLO" => b"%1\r\n$5\r\nproto\r\n:3\r\n".to_vec(),
                            "INFO" => format!("${}\r\n{info}\r\n", info.len()).into_bytes(),
                            _ => b"+OK\r\n".to_vec(),
                        });
                    }
                    if stream.write_all(&answers).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

/// The name of the first command in what was heard, and its length; none before all of it is there.
fn command(heard: &[u8]) -> Option<(String, usize)> {
    let text = std::str::from_utf8(heard).ok()?;
    let mut lines = text.split_inclusive("\r\n");
    let head = lines.next().filter(|line| line.ends_with("\r\n"))?;
    let count: usize = head.trim_end().strip_prefix('*')?.parse().ok()?;
    let (mut length, mut name) = (head.len(), String::new());
    for index in 0..count {
        let (size, value) = (lines.next()?, lines.next().filter(|line| line.ends_with("\r\n"))?);
        length += size.len() + value.len();
        if index == 0 {
            name = value.trim_end().to_uppercase();
        }
    }
    Some((name, length))
}
