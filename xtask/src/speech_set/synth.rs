//! Has lines spoken, and finds where speech starts, ends and changes words.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::fetch::{Tools, capture, run, sha256};
use super::recipe::{self, Engine, Voice};
use super::sound;

/// The rate of everything but the narrow band.
pub(super) const RATE: u32 = 16_000;

/// Speech ends with the last 5 ms that are less than this far below the clip's loudest 5 ms. Synthetic clips have
/// nothing but decay below it.
const SPEECH_WITHIN_DB: f64 = 40.0;
/// Kept before and after speech, in samples: 60 and 150 ms.
const LEAD: usize = 960;
const TAIL: usize = 2400;
/// 5 ms.
const RAMP: usize = 80;
/// By how far speech may start away from the first phone, and end before or after the last one, in seconds; beyond
/// that, marks and sound do not belong together. Kokoro draws the pause at a full stop out of its last phone.
const START_WITHIN: f64 = 0.2;
const END_BEFORE: f64 = 0.6;
const END_AFTER: f64 = 0.2;
/// Kokoro's phonemes sound this much before the frames it gives them: the mean over 93 words that follow a pause,
/// where the level shows the true start (standard deviation 21 ms).
const KOKORO_LAG: f64 = 0.045;
/// A silence between words, in 5 ms windows.
const PAUSE_WINDOWS: usize = 10;

/// One spoken line at [`RATE`], its level normalised. Marks are sample numbers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Clip {
    pub(super) samples: Vec<f32>,
    pub(super) start: usize,
    pub(super) end: usize,
    /// One for each word of the line, or none.
    pub(super) words: Vec<(usize, usize)>,
}

/// What a synthesizer gives, times in seconds.
struct Raw {
    samples: Vec<f32>,
    rate: u32,
    words: Vec<(f64, f64)>,
    /// From the first to the last phone, where the tool prints them.
    phones: Option<(f64, f64)>,
}

#[derive(Serialize)]
struct Job<'a> {
    engine: &'a str,
    voice: &'a str,
    speed: f64,
    text: &'a str,
    out: &'a str,
}

#[derive(Deserialize)]
struct Spoken {
    rate: u32,
    words: Vec<(u64, u64)>,
}

/// Has the neural voices speak their lines; clips that are there from an earlier run are taken as they are.
pub(super) fn prepare(work: &Path, tools: &Tools, lines: &[(Voice, &str)]) -> Result<()> {
    let folder = work.join("clips");
    std::fs::create_dir_all(&folder)?;
    let mut jobs = Vec::new();
    for (voice, text) in lines {
        let engine = match voice.engine {
            Engine::Kokoro => "kokoro",
            Engine::Piper => "piper",
            Engine::Flite | Engine::Festival => continue,
        };
        let stem = folder.join(key(voice, text));
        if !stem.with_extension("json").exists() {
            let out = stem.to_str().context("the cache folder's name is not UTF-8")?;
            jobs.push(serde_json::to_string(&Job { engine, voice: voice.id, speed: voice.speed, text, out })?);
        }
    }
    speak_neural(tools, &jobs)
}

/// The clip of one line; `prepare` has been given it before.
pub(super) fn speak(work: &Path, voice: &Voice, text: &str) -> Result<Clip> {
    let stem = work.join("clips").join(key(voice, text));
    let raw = match voice.engine {
        Engine::Kokoro => read_spoken(&stem, KOKORO_LAG),
        Engine::Piper => read_spoken(&stem, 0.0),
        Engine::Flite => flite(voice, text, &stem),
        Engine::Festival => festival(voice, text, &stem),
    };
    raw.and_then(|raw| finish(raw, text)).with_context(|| format!("{} cannot say: {text}", voice.name))
}

/// A clip's file name: it changes with everything that decides how it sounds.
fn key(voice: &Voice, text: &str) -> String {
    let made_by = [recipe::REQUIREMENTS, recipe::SPEAK, &format!("{voice:?}"), text].join("\0");
    sha256(made_by.as_bytes())[..24].to_owned()
}

