//! `hearsay dev`: everything in one process.

use std::{
    io::{self, Write},
    net::SocketAddr,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use anyhow::{Context, bail};
use hearsay_auth::{Auth, Grant, Permissions};
use hearsay_models::{Models, Terminal};
use hearsay_protocol::{AccountId, Timestamp};
use hearsay_runtime::logs;

use crate::{
    auth, cli, compose,
    config::{self, Config, Flags},
    models,
    process::{self, Process, reachable, try_port},
    tls,
    token_file::TokenFile,
};

/// For the parts to find each other; each does so within milliseconds, or something is wrong.
const READY_WITHIN: Duration = Duration::from_secs(30);

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
    process::run(config, |config, process| serve(config, process, auth, models))
}

/// Runs until the drain begins.
async fn serve(config: Config, process: Process, auth: Auth, models: Models) -> anyhow::Result<()> {
    let account = AccountId::new(&config.auth.account)?;
    let scheme = if config.gateway.tls.is_some() { "https" } else { "http" };
    let drain = process.tasks.drain();

    let address = compose::everything(config, auth.clone(), models, &process).await?;
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
