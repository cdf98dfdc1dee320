//! How much of a partial will stay: what two successive hypotheses of an utterance say alike.
//!
//! Words are compared without case and punctuation. What was promised stays as it was shown, byte by byte, whatever later
//! hypotheses say; the final alone may correct it.

use super::guard::bare;

/// Successive hypotheses of one utterance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Agreement {
    /// Words that stay, as shown. The last one's punctuation may still change: "world" may become "world,".
    stable: Vec<String>,
    /// The words behind them in the last hypothesis, as compared.
    tail: Vec<String>,
    text: String,
    promised: usize,
}

/// What to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown<'a> {
    pub text: &'a str,
    /// Bytes of `text` that every later text of this utterance begins with. Never falls.
    pub stable: usize,
    /// Words in them.
    pub stable_words: usize,
}

impl Agreement {
    /// Takes the next hypothesis. An empty one says nothing new: what was shown stays.
    pub fn revise(&mut self, hypothesis: &str) -> Shown<'_> {
        let words: Vec<&str> = hypothesis.split_whitespace().collect();
        if words.is_empty() {
            return self.shown();
        }
        let compared: Vec<String> = words.iter().map(|it| bare(it)).collect();
        let behind = self.behind_stable(&compared);
        let (words, compared) = (&words[behind..], &compared[behind..]);
        let agreed = self.tail.iter().zip(compared).take_while(|(a, b)| a == b).count();
        if let Some(last) = self.stable.last_mut() {
            // Shown with the punctuation it has in this hypothesis, when it is the same word.
            let core = core(last).to_owned();
            let said = behind.checked_sub(1).and_then(|it| hypothesis.split_whitespace().nth(it));
            *last = match said.and_then(|it| it.strip_prefix(&core)) {
                Some(punctuation) if !punctuation.contains(char::is_alphanumeric) => format!("{core}{punctuation}"),
                _ => core,
            };
        }
        self.stable.extend(words[..agreed].iter().map(|it| (*it).to_owned()));
        self.tail = compared[agreed..].to_vec();
        self.text =
            self.stable.iter().map(String::as_str).chain(words[agreed..].iter().copied()).collect::<Vec<_>>().join(" ");
        let before: usize = self.stable.iter().rev().skip(1).map(|it| it.len() + 1).sum();
        self.promised = self.stable.last().map_or(0, |it| before + core(it).len());
        self.shown()
    }

    /// What was last shown.
    #[must_use]
    pub fn shown(&self) -> Shown<'_> {
        Shown { text: &self.text, stable: self.promised, stable_words: self.stable.len() }
    }

    /// How many words of the hypothesis say what is promised: the number at which they differ least from it.
    fn behind_stable(&self, hypothesis: &[String]) -> usize {
        let promised: Vec<String> = self.stable.iter().map(|it| bare(it)).collect();
        if hypothesis.starts_with(&promised) {
            return promised.len();
        }
        // Edit distance of all that is promised to each beginning of the hypothesis.
        let mut distance: Vec<usize> = (0..=hypothesis.len()).collect();
        for (row, word) in promised.iter().enumerate() {
            let mut diagonal = distance[0];
            distance[0] = row + 1;
            for column in 1..distance.len() {
                let replaced = diagonal + usize::from(*word != hypothesis[column - 1]);
                diagonal = distance[column];
                distance[column] = replaced.min(distance[column] + 1).min(distance[column - 1] + 1);
            }
        }
        // Of equals the one of the same length, so that a reworded beginning is not said twice.
        let far = |it: &usize| (distance[*it], it.abs_diff(promised.len()));
        (0..distance.len()).min_by_key(far).unwrap_or_default()
    }
}

/// A word without what stands behind its last letter.
fn core(word: &str) -> &str {
    let core = word.trim_end_matches(|it: char| !it.is_alphanumeric());
    if core.is_empty() { word } else { core }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds hypotheses; after each, what is shown with `|` behind what is stable.
    #[track_caller]
    fn check(steps: &[(&str, &str)]) {
        let mut agreement = Agreement::default();
        for (hypothesis, expected) in steps {
            let shown = agreement.revise(hypothesis);
            assert_eq!(format!("{}|{}", &shown.text[..shown.stable], &shown.text[shown.stable..]), *expected);
        }
    }

    #[test]
    fn what_two_hypotheses_say_alike_is_stable() {
        check(&[
            ("It", "|It"),
            ("It was", "It| was"),
            ("it was the", "It was| the"),
            ("It was the best", "It was the| best"),
            ("It was a best of", "It was the best| of"),
            ("It was the worst", "It was the best|"),
        ]);
    }

    #[test]
    fn punctuation_is_promised_with_the_word_behind_it() {
        check(&[
            ("Hello world.", "|Hello world."),
            ("Hello world.", "Hello world|."),
            ("Hello world, and", "Hello world|, and"),
            ("Hello world and so", "Hello world and| so"),
        ]);
    }

    #[test]
    fn an_empty_hypothesis_changes_nothing() {
        check(&[
            ("one two", "|one two"),
            ("one two", "one two|"),
            ("", "one two|"),
            ("one two three", "one two| three"),
        ]);
    }

    #[test]
    fn a_reworded_beginning_is_not_said_twice() {
        check(&[
            ("I am here", "|I am here"),
            ("I am here now", "I am here| now"),
            ("I'm here now then", "I am here now| then"),
        ]);
    }

    #[test]
    fn one_look_promises_nothing() {
        check(&[
            ("completely", "|completely"),
            ("different words", "|different words"),
            ("again other", "|again other"),
        ]);
    }

    fn hypothesis() -> impl Strategy<Value = String> {
        let word = prop::sample::select(vec!["a", "b", "B,", "c.", "café", "—", "I'm", "d", "e?"]);
        prop::collection::vec(word, 0..8).prop_map(|words| words.join(" "))
    }

    proptest! {
        #[test]
        fn what_is_promised_stays(hypotheses in prop::collection::vec(hypothesis(), 1..20)) {
            let mut agreement = Agreement::default();
            let mut promised = String::new();
            for it in hypotheses {
                let shown = agreement.revise(&it);
                prop_assert!(shown.text.is_char_boundary(shown.stable));
                let stable = &shown.text[..shown.stable];
                prop_assert!(stable.starts_with(&promised), "{:?} does not begin with {:?}", stable, promised);
                prop_assert_eq!(stable.split_whitespace().count(), shown.stable_words);
                promised = stable.to_owned();
            }
        }

        #[test]
        fn the_same_twice_is_promised_whole(text in hypothesis()) {
            let mut agreement = Agreement::default();
            agreement.revise(&text);
            let shown = agreement.revise(&text);
            prop_assert_eq!(shown.stable_words, text.split_whitespace().count());
            prop_assert_eq!(shown.text, text);
        }
    }
}
