//! Cuts a final into its sentences: joined by single spaces they are the final's text again.

use hearsay_protocol::{
    StreamTime,
    event::{Final, SpokenWord},
};
use uuid::Uuid;

/// One sentence of a final.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sentence<'a> {
    pub(crate) id: Uuid,
    pub(crate) text: &'a str,
    pub(crate) start: StreamTime,
    pub(crate) end: StreamTime,
    pub(crate) words: &'a [SpokenWord],
}

/// A word that ends a sentence.
fn ends(word: &str) -> bool {
    word.trim_end_matches(['"', '\'', ')', '”']).ends_with(['.', '?', '!'])
}

/// The sentences of `spoken`, never none.
pub(crate) fn sentences(spoken: &Final) -> Vec<Sentence<'_>> {
    let mut sentences: Vec<Sentence<'_>> = Vec::new();
    let (mut text, mut word, mut first) = (0, 0, 0);
    let mut begin = spoken.start;
    let mut at = 0;
    for piece in spoken.text.split(' ') {
        let end = at + piece.len();
        word += 1;
        let last = end == spoken.text.len();
        if last || ends(piece) {
            let words = spoken.words.get(first..word).unwrap_or_default();
            let over = if last { spoken.end } else { words.last().map_or(spoken.end, |word| word.end) };
            sentences.push(Sentence {
                id: spoken.utterance.sentence(sentences.len()),
                text: &spoken.text[text..end],
                start: words.first().map_or(begin, |word| word.start),
                end: over,
                words,
            });
            (text, first, begin) = (end + 1, word, over);
        }
        at = end + 1;
    }
    sentences
}
