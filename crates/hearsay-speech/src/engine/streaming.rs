//! Engines that listen while somebody speaks: each sample is heard once, however often a partial is asked for.
//!
//! [`Streaming`] makes an [`Engine`] of such a model. What the model made of an utterance so far stands in the utterance's
//! [`Memory`], which comes with every request for it, to whichever thread. A final stays a pure function of its audio: a
//! model answers the same however its audio was divided, and where nothing is remembered it hears all of it.

use std::sync::{Arc, Mutex, PoisonError, atomic::Ordering};

use super::{Capabilities, Decoder, Engine, EngineError, Kind, Request, Transcript, VAD_FRAME};

/// Frames between looks at whether anybody still wants the answer: a second of audio.
const LOOK: usize = 32;

/// A model that takes audio as it comes. Its weights exist once in a process.
pub trait Model: Send + Sync {
    fn capabilities(&self) -> &Capabilities;

    /// Begins an utterance.
    fn listen(&self, language: &str) -> Box<dyn Listening>;
}

/// One utterance at a model. What it answers depends on what it was given and not on how that was divided.
pub trait Listening: Send {
    /// Takes the frames that follow those taken: samples, and the voice activity of each [`VAD_FRAME`] of them.
    ///
    /// # Errors
    /// When the model failed: this utterance has to be begun again.
    fn feed(&mut self, samples: &[f32], voice: &[f32]) -> Result<(), EngineError>;

    /// What was said so far: without word times, and it may change.
    fn so_far(&self) -> Transcript;

    /// The last word on the utterance if nothing but `rest`, which is less than a frame, followed. More may follow all
    /// the same: what was taken stays as it is.
    ///
    /// # Errors
    /// When the model failed.
    fn end(&self, rest: &[f32], voice: &[f32]) -> Result<Transcript, EngineError>;
}

/// What is kept of one utterance between requests. Only streaming engines put something into it.
#[derive(Default)]
pub struct Memory(Mutex<Option<Kept>>);

struct Kept {
    listening: Box<dyn Listening>,
    language: String,
    /// Taken so far.
    samples: usize,
}

impl Memory {
    /// What is of use to this request. Whoever comes while another thread has it, or asks for less than it has heard, finds
    /// nothing, and hears the utterance from its beginning.
    fn take(&self, request: &Request<'_>) -> Option<Kept> {
        let useful = |kept: &mut Kept| kept.samples <= request.samples.len() && kept.language == request.language;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take_if(useful)
    }

    fn keep(&self, kept: Kept) {
        let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if place.as_ref().is_none_or(|other| other.samples < kept.samples) {
            *place = Some(kept);
        }
    }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Memory")
    }
}

/// A streaming model as an engine.
pub struct Streaming<M> {
    model: Arc<M>,
}

impl<M: Model> Streaming<M> {
    pub fn new(model: Arc<M>) -> Self {
        Self { model }
    }
}

impl<M: Model + 'static> Engine for Streaming<M> {
    fn capabilities(&self) -> &Capabilities {
        self.model.capabilities()
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(StreamingDecoder { model: Arc::clone(&self.model) })
    }
}

struct StreamingDecoder<M> {
    model: Arc<M>,
}

impl<M: Model> Decoder for StreamingDecoder<M> {
    fn decode(&mut self, request: &Request<'_>) -> Result<Transcript, EngineError> {
        let (samples, limit) = (request.samples, self.model.capabilities().max_samples);
        if samples.len() > limit {
            return Err(EngineError::TooLong { samples: samples.len(), limit });
        }
        let known = request.memory.and_then(|memory| memory.take(request));
        let mut kept = known.unwrap_or_else(|| Kept {
            listening: self.model.listen(request.language),
            language: request.language.to_owned(),
            samples: 0,
        });
        let whole = samples.len() / VAD_FRAME * VAD_FRAME;
        while kept.samples < whole {
            if request.cancelled.load(Ordering::Relaxed) {
                return Err(EngineError::Cancelled);
            }
            let until = (kept.samples + LOOK * VAD_FRAME).min(whole);
            let voice = request.voice.get(kept.samples / VAD_FRAME..until / VAD_FRAME).unwrap_or_default();
            kept.listening.feed(&samples[kept.samples..until], voice)?;
            kept.samples = until;
        }
        let transcript = match request.kind {
            Kind::Partial => kept.listening.so_far(),
            Kind::Final => {
                kept.listening.end(&samples[whole..], request.voice.get(whole / VAD_FRAME..).unwrap_or_default())?
            }
        };
        if let Some(memory) = request.memory {
            memory.keep(kept);
        }
        Ok(transcript)
    }
}
