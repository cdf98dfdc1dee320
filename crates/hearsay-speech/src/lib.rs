//! Audio in, utterances out: codecs, resampling, voice activity, segmenting, engines. Synchronous; no network, no clock.

pub mod codec;
pub mod engine;
pub mod lane;
pub mod offline;
pub mod resample;
pub mod segment;
pub mod vad;
