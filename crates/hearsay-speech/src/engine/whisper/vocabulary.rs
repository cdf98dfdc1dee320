//! Whisper's tokens: bytes of text, and marks that steer it.

use std::{collections::HashMap, path::Path};

use crate::engine::{
    EngineError,
    tokenizer::{FIRST_TEXT, Tokenizer},
};

/// Marks by name, the languages among them, and the tokens that are text.
pub(super) struct Vocabulary {
    /// Its tokens are Whisper's behind as many as [`FIRST_TEXT`] says.
    pub(super) tokenizer: Tokenizer,
    marks: HashMap<String, u32>,
    /// Tokens that describe sounds or set notes instead of saying words.
    pub(super) not_spoken: Vec<bool>,
    pub(super) end: u32,
}

/// Whisper's place of a token in [`Vocabulary::tokenizer`].
pub(super) const fn shifted(token: u32) -> u32 {
    token + FIRST_TEXT
}

impl Vocabulary {
    /// Reads one token a line, its bytes as letters.
    pub(super) fn load(path: &Path) -> Result<Self, EngineError> {
        let failed = |reason: String| EngineError::Load { path: path.to_owned(), reason };
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        Self::parse(&text).map_err(failed)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let bytes = letters();
        let mut marks = HashMap::new();
        let mut tokens: Vec<Box<[u8]>> = vec![Box::default(); FIRST_TEXT as usize];
        let mut not_spoken = Vec::new();
        for (token, line) in text.split_terminator('\n').enumerate() {
            let mark = line.strip_prefix("<|").and_then(|rest| rest.strip_suffix("|>"));
            if let Some(mark) = mark {
                marks.insert(mark.to_owned(), u32::try_from(token).map_err(|_| "it is too long".to_owned())?);
            }
            let of_text = if mark.is_some() {
                Vec::new()
            } else {
                line.chars().filter_map(|it| bytes.get(&it).copied()).collect()
            };
            let said = String::from_utf8_lossy(&of_text);
            let says = said.trim().chars().next().is_none_or(|first| !"[]()<>{}♪♫*#@^_|~/\\=+\"「『".contains(first));
            not_spoken.push(mark.is_some() || !says);
            tokens.push(of_text.into());
        }
        let end = *marks.get("endoftext").ok_or("it has no end")?;
        for mark in ["startoftranscript", "transcribe", "notimestamps"] {
            if !marks.contains_key(mark) {
                return Err(format!("it has no {mark:?}"));
            }
        }
        Ok(Self { tokenizer: Tokenizer::of(tokens), marks, not_spoken, end })
    }

    /// The languages it has marks for.
    pub(super) fn languages(&self) -> Vec<String> {
        let is_language = |it: &&String| (2..=3).contains(&it.len()) && it.chars().all(|c| c.is_ascii_lowercase());
        let mut languages: Vec<_> = self.marks.keys().filter(is_language).cloned().collect();
        languages.sort_by_key(|it| self.marks[it]);
        languages
    }

    /// What stands before the words of a language.
    pub(super) fn prompt(&self, language: &str) -> Option<[u32; 4]> {
        let mark = |name: &str| self.marks.get(name).copied();
        let language = mark(&language.to_ascii_lowercase())?;
        Some([mark("startoftranscript")?, language, mark("transcribe")?, mark("notimestamps")?])
    }
}

/// Which byte each letter stands for: printable ones for themselves, the others in order from U+0100 on.
fn letters() -> HashMap<char, u8> {
    let plain = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let others = (0..=255u8).filter(|byte| !plain(byte)).zip('\u{100}'..).map(|(byte, letter)| (letter, byte));
    (0..=255u8).filter(plain).map(|byte| (char::from(byte), byte)).chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_bytes_and_marks_are_not_text() {
        let text = "!\n\u{120}caf\n\u{c3}\u{a9}\n\u{120}[\n<|endoftext|>\n<|startoftranscript|>\n<|en|>\n<|haw|>\n\
                    <|transcribe|>\n<|notimestamps|>\n<|nospeech|>\n";
        let it = Vocabulary::parse(text).unwrap();
        assert_eq!(it.languages(), ["en", "haw"]);
        assert_eq!(it.prompt("EN"), Some([5, 6, 8, 9]));
        assert_eq!(it.prompt("de"), None);
        assert_eq!(it.end, 4);
        assert_eq!(it.not_spoken[..5], [false, false, false, true, true]);
        let said: Vec<_> = it.tokenizer.words(&[1, 2, 0].map(shifted)).into_iter().map(|it| it.text).collect();
        assert_eq!(said, ["caf\u{e9}!"]);
        assert_eq!(Vocabulary::parse("a\n").err().unwrap(), "it has no end");
    }
}
