//! What a sentence means, as a vector of unit length: texts that mean the like point the same way.
//!
//! `all-MiniLM-L6-v2` on the pure-Rust run time, one thread, no batches: its vectors are the average over a text's tokens.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use hearsay_insight::meaning::{DIMENSIONS, Meaning, Vector, unit};
use rten::{Model, ModelOptions, NodeId, RunOptions, ThreadPool, ValueOrView};
use rten_tensor::{AsView as _, Layout as _, NdTensor};
use tokenizers::{Tokenizer, TruncationParams};

/// Bytes of a text that are looked at: more than the tokens that count can have.
const BYTES: usize = 2_048;
/// Tokens of a text that count; the model was made for as many.
const TOKENS: usize = 128;

/// The model cannot be loaded, or does not answer as it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{} is not the model of sentences: {reason}", path.display())]
    Load { path: PathBuf, reason: String },
    #[error("the model of sentences failed: {0}")]
    Model(String),
}

/// The loaded model. Can be shared: every call runs on the thread it is made from.
pub struct MiniLm {
    model: Model,
    tokenizer: Tokenizer,
    pool: Arc<ThreadPool>,
    input: NodeId,
    output: NodeId,
}

impl MiniLm {
    /// # Errors
    /// [`Error::Load`] when one of the files is not what it should be.
    pub fn load(model: &Path, tokenizer: &Path) -> Result<Self, Error> {
        let failed = |path: &Path, reason: String| Error::Load { path: path.to_owned(), reason };
        let mut pieces = Tokenizer::from_file(tokenizer).map_err(|error| failed(tokenizer, error.to_string()))?;
        pieces.with_padding(None);
        let cut = TruncationParams { max_length: TOKENS, ..TruncationParams::default() };
        pieces.with_truncation(Some(cut)).map_err(|error| failed(tokenizer, error.to_string()))?;
        let graph = ModelOptions::with_all_ops().load_file(model).map_err(|error| failed(model, error.to_string()))?;
        let node = |name| graph.node_id(name).map_err(|_| failed(model, format!("it has no input or output {name:?}")));
        let loaded = Self {
            input: node("input_ids")?,
            output: node("vectors")?,
            pool: Arc::new(ThreadPool::with_num_threads(1)),
            model: graph,
            tokenizer: pieces,
        };
        loaded.embed("A sentence.").map_err(|error| failed(model, error.to_string()))?;
        Ok(loaded)
    }

    /// The vector of a text of any length, of which the beginning counts.
    ///
    /// # Errors
    /// [`Error::Model`] when the model answers with something else.
    pub fn embed(&self, text: &str) -> Result<Vector, Error> {
        let failed = |reason: String| Error::Model(reason);
        let text = &text[..text.floor_char_boundary(BYTES)];
        let encoded = self.tokenizer.encode(text, true).map_err(|error| failed(error.to_string()))?;
        let tokens: Vec<i32> = encoded.get_ids().iter().map(|it| it.cast_signed()).collect();
        let count = tokens.len();
        let input = NdTensor::from_data([1, count], tokens);
        let options = RunOptions::default().with_thread_pool(Some(Arc::clone(&self.pool)));
        let inputs = vec![(self.input, ValueOrView::from(input.as_dyn()))];
        let [vectors] =
            self.model.run_n(inputs, [self.output], Some(options)).map_err(|error| failed(error.to_string()))?;
        let vectors: NdTensor<f32, 3> =
            vectors.try_into().map_err(|_| failed("its answer is no vectors".to_owned()))?;
        if vectors.shape() != [1, count, DIMENSIONS] {
            return Err(failed(format!("it answered {:?} for {count} tokens", vectors.shape())));
        }
        let mut sum = [0.0; DIMENSIONS];
        for row in vectors.to_vec().chunks_exact(DIMENSIONS) {
            sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
        Ok(unit(sum))
    }
}

impl Meaning for MiniLm {
    fn of(&self, text: &str) -> Option<Vector> {
        self.embed(text).ok()
    }
}
