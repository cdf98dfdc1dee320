//! An extractive summary: the few sentences that say most of what a conversation keeps coming back to.
//!
//! A word that carries meaning weighs what it was said, once it was said twice. Sentences are taken one after the other, each
//! time the one whose words weigh most for its length; words that were taken weigh little from then on, so the next sentence
//! is about something else. Pure, the same for the same words, in any language and script.

use std::collections::HashMap;

use crate::Record;

/// Words that a summary has at most, unless another number is asked for.
pub const SUMMARY_WORDS: usize = 120;
/// Sentences that are looked at; of more, every second, third and so on.
const MAX_SENTENCES: usize = 30_000;
/// Bytes of a sentence that are read.
const MAX_BYTES: usize = 2_000;
/// Words of a sentence that may be taken, where there is one.
const LENGTH: std::ops::RangeInclusive<usize> = 6..=40;
/// Words that carry meaning, in it.
const MEANT: usize = 3;
/// What remains of a word's weight each time that it is taken.
const TAKEN: f64 = 0.3;
/// How much a sentence's length tells against it.
const LENGTH_POWER: f64 = 0.5;
/// Of a question: what was asked says less than what was answered.
const ASKED: f64 = 0.8;
/// Of a sentence in which a task or a date was found.
const NOTED: f64 = 1.0;
/// Words said in more than this share of sentences tell nothing, in whatever language: one in so many.
const COMMON: usize = 8;
/// From how many sentences on that can be told.
const ENOUGH: usize = 60;

/// A sentence of a conversation.
#[derive(Debug, Clone, Copy)]
pub struct Said<'a> {
    pub text: &'a str,
    /// Whether something was inferred from it that is worth telling: a task, a follow-up.
    pub noted: bool,
}

/// The messages of a record that summarise it, by their places, in the order in which they were said.
pub fn summary(record: &Record, words: usize) -> Vec<usize> {
    let noted: std::collections::HashSet<_> = record
        .insights
        .iter()
        .filter(|it| matches!(it.kind.as_str(), "action_item" | "follow_up"))
        .flat_map(|it| it.evidence.iter().map(|it| it.0))
        .collect();
    let said: Vec<_> =
        record.messages.iter().map(|it| Said { text: &it.text, noted: noted.contains(&it.id) }).collect();
    choose(&said, words)
}

