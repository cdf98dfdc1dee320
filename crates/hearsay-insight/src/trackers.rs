//! What trackers look for: phrases, by their words, whatever their case and whatever marks stand between them.

use std::collections::HashMap;

use crate::{
    meaning::{DIMENSIONS, Meaning, Vector, likeness, unit},
    text::{Word, words},
};

/// Words of a phrase, and phrases of a tracker; the rest is not looked for.
const LONGEST: usize = 16;
const MOST: usize = 256;

/// The vocabulary of one tracker.
#[derive(Debug, Clone, Default)]
pub struct Phrases {
    all: Vec<String>,
    /// A tree of words, its root first: a text is walked along it once, however many phrases begin alike.
    tree: Vec<Node>,
}

#[derive(Debug, Clone, Default)]
struct Node {
    next: HashMap<Box<str>, usize>,
    /// The phrase that ends here.
    phrase: Option<usize>,
}

/// A phrase that was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Match {
    /// Index into the vocabulary.
    pub phrase: usize,
    /// Bytes of the text: first and after the last.
    pub start: usize,
    pub end: usize,
}

/// A text's words, made ready to be looked through by many.
#[derive(Debug, Clone)]
pub struct Spoken<'a>(Vec<(Box<str>, Word<'a>)>);

impl<'a> Spoken<'a> {
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        Self(words(text).map(|word| (folded(word.text), word)).collect())
    }

    /// As trackers compare them.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|it| &*it.0)
    }
}

/// Plural and possessive endings are the same word: "budgets", "budget's".
fn folded(word: &str) -> Box<str> {
    let lower = word.to_lowercase();
    let bare = lower.strip_suffix("'s").or_else(|| lower.strip_suffix("’s")).unwrap_or(&lower);
    let bare = match bare.strip_suffix('s') {
        Some(stem) if stem.len() > 2 && !stem.ends_with('s') && bare.is_ascii() => stem,
        _ => bare,
    };
    bare.into()
}

impl Phrases {
    #[must_use]
    pub fn new<S: AsRef<str>>(vocabulary: &[S]) -> Self {
        let all: Vec<String> = vocabulary.iter().take(MOST).map(|it| it.as_ref().to_owned()).collect();
        let mut tree = vec![Node::default()];
        for (index, phrase) in all.iter().enumerate() {
            let words: Vec<_> = words(phrase).map(|word| folded(word.text)).take(LONGEST + 1).collect();
            if words.is_empty() || words.len() > LONGEST {
                continue;
            }
            let mut at = 0;
            for word in words {
                let free = tree.len();
                let next = *tree[at].next.entry(word).or_insert(free);
                if next == free {
                    tree.push(Node::default());
                }
                at = next;
            }
            // Of two that are alike the first counts.
            tree[at].phrase.get_or_insert(index);
        }
        Self { all, tree }
    }

    /// The words that phrases begin with.
    pub fn openers(&self) -> impl Iterator<Item = &str> {
        self.tree.first().into_iter().flat_map(|root| root.next.keys().map(|it| &**it))
    }

    /// Whether it was made of this vocabulary.
    #[must_use]
    pub fn are<S: AsRef<str>>(&self, vocabulary: &[S]) -> bool {
        self.all.iter().map(String::as_str).eq(vocabulary.iter().take(MOST).map(AsRef::as_ref))
    }

    /// The first `most` that have words, with their index.
    pub fn meaningful(&self, most: usize) -> impl Iterator<Item = (usize, &str)> {
        let all = self.all.iter().map(String::as_str).enumerate();
        all.filter(|it| words(it.1).next().is_some()).take(most)
    }

    /// A phrase as it was given.
    #[must_use]
    pub fn phrase(&self, index: usize) -> &str {
        self.all.get(index).map_or("", String::as_str)
    }

    /// Where phrases were said, from left to right, the longest where several begin; none overlap.
    #[must_use]
    pub fn find(&self, spoken: &Spoken<'_>) -> Vec<Match> {
        let said = &spoken.0;
        let mut found = Vec::new();
        let mut at = 0;
        while let Some((_, first)) = said.get(at) {
            let (mut node, mut longest) = (self.tree.first(), None);
            for (ahead, (word, place)) in said.iter().enumerate().skip(at) {
                node = node.and_then(|it| self.tree.get(*it.next.get(word)?));
                let Some(reached) = node else { break };
                if let Some(phrase) = reached.phrase {
                    longest = Some((Match { phrase, start: first.start, end: place.end }, ahead));
                }
            }
            at = match longest {
                Some((matched, last)) => {
                    found.push(matched);
                    last + 1
                }
                None => at + 1,
            };
        }
        found
    }
}

