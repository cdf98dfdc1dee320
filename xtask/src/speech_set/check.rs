//! Examines a set: what it holds, whether the files are what the manifest says, and whether its marks can be believed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use anyhow::Result;

use super::fetch::sha256;
use super::manifest::{Item, Kind, Manifest, Utterance};
use super::sound;

/// What issue and design ask of the set.
const MIN_MINUTES: f64 = 20.0;
const MIN_READ_MINUTES: f64 = 8.0;
const MIN_TALK_MINUTES: f64 = 10.0;
const MIN_MEETING_MINUTES: f64 = 4.0;
const MIN_VOICES: usize = 6;
const MIN_OVERLAP_SECONDS: f64 = 5.0;

/// Right after an end of speech, the level is this far below the loudest 5 ms of that utterance.
const SILENCE_BELOW_DB: f64 = 36.0;
/// A recording has a room.
const RECORDED_SILENCE_BELOW_DB: f64 = 22.0;

#[derive(Debug, Default)]
pub struct Report {
    pub rows: BTreeMap<Kind, Row>,
    /// Distinct audio: no mix, no 8 kHz copy.
    pub minutes: f64,
    pub overlap_seconds: f64,
    pub voices: BTreeSet<String>,
    pub voices_with_words: BTreeSet<String>,
    pub problems: Vec<String>,
}

#[derive(Debug, Default)]
pub struct Row {
    pub files: usize,
    pub seconds: f64,
    pub speech_seconds: f64,
    pub utterances: usize,
    pub words: usize,
    pub timed_words: usize,
    pub voices: BTreeSet<String>,
    pub rates: BTreeSet<u32>,
}

/// Reads all files.
pub fn check(manifest: &Manifest, folder: &Path) -> Result<Report> {
    let mut report = Report::default();
    for item in &manifest.items {
        count(item, &mut report);
        for problem in marks(item).into_iter().chain(content(item, folder)?) {
            report.problems.push(format!("{}: {problem}", item.file));
        }
    }
    report.minutes = distinct_minutes(manifest);
    totals(manifest, &mut report);
    Ok(report)
}

fn is_mix(item: &Item) -> bool {
    item.voice.contains(" + ")
}

fn count(item: &Item, report: &mut Report) {
    let row = report.rows.entry(item.kind).or_default();
    row.files += 1;
    row.seconds += item.duration_ms as f64 / 1000.0;
    row.rates.insert(item.sample_rate);
    if is_mix(item) {
        return;
    }
    row.utterances += item.utterances.len();
    for utterance in &item.utterances {
        row.speech_seconds += (utterance.end_us - utterance.start_us) as f64 / 1e6;
        row.words += utterance.text.split_whitespace().count();
        row.timed_words += utterance.words.len();
        if !utterance.words.is_empty() {
            report.voices_with_words.insert(item.voice.clone());
        }
    }
    row.voices.insert(item.voice.clone());
    report.voices.insert(item.voice.clone());
}

/// A timeline counts once, a derived item not at all.
fn distinct_minutes(manifest: &Manifest) -> f64 {
    let mut timelines: BTreeMap<&str, u64> = BTreeMap::new();
    let mut alone = 0;
    for item in manifest.items.iter().filter(|item| item.derived_from.is_none()) {
        match &item.timeline {
            Some(timeline) => {
                let longest = timelines.entry(timeline).or_default();
                *longest = (*longest).max(item.duration_ms);
            }
            None => alone += item.duration_ms,
        }
    }
    (alone + timelines.values().sum::<u64>()) as f64 / 60_000.0
}

