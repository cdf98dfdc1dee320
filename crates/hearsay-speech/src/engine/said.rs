//! What a decoder said, as a transcript with word times.

use super::{
    Kind, Request, Transcript, Word,
    align::{first_frames, spans},
    tokenizer::Tokenizer,
};

/// Tokens, how sure the model was of each, and where in the audio it looked.
pub(super) struct Heard {
    pub(super) tokens: Vec<u32>,
    pub(super) probabilities: Vec<f32>,
    /// For each aligned head, one row per token and one for the end. Empty for partials.
    pub(super) attention: Vec<Vec<Vec<f32>>>,
    /// Samples in one frame that was looked at.
    pub(super) frame_samples: usize,
}

pub(super) fn transcript(tokenizer: &Tokenizer, heard: Heard, request: &Request<'_>) -> Transcript {
    let pieces = tokenizer.words(&heard.tokens);
    let text = pieces.iter().map(|it| it.text.as_str()).collect::<Vec<_>>().join(" ");
    let mean = |of: &[f32]| if of.is_empty() { 0.0 } else { of.iter().sum::<f32>() / of.len() as f32 };
    let confidence = mean(&heard.probabilities);
    let mut words = Vec::new();
    if request.kind == Kind::Final {
        let firsts = first_frames(&heard.attention);
        let frames: Vec<usize> =
            pieces.iter().map(|it| firsts.get(it.tokens.start).copied().unwrap_or_default()).collect();
        let spans = spans(&frames, heard.frame_samples, request.voice, request.samples.len());
        words = pieces
            .into_iter()
            .zip(spans)
            .map(|(piece, span)| Word {
                confidence: mean(heard.probabilities.get(piece.tokens).unwrap_or_default()),
                text: piece.text,
                start: span.start,
                end: span.end,
            })
            .collect();
    }
    Transcript { text, confidence, words, tokens: heard.tokens }
}
