//! Whisper base, 99 languages, on a run time of choice.
//!
//! Costs some six times what Moonshine does for a final, so it is the engine for what Moonshine does not understand.
//! Only what was said is encoded, not the half minute that the model was made for: most of its cost is the encoder's.

mod backend;
mod mel;
#[cfg(feature = "onnxruntime")]
mod onnxruntime;
mod pure;
mod vocabulary;

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
};

use self::{
    backend::{Session, Step},
    mel::{HOP, Mel},
    pure::{Pure, PureSession},
    vocabulary::{Vocabulary, shifted},
};
use super::{
    Capabilities, Decoder, ENGINE_RATE, Engine, EngineError, Kind, Request, Transcript, VAD_FRAME,
    guard::{VOICED, bare, too_many_copies},
    moonshine::Runtime,
    primary,
    said::{Heard, transcript},
};

/// Where the model's files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WhisperPaths {
    pub encoder: PathBuf,
    pub decoder: PathBuf,
    pub vocabulary: PathBuf,
}

const LAYERS: usize = 6;
const HEADS: usize = 8;
const WIDTH: usize = 64;
/// Layers whose cross-attention is given, and the heads that follow speech: those that its makers name.
const ALIGNED_LAYERS: [usize; 3] = [3, 4, 5];
const ALIGNED_HEADS: [(usize, usize); 8] = [(0, 1), (1, 2), (1, 3), (1, 7), (2, 1), (2, 2), (2, 4), (2, 6)];

/// Samples in one frame of the encoder's output: 20 ms.
const FRAME: usize = 2 * HOP;
/// Longest audio: what it has places for.
const MAX_SAMPLES: usize = 30 * ENGINE_RATE as usize;
/// Silence that it is given behind what was said, without which it does not know that this is the end.
const BEHIND: usize = 3 * ENGINE_RATE as usize / 2;
/// Shortest audio it is given.
const LEAST: usize = 5 * ENGINE_RATE as usize;

/// The loaded model.
pub struct WhisperEngine {
    loaded: Loaded,
    known: Arc<Known>,
    capabilities: Capabilities,
}

enum Loaded {
    Pure(Arc<Pure>),
    #[cfg(feature = "onnxruntime")]
    OnnxRuntime(Arc<onnxruntime::Graphs>),
}

/// What is the same on every run time.
struct Known {
    vocabulary: Vocabulary,
    mel: Mel,
}

impl WhisperEngine {
    /// Made once in a process: its list of languages is never freed. Weights are prepacked on the pure run time.
    ///
    /// # Errors
    /// [`EngineError::Load`] names the file that cannot be used.
    pub fn load(paths: &WhisperPaths, runtime: &Runtime) -> Result<Self, EngineError> {
        let loaded = match runtime {
            Runtime::Pure { .. } => Loaded::Pure(Arc::new(Pure::load(paths)?)),
            #[cfg(feature = "onnxruntime")]
            Runtime::OnnxRuntime(with) => Loaded::OnnxRuntime(Arc::new(onnxruntime::Graphs::load(paths, with)?)),
        };
        let vocabulary = Vocabulary::load(&paths.vocabulary)?;
        let languages: Vec<&'static str> = vocabulary.languages().into_iter().map(|it| &*it.leak()).collect();
        let capabilities = Capabilities {
            name: "whisper-base",
            languages: Vec::leak(languages),
            max_samples: MAX_SAMPLES,
            batch_invariant: false,
        };
        Ok(Self { loaded, known: Arc::new(Known { vocabulary, mel: Mel::new() }), capabilities })
    }
}

impl Engine for WhisperEngine {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        let known = Arc::clone(&self.known);
        match &self.loaded {
            Loaded::Pure(model) => Box::new(WhisperDecoder { session: PureSession::new(Arc::clone(model)), known }),
            #[cfg(feature = "onnxruntime")]
            Loaded::OnnxRuntime(model) => {
                Box::new(WhisperDecoder { session: onnxruntime::OrtSession(Arc::clone(model)), known })
            }
        }
    }
}

struct WhisperDecoder<S> {
    session: S,
    known: Arc<Known>,
}

fn failed(error: impl ToString) -> EngineError {
    EngineError::Model(error.to_string())
}

/// Tokens that a stretch of speech may have at most. Some scripts take several a letter.
fn most_tokens(voice: &[f32]) -> usize {
    let voiced = voice.iter().filter(|it| **it >= VOICED).count() * VAD_FRAME;
    (8 + (voiced + ENGINE_RATE as usize) * 16 / ENGINE_RATE as usize).min(220)
}

