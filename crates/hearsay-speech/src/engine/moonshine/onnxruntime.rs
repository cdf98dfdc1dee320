//! The model on ONNX Runtime.

use std::sync::Arc;

use ort::{
    session::SessionInputValue,
    value::{DynValue, Tensor},
};

use super::{
    MoonshinePaths, OnnxRuntime,
    backend::{ALIGNED_HEADS, ALIGNED_LAYERS, HEADS, LAYERS, Model, Session, Step, WIDTH, failed, head},
};
use crate::engine::{EngineError, onnxruntime::Shared};

pub(super) struct Loaded(Arc<Graphs>);

struct Graphs {
    encoder: Shared,
    decoder: Shared,
    names: Names,
}

impl Loaded {
    pub(super) fn load(paths: &MoonshinePaths, with: &OnnxRuntime) -> Result<Self, EngineError> {
        let load = |path| Shared::load(path, with);
        let graphs = Graphs { encoder: load(&paths.encoder)?, decoder: load(&paths.decoder)?, names: Names::new() };
        Ok(Self(Arc::new(graphs)))
    }
}

impl Model for Loaded {
    type Session = OrtSession;

    fn session(&self) -> OrtSession {
        OrtSession(Arc::clone(&self.0))
    }
}

pub(super) struct OrtSession(Arc<Graphs>);

/// Keys, then values, layer by layer.
struct Names {
    cross: Vec<String>,
    heard: Vec<String>,
    past: Vec<String>,
    present: Vec<String>,
    attention: Vec<String>,
}

impl Names {
    fn new() -> Self {
        let each = |name: &dyn Fn(usize, &str) -> String| {
            (0..LAYERS).flat_map(|layer| ["key", "value"].map(|what| name(layer, what))).collect()
        };
        Self {
            cross: each(&|layer, what| format!("cross.{layer}.{what}")),
            heard: each(&|layer, what| format!("past_key_values.{layer}.encoder.{what}")),
            past: each(&|layer, what| format!("past_key_values.{layer}.decoder.{what}")),
            present: each(&|layer, what| format!("present.{layer}.decoder.{what}")),
            attention: ALIGNED_LAYERS.iter().map(|layer| format!("xattn.{layer}")).collect(),
        }
    }
}

impl Session for OrtSession {
    type Heard = Vec<DynValue>;
    type Past = Vec<DynValue>;

    fn encode(&mut self, samples: &[f32]) -> Result<Self::Heard, EngineError> {
        let it = &*self.0;
        let input = Tensor::from_array(([1, samples.len()], samples.to_vec())).map_err(failed)?;
        let mut encoder = it.encoder.step();
        let mut outputs = encoder.run(ort::inputs!["input_values" => input]).map_err(failed)?;
        let missing = || failed("the encoder gave too few outputs");
        it.names.cross.iter().map(|name| outputs.remove(name).ok_or_else(missing)).collect()
    }

    fn start(&mut self, _: usize) -> Result<Self::Past, EngineError> {
        let nothing = || Tensor::<f32>::from_array(([1, HEADS, 0, WIDTH], Vec::new())).map_err(failed);
        (0..2 * LAYERS).map(|_| nothing().map(Tensor::into_dyn)).collect()
    }

    fn step(
        &mut self,
        heard: &Self::Heard,
        past: Self::Past,
        tokens: &[u32],
        attention: bool,
    ) -> Result<Step<Self::Past>, EngineError> {
        let it = &*self.0;
        let ids: Vec<i64> = tokens.iter().map(|it| i64::from(*it)).collect();
        let ids = Tensor::from_array(([1, ids.len()], ids)).map_err(failed)?;
        let mut inputs: Vec<(&str, SessionInputValue<'_>)> = vec![("input_ids", ids.into())];
        inputs.extend(it.names.heard.iter().zip(heard).map(|(name, value)| (name.as_str(), value.into())));
        inputs.extend(it.names.past.iter().zip(&past).map(|(name, value)| (name.as_str(), value.into())));
        let mut decoder = it.decoder.step();
        let mut outputs = decoder.run(inputs).map_err(failed)?;
        let missing = || failed("the decoder gave too few outputs");
        let floats = |value: Option<DynValue>| -> Result<Vec<f32>, EngineError> {
            let value = value.ok_or_else(missing)?;
            Ok(value.try_extract_tensor::<f32>().map_err(failed)?.1.to_vec())
        };
        let logits = floats(outputs.remove("logits"))?;
        let past = it.names.present.iter().map(|name| outputs.remove(name).ok_or_else(missing));
        let past = past.collect::<Result<Vec<_>, _>>()?;
        let mut rows = Vec::new();
        if attention {
            let mut layers = Vec::with_capacity(ALIGNED_LAYERS.len());
            for name in &it.names.attention {
                layers.push(floats(outputs.remove(name))?);
            }
            rows = ALIGNED_HEADS
                .map(|(layer, index)| head(&layers[usize::from(layer == ALIGNED_LAYERS[1])], index))
                .into();
        }
        Ok(Step { past, logits, attention: rows })
    }

    fn crop(&mut self, past: Self::Past, tokens: usize) -> Result<Self::Past, EngineError> {
        let cropped = |value: DynValue| -> Result<DynValue, EngineError> {
            let (shape, data) = value.try_extract_tensor::<f32>().map_err(failed)?;
            let had = shape.get(2).and_then(|it| usize::try_from(*it).ok()).unwrap_or_default();
            if had <= tokens {
                return Ok(value);
            }
            let kept = data.chunks_exact(had * WIDTH).flat_map(|it| &it[..tokens * WIDTH]).copied().collect::<Vec<_>>();
            Tensor::from_array(([1, HEADS, tokens, WIDTH], kept)).map(Tensor::into_dyn).map_err(failed)
        };
        past.into_iter().map(cropped).collect()
    }
}
