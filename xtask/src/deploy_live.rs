//! A small cluster under load, a Prometheus that scrapes it, and every query of dashboards and rules asked of that.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use hearsay_models::{ModelStore, Silent};
use serde_json::Value;

use crate::{check::target, deploy, redis::Servers, shell::root};

const READY_WITHIN: Duration = Duration::from_secs(120);
/// For every query to have data; live speech goes on all the while.
const DATA_WITHIN: Duration = Duration::from_secs(90);
const ASK_EVERY: Duration = Duration::from_secs(2);
/// Prometheus scrapes the cluster this often.
const SCRAPE: &str = "1s";
const APP: [&str; 4] = ["--app-id", "demo", "--app-secret", "demo"];

/// Ends with what it is in.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn check(hearsay: &Path) -> Result<()> {
    let folder = target().join("deploy-live");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let recordings = ModelStore::open(hearsay_models::cache_folder()?).recordings(&mut Silent)?;

    let port = free_port()?;
    let mut redis = Command::new(Servers::find(&target())?.redis());
    redis.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--maxmemory", "256mb"]);
    let _redis = Running(redis.stdout(Stdio::null()).spawn()?);
    answers(port)?;
    let cluster = |arguments: &[&str]| {
        let mut command = Command::new(hearsay);
        command.args(arguments).env("HEARSAY__BUS__URL", format!("redis://127.0.0.1:{port}"));
        command
            .env("HEARSAY__AUTH__SIGNING_SECRET", "0123456789abcdef0123456789abcdef")
            .env("HEARSAY__LOG__FILTER", "warn");
        command.env("HEARSAY__AUTH__APP_ID", "demo").env("HEARSAY__AUTH__APP_SECRET", "demo");
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command
    };
    let admins = [free_port()?, free_port()?, free_port()?].map(|port| format!("127.0.0.1:{port}"));
    let (_recognizer, grpc) = ready(cluster(&["recognizer", "--listen", "127.0.0.1:0", "--admin", &admins[0]]))?;
    let grpc = grpc.replace("grpc://", "http://");
    let gateway =
        |admin: &str| ready(cluster(&["gateway", "--listen", "127.0.0.1:0", "--admin", admin, "--recognizer", &grpc]));
    let (_one, url) = gateway(&admins[1])?;
    let (_other, other_url) = gateway(&admins[2])?;

    let prometheus = free_port()?;
    let config = serde_json::json!({
        "global": {"scrape_interval": SCRAPE, "evaluation_interval": SCRAPE},
        "rule_files": [root().join("deploy/prometheus/rules.yml")],
        "scrape_configs": [
            {"job_name": "hearsay-recognizer", "static_configs": [{"targets": [admins[0]]}]},
            {"job_name": "hearsay-gateway", "static_configs": [{"targets": [admins[1], admins[2]]}]},
        ],
    });
    fs::write(folder.join("prometheus.yml"), config.to_string())?;
    let mut server = Command::new("prometheus");
    server.arg(format!("--config.file={}", folder.join("prometheus.yml").display()));
    server.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
    server
        .arg(format!("--web.listen-address=127.0.0.1:{prometheus}"))
        .stderr(fs::File::create(folder.join("prometheus.log"))?);
    let _prometheus =
        Running(server.stdin(Stdio::null()).spawn().context("prometheus (Debian's package of that name)")?);
    answers(prometheus)?;

    // Listeners at one gateway, speakers at the other, over and over.
    let token = token(&url)?;
    let arguments =
        ["load", "listen", "--meeting", "live", "--subscribers", "50", "--duration", "10m", "--token", &token];
    let _listeners = Running(cluster(&arguments).args(["--url", &other_url]).stdout(Stdio::null()).spawn()?);
    let speak = || -> Result<Running> {
        let mut command = cluster(&["transcribe", "--meeting", "live", "--url", &url]);
        Ok(Running(command.args(APP).arg(&recordings.beckett).stdout(Stdio::null()).spawn()?))
    };
    let mut speakers = [speak()?, speak()?];

    let mut asked = deploy::expressions()?;
    asked.extend(
        ["hearsay:recognizer_fill:ratio", "hearsay:final_seconds:p95", "hearsay:redis_call_seconds:p99"]
            .map(|name| (name.to_owned(), name.to_owned())),
    );
    let count = asked.len();
    let begun = Instant::now();
    while !asked.is_empty() && begun.elapsed() < DATA_WITHIN {
        sleep(ASK_EVERY);
        for speaker in &mut speakers {
            if let Some(status) = speaker.0.try_wait()? {
                ensure!(status.success(), "transcribe ended with {status}");
                *speaker = speak()?;
            }
        }
        let mut without = Vec::new();
        for (place, text) in asked {
            if !has_data(prometheus, &text).with_context(|| format!("{place}: {text}"))? {
                without.push((place, text));
            }
        }
        asked = without;
    }
    let without: Vec<_> = asked.iter().map(|(place, text)| format!("{place}: {text}")).collect();
    ensure!(
        without.is_empty(),
        "no data within {DATA_WITHIN:?} for {} of {count}:\n{}",
        without.len(),
        without.join("\n")
    );
    let firing = query(prometheus, "ALERTS{alertstate=\"firing\"}")?;
    ensure!(
        firing["data"]["result"].as_array().is_some_and(Vec::is_empty),
        "alerts of a cluster that is well: {firing}"
    );
    println!("== deployment: {count} queries have data from a real cluster, and no alert fires");
    Ok(())
}

fn has_data(port: u16, text: &str) -> Result<bool> {
    let answer = query(port, text)?;
    ensure!(answer["status"] == "success", "{answer}");
    let result = answer["data"]["result"].as_array().context("no result")?;
    // Quantiles of nothing are no numbers.
    Ok(result.iter().any(|sample| sample["value"][1].as_str().is_some_and(|value| value != "NaN")))
}

fn query(port: u16, text: &str) -> Result<Value> {
    let escaped: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let answer = http(port, &format!("GET /api/v1/query?query={escaped} HTTP/1.0\r\n\r\n"))?;
    serde_json::from_str(&answer).with_context(|| answer.clone())
}

/// The body of the answer.
fn http(port: u16, request: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split_once("\r\n\r\n").context("no answer")?.1.to_owned())
}

fn token(url: &str) -> Result<String> {
    let port = url.rsplit(':').next().and_then(|port| port.parse().ok()).context("no port")?;
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

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn answers(port: u16) -> Result<()> {
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        ensure!(begun.elapsed() < READY_WITHIN, "nothing listens on port {port}");
        sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Waits for the line that says where it is.
fn ready(mut command: Command) -> Result<(Running, String)> {
    let mut running = Running(command.spawn()?);
    let out = running.0.stdout.take().context("no stdout")?;
    let mut line = String::new();
    BufReader::new(out).read_line(&mut line)?;
    match line.trim().strip_prefix("ready ") {
        Some(url) => Ok((running, url.to_owned())),
        None => bail!("{command:?} is not ready"),
    }
}
