//! Decoder, resampler, voice activity and segmenter from one beginning to the next cut.

use std::{ops::Range, sync::Arc};

use hearsay_protocol::{SampleRate, StreamTime};

use super::{
    LaneError,
    run::{Begin, Run},
};
use crate::{
    codec::{self, Decoder, Packet},
    engine::{ENGINE_RATE, VAD_FRAME},
    resample::Resampler,
    segment::{Frames, Segmenter, Step},
    vad::Vad,
};

/// Everything that hears. Begun afresh at every cut.
pub(super) struct Front {
    decoder: Decoder,
    resampler: Resampler,
    /// Of the samples that the resampler is given.
    rate: u32,
    /// The sample of the run it begins with.
    begin: u64,
    /// The decoder hears everything that ends after the one sample and begins at the other or later.
    decodes: (i128, u64),
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
            decoder: Decoder::new(run.format.encoding),
            resampler: Resampler::new(run.format.rate)?,
            rate: run.format.rate.get(),
            begin: 0,
            decodes: (0, 0),
            vad,
            segmenter: Segmenter::new(frames, begin.preroll),
            origin: begin.origin,
            samples: Vec::new(),
            heard: 0,
            flushed: false,
            decoded: Vec::new(),
        };
        front.restart(run, begin, frames, true)?;
        Ok(front)
    }

    /// Forgets everything and begins at another place. `changed`: in another format.
    pub(super) fn restart(&mut self, run: &Run, begin: Begin, frames: Frames, changed: bool) -> Result<(), LaneError> {
        if changed {
            self.decoder = Decoder::new(run.format.encoding);
        } else {
            self.decoder.reset();
        }
        if self.rate == run.rate() {
            self.resampler.reset();
        } else {
            self.set_rate(run.rate())?;
        }
        self.begin = begin.sample;
        let preroll = codec::preroll(run.format.encoding);
        self.decodes = (i128::from(begin.sample) - i128::from(preroll), run.first);
        self.vad.reset();
        self.segmenter = Segmenter::new(frames, begin.preroll);
        self.origin = begin.origin;
        self.samples.clear();
        self.heard = 0;
        self.flushed = false;
        Ok(())
    }

    fn set_rate(&mut self, rate: u32) -> Result<(), LaneError> {
        self.resampler = Resampler::new(SampleRate::nearest(rate))?;
        self.rate = rate;
        Ok(())
    }

    /// Nothing of the packet is heard.
    pub(super) fn skips(&self, packet: &Packet) -> bool {
        i128::from(packet.end()) <= self.decodes.0 || packet.start < self.decodes.1
    }

    /// Hears the packet from its sample `from` on: about a frame of it where it can be divided, otherwise all. Answers with
    /// which sample to go on, and how many could not be decoded.
    pub(super) fn feed(&mut self, packet: &Packet, from: u64) -> Result<(u64, u64), LaneError> {
        if packet.rate != self.rate {
            self.set_rate(packet.rate)?;
        }
        let mut part = from..packet.samples;
        // What the decoder alone needs is not heard.
        let before = self.begin.saturating_sub(packet.start);
        if packet.divides() {
            let frame = u64::from(packet.rate) * VAD_FRAME as u64 / u64::from(ENGINE_RATE);
            part.start = part.start.max(before).min(part.end);
            part.end = part.end.min(part.start + frame.max(1));
        } else {
            part.start = before.min(part.end);
        }
        self.decoded.clear();
        let [begin, end] = [part.start, part.end].map(|sample| usize::try_from(sample).unwrap_or(usize::MAX));
        let failed = self.decoder.part(packet, begin..end, &mut self.decoded);
        self.resampler.push(&self.decoded, &mut self.samples)?;
        Ok((part.end, failed))
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
