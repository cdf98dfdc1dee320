//! A streaming engine in a live lane: each sample is heard about once, and what is said is what an engine says that hears
//! all of an utterance at once, wherever the stream is moved to another lane.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::AtomicBool},
};

use bytes::Bytes;
use hearsay_protocol::{ChunkNumber, StreamTime, event::SpeakerConfig};
use hearsay_speech::{
    engine::{
        Engine, Kind, Request,
        scripted::{ScriptedEngine, ScriptedModel},
        streaming::{Memory, Streaming},
    },
    lane::{Commit, Effect, Lane, Marker, Outcome, Start},
    offline,
    segment::Settings,
    vad::{Energy, VadModel},
};

/// LINEAR16 at 16 kHz: noise of these lengths (ms) and amplitudes.
fn sound(parts: &[(u32, f32)]) -> Vec<u8> {
    let mut state = 7_u32;
    let mut bytes = Vec::new();
    for (ms, amplitude) in parts {
        for _ in 0..ms * 16 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let sample = (f32::from((state >> 16) as i16) * amplitude) as i16;
            bytes.extend_from_slice(&sample.to_le_bytes());
        }
    }
    bytes
}

/// Streams live, in a fresh lane after each `lives` commits; answers commits and the number of partials.
fn stream(engine: &dyn Engine, chunks: &[Bytes], lives: usize) -> (Vec<Commit>, usize) {
    let (mut decoder, never) = (engine.decoder(), AtomicBool::new(false));
    let (mut commits, mut partials): (Vec<Commit>, usize) = (Vec::new(), 0);
    loop {
        let restart = commits.last().map(|commit| commit.restart.clone());
        let watermark = commits.last().map_or(StreamTime::ZERO, |commit| commit.through);
        let mut next = restart.as_ref().map_or(0, |restart| restart.chunk.0 as usize);
        let start = Start { config: Arc::new(SpeakerConfig::default()), watermark, restart, recorded: false };
        let mut lane = Lane::new(&Settings::default(), start, Energy::default().voice()).unwrap();
        let begun = commits.len();
        while commits.len() < begun + lives {
            match chunks.get(next) {
                Some(chunk) => drop(lane.chunk(ChunkNumber(next as u64), chunk.clone()).unwrap()),
                None if next == chunks.len() => lane.marker(ChunkNumber(next as u64), Marker::End).unwrap(),
                None => {}
            }
            next += 1;
            lane.advance(usize::MAX).unwrap();
            let mut decodes = VecDeque::new();
            loop {
                while let Some(effect) = lane.effect() {
                    match effect {
                        Effect::Decode(decode) => decodes.push_back(decode),
                        Effect::Partial(_) => partials += 1,
                        Effect::Commit(commit) => commits.push(commit),
                        Effect::Over => return (commits, partials),
                        Effect::Broken(fault) => panic!("{fault}"),
                        Effect::Cancel(_) | Effect::Finalized(_) | Effect::Signal(_) => {}
                    }
                }
                let Some(decode) = decodes.pop_front() else { break };
                let request = Request {
                    samples: &decode.samples,
                    voice: &decode.voice,
                    kind: decode.kind,
                    language: &decode.language,
                    draft: &[],
                    memory: Some(&decode.memory),
                    cancelled: &never,
                };
                lane.decoded(decode.id, Outcome::Done(decoder.decode(&request).unwrap()));
                lane.advance(usize::MAX).unwrap();
            }
        }
    }
}

#[test]
fn each_sample_is_heard_once_and_a_replay_gives_the_same_words() {
    // With a pause in an utterance, after which it goes on, and with speech that is cut as too long.
    let parts = [(700, 0.0), (2_400, 0.3), (250, 0.0), (1_900, 0.2), (900, 0.0), (14_000, 0.25), (1_200, 0.0)];
    let bytes = sound(&parts);
    let chunks: Vec<Bytes> = bytes.chunks(640).map(Bytes::copy_from_slice).collect();
    let whole = offline::transcribe(
        &Settings::default(),
        SpeakerConfig::default(),
        &Energy::default(),
        &ScriptedEngine::default(),
        Bytes::copy_from_slice(&bytes),
    );
    let said =
        |commits: &[Commit]| -> Vec<_> { commits.iter().filter_map(|commit| commit.utterance.clone()).collect() };
    let whole = said(&whole.unwrap());
    assert!(whole.len() >= 3, "{whole:?}");

    let model = Arc::new(ScriptedModel::default());
    let engine = Streaming::new(Arc::clone(&model));
    let (commits, partials) = stream(&engine, &chunks, usize::MAX);
    assert_eq!(said(&commits), whole);
    assert!(partials > 15, "{partials}");
    let heard = model.heard() as f64 / (bytes.len() / 2) as f64;
    assert!(heard < 1.3, "each sample was heard {heard:.2} times");

    let (moved, _) = stream(&engine, &chunks, 1);
    assert_eq!(said(&moved), whole, "as if nothing had happened");
}

#[test]
fn what_is_remembered_changes_no_answer() {
    let samples: Vec<f32> = (0..30_000).map(|it| (it as f32 * 0.1).sin() * (0.2 + (it / 6_000) as f32 * 0.1)).collect();
    let voice = vec![0.9; samples.len().div_ceil(512)];
    let model = Arc::new(ScriptedModel::default());
    let engine = Streaming::new(Arc::clone(&model));
    let (mut one, mut other, memory) = (engine.decoder(), engine.decoder(), Memory::default());
    let never = AtomicBool::new(false);
    let request = |length: usize, kind, memory| Request {
        samples: &samples[..length],
        voice: &voice[..length.div_ceil(512)],
        kind,
        language: "en",
        draft: &[],
        memory,
        cancelled: &never,
    };
    // Whichever thread is asked, further and less far, and about the last word before more is said.
    let looks = [(9_000, Kind::Partial), (20_000, Kind::Final), (20_000, Kind::Partial), (12_345, Kind::Final)];
    for (number, (length, kind)) in looks.into_iter().chain([(30_000, Kind::Final)]).enumerate() {
        let decoder = if number % 2 == 0 { &mut one } else { &mut other };
        let heard = decoder.decode(&request(length, kind, Some(&memory))).unwrap();
        let alone = ScriptedEngine::default().decoder().decode(&request(length, kind, None)).unwrap();
        if kind == Kind::Final {
            assert_eq!(heard, alone, "{length}");
        } else {
            assert!(alone.text.starts_with(&heard.text) && !heard.text.is_empty(), "{heard:?} {alone:?}");
        }
    }
    // All of it once, and again the one that was not far enough along.
    assert!((30_000 - 512..30_000 + 12_345 + 512).contains(&model.heard()), "{}", model.heard());
}
