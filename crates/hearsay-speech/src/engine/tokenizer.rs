//! Tokens to text, and which tokens make which word.

use std::{ops::Range, path::Path};

use super::EngineError;

/// What stands for a space.
const SPACE: &str = "\u{2581}";

/// The byte sequences that tokens stand for.
#[derive(Debug, Clone)]
pub(crate) struct Tokenizer {
    tokens: Vec<Box<[u8]>>,
}

/// A word of the text, with its punctuation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub text: String,
    /// The tokens it is made of, as places in the sequence. A token may belong to two words.
    pub tokens: Range<usize>,
}

impl Tokenizer {
    /// Reads `tokenizer.bin`: each entry a length and its bytes; lengths from 128 have a second byte.
    pub(crate) fn load(path: &Path) -> Result<Self, EngineError> {
        let failed = |reason: String| EngineError::Load { path: path.to_owned(), reason };
        let file = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
        Self::parse(&file).ok_or_else(|| failed("it is not a list of tokens with their lengths".into()))
    }

    pub(super) fn parse(mut file: &[u8]) -> Option<Self> {
        let mut tokens = Vec::new();
        while let Some((&first, rest)) = file.split_first() {
            let (length, rest) = if first < 128 {
                (usize::from(first), rest)
            } else {
                let (&second, rest) = rest.split_first()?;
                (usize::from(second) * 128 + usize::from(first) - 128, rest)
            };
            let (token, rest) = rest.split_at_checked(length)?;
            tokens.push(String::from_utf8(token.to_vec()).map_or_else(
                |error| error.into_bytes().into(),
                |text| text.replace(SPACE, " ").into_bytes().into_boxed_slice(),
            ));
            file = rest;
        }
        (tokens.len() > FIRST_TEXT as usize).then_some(Self { tokens })
    }

    /// Of what each token stands for, in order.
    pub(super) fn of(tokens: Vec<Box<[u8]>>) -> Self {
        Self { tokens }
    }

    /// Tokens that stand for text: below this, and not [`FIRST_TEXT`]'s predecessors.
    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// The words these tokens say. What is not text is skipped, and so is what is not whole at the end.
    pub(crate) fn words(&self, tokens: &[u32]) -> Vec<Piece> {
        let mut words: Vec<Piece> = Vec::new();
        let mut bytes: Vec<u8> = Vec::new();
        let mut range = 0..0;
        let mut close = |bytes: &mut Vec<u8>, range: &Range<usize>| {
            // A character may be cut off, or never have been one.
            let mut text: String = String::from_utf8_lossy(bytes).chars().filter(|it| *it != '\u{fffd}').collect();
            while text.contains(",,") {
                text = text.replace(",,", ",");
            }
            bytes.clear();
            if !text.is_empty() {
                words.push(Piece { text, tokens: range.clone() });
            }
        };
        for (index, token) in tokens.iter().enumerate().filter(|it| *it.1 >= FIRST_TEXT) {
            for byte in self.tokens.get(*token as usize).into_iter().flatten() {
                if byte.is_ascii_whitespace() || byte.is_ascii_control() {
                    close(&mut bytes, &range);
                } else {
                    if bytes.is_empty() {
                        range.start = index;
                    }
                    range.end = index + 1;
                    bytes.push(*byte);
                }
            }
        }
        close(&mut bytes, &range);
        words
    }

    /// Whether this token ends the word before it.
    pub(crate) fn begins_word(&self, token: u32) -> bool {
        self.tokens.get(token as usize).and_then(|it| it.first()).is_some_and(u8::is_ascii_whitespace)
    }
}

/// Before it: unknown, start, end.
pub(crate) const FIRST_TEXT: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn tokenizer(tokens: &[&[u8]]) -> Tokenizer {
        let mut file = Vec::new();
        for token in [&b"<unk>"[..], b"<s>", b"</s>"].iter().chain(tokens) {
            if token.len() >= 128 {
                file.extend([(token.len() % 128 + 128) as u8, (token.len() / 128) as u8]);
            } else {
                file.push(token.len() as u8);
            }
            file.extend_from_slice(token);
        }
        Tokenizer::parse(&file).unwrap()
    }

    #[test]
    fn words_are_split_at_spaces_and_know_their_tokens() {
        let it = tokenizer(&["\u{2581}Ever".as_bytes(), "\u{2581}tri".as_bytes(), b"ed", b","]);
        let words = it.words(&[1, 3, 4, 5, 6, 2]);
        let expected = [("Ever", 1..2), ("tried,", 2..5)];
        assert_eq!(words, expected.map(|(text, tokens)| Piece { text: text.into(), tokens }));
        assert!(it.begins_word(3) && !it.begins_word(5) && !it.begins_word(60_000));
    }

    #[test]
    fn a_character_may_be_spread_over_tokens_and_cut_off() {
        let it = tokenizer(&["\u{2581}caf".as_bytes(), &[0xc3], &[0xa9]]);
        let text = |tokens: &[u32]| it.words(tokens).into_iter().map(|it| it.text).collect::<Vec<_>>();
        assert_eq!(text(&[3, 4, 5]), ["café"]);
        assert_eq!(text(&[3, 4]), ["caf"]);
        assert_eq!(text(&[5]), [""; 0]);
    }

    #[test]
    fn tokens_beyond_the_list_are_skipped_and_long_ones_read() {
        let long = vec![b'x'; 300];
        let it = tokenizer(&[&long, b"\xe2\x96\x81b\xe2\x96\x81c"]);
        let words = it.words(&[32_700, 3, 4]);
        assert_eq!(words.iter().map(|it| it.text.len()).collect::<Vec<_>>(), [300, 1, 1]);
        assert_eq!(words[2].tokens, 2..3);
    }

    #[test]
    fn a_damaged_list_is_refused() {
        assert!(Tokenizer::parse(&[5, b'a']).is_none());
        assert!(Tokenizer::parse(&[]).is_none());
        assert!(Tokenizer::parse(&[200]).is_none());
    }
}
