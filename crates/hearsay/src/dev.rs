//! `hearsay dev`: everything in one process.

use std::{
    io::{self, Write},
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, bail};
use hearsay_auth::{App, Auth, Grant, Keys, Permissions, Secret};
use hearsay_models::{Models, Terminal};
use hearsay_protocol::{AccountId, Timestamp};
use hearsay_runtime::{Readiness, Tasks, logs, metrics, signals};
use rand::RngCore;

use crate::{
    cli,
    compose::{self, Parts},
    config::{self, AuthConfig, Config, Flags},
    models, tls,
    token_file::TokenFile,
};

/// For the parts to find each other; each does so within milliseconds, or something is wrong.
const READY_WITHIN: Duration = Duration::from_secs(30);

pub(crate) fn run(arguments: cli::Dev) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    unavailable(&arguments)?;
    let tls = arguments.tls.map(|given| tls_of(&given)).transpose()?;
    let flags = Flags::default()
        .with("--tls", "gateway", "tls", tls)
        .with("--listen", "gateway", "listen", arguments.listen.map(|address| address.to_string()))
        .with("--app-id", "auth", "app_id", arguments.app_id)
        .with("--app-secret", "auth", "app_secret", arguments.app_secret);
    let config = config::load(&arguments.sources, flags)?;
    logs::install(&config.log).map_err(anyhow::Error::msg)?;
    try_port(config.gateway.listen)?;
    if let Some(tls) = &config.gateway.tls {
        tls.check()?;
    }
    let models = models::store(&config)?.fetch(&mut Terminal::default())?;

    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let tasks = Tasks::new();
    let deadline = config.process.drain_deadline.get();
    let outcome = runtime.block_on(async {
        let served = serve(config, models, &tasks, begun).await;
        let ended = tasks.finish(deadline).await;
        served?;
        ended.map_err(|open| anyhow::anyhow!("still open after {deadline:?}: {}", open.join(", ")))
    });
    // What is still open has had its time.
    runtime.shutdown_background();
    outcome.map(|()| ExitCode::SUCCESS)
}

/// Runs until the drain begins.
async fn serve(config: Config, models: Models, tasks: &Tasks, begun: Instant) -> anyhow::Result<()> {
    signals::listen(tasks)?;
    let metrics = metrics::install();
    metrics.keep_up(tasks);
    let readiness = Readiness::new();
    let account = AccountId::new(&config.auth.account)?;
    let scheme = if config.gateway.tls.is_some() { "https" } else { "http" };
    let auth = auth(&config.auth, account.clone())?;
    let drain = tasks.drain();

    let parts = Parts { auth: auth.clone(), readiness: readiness.clone(), metrics, models };
    let address = compose::everything(config, parts, tasks).await?;
    tokio::select! {
        () = readiness.ready() => {}
        () = drain.cancelled() => return Ok(()),
        () = tokio::time::sleep(READY_WITHIN) => bail!("not ready: {}", readiness.missing().join(", ")),
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
    tracing::info!(%address, after = ?begun.elapsed(), "ready");
    drain.cancelled().await;
    Ok(())
}

/// As the configuration says it.
fn tls_of(given: &[PathBuf]) -> anyhow::Result<toml::Table> {
    let files = tls::files(given, &hearsay_models::cache_folder()?)?;
    Ok(toml::Table::try_from(files)?)
}

fn unavailable(arguments: &cli::Dev) -> anyhow::Result<()> {
    if arguments.redis.is_some() {
        bail!(
            "--redis: the Redis log is not in this version; without the flag the log is kept in memory, and ends with \
             the process"
        );
    }
    Ok(())
}

/// Fails at once, and by name, when the port is taken. Cores share a port with each other, so their own bind would not.
fn try_port(address: SocketAddr) -> anyhow::Result<()> {
    let taken = || {
        format!("cannot listen on {address}; choose another address with --listen, for instance --listen 127.0.0.1:0")
    };
    TcpListener::bind(address).map(drop).with_context(taken)?;
    if !(address.ip().is_loopback() || address.ip().is_unspecified()) {
        // The parts reach each other by the loopback address, and gRPC is served to nobody else.
        bail!(
            "--listen {address}: `dev` listens on a loopback address, or on all (0.0.0.0:{0}, [::]:{0})",
            address.port()
        );
    }
    Ok(())
}

/// What a client on this machine connects to.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        let here: std::net::IpAddr = match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        };
        address.set_ip(here);
    }
    address
}

fn auth(config: &AuthConfig, account: AccountId) -> anyhow::Result<Auth> {
    let random = |bytes: &mut [u8]| rand::rng().fill_bytes(bytes);
    let app = match (&config.app_id, &config.app_secret) {
        (Some(id), Some(secret)) => App::new(id.clone(), Secret::new(secret.expose().to_owned()))?,
        _ => {
            let app = App::generate(random);
            eprintln!("app id of this start:     {}", app.id());
            eprintln!("app secret of this start: {}", app.secret().expose());
            app
        }
    };
    if !app.suits_every_client() {
        tracing::warn!("web-sdk takes app ids of 64 and app secrets of 128 letters and digits only, and refuses these");
    }
    let keys = match &config.signing_secret {
        Some(secret) => Keys::new(secret.expose().as_bytes())?,
        None => {
            let mut secret = [0; 64];
            random(&mut secret);
            Keys::new(&secret)?
        }
    };
    Ok(Auth::new(keys, vec![(app, account)], config.token_lifetime.get()))
}

fn now() -> anyhow::Result<Timestamp> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("the clock is before 1970")?;
    Ok(Timestamp(u64::try_from(since.as_micros())?))
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

    #[test]
    fn what_is_not_in_this_version_is_not_accepted_in_silence() {
        let dev = |redis: Option<&str>| cli::Dev {
            listen: None,
            app_id: None,
            app_secret: None,
            redis: redis.map(str::to_owned),
            tls: None,
            sources: cli::Sources::default(),
        };
        assert!(unavailable(&dev(None)).is_ok());
        assert!(unavailable(&dev(Some("redis://localhost"))).unwrap_err().to_string().starts_with("--redis"));
    }
}
