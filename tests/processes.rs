//! A cluster of processes that can be killed, frozen, drained, cut off and started again.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy_bidirectional},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{Build, READY, Server, binary, client::PATIENCE, read};

/// What a cluster is made of.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    pub recognizers: usize,
    pub gateways: usize,
    /// Environment variables of all processes.
    pub settings: Vec<(&'static str, String)>,
    /// The only processor that recognizers may run on; gateways, Redis and clients have whatever the caller has.
    pub recognizers_on: Option<usize>,
}

/// A Redis, recognizers, each behind a link of its own, and gateways.
pub struct Cluster {
    redis: Child,
    redis_port: u16,
    folder: tempfile::TempDir,
    settings: Vec<(String, String)>,
    recognizers_on: Option<usize>,
    pub recognizers: Vec<Recognizer>,
    pub gateways: Vec<Server>,
}

impl Cluster {
    /// With one recognizer.
    pub async fn start(gateways: usize) -> Result<Self> {
        Self::of(1, gateways).await
    }

    pub async fn of(recognizers: usize, gateways: usize) -> Result<Self> {
        Self::with(Setup { recognizers, gateways, ..Setup::default() }).await
    }

    pub async fn with(setup: Setup) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let port = free_port()?;
        let redis = redis(&folder, port).await?;
        let settings = [
            ("HEARSAY__BUS__URL", format!("redis://127.0.0.1:{port}")),
            ("HEARSAY__AUTH__SIGNING_SECRET", "a secret of the tests' own, long enough".to_owned()),
            ("HEARSAY__AUTH__APP_ID", "app".to_owned()),
            ("HEARSAY__AUTH__APP_SECRET", "secret".to_owned()),
        ];
        let settings = settings.into_iter().chain(setup.settings);
        let settings = settings.map(|(key, value)| (key.to_owned(), value)).collect();
        let mut cluster = Self {
            redis,
            redis_port: port,
            folder,
            settings,
            recognizers_on: setup.recognizers_on,
            recognizers: Vec::new(),
            gateways: Vec::new(),
        };
        for _ in 0..setup.recognizers {
            let admin = format!("127.0.0.1:{}", free_port()?);
            let (child, address, log) = cluster.recognizer("127.0.0.1:0", &admin).await?;
            let link = Link::to(address.clone()).await?;
            cluster.recognizers.push(Recognizer { child, address, admin, link, log });
        }
        for _ in 0..setup.gateways {
            let gateway = cluster.gateway().await?;
            cluster.gateways.push(gateway);
        }
        Ok(cluster)
    }

    /// Asks all of them to end as a deploy does, gateways first, and waits for them.
    pub async fn stop(&mut self, grace: Duration) -> Result<()> {
        for gateway in self.gateways.drain(..) {
            gateway.stop().await?;
        }
        for one in &mut self.recognizers {
            one.signal("-TERM")?;
            let log = one.log.clone();
            ended(&mut one.child, grace, || read(&log)).await?;
        }
        Ok(())
    }

    /// Asks a recognizer to end as a deploy does, waits for it, and starts it again where it was. Answers how long it took
    /// to end.
    pub async fn roll_recognizer(&mut self, n: usize, grace: Duration) -> Result<Duration> {
        let one = &mut self.recognizers[n];
        one.signal("-TERM")?;
        let log = one.log.clone();
        let (took, _) = ended(&mut one.child, grace, || read(&log)).await?;
        self.replace(n).await?;
        Ok(took)
    }

    /// The same for a gateway; answers its log, too.
    pub async fn roll_gateway(&mut self, n: usize, grace: Duration) -> Result<(Duration, String)> {
        let gateway = &mut self.gateways[n];
        let listen = gateway.url.trim_start_matches("http://").to_owned();
        let asked = std::process::Command::new("kill").args(["-TERM", &gateway.pid().to_string()]).status()?;
        ensure!(asked.success(), "the gateway was gone before it was asked to end");
        let log = gateway.log.clone();
        let ended = ended(&mut gateway.child, grace, || read(&log)).await?;
        self.gateways[n] = self.gateway_at(&listen).await?;
        Ok(ended)
    }

    /// One more gateway, with a token for it.
    pub async fn gateway(&self) -> Result<Server> {
        self.gateway_at("127.0.0.1:0").await
    }

    async fn gateway_at(&self, listen: &str) -> Result<Server> {
        let mut arguments = vec!["gateway", "--listen", listen, "--admin", "127.0.0.1:0"];
        let links: Vec<String> = self.recognizers.iter().map(|one| format!("http://{}", one.link.address)).collect();
        for link in &links {
            arguments.extend(["--recognizer", link.as_str()]);
        }
        let (child, address, log, took) = launch(&arguments, &self.settings, "ready http://", None).await?;
        let wanted = r#"{"type":"application","appId":"app","appSecret":"secret"}"#;
        let body = http(&address, "POST /oauth2/token:generate", wanted).await?;
        let body: Value = serde_json::from_str(&body).with_context(|| body.clone())?;
        let token = body["accessToken"].as_str().context("a token")?.to_owned();
        Ok(Server { child, url: format!("http://{address}"), token, took, log })
    }

    /// `hearsay` with what all of the cluster share.
    pub fn hearsay(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(binary(Build::Test)?);
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        command.envs(self.settings.iter().map(|(key, value)| (key, value)));
        Ok(command)
    }

    /// Where Redis listens, on this machine.
    pub fn redis_port(&self) -> u16 {
        self.redis_port
    }

    /// Redis writes down what it has, which is all that it has after [`Cluster::lose_redis`].
    pub async fn save_redis(&self) -> Result<()> {
        let asked = async {
            let mut stream = TcpStream::connect(("127.0.0.1", self.redis_port)).await?;
            stream.write_all(b"SAVE\r\n").await?;
            let mut answer = [0; 5];
            stream.read_exact(&mut answer).await?;
            ensure!(&answer == b"+OK\r\n", "Redis did not save: {:?}", String::from_utf8_lossy(&answer));
            Ok(())
        };
        timeout(PATIENCE, asked).await.context("no answer from Redis")?
    }

    /// Redis dies, and starts again with what it had when it last saved.
    pub async fn lose_redis(&mut self) -> Result<()> {
        self.redis.kill().await?;
        self.redis = redis(&self.folder, self.redis_port).await?;
        Ok(())
    }

    /// Starts a recognizer again where it was, once it has ended as it should.
    pub async fn restart(&mut self, n: usize) -> Result<()> {
        let one = &mut self.recognizers[n];
        let status = timeout(PATIENCE, one.child.wait()).await.context("it does not end")??;
        ensure!(status.success(), "a drained recognizer ended with {status}");
        self.replace(n).await
    }

    /// Starts a recognizer where one was killed.
    pub async fn replace(&mut self, n: usize) -> Result<()> {
        let (address, admin) = (self.recognizers[n].address.clone(), self.recognizers[n].admin.clone());
        let (child, _, log) = self.recognizer(&address, &admin).await?;
        let one = &mut self.recognizers[n];
        (one.child, one.log) = (child, log);
        Ok(())
    }

    async fn recognizer(&self, listen: &str, admin: &str) -> Result<(Child, String, PathBuf)> {
        let arguments = ["recognizer", "--listen", listen, "--admin", admin];
        let (child, address, log, _) = launch(&arguments, &self.settings, "ready grpc://", self.recognizers_on).await?;
        Ok((child, address, log))
    }

    /// The recognizer with the most streams; `not` does not count.
    pub async fn busiest(&self, not: Option<usize>) -> Result<usize> {
        let mut most = None;
        for (n, one) in self.recognizers.iter().enumerate().filter(|(n, _)| Some(*n) != not) {
            let streams = one.metric("hearsay_recognizer_streams").await?;
            if most.is_none_or(|(_, most)| streams > most) {
                most = Some((n, streams));
            }
        }
        let (n, streams) = most.context("a recognizer")?;
        ensure!(streams > 0.0, "nobody is heard");
        Ok(n)
    }

    /// Waits until the gateway would place streams on this many recognizers.
    pub async fn until_up(&self, recognizers: usize) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let rest = r#"hearsay_uplink_recognizers{state="up"}"#;
            if self.gateways[0].metric(rest).await? >= recognizers as f64 {
                return Ok(());
            }
            sleep(Duration::from_millis(20)).await;
        }
        bail!("{recognizers} recognizers are not up; the gateway's log:\n{}", self.gateways[0].log())
    }

    /// The recognizer that hears the one stream there is; `not` is known to hear it no longer, whatever it thinks.
    pub async fn holder(&self, not: Option<usize>) -> Result<usize> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            for (n, one) in self.recognizers.iter().enumerate() {
                if Some(n) != not && one.metric("hearsay_recognizer_streams").await.unwrap_or(0.0) > 0.0 {
                    return Ok(n);
                }
            }
            sleep(Duration::from_millis(20)).await;
        }
        let logs: Vec<_> = self.gateways.iter().map(Server::log).collect();
        bail!("no recognizer took the stream; the gateways' logs:\n{}", logs.join("\n"))
    }
}

