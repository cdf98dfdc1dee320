//! The model on ONNX Runtime, for processors and accelerators that `rten` does not know.
//!
//! A session runs one step at a time and is not shared: every decoding thread loads its own.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use ort::{
    environment::Environment,
    ep::{self, ExecutionProviderDispatch},
    session::{Session as Ort, SessionInputValue, builder::GraphOptimizationLevel},
    value::{DynValue, Tensor},
};

use super::{
    MoonshinePaths, OnnxRuntime,
    backend::{ALIGNED_HEADS, ALIGNED_LAYERS, HEADS, LAYERS, Model, Session, Step, WIDTH, failed, head},
};
use crate::engine::EngineError;

/// Where the model is, and what runs it. A process has one environment; it lives as long as the process.
pub(super) struct Shared {
    paths: MoonshinePaths,
    providers: Vec<String>,
    environment: Environment,
    /// Made while loading, so that a wrong file is known then; the first thread takes it.
    first: Mutex<Option<OrtSession>>,
}

static ENVIRONMENT: Mutex<Option<(PathBuf, Environment)>> = Mutex::new(None);

impl Shared {
    pub(super) fn load(paths: &MoonshinePaths, with: &OnnxRuntime) -> Result<Self, EngineError> {
        let environment = environment(&with.library)?;
        let mut shared =
            Self { paths: paths.clone(), providers: with.providers.clone(), environment, first: Mutex::new(None) };
        let first = shared.open()?;
        shared.first = Mutex::new(Some(first));
        Ok(shared)
    }

    fn open(&self) -> Result<OrtSession, EngineError> {
        let load = |path: &Path| {
            let failed = |reason: String| EngineError::Load { path: path.to_owned(), reason };
            let providers =
                self.providers.iter().map(|it| provider(it)).collect::<Result<Vec<_>, _>>().map_err(failed)?;
            let built = || -> Result<Ort, ort::Error> {
                Ort::builder(&self.environment)?
                    .with_optimization_level(GraphOptimizationLevel::Level3)?
                    .with_intra_threads(1)?
                    .with_intra_op_spinning(false)?
                    .with_execution_providers(providers)?
                    .commit_from_file(path)
            };
            built().map_err(|error| failed(error.to_string()))
        };
        Ok(OrtSession { encoder: load(&self.paths.encoder)?, decoder: load(&self.paths.decoder)?, names: Names::new() })
    }
}

/// The process's, made at the first call; later ones must name the same library.
fn environment(library: &Path) -> Result<Environment, EngineError> {
    let failed = |reason: String| EngineError::Load { path: library.to_owned(), reason };
    let mut kept = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((loaded, environment)) = &*kept {
        if loaded == library {
            return Ok(environment.clone());
        }
        return Err(failed(format!("this process already runs {}", loaded.display())));
    }
    let builder = ort::init_from(library).map_err(|error| failed(error.to_string()))?;
    let built = builder.with_name("hearsay").with_telemetry(false).build();
    let environment = built.map_err(|error| failed(error.to_string()))?;
    *kept = Some((library.to_owned(), environment.clone()));
    Ok(environment)
}

fn provider(name: &str) -> Result<ExecutionProviderDispatch, String> {
    // One that is asked for and not there is an error, not a slow start.
    let built = match name {
        "cpu" => ep::CPU::default().build(),
        "cuda" => ep::CUDA::default().build(),
        "tensorrt" => ep::TensorRT::default().build(),
        "openvino" => ep::OpenVINO::default().build(),
        "rocm" => ep::ROCm::default().build(),
        other => {
            return Err(format!(
                "the execution provider {other:?} is not known: cpu, cuda, tensorrt, openvino and rocm are"
            ));
        }
    };
    Ok(built.error_on_failure())
}

impl Model for Shared {
    type Session = LazySession;

    fn session(&self) -> LazySession {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        LazySession(first.map_or_else(|| self.open(), Ok))
    }
}

/// A session, or why there is none: said with every request.
pub(super) struct LazySession(Result<OrtSession, EngineError>);

impl LazySession {
    fn get(&mut self) -> Result<&mut OrtSession, EngineError> {
        self.0.as_mut().map_err(failed)
    }
}

struct OrtSession {
    encoder: Ort,
    decoder: Ort,
    names: Names,
}

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

impl Session for LazySession {
    type Heard = Vec<DynValue>;
    type Past = Vec<DynValue>;

    fn encode(&mut self, samples: &[f32]) -> Result<Self::Heard, EngineError> {
        let it = self.get()?;
        let input = Tensor::from_array(([1, samples.len()], samples.to_vec())).map_err(failed)?;
        let mut outputs = it.encoder.run(ort::inputs!["input_values" => input]).map_err(failed)?;
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
        let it = self.get()?;
        let ids: Vec<i64> = tokens.iter().map(|it| i64::from(*it)).collect();
        let ids = Tensor::from_array(([1, ids.len()], ids)).map_err(failed)?;
        let mut inputs: Vec<(&str, SessionInputValue<'_>)> = vec![("input_ids", ids.into())];
        inputs.extend(it.names.heard.iter().zip(heard).map(|(name, value)| (name.as_str(), value.into())));
        inputs.extend(it.names.past.iter().zip(&past).map(|(name, value)| (name.as_str(), value.into())));
        let mut outputs = it.decoder.run(inputs).map_err(failed)?;
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
