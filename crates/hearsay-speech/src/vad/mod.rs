//! Whether somebody speaks, 32 ms at a time.

mod energy;
mod silero;

pub use energy::Energy;
pub use silero::Silero;

/// A voice-activity model: weights shared by all streams.
pub trait VadModel: Send + Sync {
    /// The state one stream needs.
    fn voice(&self) -> Box<dyn Vad>;
}

/// One stream's voice activity. What it says is a function of the frames since its last reset.
pub trait Vad: Send {
    /// Forgets everything: the next frame is the first.
    fn reset(&mut self);

    /// Speech probability, 0 to 1, of the next [`crate::engine::VAD_FRAME`] samples.
    ///
    /// # Errors
    /// When the model failed.
    fn probability(&mut self, frame: &[f32]) -> Result<f32, VadError>;
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum VadError {
    #[error("the voice activity model {path} cannot be used: {reason}")]
    Load { path: std::path::PathBuf, reason: String },
    #[error("the voice activity model failed: {0}")]
    Model(String),
}
