//! From a stream's rate to the engine's, exactly in time.
//!
//! What comes out is a function of what went in since the start, not of how it was cut: input is processed in blocks of
//! a fixed size. Output sample `m` stands at input time `m / 16000`: the filter's delay is taken away.

use hearsay_protocol::SampleRate;
use rubato::{Resampler as _, SincFixedIn, SincInterpolationParameters, SincInterpolationType, WindowFunction};

use crate::engine::ENGINE_RATE;

/// Input samples the filter sees around each output sample. At 48 kHz a transition band of 1.2 kHz.
const TAPS: usize = 128;

/// One stream's way to the engine's rate.
pub struct Resampler {
    rate: u32,
    /// None: the rate is the engine's already.
    filter: Option<Filter>,
}

struct Filter {
    sinc: SincFixedIn<f32>,
    /// Input that does not fill a block.
    waiting: Vec<f32>,
    output: Vec<Vec<f32>>,
    lead: Lead,
    /// Output samples still to be dropped.
    delay: usize,
    taken: u64,
    given: u64,
}

/// The filter cannot be built or run: a fault of ours.
#[derive(Debug, Clone, thiserror::Error)]
#[error("resampling from {rate} Hz failed: {reason}")]
pub struct ResampleError {
    rate: u32,
    reason: String,
}

impl Resampler {
    /// # Errors
    /// When the filter cannot be built.
    pub fn new(rate: SampleRate) -> Result<Self, ResampleError> {
        let rate = rate.get();
        if rate == ENGINE_RATE {
            return Ok(Self { rate, filter: None });
        }
        let parameters = SincInterpolationParameters {
            sinc_len: TAPS,
            f_cutoff: 0.925,
            oversampling_factor: 256,
            interpolation: SincInterpolationType::Linear,
            window: WindowFunction::BlackmanHarris2,
        };
        // Ten milliseconds: what the stream is behind by at most, beside half the filter.
        let block = (rate / 100) as usize;
        let ratio = f64::from(ENGINE_RATE) / f64::from(rate);
        let sinc = SincFixedIn::new(ratio, 1.0, parameters, block, 1)
            .map_err(|error| ResampleError { rate, reason: error.to_string() })?;
        let output = sinc.output_buffer_allocate(true);
        let lead = Lead::of(ratio);
        let waiting = Vec::with_capacity(2 * block);
        let mut filter = Filter { sinc, waiting, output, lead, delay: 0, taken: 0, given: 0 };
        filter.reset();
        Ok(Self { rate, filter: Some(filter) })
    }

    /// Forgets everything: the next sample is the first.
    pub fn reset(&mut self) {
        if let Some(filter) = &mut self.filter {
            filter.reset();
        }
    }

    /// Appends to `out` what `input` completes.
    ///
    /// # Errors
    /// A fault of ours.
    pub fn push(&mut self, input: &[f32], out: &mut Vec<f32>) -> Result<(), ResampleError> {
        match &mut self.filter {
            None => out.extend_from_slice(input),
            Some(filter) => {
                filter.taken += input.len() as u64;
                filter.waiting.extend_from_slice(input);
                filter.blocks(out).map_err(|reason| ResampleError { rate: self.rate, reason })?;
            }
        }
        Ok(())
    }

    /// Appends the rest, as if silence followed. Only [`Resampler::reset`] may follow.
    ///
    /// # Errors
    /// A fault of ours.
    pub fn flush(&mut self, out: &mut Vec<f32>) -> Result<(), ResampleError> {
        let Some(filter) = &mut self.filter else { return Ok(()) };
        let total = filter.taken * u64::from(ENGINE_RATE) / u64::from(self.rate);
        let block = filter.sinc.input_frames_next();
        while filter.given < total {
            filter.waiting.resize(filter.waiting.len().next_multiple_of(block).max(block), 0.0);
            filter.blocks(out).map_err(|reason| ResampleError { rate: self.rate, reason })?;
        }
        let surplus = usize::try_from(filter.given - total).unwrap_or(0);
        out.truncate(out.len() - surplus.min(out.len()));
        Ok(())
    }
}

/// What puts the filter's output on time: its sample `n` stands at input sample `(n + 1) / ratio - 1`, so with some
/// zeros before the input and some samples taken from the output, the first one left stands at zero.
#[derive(Debug, Clone, Copy)]
struct Lead {
    zeros: usize,
    dropped: usize,
}

impl Lead {
    /// The fewest zeros that leave less than a thousandth of a sample, or the best of a few.
    fn of(ratio: f64) -> Self {
        let mut best = (f64::MAX, Self { zeros: 0, dropped: 0 });
        for zeros in 0..32 {
            let exact = (zeros + 1) as f64 * ratio;
            let error = (exact - exact.round()).abs();
            if exact >= 0.5 && error < best.0 - 0.001 {
                best = (error, Self { zeros, dropped: exact.round() as usize - 1 });
            }
        }
        best.1
    }
}

