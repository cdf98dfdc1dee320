//! Puts the parts together: log, recognizer and gateway, alone in a process or all in one. In `hearsay dev` they are joined
//! by the same calls that join them in a cluster; the gRPC hop goes through a loopback connection to the one public port.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroUsize,
    sync::Arc,
    thread::available_parallelism,
    time::Duration,
};

use anyhow::Context;
use hearsay_auth::Auth;
use hearsay_bus::Bus;
use hearsay_fanout::{CoreSet, Hub};
use hearsay_gateway::Gateway;
use hearsay_models::Models;
use hearsay_protocol::GatewayId;
use hearsay_recognizer::{GrpcServer, Recognizer};
use hearsay_runtime::{Admin, Tasks};
use hearsay_speech::{
    engine::{
        Engine,
        moonshine::{MoonshineEngine, MoonshineOptions, MoonshinePaths},
    },
    vad::{Silero, VadModel},
};
use hearsay_uplink::Uplinks;

use crate::{config::Config, log, process::Process};

/// For the recognizer's threads, when no stream is left.
const LAST: Duration = Duration::from_secs(2);

/// Starts everything in this process. Returns where it listens; readiness tells when clients can connect.
pub(crate) async fn everything(
    config: Config,
    auth: Auth,
    models: Models,
    process: &Process,
) -> anyhow::Result<SocketAddr> {
    let tasks = &process.tasks;
    // The port first: everything after it takes longer to fail.
    let edge = Edge::bind(config, tasks)?;
    let address = edge.gateway.local_addr();
    let bus = log::open(&edge.config.bus, &process.readiness, tasks).await?;

    // It serves this process only, so it is there until the last of its streams has ended.
    let served = Tasks::new();
    let recognizer = start_recognizer(&edge.config, models, &bus, &served).await?;
    let drain = tasks.drain();
    tasks.spawn_background("recognizer", async move {
        drain.finished().await;
        if let Err(open) = served.finish(LAST).await {
            tracing::warn!(open = open.join(", "), "the recognizer did not end");
        }
    });
    edge.serve(vec![own_grpc(address)?], bus, auth, Some(&recognizer), process)?;
    Ok(address)
}

/// Starts one gateway. Returns where clients connect; readiness tells when they can speak.
pub(crate) async fn gateway(config: Config, auth: Auth, process: &Process) -> anyhow::Result<SocketAddr> {
    let edge = Edge::bind(config, &process.tasks)?;
    let address = edge.gateway.local_addr();
    let recognizers = edge.config.uplink.addresses().map_err(anyhow::Error::msg)?;
    let bus = log::open(&edge.config.bus, &process.readiness, &process.tasks).await?;
    edge.serve(recognizers, bus, auth, None, process)?;
    Ok(address)
}

/// Starts one recognizer. Returns where it serves gRPC; readiness tells when it takes streams.
pub(crate) async fn recognizer(config: Config, models: Models, process: &Process) -> anyhow::Result<SocketAddr> {
    let server = GrpcServer::bind(&config.recognizer).await?;
    let address = server.local_addr();
    let bus = log::open(&config.bus, &process.readiness, &process.tasks).await?;
    let recognizer = start_recognizer(&config, models, &bus, &process.tasks).await?;
    server.serve(&recognizer, &process.readiness, &process.tasks);
    Ok(address)
}

/// The gateway's port is taken, and nothing is served yet.
struct Edge {
    config: Config,
    cores: CoreSet,
    gateway: Gateway,
}

impl Edge {
    fn bind(config: Config, tasks: &Tasks) -> anyhow::Result<Self> {
        let cores = CoreSet::start(available_parallelism().unwrap_or(NonZeroUsize::MIN), &config.fanout, tasks)?;
        let gateway = Gateway::bind(config.gateway.clone(), &cores)?;
        Ok(Self { config, cores, gateway })
    }

    /// With a recognizer of this process, all is answered on the one port; without, operators have their own.
    fn serve(
        self,
        recognizers: Vec<http::Uri>,
        bus: Arc<dyn Bus>,
        auth: Auth,
        own: Option<&Recognizer>,
        process: &Process,
    ) -> anyhow::Result<()> {
        let Process { tasks, readiness, metrics, .. } = process.clone();
        let uplinks = Uplinks::start(self.config.uplink, recognizers, Arc::clone(&bus), &tasks)?;
        let id = GatewayId(uuid::Uuid::new_v4());
        let hub = Hub::start(self.config.fanout, Arc::clone(&bus), id, self.cores.clone(), &tasks);
        self.gateway.serve(hearsay_gateway::Parts {
            gateway: id,
            bus,
            uplinks,
            hub,
            cores: self.cores,
            auth,
            admin: own.map(|_| Admin::new(readiness.clone(), metrics)),
            readiness,
            grpc: own.map(Recognizer::routes),
            tasks,
        });
        Ok(())
    }
}

async fn start_recognizer(
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

/// The gateway serves gRPC to this machine only, so it is reached by the loopback address of its kind.
fn own_grpc(mut address: SocketAddr) -> anyhow::Result<http::Uri> {
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    format!("http://{address}").parse().with_context(|| format!("the address {address} is no URI"))
}