/// Shares the lines out to a process for each core; every line is spoken alone, so the share does not matter.
fn speak_neural(tools: &Tools, jobs: &[String]) -> Result<()> {
    if jobs.is_empty() {
        return Ok(());
    }
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get()).min(4).min(jobs.len());
    eprintln!("speaking {} lines in {workers} processes, about 2 s of work each", jobs.len());
    let mut running = Vec::new();
    for worker in 0..workers {
        let mut child = Command::new(&tools.python)
            .arg(&tools.speak)
            .arg(&tools.kokoro_voices)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start the synthesizer")?;
        let mut share: String = jobs.iter().skip(worker).step_by(workers).map(|job| format!("{job}\n")).collect();
        share.shrink_to_fit();
        let mut stdin = child.stdin.take().context("the synthesizer has no input")?;
        let feeding = std::thread::spawn(move || stdin.write_all(share.as_bytes()));
        running.push((child, feeding));
    }
    let mut failed = false;
    for (mut child, feeding) in running {
        failed |= !child.wait()?.success();
        // A synthesizer that failed closed its input; its own words on stderr say more than this would.
        failed |= !matches!(feeding.join(), Ok(Ok(())));
    }
    ensure!(!failed, "the synthesizer failed, see above");
    Ok(())
}

fn read_spoken(stem: &Path, lag: f64) -> Result<Raw> {
    let spoken: Spoken = serde_json::from_slice(&std::fs::read(stem.with_extension("json"))?)?;
    let samples = sound::raw_f32(&std::fs::read(stem.with_extension("f32"))?);
    let seconds = |sample: u64| (sample as f64 / f64::from(spoken.rate) - lag).max(0.0);
    let words: Vec<_> = spoken.words.into_iter().map(|(from, to)| (seconds(from), seconds(to))).collect();
    let phones = words.first().zip(words.last()).map(|(first, last)| (first.0, last.1));
    Ok(Raw { samples, rate: spoken.rate, words, phones })
}

fn flite(voice: &Voice, text: &str, stem: &Path) -> Result<Raw> {
    let wav = stem.with_extension("wav");
    let said = capture(Command::new("flite").args(["-voice", voice.id, "-psdur", "-t", text, "-o"]).arg(&wav))?;
    let phones = flite_phones(&said)?;
    let (samples, rate) = sound::read_wav(&wav)?;
    Ok(Raw { samples, rate, words: Vec::new(), phones: Some(phones) })
}

/// From the first to the last sounding phone of `flite -psdur`: `pau:0.184 dh:0.236 ...`, each with its end.
fn flite_phones(said: &str) -> Result<(f64, f64)> {
    let mut lines = said.lines().filter(|line| !line.trim().is_empty());
    let (Some(line), None) = (lines.next(), lines.next()) else { bail!("flite did not print one utterance") };
    let phones: Vec<(&str, f64)> = line
        .split_whitespace()
        .map(|phone| {
            let (name, end) = phone.split_once(':').with_context(|| format!("not a phone: {phone}"))?;
            Ok((name, end.parse()?))
        })
        .collect::<Result<_>>()?;
    sounding(&phones).context("flite said nothing")
}

/// From the start of the first phone that is not a pause to the end of the last one.
fn sounding(phones: &[(&str, f64)]) -> Option<(f64, f64)> {
    let first = phones.iter().position(|(name, _)| *name != "pau")?;
    let last = phones.iter().rposition(|(name, _)| *name != "pau")?;
    let start = if first == 0 { 0.0 } else { phones[first - 1].1 };
    Some((start, phones[last].1))
}

