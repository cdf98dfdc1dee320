//! Moonshine base, English: encoder and decoder on a run time of choice, with guards and word times.
//!
//! Costs about 5 % of a core per second of speech for a final; half of it is the encoder.

mod backend;
mod decode;
#[cfg(feature = "onnxruntime")]
mod onnxruntime;
mod pure;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, path::PathBuf, sync::Arc};

use self::{
    backend::Model,
    decode::{Loop, Said},
};
#[cfg(feature = "onnxruntime")]
use super::onnxruntime::OnnxRuntime;
use super::{
    Capabilities, Decoder, ENGINE_RATE, Engine, EngineError, Kind, Request, Transcript, VAD_FRAME,
    guard::Bounds,
    said::{Heard, transcript},
    tokenizer::Tokenizer,
};

/// Where the model's files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoonshinePaths {
    pub encoder: PathBuf,
    pub decoder: PathBuf,
    pub tokenizer: PathBuf,
}

/// How to run it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoonshineOptions {
    pub runtime: Runtime,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Runtime {
    /// In Rust; nothing else is needed.
    Pure {
        /// Keep weights in the order they are read in: a little faster for about 60 MB.
        prepack: bool,
    },
    /// A shared library loaded at run time.
    #[cfg(feature = "onnxruntime")]
    OnnxRuntime(OnnxRuntime),
}

impl Default for MoonshineOptions {
    fn default() -> Self {
        Self { runtime: Runtime::Pure { prepack: true } }
    }
}

/// The loaded model.
pub struct MoonshineEngine {
    loaded: Loaded,
    tokenizer: Arc<Tokenizer>,
}

enum Loaded {
    Pure(pure::Pure),
    #[cfg(feature = "onnxruntime")]
    OnnxRuntime(onnxruntime::Loaded),
}

/// Longer audio makes the model repeat itself.
const MAX_SAMPLES: usize = 30 * ENGINE_RATE as usize;

/// Samples in one frame of the encoder: 24 ms.
const FRAME: usize = 384;

/// Shorter audio is filled up with silence: the encoder needs a few frames.
const MIN_SAMPLES: usize = 4 * VAD_FRAME;

const CAPABILITIES: Capabilities =
    Capabilities { name: "moonshine-base-en", languages: &["en"], max_samples: MAX_SAMPLES, batch_invariant: false };

impl MoonshineEngine {
    /// # Errors
    /// [`EngineError::Load`] names the file that cannot be used.
    pub fn load(paths: &MoonshinePaths, options: &MoonshineOptions) -> Result<Self, EngineError> {
        let tokenizer = Arc::new(Tokenizer::load(&paths.tokenizer)?);
        let loaded = match &options.runtime {
            Runtime::Pure { prepack } => Loaded::Pure(pure::Pure::load(paths, *prepack)?),
            #[cfg(feature = "onnxruntime")]
            Runtime::OnnxRuntime(with) => Loaded::OnnxRuntime(onnxruntime::Loaded::load(paths, with)?),
        };
        Ok(Self { loaded, tokenizer })
    }
}

impl Engine for MoonshineEngine {
    fn capabilities(&self) -> &Capabilities {
        &CAPABILITIES
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        let tokenizer = Arc::clone(&self.tokenizer);
        match &self.loaded {
            Loaded::Pure(model) => Box::new(MoonshineDecoder { session: model.session(), tokenizer }),
            #[cfg(feature = "onnxruntime")]
            Loaded::OnnxRuntime(model) => Box::new(MoonshineDecoder { session: model.session(), tokenizer }),
        }
    }
}

struct MoonshineDecoder<S> {
    session: S,
    tokenizer: Arc<Tokenizer>,
}

impl<S: backend::Session> Decoder for MoonshineDecoder<S> {
    fn decode(&mut self, request: &Request<'_>) -> Result<Transcript, EngineError> {
        if request.samples.len() > MAX_SAMPLES {
            return Err(EngineError::TooLong { samples: request.samples.len(), limit: MAX_SAMPLES });
        }
        if request.cancelled.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(EngineError::Cancelled);
        }
        if !request.samples.iter().all(|it| it.is_finite()) {
            // On 8-bit integers they would pass for silence.
            return Err(EngineError::Model("the samples are not numbers".into()));
        }
        let mut samples = Cow::Borrowed(request.samples);
        if samples.len() < MIN_SAMPLES {
            samples.to_mut().resize(MIN_SAMPLES, 0.0);
        }
        let heard = self.session.encode(&samples)?;
        let decode = Loop {
            session: &mut self.session,
            heard: &heard,
            tokenizer: &self.tokenizer,
            bounds: Bounds::of(request.voice, request.kind),
            kind: request.kind,
            cancelled: request.cancelled,
        };
        let draft = if request.kind == Kind::Partial { request.draft } else { &[] };
        let said = decode.run(draft)?;
        let Said { tokens, probabilities, attention } = said;
        Ok(transcript(&self.tokenizer, Heard { tokens, probabilities, attention, frame_samples: FRAME }, request))
    }
}
