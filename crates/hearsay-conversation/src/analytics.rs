//! Who spoke how long, with whom at once, how fast, and how long nobody did: interval arithmetic on the times of what was
//! said.

use std::collections::{BTreeMap, HashMap};

use hearsay_protocol::{Timestamp, event::Final, sentences};
use uuid::Uuid;

use crate::Record;

/// Stretches of speech that are kept apart; beyond, those of one speaker grow together.
const SPANS: usize = 65_536;

/// What was said, as far as its times go. Bounded.
#[derive(Debug, Clone, Default)]
pub struct Talk {
    speakers: Vec<Speaker>,
    index: HashMap<Uuid, usize>,
    spans: Vec<Span>,
}

#[derive(Debug, Clone)]
struct Speaker {
    id: Uuid,
    words: u64,
    /// Where in `spans` the latest of this speaker stands.
    latest: Option<usize>,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    speaker: usize,
    start_us: u64,
    end_us: u64,
}

/// Of a conversation, or of one so far. All times in µs; none counts twice, however many streams a speaker has.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Analytics {
    /// From the conversation's beginning to its end.
    pub whole_us: u64,
    /// While anybody spoke.
    pub talk_us: u64,
    /// While nobody did.
    pub silence_us: u64,
    /// While at least two did.
    pub overlap_us: u64,
    /// In the order in which they first spoke.
    pub speakers: Vec<Spoken>,
}

/// One speaker's part.
#[derive(Debug, Clone, PartialEq)]
pub struct Spoken {
    /// The member.
    pub id: Uuid,
    pub talk_us: u64,
    pub words: u64,
    /// How often it began while somebody else spoke.
    pub interruptions: u32,
    /// While somebody else spoke, too.
    pub overlap_us: u64,
    /// With whom, longest first.
    pub with: Vec<(Uuid, u64)>,
}

impl Spoken {
    /// Words a minute of its own speech; 0 without any.
    pub fn words_a_minute(&self) -> f64 {
        if self.talk_us == 0 { 0.0 } else { self.words as f64 * 60e6 / self.talk_us as f64 }
    }

    /// Its part of all speech, 0 to 1: parts add up to more than 1 where people speak at once.
    pub fn ratio(&self, of: &Analytics) -> f64 {
        if of.talk_us == 0 { 0.0 } else { self.talk_us as f64 / of.talk_us as f64 }
    }
}

impl Talk {
    pub fn of(record: &Record) -> Self {
        let mut talk = Self::default();
        for said in &record.messages {
            let words = if said.words.is_empty() { said.text.split_whitespace().count() } else { said.words.len() };
            talk.add(said.from, said.start_us, said.end_us, words);
        }
        talk
    }

    /// Adds an utterance.
    pub fn hear(&mut self, spoken: &Final) {
        for sentence in sentences(spoken) {
            let wall = |time: hearsay_protocol::StreamTime| time.at(spoken.origin).micros();
            let words = sentence.text.split_whitespace().count();
            self.add(spoken.participant.id.0, wall(sentence.start), wall(sentence.end), words);
        }
    }

    fn add(&mut self, id: Uuid, start_us: u64, end_us: u64, words: usize) {
        let speaker = *self.index.entry(id).or_insert_with(|| {
            self.speakers.push(Speaker { id, words: 0, latest: None });
            self.speakers.len() - 1
        });
        let known = &mut self.speakers[speaker];
        known.words += words as u64;
        let full = self.spans.len() >= SPANS;
        match known.latest.map(|latest| &mut self.spans[latest]) {
            Some(latest) if start_us >= latest.start_us && (start_us <= latest.end_us || full) => {
                latest.end_us = latest.end_us.max(end_us);
            }
            _ if full => (),
            _ => {
                known.latest = Some(self.spans.len());
                self.spans.push(Span { speaker, start_us, end_us: end_us.max(start_us) });
            }
        }
    }

