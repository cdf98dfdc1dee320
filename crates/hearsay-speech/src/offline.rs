//! A whole recording at once, through the same [`Lane`] as a live stream: what tests and tools compare streams with.

use std::sync::{Arc, atomic::AtomicBool};

use bytes::Bytes;
use hearsay_protocol::{ChunkNumber, StreamTime, event::SpeakerConfig};

use crate::{
    codec::Fault,
    engine::{Engine, EngineError, Request},
    lane::{Commit, Effect, Lane, LaneError, Marker, Outcome, Start},
    segment::Settings,
    vad::VadModel,
};

#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    #[error(transparent)]
    Lane(#[from] LaneError),
    #[error(transparent)]
    Audio(#[from] Fault),
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Decodes `audio`, in `config`'s format, on this thread. Answers every stretch of it in order.
///
/// # Errors
/// The first thing that fails: nothing is put in an utterance's place.
pub fn transcribe(
    settings: &Settings,
    config: SpeakerConfig,
    vad: &dyn VadModel,
    engine: &dyn Engine,
    audio: Bytes,
) -> Result<Vec<Commit>, OfflineError> {
    let start = Start { config: Arc::new(config), watermark: StreamTime::ZERO, restart: None, recorded: true };
    let mut lane = Lane::new(settings, start, vad.voice())?;
    let mut decoder = engine.decoder();
    lane.chunk(ChunkNumber(0), audio)?;
    lane.marker(ChunkNumber(1), Marker::End)?;
    let never = AtomicBool::new(false);
    let mut commits = Vec::new();
    loop {
        lane.advance(usize::MAX)?;
        while let Some(effect) = lane.effect() {
            match effect {
                Effect::Decode(decode) => {
                    let request = Request {
                        samples: &decode.samples,
                        voice: &decode.voice,
                        kind: decode.kind,
                        language: &decode.language,
                        draft: &decode.draft,
                        memory: Some(&decode.memory),
                        cancelled: &never,
                    };
                    lane.decoded(decode.id, Outcome::Done(decoder.decode(&request)?));
                }
                Effect::Commit(commit) => commits.push(commit),
                Effect::Over => return Ok(commits),
                Effect::Broken(fault) => return Err(fault.into()),
                Effect::Cancel(_) | Effect::Partial(_) | Effect::Finalized(_) | Effect::Signal(_) => {}
            }
        }
    }
}
