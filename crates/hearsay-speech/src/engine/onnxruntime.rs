//! ONNX Runtime: a shared library loaded at run time, for processors and accelerators that `rten` does not know.
//!
//! A model's weights exist once in a process, here too: all decoding threads run one session, a step at a time, and each
//! step is divided among as many threads as there are of them. The bindings do not let a session take two steps at once.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use ort::{
    environment::Environment,
    ep::{self, ExecutionProviderDispatch},
    session::{Session, builder::GraphOptimizationLevel},
};

use super::EngineError;

/// ONNX Runtime, and what it may run on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnnxRuntime {
    /// `libonnxruntime.so`, of a version the bindings know (1.32.0 is tested). A process loads one.
    pub library: PathBuf,
    /// Execution providers by name, the preferred one first: `cuda`, `tensorrt`, `openvino`, `rocm`. One the library
    /// does not have is an error. The processor comes last by itself.
    pub providers: Vec<String>,
    /// Decoding threads, which is also how many a step on the processor is divided among.
    pub threads: usize,
}

/// One graph, run by all decoding threads.
pub(super) struct Shared(Mutex<Session>);

impl Shared {
    /// # Errors
    /// [`EngineError::Load`] names the file that cannot be used, or the provider that is not there.
    pub(super) fn load(path: &Path, with: &OnnxRuntime) -> Result<Self, EngineError> {
        let environment = environment(&with.library)?;
        let failed = |reason: String| EngineError::Load { path: path.to_owned(), reason };
        let providers = with.providers.iter().map(|it| provider(it)).collect::<Result<Vec<_>, _>>().map_err(failed)?;
        let built = || -> Result<Session, ort::Error> {
            Session::builder(&environment)?
                .with_optimization_level(GraphOptimizationLevel::Level3)?
                .with_intra_threads(with.threads.max(1))?
                .with_intra_op_spinning(false)?
                .with_execution_providers(providers)?
                .commit_from_file(path)
        };
        built().map(|session| Self(Mutex::new(session))).map_err(|error| failed(error.to_string()))
    }

    /// For one step. A step that panicked left nothing behind: a session has no state of its own.
    pub(super) fn step(&self) -> MutexGuard<'_, Session> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

static ENVIRONMENT: Mutex<Option<(PathBuf, Environment)>> = Mutex::new(None);

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