    /// Up to `end`, or to the last word where that is later.
    pub fn analytics(&self, start: Timestamp, end: Option<Timestamp>) -> Analytics {
        let first = self.spans.iter().map(|span| span.start_us).min();
        let start = first.map_or(start.micros(), |first| first.min(start.micros()));
        let last = self.spans.iter().map(|span| span.end_us).max().unwrap_or(start);
        let end = end.map_or(last, |end| end.micros().max(last)).max(start);

        // Ends before beginnings, so that who follows at once interrupts nobody.
        let mut edges: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * self.spans.len());
        for span in self.spans.iter().filter(|span| span.end_us > span.start_us) {
            edges.push((span.start_us, true, span.speaker));
            edges.push((span.end_us, false, span.speaker));
        }
        edges.sort_unstable();
        let blank = |speaker: &Speaker| Spoken {
            id: speaker.id,
            talk_us: 0,
            words: speaker.words,
            interruptions: 0,
            overlap_us: 0,
            with: Vec::new(),
        };
        let mut it = Analytics {
            whole_us: end - start,
            speakers: self.speakers.iter().map(blank).collect(),
            ..Analytics::default()
        };
        let mut pairs: BTreeMap<(usize, usize), u64> = BTreeMap::new();
        // Who speaks, and in how many streams.
        let mut active: Vec<(usize, u32)> = Vec::new();
        let mut at = start;
        for (time, begins, speaker) in edges {
            let passed = time - at;
            if passed > 0 && !active.is_empty() {
                it.talk_us += passed;
                for (index, &(one, _)) in active.iter().enumerate() {
                    it.speakers[one].talk_us += passed;
                    if active.len() > 1 {
                        it.speakers[one].overlap_us += passed;
                    }
                    for &(other, _) in &active[index + 1..] {
                        *pairs.entry((one.min(other), one.max(other))).or_default() += passed;
                    }
                }
                if active.len() > 1 {
                    it.overlap_us += passed;
                }
            }
            at = time;
            let place = active.iter().position(|(known, _)| *known == speaker);
            match (begins, place) {
                (true, Some(place)) => active[place].1 += 1,
                (true, None) => {
                    if !active.is_empty() {
                        it.speakers[speaker].interruptions += 1;
                    }
                    active.push((speaker, 1));
                }
                (false, Some(place)) => {
                    active[place].1 -= 1;
                    if active[place].1 == 0 {
                        active.swap_remove(place);
                    }
                }
                (false, None) => {}
            }
        }
        it.silence_us = it.whole_us - it.talk_us;
        for ((one, other), time) in pairs {
            let (first, second) = (it.speakers[one].id, it.speakers[other].id);
            it.speakers[one].with.push((second, time));
            it.speakers[other].with.push((first, time));
        }
        for speaker in &mut it.speakers {
            speaker.with.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
        }
        it
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn talk(spans: &[(u128, u64, u64)]) -> Talk {
        let mut talk = Talk::default();
        for &(who, start, end) in spans {
            talk.add(Uuid::from_u128(who), start, end, 2);
        }
        talk
    }

    #[test]
    fn times_add_up() {
        let seconds = 1_000_000;
        let found =
            talk(&[(1, 10 * seconds, 20 * seconds), (2, 15 * seconds, 18 * seconds), (2, 20 * seconds, 25 * seconds)])
                .analytics(Timestamp(0), Some(Timestamp(50 * seconds)));
        assert_eq!((found.whole_us, found.talk_us), (50 * seconds, 15 * seconds));
        assert_eq!((found.silence_us, found.overlap_us), (35 * seconds, 3 * seconds));
        let [first, second] = &found.speakers[..] else { panic!("{found:?}") };
        assert_eq!((first.talk_us, first.interruptions, first.overlap_us), (10 * seconds, 0, 3 * seconds));
        assert_eq!((second.talk_us, second.interruptions, second.overlap_us), (8 * seconds, 1, 3 * seconds));
        assert_eq!(first.with, [(second.id, 3 * seconds)]);
        assert!((second.words_a_minute() - 30.0).abs() < 1e-9);
        assert!((first.ratio(&found) - 10.0 / 15.0).abs() < 1e-9);
    }

    #[test]
    fn nothing_said_is_silence() {
        let found = Talk::default().analytics(Timestamp(5), Some(Timestamp(9)));
        assert_eq!((found.whole_us, found.silence_us, found.talk_us), (4, 4, 0));
        assert_eq!(Talk::default().analytics(Timestamp(5), None), Analytics::default());
    }

    proptest! {
        /// Against counting each moment by itself.
        #[test]
        fn each_moment_counts_once(spans in prop::collection::vec((0u128..4, 0u64..60, 0u64..12), 0..24)) {
            let spans: Vec<_> = spans.into_iter().map(|(who, start, length)| (who, start, start + length)).collect();
            let found = talk(&spans).analytics(Timestamp(0), Some(Timestamp(80)));
            let speak = |who: u128, moment: u64| spans.iter().any(|&(it, start, end)| it == who && (start..end).contains(&moment));
            let at_once = |moment: u64| (0..4).filter(|who| speak(*who, moment)).count();
            prop_assert_eq!(found.talk_us, (0..80).filter(|it| at_once(*it) > 0).count() as u64);
            prop_assert_eq!(found.overlap_us, (0..80).filter(|it| at_once(*it) > 1).count() as u64);
            prop_assert_eq!(found.silence_us + found.talk_us, found.whole_us);
            for spoken in &found.speakers {
                let who = spoken.id.as_u128();
                prop_assert_eq!(spoken.talk_us, (0..80).filter(|it| speak(who, *it)).count() as u64);
                for (other, time) in &spoken.with {
                    let both = (0..80).filter(|it| speak(who, *it) && speak(other.as_u128(), *it)).count();
                    prop_assert_eq!(*time, both as u64);
                }
            }
        }
    }

    #[test]
    fn it_is_bounded() {
        let mut talk = Talk::default();
        for at in 0..3 * SPANS as u64 {
            talk.add(Uuid::from_u128(u128::from(at % 2)), 10 * at, 10 * at + 4, 1);
        }
        assert_eq!(talk.spans.len(), SPANS);
        let found = talk.analytics(Timestamp(0), None);
        assert_eq!(found.speakers.iter().map(|it| it.words).sum::<u64>(), 3 * SPANS as u64);
        assert_eq!(found.whole_us, 10 * (3 * SPANS as u64 - 1) + 4);
    }
}
