//! Decoder, resampler, voice activity and segmenter from one beginning to the next cut.

use std::{ops::Range, sync::Arc};

use hearsay_protocol::StreamTime;

use super::{
    LaneError,
    run::{Begin, Run},
};
use crate::{
    codec::{self, Codec},
    engine::{ENGINE_RATE, VAD_FRAME},
    resample::Resampler,
    segment::{Frames, Segmenter, Step},
    vad::Vad,
};

/// Everything that hears. Begun afresh at every cut.
pub(super) struct Front {
    codec: Box<dyn Codec>,
    resampler: Resampler,
    vad: Box<dyn Vad>,
    pub(super) segmenter: Segmenter,
    /// The stream time of sample 0, µs.
    origin: i128,
    /// At the engine's rate, from the beginning.
    samples: Vec<f32>,
    /// How many of `samples` the segmenter knows.
    heard: usize,
    /// No audio follows before the next cut.
    flushed: bool,
    decoded: Vec<f32>,
}

impl Front {
    pub(super) fn new(run: &Run, begin: Begin, frames: Frames, vad: Box<dyn Vad>) -> Result<Self, LaneError> {
        let mut front = Self {
            codec: codec::open(run.format)?,
            resampler: Resampler::new(run.format.rate)?,
            vad,
            segmenter: Segmenter::new(frames, begin.preroll),
            origin: begin.origin,
            samples: Vec::new(),
            heard: 0,
            flushed: false,
            decoded: Vec::new(),
        };
        front.vad.reset();
        Ok(front)
    }

    /// Forgets everything and begins at another place. `changed`: in another format.
    pub(super) fn restart(&mut self, run: &Run, begin: Begin, frames: Frames, changed: bool) -> Result<(), LaneError> {
        self.codec = codec::open(run.format)?;
        if changed {
            self.resampler = Resampler::new(run.format.rate)?;
        } else {
            self.resampler.reset();
        }
        self.vad.reset();
        self.segmenter = Segmenter::new(frames, begin.preroll);
        self.origin = begin.origin;
        self.samples.clear();
        self.heard = 0;
        self.flushed = false;
        Ok(())
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<(), LaneError> {
        self.decoded.clear();
        self.codec.decode(bytes, &mut self.decoded);
        self.resampler.push(&self.decoded, &mut self.samples)?;
        Ok(())
    }

    /// No audio follows before the next cut: whatever the resampler holds comes out. Answers whether it had not yet.
    pub(super) fn flush(&mut self) -> Result<bool, LaneError> {
        if self.flushed {
            return Ok(false);
        }
        self.resampler.flush(&mut self.samples)?;
        self.flushed = true;
        Ok(true)
    }

    /// Shows the segmenter the next frame. None: it waits for more audio.
    pub(super) fn frame(&mut self) -> Result<Option<Option<Step>>, LaneError> {
        let Some(frame) = self.samples.get(self.heard..self.heard + VAD_FRAME) else { return Ok(None) };
        let probability = self.vad.probability(frame)?;
        self.heard += VAD_FRAME;
        Ok(Some(self.segmenter.push(probability)))
    }

    /// What was said up to here, where the audio is cut from outside.
    pub(super) fn finish(&mut self) -> Result<Option<crate::segment::Speech>, LaneError> {
        let rest = self.samples.get(self.heard..).unwrap_or_default();
        let tail = if rest.is_empty() { None } else { Some(self.vad.probability(rest)?) };
        self.heard = self.samples.len();
        Ok(self.segmenter.finish(self.samples.len(), tail))
    }

    pub(super) fn micros(&self, sample: usize) -> i128 {
        self.origin + sample as i128 * 1_000_000 / i128::from(ENGINE_RATE)
    }

    pub(super) fn time(&self, sample: usize) -> StreamTime {
        StreamTime(u64::try_from(self.micros(sample).max(0)).unwrap_or(u64::MAX))
    }

    pub(super) fn audio(&self, range: &Range<usize>) -> (Arc<[f32]>, Arc<[f32]>) {
        let samples = self.samples.get(range.clone()).unwrap_or_default();
        (samples.into(), self.segmenter.voice(range).into())
    }
}
