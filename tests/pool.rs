//! Recognizers that freeze, drain, die and are cut off while somebody speaks: processes of their own, with a Redis between.
//! Who listens reads what it would have read without.

use std::{
    net::SocketAddr,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use hearsay_tests::{
    Build, Server, binary,
    client::{Client, PATIENCE, wav},
    recordings,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy_bidirectional},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    time::{sleep, timeout},
};

const MESSAGE: Duration = Duration::from_millis(100);

/// How long a process may take to its first line; machines that run tests are busy.
const READY: Duration = Duration::from_secs(120);

/// How far a word may move.
const DRIFT: f64 = 0.05;

/// A process of the cluster, and the address it is ready at.
async fn launch(arguments: &[&str], settings: &[(&str, String)], log: &std::path::Path) -> Result<(Child, String)> {
    let mut command = Command::new(binary(Build::Test)?);
    command.args(arguments).stdout(Stdio::piped()).stderr(std::fs::File::create(log)?).kill_on_drop(true);
    for (key, value) in settings {
        command.env(key, value);
    }
    let mut child = command.spawn().with_context(|| format!("hearsay {arguments:?} does not start"))?;
    let mut lines = BufReader::new(child.stdout.take().context("stdout is piped")?).lines();
    let line = timeout(READY, lines.next_line()).await.context("not ready")??.unwrap_or_default();
    let told = || std::fs::read_to_string(log).unwrap_or_default();
    let address = line.strip_prefix("ready ").and_then(|url| url.split_once("://"));
    let (_, address) = address.with_context(|| format!("hearsay {arguments:?} said {line:?}; its log:\n{}", told()))?;
    Ok((child, address.to_owned()))
}

/// One request over HTTP/1, by hand; answers the body.
async fn http(address: &str, request: &str, body: &str) -> Result<String> {
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

/// A link that can go silent: connections stay open, and nothing passes.
struct Link {
    address: SocketAddr,
    silent: Arc<AtomicBool>,
}

impl Link {
    async fn to(address: String) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let link = Self { address: listener.local_addr()?, silent: Arc::default() };
        let silent = Arc::clone(&link.silent);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (address, silent) = (address.clone(), Arc::clone(&silent));
                tokio::spawn(async move {
                    // A recognizer that is gone is no one's fault here: the connection ends with it.
                    let Ok(mut far) = TcpStream::connect(address).await else { return };
                    let mut carrying = std::pin::pin!(copy_bidirectional(&mut near, &mut far));
                    loop {
                        if silent.load(Ordering::Relaxed) {
                            sleep(Duration::from_millis(5)).await;
                        } else if timeout(Duration::from_millis(5), &mut carrying).await.is_ok() {
                            return;
                        }
                    }
                });
            }
        });
        Ok(link)
    }

    fn silence(&self, silent: bool) {
        self.silent.store(silent, Ordering::Relaxed);
    }
}

struct Recognizer {
    child: Child,
    address: String,
    admin: String,
    link: Link,
}

