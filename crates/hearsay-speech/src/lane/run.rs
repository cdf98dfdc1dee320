//! Bytes, samples and stream time of one run: audio of one format on an uninterrupted clock.

use bytes::Bytes;
use hearsay_protocol::{AudioFormat, ChunkNumber, Restart, StreamTime};

use crate::{
    codec::{Unsupported, width},
    segment::FRAME_US,
};

const SECOND_US: i128 = 1_000_000;

/// A run's clock. All arithmetic is on whole numbers, so that whoever computes a place finds the same one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) format: AudioFormat,
    pub(super) headers: Bytes,
    /// Bytes of a sample.
    pub(super) width: u64,
    rate: i128,
    /// The stream time of sample 0, µs. Before the stream's origin only when a run begins inside a sample.
    base: i128,
}

/// Where a fresh front begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Begin {
    pub(super) sample: u64,
    /// The stream time, µs, its first frame stands for.
    pub(super) origin: i128,
    /// Frames before the watermark.
    pub(super) preroll: usize,
}

impl Run {
    /// The run whose byte `bytes` (or the sample that begins after it) is heard at `at`.
    pub(super) fn new(format: AudioFormat, headers: Bytes, bytes: u64, at: StreamTime) -> Result<Self, Unsupported> {
        let width = width(format)?;
        let mut run = Self { format, headers, width, rate: i128::from(format.rate.get()), base: 0 };
        run.base = i128::from(at.0) - run.micros(bytes.div_ceil(width));
        Ok(run)
    }

    fn micros(&self, samples: u64) -> i128 {
        i128::from(samples) * SECOND_US / self.rate
    }

    pub(super) fn time(&self, sample: u64) -> StreamTime {
        let time = (self.base + self.micros(sample)).max(0);
        StreamTime(u64::try_from(time).unwrap_or(u64::MAX))
    }

    /// When all whole samples in the first `bytes` have been heard.
    pub(super) fn time_after(&self, bytes: u64) -> StreamTime {
        self.time(bytes / self.width)
    }

    /// The first sample at or after `time`, µs. Negative before the run.
    fn sample_at(&self, time: i128) -> i128 {
        let scaled = (time - self.base) * self.rate;
        scaled.div_euclid(SECOND_US) + i128::from(scaled.rem_euclid(SECOND_US) != 0)
    }

    /// The first byte of the first sample at or after `time`.
    pub(super) fn byte_at(&self, time: StreamTime) -> u64 {
        u64::try_from(self.sample_at(i128::from(time.0)).max(0)).unwrap_or(u64::MAX).saturating_mul(self.width)
    }

    /// Where a fresh front begins that may cut after `watermark`: as many whole frames before it as there are, up to
    /// `preroll`, when nothing before byte `first` is to be had.
    pub(super) fn begin(&self, watermark: StreamTime, first: u64, preroll: usize) -> Begin {
        let first = i128::from(first.div_ceil(self.width));
        let before = |frames: usize| i128::from(watermark.0) - frames as i128 * i128::from(FRAME_US);
        for frames in (0..=preroll).rev() {
            let sample = self.sample_at(before(frames));
            if sample >= first
                && let Ok(sample) = u64::try_from(sample)
            {
                return Begin { sample, origin: before(frames), preroll: frames };
            }
        }
        // The watermark lies before the run.
        let sample = u64::try_from(first).unwrap_or(u64::MAX);
        Begin { sample, origin: i128::from(self.time(sample).0), preroll: 0 }
    }

    /// The restart point at the chunk that begins after `bytes`.
    pub(super) fn restart(&self, chunk: ChunkNumber, bytes: u64) -> Restart {
        Restart {
            chunk,
            at: self.time(bytes.div_ceil(self.width)),
            bytes_before: bytes,
            format: self.format,
            headers: self.headers.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use hearsay_protocol::Encoding;
    use proptest::prelude::*;

    use super::*;

    fn run(rate: u32, bytes: u64, at: u64) -> Run {
        let format = AudioFormat::new(Encoding::Linear16, rate).unwrap();
        Run::new(format, Bytes::new(), bytes, StreamTime(at)).unwrap()
    }

    proptest! {
        /// Whoever knows a restart point has the same clock as the run it was taken from.
        #[test]
        fn a_restart_point_carries_the_clock(
            rate in 8_000..=48_000_u32, at in 0..1_u64 << 40, bytes in 0..1_u64 << 30, sample in 0..1_u64 << 30,
        ) {
            let run = run(rate, 0, at);
            let restart = run.restart(ChunkNumber(7), bytes);
            let again = Run::new(restart.format, restart.headers, restart.bytes_before, restart.at).unwrap();
            prop_assert_eq!(&again, &run);
            prop_assert_eq!(run.byte_at(run.time(sample)), 2 * sample);
        }

        /// A front begins at the same sample, whichever chunk the restart point found it in.
        #[test]
        fn a_front_begins_at_the_same_sample_from_any_chunk_before_it(
            rate in 8_000..=48_000_u32, at in 0..1_u64 << 40, watermark in 0..10_000_000_u64, back in 0..4_000_u64,
        ) {
            let run = run(rate, 0, at);
            let watermark = StreamTime(at + watermark);
            let begin = run.begin(watermark, 0, 8);
            let chunk = (begin.sample * 2).saturating_sub(back);
            prop_assert_eq!(run.begin(watermark, chunk, 8), begin);
        }
    }
}
