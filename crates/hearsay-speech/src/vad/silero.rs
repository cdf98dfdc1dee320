//! Silero's voice activity model (16 kHz, 32 ms frames) on the pure-Rust run time.

use std::{path::Path, sync::Arc};

use rten::{Model, ModelOptions, NodeId, RunOptions, ThreadPool, ValueOrView};
use rten_tensor::{AsView as _, NdTensor};

use super::{Vad, VadError, VadModel};
use crate::engine::{ENGINE_RATE, VAD_FRAME};

/// Samples before a frame that the model is shown again.
const CONTEXT: usize = 64;
const STATE: usize = 128;

/// Root mean square below which a frame is silence without asking the model: -80 dB, less than the last bits of 16-bit
/// audio carry. Muted streams cost nothing.
const GATE: f32 = 1e-4;

/// The loaded model.
pub struct Silero {
    shared: Arc<Shared>,
}

struct Shared {
    model: Model,
    /// One thread: a frame is too small to divide.
    pool: Arc<ThreadPool>,
    input: NodeId,
    state: NodeId,
    /// The rate, for files that hear two of them.
    rate: Option<NodeId>,
    outputs: [NodeId; 2],
}

impl Silero {
    /// # Errors
    /// When the file is not this model.
    pub fn load(path: &Path) -> Result<Self, VadError> {
        let failed = |reason: String| VadError::Load { path: path.to_owned(), reason };
        let model = ModelOptions::with_all_ops().load_file(path).map_err(|error| failed(error.to_string()))?;
        let node = |name| model.node_id(name).map_err(|_| failed(format!("it has no input or output {name:?}")));
        let shared = Shared {
            input: node("input")?,
            state: node("state")?,
            rate: model.node_id("sr").ok(),
            outputs: [node("output")?, node("stateN")?],
            pool: Arc::new(ThreadPool::with_num_threads(1)),
            model,
        };
        let silero = Self { shared: Arc::new(shared) };
        let mut voice = silero.state();
        voice.run(&[0.01; VAD_FRAME]).map_err(|error| failed(error.to_string()))?;
        Ok(silero)
    }

    fn state(&self) -> Voice {
        Voice {
            shared: Arc::clone(&self.shared),
            state: NdTensor::zeros([2, 1, STATE]),
            input: NdTensor::zeros([1, CONTEXT + VAD_FRAME]),
        }
    }
}

impl VadModel for Silero {
    fn voice(&self) -> Box<dyn Vad> {
        Box::new(self.state())
    }
}

struct Voice {
    shared: Arc<Shared>,
    state: NdTensor<f32, 3>,
    /// The last samples of the frame before, then the frame.
    input: NdTensor<f32, 2>,
}

impl Voice {
    fn run(&mut self, frame: &[f32]) -> Result<f32, VadError> {
        let failed = |reason: String| VadError::Model(reason);
        let shared = &*self.shared;
        let [input] = self.input.data_mut().map(|it| [it]).ok_or_else(|| failed("input is not contiguous".into()))?;
        input.copy_within(VAD_FRAME.., 0);
        let window = &mut input[CONTEXT..];
        let filled = frame.len().min(VAD_FRAME);
        window[..filled].copy_from_slice(&frame[..filled]);
        window[filled..].fill(0.0);
        let rate = NdTensor::from(ENGINE_RATE as i32);
        let mut inputs: Vec<(NodeId, ValueOrView<'_>)> =
            vec![(shared.input, self.input.view().into()), (shared.state, self.state.view().into())];
        if let Some(id) = shared.rate {
            inputs.push((id, rate.view().into()));
        }
        let options = RunOptions::default().with_thread_pool(Some(Arc::clone(&shared.pool)));
        let [probability, state] =
            shared.model.run_n(inputs, shared.outputs, Some(options)).map_err(|error| failed(error.to_string()))?;
        let probability: NdTensor<f32, 2> = probability.try_into().map_err(|_| failed("output's shape".into()))?;
        self.state = state.try_into().map_err(|_| failed("state's shape".into()))?;
        let probability = probability[[0, 0]];
        if probability.is_nan() {
            Err(failed("output is not a number".into()))
        } else {
            Ok(probability.clamp(0.0, 1.0))
        }
    }
}

impl Vad for Voice {
    fn reset(&mut self) {
        self.state = NdTensor::zeros([2, 1, STATE]);
        self.input = NdTensor::zeros([1, CONTEXT + VAD_FRAME]);
    }

    fn probability(&mut self, frame: &[f32]) -> Result<f32, VadError> {
        let mean = frame.iter().map(|it| it * it).sum::<f32>() / frame.len().max(1) as f32;
        if mean.sqrt() < GATE { Ok(0.0) } else { self.run(frame) }
    }
}
