//! Puts the parts of `hearsay dev` together: log, recognizer and gateway, joined by the same calls that join them in a
//! cluster. The gRPC hop goes through a loopback connection to the one public port.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroUsize,
    sync::Arc,
    thread::available_parallelism,
    time::Duration,
};

use anyhow::Context;
use hearsay_auth::Auth;
use hearsay_bus::{
    Bus, MemoryBus, SystemClock,
    drive::{self, Compactor},
};
use hearsay_conversation::{Conversation, Record};
use hearsay_fanout::{CoreSet, Hub};
use hearsay_gateway::Gateway;
use hearsay_models::Models;
use hearsay_protocol::GatewayId;
use hearsay_recognizer::Recognizer;
use hearsay_runtime::{Admin, MetricsHandle, Readiness, Tasks};
use hearsay_speech::{
    engine::{
        Engine,
        moonshine::{MoonshineEngine, MoonshineOptions, MoonshinePaths},
    },
    vad::{Silero, VadModel},
};
use hearsay_uplink::Uplinks;

use crate::config::Config;

/// How often deadlines of conversations are looked at.
const ROUND_EVERY: Duration = Duration::from_secs(1);

/// For the recognizer's threads, when no stream is left.
const LAST: Duration = Duration::from_secs(2);

/// What the parts share with whoever composes them.
pub(crate) struct Parts {
    pub(crate) auth: Auth,
    pub(crate) readiness: Readiness,
    pub(crate) metrics: MetricsHandle,
    pub(crate) models: Models,
}

/// Starts everything in this process. Returns where it listens; `readiness` tells when clients can connect.
pub(crate) async fn everything(config: Config, parts: Parts, tasks: &Tasks) -> anyhow::Result<SocketAddr> {
    let Parts { auth, readiness, metrics, models } = parts;
    // The port first: everything after it takes longer to fail.
    let cores = CoreSet::start(available_parallelism().unwrap_or(NonZeroUsize::MIN), &config.fanout, tasks)?;
    let gateway = Gateway::bind(config.gateway, &cores)?;
    let address = gateway.local_addr();

    let bus: Arc<dyn Bus> = Arc::new(MemoryBus::new(config.bus.limits(), Arc::new(SystemClock::default())));
    drive_lifecycles(Arc::clone(&bus), tasks);

    let (engine, voice) = tokio::task::spawn_blocking(move || load(&models)).await??;
    let recognizer = {
        // It serves this process only, so it is there until the last of its streams has ended.
        let served = Tasks::new();
        let recognizer = Recognizer::start(config.recognizer, engine, voice, Arc::clone(&bus), &served).await?;
        let drain = tasks.drain();
        tasks.spawn_background("recognizer", async move {
            drain.finished().await;
            if let Err(open) = served.finish(LAST).await {
                tracing::warn!(open = open.join(", "), "the recognizer did not end");
            }
        });
        recognizer
    };
    let uplinks = Uplinks::start(config.uplink, vec![own_grpc(address)?], Arc::clone(&bus), tasks);

    let id = GatewayId(uuid::Uuid::new_v4());
    let hub = Hub::start(config.fanout, Arc::clone(&bus), id, cores.clone(), tasks);
    gateway.serve(hearsay_gateway::Parts {
        gateway: id,
        bus,
        uplinks,
        hub,
        cores,
        auth,
        admin: Some(Admin::new(readiness.clone(), metrics)),
        readiness,
        grpc: Some(recognizer.routes()),
        tasks: tasks.clone(),
    });
    Ok(address)
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

/// Ends what is over: joins, leaves and ends that only time brings.
fn drive_lifecycles(bus: Arc<dyn Bus>, tasks: &Tasks) {
    let drain = tasks.drain();
    let compactor: Compactor = Arc::new(|_, entries| {
        let mut conversation = Conversation::default();
        entries.iter().for_each(|entry| conversation.apply(entry));
        Record::of(&conversation).to_bytes().into()
    });
    tasks.spawn_background("lifecycles", async move {
        loop {
            if let Err(error) = drive::round(&*bus, &compactor).await {
                tracing::warn!(%error, "deadlines wait");
            }
            tokio::select! {
                () = tokio::time::sleep(ROUND_EVERY) => {}
                () = drain.finished() => return,
            }
        }
    });
}