pub struct Recognizer {
    child: Child,
    address: String,
    admin: String,
    log: PathBuf,
    pub link: Link,
}

impl Recognizer {
    pub fn signal(&self, name: &str) -> Result<()> {
        let pid = self.child.id().context("it is gone")?.to_string();
        ensure!(std::process::Command::new("kill").args([name, &pid]).status()?.success(), "no {name} for {pid}");
        Ok(())
    }

    /// Ends it without notice.
    pub async fn kill(&mut self) -> Result<()> {
        self.child.kill().await.context("it was gone already")
    }

    /// Value of a metric, all its labels together.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        let all = http(&self.admin, "GET /metrics", "").await?;
        let of = |line: &str| {
            let rest = line.strip_prefix(name)?;
            rest.starts_with([' ', '{']).then(|| rest.rsplit(' ').next()?.parse::<f64>().ok()).flatten()
        };
        Ok(all.lines().filter_map(of).sum())
    }

    /// The process, for CPU and memory accounting.
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    /// What it has logged since it was started last.
    pub fn log(&self) -> String {
        read(&self.log)
    }
}

impl Drop for Recognizer {
    fn drop(&mut self) {
        // Left behind only for tests that failed: it says why.
        if !std::thread::panicking() {
            let _ = std::fs::remove_file(&self.log);
        }
    }
}

