//! The worker: streams of audio in by gRPC, finals onto the conversation log.
//!
//! Three kinds of threads that never do each other's work: the runtime's carry calls and talk to the log, *listening*
//! threads decode, resample and detect voice ([`lanes`]), *engine* threads run the speech model, most urgent first
//! ([`queue`]). A recognizer holds nothing that cannot be rebuilt from the log and unacknowledged audio.

pub mod analyst;
mod benchmark;
mod capacity;
mod config;
mod engine;
mod grpc;
mod ladder;
mod lanes;
mod metrics;
mod publish;
mod queue;
mod room;
mod service;
mod slots;
mod thought;
mod trace;

use std::{sync::Arc, time::Duration};

use hearsay_bus::Bus;
use hearsay_insight::meaning::Meaning;
use hearsay_rpc::v1::{self, capacity_server::CapacityServer, recognizer_server::RecognizerServer};
use hearsay_runtime::Tasks;
use hearsay_speech::{engine::Engine, vad::VadModel};
use tonic::service::Routes;

pub use benchmark::{Benchmark, BenchmarkError};
pub use config::{Config, EngineConfig, LadderConfig, ModelName, RuntimeName, SegmentConfig};
pub use grpc::{BindError, GrpcServer, GrpcTls};
pub use thought::Thought;

use crate::{
    analyst::Analysts,
    benchmark::Clip,
    capacity::{Capacity, Probe},
    ladder::Load,
    lanes::{Listening, Mailbox},
    queue::Queue,
    room::Rooms,
    service::Service,
    slots::Slots,
};

/// How often load that nobody adds to is looked at again.
const LOOK: Duration = Duration::from_millis(500);

/// Streams that are taken by a recognizer that measures fewer.
const FEW: usize = 8;

/// A running recognizer.
pub struct Recognizer {
    routes: Routes,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0}")]
    Config(String),
    #[error(transparent)]
    Benchmark(#[from] BenchmarkError),
    #[error("the measurement broke off")]
    Measuring,
    #[error("a thread could not be started: {0}")]
    Thread(#[from] std::io::Error),
    #[error("the service's description does not decode: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// The recording to prove with that speech is heard, and how many streams can be heard well.
async fn rate(config: &Config, engine: &Arc<dyn Engine>, vad: &Arc<dyn VadModel>) -> Result<(Clip, usize), StartError> {
    let (config, engine, vad) = (config.clone(), Arc::clone(engine), Arc::clone(vad));
    let measuring = tokio::task::spawn_blocking(move || {
        let clip = Clip::load(&config, &*vad)?;
        if config.rated > 0 {
            return Ok((clip, config.rated.min(config.streams.get())));
        }
        let measured = Benchmark::measure(&config, &*engine, &*vad)?;
        metrics::measured(&measured);
        tracing::info!(
            streams = measured.streams, last = ?measured.last, partial = ?measured.partial,
            listening = ?measured.listening, "measured what can be heard here"
        );
        Ok((clip, measured.streams))
    });
    measuring.await.map_err(|_| StartError::Measuring)?
}

impl Recognizer {
    /// Starts its threads. They end, joined by `tasks`, when all calls have.
    ///
    /// # Errors
    /// For a configuration that contradicts itself, and without threads.
    pub async fn start(
        config: Config,
        engine: Arc<dyn Engine>,
        vad: Arc<dyn VadModel>,
        meaning: Option<Arc<dyn Meaning>>,
        bus: Arc<dyn Bus>,
        tasks: &Tasks,
    ) -> Result<Self, StartError> {
        config.validate().map_err(StartError::Config)?;
        metrics::describe();
        metrics::ladder(0);
        let (clip, rated) = rate(&config, &engine, &vad).await?;
        metrics::rated(rated);
        let threads = config.engine_threads();
        let queue = Arc::new(Queue::new(threads, config.partials_waiting));
        let load = Arc::new(Load::new(&config.ladder));
        for _ in 0..threads {
            let (engine, queue, load) = (Arc::clone(&engine), Arc::clone(&queue), Arc::clone(&load));
            tasks.spawn_thread("engine", move || engine::run(&engine, &queue, &load))?;
        }
        let mailboxes: Vec<Arc<Mailbox>> = (0..config.listening_threads.get()).map(|_| Arc::default()).collect();
        for mailbox in &mailboxes {
            let mailbox = Arc::clone(mailbox);
            let listening = Listening {
                queue: Arc::clone(&queue),
                load: Arc::clone(&load),
                final_target: config.final_target.get(),
            };
            tasks.spawn_thread("listening", move || lanes::listen(&mailbox, &listening))?;
        }

        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_serving::<RecognizerServer<Service>>().await;
        let (drain, watched, ends) = (tasks.drain(), Arc::clone(&load), (Arc::clone(&queue), mailboxes.clone()));
        drop(tasks.spawn_background("recognizer", async move {
            let mut look = tokio::time::interval(LOOK);
            let mut serving = true;
            loop {
                tokio::select! {
                    _ = look.tick() => watched.tick(),
                    () = drain.cancelled(), if serving => {
                        serving = false;
                        health.set_not_serving::<RecognizerServer<Service>>().await;
                    }
                    () = drain.finished() => break,
                }
            }
            let (queue, mailboxes) = ends;
            queue.close();
            for mailbox in mailboxes {
                mailbox.end();
            }
        }));

        let message = config.message_bytes.as_usize();
        let slots = Slots::new(config.streams.get());
        // A measurement can be unlucky, and a small meeting is heard anywhere: the ladder sees to the rest.
        let admitted = if config.rated > 0 { rated } else { rated.max(FEW) };
        let capacity = Capacity {
            slots: Arc::clone(&slots),
            rated,
            load: Arc::clone(&load),
            probe: Probe::new(clip, Arc::clone(&queue)),
            tasks: tasks.clone(),
        };
        let thought = meaning.map(Thought::new);
        let analysts = Analysts::new(Arc::clone(&bus), thought.clone(), tasks);
        let rooms = Rooms::new(Arc::clone(&bus), tasks);
        let tasks = tasks.clone();
        let service =
            Service { analysts, thought, rooms, slots, config, engine, vad, bus, mailboxes, load, tasks, admitted };
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(v1::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()?;
        let routes = Routes::new(RecognizerServer::new(service).max_decoding_message_size(message))
            .add_service(CapacityServer::new(capacity))
            .add_service(health_service)
            .add_service(reflection);
        Ok(Self { routes })
    }

    /// What answers gRPC: the recognizer, standard health and reflection.
    pub fn routes(&self) -> Routes {
        self.routes.clone()
    }
}
