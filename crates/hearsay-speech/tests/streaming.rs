//! Real models, real recordings: a stream in odd pieces, moved to a fresh lane on the way, says word for word what the
//! whole file at once does.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{collections::VecDeque, path::Path, sync::Arc, sync::atomic::AtomicBool};

use bytes::Bytes;
use hearsay_models::{ModelStore, Models, Silent, cache_folder};
use hearsay_protocol::{AudioFormat, ChunkNumber, Encoding, StreamTime, event::SpeakerConfig};
use hearsay_speech::{
    engine::{
        Engine, Kind, Request,
        moonshine::{MoonshineEngine, MoonshineOptions, MoonshinePaths},
    },
    lane::{Commit, Effect, Lane, Marker, Outcome, Partial, Start},
    offline,
    segment::Settings,
    vad::{Silero, VadModel},
};

fn store() -> ModelStore {
    ModelStore::open(cache_folder().unwrap())
}

fn engine(models: &Models) -> MoonshineEngine {
    let files = models.moonshine.clone();
    let paths = MoonshinePaths { encoder: files.encoder, decoder: files.decoder, tokenizer: files.tokenizer };
    MoonshineEngine::load(&paths, &MoonshineOptions::default()).unwrap()
}

fn read(path: &Path) -> (SpeakerConfig, Bytes) {
    let mut reader = hound::WavReader::open(path).unwrap();
    let spec = reader.spec();
    assert_eq!((spec.channels, spec.bits_per_sample), (1, 16));
    let format = AudioFormat::new(Encoding::Linear16, spec.sample_rate).unwrap();
    let bytes = reader.samples::<i16>().flat_map(|sample| sample.unwrap().to_le_bytes()).collect();
    (SpeakerConfig { format, ..SpeakerConfig::default() }, bytes)
}

/// Streams `chunks`, in a fresh lane after each `lives` commits. Answers commits, partials, and how many finals were
/// decoded early and used.
fn stream(
    config: &SpeakerConfig,
    vad: &dyn VadModel,
    engine: &dyn Engine,
    chunks: &[Bytes],
    lives: usize,
) -> (Vec<Commit>, Vec<Partial>, usize) {
    let mut decoder = engine.decoder();
    let never = AtomicBool::new(false);
    let (mut commits, mut partials, mut early): (Vec<Commit>, Vec<Partial>, usize) = (Vec::new(), Vec::new(), 0);
    'lives: loop {
        let restart = commits.last().map(|commit| commit.restart.clone());
        let watermark = commits.last().map_or(StreamTime::ZERO, |commit| commit.through);
        let mut next = restart.as_ref().map_or(0, |restart| restart.chunk.0 as usize);
        let start = Start { config: Arc::new(config.clone()), watermark, restart, recorded: false };
        let mut lane = Lane::new(&Settings::default(), start, vad.voice()).unwrap();
        let mut lived = 0;
        loop {
            if let Some(chunk) = chunks.get(next) {
                lane.chunk(ChunkNumber(next as u64), chunk.clone()).unwrap();
            } else if next == chunks.len() {
                lane.marker(ChunkNumber(next as u64), Marker::End).unwrap();
            }
            next += 1;
            lane.advance(usize::MAX).unwrap();
            let mut decodes = VecDeque::new();
            loop {
                while let Some(effect) = lane.effect() {
                    match effect {
                        Effect::Decode(decode) => decodes.push_back(decode),
                        Effect::Partial(partial) => partials.push(partial),
                        Effect::Commit(commit) => {
                            commits.push(commit);
                            lived += 1;
                        }
                        Effect::Over => return (commits, partials, early),
                        Effect::Broken(fault) => panic!("{fault}"),
                        Effect::Cancel(_) | Effect::Finalized(_) | Effect::Signal(_) => {}
                    }
                }
                let Some(decode) = decodes.pop_front() else { break };
                early += usize::from(decode.speculative);
                let request = Request {
                    samples: &decode.samples,
                    voice: &decode.voice,
                    kind: decode.kind,
                    language: &decode.language,
                    draft: if decode.kind == Kind::Partial { &decode.draft } else { &[] },
                    memory: Some(&decode.memory),
                    cancelled: &never,
                };
                let transcript = decoder.decode(&request).unwrap();
                lane.decoded(decode.id, Outcome::Done(transcript));
                lane.advance(usize::MAX).unwrap();
            }
            if lived >= lives {
                continue 'lives;
            }
        }
    }
}

fn pieces(bytes: &Bytes, sizes: &[usize]) -> Vec<Bytes> {
    let mut rest = bytes.clone();
    let mut sizes = sizes.iter().cycle();
    let mut out = Vec::new();
    while !rest.is_empty() {
        let size = (*sizes.next().unwrap()).min(rest.len());
        out.push(rest.split_to(size));
    }
    out
}

#[test]
fn a_stream_says_what_the_whole_file_does() {
    let models = store().fetch(&mut Silent).unwrap();
    let recordings = store().recordings(&mut Silent).unwrap();
    let (engine, silero) = (engine(&models), Silero::load(&models.silero).unwrap());
    for (path, heard) in [(&recordings.beckett, "fail"), (&recordings.endgame, "still that resource")] {
        let (config, bytes) = read(path);
        let settings = Settings::default();
        let whole = offline::transcribe(&settings, config.clone(), &silero, &engine, bytes.clone()).unwrap();
        let text: Vec<_> = whole.iter().filter_map(|commit| Some(commit.utterance.as_ref()?.text.clone())).collect();
        let text = text.join(" ").to_lowercase();
        assert!(text.contains(heard), "{text}");
        for (sizes, lives) in [(&[640][..], usize::MAX), (&[1, 333, 4_801, 2_047], 1)] {
            let chunks = pieces(&bytes, sizes);
            let (commits, partials, early) = stream(&config, &silero, &engine, &chunks, lives);
            let said = |commits: &[Commit]| -> Vec<_> {
                commits.iter().map(|commit| (commit.from, commit.through, commit.utterance.clone())).collect()
            };
            assert_eq!(said(&commits), said(&whole), "{}", path.display());
            assert!(early > 0 && !partials.is_empty());
            assert!(partials.iter().all(|partial| !partial.text.is_empty()));
        }
    }
}