fn totals(manifest: &Manifest, report: &mut Report) {
    let minutes = |kind| {
        manifest
            .items
            .iter()
            .filter(|item| item.kind == kind && !is_mix(item))
            .map(|item| item.duration_ms as f64 / 60_000.0)
            .collect::<Vec<_>>()
    };
    let read: f64 = minutes(Kind::Read).iter().sum();
    let longest = |kind| minutes(kind).into_iter().fold(0.0, f64::max);
    let mut want = |fine: bool, problem: String| {
        if !fine {
            report.problems.push(problem);
        }
    };
    want(report.minutes >= MIN_MINUTES, format!("{:.1} minutes, not {MIN_MINUTES}", report.minutes));
    want(read >= MIN_READ_MINUTES, format!("{read:.1} minutes are read, not {MIN_READ_MINUTES}"));
    want(longest(Kind::Talk) >= MIN_TALK_MINUTES, format!("the talk lasts {:.1} minutes", longest(Kind::Talk)));
    want(
        longest(Kind::Meeting) >= MIN_MEETING_MINUTES,
        format!("the meeting lasts {:.1} minutes", longest(Kind::Meeting)),
    );
    want(minutes(Kind::Meeting).len() == 4, format!("{} speakers in the meeting", minutes(Kind::Meeting).len()));
    want(report.voices.len() >= MIN_VOICES, format!("{} voices, not {MIN_VOICES}", report.voices.len()));
    want(report.voices_with_words.len() >= 2, "fewer than two voices have word times".to_owned());
    let rates: BTreeSet<u32> = manifest.items.iter().map(|item| item.sample_rate).collect();
    want(rates == BTreeSet::from([8000, 16_000]), format!("rates are {rates:?}"));
    let mix = manifest.items.iter().find(|item| item.kind == Kind::Meeting && is_mix(item));
    let overlap = mix.map_or(0.0, |mix| overlap_us(&mix.utterances) as f64 / 1e6);
    want(overlap >= MIN_OVERLAP_SECONDS, format!("only {overlap:.1} s of the meeting overlap"));
    report.overlap_seconds = overlap;
}

/// For how long at least two speak at once.
fn overlap_us(utterances: &[Utterance]) -> u64 {
    let mut edges: Vec<(u64, i32)> =
        utterances.iter().flat_map(|utterance| [(utterance.start_us, 1), (utterance.end_us, -1)]).collect();
    // Ends first, so that touching is not overlapping.
    edges.sort_unstable();
    let (mut speaking, mut since, mut total) = (0, 0, 0);
    for (at, change) in edges {
        if speaking >= 2 {
            total += at - since;
        }
        speaking += change;
        since = at;
    }
    total
}

/// What the manifest alone shows to be wrong.
fn marks(item: &Item) -> Vec<String> {
    let mut problems = Vec::new();
    let mut want = |fine: bool, problem: String| {
        if !fine {
            problems.push(problem);
        }
    };
    let length = item.duration_ms * 1000;
    let texts: Vec<&str> = item.utterances.iter().map(|utterance| utterance.text.as_str()).collect();
    want(!texts.is_empty() && texts.join(" ") == item.transcript, "the transcript is not its utterances".to_owned());
    let mut last_start = 0;
    let mut last_end: BTreeMap<&str, u64> = BTreeMap::new();
    for utterance in &item.utterances {
        let Utterance { speaker, text, start_us, end_us, words } = utterance;
        want(start_us < end_us && *end_us <= length, format!("marks outside the file: {text}"));
        want(last_start <= *start_us, format!("out of order: {text}"));
        let before = last_end.insert(speaker, *end_us).unwrap_or_default();
        want(before < *start_us, format!("{speaker} speaks twice at once: {text}"));
        last_start = *start_us;
        if words.is_empty() {
            continue;
        }
        let spoken: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
        want(spoken.join(" ") == *text, format!("other words than the text: {text}"));
        let mut at = *start_us;
        for word in words {
            want(at <= word.start_us && word.start_us < word.end_us, format!("words out of order: {text}"));
            at = word.end_us;
        }
        want(at <= *end_us, format!("words after the end: {text}"));
    }
    problems
}

