//! Lanes under arbitrary audio, chunks, markers, decode orders and moves to other lanes.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use hearsay_protocol::Encoding;
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    codec::encode,
    engine::{VAD_FRAME, Word},
    vad::{Energy, VadModel as _},
};

/// What is given to lanes: all of a stream.
#[derive(Debug, Clone)]
struct Stream {
    format: AudioFormat,
    given: Vec<Given>,
}

#[derive(Debug, Clone)]
enum Given {
    Audio(Bytes),
    Marker(Marker),
}

/// A stream's audio and where it is marked; to be chunked.
#[derive(Debug, Clone)]
struct Script {
    format: AudioFormat,
    parts: Vec<(Vec<u8>, Option<Mark>)>,
}

/// A marker whose particulars depend on the audio before it.
#[derive(Debug, Clone, Copy)]
enum Mark {
    Finalize,
    SameConfig,
    Format(Encoding, u32),
    Reanchor(u64),
}

fn config(format: AudioFormat) -> Arc<SpeakerConfig> {
    Arc::new(SpeakerConfig { format, ..SpeakerConfig::default() })
}

impl Script {
    /// The chunks that `cuts` (sizes, repeated) make of each part.
    fn chunked(&self, cuts: &[usize]) -> Stream {
        let mut given = Vec::new();
        let mut sizes = cuts.iter().copied().cycle();
        let mut format = self.format;
        for (number, (bytes, mark)) in self.parts.iter().enumerate() {
            let mut rest = Bytes::copy_from_slice(bytes);
            while !rest.is_empty() {
                given.push(Given::Audio(rest.split_to(sizes.next().unwrap().clamp(1, rest.len()))));
            }
            given.extend(mark.map(|mark| {
                Given::Marker(match mark {
                    Mark::Finalize => Marker::Finalize(format!("f{number}")),
                    Mark::SameConfig => Marker::Config(config(format)),
                    Mark::Format(encoding, rate) => {
                        format = AudioFormat::new(encoding, rate).unwrap();
                        Marker::Config(config(format))
                    }
                    // Jumps count from the stream's beginning: far enough apart to be forward.
                    Mark::Reanchor(seconds) => {
                        Marker::Reanchor(StreamTime((number as u64 + 1) * 60_000_000 + seconds * 1_000_003))
                    }
                })
            }));
        }
        given.push(Given::Marker(Marker::End));
        Stream { format: self.format, given }
    }
}

/// An engine whose text tells every sample and frame it heard.
fn transcribe(decode: &Decode) -> Transcript {
    let mut hasher = DefaultHasher::new();
    for value in decode.samples.iter().chain(decode.voice.iter()) {
        value.to_bits().hash(&mut hasher);
    }
    assert_eq!(decode.voice.len(), decode.samples.len().div_ceil(VAD_FRAME));
    let text = format!("heard {:016x}", hasher.finish());
    let half = decode.samples.len() / 2;
    let word = |text: &str, start, end| Word { text: text.to_owned(), start, end, confidence: 0.5 };
    let words = vec![word("heard", 0, half), word(&text[6..], half, decode.samples.len())];
    Transcript { text, confidence: 0.5, words, tokens: vec![1] }
}

/// How the world around a lane behaves.
#[derive(Debug, Clone)]
struct World {
    /// After how many steps each decode is answered.
    delays: Vec<usize>,
    /// Which decodes fail.
    failing: Vec<bool>,
    degrade: Degrade,
    recorded: bool,
}

const CALM: World = World { delays: Vec::new(), failing: Vec::new(), degrade: Degrade::None, recorded: false };

#[derive(Debug, Default)]
struct Heard {
    commits: Vec<Commit>,
    /// Finalize ids, each with how many commits came before.
    finalized: Vec<(String, usize)>,
    partials: Vec<Partial>,
    over: bool,
    broken: Option<Fault>,
}

