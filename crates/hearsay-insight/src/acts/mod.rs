//! What an utterance does: asks, makes somebody do something, suggests.

mod features;
#[cfg(feature = "labelled")]
pub mod train;

use std::sync::LazyLock;

use crate::heads::{Features, Heads};

use self::features::{AROUND, Read, features};

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

/// One of the things said in a conversation, in the order in which they began.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Turn<'a> {
    pub text: &'a str,
    /// Who says it: any number that tells speakers of this conversation apart.
    pub by: usize,
    /// Seconds it begins and ends at, on one clock for all; None for writing.
    pub times: Option<(f64, f64)>,
}

static HEADS: LazyLock<Heads<4>> = LazyLock::new(|| {
    Heads::read(include_bytes!("../../weights/acts.bin"))
        .expect("the file in the program is the one it was tested with")
});

/// Judges the turn at `at` by itself and what was said around it; looks at six turns before it and six after it, so more of a
/// conversation changes nothing. Takes time linear in the length of those.
///
/// While it is the last of `turns` there is no answer yet, and thresholds for that count: judge it so at once. Then judge it
/// again with each turn that follows, when those for an answered one count: what "you have it" asks is often told only by the
/// "yeah" after it. The first judgement says less and is wrong more often (BENCHMARKS.md has both figures).
///
/// # Panics
/// When there is no such turn.
#[must_use]
pub fn judge_in(turns: &[Turn<'_>], at: usize) -> Acts {
    let first = at.saturating_sub(AROUND);
    let near = &turns[first..(at + 1 + AROUND).min(turns.len())];
    let read: Vec<Read<'_>> = near.iter().copied().map(Read::of).collect();
    let (before, after) = read.split_at(at - first);
    of(&features(before, &after[0], &after[1..]))
}

/// Judges one utterance, as [`judge_in`] does where more around it is known. Takes time linear in its length.
#[must_use]
pub fn judge(utterance: &Utterance<'_>) -> Acts {
    of(&features_of(utterance))
}

fn features_of<'a>(utterance: &Utterance<'a>) -> Features {
    let near = |it: Option<Neighbour<'a>>| {
        let turn = it.map(|it| Turn { text: it.text, by: usize::from(!it.same_speaker), times: None });
        turn.into_iter().map(Read::of).collect::<Vec<_>>()
    };
    let (before, after) = (near(utterance.previous), near(utterance.next));
    features(&before, &Read::of(Turn { text: utterance.text, by: 0, times: None }), &after)
}

fn of(features: &Features) -> Acts {
    let [question, action, suggestion, task] = HEADS.judge(features);
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
            let read = Read::of(Turn { text: &text, by: 0, times: None });
            let weighed = features(std::slice::from_ref(&read), &read, std::slice::from_ref(&read));
            let count = weighed.hashes().count();
            assert!(count < 4_000, "{count}");
        }
    }

    #[test]
    fn six_turns_either_side_count_and_no_more() {
        let texts: Vec<String> = (0..20).map(|it| format!("turn {it} is it")).collect();
        let turn = |it: usize| Turn { text: &texts[it], by: it % 2, times: Some((it as f64, it as f64 + 0.5)) };
        let turns: Vec<_> = (0..20).map(turn).collect();
        assert_eq!(judge_in(&turns, 10), judge_in(&turns[4..17], 6));
        assert_ne!(judge_in(&turns, 10), judge_in(&turns[..=10], 10), "what follows counts");
        assert_ne!(judge_in(&turns, 10), judge_in(&turns[10..], 0), "what came before counts");
    }

    #[test]
    fn an_answer_makes_a_question() {
        let turn = |text, by, start| Turn { text, by, times: Some((start, start + 1.0)) };
        let (asked, answer) = (turn("you have the numbers for that", 0, 0.0), turn("yeah", 1, 1.1));
        let alone = judge_in(&[asked], 0).question;
        let answered = judge_in(&[asked, answer, turn("i have them here", 1, 2.2)], 0).question;
        let (stated, more) = (turn("you have the numbers for that", 0, 0.0), turn("so that is fine", 0, 1.1));
        let went_on = judge_in(&[stated, more], 0).question;
        assert!(answered > went_on, "{alone} {answered} {went_on}");
    }
}