/// What a vocabulary is about, to find what means the like in other words.
#[derive(Debug, Clone)]
pub struct Meant {
    centre: Vector,
    /// With their index in the vocabulary.
    phrases: Vec<(usize, Vector)>,
}

impl Meant {
    /// Of the first `most` phrases; None when none of them means anything.
    #[must_use]
    pub fn new(phrases: &Phrases, most: usize, meaning: &dyn Meaning) -> Option<Self> {
        let phrases: Vec<_> =
            phrases.meaningful(most).filter_map(|(index, text)| Some((index, meaning.of(text)?))).collect();
        let mut centre = [0.0; DIMENSIONS];
        for (_, vector) in &phrases {
            centre.iter_mut().zip(vector).for_each(|(sum, value)| *sum += value);
        }
        (!phrases.is_empty()).then(|| Self { centre: unit(centre), phrases })
    }

    /// Phrases it was made of.
    #[must_use]
    pub fn phrases(&self) -> usize {
        self.phrases.len()
    }

    /// How near a text is to what the phrases have in common.
    #[must_use]
    pub fn likeness(&self, said: &Vector) -> f32 {
        likeness(&self.centre, said)
    }

    /// The phrase that is nearest to a text, by its index in the vocabulary.
    #[must_use]
    pub fn nearest(&self, said: &Vector) -> usize {
        let near = self.phrases.iter().max_by(|a, b| likeness(&a.1, said).total_cmp(&likeness(&b.1, said)));
        near.map_or(0, |it| it.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(vocabulary: &[&str], text: &str, expected: &[(&str, &str)]) {
        let phrases = Phrases::new(vocabulary);
        let found: Vec<_> = phrases
            .find(&Spoken::new(text))
            .into_iter()
            .map(|it| (phrases.phrase(it.phrase), &text[it.start..it.end]))
            .collect();
        assert_eq!(found, expected, "{text:?}");
    }

    #[test]
    fn phrases_are_found_by_their_words() {
        check(&["budget"], "The Budget, and next year's budgets.", &[("budget", "Budget"), ("budget", "budgets")]);
        check(&["budget"], "Budgetary matters.", &[]);
        check(&["sign up", "sign"], "Sign up, then sign.", &[("sign up", "Sign up"), ("sign", "sign")]);
        check(&["rock 'n' roll"], "rock n roll", &[("rock 'n' roll", "rock n roll")]);
        check(&["a"], "A b a", &[("a", "A"), ("a", "a")]);
        check(&["京都"], "in 京都 today", &[("京都", "京都")]);
        check(&["", "...", "(.*)+"], "anything at all", &[]);
        check(&["pass", "class"], "a pas, a clas, a class", &[("class", "class")]);
    }

    #[test]
    fn phrases_that_begin_alike_are_walked_once() {
        let vocabulary: Vec<String> = (1..=256).map(|it| format!("{}b{it}", "a ".repeat(it % 16))).collect();
        let text = "a ".repeat(20_000);
        let begun = std::time::Instant::now();
        assert_eq!(Phrases::new(&vocabulary).find(&Spoken::new(&text)), []);
        // A few milliseconds; comparing each phrase everywhere takes minutes.
        assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
        let openers: Vec<String> = Phrases::new(&["a b", "A", "c"]).openers().map(str::to_owned).collect();
        assert!(openers.len() == 2 && openers.contains(&"a".to_owned()) && openers.contains(&"c".to_owned()));
    }

    #[test]
    fn a_vocabulary_is_known_again() {
        assert!(Phrases::new(&["a", "b"]).are(&["a", "b"]));
        assert!(!Phrases::new(&["a", "b"]).are(&["a"]));
    }

    proptest! {
        #[test]
        fn matches_lie_in_the_text_in_order(
            vocabulary in prop::collection::vec("[a-c ]{0,6}|.{0,5}", 0..8),
            text in "[a-c ,.]{0,80}|.{0,80}",
        ) {
            let mut after = 0;
            for found in Phrases::new(&vocabulary).find(&Spoken::new(&text)) {
                prop_assert!(found.start >= after && found.start < found.end);
                prop_assert!(text.get(found.start..found.end).is_some());
                after = found.end;
            }
        }
    }
}