/// Plays a stream from `restart` on, or from its beginning.
fn play(stream: &Stream, from: Option<&Commit>, world: &World, settings: &Settings) -> Heard {
    let restart = from.map(|commit| commit.restart.clone());
    let first = restart.as_ref().map_or(0, |restart| restart.chunk.0);
    let start = Start {
        config: config(stream.format),
        watermark: from.map_or(StreamTime::ZERO, |commit| commit.through),
        restart,
        recorded: world.recorded,
    };
    let mut lane = Lane::new(settings, start, Energy::default().voice()).unwrap();
    lane.degrade(world.degrade);
    let mut heard = Heard::default();
    let mut waiting: Vec<(usize, Decode)> = Vec::new();
    let mut remembered: Vec<(Arc<Memory>, Arc<[f32]>)> = Vec::new();
    let mut step = 0;
    let mut decodes = 0;
    let mut number = 0;
    let mut given = stream.given.iter().peekable();
    while !heard.over {
        step += 1;
        assert!(step < 200_000, "the lane is stuck");
        if lane.wants_input()
            && let Some(next) = given.next()
        {
            match next {
                Given::Audio(data) => {
                    if number >= first {
                        lane.chunk(ChunkNumber(number), data.clone()).unwrap();
                    }
                    number += 1;
                }
                Given::Marker(marker) if number >= first => lane.marker(ChunkNumber(number), marker.clone()).unwrap(),
                Given::Marker(_) => {}
            }
        }
        let progress = lane.advance(7).unwrap();
        while let Some(effect) = lane.effect() {
            match effect {
                Effect::Decode(decode) => {
                    let delay = world.delays.get(decodes % world.delays.len().max(1)).copied().unwrap_or(0);
                    decodes += 1;
                    for (memory, samples) in &remembered {
                        let both = samples.len().min(decode.samples.len());
                        let alike = samples[..both] == decode.samples[..both];
                        assert!(alike || !Arc::ptr_eq(memory, &decode.memory), "one memory of two utterances");
                    }
                    remembered.push((Arc::clone(&decode.memory), Arc::clone(&decode.samples)));
                    waiting.push((step + delay, decode));
                }
                Effect::Cancel(id) => waiting.retain(|(_, decode)| decode.id != id),
                Effect::Partial(partial) => heard.partials.push(partial),
                Effect::Commit(commit) => heard.commits.push(commit),
                Effect::Finalized(id) => heard.finalized.push((id, heard.commits.len())),
                Effect::Signal(_) => {}
                Effect::Over => heard.over = true,
                Effect::Broken(fault) => {
                    heard.broken = Some(fault);
                    heard.over = true;
                }
            }
        }
        // A blocked lane's world goes on.
        let due = |(at, _): &(usize, Decode)| *at <= step || progress == Progress::Blocked;
        while let Some(index) = waiting.iter().rposition(due) {
            let (_, decode) = waiting.remove(index);
            let failed =
                decode.kind == Kind::Final && world.failing.get(decode.id as usize % 8).copied().unwrap_or(false);
            let outcome = if failed {
                Outcome::Failed(EngineError::Model("as the test wants".into()))
            } else {
                Outcome::Done(transcribe(&decode))
            };
            lane.decoded(decode.id, outcome);
        }
    }
    heard
}

/// What a stream's readers see of its commits: independent of chunks.
fn said(commits: &[Commit]) -> Vec<(StreamTime, StreamTime, Option<Utterance>)> {
    commits.iter().map(|commit| (commit.from, commit.through, commit.utterance.clone())).collect()
}

/// Noise of this level: (duration in ms, amplitude).
fn audio(format: AudioFormat, parts: &[(u64, f32)], seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::new();
    for (ms, amplitude) in parts {
        for _ in 0..ms * u64::from(format.rate.get()) / 1_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let sample = (state >> 16) as i16;
            let sample = (f32::from(sample) * amplitude) as i16;
            match format.encoding {
                Encoding::Mulaw => bytes.push(if *amplitude > 0.01 { (state >> 24) as u8 } else { 0xff }),
                _ => bytes.extend_from_slice(&sample.to_le_bytes()),
            }
        }
    }
    bytes
}

