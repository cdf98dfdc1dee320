//! `hearsay actions`: carries out the rules for automated actions, in a cluster.

use std::process::ExitCode;

use hearsay_runtime::logs;

use crate::{
    cli,
    config::{self, Config, ConfigError, Flags},
    log,
    process::{self, Process},
};

pub(crate) fn run(arguments: cli::Actions) -> anyhow::Result<ExitCode> {
    let flags = Flags::default()
        .with("--admin", "admin", "listen", arguments.admin.map(|address| address.to_string()))
        .with("--redis", "bus", "url", arguments.redis);
    let config = config::load(&arguments.sources, flags)?;
    logs::install(&config.log).map_err(anyhow::Error::msg)?;
    log::shared(&config.bus, "actions")?;
    if !config.actions.is_configured() {
        let missing = "there are no rules: `hearsay actions` takes actions.webhooks or actions.mails from --config FILE; \
                       gateways take the same file";
        return Err(ConfigError::Contradiction(missing.to_owned()).into());
    }
    process::run("actions", config, process::processors(), serve)
}

async fn serve(config: Config, process: Process) -> anyhow::Result<()> {
    let admin = process.serve_admin(config.admin.listen).await?;
    let bus = log::open(&config.bus, &process.readiness, &process.tasks).await?;
    hearsay_actions::start(config.actions, bus, &process.tasks).await?;
    process.announce(&format!("http://{}", process::reachable(admin))).await
}