fn festival(voice: &Voice, text: &str, stem: &Path) -> Result<Raw> {
    let [script, wav, words, phones] = ["scm", "wav", "words", "segs"].map(|suffix| stem.with_extension(suffix));
    ensure!(!text.contains(['"', '\\']), "festival is given no quotes");
    let program = format!(
        "(voice_{})\n(set! said (SynthText \"{text}\"))\n(utt.save.wave said {wav:?})\n(utt.save.words said {words:?})\n\
         (utt.save.segs said {phones:?})\n",
        voice.id
    );
    std::fs::write(&script, program)?;
    run(Command::new("festival").arg("-b").arg(&script))?;
    let (phones, words) = (std::fs::read_to_string(&phones)?, std::fs::read_to_string(&words)?);
    let phones = festival_labels(&phones)?;
    let words = festival_words(&festival_labels(&words)?, &phones);
    let (samples, rate) = sound::read_wav(&wav)?;
    Ok(Raw { samples, rate, words, phones: sounding(&phones) })
}

/// Labels in Festival's form: after a line `#`, each line is `end colour name`.
fn festival_labels(file: &str) -> Result<Vec<(&str, f64)>> {
    file.lines()
        .skip_while(|line| line.trim() != "#")
        .skip(1)
        .filter(|line| !line.trim().is_empty())
        .map(|line| {
            let mut fields = line.split_whitespace();
            let (Some(end), Some(_), Some(name)) = (fields.next(), fields.next(), fields.next()) else {
                bail!("not a label: {line}");
            };
            Ok((name, end.parse()?))
        })
        .collect()
}

/// A word starts where the word before it ends, or after the pause between them.
fn festival_words(words: &[(&str, f64)], phones: &[(&str, f64)]) -> Vec<(f64, f64)> {
    let mut before = 0.0;
    words
        .iter()
        .map(|(_, end)| {
            let paused = phones.iter().filter(|(name, at)| *name == "pau" && (before..*end).contains(at));
            let start = paused.map(|(_, at)| *at).fold(before, f64::max);
            before = *end;
            (start, *end)
        })
        .collect()
}

/// Resamples, normalises, marks the speech and trims the silence around it.
fn finish(raw: Raw, text: &str) -> Result<Clip> {
    let Raw { samples, rate, mut words, phones } = raw;
    let mut samples = sound::resample(&samples, rate, RATE);
    // A clip of silence before the fade would be measured against its own noise.
    let (start, end) = sound::speech_span(&samples, RATE, SPEECH_WITHIN_DB).context("silence")?;
    if let Some((from, to)) = phones {
        let [starts, ends] = [start, end].map(|mark| mark as f64 / f64::from(RATE));
        ensure!(
            (starts - from).abs() < START_WITHIN && ends > to - END_BEFORE && ends < to + END_AFTER,
            "it sounds from {starts:.3} to {ends:.3} s, its phones go from {from:.3} to {to:.3} s"
        );
    }
    if words.len() != text.split_whitespace().count() {
        words.clear();
    }
    tighten(&mut words, &samples);
    let cut_from = start.saturating_sub(LEAD);
    let cut_to = (end + TAIL).min(samples.len());
    samples.truncate(cut_to);
    samples.drain(..cut_from);
    sound::fade(&mut samples, RAMP);
    sound::scale(&mut samples, 0.5);
    let (start, end) = (start - cut_from, end - cut_from);
    let sample =
        |seconds: f64| ((seconds * f64::from(RATE)).round() as usize).saturating_sub(cut_from).clamp(start, end);
    let mut words: Vec<_> = words.into_iter().map(|(from, to)| (sample(from), sample(to))).collect();
    if let Some(first) = words.first_mut() {
        first.0 = start;
    }
    if let Some(last) = words.last_mut() {
        last.1 = end;
    }
    ensure!(words.iter().all(|(from, to)| from < to), "a word takes no time");
    Ok(Clip { samples, start, end, words })
}