fn script() -> impl Strategy<Value = Script> {
    let format = prop_oneof![
        3 => Just((Encoding::Linear16, 16_000)),
        1 => Just((Encoding::Linear16, 8_000)),
        1 => Just((Encoding::Linear16, 11_025)),
        1 => Just((Encoding::Linear16, 44_100)),
        1 => Just((Encoding::Mulaw, 8_000)),
    ];
    let level = prop_oneof![Just(0.0_f32), Just(0.001), Just(0.02), Just(0.3)];
    let sound = vec((20..3_000_u64, level), 1..8);
    let mark = prop_oneof![
        3 => Just(Mark::Finalize),
        1 => Just(Mark::SameConfig),
        1 => format.clone().prop_map(|(encoding, rate)| Mark::Format(encoding, rate)),
        1 => (0..9_u64).prop_map(Mark::Reanchor),
    ];
    (format, vec((sound, any::<bool>(), prop::option::of(mark)), 1..4), any::<u32>()).prop_map(
        |((encoding, rate), parts, seed)| {
            let first = AudioFormat::new(encoding, rate).unwrap();
            let mut format = first;
            let parts = parts
                .into_iter()
                .map(|(sound, odd, mark)| {
                    let mut bytes = audio(format, &sound, seed);
                    if odd {
                        bytes.push(7);
                    }
                    if let Some(Mark::Format(encoding, rate)) = mark {
                        format = AudioFormat::new(encoding, rate).unwrap();
                    }
                    (bytes, mark)
                })
                .collect();
            Script { format: first, parts }
        },
    )
}

fn world() -> impl Strategy<Value = World> {
    let degrade = prop_oneof![Just(Degrade::None), Just(Degrade::SlowPartials), Just(Degrade::NoPartials)];
    (vec(0..60_usize, 1..6), degrade, any::<bool>()).prop_map(|(delays, degrade, recorded)| World {
        delays,
        failing: Vec::new(),
        degrade,
        recorded,
    })
}

fn settings() -> Settings {
    // Shorter than usual, so that little audio has many cuts of all kinds.
    Settings { longest: std::time::Duration::from_millis(2_500), ..Settings::default() }
}

