//! A running `hearsay dev` and clients of it, for whole-system tests and benchmarks.
//!
//! Everything is real: the built binary, its models, sockets on loopback. A [`Server`] ends its process when dropped.

pub mod client;
mod processes;
pub mod rolling;
pub mod soak;
pub mod words;

pub use processes::{Cluster, Link, Recognizer, Setup};

use std::{
    path::PathBuf,
    process::Stdio,
    sync::OnceLock,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

/// How long `hearsay dev` may take to its first line once everything is fetched and built; generous, because machines that
/// run tests are busy.
const READY: Duration = Duration::from_secs(120);

/// A `hearsay dev` on a free port.
pub struct Server {
    child: Child,
    pub url: String,
    pub token: String,
    /// From the start of the process to its `ready` line.
    pub took: Duration,
    log: PathBuf,
}

/// Which build to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Build {
    /// The profile that what runs is built with: a benchmark takes the optimised one.
    Test,
    Release,
}

/// The binary, built once a process so that it is never an old one; or the one that `HEARSAY_BIN` names, which
/// `cargo xtask test` has built together with the tests.
pub fn binary(build: Build) -> Result<PathBuf> {
    if build == Build::Test
        && let Some(built) = std::env::var_os("HEARSAY_BIN")
    {
        return Ok(built.into());
    }
    let here = std::env::current_exe()?;
    // target/PROFILE/deps/tests-HASH
    let folder = here.ancestors().nth(2).context("a test runs from target/PROFILE/deps")?;
    let release = build == Build::Release || folder.ends_with("release");
    static BUILT: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let mut cargo = std::process::Command::new(env!("CARGO"));
        // Says so when another build is waited for.
        cargo.args(["build", "--package", "hearsay", "--manifest-path"]);
        cargo.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"));
        if release {
            cargo.arg("--release");
        }
        match cargo.status() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("cargo build ended with {status}")),
            Err(error) => Err(format!("cargo build did not start: {error}")),
        }
    });
    built.clone().map_err(anyhow::Error::msg)?;
    Ok(folder.with_file_name(if release { "release" } else { "debug" }).join("hearsay"))
}

/// Where clients connect, and with what.
#[derive(Debug, Clone)]
pub struct Entry {
    pub url: String,
    pub token: String,
}

impl Server {
    pub fn entry(&self) -> Entry {
        Entry { url: self.url.clone(), token: self.token.clone() }
    }

    /// Starts `hearsay dev` with a configuration of its own and waits until it is ready.
    pub async fn start(build: Build, config: &[(&str, &str)]) -> Result<Self> {
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let binary = binary(build)?;
        let log = std::env::temp_dir().join(format!("hearsay-test-{}-{number}.log", std::process::id()));
        let began = Instant::now();
        let mut command = Command::new(binary);
        command.args(["dev", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).kill_on_drop(true);
        command.stderr(std::fs::File::create(&log)?);
        for (key, value) in config {
            command.env(key, value);
        }
        let mut child = command.spawn().context("hearsay dev does not start")?;
        let mut lines = BufReader::new(child.stdout.take().context("stdout is piped")?).lines();
        let ready = timeout(READY, async {
            let ready = lines.next_line().await?.unwrap_or_default();
            let token = lines.next_line().await?.unwrap_or_default();
            anyhow::Ok((ready, token))
        });
        let (ready, token) = match ready.await {
            Ok(lines) => lines?,
            Err(_) => bail!("not ready within {READY:?}; its log:\n{}", read(&log)),
        };
        let (Some(url), Some(token)) = (ready.strip_prefix("ready "), token.strip_prefix("token ")) else {
            bail!("expected `ready URL` and `token JWT`, got {ready:?} and {token:?}; its log:\n{}", read(&log));
        };
        Ok(Self { child, url: url.to_owned(), token: token.to_owned(), took: began.elapsed(), log })
    }

    /// A number of `/metrics`, all its series together; of a gateway of a [`Cluster`].
    pub async fn metric(&self, name: &str) -> Result<f64> {
        let log = self.log();
        let admin = log.split("operators' port address=").nth(1).and_then(|rest| rest.split_whitespace().next());
        let admin = admin.context("its log names the operators' port")?;
        let answer = processes::http(admin, "GET /metrics", "").await?;
        let series = answer.lines().filter(|line| line.starts_with(name));
        Ok(series.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
    }

    /// The process, for CPU and memory accounting.
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    /// Ends it without notice.
    pub async fn kill(mut self) -> Result<()> {
        self.child.kill().await.context("it was gone already")
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        read(&self.log)
    }

    /// Asks it to end and waits; answers its log.
    pub async fn stop(mut self) -> Result<String> {
        let asked = Command::new("kill").args(["-TERM", &self.pid().to_string()]).status().await?;
        anyhow::ensure!(asked.success(), "the server was gone before it was asked to stop");
        let status = timeout(Duration::from_secs(60), self.child.wait()).await.context("it does not stop")??;
        let log = self.log();
        anyhow::ensure!(status.success(), "hearsay dev ended with {status}; its log:\n{log}");
        Ok(log)
    }

    /// CPU seconds used so far, by all its threads.
    pub fn cpu_seconds(&self) -> Result<f64> {
        cpu_seconds(self.pid())
    }

    /// Resident memory, in bytes.
    pub fn memory(&self) -> Result<u64> {
        memory(self.pid())
    }
}

/// CPU seconds a process has used so far, by all its threads that live.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let mut nanos = 0u64;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = std::fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        nanos += stat.split(' ').next().and_then(|nanos| nanos.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(nanos as f64 / 1e9)
}

/// Resident memory of a process, in bytes.
pub fn memory(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse::<u64>()? * 1024)
}

impl Drop for Server {
    fn drop(&mut self) {
        // Left behind only for tests that failed: it says why.
        if !std::thread::panicking() {
            let _ = std::fs::remove_file(&self.log);
        }
    }
}

fn read(path: &PathBuf) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Recordings that packages ship, with what is said in them.
pub fn recordings() -> Result<hearsay_models::Recordings> {
    let folder = hearsay_models::cache_folder()?.join("models");
    Ok(hearsay_models::ModelStore::open(folder).recordings(&mut hearsay_models::Silent)?)
}
