//! An engine for tests: no model, no waiting, and the same audio always gives the same words.
//!
//! Every 200 ms of speech from the start of a request is one word, chosen by its loudness and place. A partial is therefore
//! the beginning of its final, without the final's full stop.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    Capabilities, Decoder, ENGINE_RATE, Engine, EngineError, Kind, Request, Transcript, VAD_FRAME, Word,
    streaming::{Listening, Model},
};

/// Samples that make one word.
const BLOCK: usize = ENGINE_RATE as usize / 5;

/// Voice activity of a block that is speech, on average.
const VOICED: f32 = 0.35;

const WORDS: [&str; 32] = [
    "alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliett", "kilo", "lima",
    "mike", "november", "oscar", "papa", "quebec", "romeo", "sierra", "tango", "uniform", "victor", "whiskey", "xray",
    "yankee", "zulu", "one", "two", "three", "four", "five", "six",
];

const CAPABILITIES: Capabilities = Capabilities {
    name: "scripted",
    languages: &["en"],
    max_samples: 30 * ENGINE_RATE as usize,
    batch_invariant: true,
};

/// Says words that depend on nothing but the audio.
#[derive(Debug, Clone, Copy, Default)]
pub struct ScriptedEngine {
    delay: Duration,
}

impl ScriptedEngine {
    /// Every decode takes this long, unless it is cancelled.
    #[must_use]
    pub fn with_delay(delay: Duration) -> Self {
        Self { delay }
    }
}

impl Engine for ScriptedEngine {
    fn capabilities(&self) -> &Capabilities {
        &CAPABILITIES
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(*self)
    }
}

impl Decoder for ScriptedEngine {
    fn decode(&mut self, request: &Request<'_>) -> Result<Transcript, EngineError> {
        let (samples, limit) = (request.samples.len(), CAPABILITIES.max_samples);
        if samples > limit {
            return Err(EngineError::TooLong { samples, limit });
        }
        wait(self.delay, request.cancelled)?;
        let spoken: Vec<(u32, usize, usize)> = request
            .samples
            .chunks(BLOCK)
            .enumerate()
            .filter(|(_, block)| block.len() == BLOCK || request.kind == Kind::Final && block.len() >= BLOCK / 2)
            .filter(|(index, block)| is_speech(request.voice, index * BLOCK, block.len()))
            .map(|(index, block)| (token(index, block), index * BLOCK, index * BLOCK + block.len()))
            .collect();
        Ok(said(&spoken, request.kind))
    }
}

/// Blocks of speech, each a token and where it begins and ends, as words.
fn said(spoken: &[(u32, usize, usize)], kind: Kind) -> Transcript {
    let confidence = |token: u32| 0.8 + 0.005 * token as f32;
    let mut words: Vec<Word> = spoken
        .iter()
        .map(|(token, start, end)| {
            let text = WORDS[*token as usize].to_owned();
            Word { text, start: *start, end: *end, confidence: confidence(*token) }
        })
        .collect();
    if let Some(first) = words.first_mut() {
        first.text[..1].make_ascii_uppercase();
    }
    if let Some(last) = words.last_mut().filter(|_| kind == Kind::Final) {
        last.text.push('.');
    }
    let mean = words.iter().map(|it| it.confidence).sum::<f32>() / words.len().max(1) as f32;
    let text = words.iter().map(|it| it.text.as_str()).collect::<Vec<_>>().join(" ");
    if kind == Kind::Partial {
        words.clear();
    }
    let tokens = spoken.iter().map(|it| it.0).collect();
    Transcript { text, confidence: mean, words, tokens }
}

/// The same words, from a model that takes audio as it comes.
#[derive(Debug, Default)]
pub struct ScriptedModel {
    heard: Arc<AtomicUsize>,
}

impl ScriptedModel {
    /// Samples taken, of all utterances together.
    pub fn heard(&self) -> usize {
        self.heard.load(Ordering::Relaxed)
    }
}

impl Model for ScriptedModel {
    fn capabilities(&self) -> &Capabilities {
        &CAPABILITIES
    }

    fn listen(&self, _: &str) -> Box<dyn Listening> {
        Box::new(ScriptedListening { heard: Arc::clone(&self.heard), ..ScriptedListening::default() })
    }
}

#[derive(Default)]
struct ScriptedListening {
    heard: Arc<AtomicUsize>,
    /// Of all frames taken.
    voice: Vec<f32>,
    spoken: Vec<(u32, usize, usize)>,
    /// Whole blocks taken, and the beginning of the next one.
    blocks: usize,
    open: Vec<f32>,
}

impl Listening for ScriptedListening {
    fn feed(&mut self, samples: &[f32], voice: &[f32]) -> Result<(), EngineError> {
        self.heard.fetch_add(samples.len(), Ordering::Relaxed);
        self.voice.extend_from_slice(voice);
        self.open.extend_from_slice(samples);
        while self.open.len() >= BLOCK {
            let block: Vec<f32> = self.open.drain(..BLOCK).collect();
            let start = self.blocks * BLOCK;
            if is_speech(&self.voice, start, BLOCK) {
                self.spoken.push((token(self.blocks, &block), start, start + BLOCK));
            }
            self.blocks += 1;
        }
        Ok(())
    }

