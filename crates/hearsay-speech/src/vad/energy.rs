//! Loudness taken for speech. For tests, and for telling the parts apart when the real model is in doubt.

use super::{Vad, VadError, VadModel};

/// Speech is what is loud: a level of `half` (root mean square, full scale 1) counts as one half.
#[derive(Debug, Clone, Copy)]
pub struct Energy {
    pub half: f32,
}

impl Default for Energy {
    /// -40 dB.
    fn default() -> Self {
        Self { half: 0.01 }
    }
}

impl VadModel for Energy {
    fn voice(&self) -> Box<dyn Vad> {
        Box::new(Loudness { half: self.half, last: 0.0 })
    }
}

struct Loudness {
    half: f32,
    /// Decays, as a real model's memory does: a frame's probability depends on those before it.
    last: f32,
}

impl Vad for Loudness {
    fn reset(&mut self) {
        self.last = 0.0;
    }

    fn probability(&mut self, frame: &[f32]) -> Result<f32, VadError> {
        let mean = frame.iter().map(|it| it * it).sum::<f32>() / frame.len().max(1) as f32;
        let loud = mean.sqrt() / (2.0 * self.half);
        self.last = (0.8 * loud + 0.2 * self.last).min(1.0);
        Ok(self.last)
    }
}
