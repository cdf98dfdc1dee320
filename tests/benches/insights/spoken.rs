//! Questions as the recognizer writes them: utterances of meetings, spoken by synthetic voices, heard, and judged by the
//! fold that judges them while people talk.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::{Context, Result, anyhow, ensure};
use hearsay_insight::{
    acts,
    analysis::Analysis,
    labelled::{self, Spoken},
};
use hearsay_protocol::{
    AudioFormat, Encoding,
    event::{Event, InsightBody, SpeakerConfig},
    sentences,
};
use hearsay_speech::{
    engine::moonshine::{MoonshineEngine, MoonshineOptions, MoonshinePaths},
    offline,
    segment::Settings,
    vad::Silero,
};
use hearsay_tests::{
    client::wav,
    words::{Errors, errors, normalize},
};
use xtask::speech_set::say;

use crate::{
    Speaker,
    figures::{Counts, Random, interval},
};

/// Names in the speech set.
const VOICES: [&str; 2] = ["slt", "rms"];
/// Utterances of each meeting, one behind the other, from a place that is drawn.
const STRETCH: usize = 100;
const SEED: u64 = 20_261_201;
/// Silence before and after an utterance, in samples at 16 kHz.
const AROUND: (usize, usize) = (4_800, 12_800);
const RATE: u32 = 16_000;
/// By how much the rule of question marks is to be passed.
const AHEAD: f64 = 0.03;

/// How an utterance, said by one voice, was judged.
#[derive(Clone, Copy)]
struct Judged {
    truth: bool,
    mark: bool,
    analyst: bool,
    heads: bool,
}

pub(crate) fn run(data: &Path) -> Result<()> {
    let utterances = crate::utterances(data)?;
    let stretches = drawn(&utterances);
    let chosen: Vec<&Spoken> = stretches.iter().flat_map(|it| it.iter()).collect();
    let questions = chosen.iter().filter(|it| it.question).count();
    println!(
        "{} utterances of {} meetings in their order, {questions} of them questions",
        chosen.len(),
        stretches.len()
    );
    let texts: Vec<&str> = chosen.iter().map(|it| it.text.as_str()).collect();
    let folder = hearsay_models::cache_folder()?.join("spoken-questions");
    let mut judged: Vec<Vec<Judged>> = vec![Vec::new(); chosen.len()];
    for voice in VOICES {
        let files = say(voice, &texts, &folder)?;
        let heard = heard(&files)?;
        let mut wrong = Errors::default();
        for (said, heard) in texts.iter().zip(&heard) {
            wrong += errors(&normalize(said), &normalize(heard));
        }
        let nothing = heard.iter().filter(|it| it.is_empty()).count();
        println!("\n{voice}: word error rate {:.1} %, nothing heard of {nothing} utterances", 100.0 * wrong.rate());
        let mut rest = heard.as_slice();
        let mut of_voice = Vec::with_capacity(chosen.len());
        for stretch in &stretches {
            let (heard, after) = rest.split_at(stretch.len());
            rest = after;
            of_voice.extend(judge(stretch, heard));
        }
        report(&of_voice.iter().map(|it| vec![*it]).collect::<Vec<_>>());
        for (all, it) in judged.iter_mut().zip(of_voice) {
            all.push(it);
        }
    }
    println!("\nboth voices");
    let (mark, analyst) = report(&judged);
    ensure!(analyst >= mark + AHEAD, "the rule of question marks is to be passed by {AHEAD}");
    Ok(())
}

/// As many utterances of each meeting, one behind the other.
fn drawn(utterances: &[Spoken]) -> Vec<&[Spoken]> {
    let mut random = Random(SEED);
    let meetings = utterances.chunk_by(|a, b| a.meeting == b.meeting);
    meetings
        .map(|meeting| {
            let length = STRETCH.min(meeting.len());
            let from = random.below(meeting.len() - length + 1);
            &meeting[from..from + length]
        })
        .collect()
}