    fn so_far(&self) -> Transcript {
        said(&self.spoken, Kind::Partial)
    }

    fn end(&self, rest: &[f32], voice: &[f32]) -> Result<Transcript, EngineError> {
        let mut spoken = self.spoken.clone();
        let (voice, open) = ([&self.voice, voice].concat(), [&self.open, rest].concat());
        for (number, block) in open.chunks(BLOCK).enumerate() {
            let (index, start) = (self.blocks + number, (self.blocks + number) * BLOCK);
            if block.len() >= BLOCK / 2 && is_speech(&voice, start, block.len()) {
                spoken.push((token(index, block), start, start + block.len()));
            }
        }
        Ok(said(&spoken, Kind::Final))
    }
}

fn wait(delay: Duration, cancelled: &AtomicBool) -> Result<(), EngineError> {
    /// How soon a cancelled decode ends.
    const LOOK: Duration = Duration::from_millis(2);
    let start = Instant::now();
    loop {
        if cancelled.load(Ordering::Relaxed) {
            return Err(EngineError::Cancelled);
        }
        match delay.checked_sub(start.elapsed()) {
            Some(left) if !left.is_zero() => thread::sleep(left.min(LOOK)),
            _ => return Ok(()),
        }
    }
}

fn is_speech(voice: &[f32], start: usize, length: usize) -> bool {
    let frames = start / VAD_FRAME..(start + length).div_ceil(VAD_FRAME).min(voice.len());
    let frames = voice.get(frames).unwrap_or_default();
    !frames.is_empty() && frames.iter().sum::<f32>() / frames.len() as f32 >= VOICED
}

/// Loudness in steps of 3 dB, mixed with the place, so that a steady tone is no run of one word.
fn token(index: usize, block: &[f32]) -> u32 {
    let power = block.iter().map(|it| it * it).sum::<f32>() / block.len() as f32;
    let loudness = ((10.0 * power.max(1e-10).log10() + 100.0) / 3.0).round() as usize;
    let mixed = (loudness * 31 + index * 17 + 7).wrapping_mul(0x9e37_79b9) >> 16;
    (mixed % WORDS.len()) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(samples: usize) -> Vec<f32> {
        (0..samples).map(|it| (it as f32 * 0.1).sin() * (0.2 + 0.1 * (it / BLOCK % 5) as f32)).collect()
    }

    fn decode(kind: Kind, samples: &[f32], voice: &[f32]) -> Transcript {
        let cancelled = AtomicBool::new(false);
        let request = Request { samples, voice, kind, language: "en", draft: &[], memory: None, cancelled: &cancelled };
        ScriptedEngine::default().decoder().decode(&request).unwrap()
    }

    #[test]
    fn a_partial_is_the_beginning_of_its_final() {
        let samples = tone(10 * BLOCK);
        let voice = vec![0.9; samples.len().div_ceil(VAD_FRAME)];
        let whole = decode(Kind::Final, &samples, &voice);
        assert_eq!(whole.words.len(), 10);
        let part = decode(Kind::Partial, &samples[..6 * BLOCK + 100], &voice);
        assert_eq!(part.text.split(' ').count(), 6);
        assert!(whole.text.starts_with(&part.text), "{:?} is not the beginning of {:?}", part.text, whole.text);
        assert!(part.words.is_empty());
        assert_eq!(whole, decode(Kind::Final, &samples, &voice));
    }

    #[test]
    fn silence_says_nothing_and_pauses_are_left_out() {
        let samples = tone(10 * BLOCK);
        assert_eq!(decode(Kind::Final, &samples, &[0.0; 63]).text, "");
        let voice: Vec<f32> = (0..63).map(|it| if it < 32 { 0.9 } else { 0.0 }).collect();
        let heard = decode(Kind::Final, &samples, &voice);
        assert_eq!(heard.words.len(), 5);
        assert!(heard.words.iter().all(|it| it.end <= 5 * BLOCK));
        assert_eq!(
            heard.text.split(' ').collect::<Vec<_>>(),
            heard.words.iter().map(|it| &*it.text).collect::<Vec<_>>()
        );
    }

    #[test]
    fn other_audio_says_something_else() {
        let (quiet, loud) = (tone(8 * BLOCK), tone(8 * BLOCK).iter().map(|it| it * 2.0).collect::<Vec<_>>());
        let voice = [0.9; 50];
        assert_ne!(decode(Kind::Final, &quiet, &voice).text, decode(Kind::Final, &loud, &voice).text);
    }

    #[test]
    fn a_cancelled_decode_ends_early() {
        let cancelled = AtomicBool::new(true);
        let request = Request {
            samples: &[],
            voice: &[],
            kind: Kind::Final,
            language: "en",
            draft: &[],
            memory: None,
            cancelled: &cancelled,
        };
        let start = Instant::now();
        let slow = ScriptedEngine::with_delay(Duration::from_secs(60));
        assert!(matches!(slow.decoder().decode(&request), Err(EngineError::Cancelled)));
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}
