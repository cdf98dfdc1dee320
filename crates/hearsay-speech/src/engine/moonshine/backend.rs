//! What the decode loop needs of a run time.

use crate::engine::EngineError;

/// Layers of the decoder; each keeps keys and values of the tokens so far.
pub(super) const LAYERS: usize = 8;
pub(super) const HEADS: usize = 8;
/// Width of a head.
pub(super) const WIDTH: usize = 52;

/// The layer and head whose cross-attention follows the speech best.
pub(super) const ALIGNED_HEADS: [(usize, usize); 3] = [(5, 4), (5, 1), (4, 2)];
/// Layers among them, in the order of a step's attention.
pub(super) const ALIGNED_LAYERS: [usize; 2] = [4, 5];

/// A loaded model; its weights exist once.
pub(super) trait Model: Send + Sync + 'static {
    type Session: Session;

    /// The state one thread needs.
    fn session(&self) -> Self::Session;
}

/// One thread's way to run it.
pub(super) trait Session: Send {
    /// What the encoder made of one stretch of audio.
    type Heard;
    /// Keys and values of the tokens fed so far.
    type Past;

    fn encode(&mut self, samples: &[f32]) -> Result<Self::Heard, EngineError>;

    /// Nothing fed; made for about `tokens` to come.
    fn start(&mut self, tokens: usize) -> Result<Self::Past, EngineError>;

    /// Feeds tokens. `attention` asks for the cross-attention, too.
    fn step(
        &mut self,
        heard: &Self::Heard,
        past: Self::Past,
        tokens: &[u32],
        attention: bool,
    ) -> Result<Step<Self::Past>, EngineError>;

    /// Forgets all but the first `tokens`.
    fn crop(&mut self, past: Self::Past, tokens: usize) -> Result<Self::Past, EngineError>;
}

/// What came of feeding `rows` tokens.
pub(super) struct Step<P> {
    pub past: P,
    /// One row of scores for each token fed, of what follows it.
    pub logits: Vec<f32>,
    /// For each of [`ALIGNED_HEADS`] its rows, one per token fed, over the frames heard. Empty unless asked for.
    pub attention: Vec<Vec<f32>>,
}

/// Of a layer's attention, [heads, rows, frames], one head's rows.
pub(super) fn head(layer: &[f32], head: usize) -> Vec<f32> {
    let size = layer.len() / HEADS;
    layer.get(head * size..(head + 1) * size).unwrap_or_default().to_vec()
}

pub(super) fn failed(error: impl std::fmt::Display) -> EngineError {
    EngineError::Model(error.to_string())
}
