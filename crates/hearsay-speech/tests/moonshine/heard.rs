//! Recordings as the engine hears them: 16 kHz, with voice activity, cut at pauses.

use std::{fs::File, io::BufReader, ops::Range, path::Path, sync::atomic::AtomicBool};

use hearsay_models::{ModelStore, Models, Silent, cache_folder};
use hearsay_protocol::{AudioFormat, Encoding};
use hearsay_speech::{
    engine::{Decoder, ENGINE_RATE, Kind, Request, Transcript, VAD_FRAME, moonshine::MoonshinePaths},
    resample::Resampler,
    vad::{Silero, VadModel as _},
};

/// The store tests share with everybody; what is missing is fetched.
pub(crate) fn store() -> ModelStore {
    ModelStore::open(cache_folder().expect("a cache folder"))
}

pub(crate) fn models() -> Models {
    store().fetch(&mut Silent).expect("the models can be fetched")
}

pub(crate) fn paths(models: &Models) -> MoonshinePaths {
    let files = models.moonshine.clone();
    MoonshinePaths { encoder: files.encoder, decoder: files.decoder, tokenizer: files.tokenizer }
}

/// A recording and when somebody speaks in it.
pub(crate) struct Recording {
    pub(crate) samples: Vec<f32>,
    pub(crate) voice: Vec<f32>,
}

impl Recording {
    pub(crate) fn open(path: &Path, silero: &Silero) -> Self {
        let file = BufReader::new(File::open(path).expect("the recording can be opened"));
        let mut reader = hound::WavReader::new(file).expect("it is a WAV file");
        let spec = reader.spec();
        let channels = usize::from(spec.channels);
        let all: Vec<f32> = match spec.sample_format {
            hound::SampleFormat::Float => reader.samples::<f32>().map(|it| it.expect("a sample")).collect(),
            hound::SampleFormat::Int => {
                let full = (1i64 << (spec.bits_per_sample - 1)) as f32;
                reader.samples::<i32>().map(|it| it.expect("a sample") as f32 / full).collect()
            }
        };
        let mono: Vec<f32> = all.chunks_exact(channels).map(|it| it.iter().sum::<f32>() / channels as f32).collect();
        let rate = AudioFormat::new(Encoding::Linear16, spec.sample_rate).expect("a rate we take").rate;
        let mut resampler = Resampler::new(rate).expect("a resampler");
        let mut samples = Vec::new();
        resampler.push(&mono, &mut samples).expect("resampled");
        resampler.flush(&mut samples).expect("resampled");
        let mut vad = silero.voice();
        let voice = samples.chunks(VAD_FRAME).map(|it| vad.probability(it).expect("voice activity")).collect();
        Self { samples, voice }
    }

    /// Stretches of speech, cut at pauses of 300 ms and at ten seconds, padded; in frames.
    pub(crate) fn utterances(&self) -> Vec<Range<usize>> {
        const PAUSE: usize = 10;
        const PAD: usize = 4;
        const LONGEST: usize = 10 * ENGINE_RATE as usize / VAD_FRAME;
        let mut found = Vec::new();
        let mut open: Option<(usize, usize)> = None;
        for (frame, probability) in self.voice.iter().enumerate() {
            match &mut open {
                None if *probability >= 0.5 => open = Some((frame, frame)),
                None => {}
                Some((start, last)) => {
                    if *probability >= 0.35 {
                        *last = frame;
                    }
                    let cut = if frame - *last >= PAUSE {
                        Some(*last + 1)
                    } else if frame - *start >= LONGEST {
                        (*start + LONGEST / 2..frame).min_by(|a, b| self.voice[*a].total_cmp(&self.voice[*b]))
                    } else {
                        None
                    };
                    if let Some(cut) = cut {
                        found.push(start.saturating_sub(PAD)..(cut + PAD).min(self.voice.len()));
                        let more = (cut..=frame).find(|it| self.voice[*it] >= 0.5);
                        open = more.map(|it| (it, frame));
                    }
                }
            }
        }
        found.extend(open.map(|(start, last)| start.saturating_sub(PAD)..(last + 1 + PAD).min(self.voice.len())));
        found
    }

    pub(crate) fn decode(
        &self,
        decoder: &mut dyn Decoder,
        frames: Range<usize>,
        kind: Kind,
        draft: &[u32],
    ) -> Transcript {
        let samples = frames.start * VAD_FRAME..(frames.end * VAD_FRAME).min(self.samples.len());
        let cancelled = AtomicBool::new(false);
        let request = Request {
            samples: &self.samples[samples],
            voice: &self.voice[frames],
            kind,
            language: "en",
            draft,
            memory: None,
            cancelled: &cancelled,
        };
        decoder.decode(&request).expect("decoded")
    }
}
