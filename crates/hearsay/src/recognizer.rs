//! `hearsay recognizer`: one recognizer of a cluster.

use std::{io::Write as _, net::SocketAddr, process::ExitCode, sync::Arc};

use hearsay_bus::Bus;
use hearsay_models::{Models, Terminal};
use hearsay_recognizer::{Benchmark, GrpcServer, Recognizer};
use hearsay_runtime::{Tasks, logs};
use hearsay_speech::{
    engine::{
        Engine,
        moonshine::{MoonshineEngine, MoonshineOptions, MoonshinePaths},
    },
    vad::{Silero, VadModel},
};

use crate::{
    cli,
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
    if arguments.benchmark {
        let models = models::store(&config)?.fetch(&mut Terminal::default())?;
        let (engine, voice) = load(&models)?;
        let measured = Benchmark::measure(&config.recognizer, &*engine, &*voice)?;
        writeln!(std::io::stdout(), "{measured}")?;
        return Ok(ExitCode::SUCCESS);
    }
    log::shared(&config.bus, "recognizer")?;
    try_port(config.recognizer.listen)?;
    let models = models::store(&config)?.fetch(&mut Terminal::default())?;
    process::run(config, process::processors(), |config, process| serve(config, process, models))
}

async fn serve(config: Config, process: Process, models: Models) -> anyhow::Result<()> {
    process.serve_admin(config.admin.listen).await?;
    let address = listen(config, models, &process).await?;
    process.announce(&format!("grpc://{}", reachable(address))).await
}

/// Starts one recognizer. Returns where it serves gRPC; readiness tells when it takes streams.
async fn listen(config: Config, models: Models, process: &Process) -> anyhow::Result<SocketAddr> {
    let server = GrpcServer::bind(&config.recognizer).await?;
    let address = server.local_addr();
    let bus = log::open(&config.bus, &process.readiness, &process.tasks).await?;
    let recognizer = start(&config, models, &bus, &process.tasks).await?;
    server.serve(&recognizer, &process.readiness, &process.tasks);
    Ok(address)
}

/// Loads the models and starts the threads that run them.
pub(crate) async fn start(
    config: &Config,
    models: Models,
    bus: &Arc<dyn Bus>,
    tasks: &Tasks,
) -> anyhow::Result<Recognizer> {
    let (engine, voice) = tokio::task::spawn_blocking(move || load(&models)).await??;
    Ok(Recognizer::start(config.recognizer.clone(), engine, voice, Arc::clone(bus), tasks).await?)
}

fn load(models: &Models) -> anyhow::Result<(Arc<dyn Engine>, Arc<dyn VadModel>)> {
    let files = models.moonshine.clone();
    let paths = MoonshinePaths { encoder: files.encoder, decoder: files.decoder, tokenizer: files.tokenizer };
    let engine = MoonshineEngine::load(&paths, &MoonshineOptions::default())?;
    let voice = Silero::load(&models.silero)?;
    Ok((Arc::new(engine), Arc::new(voice)))
}
