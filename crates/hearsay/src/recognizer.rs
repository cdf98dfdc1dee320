//! `hearsay recognizer`: one recognizer of a cluster.

use std::process::ExitCode;

use hearsay_models::{Models, Terminal};
use hearsay_runtime::logs;

use crate::{
    cli, compose,
    config::{self, Config, Flags},
    log, models,
    process::{self, Process, reachable, try_port},
};

pub(crate) fn run(arguments: cli::Recognizer) -> anyhow::Result<ExitCode> {
    let flags = Flags::default()
        .with("--listen", "recognizer", "listen", arguments.listen.map(|address| address.to_string()))
        .with("--admin", "admin", "listen", arguments.admin.map(|address| address.to_string()))
        .with("--redis", "bus", "url", arguments.redis);
    let config = config::load(&arguments.sources, flags)?;
    logs::install(&config.log).map_err(anyhow::Error::msg)?;
    log::shared(&config.bus, "recognizer")?;
    try_port(config.recognizer.listen)?;
    let models = models::store(&config)?.fetch(&mut Terminal::default())?;
    process::run(config, |config, process| serve(config, process, models))
}

async fn serve(config: Config, process: Process, models: Models) -> anyhow::Result<()> {
    process.serve_admin(config.admin.listen).await?;
    let address = compose::recognizer(config, models, &process).await?;
    process.announce(&format!("grpc://{}", reachable(address))).await
}
