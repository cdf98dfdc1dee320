//! Summaries held against what people wrote: shared words and pairs of words (ROUGE-1 and -2, F, words as they are, without
//! stemming), beside those of a meeting's first words.

use std::{collections::HashMap, fmt, sync::Arc};

use hearsay_conversation::{SUMMARY_WORDS, Said, choose};
use hearsay_insight::{
    acts::{self, Neighbour, Utterance},
    labelled::SummedUp,
    text::words,
};
use hearsay_protocol::{
    ParticipantId, StreamId, StreamTime, Timestamp, UtteranceId,
    event::{Final, Participant},
    sentences,
};
use serde::Serialize;
use uuid::Uuid;

use super::{as_asked, resampled};
use crate::cli::EvalText;

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Figures {
    rouge1: f64,
    rouge1_interval: (f64, f64),
    rouge2: f64,
    rouge2_interval: (f64, f64),
    lead_rouge1: f64,
    lead_rouge2: f64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = |name: &str, figure: f64, (low, high): (f64, f64), lead: f64| {
            format!(
                "{name} F {figure:.3}  (95 % of samples: {low:.3} to {high:.3}; a meeting's first words: {lead:.3})"
            )
        };
        writeln!(f, "{}", one("ROUGE-1", self.rouge1, self.rouge1_interval, self.lead_rouge1))?;
        f.write_str(&one("ROUGE-2", self.rouge2, self.rouge2_interval, self.lead_rouge2))
    }
}

/// Means over the meetings, each with a summary of as many words as it gets by default.
pub(super) fn of(meetings: &[SummedUp], how: EvalText) -> Figures {
    let found: Vec<[f64; 4]> = meetings.iter().map(|it| meeting(it, how)).collect();
    let mean = |of: usize| found.iter().map(|it| it[of]).sum::<f64>() / found.len().max(1) as f64;
    let interval = |of: usize| match found.len() {
        0 => (0.0, 0.0),
        count => resampled(&found, |sample| sample.map(|it| it[of]).sum::<f64>() / count as f64),
    };
    Figures {
        rouge1: mean(0),
        rouge1_interval: interval(0),
        rouge2: mean(1),
        rouge2_interval: interval(1),
        lead_rouge1: mean(2),
        lead_rouge2: mean(3),
    }
}

/// ROUGE-1 and -2 of the summary, then of the first words.
fn meeting(meeting: &SummedUp, how: EvalText) -> [f64; 4] {
    let said: Vec<String> = meeting.turns.iter().flat_map(|(_, text)| cut(text)).map(|it| as_asked(&it, how)).collect();
    let near = |at: usize| said.get(at).map(|text| Neighbour { text, same_speaker: true });
    let noted = |at: usize| {
        let previous = at.checked_sub(1).and_then(near);
        acts::judge(&Utterance { text: &said[at], previous, next: near(at + 1) }).action >= 0.5
    };
    let all: Vec<_> = said.iter().enumerate().map(|(at, text)| Said { text, noted: noted(at) }).collect();
    let ours: Vec<String> = choose(&all, SUMMARY_WORDS).into_iter().flat_map(|at| lower(&said[at])).collect();
    let lead: Vec<String> = said.iter().flat_map(|it| lower(it)).take(SUMMARY_WORDS).collect();
    let theirs = lower(&meeting.summary);
    [shared(&ours, &theirs, 1), shared(&ours, &theirs, 2), shared(&lead, &theirs, 1), shared(&lead, &theirs, 2)]
}

/// A turn's sentences, as a final is cut into them.
pub(super) fn cut(text: &str) -> Vec<String> {
    let stream = StreamId(Uuid::nil());
    let nobody = Participant { id: ParticipantId(Uuid::nil()), user_id: None, name: None, email: None };
    let spoken = Final {
        sentiment: Vec::new(),
        trace: None,
        stream,
        utterance: UtteranceId::after_cut(stream, StreamTime(0)),
        participant: Arc::new(nobody),
        origin: Timestamp(0),
        start: StreamTime(0),
        end: StreamTime(0),
        text: text.to_owned(),
        language: "en-US".to_owned(),
        confidence: 1.0,
        words: Vec::new(),
    };
    sentences(&spoken).into_iter().map(|it| it.text.to_owned()).collect()
}

fn lower(text: &str) -> Vec<String> {
    words(text).map(|it| it.text.to_lowercase()).collect()
}

/// F of the runs of `n` words that both have, each as often as in the one that has fewer of it.
fn shared(a: &[String], b: &[String], n: usize) -> f64 {
    let count = |of: &[String]| {
        let mut found: HashMap<Vec<String>, usize> = HashMap::new();
        for run in of.windows(n) {
            *found.entry(run.to_vec()).or_default() += 1;
        }
        found
    };
    let (a, b) = (count(a), count(b));
    let both: usize = a.iter().map(|(run, times)| (*times).min(b.get(run).copied().unwrap_or(0))).sum();
    super::share(2 * both, a.values().sum::<usize>() + b.values().sum::<usize>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_texts_share_is_counted() {
        let (a, b) = (lower("The cat sat on the mat."), lower("The the cat SAT there"));
        assert!((shared(&a, &b, 1) - 8.0 / 11.0).abs() < 1e-9, "the, the, cat and sat of six and five");
        assert!((shared(&a, &b, 2) - 4.0 / 9.0).abs() < 1e-9, "the cat and cat sat of five and four");
        assert!(shared(&a, &[], 1).abs() < 1e-9 && shared(&[], &[], 2).abs() < 1e-9);
    }

    #[test]
    fn a_meeting_that_keeps_to_its_matter_beats_its_first_words() {
        let say = |text: &str| ("A".to_owned(), text.to_owned());
        let mut turns = vec![say("Good morning to you all, and how was the very long weekend? Fine.")];
        turns.extend((0..30).map(|_| say("Well, right. I see what you mean there, I guess. Okay then.")));
        turns.extend((0..3).map(|_| say("The bridge needs a new deck, so the council pays for it.")));
        let meetings = [SummedUp {
            turns,
            summary: "The council pays for the new deck of the bridge.".to_owned(),
            topics: Vec::new(),
        }];
        let it = of(&meetings, EvalText::AsIs);
        assert!(it.rouge1 > it.lead_rouge1 && it.rouge2 > it.lead_rouge2, "{it}");
        assert_eq!(it.rouge1_interval, (it.rouge1, it.rouge1), "of one meeting, every sample is the same");
    }
}
