//! What keeps the model from saying too little, too much, or the same thing for ever.

use std::ops::Range;

use crate::engine::{ENGINE_RATE, Kind, VAD_FRAME};

/// Voice activity from which a frame counts as speech: where a pause begins.
pub(in crate::engine) const VOICED: f32 = 0.35;

/// How many tokens a stretch of speech may and must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct Bounds {
    pub least: usize,
    pub most: usize,
}

impl Bounds {
    /// Finals were seen with 3.3 to 6.1 tokens per second of speech, in short ones up to 20 because voice activity takes
    /// time to rise.
    pub(in crate::engine) fn of(voice: &[f32], kind: Kind) -> Self {
        let voiced = voice.iter().filter(|it| **it >= VOICED).count() as f32 * (VAD_FRAME as f32 / ENGINE_RATE as f32);
        let most = match kind {
            Kind::Final => (6.5 * (voiced + 0.6)).max(4.0) + 3.0,
            Kind::Partial => 5.0 * (voiced + 0.6) + 3.0,
        };
        Self { least: (voiced - 0.3).max(0.0) as usize, most: most as usize }
    }
}

/// How often a block of words may stand in a row: words of a run of copies that are too many, if there is one.
///
/// A partial never shows three copies of anything. In a final one word may be said up to four times ("no, no, no, no"); what
/// is longer, at most twice. More is a loop of the model's.
pub(in crate::engine) fn too_many_copies(words: &[String], kind: Kind) -> Option<Range<usize>> {
    for length in 1..=words.len() / 3 {
        let allowed = allowed_copies(length, kind);
        let mut copies_from = 0;
        // Words equal to the one a block before them, in a row.
        let mut same = 0;
        for at in length..words.len() {
            if words[at] == words[at - length] {
                if same == 0 {
                    copies_from = at - length;
                }
                same += 1;
                if same == length * allowed {
                    return Some(copies_from + length * allowed..at + 1);
                }
            } else {
                same = 0;
            }
        }
    }
    None
}

fn allowed_copies(block: usize, kind: Kind) -> usize {
    match kind {
        Kind::Final if block == 1 => 4,
        Kind::Final | Kind::Partial => 2,
    }
}

/// A word without case and punctuation: what is compared.
pub(in crate::engine) fn bare(word: &str) -> String {
    let bare: String = word.chars().filter(|it| it.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    if bare.is_empty() { word.to_owned() } else { bare }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(kind: Kind, text: &str, expected: Option<&str>) {
        let words: Vec<String> = text.split(' ').map(bare).collect();
        let found = too_many_copies(&words, kind).map(|it| words[it].join(" "));
        assert_eq!(found.as_deref(), expected, "{text}");
    }

    #[test]
    fn partials_never_say_anything_three_times() {
        check(Kind::Partial, "no no", None);
        check(Kind::Partial, "No, no, no", Some("no"));
        check(Kind::Partial, "the age of the age of wisdom", None);
        check(Kind::Partial, "it was the age of it was the age of it was the age of", Some("it was the age of"));
        check(Kind::Partial, "so a b c a b c a b d", None);
        check(Kind::Partial, "so a b c a b c a b c d", Some("a b c"));
        check(Kind::Partial, "a a b a a b a a b", Some("a a b"));
    }

    #[test]
    fn finals_may_repeat_one_word_up_to_four_times() {
        check(Kind::Final, "no no no no", None);
        check(Kind::Final, "no no no no no", Some("no"));
        check(Kind::Final, "I know I know", None);
        check(Kind::Final, "I know I know I know", Some("i know"));
    }

    #[test]
    fn more_speech_allows_more_tokens() {
        let frames = |count: usize| vec![0.9; count];
        assert_eq!(Bounds::of(&[], Kind::Final), Bounds { least: 0, most: 7 });
        assert_eq!(Bounds::of(&frames(100), Kind::Final), Bounds { least: 2, most: 27 });
        assert_eq!(Bounds::of(&frames(100), Kind::Partial), Bounds { least: 2, most: 22 });
        assert_eq!(Bounds::of(&[0.1; 100], Kind::Partial), Bounds { least: 0, most: 6 });
    }
}
