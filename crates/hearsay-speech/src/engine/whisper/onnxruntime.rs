//! The model on ONNX Runtime.

use std::sync::Arc;

use ort::{
    session::SessionInputValue,
    value::{DynValue, Tensor},
};

use super::{
    ALIGNED_LAYERS, HEADS, LAYERS, WIDTH, WhisperPaths,
    backend::{Session, Step, mask},
    failed,
    mel::BANDS,
};
use crate::engine::{
    EngineError,
    onnxruntime::{OnnxRuntime, Shared},
};

pub(super) struct Graphs {
    encoder: Shared,
    decoder: Shared,
    /// Keys, then values, layer by layer; so are all lists below.
    heard: Vec<String>,
    given_heard: Vec<String>,
    given_past: Vec<String>,
    present: Vec<String>,
    attention: Vec<String>,
}

impl Graphs {
    pub(super) fn load(paths: &WhisperPaths, with: &OnnxRuntime) -> Result<Self, EngineError> {
        let each = |name: &dyn Fn(usize, &str) -> String| {
            (0..LAYERS).flat_map(|layer| ["key", "value"].map(|what| name(layer, what))).collect()
        };
        Ok(Self {
            encoder: Shared::load(&paths.encoder, with)?,
            decoder: Shared::load(&paths.decoder, with)?,
            heard: each(&|layer, what| format!("cross.{layer}.{what}")),
            given_heard: each(&|layer, what| format!("past_key_values.{layer}.encoder.{what}")),
            given_past: each(&|layer, what| format!("past_key_values.{layer}.decoder.{what}")),
            present: each(&|layer, what| format!("present.{layer}.decoder.{what}")),
            attention: ALIGNED_LAYERS.iter().map(|layer| format!("xattn.{layer}")).collect(),
        })
    }
}

pub(super) struct OrtSession(pub(super) Arc<Graphs>);

impl Session for OrtSession {
    type Heard = Vec<DynValue>;
    type Past = Vec<DynValue>;

    fn encode(&mut self, mel: &[f32], frames: usize) -> Result<Self::Heard, EngineError> {
        let it = &*self.0;
        let input = Tensor::from_array(([1, BANDS, frames], mel.to_vec())).map_err(failed)?;
        let mut encoder = it.encoder.step();
        let mut outputs = encoder.run(ort::inputs!["mel" => input]).map_err(failed)?;
        let missing = || failed("the encoder gave too few outputs");
        it.heard.iter().map(|name| outputs.remove(name).ok_or_else(missing)).collect()
    }

    fn start(&mut self, _: usize) -> Result<Self::Past, EngineError> {
        let nothing = || Tensor::<f32>::from_array(([1, HEADS, 0, WIDTH], Vec::new())).map_err(failed);
        (0..2 * LAYERS).map(|_| nothing().map(Tensor::into_dyn)).collect()
    }

    fn step(
        &mut self,
        heard: &Self::Heard,
        past: Self::Past,
        fed: usize,
        tokens: &[u32],
        attention: bool,
    ) -> Result<Step<Self::Past>, EngineError> {
        let it = &*self.0;
        let ids: Vec<i32> = tokens.iter().map(|it| it.cast_signed()).collect();
        let ids = Tensor::from_array(([1, ids.len()], ids)).map_err(failed)?;
        let mask = Tensor::from_array(([tokens.len(), fed + tokens.len()], mask(fed, tokens.len()))).map_err(failed)?;
        let mut inputs: Vec<(&str, SessionInputValue<'_>)> = vec![("input_ids", ids.into()), ("mask", mask.into())];
        inputs.extend(it.given_heard.iter().zip(heard).map(|(name, value)| (name.as_str(), value.into())));
        inputs.extend(it.given_past.iter().zip(&past).map(|(name, value)| (name.as_str(), value.into())));
        let mut decoder = it.decoder.step();
        let mut outputs = decoder.run(inputs).map_err(failed)?;
        let missing = || failed("the decoder gave too few outputs");
        let floats = |value: Option<DynValue>| -> Result<Vec<f32>, EngineError> {
            Ok(value.ok_or_else(missing)?.try_extract_tensor::<f32>().map_err(failed)?.1.to_vec())
        };
        let logits = floats(outputs.remove("logits"))?;
        let past = it.present.iter().map(|name| outputs.remove(name).ok_or_else(missing));
        let past = past.collect::<Result<Vec<_>, _>>()?;
        let wanted = if attention { &it.attention[..] } else { &[] };
        let looked = wanted.iter().map(|name| floats(outputs.remove(name))).collect::<Result<Vec<_>, _>>()?;
        Ok(Step { past, logits, looked })
    }
}
