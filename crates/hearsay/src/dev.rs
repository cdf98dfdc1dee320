//! `hearsay dev`: everything in one process.

use std::{
    io::{self, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, bail};
use hearsay_auth::{Auth, Grant, Permissions};
use hearsay_models::{Models, Terminal};
use hearsay_protocol::{AccountId, Timestamp};
use hearsay_runtime::{Tasks, logs};

use crate::{
    auth, cli,
    compose::Edge,
    config::{self, Config, Flags},
    log, models,
    process::{self, Process, reachable, try_port},
    recognizer, tls,
    token_file::TokenFile,
};

/// For the parts to find each other; each does so within milliseconds, or something is wrong.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// For the recognizer's threads, when no stream is left.
const LAST: Duration = Duration::from_secs(2);

pub(crate) fn run(arguments: cli::Dev) -> anyhow::Result<ExitCode> {
    let tls = arguments.tls.map(|given| tls::as_configured(&given)).transpose()?;
    let flags = Flags::default()
        .with("--tls", "gateway", "tls", tls)
        .with("--listen", "gateway", "listen", arguments.listen.map(|address| address.to_string()))
        .with("--redis", "bus", "url", arguments.redis)
        .with("--app-id", "auth", "app_id", arguments.app_id)
        .with("--app-secret", "auth", "app_secret", arguments.app_secret);
    let config = config::load(&arguments.sources, flags)?;
    logs::install(&config.log).map_err(anyhow::Error::msg)?;
    try_port(config.gateway.listen)?;
    for_this_machine(config.gateway.listen)?;
    if let Some(tls) = &config.gateway.tls {
        tls.check()?;
    }
    let models = models::store(&config)?.fetch(&mut Terminal::default())?;
    let auth = auth::of_this_start(&config.auth)?;
    process::run("dev", config, process::processors(), |config, process| serve(config, process, auth, models))
}

/// Runs until the drain begins.
async fn serve(config: Config, process: Process, auth: Auth, models: Models) -> anyhow::Result<()> {
    let account = AccountId::new(&config.auth.account)?;
    let scheme = if config.gateway.tls.is_some() { "https" } else { "http" };
    let drain = process.tasks.drain();

    let address = everything(config, auth.clone(), models, &process).await?;
    tokio::select! {
        () = process.readiness.ready() => {}
        () = drain.cancelled() => return Ok(()),
        () = tokio::time::sleep(READY_WITHIN) => bail!("not ready: {}", process.readiness.missing().join(", ")),
    }

    let grant = Grant { account, permissions: Permissions::of_an_app(), meeting: None, name: None };
    let token = auth.issue(&grant, now()?).access_token;
    let left = hearsay_models::cache_folder().ok().map(|cache| TokenFile::leave(&cache, address.port(), &token));
    if let Some(Err(error)) = &left {
        tracing::warn!(%error, "the token could not be left for `hearsay transcribe`; pass it by hand");
    }
    let mut out = io::stdout();
    writeln!(out, "ready {scheme}://{}", reachable(address))?;
    writeln!(out, "token {token}")?;
    out.flush()?;
    // For people; the token is behind the #, which browsers send to nobody.
    eprintln!("open in a browser:        {scheme}://{}/?meeting=stand-up#token={token}", reachable(address));
    tracing::info!(%address, after = ?process.begun.elapsed(), "ready");
    drain.cancelled().await;
    Ok(())
}

/// Starts everything in this process. Returns where it listens; readiness tells when clients can connect.
async fn everything(mut config: Config, auth: Auth, models: Models, process: &Process) -> anyhow::Result<SocketAddr> {
    let tasks = &process.tasks;
    // There is no other recognizer to share streams with, so nothing is measured.
    if config.recognizer.rated == 0 {
        config.recognizer.rated = config.recognizer.streams.get();
    }
    // The port first: everything after it takes longer to fail.
    let edge = Edge::bind(config, tasks)?;
    let address = edge.gateway.local_addr();
    let bus = log::open(&edge.config.bus, &process.readiness, tasks).await?;

    hearsay_actions::start(edge.config.actions.clone(), Arc::clone(&bus), tasks).await?;

    // It serves this process only, so it is there until the last of its streams has ended.
    let served = Tasks::new();
    let recognizer = recognizer::start(&edge.config, models, &bus, &served).await?;
    let drain = tasks.drain();
    tasks.spawn_background("recognizer", async move {
        drain.finished().await;
        if let Err(open) = served.finish(LAST).await {
            tracing::warn!(open = open.join(", "), "the recognizer did not end");
        }
    });
    edge.serve(vec![own_grpc(address)?], bus, auth, Some(recognizer.routes()), process)?;
    Ok(address)
}

/// The gateway serves gRPC to this machine only, so it is reached by the loopback address of its kind.
fn own_grpc(mut address: SocketAddr) -> anyhow::Result<http::Uri> {
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    format!("http://{address}").parse().with_context(|| format!("the address {address} is no URI"))
}

fn for_this_machine(address: SocketAddr) -> anyhow::Result<()> {
    if !(address.ip().is_loopback() || address.ip().is_unspecified()) {
        // The parts reach each other by the loopback address, and gRPC is served to nobody else.
        bail!(
            "--listen {address}: `dev` listens on a loopback address, or on all (0.0.0.0:{0}, [::]:{0})",
            address.port()
        );
    }
    Ok(())
}

fn now() -> anyhow::Result<Timestamp> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("the clock is before 1970")?;
    Ok(Timestamp(u64::try_from(since.as_micros())?))
}