/// What the recognizer makes of each file, by the path of a recording; empty where it hears no speech.
fn heard(files: &[PathBuf]) -> Result<Vec<String>> {
    let models =
        hearsay_models::ModelStore::open(hearsay_models::cache_folder()?).fetch(&mut hearsay_models::Silent)?;
    let paths = MoonshinePaths {
        encoder: models.moonshine.encoder,
        decoder: models.moonshine.decoder,
        tokenizer: models.moonshine.tokenizer,
    };
    let engine = MoonshineEngine::load(&paths, &MoonshineOptions::default())?;
    let vad = Silero::load(&models.silero)?;
    let format = AudioFormat::new(Encoding::Linear16, RATE)?;
    let hear = |file: &Path| -> Result<String> {
        let (mut samples, rate) = wav(file)?;
        ensure!(rate == RATE, "{} has {rate} Hz", file.display());
        samples.splice(0..0, std::iter::repeat_n(0, AROUND.0));
        samples.extend(std::iter::repeat_n(0, AROUND.1));
        let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        let config = SpeakerConfig { format, ..SpeakerConfig::default() };
        let commits = offline::transcribe(&Settings::default(), config, &vad, &engine, bytes.into())?;
        let said: Vec<String> = commits.into_iter().filter_map(|it| Some(it.utterance?.text)).collect();
        Ok(said.join(" "))
    };
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(file) = files.get(at) else { return anyhow::Ok(done) };
            done.push((at, hear(file).with_context(|| file.display().to_string())?));
        }
    };
    let threads = thread::available_parallelism().map_or(1, |it| it.get());
    let done = thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        running.into_iter().map(|it| it.join().map_err(|_| anyhow!("a thread failed"))?).collect::<Result<Vec<_>>>()
    })?;
    let mut texts = vec![String::new(); files.len()];
    for (at, text) in done.into_iter().flatten() {
        texts[at] = text;
    }
    Ok(texts)
}

/// Judges a stretch of a meeting by what was heard of it.
fn judge(stretch: &[Spoken], heard: &[String]) -> Vec<Judged> {
    let analyst = told(stretch, heard);
    // By the heads alone, with times, each utterance a turn.
    let known: Vec<usize> = (0..heard.len()).filter(|it| !heard[*it].is_empty()).collect();
    let spoken: Vec<Spoken> = known.iter().map(|it| stretch[*it].clone()).collect();
    let texts: Vec<String> = known.iter().map(|it| heard[*it].clone()).collect();
    let mut heads = vec![false; heard.len()];
    for meeting in labelled::meetings(&spoken, &texts) {
        for (at, utterance) in known.iter().enumerate() {
            heads[*utterance] = acts::judge_in(&meeting, at).question >= 0.5;
        }
    }
    let judged = (0..heard.len()).map(|at| Judged {
        truth: stretch[at].question,
        mark: heard[at].contains('?'),
        analyst: analyst[at],
        heads: heads[at],
    });
    judged.collect()
}

/// What a subscriber is told in the end: whether a sentence of each is a question.
fn told(stretch: &[Spoken], heard: &[String]) -> Vec<bool> {
    let mut analysis = Analysis::new();
    let mut speakers: HashMap<&str, Speaker> = HashMap::new();
    let mut of_message = HashMap::new();
    let mut asked = HashSet::new();
    for (at, (it, text)) in stretch.iter().zip(heard).enumerate() {
        let number = speakers.len() as u128 + 1;
        let config = SpeakerConfig { insight_types: vec!["question".to_owned()], ..SpeakerConfig::default() };
        let speaker = speakers.entry(&it.speaker).or_insert_with(|| {
            let speaker = Speaker::new(number, &it.speaker);
            analysis.apply(&speaker.joins(config), None);
            speaker
        });
        if text.is_empty() {
            continue;
        }
        let spoken = speaker.says(it.start, it.end, text);
        of_message.extend(sentences(&spoken).iter().map(|sentence| (sentence.id, at)));
        for event in analysis.apply(&Event::Final(Arc::clone(&spoken)), None) {
            let Event::Insight(insight) = event else { continue };
            if insight.body == InsightBody::Question {
                let message = insight.evidence[0].message;
                if insight.retracted {
                    asked.remove(&message)
                } else {
                    asked.insert(message)
                };
            }
        }
    }
    let mut told = vec![false; heard.len()];
    for message in asked {
        told[of_message[&message]] = true;
    }
    told
}

/// Prints the figures; answers those of the rule and of the analyst. Of each utterance all that were judged are drawn
/// together.
fn report(judged: &[Vec<Judged>]) -> (f64, f64) {
    type Of = fn(&Judged) -> bool;
    let f1 = |items: &[&Vec<Judged>], of: Of| {
        items.iter().flat_map(|it| it.iter()).map(|it| Counts::of(of(it), it.truth)).sum::<Counts>()
    };
    let all: Vec<&Vec<Judged>> = judged.iter().collect();
    let (mark, analyst): (Of, Of) = (|it| it.mark, |it| it.analyst);
    for (name, of) in [("question mark", mark), ("analyst", analyst), ("heads alone", |it: &Judged| it.heads)] {
        let (low, high) = interval(judged, |sample| f1(sample, of).f1());
        println!("{name:<14} {}  (95 % of samples: F1 {low:.3} to {high:.3})", f1(&all, of));
    }
    let ahead = |items: &[&Vec<Judged>]| f1(items, analyst).f1() - f1(items, mark).f1();
    let (low, high) = interval(judged, ahead);
    println!("analyst before the question mark: {:+.3}  (95 % of samples: {low:+.3} to {high:+.3})", ahead(&all));
    (f1(&all, mark).f1(), f1(&all, analyst).f1())
}
