//! `hearsay recognizer`: one recognizer of a cluster.

use std::{io::Write as _, net::SocketAddr, process::ExitCode, sync::Arc};

use anyhow::Context as _;
use hearsay_bus::Bus;
use hearsay_embedding::MiniLm;
use hearsay_models::{ModelStore, Models, Terminal};
use hearsay_recognizer::{Benchmark, EngineConfig, GrpcServer, ModelName, Recognizer, RuntimeName};
use hearsay_runtime::{Tasks, logs};
use hearsay_speech::{
    engine::{
        Engine,
        moonshine::{MoonshineEngine, MoonshineOptions, MoonshinePaths, Runtime},
        several::Several,
        whisper::{WhisperEngine, WhisperPaths},
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
        let store = models::store(&config)?;
        let models = store.fetch(&mut Terminal::default())?;
        let (engine, voice) = load(&models, &config.recognizer, &store)?;
        let measured = Benchmark::measure(&config.recognizer, &*engine, &*voice)?;
        writeln!(std::io::stdout(), "{measured}")?;
        return Ok(ExitCode::SUCCESS);
    }
    log::shared(&config.bus, "recognizer")?;
    try_port(config.recognizer.listen)?;
    let models = models::store(&config)?.fetch(&mut Terminal::default())?;
    process::run("recognizer", config, process::processors(), |config, process| serve(config, process, models))
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
    let (store, with) = (models::store(config)?, config.recognizer.clone());
    let minilm = models.minilm.clone();
    let loading = tokio::task::spawn_blocking(move || load(&models, &with, &store));
    let weighing = tokio::task::spawn_blocking(move || MiniLm::load(&minilm.model, &minilm.tokenizer));
    let meaning = Arc::new(weighing.await??);
    let (engine, voice) = loading.await??;
    let (config, bus) = (config.recognizer.clone(), Arc::clone(bus));
    Ok(Recognizer::start(config, engine, voice, Some(meaning), bus, tasks).await?)
}

/// What the models run on, fetched if need be.
fn runtime(config: &hearsay_recognizer::Config, store: &ModelStore) -> anyhow::Result<Runtime> {
    match config.engine.runtime {
        RuntimeName::Rten => Ok(MoonshineOptions::default().runtime),
        RuntimeName::OnnxRuntime => onnx_runtime(config, store),
    }
}

#[cfg(feature = "onnxruntime")]
fn onnx_runtime(config: &hearsay_recognizer::Config, store: &ModelStore) -> anyhow::Result<Runtime> {
    let library = match &config.engine.library {
        Some(library) => library.clone(),
        None => store.onnxruntime(&mut Terminal::default())?,
    };
    let (providers, threads) = (config.engine.providers.clone(), config.engine_threads());
    Ok(Runtime::OnnxRuntime(hearsay_speech::engine::onnxruntime::OnnxRuntime { library, providers, threads }))
}

#[cfg(not(feature = "onnxruntime"))]
fn onnx_runtime(_: &hearsay_recognizer::Config, _: &ModelStore) -> anyhow::Result<Runtime> {
    anyhow::bail!(
        "recognizer.engine.runtime is \"onnxruntime\", which this program was built without: build it with \
         `--features onnxruntime`, or leave the run time as it is"
    )
}

/// Fetches what the configuration names beside what every recognizer needs.
pub(crate) fn fetch_configured(config: &EngineConfig, store: &ModelStore) -> anyhow::Result<()> {
    if config.models.contains(&ModelName::WhisperBase) {
        store.whisper(&mut Terminal::default())?;
    }
    if config.runtime == RuntimeName::OnnxRuntime && config.library.is_none() {
        store.onnxruntime(&mut Terminal::default())?;
    }
    Ok(())
}

type Loaded = (Arc<dyn Engine>, Arc<dyn VadModel>);

fn load(models: &Models, config: &hearsay_recognizer::Config, store: &ModelStore) -> anyhow::Result<Loaded> {
    let runtime = runtime(config, store)?;
    let mut engines = Vec::new();
    for name in &config.engine.models {
        engines.push(match name {
            ModelName::MoonshineBaseEn => moonshine(models, runtime.clone())?,
            ModelName::WhisperBase => whisper(store, &runtime)?,
        });
    }
    let engine = match <[Arc<dyn Engine>; 1]>::try_from(engines) {
        Ok([engine]) => engine,
        Err(engines) => Arc::new(Several::of(engines).context("recognizer.engine.models is empty")?),
    };
    let voice = Silero::load(&models.silero)?;
    Ok((engine, Arc::new(voice)))
}

fn moonshine(models: &Models, runtime: Runtime) -> anyhow::Result<Arc<dyn Engine>> {
    let files = models.moonshine.clone();
    let paths = MoonshinePaths { encoder: files.encoder, decoder: files.decoder, tokenizer: files.tokenizer };
    Ok(Arc::new(MoonshineEngine::load(&paths, &MoonshineOptions { runtime })?))
}

fn whisper(store: &ModelStore, runtime: &Runtime) -> anyhow::Result<Arc<dyn Engine>> {
    let files = store.whisper(&mut Terminal::default())?;
    let paths = WhisperPaths { encoder: files.encoder, decoder: files.decoder, vocabulary: files.vocabulary };
    Ok(Arc::new(WhisperEngine::load(&paths, runtime)?))
}
