//! Whisper base, 99 languages, on the pure-Rust run time.
//!
//! Costs some six times what Moonshine does for a final, so it is the engine for what Moonshine does not understand.
//! Only what was said is encoded, not the half minute that the model was made for: most of its cost is the encoder's.

mod mel;
mod vocabulary;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};

use rten::{Model as Graph, ModelOptions, NodeId, RunOptions, ThreadPool, Value, ValueOrView};
use rten_tensor::{NdTensor, NdTensorView};

use self::{
    mel::{BANDS, HOP, Mel},
    vocabulary::{Vocabulary, shifted},
};
use super::{
    Capabilities, Decoder, ENGINE_RATE, Engine, EngineError, Kind, Request, Transcript, VAD_FRAME,
    guard::{VOICED, bare, too_many_copies},
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
    shared: Arc<Shared>,
    capabilities: Capabilities,
}

struct Shared {
    encoder: Graph,
    decoder: Graph,
    vocabulary: Vocabulary,
    mel: Mel,
    heard_mel: NodeId,
    /// Keys, then values, layer by layer; so are all lists below.
    heard: Vec<NodeId>,
    tokens: NodeId,
    mask: NodeId,
    given_heard: Vec<NodeId>,
    given_past: Vec<NodeId>,
    /// Logits, then the new past, then the attention.
    outputs: Vec<NodeId>,
}

impl WhisperEngine {
    /// Made once in a process: its list of languages is never freed.
    ///
    /// # Errors
    /// [`EngineError::Load`] names the file that cannot be used.
    pub fn load(paths: &WhisperPaths) -> Result<Self, EngineError> {
        let load = |path: &Path| {
            let mut options = ModelOptions::with_all_ops();
            options.prepack_weights(true);
            let failed = |reason: String| EngineError::Load { path: path.to_owned(), reason };
            options.load_file(path).map_err(|error| failed(error.to_string()))
        };
        let (encoder, decoder) = (load(&paths.encoder)?, load(&paths.decoder)?);
        let node = |graph: &Graph, path: &Path, name: &str| {
            let reason = || format!("it has no input or output {name:?}; fetch the models again");
            graph.node_id(name).map_err(|_| EngineError::Load { path: path.to_owned(), reason: reason() })
        };
        let each = |graph: &Graph, path: &Path, name: &dyn Fn(usize, &str) -> String| {
            let names = (0..LAYERS).flat_map(|layer| ["key", "value"].map(|what| name(layer, what)));
            names.map(|it| node(graph, path, &it)).collect::<Result<Vec<_>, _>>()
        };
        let in_decoder = |name: &str| node(&decoder, &paths.decoder, name);
        let mut outputs = vec![in_decoder("logits")?];
        outputs.extend(each(&decoder, &paths.decoder, &|layer, what| format!("present.{layer}.decoder.{what}"))?);
        for layer in ALIGNED_LAYERS {
            outputs.push(in_decoder(&format!("xattn.{layer}"))?);
        }
        let past = |whose: &str| {
            each(&decoder, &paths.decoder, &|layer, what| format!("past_key_values.{layer}.{whose}.{what}"))
        };
        let vocabulary = Vocabulary::load(&paths.vocabulary)?;
        let languages: Vec<&'static str> = vocabulary.languages().into_iter().map(|it| &*it.leak()).collect();
        let shared = Shared {
            heard_mel: node(&encoder, &paths.encoder, "mel")?,
            heard: each(&encoder, &paths.encoder, &|layer, what| format!("cross.{layer}.{what}"))?,
            tokens: in_decoder("input_ids")?,
            mask: in_decoder("mask")?,
            given_heard: past("encoder")?,
            given_past: past("decoder")?,
            outputs,
            vocabulary,
            mel: Mel::new(),
            encoder,
            decoder,
        };
        let capabilities = Capabilities {
            name: "whisper-base",
            languages: Vec::leak(languages),
            max_samples: MAX_SAMPLES,
            batch_invariant: false,
        };
        Ok(Self { shared: Arc::new(shared), capabilities })
    }
}

impl Engine for WhisperEngine {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        let pool = Arc::new(ThreadPool::with_num_threads(1));
        Box::new(WhisperDecoder { shared: Arc::clone(&self.shared), pool })
    }
}

struct WhisperDecoder {
    shared: Arc<Shared>,
    pool: Arc<ThreadPool>,
}

fn failed(error: impl ToString) -> EngineError {
    EngineError::Model(error.to_string())
}

