//! What the engine, the voice activity model and the way to them cost on this machine, measured on real speech: how many
//! streams that is, and a recording to prove with that they still work.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use hearsay_protocol::{AudioFormat, Encoding, event::SpeakerConfig};
use hearsay_speech::{
    engine::{Capabilities, Decoder, ENGINE_RATE, Engine, EngineError, Kind, Request, Transcript},
    offline::{self, OfflineError},
    vad::VadModel,
};

use crate::Config;

/// "It was the best of times, it was the worst of times."
const SPEECH: &[u8] = include_bytes!("../assets/speech.ulaw");

/// What is spoken in it; an engine that does not understand it is not one for this program yet.
pub(crate) const LANGUAGE: &str = "en";

/// How often each decode is repeated: the fastest counts, because others share the machine.
const ROUNDS: usize = 3;

/// The part of a meeting during which one participant speaks.
const SPEECH_SHARE: f64 = 0.35;
/// Finals begun at a pause after which speech went on, for each that was needed.
const WASTED: f64 = 0.3;
/// The part of the time that engine threads may be busy with finals waiting for less than their target.
const BUSY: f64 = 0.6;

/// The recording as the engine hears it.
#[derive(Debug, Clone)]
pub(crate) struct Clip {
    pub(crate) samples: Arc<[f32]>,
    pub(crate) voice: Arc<[f32]>,
}

/// What a recognizer can do on this machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Benchmark {
    /// The engine's name.
    pub engine: &'static str,
    pub threads: usize,
    /// Engine time for a second of speech, and for one partial of half the recording.
    pub last: Duration,
    pub partial: Duration,
    /// Decoder, resampler, voice activity and segmenter, for a second of audio.
    pub listening: Duration,
    /// Streams that this hears well, when each speaks 35 % of the time and has partials.
    pub streams: usize,
    /// What it understood.
    pub text: String,
}

#[derive(Debug, thiserror::Error)]
pub enum BenchmarkError {
    #[error("a recording of speech cannot be heard: {0}")]
    Offline(#[from] OfflineError),
    #[error("a recording of speech cannot be decoded: {0}")]
    Engine(#[from] EngineError),
    #[error("no speech was found in a recording of speech")]
    Deaf,
}

impl Clip {
    /// What the voice activity model and the segmenter make of the recording.
    ///
    /// # Errors
    /// When that is nothing.
    pub(crate) fn load(config: &Config, vad: &dyn VadModel) -> Result<Self, BenchmarkError> {
        let capture = Capture::default();
        hear(config, vad, &capture)?;
        let heard = capture.heard.lock().unwrap_or_else(PoisonError::into_inner).take();
        heard.ok_or(BenchmarkError::Deaf)
    }

    /// The beginning of it.
    fn half(&self) -> Self {
        let half = |whole: &[f32]| whole.get(..whole.len() / 2).unwrap_or_default().into();
        let voice: Arc<[f32]> = half(&self.voice);
        let samples = self.samples.get(..voice.len() * hearsay_speech::engine::VAD_FRAME).unwrap_or(&self.samples);
        Self { samples: samples.into(), voice }
    }

    fn seconds(&self) -> f64 {
        self.samples.len() as f64 / f64::from(ENGINE_RATE)
    }

    /// The fastest of some decodes, and what was understood.
    fn decode(&self, decoder: &mut dyn Decoder, kind: Kind) -> Result<(Duration, Transcript), EngineError> {
        let never = AtomicBool::new(false);
        let (mut fastest, mut heard) = (Duration::MAX, Transcript::default());
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            let request = Request {
                samples: &self.samples,
                voice: &self.voice,
                kind,
                language: LANGUAGE,
                draft: &[],
                memory: None,
                cancelled: &never,
            };
            heard = decoder.decode(&request)?;
            fastest = fastest.min(begun.elapsed());
        }
        Ok((fastest, heard))
    }
}

/// The recording through a lane.
fn hear(config: &Config, vad: &dyn VadModel, engine: &dyn Engine) -> Result<(), OfflineError> {
    let format = AudioFormat::new(Encoding::Mulaw, ENGINE_RATE).unwrap_or_default();
    let speaker = SpeakerConfig { format, ..SpeakerConfig::default() };
    offline::transcribe(&config.segment.settings(), speaker, vad, engine, Bytes::from_static(SPEECH)).map(drop)
}

impl Benchmark {
    /// Measures for about a second, on as many threads as will decode. Blocks.
    ///
    /// # Errors
    /// When the recording cannot be heard: nor can anything else.
    pub fn measure(config: &Config, engine: &dyn Engine, vad: &dyn VadModel) -> Result<Self, BenchmarkError> {
        let clip = Clip::load(config, vad)?;
        let half = clip.half();
        let begun = Instant::now();
        hear(config, vad, &Capture::default())?;
        let audio = SPEECH.len() as f64 / f64::from(ENGINE_RATE);
        let listening = begun.elapsed().div_f64(audio);
        let threads = config.engine_threads();
        let (sender, measured) = std::sync::mpsc::sync_channel(threads);
        thread::scope(|scope| {
            for _ in 0..threads {
                let (sender, clip, half) = (sender.clone(), &clip, &half);
                scope.spawn(move || {
                    let mut decoder = engine.decoder();
                    let last = clip.decode(&mut *decoder, Kind::Final);
                    let both = last.and_then(|last| Ok((last, half.decode(&mut *decoder, Kind::Partial)?.0)));
                    // There is room for one from each.
                    let _ = sender.try_send(both);
                });
            }
        });
        drop(sender);
        let (mut last, mut partial, mut text) = (Duration::ZERO, Duration::ZERO, String::new());
        for one in measured {
            let ((took, heard), short) = one?;
            last = last.max(took.div_f64(clip.seconds()));
            partial = partial.max(short);
            text = heard.text;
        }
        let streams = streams(config, threads, last, partial, listening);
        Ok(Self { engine: engine.capabilities().name, threads, last, partial, listening, streams, text })
    }
}

/// How many streams can be heard well.
fn streams(config: &Config, threads: usize, last: Duration, partial: Duration, listening: Duration) -> usize {
    let partials = 1.0 / config.segment.partial.get().as_secs_f64().max(0.1);
    let speech = last.as_secs_f64() * (1.0 + WASTED) + partial.as_secs_f64() * partials;
    let engine = SPEECH_SHARE * speech;
    // Engine threads leave the rest of their cores to those that listen.
    let by_engine = BUSY * threads as f64 / engine.max(1e-9);
    let cores = thread::available_parallelism().map_or(threads, usize::from);
    let by_cores = BUSY.midpoint(1.0) * cores as f64 / (engine + listening.as_secs_f64()).max(1e-9);
    (by_engine.min(by_cores) as usize).clamp(1, config.streams.get())
}

impl fmt::Display for Benchmark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        writeln!(f, "engine     {} on {} threads", self.engine, self.threads)?;
        writeln!(f, "final      {:.1} ms for a second of speech", ms(self.last))?;
        writeln!(f, "partial    {:.1} ms for one of two seconds", ms(self.partial))?;
        writeln!(f, "listening  {:.1} ms for a second of audio", ms(self.listening))?;
        writeln!(f, "streams    {} that speak {:.0} % of the time", self.streams, 100.0 * SPEECH_SHARE)?;
        write!(f, "heard      {}", self.text)
    }
}

