//! What the set consists of. `manifest.json` is written last: a folder with one is whole.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// SHA-256 over everything the set is made from: texts, marks, scripts, pins. Another value, another set.
    pub recipe: String,
    /// The tools that made it, with their versions.
    pub tools: Vec<String>,
    pub items: Vec<Item>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// Relative to the folder of the manifest; 16-bit mono WAV.
    pub file: String,
    pub kind: Kind,
    pub sample_rate: u32,
    pub encoding: Encoding,
    pub duration_ms: u64,
    pub bytes: u64,
    pub sha256: String,
    /// Who speaks; for a mixed meeting all of them, joined with " + ".
    pub voice: String,
    pub source: String,
    pub licence: String,
    /// How the marks were found.
    pub marks: String,
    /// Items of one timeline start together: the streams of a meeting and its mix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<String>,
    /// The item this one was derived from, with the same marks; such an item is not counted twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub derived_from: Option<String>,
    /// All utterances in order of their start, joined with a space.
    pub transcript: String,
    pub utterances: Vec<Utterance>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A synthetic voice reads lines, with 0.6 to 1.5 s between them.
    Read,
    /// A person, from a recording inside a package.
    Recording,
    /// One voice, ten minutes.
    Talk,
    /// One participant's stream, mostly silent, or the mix of all four.
    Meeting,
    /// 8 kHz.
    Narrowband,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    Linear16,
    /// Went through 8-bit mu-law and back: encoding it again is without loss.
    Mulaw,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Utterance {
    pub speaker: String,
    pub text: String,
    /// Start of speech, in µs of the file.
    pub start_us: u64,
    /// The exact end of speech, in µs of the file.
    pub end_us: u64,
    /// Empty when the voice does not tell them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<Word>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Word {
    pub text: String,
    pub start_us: u64,
    pub end_us: u64,
}

impl Item {
    pub fn path(&self, folder: &Path) -> PathBuf {
        folder.join(&self.file)
    }
}

/// The set in the cache folder; says how to make it when there is none.
pub fn load() -> Result<Manifest> {
    load_from(&super::folder()?)
}

pub fn load_from(folder: &Path) -> Result<Manifest> {
    let path = folder.join("manifest.json");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("no speech set at {}: run `cargo xtask speech-set`", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is of another version", path.display()))
}
