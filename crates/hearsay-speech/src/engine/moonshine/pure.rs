//! The model on `rten`, the pure-Rust run time.

use std::{path::Path, sync::Arc};

use rten::{Model as Graph, ModelOptions, NodeId, RunOptions, ThreadPool, Value, ValueOrView};
use rten_tensor::{Layout as _, NdTensor, NdTensorView};

use super::{
    MoonshinePaths,
    backend::{ALIGNED_HEADS, ALIGNED_LAYERS, HEADS, LAYERS, Model, Session, Step, WIDTH, failed, head},
};
use crate::engine::EngineError;

pub(super) struct Pure {
    shared: Arc<Shared>,
}

struct Shared {
    encoder: Graph,
    decoder: Graph,
    samples: NodeId,
    /// Keys, then values, layer by layer; so are all lists below.
    heard: Vec<NodeId>,
    tokens: NodeId,
    given_heard: Vec<NodeId>,
    given_past: Vec<NodeId>,
    /// Logits, then the new past, then the attention.
    outputs: Vec<NodeId>,
}

impl Pure {
    pub(super) fn load(paths: &MoonshinePaths, prepack: bool) -> Result<Self, EngineError> {
        let load = |path: &Path| {
            let mut options = ModelOptions::with_all_ops();
            options.prepack_weights(prepack);
            let failed = |error: &dyn ToString| EngineError::Load { path: path.to_owned(), reason: error.to_string() };
            options.load_file(path).map_err(|error| failed(&error))
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
        let shared = Shared {
            samples: node(&encoder, &paths.encoder, "input_values")?,
            heard: each(&encoder, &paths.encoder, &|layer, what| format!("cross.{layer}.{what}"))?,
            tokens: in_decoder("input_ids")?,
            given_heard: past("encoder")?,
            given_past: past("decoder")?,
            outputs,
            encoder,
            decoder,
        };
        Ok(Self { shared: Arc::new(shared) })
    }
}

impl Model for Pure {
    type Session = PureSession;

    fn session(&self) -> PureSession {
        PureSession { shared: Arc::clone(&self.shared), pool: Arc::new(ThreadPool::with_num_threads(1)) }
    }
}

pub(super) struct PureSession {
    shared: Arc<Shared>,
    pool: Arc<ThreadPool>,
}

impl PureSession {
    fn options(&self) -> Option<RunOptions> {
        Some(RunOptions::default().with_thread_pool(Some(Arc::clone(&self.pool))))
    }
}

impl Session for PureSession {
    type Heard = Vec<Value>;
    type Past = Vec<NdTensor<f32, 4>>;

    fn encode(&mut self, samples: &[f32]) -> Result<Self::Heard, EngineError> {
        let input = NdTensorView::from_data([1, samples.len()], samples);
        let shared = &*self.shared;
        shared.encoder.run(vec![(shared.samples, input.into())], &shared.heard, self.options()).map_err(failed)
    }

    fn start(&mut self, tokens: usize) -> Result<Self::Past, EngineError> {
        // Room at the end, so that a step appends to it.
        Ok((0..2 * LAYERS).map(|_| NdTensor::with_capacity([1, HEADS, tokens, WIDTH], 2)).collect())
    }

    fn step(
        &mut self,
        heard: &Self::Heard,
        past: Self::Past,
        tokens: &[u32],
        attention: bool,
    ) -> Result<Step<Self::Past>, EngineError> {
        let shared = &*self.shared;
        let ids: Vec<i32> = tokens.iter().map(|it| it.cast_signed()).collect();
        let ids = NdTensorView::from_data([1, ids.len()], ids.as_slice());
        let mut inputs: Vec<(NodeId, ValueOrView<'_>)> = Vec::with_capacity(1 + 4 * LAYERS);
        inputs.push((shared.tokens, ids.into()));
        inputs.extend(shared.given_heard.iter().copied().zip(heard.iter().map(Into::into)));
        let past = past.into_iter().map(|it| ValueOrView::Value(it.into_dyn().into()));
        inputs.extend(shared.given_past.iter().copied().zip(past));
        let wanted = if attention { &shared.outputs[..] } else { &shared.outputs[..=2 * LAYERS] };
        let outputs = shared.decoder.run(inputs, wanted, self.options()).map_err(failed)?;
        let mut outputs = outputs.into_iter().map(NdTensor::<f32, 4>::try_from_any);
        let mut next = || outputs.next().ok_or_else(|| failed("it gave too few outputs"))?;
        let logits = next()?.into_data();
        let past = (0..2 * LAYERS).map(|_| next()).collect::<Result<Vec<_>, _>>()?;
        let mut rows = Vec::new();
        if attention {
            let layers = [next()?.into_data(), next()?.into_data()];
            rows = ALIGNED_HEADS
                .map(|(layer, index)| head(&layers[usize::from(layer == ALIGNED_LAYERS[1])], index))
                .into();
        }
        Ok(Step { past, logits, attention: rows })
    }

    fn crop(&mut self, mut past: Self::Past, tokens: usize) -> Result<Self::Past, EngineError> {
        for it in &mut past {
            let kept = tokens.min(it.size(2));
            it.clip_dim(2, 0..kept);
        }
        Ok(past)
    }
}

trait FromAny: Sized {
    fn try_from_any(value: Value) -> Result<Self, EngineError>;
}

impl FromAny for NdTensor<f32, 4> {
    /// Logits have three dimensions, everything else four.
    fn try_from_any(value: Value) -> Result<Self, EngineError> {
        if value.ndim() == 3 {
            let logits = NdTensor::<f32, 3>::try_from(value).map_err(failed)?;
            let [batch, rows, columns] = logits.shape();
            return Ok(logits.into_shape([1, batch, rows, columns]));
        }
        value.try_into().map_err(failed)
    }
}
