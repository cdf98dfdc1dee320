//! What the decode loop needs of a run time.

use crate::engine::EngineError;

/// One thread's way to run the model.
pub(super) trait Session: Send {
    /// What the encoder made of one stretch of audio.
    type Heard;
    /// Keys and values of the tokens fed so far.
    type Past;

    /// The encoder on this many frames of mel bands.
    fn encode(&mut self, mel: &[f32], frames: usize) -> Result<Self::Heard, EngineError>;

    /// Nothing fed; made for about `room` tokens to come.
    fn start(&mut self, room: usize) -> Result<Self::Past, EngineError>;

    /// Feeds tokens behind `fed` others. `attention` asks for where they looked, too.
    fn step(
        &mut self,
        heard: &Self::Heard,
        past: Self::Past,
        fed: usize,
        tokens: &[u32],
        attention: bool,
    ) -> Result<Step<Self::Past>, EngineError>;
}

/// What came of feeding tokens.
pub(super) struct Step<P> {
    pub past: P,
    /// One row of scores for each token fed, of what follows it.
    pub logits: Vec<f32>,
    /// Where each aligned layer looked: [heads, rows, frames]. Empty unless asked for.
    pub looked: Vec<Vec<f32>>,
}

/// Rows for `count` tokens behind `fed` others: no token sees those behind it.
pub(super) fn mask(fed: usize, count: usize) -> Vec<f32> {
    let all = fed + count;
    (0..count).flat_map(|row| (0..all).map(move |at| if at <= fed + row { 0.0 } else { -1e9 })).collect()
}
