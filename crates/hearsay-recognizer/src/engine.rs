//! The threads that own the model.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use hearsay_speech::{
    engine::{Decoder, ENGINE_RATE, Engine, EngineError, Kind, Request},
    lane::Outcome,
};

use crate::{
    ladder::Load,
    metrics,
    queue::{Job, Queue, Taken},
};

/// Decodes until the queue ends.
pub(crate) fn run(engine: &Arc<dyn Engine>, queue: &Arc<Queue>, load: &Load) {
    let mut decoder = engine.decoder();
    while let Some(Taken { job, late }) = queue.take() {
        let wait = job.asked.elapsed();
        metrics::waited(job.kind(), wait);
        if job.live {
            load.waited(wait);
        }
        let (finals, partials) = queue.depth();
        metrics::queued("final", finals);
        metrics::queued("partial", partials);
        let outcome = if late {
            metrics::partial("late");
            Outcome::Dropped
        } else {
            // A model that panics costs one decode, not the thread.
            catch_unwind(AssertUnwindSafe(|| decode(&mut *decoder, &job, load))).unwrap_or_else(|_| {
                decoder = engine.decoder();
                metrics::failed(job.kind());
                Outcome::Failed(EngineError::Model("it panicked".to_owned()))
            })
        };
        queue.done(job.kind);
        job.reply.outcome(job.lane, job.id, outcome);
    }
}

fn decode(decoder: &mut dyn Decoder, job: &Job, load: &Load) -> Outcome {
    let begun = Instant::now();
    let request = Request {
        samples: &job.samples,
        voice: &job.voice,
        kind: job.kind,
        language: &job.language,
        draft: &job.draft,
        memory: Some(&job.memory),
        cancelled: &job.cancelled,
    };
    match decoder.decode(&request) {
        Ok(transcript) => {
            let audio = Duration::from_secs_f64(job.samples.len() as f64 / f64::from(ENGINE_RATE));
            metrics::decoded(job.kind(), begun.elapsed(), audio);
            if job.kind == Kind::Final {
                load.decoded(begun.elapsed(), audio);
            }
            Outcome::Done(transcript)
        }
        Err(error @ EngineError::Cancelled) => Outcome::Failed(error),
        Err(error) => {
            metrics::failed(job.kind());
            tracing::error!(%error, kind = job.kind(), samples = job.samples.len(), "a decode failed");
            Outcome::Failed(error)
        }
    }
}
