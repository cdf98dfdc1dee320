//! The real model on real speech. Models and recordings are fetched into the cache folder when they are not there.

mod heard;

use std::{
    path::Path,
    sync::{
        LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use hearsay_models::{Recordings, Silent};
use hearsay_speech::{
    engine::{
        ENGINE_RATE, Engine, EngineError, Kind, Request, Transcript, VAD_FRAME,
        agree::Agreement,
        moonshine::{MoonshineEngine, MoonshineOptions, MoonshinePaths},
    },
    vad::Silero,
};

use self::heard::{Recording, models, paths, store};

struct Set {
    engine: MoonshineEngine,
    recordings: Recordings,
    silero: Silero,
}

static SET: LazyLock<Set> = LazyLock::new(|| {
    let models = models();
    Set {
        engine: MoonshineEngine::load(&paths(&models), &MoonshineOptions::default()).expect("the model"),
        recordings: store().recordings(&mut Silent).expect("the recordings"),
        silero: Silero::load(&models.silero).expect("the voice activity model"),
    }
});

fn recording(path: &Path) -> Recording {
    Recording::open(path, &SET.silero)
}

const BECKETT: &str = "ever tried ever failed no matter try again fail again fail better";

const TWO_CITIES: &str = "it was the best of times it was the worst of times it was the age of wisdom it was the age of \
    foolishness it was the epoch of belief it was the epoch of incredulity it was the season of light it was the season \
    of darkness it was the spring of hope it was the winter of despair we had everything before us we had nothing before \
    us we were all going direct to heaven we were all going direct the other way in short the period was so far like the \
    present period that some of its noisiest authorities insisted on its being received for good or for evil in the \
    superlative degree of comparison only";

fn bare(text: &str) -> Vec<String> {
    let bare = |it: &str| it.chars().filter(|it| it.is_alphanumeric()).flat_map(char::to_lowercase).collect::<String>();
    text.split_whitespace().map(bare).filter(|it| !it.is_empty()).collect()
}

/// Words replaced, left out or added, per word of the reference.
fn word_errors(reference: &str, heard: &str) -> f32 {
    let (reference, heard) = (bare(reference), bare(heard));
    let mut row: Vec<usize> = (0..=heard.len()).collect();
    for (at, word) in reference.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for column in 1..row.len() {
            let replaced = diagonal + usize::from(*word != heard[column - 1]);
            diagonal = row[column];
            row[column] = replaced.min(row[column] + 1).min(row[column - 1] + 1);
        }
    }
    *row.last().expect("a row") as f32 / reference.len() as f32
}

fn finals(recording: &Recording) -> Vec<(usize, Transcript)> {
    let mut decoder = SET.engine.decoder();
    let each = recording.utterances().into_iter();
    each.map(|it| (it.start, recording.decode(&mut *decoder, it, Kind::Final, &[]))).collect()
}

fn text(finals: &[(usize, Transcript)]) -> String {
    finals.iter().map(|it| it.1.text.as_str()).collect::<Vec<_>>().join(" ")
}

#[test]
fn recordings_are_understood() {
    let beckett = text(&finals(&recording(&SET.recordings.beckett)));
    assert_eq!(word_errors(BECKETT, &beckett), 0.0, "{beckett}");
    let cities = text(&finals(&recording(&SET.recordings.two_cities)));
    assert!(word_errors(TWO_CITIES, &cities) < 0.07, "{} {cities}", word_errors(TWO_CITIES, &cities));
}

#[test]
fn words_are_those_of_the_text_in_order_within_the_audio() {
    for path in [&SET.recordings.two_cities, &SET.recordings.endgame] {
        let recording = recording(path);
        let utterances = recording.utterances();
        assert!(utterances.len() > 8, "{} utterances", utterances.len());
        for (frames, (_, said)) in utterances.iter().zip(finals(&recording)) {
            let words: Vec<&str> = said.words.iter().map(|it| it.text.as_str()).collect();
            assert_eq!(words.join(" "), said.text);
            let mut before = 0;
            for word in &said.words {
                assert!(before <= word.start && word.start < word.end, "{word:?} after {before} in {}", said.text);
                assert!((0.0..=1.0).contains(&word.confidence));
                before = word.end;
            }
            assert!(before <= frames.len() * VAD_FRAME);
            assert!(said.text.is_empty() || said.confidence > 0.5, "{} {}", said.confidence, said.text);
        }
    }
}

#[test]
fn words_begin_when_they_are_said() {
    // Heard by ear and read off the waveform, to a few hundredths of a second.
    let expected = [
        ("Ever", 0.29),
        ("tried", 0.63),
        ("Ever", 1.86),
        ("failed", 2.17),
        ("No", 3.48),
        ("matter", 3.74),
        ("Try", 4.83),
        ("again", 5.11),
        ("Fail", 6.62),
        ("again", 6.90),
        ("Fail", 8.10),
        ("better", 8.41),
    ];
    let words: Vec<(String, f32)> = finals(&recording(&SET.recordings.beckett))
        .into_iter()
        .flat_map(|(frame, said)| {
            let seconds = move |it: usize| (frame * VAD_FRAME + it) as f32 / ENGINE_RATE as f32;
            said.words.into_iter().map(move |it| (it.text, seconds(it.start)))
        })
        .collect();
    assert_eq!(words.len(), expected.len());
    for ((word, start), (expected, at)) in words.iter().zip(expected) {
        assert_eq!(bare(word), bare(expected));
        assert!((start - at).abs() < 0.12, "{word} begins at {start}, not {at}");
    }
}

#[test]
fn finals_are_a_function_of_the_audio() {
    let recording = recording(&SET.recordings.beckett);
    let frames = recording.utterances()[1].clone();
    let decode = |draft: &[u32]| recording.decode(&mut *SET.engine.decoder(), frames.clone(), Kind::Final, draft);
    let first = decode(&[]);
    assert_eq!(first, decode(&[900, 901, 902]), "a final ignores drafts");
    let mut busy = SET.engine.decoder();
    recording.decode(&mut *busy, recording.utterances()[0].clone(), Kind::Partial, &[5, 6]);
    assert_eq!(first, recording.decode(&mut *busy, frames.clone(), Kind::Final, &[]), "and what was decoded before");
    let same = thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(|| decode(&[]))).collect();
        threads.into_iter().all(|it| it.join().expect("decoded") == first)
    });
    assert!(same, "and other threads");
}