/// The places of the sentences that summarise all of them in at most `budget` words, ascending.
pub fn choose(sentences: &[Said<'_>], budget: usize) -> Vec<usize> {
    let step = sentences.len().div_ceil(MAX_SENTENCES).max(1);
    let mut terms = Terms::default();
    let read: Vec<_> = sentences.iter().enumerate().step_by(step).map(|(at, it)| terms.read(at, it)).collect();
    let weights = terms.weights(read.len());
    let fits = |it: &&Read| !it.cut && it.words > 0 && it.words <= budget;
    let usual = |it: &&Read| LENGTH.contains(&it.words) && it.terms.len() >= MEANT;
    let mut candidates: Vec<&Read> = read.iter().filter(fits).filter(usual).collect();
    if candidates.is_empty() {
        // So little was said, or in a language whose words are longer than ours.
        candidates = read.iter().filter(fits).collect();
    }
    let mut chosen = greedy(candidates, weights, budget);
    chosen.sort_unstable();
    chosen
}

fn greedy(mut candidates: Vec<&Read>, mut weights: Vec<f64>, budget: usize) -> Vec<usize> {
    let mut chosen = Vec::new();
    let mut left = budget;
    while left > 0 {
        candidates.retain(|it| it.words <= left);
        let worth = |it: &Read| {
            let sum: f64 = it.terms.iter().map(|&term| weights[term]).sum();
            it.factor * sum / (it.words as f64).powf(LENGTH_POWER)
        };
        // The first of equals.
        let best = candidates.iter().map(|it| worth(it)).enumerate().reduce(|a, b| if b.1 > a.1 { b } else { a });
        let Some((at, worth)) = best else { break };
        if worth <= 0.0 {
            break;
        }
        let taken = candidates.swap_remove(at);
        left -= taken.words;
        chosen.push(taken.at);
        for &term in &taken.terms {
            weights[term] *= TAKEN;
        }
    }
    chosen
}

struct Read {
    at: usize,
    words: usize,
    /// Each once.
    terms: Vec<usize>,
    factor: f64,
    /// There is more of it than was read.
    cut: bool,
}

/// Words that carry meaning, numbered in the order they come.
#[derive(Default)]
struct Terms {
    known: HashMap<String, usize>,
    /// How often each was said, and in how many sentences.
    said: Vec<(usize, usize)>,
}

impl Terms {
    fn read(&mut self, at: usize, said: &Said<'_>) -> Read {
        let text = &said.text[..said.text.floor_char_boundary(MAX_BYTES)];
        let mut words = 0;
        let mut terms = Vec::new();
        each_word(text, |word| {
            words += 1;
            if !carries_meaning(word) {
                return;
            }
            let term = *self.known.entry(word.to_owned()).or_insert_with(|| {
                self.said.push((0, 0));
                self.said.len() - 1
            });
            self.said[term].0 += 1;
            terms.push(term);
        });
        terms.sort_unstable();
        terms.dedup();
        for &term in &terms {
            self.said[term].1 += 1;
        }
        let asked = said.text.trim_end().ends_with(['?', '？', '؟']);
        let factor = if asked { ASKED } else { 1.0 } * if said.noted { NOTED } else { 1.0 };
        Read { at, words, terms, factor, cut: text.len() < said.text.len() }
    }

    fn weights(&self, sentences: usize) -> Vec<f64> {
        let common = |within: usize| sentences >= ENOUGH && within * COMMON > sentences;
        let weight = |from: usize| {
            move |&(times, within): &(usize, usize)| if times < from || common(within) { 0.0 } else { times as f64 }
        };
        let repeated: Vec<f64> = self.said.iter().map(weight(2)).collect();
        if repeated.iter().any(|it| *it > 0.0) { repeated } else { self.said.iter().map(weight(1)).collect() }
    }
}

/// Runs of letters and digits in lower case; of scripts that write no spaces, each two characters that follow one another.
fn each_word(text: &str, mut word: impl FnMut(&str)) {
    let mut run = String::new();
    let mut before: Option<char> = None;
    let mut alone = false;
    for it in text.chars().chain([' ']) {
        let dense = is_dense(it);
        if let Some(first) = before.take() {
            if dense {
                word(&String::from_iter([first, it]));
                alone = false;
            } else if alone {
                word(first.encode_utf8(&mut [0; 4]));
            }
        } else if dense {
            alone = true;
        }
        if dense {
            before = Some(it);
        }
        if !dense && (it.is_alphanumeric() || (!run.is_empty() && matches!(it, '\'' | '’'))) {
            if it == '’' { run.push('\'') } else { run.extend(it.to_lowercase()) }
        } else if !run.is_empty() {
            word(run.trim_end_matches('\''));
            run.clear();
        }
    }
}

/// Of a script whose words stand without spaces between them.
fn is_dense(it: char) -> bool {
    matches!(it,
        '\u{0e00}'..='\u{0eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{3040}'..='\u{30ff}'
        | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
        && it.is_alphanumeric()
}

fn carries_meaning(word: &str) -> bool {
    let short = word.chars().nth(2).is_none() && word.is_ascii();
    let plain = word.split('\'').next().unwrap_or_default();
    !short && EMPTY.binary_search(&word).is_err() && EMPTY.binary_search(&plain).is_err()
}

/// English words of more than two letters that carry no meaning by themselves, sorted; of other languages they are told by how
/// often they are said.
#[rustfmt::skip]
const EMPTY: &[&str] = &[
    "about", "actually", "after", "again", "ahead", "all", "almost", "alright", "also", "although", "always", "and", "any", "anything",
    "anyway", "are", "aren", "around", "ask", "away", "back", "basically", "because", "been", "before", "being", "bit", "both", "but",
    "came", "can", "come", "comes", "coming", "could", "couldn", "course", "did", "didn", "different", "does", "doesn", "doing", "don", "done",
    "down", "each", "either", "else", "even", "ever", "every", "everything", "exactly", "few", "fine", "first", "for", "from", "get",
    "gets", "getting", "give", "goes", "going", "gonna", "good", "got", "great", "guess", "had", "has", "have", "haven", "having", "hear",
    "her", "here", "him", "his", "hmm", "how", "huh", "into", "isn", "its", "just", "kind", "know", "last", "least", "let", "like", "little", "look",
    "looking", "lot", "made", "make", "makes", "many", "may", "maybe", "mean", "might", "mmm", "more", "most", "much", "must", "need",
    "never", "next", "nice", "not", "nothing", "now", "off", "okay", "once", "one", "ones", "only", "other", "our", "out", "over", "own", "people",
    "point", "pretty", "probably", "put", "quite", "rather", "really", "right", "said", "same", "saw", "say", "saying", "says", "second", "see",
    "seem", "seems", "she", "should", "since", "some", "somebody", "someone", "something", "sort", "still", "stuff", "such", "sure",
    "take", "talk", "talking", "tell", "than", "thank", "thanks", "that", "the", "their", "them", "then", "there", "these", "they",
    "thing", "things", "think", "thinking", "this", "those", "though", "thought", "three", "through", "time", "together", "too",
    "try", "trying", "two", "uhm", "under", "until", "upon", "use", "used", "using", "very", "want", "wanted", "was", "wasn", "way", "well", "went",
    "were", "weren", "what", "whatever", "when", "where", "whether", "which", "while", "who", "whole", "why", "will", "with", "without",
    "won", "work", "would", "wouldn", "yeah", "yep", "yes", "yet", "you", "your",
];

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    fn chosen<'a>(texts: &[&'a str], budget: usize) -> Vec<&'a str> {
        let said: Vec<_> = texts.iter().map(|text| Said { text, noted: false }).collect();
        choose(&said, budget).into_iter().map(|at| texts[at]).collect()
    }

    fn words(text: &str) -> Vec<String> {
        let mut found = Vec::new();
        each_word(text, |word| found.push(word.to_owned()));
        found
    }

    #[test]
    fn what_comes_back_again_and_again_is_told_once() {
        let talk = [
            "Good morning, everybody, shall we begin now?",
            "The harbour crane needs a new motor before winter comes.",
            "Yeah, right, okay.",
            "The harbour crane needs that new motor before winter, I think.",
            "A motor for the harbour crane costs nine thousand euros from Hamburg.",
            "My dog was ill yesterday and ate nothing at all.",
            "The budget of the harbour has nine thousand euros left this year.",
            "So the crane and its motor are in the budget, all of it.",
        ];
        assert_eq!(chosen(&talk, 26), [talk[1], talk[4]]);
        assert_eq!(chosen(&talk, 0), [""; 0]);
    }

    #[test]
    fn of_a_few_words_the_summary_is_those_that_there_are() {
        assert_eq!(chosen(&["Ship it."], 120), ["Ship it."]);
        assert_eq!(chosen(&[], 120), [""; 0]);
        assert_eq!(chosen(&["", "…", "?"], 120), [""; 0]);
    }

    #[test]
    fn scripts_without_spaces_have_words_too() {
        assert_eq!(words("東京都 é. Don’t' stop 猫x"), ["東京", "京都", "é", "don't", "stop", "猫", "x"]);
        let talk = ["今日は会議で新しい橋の予算を決めます", "はい", "橋の予算は九億円です", "犬が好きだ"];
        assert_eq!(chosen(&talk, 10), [talk[2]]);
    }

    #[test]
    fn the_empty_words_are_in_order() {
        assert!(EMPTY.is_sorted(), "they are searched by halves");
    }

    #[test]
    fn a_flood_is_read_in_bounded_time() {
        let long = "a'".repeat(10_000_000);
        let many: Vec<String> =
            (0..200_000).map(|n| format!("number{n} of the very many things that word{} is", n % 977)).collect();
        let mut texts: Vec<&str> = many.iter().map(String::as_str).collect();
        texts[0] = &long;
        let begun = Instant::now();
        let found = chosen(&texts, SUMMARY_WORDS);
        assert!(!found.is_empty() && found.iter().all(|it| it.len() < 100));
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    }

    proptest! {
        #[test]
        fn any_text_is_survived(texts in prop::collection::vec("\\PC{0,80}|[a-d ]{0,60}|(?s).{0,20}", 0..40), budget in 0usize..200) {
            let said: Vec<_> = texts.iter().map(|text| Said { text, noted: text.len() % 2 == 0 }).collect();
            let found = choose(&said, budget);
            prop_assert!(found.is_sorted() && found.windows(2).all(|it| it[0] != it[1]));
            let total: usize = found.iter().map(|&at| words(&texts[at]).len()).sum();
            prop_assert!(total <= budget, "{} words", total);
            prop_assert_eq!(found, choose(&said, budget));
        }
    }
}
