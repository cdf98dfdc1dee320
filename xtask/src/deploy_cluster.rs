//! A small cluster of real processes on this machine, and a Prometheus that scrapes it: what dashboards and alerts are
//! held against. Every process can be stopped, killed and started again where it was.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use hearsay_models::{ModelStore, Recordings, Silent};
use serde_json::{Value, json};

use crate::{check::target, redis::Servers};

const READY_WITHIN: Duration = Duration::from_secs(120);
/// Prometheus scrapes the cluster this often.
const SCRAPE: &str = "1s";
const APP: [&str; 4] = ["--app-id", "demo", "--app-secret", "demo"];

/// Ends with what it is in.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn is_done(&mut self) -> Result<bool> {
        let status = self.0.try_wait()?;
        ensure!(status.is_none_or(|status| status.success()), "a client ended with {status:?}");
        Ok(status.is_some())
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// `STOP`, `CONT` and the like.
    pub(crate) fn signal(&self, name: &str) -> Result<()> {
        let status = Command::new("kill").args([format!("-{name}"), self.0.id().to_string()]).status()?;
        ensure!(status.success(), "kill -{name}: {status}");
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where everything listens, whether it runs or not.
pub(crate) struct Cluster {
    program: PathBuf,
    folder: PathBuf,
    recordings: Recordings,
    /// Of Redis.
    max_memory: &'static str,
    pub(crate) redis_port: u16,
    ports: [u16; 3],
    /// Of the recognizer, the gateways, and who carries rules out.
    admins: [u16; 4],
    pub(crate) prometheus_port: u16,
    pub(crate) redis: Option<Running>,
    pub(crate) recognizer: Option<Running>,
    pub(crate) gateways: [Option<Running>; 2],
    actions: Option<Running>,
    /// With rules, for gateways too.
    config: Option<PathBuf>,
    prometheus: Option<Running>,
    /// Of gateways and recognizer, beside what a cluster needs.
    settings: Vec<(&'static str, &'static str)>,
}

impl Cluster {
    pub(crate) fn start(
        program: &Path,
        name: &str,
        max_memory: &'static str,
        settings: &[(&'static str, &'static str)],
    ) -> Result<Self> {
        let folder = target().join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        let recordings = ModelStore::open(hearsay_models::cache_folder()?).recordings(&mut Silent)?;
        let port = || free_port();
        let mut cluster = Self {
            program: program.to_owned(),
            folder,
            recordings,
            max_memory,
            redis_port: port()?,
            ports: [port()?, port()?, port()?],
            admins: [port()?, port()?, port()?, port()?],
            prometheus_port: port()?,
            redis: None,
            recognizer: None,
            gateways: [None, None],
            actions: None,
            config: None,
            prometheus: None,
            settings: settings.to_vec(),
        };
        cluster.start_redis()?;
        cluster.start_recognizer()?;
        cluster.start_gateway(0)?;
        cluster.start_gateway(1)?;
        Ok(cluster)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn start_redis(&mut self) -> Result<()> {
        let mut redis = Command::new(Servers::find(&target())?.redis());
        redis.args(["--port", &self.redis_port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
        redis.args(["--maxmemory", self.max_memory, "--dir"]).arg(&self.folder);
        self.redis = Some(Running(redis.stdout(Stdio::null()).spawn()?));
        answers(self.redis_port)
    }

    pub(crate) fn start_recognizer(&mut self) -> Result<()> {
        let (listen, admin) = (format!("127.0.0.1:{}", self.ports[0]), format!("127.0.0.1:{}", self.admins[0]));
        self.recognizer = Some(ready(self.command(&["recognizer", "--listen", &listen, "--admin", &admin]))?);
        Ok(())
    }

    pub(crate) fn start_gateway(&mut self, index: usize) -> Result<()> {
        let listen = format!("127.0.0.1:{}", self.ports[index + 1]);
        let admin = format!("127.0.0.1:{}", self.admins[index + 1]);
        let recognizer = format!("http://127.0.0.1:{}", self.ports[0]);
        let arguments = ["gateway", "--listen", &listen, "--admin", &admin, "--recognizer", &recognizer];
        let mut command = self.command(&arguments);
        if let Some(config) = &self.config {
            command.arg("--config").arg(config);
        }
        self.gateways[index] = Some(ready(command)?);
        Ok(())
    }

    /// What happens in one meeting is sent to `port`, and soon given up, by a process of its own; gateways hear of the rule.
    pub(crate) fn start_actions(&mut self, meeting: &str, port: u16) -> Result<()> {
        let secret = self.folder.join("webhook.whsec");
        fs::write(&secret, "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n")?;
        let config = self.folder.join("hearsay.toml");
        let text = format!(
            "[actions]\nallow = [\"127.0.0.0/8\"]\nretry_first = \"200ms\"\nretry_longest = \"500ms\"\ngive_up = \"2s\"\n\
             [[actions.webhooks]]\nname = \"test\"\nurl = \"http://127.0.0.1:{port}/\"\nsecret_file = {secret:?}\n\
             on = [\"question\", \"action_item\", \"follow_up\", \"topic\", \"entity\", \"ended\"]\nmeetings = [{meeting:?}]\n"
        );
        fs::write(&config, text)?;
        let mut command = self.command(&["actions", "--admin", &format!("127.0.0.1:{}", self.admins[3])]);
        command.arg("--config").arg(&config);
        self.actions = Some(ready(command)?);
        self.config = Some(config);
        for index in 0..self.gateways.len() {
            self.gateways[index] = None;
            self.start_gateway(index)?;
        }
        Ok(())
    }

    /// What a scrape of everybody would tell.
    pub(crate) fn exposition(&self) -> Result<String> {
        let ask = |port: &u16| http(*port, "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        self.scraped().iter().map(ask).collect()
    }

    fn scraped(&self) -> &[u16] {
        if self.actions.is_some() { &self.admins } else { &self.admins[..3] }
    }

    /// Scrapes all of them, whether they answer or not.
    pub(crate) fn start_prometheus(&mut self, rules: &Path, alertmanager: Option<u16>) -> Result<()> {
        let at = |port: &u16| format!("127.0.0.1:{port}");
        let mut config = json!({
            "global": {"scrape_interval": SCRAPE, "evaluation_interval": SCRAPE},
            "rule_files": [rules],
            "scrape_configs": [
                {"job_name": "hearsay-recognizer", "static_configs": [{"targets": [at(&self.admins[0])]}]},
                {"job_name": "hearsay-gateway", "static_configs": [{"targets": [at(&self.admins[1]), at(&self.admins[2])]}]},
            ],
        });
        if self.actions.is_some()
            && let Some(jobs) = config["scrape_configs"].as_array_mut()
        {
            jobs.push(json!({"job_name": "hearsay-actions", "static_configs": [{"targets": [at(&self.admins[3])]}]}));
        }
        if let Some(port) = alertmanager {
            config["alerting"] = json!({"alertmanagers": [{"static_configs": [{"targets": [at(&port)]}]}]});
        }
        let file = self.folder.join("prometheus.yml");
        fs::write(&file, config.to_string())?;
        let mut server = Command::new("prometheus");
        server.arg(format!("--config.file={}", file.display()));
        server.arg(format!("--storage.tsdb.path={}", self.folder.join("data").display()));
        server.arg(format!("--web.listen-address={}", at(&self.prometheus_port)));
        self.prometheus = Some(server_of(server, &self.folder.join("prometheus.log"))?);
        answers(self.prometheus_port)
    }

    /// A process of the cluster, or a client of it.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).env("HEARSAY__BUS__URL", format!("redis://127.0.0.1:{}", self.redis_port));
        command.env("HEARSAY__AUTH__SIGNING_SECRET", "0123456789abcdef0123456789abcdef");
        command.env("HEARSAY__AUTH__APP_ID", "demo").env("HEARSAY__AUTH__APP_SECRET", "demo");
        command.env("HEARSAY__LOG__FILTER", "error").envs(self.settings.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    pub(crate) fn url(&self, gateway: usize) -> String {
        format!("http://127.0.0.1:{}", self.ports[gateway + 1])
    }

    /// Somebody speaks for 44 seconds.
    pub(crate) fn speak(&self, meeting: &str, gateway: usize) -> Result<Running> {
        let mut command = self.command(&["transcribe", "--meeting", meeting, "--url", &self.url(gateway)]);
        command.args(APP).arg(&self.recordings.two_cities);
        Ok(Running(command.stderr(Stdio::null()).spawn()?))
    }

    pub(crate) fn listen(&self, meeting: &str, gateway: usize, subscribers: usize) -> Result<Running> {
        let (token, count) = (token(self.ports[gateway + 1])?, subscribers.to_string());
        let mut command = self.command(&["load", "listen", "--meeting", meeting, "--subscribers", &count]);
        command.args(["--duration", "10m", "--token", &token, "--url", &self.url(gateway)]);
        Ok(Running(command.stderr(Stdio::null()).spawn()?))
    }

    /// Words go straight to the log, without a recognizer, into the meeting `PREFIX-0`.
    pub(crate) fn publish(&self, prefix: &str, arguments: &[&str]) -> Result<Running> {
        let mut command = self.command(&["load", "events", "--prefix", prefix]);
        Ok(Running(command.args(arguments).stderr(Stdio::null()).spawn()?))
    }

    pub(crate) fn query(&self, text: &str) -> Result<Value> {
        let path = format!("/api/v1/query?query={}", escaped(text));
        let answer = http(self.prometheus_port, &format!("GET {path} HTTP/1.0\r\n\r\n"))?;
        serde_json::from_str(&answer).with_context(|| answer.clone())
    }

    /// The last `seconds`, second by second.
    pub(crate) fn query_range(&self, text: &str, seconds: u64) -> Result<Value> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
        let path = format!(
            "/api/v1/query_range?query={}&start={}&end={now}&step=1",
            escaped(text),
            now.saturating_sub(seconds)
        );
        let answer = http(self.prometheus_port, &format!("GET {path} HTTP/1.0\r\n\r\n"))?;
        serde_json::from_str(&answer).with_context(|| answer.clone())
    }
}

/// A server of another's, whose log goes to a file.
pub(crate) fn server_of(mut command: Command, log: &Path) -> Result<Running> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(log)?);
    Ok(Running(
        command.spawn().with_context(|| format!("{command:?} cannot be started: Debian's package has that name"))?,
    ))
}

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// The body of the answer.
pub(crate) fn http(port: u16, request: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split_once("\r\n\r\n").context("no answer")?.1.to_owned())
}

fn token(port: u16) -> Result<String> {
    let body = r#"{"type":"application","appId":"demo","appSecret":"demo"}"#;
    let length = body.len();
    let answer = http(
        port,
        &format!(
            "POST /oauth2/token:generate HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n{body}"
        ),
    )?;
    let answer: Value = serde_json::from_str(&answer)?;
    Ok(answer["accessToken"].as_str().context("no token")?.to_owned())
}

pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

pub(crate) fn answers(port: u16) -> Result<()> {
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        ensure!(begun.elapsed() < READY_WITHIN, "nothing listens on port {port}");
        sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Waits for the line that says where it is.
fn ready(mut command: Command) -> Result<Running> {
    let mut running = Running(command.stdout(Stdio::piped()).spawn()?);
    let out = running.0.stdout.take().context("no stdout")?;
    let mut line = String::new();
    BufReader::new(out).read_line(&mut line)?;
    if !line.starts_with("ready ") {
        bail!("{command:?} is not ready");
    }
    Ok(running)
}