fn check_order(heard: &Heard) {
    let mut watermark = StreamTime::ZERO;
    let mut chunk = ChunkNumber(0);
    for commit in &heard.commits {
        assert_eq!(commit.from, watermark, "no hole and no overlap");
        assert!(commit.through > commit.from);
        assert!(commit.through_chunk >= chunk && commit.restart.chunk <= commit.through_chunk);
        if let Some(said) = &commit.utterance {
            assert!(commit.from <= said.start && said.start <= said.end && said.end <= commit.through, "{commit:?}");
            let mut after = said.start;
            for word in &said.words {
                assert!(after <= word.start && word.start <= word.end && word.end <= said.end, "{commit:?}");
                after = word.end;
            }
        }
        watermark = commit.through;
        chunk = commit.through_chunk;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Chunks, decode delays, load and the kind of stream change nothing that is committed.
    #[test]
    fn finals_do_not_depend_on_chunks_load_or_the_order_of_decodes(
        script in script(), cuts in vec(1..9_000_usize, 1..12), world in world(),
    ) {
        let whole = play(&script.chunked(&[usize::MAX]), None, &CALM, &settings());
        let pieces = play(&script.chunked(&cuts), None, &world, &settings());
        check_order(&whole);
        check_order(&pieces);
        prop_assert_eq!(said(&pieces.commits), said(&whole.commits));
        prop_assert_eq!(pieces.finalized, whole.finalized);
        if world.recorded || world.degrade == Degrade::NoPartials {
            prop_assert!(pieces.partials.is_empty());
        }
    }

    /// A lane that goes on from any commit says what the first one would have: to the last bit of every utterance.
    #[test]
    fn a_fresh_lane_goes_on_exactly(
        script in script(), cuts in vec(1..9_000_usize, 1..12), world in world(), at in any::<prop::sample::Index>(),
    ) {
        let stream = script.chunked(&cuts);
        let first = play(&stream, None, &CALM, &settings());
        prop_assume!(!first.commits.is_empty());
        let last = at.index(first.commits.len());
        let second = play(&stream, Some(&first.commits[last]), &world, &settings());
        prop_assert_eq!(said_alike(&second.commits), said_alike(&first.commits[last + 1..]));
        let third = second.commits.first().map(|commit| play(&stream, Some(commit), &CALM, &settings()));
        if let Some(third) = third {
            prop_assert_eq!(said_alike(&third.commits), said_alike(&first.commits[last + 2..]));
        }
    }

    /// An engine that fails costs words, said so on the log, and nothing else.
    #[test]
    fn a_failing_engine_neither_wedges_nor_loses_silently(
        script in script(), failing in vec(any::<bool>(), 8), delays in vec(0..60_usize, 1..6),
    ) {
        let stream = script.chunked(&[1_600]);
        let well = play(&stream, None, &CALM, &settings());
        let ill = play(&stream, None, &World { failing, delays, ..CALM }, &settings());
        check_order(&ill);
        prop_assert_eq!(ill.commits.len(), well.commits.len());
        for (ill, well) in ill.commits.iter().zip(&well.commits) {
            prop_assert_eq!((ill.from, ill.through), (well.from, well.through));
            match &ill.utterance {
                Some(said) if said.lost => prop_assert_eq!(&said.text, INAUDIBLE),
                said => prop_assert_eq!(said, &well.utterance),
            }
        }
    }
}

/// What is committed, without which decode of its lane it came from.
fn said_alike(commits: &[Commit]) -> Vec<Commit> {
    commits.iter().map(|commit| Commit { decode: None, ..commit.clone() }).collect()
}

fn linear16(rate: u32) -> AudioFormat {
    AudioFormat::new(Encoding::Linear16, rate).unwrap()
}

#[test]
fn speech_and_silence_become_an_utterance_and_quiet_stretches() {
    let sound = audio(linear16(16_000), &[(1_000, 0.0), (1_500, 0.3), (5_000, 0.0)], 3);
    let script = Script { format: linear16(16_000), parts: vec![(sound, None)] };
    let heard = play(&script.chunked(&[640]), None, &CALM, &Settings::default());
    let spoken: Vec<_> = heard.commits.iter().map(|commit| commit.utterance.is_some()).collect();
    assert_eq!(spoken, [true, false, false, false]);
    let said = heard.commits[0].utterance.as_ref().unwrap();
    // The onset pad before the first word, the end pad after the last.
    assert!((830_000..=1_010_000).contains(&said.start.0), "{said:?}");
    assert!(said.end.0 >= 2_480_000 && said.end.0 <= 2_700_000, "{said:?}");
    assert!(!heard.partials.is_empty());
    assert!(heard.partials.iter().all(|partial| partial.from == StreamTime::ZERO));
    assert_eq!(heard.commits.last().unwrap().through, StreamTime(7_500_000));
}

#[test]
fn a_finalize_cuts_at_once_and_is_answered_behind_its_commit() {
    let speech = audio(linear16(16_000), &[(1_000, 0.3)], 3);
    let parts = vec![(speech.clone(), Some(Mark::Finalize)), (speech, None)];
    let heard = play(&Script { format: linear16(16_000), parts }.chunked(&[999]), None, &CALM, &Settings::default());
    assert_eq!(heard.finalized, [("f0".to_owned(), 1)]);
    let through: Vec<_> = heard.commits.iter().map(|commit| commit.through.0).collect();
    assert_eq!(through, [1_000_000, 2_000_000]);
    assert!(heard.commits.iter().all(|commit| commit.utterance.is_some()));
}

#[test]
fn a_jump_of_the_clock_ends_the_utterance_and_moves_what_follows() {
    let speech = audio(linear16(8_000), &[(1_000, 0.3)], 3);
    let parts = vec![(speech.clone(), Some(Mark::Reanchor(0))), (speech, None)];
    let heard = play(&Script { format: linear16(8_000), parts }.chunked(&[999]), None, &CALM, &Settings::default());
    let through: Vec<_> = heard.commits.iter().map(|commit| commit.through.0).collect();
    assert_eq!(through, [60_000_000, 61_000_000]);
    let said: Vec<_> = heard.commits.iter().map(|commit| commit.utterance.as_ref().unwrap()).collect();
    assert!(said[0].end.0 <= 1_000_000 && said[1].start.0 >= 60_000_000, "{said:?}");
}

#[test]
fn what_is_out_of_order_is_refused() {
    let start = Start { config: config(linear16(16_000)), watermark: StreamTime::ZERO, restart: None, recorded: false };
    let mut lane = Lane::new(&Settings::default(), start, Energy::default().voice()).unwrap();
    assert!(lane.chunk(ChunkNumber(1), Bytes::new()).is_err());
    lane.chunk(ChunkNumber(0), Bytes::new()).unwrap();
    assert!(lane.marker(ChunkNumber(0), Marker::End).is_err());
    lane.marker(ChunkNumber(1), Marker::End).unwrap();
    assert!(matches!(lane.chunk(ChunkNumber(1), Bytes::new()), Err(LaneError::AfterEnd)));
}

/// A quiet tone of samples whose bytes, read one off, would be loud.
#[test]
fn a_jump_inside_a_sample_leaves_what_follows_aligned() {
    let quiet: Vec<u8> = [0x10, 0x00].repeat(16_000);
    let (before, after) = quiet.split_at(16_001);
    let parts = vec![(before.to_vec(), Some(Mark::Reanchor(0))), (after.to_vec(), None)];
    let heard = play(&Script { format: linear16(16_000), parts }.chunked(&[999]), None, &CALM, &Settings::default());
    assert!(heard.commits.iter().all(|commit| commit.utterance.is_none()), "{:?}", heard.commits);
}

/// A stretch of one encoding: (encoding, announced rate, how it is made), sound, markers after which of its chunks.
type Stretch = (Coded, Vec<(u64, f32)>, Vec<(prop::sample::Index, Option<u64>)>);

#[derive(Debug, Clone, Copy)]
enum Coded {
    Linear16,
    Mulaw,
    Flac(u32, usize),
    Raw(u32),
    Ogg(usize),
    WebM(usize),
}

impl Coded {
    fn format(self, odd: bool) -> AudioFormat {
        let (encoding, rate) = match self {
            Self::Linear16 => (Encoding::Linear16, if odd { 11_025 } else { 16_000 }),
            Self::Mulaw => (Encoding::Mulaw, 8_000),
            // Two rates, so that stretches that follow each other differ; the stream's own counts.
            Self::Flac(..) => (Encoding::Flac, if odd { 22_050 } else { 32_000 }),
            Self::Raw(_) | Self::Ogg(_) | Self::WebM(_) => (Encoding::Opus, if odd { 24_000 } else { 48_000 }),
        };
        AudioFormat::new(encoding, rate).unwrap()
    }

    fn chunks(self, format: AudioFormat, sound: &[(u64, f32)], cuts: &[usize]) -> Vec<Bytes> {
        let at = |rate| {
            let format = AudioFormat::new(Encoding::Linear16, rate).unwrap();
            let bytes = audio(format, sound, 5);
            bytes.as_chunks::<2>().0.iter().map(|bytes| i16::from_le_bytes(*bytes)).collect::<Vec<_>>()
        };
        let opus = |frame_ms| {
            encode::opus(&at(16_000), &encode::Opus { rate: 16_000, frame_ms, ..encode::Opus::default() }).unwrap()
        };
        let stream = match self {
            Self::Linear16 | Self::Mulaw => audio(format, sound, 5),
            Self::Flac(rate, block) => {
                let samples: Vec<i32> = at(rate).into_iter().map(i32::from).collect();
                encode::flac(&samples, 1, 16, rate, block).unwrap()
            }
            Self::Raw(frame_ms) => return opus(frame_ms).0.into_iter().map(Bytes::from).collect(),
            Self::Ogg(page) => {
                let (packets, skip) = opus(20);
                encode::ogg(&packets, skip, page, 3).unwrap()
            }
            Self::WebM(cluster) => {
                let (packets, skip) = opus(20);
                encode::webm(&packets, skip, cluster)
            }
        };
        let mut rest = Bytes::from(stream);
        let mut chunks = Vec::new();
        for size in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            chunks.push(rest.split_to((*size).clamp(1, rest.len())));
        }
        chunks
    }
}

