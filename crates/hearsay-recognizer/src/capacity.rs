//! Tells gateways how many streams are heard here and how many more there is room for, and proves to those that doubt it
//! that speech is heard here.
//!
//! Cost: one task a gateway, and some twenty bytes a second.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hearsay_rpc::v1::{self, capacity_server};
use hearsay_runtime::Tasks;
use hearsay_speech::{
    engine::Kind,
    lane::{DecodeId, Outcome},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::{
    benchmark::{Clip, LANGUAGE},
    ladder::Load,
    metrics,
    queue::{Answers, Job, Queue},
    slots::{LaneId, Slots},
};

/// How often it is looked whether something changed.
const LOOK: Duration = Duration::from_millis(50);
/// How long nothing is said when nothing changes.
const SAY: Duration = Duration::from_secs(1);
/// How long a gateway may leave what was said unread.
const UNREAD: Duration = Duration::from_secs(10);

/// How long the recording may take, and how long its success is believed: many gateways may ask at once.
const PROBE: Duration = Duration::from_secs(3);
const BELIEVED: Duration = Duration::from_secs(2);

/// Decodes a recording as a stream's final would be.
pub(crate) struct Probe {
    clip: Clip,
    queue: Arc<Queue>,
    running: AtomicBool,
    /// When it was last heard.
    heard: Mutex<Option<Instant>>,
}

/// Where its outcome goes.
struct Told(Mutex<Option<oneshot::Sender<Outcome>>>);

impl Answers for Told {
    fn outcome(&self, _: LaneId, _: DecodeId, outcome: Outcome) {
        if let Some(told) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // Who asked may have gone.
            let _ = told.send(outcome);
        }
    }
}

/// One at a time; the next may begin when this is dropped.
struct Running<'a>(&'a AtomicBool);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Probe {
    pub(crate) fn new(clip: Clip, queue: Arc<Queue>) -> Self {
        Self { clip, queue, running: AtomicBool::new(false), heard: Mutex::default() }
    }

    async fn run(&self) -> Result<(), Status> {
        let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.is_some_and(|at| at.elapsed() < BELIEVED) {
            return Ok(());
        }
        if self.running.swap(true, Ordering::Acquire) {
            return Err(Status::resource_exhausted("another gateway's recording is being decoded"));
        }
        let _running = Running(&self.running);
        let (told, outcome) = oneshot::channel();
        let now = std::time::Instant::now();
        let cancelled = Arc::new(AtomicBool::new(false));
        let job = Job {
            lane: LaneId::PROBE,
            id: 0,
            kind: Kind::Final,
            language: LANGUAGE.into(),
            samples: Arc::clone(&self.clip.samples),
            voice: Arc::clone(&self.clip.voice),
            draft: Arc::from([]),
            memory: Arc::default(),
            deadline: now + PROBE,
            live: true,
            asked: now,
            cancelled: Arc::clone(&cancelled),
            reply: Arc::new(Told(Mutex::new(Some(told)))),
        };
        if self.queue.submit(job).is_err() {
            return Err(Status::unavailable("this recognizer drains"));
        }
        let outcome = timeout(PROBE, outcome).await;
        cancelled.store(true, Ordering::Relaxed);
        let failed = |outcome, status| {
            metrics::probed(outcome);
            Err(status)
        };
        match outcome {
            Ok(Ok(Outcome::Done(transcript))) if !transcript.text.is_empty() => {
                *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                metrics::probed("heard");
                Ok(())
            }
            Ok(Ok(Outcome::Done(_))) => failed("failed", Status::internal("the engine hears no speech")),
            Ok(Ok(Outcome::Failed(error))) => failed("failed", Status::internal(error.to_string())),
            Ok(Ok(Outcome::Dropped) | Err(_)) => failed("failed", Status::unavailable("this recognizer drains")),
            Err(_) => {
                failed("late", Status::deadline_exceeded(format!("no engine thread decoded it within {PROBE:?}")))
            }
        }
    }
}

pub(crate) struct Capacity {
    pub(crate) slots: Arc<Slots>,
    pub(crate) rated: usize,
    pub(crate) load: Arc<Load>,
    pub(crate) probe: Probe,
    pub(crate) tasks: Tasks,
}

#[tonic::async_trait]
impl capacity_server::Capacity for Capacity {
    type WatchStream = ReceiverStream<Result<v1::Load, Status>>;

    async fn probe(&self, _: tonic::Request<v1::ProbeRequest>) -> Result<tonic::Response<v1::ProbeResponse>, Status> {
        if self.tasks.drain().is_draining() {
            return Err(Status::unavailable("this recognizer drains"));
        }
        self.probe.run().await?;
        Ok(tonic::Response::new(v1::ProbeResponse {}))
    }

    async fn watch(&self, _: tonic::Request<v1::WatchRequest>) -> Result<tonic::Response<Self::WatchStream>, Status> {
        let drain = self.tasks.drain();
        if drain.is_draining() {
            return Err(Status::unavailable("this recognizer drains"));
        }
        let (said, saying) = mpsc::channel(1);
        let (slots, load, rated) = (Arc::clone(&self.slots), Arc::clone(&self.load), count(self.rated));
        drop(self.tasks.spawn_background("load", async move {
            let mut look = interval(LOOK);
            look.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut last: Option<(u32, u32, Instant)> = None;
            loop {
                tokio::select! {
                    _ = look.tick() => {}
                    () = said.closed() => return,
                    () = drain.cancelled() => break,
                }
                let (streams, ladder) = (count(slots.taken()), load.step());
                let is_new =
                    |(were, was, at): &(u32, u32, Instant)| (*were, *was) != (streams, ladder) || at.elapsed() >= SAY;
                if last.as_ref().is_none_or(is_new) {
                    last = Some((streams, ladder, Instant::now()));
                    let now = v1::Load { streams, rated, behind_ms: load.behind_ms(), ladder };
                    if !matches!(timeout(UNREAD, said.send(Ok(now))).await, Ok(Ok(()))) {
                        return;
                    }
                }
            }
            // A gateway that does not read is gone.
            let _ = timeout(UNREAD, said.send(Err(Status::unavailable("this recognizer drains")))).await;
        }));
        Ok(tonic::Response::new(ReceiverStream::new(saying)))
    }
}

fn count(places: usize) -> u32 {
    u32::try_from(places).unwrap_or(u32::MAX)
}
