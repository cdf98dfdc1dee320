//! The contract of a speech engine: one loaded model, shared by any number of decoding threads.
//!
//! A decode is a pure function of its request: the same samples, voice activity and kind give the same transcript.
//! An engine owns its weights; a [`Decoder`] owns what one thread needs beside them. Neither knows streams, clocks or
//! scheduling.

pub mod agree;
mod align;
mod guard;
pub mod moonshine;
#[cfg(feature = "onnxruntime")]
pub mod onnxruntime;
mod said;
#[doc(hidden)]
pub mod scripted;
pub mod several;
pub mod streaming;
mod tokenizer;
pub mod whisper;

use std::sync::atomic::AtomicBool;

use self::streaming::Memory;

/// Samples per second of all audio an engine hears.
pub const ENGINE_RATE: u32 = 16_000;

/// Samples in one voice-activity frame: 32 ms at [`ENGINE_RATE`].
pub const VAD_FRAME: usize = 512;

/// A loaded model. Cheap to share; its weights exist once in a process.
pub trait Engine: Send + Sync {
    /// What this engine can do; constant for its life.
    fn capabilities(&self) -> &Capabilities;

    /// The state one decoding thread needs.
    fn decoder(&self) -> Box<dyn Decoder>;
}

/// What an engine can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// The engine and model as shown to operators, for instance `moonshine-base-en`.
    pub name: &'static str,
    /// Primary language subtags it understands, for instance `en`.
    pub languages: &'static [&'static str],
    /// Longest audio one request may carry, in samples.
    pub max_samples: usize,
    /// Several requests may be decoded together without changing any transcript.
    pub batch_invariant: bool,
}

impl Capabilities {
    /// Whether a language tag's primary subtag is among [`languages`](Self::languages).
    #[must_use]
    pub fn understands(&self, language: &str) -> bool {
        let primary = primary(language);
        self.languages.iter().any(|known| known.eq_ignore_ascii_case(primary))
    }
}

/// The primary subtag of a language tag: `en` of `en-US`.
fn primary(language: &str) -> &str {
    language.split(['-', '_']).next().unwrap_or_default()
}

/// One thread's way to decode. Not shared.
pub trait Decoder: Send {
    /// Decodes one stretch of speech.
    ///
    /// # Errors
    /// [`EngineError::Cancelled`] when `request.cancelled` was set meanwhile; [`EngineError::Model`] when the model run
    /// failed, which says nothing about the next request.
    fn decode(&mut self, request: &Request<'_>) -> Result<Transcript, EngineError>;
}

/// What to decode.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Mono samples at [`ENGINE_RATE`], -1 to 1.
    pub samples: &'a [f32],
    /// Speech probability of each [`VAD_FRAME`] of `samples`, the last frame perhaps partly filled: `ceil(samples / 512)`
    /// values. The guards and the word times read it.
    pub voice: &'a [f32],
    /// Whether the speaker is still speaking.
    pub kind: Kind,
    /// What is spoken, as a language tag that the engine understands.
    pub language: &'a str,
    /// Tokens of the previous hypothesis of the same utterance, to be verified instead of decoded again. Empty: none.
    /// Never changes a [`Kind::Final`], for which it is ignored.
    pub draft: &'a [u32],
    /// What a streaming engine keeps of the utterance between the requests for it; their samples begin alike. None: this is
    /// the only one. Never changes an answer.
    pub memory: Option<&'a Memory>,
    /// Set by anyone who no longer needs the answer; looked at between decoder steps.
    pub cancelled: &'a AtomicBool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A look at unfinished speech: fast, revisable, without word times.
    Partial,
    /// The last word on an utterance: plain greedy decoding, with word times and confidences.
    Final,
}

/// What was said. Empty text is a valid answer: nothing was.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Transcript {
    /// Punctuated text, single-spaced, trimmed.
    pub text: String,
    /// Mean token probability, 0 to 1.
    pub confidence: f32,
    /// One entry per space-separated word of `text`, in order, non-overlapping; for [`Kind::Partial`] may be empty.
    pub words: Vec<Word>,
    /// The hypothesis as tokens, to be handed back as the next request's draft.
    pub tokens: Vec<u32>,
}

/// A word and when it was said, in samples from the start of the request's audio.
#[derive(Debug, Clone, PartialEq)]
pub struct Word {
    pub text: String,
    pub start: usize,
    /// After the last sample of the word; `start <= end <= samples.len()`.
    pub end: usize,
    /// 0 to 1.
    pub confidence: f32,
}

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("the decode was cancelled")]
    Cancelled,
    #[error("{samples} samples are more than the engine's limit of {limit}")]
    TooLong { samples: usize, limit: usize },
    #[error("the model failed: {0}")]
    Model(String),
    #[error("the model file {path} cannot be used: {reason}")]
    Load { path: std::path::PathBuf, reason: String },
}