/// A link that can go silent, connections stay open and nothing passes, and that can be cut.
pub struct Link {
    pub address: SocketAddr,
    silent: Arc<AtomicBool>,
    cuts: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
    carrying: JoinHandle<()>,
}

impl Link {
    pub async fn to(address: String) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (at, silent) = (listener.local_addr()?, Arc::<AtomicBool>::default());
        let cuts = Arc::<AtomicUsize>::default();
        let (hushed, cut) = (Arc::clone(&silent), Arc::clone(&cuts));
        let connections = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&connections);
        #[expect(clippy::disallowed_methods, reason = "ends with the link")]
        let carrying = tokio::spawn(async move {
            let mut carried = tokio::task::JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let (address, silent, cuts) = (address.clone(), Arc::clone(&hushed), Arc::clone(&cut));
                let before = cuts.load(Ordering::Relaxed);
                carried.spawn(async move {
                    // A recognizer that is gone is no one's fault here: the connection ends with it.
                    let Ok(mut far) = TcpStream::connect(address).await else { return };
                    let mut carrying = std::pin::pin!(copy_bidirectional(&mut near, &mut far));
                    while cuts.load(Ordering::Relaxed) == before {
                        if silent.load(Ordering::Relaxed) {
                            sleep(Duration::from_millis(5)).await;
                        } else if timeout(Duration::from_millis(5), &mut carrying).await.is_ok() {
                            return;
                        }
                    }
                });
            }
        });
        Ok(Self { address: at, silent, cuts, connections, carrying })
    }

    /// Drops every connection there is, without a word to either side.
    pub fn cut(&self) {
        self.cuts.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there have been.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub fn silence(&self, silent: bool) {
        self.silent.store(silent, Ordering::Relaxed);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.carrying.abort();
    }
}

async fn redis(folder: &tempfile::TempDir, port: u16) -> Result<Child> {
    let program = std::env::var_os("HEARSAY_TEST_REDIS").unwrap_or_else(|| "redis-server".into());
    let mut redis = Command::new(program);
    redis.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"]).arg(folder.path());
    redis.stdout(Stdio::null()).kill_on_drop(true);
    let redis = redis.spawn().context("redis-server does not start: apt-get install redis-server")?;
    let listens = timeout(READY, async {
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    });
    listens.await.context("redis-server does not listen")?;
    Ok(redis)
}

/// Waits for a process that was asked to end. It is to do so by itself, and well.
async fn ended(child: &mut Child, grace: Duration, log: impl Fn() -> String) -> Result<(Duration, String)> {
    let began = Instant::now();
    let Ok(status) = timeout(grace, child.wait()).await else {
        bail!("it does not end within {grace:?}; its log:\n{}", log());
    };
    let (status, log) = (status?, log());
    ensure!(status.code() == Some(0), "a drained process ended with {status}; its log:\n{log}");
    ensure!(!log.contains("ERROR"), "its log holds an error:\n{log}");
    Ok((began.elapsed(), log))
}

/// Starts a command and answers what follows `ready` on its first line.
async fn launch(
    arguments: &[&str],
    settings: &[(String, String)],
    ready: &str,
    processor: Option<usize>,
) -> Result<(Child, String, PathBuf, Duration)> {
    static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let log = std::env::temp_dir().join(format!("hearsay-cluster-{}-{number}.log", std::process::id()));
    let began = Instant::now();
    let mut command = match processor {
        Some(processor) => {
            let mut command = Command::new("taskset");
            command.args(["-c", &processor.to_string()]).arg(binary(Build::Test)?);
            command
        }
        None => Command::new(binary(Build::Test)?),
    };
    command.args(arguments).stdout(Stdio::piped()).stderr(std::fs::File::create(&log)?).kill_on_drop(true);
    for (key, value) in settings {
        command.env(key, value);
    }
    let mut child = command.spawn().with_context(|| format!("hearsay {arguments:?} does not start"))?;
    let mut lines = BufReader::new(child.stdout.take().context("stdout is piped")?).lines();
    let line = match timeout(READY, lines.next_line()).await {
        Ok(line) => line?.unwrap_or_default(),
        Err(_) => bail!("hearsay {arguments:?} is not ready within {READY:?}; its log:\n{}", read(&log)),
    };
    let Some(address) = line.strip_prefix(ready) else {
        bail!("hearsay {arguments:?}: expected {ready:?}, got {line:?}; its log:\n{}", read(&log));
    };
    Ok((child, address.to_owned(), log, began.elapsed()))
}

/// One request over HTTP/1, by hand; answers the body.
pub(crate) async fn http(address: &str, request: &str, body: &str) -> Result<String> {
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        let head = format!(
            "{request} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    let answer = timeout(PATIENCE, asked).await.context("no answer")??;
    let (_, body) = answer.split_once("\r\n\r\n").context("no body")?;
    Ok(body.to_owned())
}

fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
