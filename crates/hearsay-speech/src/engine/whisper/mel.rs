//! Samples as Whisper hears them: 80 bands of the logarithm of power on the mel scale, 100 times a second.

use std::{f64::consts::TAU, sync::Arc};

use rustfft::{Fft, FftPlanner, num_complex::Complex};

pub(super) const BANDS: usize = 80;
const WINDOW: usize = 400;
/// Samples from one frame to the next.
pub(super) const HOP: usize = 160;
const BINS: usize = WINDOW / 2 + 1;

#[derive(Clone)]
pub(super) struct Mel {
    fft: Arc<dyn Fft<f32>>,
    window: Arc<[f32]>,
    /// For each band, its first bin and its weights.
    bands: Arc<[(usize, Vec<f32>)]>,
}

/// Linear below 1,000 Hz, logarithmic above: Slaney's scale.
fn mel_to_hertz(mel: f64) -> f64 {
    if mel < 15.0 { mel * 200.0 / 3.0 } else { 1_000.0 * ((mel - 15.0) * 6.4f64.ln() / 27.0).exp() }
}

impl Mel {
    pub(super) fn new() -> Self {
        let window = (0..WINDOW).map(|n| (0.5 - 0.5 * (TAU * n as f64 / WINDOW as f64).cos()) as f32).collect();
        // 8,000 Hz on the scale.
        let highest = 15.0 + 8f64.ln() * 27.0 / 6.4f64.ln();
        let edges: Vec<f64> = (0..BANDS + 2).map(|n| mel_to_hertz(highest * n as f64 / (BANDS + 1) as f64)).collect();
        let bands = edges.windows(3).map(|edge| {
            let weight = |bin: usize| {
                let hertz = bin as f64 * 16_000.0 / WINDOW as f64;
                let rises = (hertz - edge[0]) / (edge[1] - edge[0]);
                let falls = (edge[2] - hertz) / (edge[2] - edge[1]);
                (rises.min(falls).max(0.0) * 2.0 / (edge[2] - edge[0])) as f32
            };
            let first = (0..BINS).find(|bin| weight(*bin) > 0.0).unwrap_or(0);
            (first, (first..BINS).map(weight).take_while(|it| *it > 0.0).collect())
        });
        Self { fft: FftPlanner::new().plan_fft_forward(WINDOW), window, bands: bands.collect() }
    }

    /// Band by band, `frames` of each; behind the samples is silence.
    pub(super) fn of(&self, samples: &[f32], frames: usize) -> Vec<f32> {
        let mut bands = vec![0f32; BANDS * frames];
        let mut buffer = vec![Complex::default(); WINDOW];
        let mut scratch = vec![Complex::default(); self.fft.get_inplace_scratch_len()];
        for frame in 0..frames {
            for (n, (it, window)) in buffer.iter_mut().zip(&*self.window).enumerate() {
                // The first frames look back across the beginning as into a mirror.
                let at = (frame * HOP + n).abs_diff(WINDOW / 2);
                *it = Complex::new(samples.get(at).copied().unwrap_or(0.0) * window, 0.0);
            }
            self.fft.process_with_scratch(&mut buffer, &mut scratch);
            for (band, (first, weights)) in self.bands.iter().enumerate() {
                let power: f32 = weights.iter().zip(&buffer[*first..]).map(|(weight, it)| weight * it.norm_sqr()).sum();
                bands[band * frames + frame] = power.max(1e-10).log10();
            }
        }
        let loudest = bands.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        for it in &mut bands {
            *it = (it.max(loudest - 8.0) + 4.0) / 4.0;
        }
        bands
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tone_is_loudest_in_its_band_and_silence_is_even() {
        let mel = Mel::new();
        let tone: Vec<f32> = (0..16_000).map(|n| (TAU * 440.0 * f64::from(n) / 16_000.0).sin() as f32 * 0.5).collect();
        let bands = mel.of(&tone, 200);
        let loudest =
            |frame: usize| (0..BANDS).max_by(|a, b| bands[a * 200 + frame].total_cmp(&bands[b * 200 + frame]));
        // 440 Hz is 6.6 of 45.2 mels, in 81 steps.
        assert!((10..=12).contains(&loudest(50).unwrap()), "{:?}", loudest(50));
        // Behind its end nothing is heard.
        let (inside, behind) = (bands[11 * 200 + 50], bands[11 * 200 + 150]);
        assert!((inside - behind - 2.0).abs() < 1e-3, "{inside} {behind}");
        let silence = mel.of(&[], 10);
        assert!(silence.iter().all(|it| (it + 1.5).abs() < 1e-6), "{:?}", &silence[..3]);
    }
}
