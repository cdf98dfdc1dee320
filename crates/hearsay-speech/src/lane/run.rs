//! Samples and stream time of one run: audio of one format on an uninterrupted clock.

use hearsay_protocol::{AudioFormat, StreamTime};

use crate::segment::FRAME_US;

const SECOND_US: i128 = 1_000_000;

/// A run's clock. All arithmetic is on whole numbers, so that whoever computes a place finds the same one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) format: AudioFormat,
    /// Samples per second.
    rate: i128,
    /// The stream time of sample 0, µs. Before the stream's origin only when a run begins later than at sample 0.
    base: i128,
    /// Samples before this one are on another clock.
    pub(super) first: u64,
    /// Which of the lane's formats this is: its bytes and samples are counted from 0.
    pub(super) era: u32,
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
    /// The run whose sample `sample` is heard at `at`.
    pub(super) fn new(format: AudioFormat, era: u32, rate: u32, sample: u64, at: StreamTime) -> Self {
        let mut run = Self { format, rate: i128::from(rate), base: 0, first: 0, era };
        run.base = i128::from(at.0) - run.micros(sample);
        run
    }

    /// The same audio, whose clock jumps to `at` before `sample`.
    pub(super) fn jump(&self, sample: u64, at: StreamTime) -> Self {
        Self { base: i128::from(at.0) - self.micros(sample), first: sample, ..self.clone() }
    }

    /// The stream has said what its rate is, before its first sample.
    pub(super) fn set_rate(&mut self, rate: u32) {
        self.rate = i128::from(rate);
    }

    pub(super) fn rate(&self) -> u32 {
        u32::try_from(self.rate).unwrap_or(u32::MAX)
    }

    fn micros(&self, samples: u64) -> i128 {
        i128::from(samples) * SECOND_US / self.rate
    }

    pub(super) fn time(&self, sample: u64) -> StreamTime {
        let time = (self.base + self.micros(sample)).max(0);
        StreamTime(u64::try_from(time).unwrap_or(u64::MAX))
    }

    /// The first sample at or after `time`, µs. Negative before the run.
    fn sample_at(&self, time: i128) -> i128 {
        let scaled = (time - self.base) * self.rate;
        scaled.div_euclid(SECOND_US) + i128::from(scaled.rem_euclid(SECOND_US) != 0)
    }

    /// The first sample at or after `time`.
    pub(super) fn sample(&self, time: StreamTime) -> u64 {
        u64::try_from(self.sample_at(i128::from(time.0)).max(0)).unwrap_or(u64::MAX)
    }

    /// Where a fresh front begins that may cut after `watermark`: as many whole frames before it as there are, up to
    /// `preroll`, when nothing before sample `first` is to be had.
    pub(super) fn begin(&self, watermark: StreamTime, first: u64, preroll: usize) -> Begin {
        let first = i128::from(first.max(self.first));
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
}

#[cfg(test)]
mod tests {
    use hearsay_protocol::Encoding;
    use proptest::prelude::*;

    use super::*;

    fn run(rate: u32, sample: u64, at: u64) -> Run {
        let format = AudioFormat::new(Encoding::Linear16, rate).unwrap();
        Run::new(format, 0, rate, sample, StreamTime(at))
    }

    proptest! {
        /// Whoever knows one sample's time has the same clock as the run it was taken from.
        #[test]
        fn a_place_carries_the_clock(
            rate in 8_000..=48_000_u32, at in 0..1_u64 << 40, place in 0..1_u64 << 30, sample in 0..1_u64 << 30,
        ) {
            let run = run(rate, 0, at);
            let again = self::run(rate, place, run.time(place).0);
            prop_assert_eq!(&again, &run);
            prop_assert_eq!(run.sample(run.time(sample)), sample);
        }

        /// A front begins at the same sample, whichever packet the restart point found it in.
        #[test]
        fn a_front_begins_at_the_same_sample_from_anywhere_before_it(
            rate in 8_000..=48_000_u32, at in 0..1_u64 << 40, watermark in 0..10_000_000_u64, back in 0..4_000_u64,
        ) {
            let run = run(rate, 0, at);
            let watermark = StreamTime(at + watermark);
            let begin = run.begin(watermark, 0, 8);
            prop_assert_eq!(run.begin(watermark, begin.sample.saturating_sub(back), 8), begin);
        }

        /// Nothing from before a jump of the clock is heard again after it.
        #[test]
        fn a_front_does_not_begin_before_a_jump(rate in 8_000..=48_000_u32, sample in 0..1_u64 << 20, after in 0..400_000_u64) {
            let run = run(rate, 0, 0);
            let at = StreamTime(run.time(sample).0 + 5_000_000);
            let jumped = run.jump(sample, at);
            prop_assert_eq!(jumped.time(sample), at);
            prop_assert!(jumped.begin(StreamTime(at.0 + after), 0, 8).sample >= sample);
        }
    }
}