/// An engine that keeps what it is asked to decode, and understands nothing at no cost.
#[derive(Default)]
struct Capture {
    heard: Arc<Mutex<Option<Clip>>>,
}

impl Engine for Capture {
    fn capabilities(&self) -> &Capabilities {
        const ANY: Capabilities =
            Capabilities { name: "none", languages: &["en"], max_samples: usize::MAX, batch_invariant: true };
        &ANY
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(Self { heard: Arc::clone(&self.heard) })
    }
}

impl Decoder for Capture {
    fn decode(&mut self, request: &Request<'_>) -> Result<Transcript, EngineError> {
        if request.cancelled.load(Ordering::Relaxed) {
            return Err(EngineError::Cancelled);
        }
        if request.kind == Kind::Final {
            let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            if heard.as_ref().is_none_or(|clip| clip.samples.len() < request.samples.len()) {
                *heard = Some(Clip { samples: request.samples.into(), voice: request.voice.into() });
            }
        }
        Ok(Transcript::default())
    }
}

#[cfg(test)]
mod tests {
    use hearsay_speech::{engine::scripted::ScriptedEngine, vad::Energy};

    use super::*;

    #[test]
    fn the_recording_is_heard_as_one_utterance() {
        let clip = Clip::load(&Config::default(), &Energy::default()).unwrap();
        assert!((2.0..4.2).contains(&clip.seconds()), "{}", clip.seconds());
        assert_eq!(clip.voice.len(), clip.samples.len().div_ceil(hearsay_speech::engine::VAD_FRAME));
        let measured = Benchmark::measure(&Config::default(), &ScriptedEngine::default(), &Energy::default()).unwrap();
        assert!(!measured.text.is_empty());
        assert!((1..=64).contains(&measured.streams));
    }

    #[test]
    fn slower_engines_hear_fewer_streams() {
        let ms = Duration::from_millis;
        let of = |threads, last, partial, listening| {
            streams(&Config::default(), threads, ms(last), ms(partial), ms(listening))
        };
        // 0.35 * (50 ms * 1.3 + 2 * 80 ms) a second, of 600 ms.
        assert_eq!(of(1, 50, 80, 1), 7);
        assert!(of(1, 500, 800, 1) <= 1);
        assert!(of(1, 100, 160, 1) < of(1, 50, 80, 1));
        assert_eq!(of(1, 0, 0, 0), 64, "never more than there are places");
    }
}