/// Settings of every process of a cluster.
type Settings = Vec<(&'static str, String)>;

impl Recognizer {
    fn signal(&self, name: &str) -> Result<()> {
        let pid = self.child.id().context("it is gone")?.to_string();
        ensure!(std::process::Command::new("kill").args([name, &pid]).status()?.success(), "no {name} for {pid}");
        Ok(())
    }

    /// Value of a metric, all its labels together.
    async fn metric(&self, name: &str) -> Result<f64> {
        let all = http(&self.admin, "GET /metrics", "").await?;
        let of = |line: &str| {
            let rest = line.strip_prefix(name)?;
            rest.starts_with([' ', '{']).then(|| rest.rsplit(' ').next()?.parse::<f64>().ok()).flatten()
        };
        Ok(all.lines().filter_map(of).sum())
    }
}

/// A Redis, two recognizers, each behind a link of its own, and a gateway.
struct Cluster {
    gateway: Server,
    recognizers: Vec<Recognizer>,
    settings: Settings,
    _redis: Child,
    folder: tempfile::TempDir,
}

impl Cluster {
    async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let program = std::env::var_os("HEARSAY_TEST_REDIS").unwrap_or_else(|| "redis-server".into());
        let port = free_port()?.to_string();
        let mut redis = Command::new(program);
        redis.args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--dir"]).arg(folder.path());
        redis.stdout(Stdio::null()).kill_on_drop(true);
        let redis = redis.spawn().context("redis-server does not start: apt-get install redis-server")?;
        let listens = async {
            while TcpStream::connect(format!("127.0.0.1:{port}")).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(READY, listens).await.context("redis-server does not listen")?;
        let settings: Settings = vec![
            ("HEARSAY__BUS__URL", format!("redis://127.0.0.1:{port}")),
            ("HEARSAY__AUTH__SIGNING_SECRET", "a secret of the tests' own, long enough".to_owned()),
            ("HEARSAY__AUTH__APP_ID", "app".to_owned()),
            ("HEARSAY__AUTH__APP_SECRET", "secret".to_owned()),
        ];
        let mut recognizers = Vec::new();
        for n in 0..2 {
            let admin = format!("127.0.0.1:{}", free_port()?);
            let arguments = ["recognizer", "--listen", "127.0.0.1:0", "--admin", &admin];
            let log = folder.path().join(format!("recognizer-{n}.log"));
            let (child, address) = launch(&arguments, &settings, &log).await?;
            let link = Link::to(address.clone()).await?;
            recognizers.push(Recognizer { child, address, admin, link });
        }
        let urls: Vec<_> = recognizers.iter().map(|one| format!("http://{}", one.link.address)).collect();
        let mut theirs = settings.clone();
        theirs.push(("HEARSAY__UPLINK__RECOGNIZERS", json!(urls).to_string()));
        let began = Instant::now();
        let log = std::env::temp_dir().join(format!("hearsay-pool-{}-{port}.log", std::process::id()));
        let arguments = ["gateway", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        let (child, address) = launch(&arguments, &theirs, &log).await?;
        let wanted = r#"{"type":"application","appId":"app","appSecret":"secret"}"#;
        let token: Value = serde_json::from_str(&http(&address, "POST /oauth2/token:generate", wanted).await?)?;
        let token = token["accessToken"].as_str().context("a token")?.to_owned();
        let gateway = Server::running(child, format!("http://{address}"), token, began.elapsed(), log);
        Ok(Self { gateway, recognizers, settings, _redis: redis, folder })
    }

    /// Starts a recognizer again where it was, once it has ended as it should.
    async fn restart(&mut self, n: usize) -> Result<()> {
        let one = &mut self.recognizers[n];
        let status = timeout(PATIENCE, one.child.wait()).await.context("it does not end")??;
        ensure!(status.success(), "a drained recognizer ended with {status}");
        let arguments = ["recognizer", "--listen", &one.address, "--admin", &one.admin];
        let log = self.folder.path().join(format!("recognizer-{n}-again.log"));
        (one.child, _) = launch(&arguments, &self.settings, &log).await?;
        Ok(())
    }

    /// The recognizer that hears the one stream there is; `not` is known to hear it no longer, whatever it thinks.
    async fn holder(&self, not: Option<usize>) -> Result<usize> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            for (n, one) in self.recognizers.iter().enumerate() {
                if Some(n) != not && one.metric("hearsay_recognizer_streams").await.unwrap_or(0.0) > 0.0 {
                    return Ok(n);
                }
            }
            sleep(Duration::from_millis(20)).await;
        }
        bail!("no recognizer took the stream; the gateway's log:\n{}", self.gateway.log())
    }
}

fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Ana, and one who listens to her.
struct Talk {
    speaker: Client,
    listener: tokio::task::JoinHandle<Result<Client>>,
    rate: u32,
}

type Word = (String, f64, f64);