/// All stretches as one stream, the format changing between them.
fn coded(stretches: &[Stretch], cuts: &[usize], marked: bool) -> Stream {
    let mut given = Vec::new();
    let first = stretches[0].0.format(false);
    let mut number = 0;
    for (index, (coded, sound, marks)) in stretches.iter().enumerate() {
        let format = coded.format(index % 2 == 1);
        if index > 0 {
            given.push(Given::Marker(Marker::Config(config(format))));
        }
        let chunks = coded.chunks(format, sound, cuts);
        for (at, chunk) in chunks.iter().enumerate() {
            given.push(Given::Audio(chunk.clone()));
            for (_, jump) in marks.iter().filter(|(mark, _)| marked && mark.index(chunks.len()) == at) {
                number += 1;
                given.push(Given::Marker(match jump {
                    Some(seconds) => Marker::Reanchor(StreamTime(number * 120_000_000 + seconds * 1_000_003)),
                    None => Marker::Finalize(format!("f{number}")),
                }));
            }
        }
    }
    given.push(Given::Marker(Marker::End));
    Stream { format: first, given }
}

fn stretches() -> impl Strategy<Value = Vec<Stretch>> {
    let encoding = prop_oneof![
        1 => Just(Coded::Linear16),
        1 => Just(Coded::Mulaw),
        1 => Just(Coded::Flac(16_000, 1_024)),
        1 => Just(Coded::Flac(44_100, 4_096)),
        2 => prop::sample::select(&[10, 20, 60][..]).prop_map(Coded::Raw),
        2 => prop::sample::select(&[1, 7, 60][..]).prop_map(Coded::Ogg),
        2 => prop::sample::select(&[9, 1_000][..]).prop_map(Coded::WebM),
    ];
    let level = prop_oneof![Just(0.0_f32), Just(0.3)];
    let sound = vec((20..3_000_u64, level), 1..6);
    let marks = vec((any::<prop::sample::Index>(), prop::option::of(0..9_u64)), 0..3);
    vec((encoding, sound, marks), 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// In every encoding, and across changes of it: a lane that goes on from any commit says what the first one would have,
    /// to the last bit of every utterance.
    #[test]
    fn a_fresh_lane_goes_on_exactly_in_every_encoding(
        stretches in stretches(), cuts in vec(1..4_000_usize, 1..12), world in world(), at in any::<prop::sample::Index>(),
    ) {
        let stream = coded(&stretches, &cuts, true);
        let first = play(&stream, None, &CALM, &settings());
        prop_assert!(first.broken.is_none(), "{:?}", first.broken);
        check_order(&first);
        prop_assume!(!first.commits.is_empty());
        let last = at.index(first.commits.len());
        let second = play(&stream, Some(&first.commits[last]), &world, &settings());
        prop_assert_eq!(said_alike(&second.commits), said_alike(&first.commits[last + 1..]));
        if let Some(commit) = second.commits.first() {
            let third = play(&stream, Some(commit), &CALM, &settings());
            prop_assert_eq!(said_alike(&third.commits), said_alike(&first.commits[last + 2..]));
        }
    }

    #[test]
    fn finals_do_not_depend_on_chunks_in_any_encoding(
        stretches in stretches(), cuts in vec(1..4_000_usize, 1..12), world in world(),
    ) {
        let whole = play(&coded(&stretches, &[usize::MAX], false), None, &CALM, &settings());
        let pieces = play(&coded(&stretches, &cuts, false), None, &world, &settings());
        check_order(&pieces);
        prop_assert_eq!(said(&pieces.commits), said(&whole.commits));
    }
}

/// What was said before the bytes went wrong is committed, and then the fault is told.
#[test]
fn a_stream_that_breaks_keeps_what_was_said() {
    let sound = [(500, 0.0), (1_500, 0.3)];
    let format = Coded::Flac(16_000, 1_024).format(false);
    let mut given: Vec<Given> =
        Coded::Flac(16_000, 1_024).chunks(format, &sound, &[700]).into_iter().map(Given::Audio).collect();
    given.extend(std::iter::repeat_n(Given::Audio(vec![0x55; 30_000].into()), 12));
    given.push(Given::Marker(Marker::End));
    let heard = play(&Stream { format, given }, None, &CALM, &Settings::default());
    assert!(heard.broken.is_some_and(|fault| fault.to_string().contains("no audio was found")));
    assert_eq!(heard.commits.len(), 1);
    assert!(heard.commits[0].utterance.is_some());
    assert_eq!(heard.commits[0].through, StreamTime(2_000_000));
}
