//! What an utterance does: asks, makes somebody do something, suggests.

mod features;
#[cfg(feature = "labelled")]
pub mod train;

use std::sync::LazyLock;

use crate::heads::Heads;

/// One final, as it was written or recognised, with or without punctuation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Utterance<'a> {
    pub text: &'a str,
    /// What was said before it.
    pub previous: Option<Neighbour<'a>>,
    /// What was said after it, where that is known already.
    pub next: Option<Neighbour<'a>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour<'a> {
    pub text: &'a str,
    /// By who says the utterance.
    pub same_speaker: bool,
}

/// The heads, in the order they are kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// A question of any kind, rhetorical ones too.
    Question,
    /// Somebody is to do something, in speech: who says it, or somebody else.
    Action,
    /// Something could be done.
    Suggestion,
    /// Somebody is to do something, in writing.
    Task,
}

impl Head {
    pub const ALL: [Head; 4] = [Head::Question, Head::Action, Head::Suggestion, Head::Task];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Head::Question => "question",
            Head::Action => "action",
            Head::Suggestion => "suggestion",
            Head::Task => "task",
        }
    }
}

/// How sure it is of each, 0 to 1; 0.5 or more is a yes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Acts {
    pub question: f32,
    /// The speaker promises something or tells somebody to do it.
    pub action: f32,
    pub suggestion: f32,
    /// As [`action`](Self::action), for text that was written and not spoken.
    pub task: f32,
}

static HEADS: LazyLock<Heads<4>> = LazyLock::new(|| {
    Heads::read(include_bytes!("../../weights/acts.bin"))
        .expect("the file in the program is the one it was tested with")
});

/// Judges one utterance. Takes time linear in its length.
#[must_use]
pub fn judge(utterance: &Utterance<'_>) -> Acts {
    let [question, action, suggestion, task] = HEADS.judge(&features::features(utterance));
    Acts { question, action, suggestion, task }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn alone(text: &str) -> Acts {
        judge(&Utterance { text, previous: None, next: None })
    }

    #[test]
    fn questions_need_no_question_mark() {
        for text in ["do you know when they are coming", "what is the name of that", "Can you hear me?"] {
            assert!(alone(text).question >= 0.5, "{text}: {:?}", alone(text));
        }
        for text in ["i think that is all we have", "okay so that was the first part", "It is done."] {
            assert!(alone(text).question < 0.5, "{text}: {:?}", alone(text));
        }
    }

    #[test]
    fn tasks_in_writing_are_told_from_news() {
        assert!(alone("Please send me the report by Friday.").task >= 0.5);
        assert!(alone("The report was sent on Friday.").task < 0.5);
    }

    proptest! {
        #[test]
        fn anything_is_judged(text in "\\PC{0,400}", before in "\\PC{0,40}", same_speaker: bool) {
            let near = Some(Neighbour { text: &before, same_speaker });
            let acts = judge(&Utterance { text: &text, previous: near, next: near });
            for it in [acts.question, acts.action, acts.suggestion, acts.task] {
                prop_assert!((0.0..=1.0).contains(&it));
            }
        }
    }

    #[test]
    fn of_a_long_text_the_edges_are_weighed() {
        for text in ["a ".repeat(500_000), "?".repeat(1_000_000), "ß".repeat(1_000_000), "a\u{301}'".repeat(300_000)] {
            let weighed = features::features(&Utterance { text: &text, previous: None, next: None });
            assert!(weighed.buckets().len() < 4_000, "{}", weighed.buckets().len());
        }
    }
}
