//! `hearsay gateway`: one gateway of a cluster.

use std::process::ExitCode;

use hearsay_runtime::logs;

use crate::{
    auth, cli, compose,
    config::{self, Config, ConfigError, Flags},
    log,
    process::{self, Process, reachable, try_port},
    tls,
};

pub(crate) fn run(arguments: cli::Gateway) -> anyhow::Result<ExitCode> {
    let tls = arguments.tls.map(|given| tls::as_configured(&given)).transpose()?;
    let recognizers = (!arguments.recognizers.is_empty()).then_some(arguments.recognizers);
    let flags = Flags::default()
        .with("--tls", "gateway", "tls", tls)
        .with("--listen", "gateway", "listen", arguments.listen.map(|address| address.to_string()))
        .with("--admin", "admin", "listen", arguments.admin.map(|address| address.to_string()))
        .with("--redis", "bus", "url", arguments.redis)
        .with("--recognizer", "uplink", "recognizers", recognizers);
    let config = config::load(&arguments.sources, flags)?;
    logs::install(&config.log).map_err(anyhow::Error::msg)?;
    log::shared(&config.bus, "gateway")?;
    if config.uplink.recognizers.is_empty() {
        let missing = "uplink.recognizers is empty: `hearsay gateway` takes --recognizer http://HOST:50051, or \
                       HEARSAY__UPLINK__RECOGNIZERS='[\"http://HOST:50051\"]'";
        return Err(ConfigError::Contradiction(missing.to_owned()).into());
    }
    try_port(config.gateway.listen)?;
    if let Some(tls) = &config.gateway.tls {
        tls.check()?;
    }
    let auth = auth::of_a_cluster(&config.auth)?;
    // Sockets have a thread per processor of their own; a worker without work costs the others wake-ups.
    process::run("gateway", config, process::processors() / 2, |config, process| serve(config, process, auth))
}

async fn serve(config: Config, process: Process, auth: hearsay_auth::Auth) -> anyhow::Result<()> {
    process.serve_admin(config.admin.listen).await?;
    let scheme = if config.gateway.tls.is_some() { "https" } else { "http" };
    let address = compose::gateway(config, auth, &process).await?;
    process.announce(&format!("{scheme}://{}", reachable(address))).await
}