impl Filter {
    fn reset(&mut self) {
        self.sinc.reset();
        self.waiting.clear();
        self.waiting.resize(self.lead.zeros, 0.0);
        self.delay = self.lead.dropped;
        self.taken = 0;
        self.given = 0;
    }

    fn blocks(&mut self, out: &mut Vec<f32>) -> Result<(), String> {
        let block = self.sinc.input_frames_next();
        let mut done = 0;
        while self.waiting.len() - done >= block {
            let input = &self.waiting[done..done + block];
            let (_, made) =
                self.sinc.process_into_buffer(&[input], &mut self.output, None).map_err(|error| error.to_string())?;
            let dropped = self.delay.min(made);
            self.delay -= dropped;
            self.given += (made - dropped) as u64;
            out.extend_from_slice(&self.output[0][dropped..made]);
            done += block;
        }
        self.waiting.drain(..done);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::f32::consts::TAU;

    use hearsay_protocol::{AudioFormat, Encoding};
    use proptest::prelude::*;

    use super::*;

    fn resampler(rate: u32) -> Resampler {
        Resampler::new(AudioFormat::new(Encoding::Linear16, rate).unwrap().rate).unwrap()
    }

    fn whole(rate: u32, input: &[f32]) -> Vec<f32> {
        let mut resampler = resampler(rate);
        let mut out = Vec::new();
        resampler.push(input, &mut out).unwrap();
        resampler.flush(&mut out).unwrap();
        out
    }

    const RATES: [u32; 9] = [8_000, 8_001, 11_025, 12_000, 16_000, 22_050, 24_000, 44_100, 48_000];

    /// A click's centre of gravity stays where it was.
    #[test]
    fn a_click_keeps_its_time() {
        for rate in RATES {
            for at in [0.05, 0.5, 0.9] {
                let place = (f64::from(rate) * at) as usize;
                let mut input = vec![0.0; rate as usize];
                input[place] = 1.0;
                let out = whole(rate, &input);
                assert_eq!(out.len(), 16_000, "{rate}");
                let peak = (0..out.len()).max_by(|a, b| out[*a].abs().total_cmp(&out[*b].abs())).unwrap();
                // Parabola through the three highest samples.
                let (a, b, c) = (out[peak - 1], out[peak], out[peak + 1]);
                let shift = f64::from(0.5 * (a - c) / (a - 2.0 * b + c));
                let error_ms = ((peak as f64 + shift) / 16_000.0 - place as f64 / f64::from(rate)) * 1_000.0;
                assert!(error_ms.abs() < 0.1, "{rate} Hz, click at {at} s: {error_ms} ms");
            }
        }
    }

    /// A tone comes out as itself: phase, level and all; what the engine's rate cannot hold is gone.
    #[test]
    fn tones_keep_phase_and_level_and_do_not_fold() {
        for rate in RATES {
            let tone = |rate: u32, hz: f32, samples: usize| -> Vec<f32> {
                (0..samples).map(|n| 0.5 * (TAU * hz * n as f32 / rate as f32).sin()).collect()
            };
            let out = whole(rate, &tone(rate, 1_000.0, rate as usize / 2));
            let wanted = tone(16_000, 1_000.0, out.len());
            let worst = out.iter().zip(&wanted).skip(800).take(6_000).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 0.03, "{rate} Hz: {worst}");
            if rate > 20_000 {
                let folded = whole(rate, &tone(rate, 9_500.0, rate as usize / 2));
                let worst = folded.iter().skip(800).take(6_000).map(|it| it.abs()).fold(0.0, f32::max);
                assert!(worst < 0.005, "{rate} Hz: {worst} of 9.5 kHz came through");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn pieces_and_a_used_filter_give_the_same_samples(
            rate in prop::sample::select(&RATES[..]),
            sizes in prop::collection::vec(0..900_usize, 1..40),
            seed in any::<u32>(),
        ) {
            let total = sizes.iter().sum::<usize>();
            let noise = |n: usize| (n as u32).wrapping_mul(2_654_435_761).wrapping_add(seed) as f32 / 4.3e9 - 0.5;
            let input: Vec<f32> = (0..total).map(noise).collect();
            let wanted = whole(rate, &input);
            let mut resampler = resampler(rate);
            let mut out = Vec::new();
            resampler.push(&input[..total / 2], &mut out).unwrap();
            resampler.flush(&mut out).unwrap();
            resampler.reset();
            out.clear();
            let mut rest = &input[..];
            for size in sizes {
                let (piece, after) = rest.split_at(size);
                resampler.push(piece, &mut out).unwrap();
                rest = after;
            }
            resampler.flush(&mut out).unwrap();
            prop_assert_eq!(out, wanted);
        }
    }
}