/// Tokens that a stretch of speech may have at most. Some scripts take several a letter.
fn most_tokens(voice: &[f32]) -> usize {
    let voiced = voice.iter().filter(|it| **it >= VOICED).count() * VAD_FRAME;
    (8 + (voiced + ENGINE_RATE as usize) * 16 / ENGINE_RATE as usize).min(220)
}

impl Decoder for WhisperDecoder {
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
        let shared = Arc::clone(&self.shared);
        let unknown = || failed(format!("the language {:?} is not understood", request.language));
        let prompt = shared.vocabulary.prompt(primary(request.language)).ok_or_else(unknown)?;
        let length = (samples.len() + BEHIND).clamp(LEAST, MAX_SAMPLES);
        let frames = length.div_ceil(FRAME) * 2;
        let mel = shared.mel.of(samples, frames);
        let mel = NdTensorView::from_data([1, BANDS, frames], mel.as_slice());
        let heard =
            shared.encoder.run(vec![(shared.heard_mel, mel.into())], &shared.heard, self.options()).map_err(failed)?;
        let said = self.say(request, &prompt, &heard)?;
        Ok(transcript(&shared.vocabulary.tokenizer, said, request))
    }
}

impl WhisperDecoder {
    fn options(&self) -> Option<RunOptions> {
        Some(RunOptions::default().with_thread_pool(Some(Arc::clone(&self.pool))))
    }

    /// Greedy, one token at a time.
    fn say(&self, request: &Request<'_>, prompt: &[u32], heard: &[Value]) -> Result<Heard, EngineError> {
        let vocabulary = &self.shared.vocabulary;
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
        let mut past: Vec<NdTensor<f32, 4>> =
            (0..2 * LAYERS).map(|_| NdTensor::with_capacity([1, HEADS, room, WIDTH], 2)).collect();
        let mut feed = prompt.to_vec();
        let mut fed = 0;
        loop {
            if request.cancelled.load(Ordering::Relaxed) {
                return Err(EngineError::Cancelled);
            }
            let (logits, next, looked) = self.step(heard, past, fed, &feed, aligned > 0)?;
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
        let pieces = self.shared.vocabulary.tokenizer.words(&said.tokens);
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

    /// Feeds tokens behind `fed` others: scores, the new past, and where the aligned layers looked.
    #[expect(clippy::type_complexity, reason = "three parts of one answer, taken apart at once")]
    fn step(
        &self,
        heard: &[Value],
        past: Vec<NdTensor<f32, 4>>,
        fed: usize,
        tokens: &[u32],
        attention: bool,
    ) -> Result<(Vec<f32>, Vec<NdTensor<f32, 4>>, Vec<Vec<f32>>), EngineError> {
        let shared = &*self.shared;
        let ids: Vec<i32> = tokens.iter().map(|it| it.cast_signed()).collect();
        let ids = NdTensorView::from_data([1, ids.len()], ids.as_slice());
        let all = fed + tokens.len();
        // No token sees those behind it.
        let mask: Vec<f32> = (0..tokens.len())
            .flat_map(|row| (0..all).map(move |at| if at <= fed + row { 0.0 } else { -1e9 }))
            .collect();
        let mask = NdTensorView::from_data([tokens.len(), all], mask.as_slice());
        let mut inputs: Vec<(NodeId, ValueOrView<'_>)> = Vec::with_capacity(2 + 4 * LAYERS);
        inputs.push((shared.tokens, ids.into()));
        inputs.push((shared.mask, mask.into()));
        inputs.extend(shared.given_heard.iter().copied().zip(heard.iter().map(Into::into)));
        let past = past.into_iter().map(|it| ValueOrView::Value(it.into_dyn().into()));
        inputs.extend(shared.given_past.iter().copied().zip(past));
        let wanted = if attention { &shared.outputs[..] } else { &shared.outputs[..=2 * LAYERS] };
        let mut outputs = shared.decoder.run(inputs, wanted, self.options()).map_err(failed)?.into_iter();
        let mut next = || outputs.next().ok_or_else(|| failed("it gave too few outputs"));
        let logits = NdTensor::<f32, 3>::try_from(next()?).map_err(failed)?.into_data();
        let past = (0..2 * LAYERS).map(|_| next()?.try_into().map_err(failed)).collect::<Result<Vec<_>, _>>()?;
        let mut looked = Vec::new();
        if attention {
            for _ in ALIGNED_LAYERS {
                looked.push(NdTensor::<f32, 4>::try_from(next()?).map_err(failed)?.into_data());
            }
        }
        Ok((logits, past, looked))
    }
}