#[test]
fn partials_grow_agree_with_their_final_and_never_loop() {
    let recording = recording(&SET.recordings.two_cities);
    let mut decoder = SET.engine.decoder();
    let (mut windows, mut same, mut empty, mut promised, mut kept) = (0, 0, 0, 0, 0);
    for frames in recording.utterances() {
        let (mut tokens, mut agreement) = (Vec::new(), Agreement::default());
        for end in (frames.start + 24..frames.end).step_by(24) {
            let drafted = recording.decode(&mut *decoder, frames.start..end, Kind::Partial, &tokens);
            let plain = recording.decode(&mut *decoder, frames.start..end, Kind::Partial, &[]);
            windows += 1;
            same += usize::from(bare(&plain.text) == bare(&drafted.text));
            empty += usize::from(drafted.text.is_empty());
            let words = bare(&drafted.text);
            for length in 1..=words.len() / 3 {
                let copies = words.windows(3 * length).find(|it| it[..2 * length] == it[length..]);
                assert_eq!(copies, None, "{}", drafted.text);
            }
            agreement.revise(&drafted.text);
            tokens = drafted.tokens;
        }
        let said = bare(&recording.decode(&mut *decoder, frames, Kind::Final, &[]).text);
        let shown = agreement.shown();
        let stable = bare(&shown.text[..shown.stable]);
        promised += stable.len();
        kept += stable.iter().zip(&said).filter(|it| it.0 == it.1).count();
    }
    assert!(windows > 40, "{windows} windows");
    assert!(empty * 20 <= windows, "{empty} of {windows} windows were empty");
    // On 8-bit integers a step of many tokens rounds otherwise than many steps of one: near ties fall differently.
    assert!(same * 10 >= windows * 8, "{same} of {windows} say the same with a draft");
    assert!(promised > 60 && kept * 10 >= promised * 9, "{kept} of {promised} promised words were kept");
}

#[test]
fn a_cancelled_decode_ends_soon() {
    let recording = recording(&SET.recordings.two_cities);
    let (samples, voice) = (&recording.samples[..10 * VAD_FRAME * 31], &recording.voice[..310]);
    let mut decoder = SET.engine.decoder();
    let cancelled = AtomicBool::new(false);
    let request =
        Request { samples, voice, kind: Kind::Final, language: "en", draft: &[], memory: None, cancelled: &cancelled };
    let start = Instant::now();
    decoder.decode(&request).expect("decoded");
    let whole = start.elapsed();
    cancelled.store(true, Ordering::Relaxed);
    let start = Instant::now();
    assert!(matches!(decoder.decode(&request), Err(EngineError::Cancelled)));
    assert!(start.elapsed() < whole / 10, "not even begun");
    cancelled.store(false, Ordering::Relaxed);
    let result = thread::scope(|scope| {
        let decoding = scope.spawn(|| decoder.decode(&request));
        thread::sleep((whole / 4).max(Duration::from_millis(1)));
        cancelled.store(true, Ordering::Relaxed);
        decoding.join().expect("no panic")
    });
    assert!(matches!(result, Err(EngineError::Cancelled)), "{result:?}");
}