impl Talk {
    async fn begin(cluster: &Cluster, meeting: &str, rate: u32) -> Result<Self> {
        let path = format!("/v1/subscribe/{meeting}?view=all&history=all");
        let mut listener = Client::connect(&cluster.gateway, &path).await?;
        let listener = tokio::spawn(async move { listener.drain().await.map(|()| listener) });
        let mut speaker = Client::connect(&cluster.gateway, &format!("/v1/realtime/insights/{meeting}")).await?;
        speaker.begin("Ana", rate, json!({})).await?;
        Ok(Self { speaker, listener, rate })
    }

    async fn say(&mut self, samples: &[i16]) -> Result<()> {
        self.speaker.speak(samples, self.rate, MESSAGE).await.map(drop)
    }

    /// What was heard: the text, and each word with its times.
    async fn end(mut self) -> Result<(String, Vec<Word>)> {
        self.speaker.stop().await?;
        ensure!(self.speaker.closed == Some(1000), "closed {:?}", self.speaker.closed);
        let listener = self.listener.await??;
        let positions = listener.positions();
        ensure!(
            positions.windows(2).all(|pair| pair[0].0 == pair[1].0 && pair[1].1 == pair[0].1 + 1),
            "positions have a hole or a double: {positions:?}"
        );
        let finals = listener.finals();
        let text = finals.iter().map(|said| said.text.as_str()).collect::<Vec<_>>().join(" ");
        Ok((text, finals.into_iter().flat_map(|said| said.words).collect()))
    }
}

fn same(unbroken: &(String, Vec<Word>), heard: &(String, Vec<Word>)) {
    assert_eq!(heard.0, unbroken.0);
    assert_eq!(heard.1.len(), unbroken.1.len());
    for (one, other) in unbroken.1.iter().zip(&heard.1) {
        let moved = (one.1 - other.1).abs().max((one.2 - other.2).abs());
        assert!(one.0 == other.0 && moved < DRIFT, "{one:?} became {other:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn recognizers_that_freeze_drain_fall_silent_or_die_lose_no_word() -> Result<()> {
    let (samples, rate) = wav(&recordings()?.endgame)?;
    // Between the parts somebody is in the middle of a sentence.
    let part = |from: f64, to: f64| {
        // Whole messages: the audio is cut as that of the unbroken talk is.
        let message = rate as usize / 10;
        let at = |share: f64| (share * samples.len() as f64) as usize / message * message;
        &samples[at(from)..if to < 1.0 { at(to) } else { samples.len() }]
    };
    let mut cluster = Cluster::start().await?;
    let mut talk = Talk::begin(&cluster, "unbroken", rate).await?;
    talk.say(&samples).await?;
    let unbroken = talk.end().await?;
    ensure!(unbroken.1.len() > 10, "too little was said to prove anything: {unbroken:?}");

    let mut talk = Talk::begin(&cluster, "frozen", rate).await?;
    talk.say(part(0.0, 0.3)).await?;
    let frozen = cluster.holder(None).await?;
    cluster.recognizers[frozen].signal("-STOP")?;
    talk.say(part(0.3, 0.6)).await?;
    let next = cluster.holder(Some(frozen)).await?;
    // It wakes with half a sentence in hand, and is too late.
    cluster.recognizers[frozen].signal("-CONT")?;
    talk.say(part(0.6, 0.75)).await?;
    cluster.recognizers[next].signal("-TERM")?;
    talk.say(part(0.75, 1.0)).await?;
    same(&unbroken, &talk.end().await?);
    assert_ne!(frozen, next);
    cluster.restart(next).await?;

    // A link that falls silent, comes back, and then its recognizer's successor is killed.
    let mut talk = Talk::begin(&cluster, "silent", rate).await?;
    talk.say(part(0.0, 0.3)).await?;
    let silent = cluster.holder(None).await?;
    cluster.recognizers[silent].link.silence(true);
    talk.say(part(0.3, 0.6)).await?;
    let next = cluster.holder(Some(silent)).await?;
    cluster.recognizers[silent].link.silence(false);
    talk.say(part(0.6, 0.8)).await?;
    cluster.recognizers[next].child.kill().await?;
    talk.say(part(0.8, 1.0)).await?;
    same(&unbroken, &talk.end().await?);
    Ok(())
}
