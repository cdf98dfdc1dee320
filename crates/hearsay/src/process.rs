//! What every server command is: logs, a runtime, tasks, signals and metrics around what it serves, and a drain with a
//! deadline behind it.

use std::{
    future::Future,
    io::{self, Write},
    net::{SocketAddr, TcpListener},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use hearsay_runtime::{
    Admin, MetricsHandle, Readiness, Tasks,
    metrics::{self, Build},
    serve_admin, signals, trace,
};
use tokio::time::{Instant, sleep};

use crate::config::{Config, ConfigError};

/// How often a process that is not ready yet says why.
const SAY_WHY_EVERY: Duration = Duration::from_secs(10);

/// Of the commit it was built from: the image's build tells it.
const COMMIT: &str = match option_env!("HEARSAY_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};
const FEATURES: &str = match (cfg!(feature = "recognizer"), cfg!(feature = "onnxruntime")) {
    (_, true) => "recognizer,onnxruntime",
    (true, false) => "recognizer",
    (false, false) => "none",
};

/// What a server is given.
#[derive(Clone)]
pub(crate) struct Process {
    pub(crate) tasks: Tasks,
    pub(crate) readiness: Readiness,
    pub(crate) metrics: MetricsHandle,
    pub(crate) begun: Instant,
}

/// Runs `serve` until it returns, which it does when the drain begins or something is wrong; then drains.
///
/// It is what `role` says; `workers` threads run it, beside those that `serve` starts.
///
/// # Errors
/// Those of `serve`; else, what was still open at the end of `process.drain_deadline`.
pub(crate) fn run<S, F>(role: &'static str, config: Config, workers: usize, serve: S) -> anyhow::Result<ExitCode>
where
    S: FnOnce(Config, Process) -> F,
    F: Future<Output = anyhow::Result<()>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers.max(1)).enable_all().build()?;
    let tasks = Tasks::new();
    let deadline = config.process.drain_deadline.get();
    let outcome = runtime.block_on(async {
        signals::listen(&tasks)?;
        let metrics = metrics::install();
        metrics.built(Build { role, version: env!("CARGO_PKG_VERSION"), commit: COMMIT, features: FEATURES });
        metrics.keep_up(&tasks);
        let instance = uuid::Uuid::new_v4().to_string();
        trace::install(&config.trace, &format!("hearsay-{role}"), &instance, &tasks)
            .map_err(ConfigError::Contradiction)?;
        let process = Process { tasks: tasks.clone(), readiness: Readiness::new(), metrics, begun: Instant::now() };
        let served = serve(config, process).await;
        let ended = tasks.finish(deadline).await;
        served?;
        ended.map_err(|open| anyhow::anyhow!("still open after {deadline:?}: {}", open.join(", ")))
    });
    // What is still open has had its time.
    runtime.shutdown_background();
    outcome.map(|()| ExitCode::SUCCESS)
}

/// Processors of this machine, or those this process may use.
pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

impl Process {
    /// Answers operators on a port of their own, from here to the end of the drain. Returns where it listens.
    ///
    /// # Errors
    /// When the port is taken.
    pub(crate) async fn serve_admin(&self, address: SocketAddr) -> anyhow::Result<SocketAddr> {
        let listener = tokio::net::TcpListener::bind(address).await.with_context(|| {
            format!("operators' port: cannot listen on {address}; choose another with --admin, for instance --admin 127.0.0.1:0")
        })?;
        let address = listener.local_addr()?;
        tracing::info!(%address, "operators' port");
        // Readiness goes first when the drain begins, whatever the parts do with their own conditions.
        let (staying, drain) = (self.readiness.condition("staying"), self.tasks.drain());
        staying.set(true);
        self.tasks.spawn_background("readiness of the process", async move {
            drain.cancelled().await;
            staying.set(false);
            drain.finished().await;
        });
        serve_admin(listener, Admin::new(self.readiness.clone(), self.metrics.clone()), &self.tasks);
        Ok(address)
    }

    /// Prints `ready URL` once all conditions hold, and returns when the drain begins. Until then it says what it waits for:
    /// the processes of a cluster may be started in any order.
    pub(crate) async fn announce(&self, url: &str) -> anyhow::Result<()> {
        let drain = self.tasks.drain();
        loop {
            tokio::select! {
                () = self.readiness.ready() => break,
                () = drain.cancelled() => return Ok(()),
                () = sleep(SAY_WHY_EVERY) => {
                    tracing::warn!(waiting_for = self.readiness.missing().join(", "), "not ready yet");
                }
            }
        }
        let mut out = io::stdout();
        writeln!(out, "ready {url}")?;
        out.flush()?;
        tracing::info!(url, after = ?self.begun.elapsed(), "ready");
        drain.cancelled().await;
        Ok(())
    }
}

/// Fails at once, and by name, when the port is taken. Cores share a port with each other, so their own bind would not.
pub(crate) fn try_port(address: SocketAddr) -> anyhow::Result<()> {
    let taken = || {
        format!("cannot listen on {address}; choose another address with --listen, for instance --listen 127.0.0.1:0")
    };
    TcpListener::bind(address).map(drop).with_context(taken)
}

/// What a client on this machine connects to.
pub(crate) fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        let here: std::net::IpAddr = match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        };
        address.set_ip(here);
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_told_of_with_its_flag() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = try_port(taken.local_addr().unwrap()).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains(&taken.local_addr().unwrap().to_string()) && text.contains("--listen"), "{text}");
    }

    #[test]
    fn an_address_for_everybody_is_told_as_one_that_can_be_reached() {
        assert_eq!(reachable("0.0.0.0:80".parse().unwrap()), "127.0.0.1:80".parse().unwrap());
        assert_eq!(reachable("[::]:80".parse().unwrap()), "[::1]:80".parse().unwrap());
        assert_eq!(reachable("192.0.2.7:80".parse().unwrap()), "192.0.2.7:80".parse().unwrap());
    }
}
