//! Samples: resampling, mu-law, levels, dither, WAV. Plain arithmetic in `f64` and in a fixed order, so that the same
//! input gives the same bytes on every machine.

use std::path::Path;

use anyhow::{Context, Result, bail};

/// Zero crossings on each side of the resampling filter: enough for a stop band below -90 dB.
const LOBES: f64 = 24.0;
/// Where the pass band ends, as a part of the lower rate's half.
const ROLLOFF: f64 = 0.93;
const KAISER_BETA: f64 = 9.0;

/// A 5 ms window is short against a phone and long against a pitch period.
const WINDOW_SECONDS: f64 = 0.005;

/// Converts by any rational ratio with a windowed sinc; output sample `n` lies at the time `n / to`.
pub(super) fn resample(input: &[f32], from: u32, to: u32) -> Vec<f32> {
    if from == to {
        return input.to_vec();
    }
    let divisor = gcd(from, to);
    let (up, down) = ((to / divisor) as usize, (from / divisor) as usize);
    // In input samples.
    let cutoff = ROLLOFF * f64::min(1.0, f64::from(to) / f64::from(from));
    let half = LOBES / cutoff;
    let reach = half.ceil() as isize;
    let phases: Vec<Vec<f64>> = (0..up)
        .map(|phase| {
            let offset = phase as f64 / up as f64;
            let taps: Vec<f64> = (-reach..=reach)
                .map(|k| {
                    let x = k as f64 - offset;
                    if x.abs() > half { 0.0 } else { cutoff * sinc(cutoff * x) * kaiser(x / half) }
                })
                .collect();
            // Unity gain at zero frequency for each phase, so that phases do not whistle.
            let gain: f64 = taps.iter().sum();
            taps.into_iter().map(|tap| tap / gain).collect()
        })
        .collect();
    (0..input.len() * up / down)
        .map(|n| {
            let position = n * down;
            let (whole, phase) = ((position / up) as isize, position % up);
            let sum: f64 = phases[phase]
                .iter()
                .enumerate()
                .filter_map(|(i, tap)| {
                    let at = usize::try_from(whole + i as isize - reach).ok()?;
                    input.get(at).map(|sample| tap * f64::from(*sample))
                })
                .sum();
            sum as f32
        })
        .collect()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn sinc(x: f64) -> f64 {
    let x = std::f64::consts::PI * x;
    if x.abs() < 1e-12 { 1.0 } else { x.sin() / x }
}

fn kaiser(x: f64) -> f64 {
    bessel(KAISER_BETA * (1.0 - x * x).max(0.0).sqrt()) / bessel(KAISER_BETA)
}

/// The modified Bessel function of order zero, by its series.
fn bessel(x: f64) -> f64 {
    let (mut sum, mut term, mut k) = (1.0, 1.0, 1.0);
    while term > sum * 1e-16 {
        term *= (x / (2.0 * k)).powi(2);
        sum += term;
        k += 1.0;
    }
    sum
}

pub(super) fn peak(samples: &[f32]) -> f32 {
    samples.iter().fold(0.0, |peak, sample| peak.max(sample.abs()))
}

pub(super) fn scale(samples: &mut [f32], to_peak: f32) {
    let peak = peak(samples);
    if peak > 0.0 {
        samples.iter_mut().for_each(|sample| *sample *= to_peak / peak);
    }
}

/// Root mean square of each whole 5 ms window, and the window's length in samples.
pub(super) fn levels(samples: &[f32], rate: u32) -> (Vec<f64>, usize) {
    let window = (f64::from(rate) * WINDOW_SECONDS) as usize;
    let level = |chunk: &[f32]| {
        (chunk.iter().map(|sample| f64::from(*sample).powi(2)).sum::<f64>() / chunk.len() as f64).sqrt()
    };
    (samples.chunks_exact(window).map(level).collect(), window)
}

/// From the first to the last 5 ms window that is less than `below_db` under the loudest one, in samples.
pub(super) fn speech_span(samples: &[f32], rate: u32, below_db: f64) -> Option<(usize, usize)> {
    let (levels, window) = levels(samples, rate);
    let floor = levels.iter().copied().fold(0.0, f64::max) * 10f64.powf(-below_db / 20.0);
    let first = levels.iter().position(|level| *level > floor)?;
    let last = levels.iter().rposition(|level| *level > floor)?;
    Some((first * window, (last + 1) * window))
}

/// A linear ramp at both ends, so that a cut does not click.
pub(super) fn fade(samples: &mut [f32], ramp: usize) {
    let ramp = ramp.min(samples.len() / 2);
    let last = samples.len().saturating_sub(1);
    for n in 0..ramp {
        let gain = n as f32 / ramp as f32;
        samples[n] *= gain;
        samples[last - n] *= gain;
    }
}

/// A fixed sequence of numbers (xorshift64*): gaps and dither differ from file to file and never from run to run.
pub(super) struct Sequence(u64);

impl Sequence {
    pub(super) fn new(name: &str) -> Sequence {
        // FNV-1a; zero is the one state xorshift cannot leave.
        let hash = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        Sequence(hash.max(1))
    }

    /// In [0, 1).
    pub(super) fn next(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(super) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.next()
    }
}

/// Peak of the triangular noise under everything, in 16-bit steps: its level is -70 dB of full scale, that of a quiet
/// room through a close microphone. Digital silence would flatter a voice detector.
const NOISE_PEAK: f64 = 25.0;

/// 16-bit samples with the noise floor; what would clip is an error, not a limit.
pub(super) fn quantise(samples: &[f32], name: &str) -> Result<Vec<i16>> {
    let mut noise = Sequence::new(name);
    samples
        .iter()
        .map(|sample| {
            let value = f64::from(*sample) * 32768.0 + NOISE_PEAK * (noise.next() - noise.next());
            let value = value.round();
            if value.abs() > 32767.0 {
                bail!("{name} would clip");
            }
            Ok(value as i16)
        })
        .collect()
}

const MULAW_BIAS: i32 = 0x84;
const MULAW_MOST: i32 = 32635;

/// G.711 mu-law, one sample.
pub(super) fn mulaw_encode(sample: i16) -> u8 {
    let (sign, magnitude) = if sample < 0 { (0x80, -i32::from(sample)) } else { (0, i32::from(sample)) };
    let value = magnitude.min(MULAW_MOST) + MULAW_BIAS;
    let exponent = 31 - value.leading_zeros() as i32 - 7;
    let mantissa = (value >> (exponent + 3)) & 0x0f;
    !((sign | (exponent << 4) | mantissa) as u8)
}

pub(super) fn mulaw_decode(byte: u8) -> i16 {
    let byte = i32::from(!byte);
    let magnitude = ((((byte & 0x0f) << 3) + MULAW_BIAS) << ((byte & 0x70) >> 4)) - MULAW_BIAS;
    (if byte & 0x80 != 0 { -magnitude } else { magnitude }) as i16
}

/// A WAV file's samples and rate; several channels become one.
pub(super) fn read_wav(path: &Path) -> Result<(Vec<f32>, u32)> {
    let mut reader = hound::WavReader::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let spec = reader.spec();
    let samples: Vec<f32> = match spec.sample_format {
        hound::SampleFormat::Float => reader.samples::<f32>().collect::<Result<_, _>>()?,
        hound::SampleFormat::Int => {
            let full = (1_i64 << (spec.bits_per_sample - 1)) as f32;
            reader.samples::<i32>().map(|sample| sample.map(|sample| sample as f32 / full)).collect::<Result<_, _>>()?
        }
    };
    let channels = usize::from(spec.channels.max(1));
    let mono = samples.chunks_exact(channels).map(|frame| frame.iter().sum::<f32>() / channels as f32).collect();
    Ok((mono, spec.sample_rate))
}

pub(super) fn write_wav(path: &Path, samples: &[i16], rate: u32) -> Result<()> {
    let spec =
        hound::WavSpec { channels: 1, sample_rate: rate, bits_per_sample: 16, sample_format: hound::SampleFormat::Int };
    let mut writer =
        hound::WavWriter::create(path, spec).with_context(|| format!("cannot write {}", path.display()))?;
    for sample in samples {
        writer.write_sample(*sample)?;
    }
    Ok(writer.finalize()?)
}

/// Little-endian samples without a header.
pub(super) fn raw_f32(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

pub(super) fn raw_i16(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<2>().0.iter().map(|bytes| f32::from(i16::from_le_bytes(*bytes)) / 32768.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(hertz: f64, rate: u32, seconds: f64) -> Vec<f32> {
        let samples = (f64::from(rate) * seconds) as usize;
        let step = std::f64::consts::TAU * hertz / f64::from(rate);
        (0..samples).map(|n| (0.5 * (step * n as f64).sin()) as f32).collect()
    }

    #[test]
    fn resampling_keeps_a_tone_and_its_place_in_time() {
        for (from, to) in [(24000, 16000), (22050, 16000), (48000, 16000), (32000, 16000), (16000, 8000)] {
            let (got, want) = (resample(&tone(1000.0, from, 0.5), from, to), tone(1000.0, to, 0.5));
            assert_eq!(got.len(), want.len());
            let inner = 400..want.len() - 400;
            let worst = inner.map(|n| (got[n] - want[n]).abs()).fold(0.0, f32::max);
            assert!(worst < 2e-4, "{from} to {to}: {worst}");
        }
    }

    #[test]
    fn resampling_removes_what_the_lower_rate_cannot_hold() {
        let got = resample(&tone(6000.0, 16000, 0.5), 16000, 8000);
        assert!(peak(&got[400..got.len() - 400]) < 1e-4);
    }

    #[test]
    fn mulaw_there_and_back_is_idempotent() {
        for byte in 0..=255 {
            let sample = mulaw_decode(byte);
            assert_eq!(mulaw_decode(mulaw_encode(sample)), sample);
        }
        assert_eq!((mulaw_encode(0), mulaw_decode(0x00), mulaw_decode(0x80)), (0xff, -32124, 32124));
        for sample in [-20000, -700, -3, 3, 700, 20000_i16] {
            let error = (i32::from(mulaw_decode(mulaw_encode(sample))) - i32::from(sample)).abs();
            assert!(error <= 4 + i32::from(sample).abs() / 16, "{sample}: {error}");
        }
    }

    #[test]
    fn the_span_of_speech_ends_with_its_last_loud_window() {
        let mut samples = vec![0.0; 8000];
        samples[1600..4000].copy_from_slice(&tone(400.0, 16000, 0.15));
        assert_eq!(speech_span(&samples, 16000, 40.0), Some((1600, 4000)));
        assert_eq!(speech_span(&[0.0; 1600], 16000, 40.0), None);
    }

    #[test]
    fn quantising_is_repeatable_quiet_and_never_clips() {
        let silence = quantise(&[0.0; 16000], "a").unwrap();
        assert_eq!(silence, quantise(&[0.0; 16000], "a").unwrap());
        assert_ne!(silence, quantise(&[0.0; 16000], "b").unwrap());
        let power = silence.iter().map(|sample| f64::from(*sample).powi(2)).sum::<f64>() / 16000.0;
        let db = 20.0 * (power.sqrt() / 32768.0).log10();
        assert!((-72.0..-68.0).contains(&db), "{db}");
        assert!(quantise(&[1.1], "c").is_err());
    }
}
