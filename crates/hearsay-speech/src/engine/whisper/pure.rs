//! The model on `rten`, the pure-Rust run time.

use std::{path::Path, sync::Arc};

use rten::{Model as Graph, ModelOptions, NodeId, RunOptions, ThreadPool, Value, ValueOrView};
use rten_tensor::{NdTensor, NdTensorView};

use super::{
    ALIGNED_LAYERS, HEADS, LAYERS, WIDTH, WhisperPaths,
    backend::{Session, Step, mask},
    failed,
    mel::BANDS,
};
use crate::engine::EngineError;

pub(super) struct Pure {
    encoder: Graph,
    decoder: Graph,
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

impl Pure {
    pub(super) fn load(paths: &WhisperPaths) -> Result<Self, EngineError> {
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
        Ok(Self {
            heard_mel: node(&encoder, &paths.encoder, "mel")?,
            heard: each(&encoder, &paths.encoder, &|layer, what| format!("cross.{layer}.{what}"))?,
            tokens: in_decoder("input_ids")?,
            mask: in_decoder("mask")?,
            given_heard: past("encoder")?,
            given_past: past("decoder")?,
            outputs,
            encoder,
            decoder,
        })
    }
}

/// One thread's.
pub(super) struct PureSession {
    shared: Arc<Pure>,
    pool: Arc<ThreadPool>,
}

impl PureSession {
    pub(super) fn new(shared: Arc<Pure>) -> Self {
        Self { shared, pool: Arc::new(ThreadPool::with_num_threads(1)) }
    }

    fn options(&self) -> Option<RunOptions> {
        Some(RunOptions::default().with_thread_pool(Some(Arc::clone(&self.pool))))
    }
}

impl Session for PureSession {
    type Heard = Vec<Value>;
    type Past = Vec<NdTensor<f32, 4>>;

    fn encode(&mut self, mel: &[f32], frames: usize) -> Result<Self::Heard, EngineError> {
        let shared = &*self.shared;
        let mel = NdTensorView::from_data([1, BANDS, frames], mel);
        shared.encoder.run(vec![(shared.heard_mel, mel.into())], &shared.heard, self.options()).map_err(failed)
    }

    fn start(&mut self, room: usize) -> Result<Self::Past, EngineError> {
        Ok((0..2 * LAYERS).map(|_| NdTensor::with_capacity([1, HEADS, room, WIDTH], 2)).collect())
    }

    fn step(
        &mut self,
        heard: &Self::Heard,
        past: Self::Past,
        fed: usize,
        tokens: &[u32],
        attention: bool,
    ) -> Result<Step<Self::Past>, EngineError> {
        let shared = &*self.shared;
        let ids: Vec<i32> = tokens.iter().map(|it| it.cast_signed()).collect();
        let ids = NdTensorView::from_data([1, ids.len()], ids.as_slice());
        let all = fed + tokens.len();
        let mask = mask(fed, tokens.len());
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
        Ok(Step { past, logits, looked })
    }
}