/// What the samples show to be wrong.
fn content(item: &Item, folder: &Path) -> Result<Vec<String>> {
    let path = item.path(folder);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) => return Ok(vec![format!("cannot be read: {error}")]),
    };
    if sha256(&bytes) != item.sha256 {
        return Ok(vec!["is not the file the manifest describes".to_owned()]);
    }
    let (samples, rate) = sound::read_wav(&path)?;
    let mut problems = Vec::new();
    if rate != item.sample_rate || samples.len() as u64 * 1000 / u64::from(rate) != item.duration_ms {
        problems.push("rate or duration differ from the manifest".to_owned());
    }
    if sound::peak(&samples) > 0.99 {
        problems.push("clips".to_owned());
    }
    if is_mix(item) {
        // The others speak on where one ends; the speakers' own streams are examined.
        return Ok(problems);
    }
    let (levels, window) = sound::levels(&samples, rate);
    let below = if item.kind == Kind::Recording { RECORDED_SILENCE_BELOW_DB } else { SILENCE_BELOW_DB };
    for utterance in &item.utterances {
        let index = |us: u64| (us * u64::from(rate) / 1_000_000) as usize / window;
        let (from, to) = (index(utterance.start_us), index(utterance.end_us).min(levels.len()));
        let loudest = levels[from.min(to)..to].iter().copied().fold(0.0, f64::max);
        if loudest < 1e-3 {
            problems.push(format!("nothing is heard: {}", utterance.text));
            continue;
        }
        // One window is left out: the mark may lie inside it.
        let after = &levels[(to + 1).min(levels.len())..(to + 5).min(levels.len())];
        let floor = loudest * 10f64.powf(-below / 20.0);
        if after.iter().any(|level| *level > floor) {
            problems.push(format!("speech goes on after its end: {}", utterance.text));
        }
    }
    Ok(problems)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "kind         files  minutes  speech  utterances  words  timed  voices  rates")?;
        for (kind, row) in &self.rows {
            let rates: Vec<String> = row.rates.iter().map(u32::to_string).collect();
            writeln!(
                f,
                "{:<12} {:>5} {:>8.2} {:>7.2} {:>11} {:>6} {:>6} {:>7}  {}",
                format!("{kind:?}").to_lowercase(),
                row.files,
                row.seconds / 60.0,
                row.speech_seconds / 60.0,
                row.utterances,
                row.words,
                row.timed_words,
                row.voices.len(),
                rates.join(", ")
            )?;
        }
        writeln!(
            f,
            "{:.1} distinct minutes, {} voices ({} with word times), {:.1} s of the meeting overlap",
            self.minutes,
            self.voices.len(),
            self.voices_with_words.len(),
            self.overlap_seconds
        )?;
        if self.problems.is_empty() {
            return write!(f, "No problems.");
        }
        write!(f, "Problems:")?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::manifest::{Encoding, Word};
    use super::*;

    fn utterance(speaker: &str, start_us: u64, end_us: u64) -> Utterance {
        Utterance { speaker: speaker.into(), text: "one two".into(), start_us, end_us, words: Vec::new() }
    }

    fn item(utterances: Vec<Utterance>) -> Item {
        let texts: Vec<_> = utterances.iter().map(|utterance| utterance.text.clone()).collect();
        Item {
            file: "read/x.wav".into(),
            kind: Kind::Read,
            sample_rate: 16_000,
            encoding: Encoding::Linear16,
            duration_ms: 5000,
            bytes: 0,
            sha256: String::new(),
            voice: "x".into(),
            source: String::new(),
            licence: String::new(),
            marks: String::new(),
            timeline: None,
            derived_from: None,
            transcript: texts.join(" "),
            utterances,
        }
    }

    #[test]
    fn only_simultaneous_speech_overlaps() {
        let apart = [utterance("a", 0, 100), utterance("b", 100, 200)];
        assert_eq!(overlap_us(&apart), 0);
        let three = [utterance("a", 0, 100), utterance("b", 50, 300), utterance("c", 80, 120)];
        assert_eq!(overlap_us(&three), 70);
    }

    #[test]
    fn marks_must_lie_inside_and_in_order() {
        assert!(marks(&item(vec![utterance("a", 10, 20), utterance("a", 30, 40)])).is_empty());
        assert_eq!(marks(&item(vec![utterance("a", 10, 5_000_001)])).len(), 1);
        assert_eq!(marks(&item(vec![utterance("a", 10, 20), utterance("a", 15, 40)])).len(), 1);
        assert!(marks(&item(vec![utterance("a", 10, 20), utterance("b", 15, 40)])).is_empty());
    }

    #[test]
    fn words_must_be_the_text_and_in_order() {
        let word = |text: &str, start_us, end_us| Word { text: text.into(), start_us, end_us };
        let mut said = utterance("a", 10, 40);
        said.words = vec![word("one", 10, 20), word("two", 20, 40)];
        assert!(marks(&item(vec![said.clone()])).is_empty());
        said.words[1].start_us = 15;
        assert_eq!(marks(&item(vec![said.clone()])).len(), 1);
        said.words = vec![word("one", 10, 20)];
        assert_eq!(marks(&item(vec![said])).len(), 1);
    }

    #[test]
    fn copies_and_streams_of_one_timeline_are_counted_once() {
        let mut manifest = Manifest { recipe: String::new(), tools: Vec::new(), items: Vec::new() };
        for (timeline, derived_from) in [(None, None), (Some("m"), None), (Some("m"), None), (None, Some("x"))] {
            let mut item = item(vec![utterance("a", 0, 1)]);
            item.duration_ms = 60_000;
            item.timeline = timeline.map(String::from);
            item.derived_from = derived_from.map(String::from);
            manifest.items.push(item);
        }
        assert!((distinct_minutes(&manifest) - 2.0).abs() < 1e-9);
    }
}