impl<S: Session> Decoder for WhisperDecoder<S> {
    fn decode(&mut self, request: &Request<'_>) -> Result<Transcript, EngineError> {
        let samples = request.samples;
        if samples.len() > MAX_SAMPLES {
            return Err(EngineError::TooLong { samples: samples.len(), limit: MAX_SAMPLES });
        }
        if request.cancelled.load(Ordering::Relaxed) {
            return Err(EngineError::Cancelled);
        }
        if !samples.iter().all(|it| it.is_finite()) {
            // On 8-bit integers they would pass for silence.
            return Err(failed("the samples are not numbers"));
        }
        let known = Arc::clone(&self.known);
        let unknown = || failed(format!("the language {:?} is not understood", request.language));
        let prompt = known.vocabulary.prompt(primary(request.language)).ok_or_else(unknown)?;
        let length = (samples.len() + BEHIND).clamp(LEAST, MAX_SAMPLES);
        let frames = length.div_ceil(FRAME) * 2;
        let heard = self.session.encode(&known.mel.of(samples, frames), frames)?;
        let said = self.say(request, &prompt, &heard)?;
        Ok(transcript(&known.vocabulary.tokenizer, said, request))
    }
}

impl<S: Session> WhisperDecoder<S> {
    /// Greedy, one token at a time.
    fn say(&mut self, request: &Request<'_>, prompt: &[u32], heard: &S::Heard) -> Result<Heard, EngineError> {
        let known = Arc::clone(&self.known);
        let vocabulary = &known.vocabulary;
        let most = most_tokens(request.voice);
        let aligned = if request.kind == Kind::Final { ALIGNED_HEADS.len() } else { 0 };
        let mut said = Heard {
            tokens: Vec::new(),
            probabilities: Vec::new(),
            attention: vec![Vec::new(); aligned],
            frame_samples: FRAME,
        };
        // What is looked at behind the audio is silence of our own.
        let audible = request.samples.len().div_ceil(FRAME).max(1);
        let room = prompt.len() + most + 1;
        let mut past = self.session.start(room)?;
        let mut feed = prompt.to_vec();
        let mut fed = 0;
        loop {
            if request.cancelled.load(Ordering::Relaxed) {
                return Err(EngineError::Cancelled);
            }
            let Step { past: next, logits, looked } = self.session.step(heard, past, fed, &feed, aligned > 0)?;
            (past, fed) = (next, fed + feed.len());
            let columns = logits.len() / feed.len();
            let scores = &logits[logits.len() - columns..];
            for (kept, (layer, head)) in said.attention.iter_mut().zip(ALIGNED_HEADS) {
                let layer = &looked[layer];
                let frames = layer.len() / HEADS / feed.len();
                let row = (head * feed.len() + feed.len() - 1) * frames;
                kept.push(layer[row..row + frames.min(audible)].to_vec());
            }
            let place = said.tokens.len();
            let allowed = |token: usize| match vocabulary.not_spoken.get(token) {
                _ if token == vocabulary.end as usize => true,
                Some(not_spoken) => !not_spoken && place < most,
                None => false,
            };
            let best = scores.iter().enumerate().filter(|it| allowed(it.0)).max_by(|a, b| a.1.total_cmp(b.1));
            let (token, score) = best.ok_or_else(|| failed("it gave no scores"))?;
            let highest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f32 = scores.iter().map(|it| (it - highest).exp()).sum();
            let probability = (score - highest).exp() / sum;
            if probability.is_nan() {
                return Err(failed("its scores are not numbers"));
            }
            let token = u32::try_from(token).map_err(failed)?;
            if token == vocabulary.end {
                break;
            }
            said.tokens.push(shifted(token));
            said.probabilities.push(probability);
            if self.cut_loop(&mut said, request.kind) {
                break;
            }
            feed = vec![token];
        }
        Ok(said)
    }

    /// Ends what says the same thing for ever before it does. Answers whether it did.
    fn cut_loop(&self, said: &mut Heard, kind: Kind) -> bool {
        let pieces = self.known.vocabulary.tokenizer.words(&said.tokens);
        let words: Vec<String> = pieces.iter().map(|it| bare(&it.text)).collect();
        let Some(copies) = too_many_copies(&words, kind) else { return false };
        let at = pieces[copies.start].tokens.start;
        said.tokens.truncate(at);
        said.probabilities.truncate(at);
        for head in &mut said.attention {
            head.truncate(at + 1);
        }
        true
    }
}
