//! Cuts a final into its sentences: joined by single spaces they are the final's text again.

use uuid::Uuid;

use crate::{
    StreamTime,
    event::{Final, SpokenWord},
};

/// One sentence of a final.
#[derive(Debug, Clone, Copy)]
pub struct Sentence<'a> {
    pub id: Uuid,
    pub text: &'a str,
    pub start: StreamTime,
    pub end: StreamTime,
    pub words: &'a [SpokenWord],
}

/// Words that end with a full stop and seldom end a sentence.
const ABBREVIATIONS: [&str; 14] =
    ["mr.", "mrs.", "ms.", "dr.", "st.", "vs.", "prof.", "jr.", "sr.", "e.g.", "i.e.", "a.m.", "p.m.", "no."];

/// A word after which a sentence ends.
fn ends(word: &str) -> bool {
    let bare = word.trim_end_matches(['"', '\'', ')', '”', '’']);
    if bare.ends_with(['?', '!', '…']) {
        return true;
    }
    let Some(before) = bare.strip_suffix('.') else { return false };
    let initial = before.chars().count() == 1 && before.chars().all(char::is_uppercase) && before != "I";
    let abbreviation = ABBREVIATIONS.contains(&bare.to_lowercase().as_str());
    !before.is_empty() && !initial && !abbreviation
}

/// The sentences of `spoken`, never none.
pub fn sentences(spoken: &Final) -> Vec<Sentence<'_>> {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::{ParticipantId, StreamId, Timestamp, UtteranceId, event::Participant};

    /// Each word lasts a millisecond.
    fn spoken(text: &str) -> Final {
        let stream = StreamId(Uuid::from_u128(1));
        let words: Vec<_> = text.split(' ').collect();
        let at = |index: usize| StreamTime(1_000 * index as u64);
        let word = |(index, text): (usize, &&str)| SpokenWord {
            text: (*text).to_owned(),
            start: at(index),
            end: at(index + 1),
            confidence: 1.0,
        };
        Final {
            sentiment: Vec::new(),
            trace: None,
            stream,
            utterance: UtteranceId::after_cut(stream, at(0)),
            participant: Arc::new(Participant {
                id: ParticipantId(Uuid::from_u128(1)),
                user_id: None,
                name: None,
                email: None,
            }),
            origin: Timestamp(1_000_000),
            start: at(0),
            end: at(words.len()),
            text: text.to_owned(),
            language: "en-US".to_owned(),
            confidence: 0.5,
            words: words.iter().enumerate().map(word).collect(),
        }
    }

    fn check(text: &str, expected: &[&str]) {
        let spoken = spoken(text);
        let found = sentences(&spoken);
        assert_eq!(found.iter().map(|sentence| sentence.text).collect::<Vec<_>>(), expected);
        let words: Vec<_> = found.iter().flat_map(|sentence| sentence.words).map(|word| &word.text).collect();
        assert_eq!(words, spoken.words.iter().map(|word| &word.text).collect::<Vec<_>>());
    }

    #[test]
    fn sentences_end_where_a_reader_would_end_them() {
        check("Hello there.", &["Hello there."]);
        check("Is it? Yes! \"Good.\" Fine.", &["Is it?", "Yes!", "\"Good.\"", "Fine."]);
        check("Dr. Smith paid 3.5 to J. Doe at 5 p.m. today.", &["Dr. Smith paid 3.5 to J. Doe at 5 p.m. today."]);
        check("So do I. And you", &["So do I.", "And you"]);
        check("no stop at all", &["no stop at all"]);
    }

    proptest! {
        #[test]
        fn sentences_join_to_the_text_and_share_no_word(text in "[A-Za-z.?!' é]{1,60}") {
            let text = text.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
            prop_assume!(!text.is_empty());
            let spoken = spoken(&text);
            let found = sentences(&spoken);
            let joined = found.iter().map(|sentence| sentence.text).collect::<Vec<_>>().join(" ");
            prop_assert_eq!(joined, text);
            let words: usize = found.iter().map(|sentence| sentence.words.len()).sum();
            prop_assert_eq!(words, spoken.words.len());
            prop_assert!(found.windows(2).all(|pair| pair[0].end <= pair[1].start && pair[0].id != pair[1].id));
        }
    }
}