#[test]
fn odd_requests_are_answered() {
    let mut decoder = SET.engine.decoder();
    let cancelled = AtomicBool::new(false);
    let mut decode = |samples: &[f32], voice: &[f32]| {
        decoder.decode(&Request {
            samples,
            voice,
            kind: Kind::Final,
            language: "en",
            draft: &[],
            memory: None,
            cancelled: &cancelled,
        })
    };
    let limit = SET.engine.capabilities().max_samples;
    for samples in [0, 1, 300, VAD_FRAME, 5000] {
        let said = decode(&vec![0.0; samples], &vec![0.0; samples.div_ceil(VAD_FRAME)]).expect("decoded");
        assert!(said.words.iter().all(|it| it.end <= samples), "{said:?}");
    }
    // Voice activity that does not fit is not relied on.
    decode(&vec![0.01; 20_000], &[]).expect("decoded");
    let error = decode(&vec![0.0; limit + 1], &[]).expect_err("too long");
    assert!(matches!(error, EngineError::TooLong { samples, limit: named } if samples == limit + 1 && named == limit));
    assert!(decode(&[f32::NAN; 4000], &[0.9; 8]).is_err(), "not audio");
    decode(&vec![0.0; 4000], &[0.0; 8]).expect("and the next is decoded");
}

#[test]
fn a_file_that_cannot_be_used_is_named() {
    let right = paths(&models());
    let load = |paths: MoonshinePaths| match MoonshineEngine::load(&paths, &MoonshineOptions::default()) {
        Ok(_) => panic!("loaded"),
        Err(error) => error.to_string(),
    };
    let missing = load(MoonshinePaths { encoder: "/nowhere/encoder.onnx".into(), ..right.clone() });
    assert!(missing.contains("/nowhere/encoder.onnx"), "{missing}");
    let swapped = load(MoonshinePaths { decoder: right.encoder.clone(), ..right.clone() });
    assert!(swapped.contains("logits"), "{swapped}");
    let tokens = load(MoonshinePaths { tokenizer: right.encoder.clone(), ..right });
    assert!(tokens.contains("list of tokens"), "{tokens}");
}

#[cfg(feature = "onnxruntime")]
#[test]
fn onnx_runtime_understands_the_same() {
    use hearsay_speech::engine::{Decoder, moonshine::Runtime, onnxruntime::OnnxRuntime};

    let library = store().onnxruntime(&mut Silent).expect("the library");
    let load = |providers: &[&str]| {
        let providers = providers.iter().map(|it| (*it).into()).collect();
        let with = OnnxRuntime { library: library.clone(), providers, threads: 2 };
        MoonshineEngine::load(&paths(&models()), &MoonshineOptions { runtime: Runtime::OnnxRuntime(with) })
    };
    let engine = load(&["cpu"]).expect("the model");
    let recording = recording(&SET.recordings.beckett);
    let (mut decoder, mut beside) = (engine.decoder(), engine.decoder());
    let utterances = recording.utterances();
    // Two threads on one session, in the middle of each other's utterances.
    let all = |decoder: &mut dyn Decoder| -> Vec<Transcript> {
        utterances.iter().map(|it| recording.decode(decoder, it.clone(), Kind::Final, &[])).collect()
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| all(&mut *beside));
        assert_eq!(all(&mut *decoder), other.join().expect("no panic"));
    });
    let said: Vec<Transcript> =
        utterances.iter().map(|it| recording.decode(&mut *decoder, it.clone(), Kind::Final, &[])).collect();
    let all: Vec<&str> = said.iter().map(|it| it.text.as_str()).collect();
    assert_eq!(word_errors(BECKETT, &all.join(" ")), 0.0, "{all:?}");
    assert!(said.iter().all(|it| it.words.len() == it.text.split(' ').count()));
    // A draft that must be cropped.
    let draft = [&said[0].tokens[..1], &[900, 901]].concat();
    recording.decode(&mut *decoder, utterances[0].clone(), Kind::Partial, &draft);
    let error = load(&["abacus"]).err().expect("unknown").to_string();
    assert!(error.contains("abacus") && error.contains("cuda"), "{error}");
}