/// Where the synthesizer tells of a pause between two words, the level tells where it begins and ends.
fn tighten(words: &mut [(f64, f64)], samples: &[f32]) {
    let (levels, window) = sound::levels(samples, RATE);
    let floor = levels.iter().copied().fold(0.0, f64::max) * 10f64.powf(-SPEECH_WITHIN_DB / 20.0);
    let seconds = window as f64 / f64::from(RATE);
    for n in 1..words.len() {
        let (before, after) = (words[n - 1], words[n]);
        if before.1 >= after.0 {
            continue;
        }
        // The pause may begin within the word before it and end within the word after it.
        let range = |from: f64, to: f64| (from / seconds) as usize..((to / seconds) as usize).min(levels.len());
        let looked_at = range((before.0 + before.1) / 2.0, (after.0 + after.1) / 2.0);
        let offset = looked_at.start;
        let Some(around) = levels.get(looked_at) else { continue };
        let quiet = around.chunk_by(|a, b| (*a <= floor) == (*b <= floor)).scan(offset, |at, run| {
            let from = *at;
            *at += run.len();
            Some((run[0] <= floor, from, *at))
        });
        let longest =
            quiet.filter(|(quiet, from, to)| *quiet && to - from >= PAUSE_WINDOWS).max_by_key(|run| run.2 - run.1);
        if let Some((_, from, to)) = longest {
            words[n - 1].1 = from as f64 * seconds;
            words[n].0 = to as f64 * seconds;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flite_prints_the_end_of_each_phone() {
        let said = "pau:0.184 dh:0.236 ax:0.270 pau:0.400 k:0.502 pau:0.610 \n";
        assert_eq!(flite_phones(said).unwrap(), (0.184, 0.502));
        assert!(flite_phones("pau:0.1\npau:0.2").is_err());
        assert!(flite_phones("pau 0.1").is_err());
    }

    #[test]
    fn festival_words_start_after_pauses() {
        let phones =
            festival_labels("#\n0.20 100 pau\n0.30 100 hh\n0.40 100 iy\n0.60 100 pau\n0.80 100 t\n0.90 100 pau\n")
                .unwrap();
        let words = festival_labels("separator ;\n#\n0.4000 100 He\n0.8000 100 told\n").unwrap();
        assert_eq!(festival_words(&words, &phones), [(0.20, 0.40), (0.60, 0.80)]);
        assert_eq!(sounding(&phones), Some((0.20, 0.80)));
        assert!(festival_labels("#\n0.4\n").is_err());
    }

    #[test]
    fn a_finished_clip_is_trimmed_and_its_marks_move_along() {
        let mut samples = vec![0.0; 32_000];
        for (n, sample) in samples[8000..16_000].iter_mut().enumerate() {
            *sample = 0.2 * (n as f32 * 0.2).sin();
        }
        let raw = Raw { samples, rate: RATE, words: vec![(0.49, 0.75), (0.75, 1.02)], phones: Some((0.49, 1.02)) };
        let clip = finish(raw, "two words").unwrap();
        assert_eq!((clip.start, clip.end), (LEAD, LEAD + 8000));
        assert_eq!(clip.words, [(LEAD, LEAD + 4000), (LEAD + 4000, LEAD + 8000)]);
        assert_eq!(clip.samples.len(), LEAD + 8000 + TAIL);
        assert!((sound::peak(&clip.samples) - 0.5).abs() < 1e-6);
    }

    #[test]
    fn a_pause_between_words_is_where_it_is_quiet() {
        let mut samples = vec![0.5; 16_000];
        samples[6400..9600].fill(0.0);
        let mut words = [(0.0, 0.55), (0.58, 1.0)];
        tighten(&mut words, &samples);
        assert_eq!(words, [(0.0, 0.4), (0.6, 1.0)]);
        let mut touching = [(0.0, 0.55), (0.55, 1.0)];
        tighten(&mut touching, &samples);
        assert_eq!(touching, [(0.0, 0.55), (0.55, 1.0)]);
    }

    #[test]
    fn phones_that_disagree_with_the_level_are_refused() {
        let raw = Raw { samples: vec![0.5; 16_000], rate: RATE, words: Vec::new(), phones: Some((0.0, 0.5)) };
        assert!(finish(raw, "x").is_err());
    }
}
