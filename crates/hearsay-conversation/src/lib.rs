//! The record: a pure fold of a conversation's log into what was said, by whom, and what was inferred from it. No I/O, no
//! clock.
//!
//! The fold takes entries in the order of the log, knows how far it has got, and ignores what it has seen; so a replay, or
//! an entry that was appended again after history branched, changes nothing.

mod analytics;
mod record;
mod sending;
mod summary;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use hearsay_bus::{Body, Entry};
use hearsay_protocol::{
    EventId, Offset, ParticipantId, Timestamp,
    event::{EndReason, Event, Final, Insight, Participant},
};

pub use analytics::{Analytics, Spoken, Talk};
pub use record::{
    Record, RecordError, RecordedEvidence, RecordedInsight, RecordedMember, RecordedMessage, RecordedWord,
};
pub use sending::{Attempt, Sending, SendingState, Way};
pub use summary::{SUMMARY_WORDS, Said, choose, summary};

/// A conversation up to some offset.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conversation {
    through: Offset,
    seen: BTreeSet<EventId>,
    pub title: String,
    pub started: Timestamp,
    pub ended: Option<(Timestamp, EndReason)>,
    pub members: BTreeMap<ParticipantId, Arc<Participant>>,
    /// In the order of the log.
    finals: Vec<Arc<Final>>,
    /// The newest revision of each, retracted ones too.
    insights: BTreeMap<EventId, Arc<Insight>>,
}

impl Conversation {
    /// The newest entry folded in.
    pub fn through(&self) -> Offset {
        self.through
    }

    /// Folds the next entry in. Entries already folded in are ignored.
    pub fn apply(&mut self, entry: &Entry) {
        self.through = self.through.max(entry.offset);
        if !self.seen.insert(entry.id) {
            return;
        }
        let Body::Event(event) = &entry.body else { return };
        match event {
            Event::Started(started) => {
                self.started = started.at;
                self.title.clone_from(&started.title);
            }
            Event::Joined(who) => self.join(who),
            Event::StreamStarted(started) => self.join(&started.participant),
            Event::Final(spoken) => {
                self.join(&spoken.participant);
                self.finals.push(Arc::clone(spoken));
            }
            Event::Insight(insight) => {
                let newest = self.insights.entry(insight.id).or_insert_with(|| Arc::clone(insight));
                if insight.revision > newest.revision {
                    *newest = Arc::clone(insight);
                }
            }
            Event::Ended(ended) => self.ended = Some((ended.at, ended.reason)),
            Event::Left(_) | Event::ConfigChanged(_) | Event::StreamEnded(_) => {}
        }
    }

    /// What was said, by the wall time at which each utterance began; the order of the log where times are equal.
    pub fn finals(&self) -> Vec<&Arc<Final>> {
        let mut finals: Vec<_> = self.finals.iter().collect();
        finals.sort_by_key(|spoken| spoken.start.at(spoken.origin));
        finals
    }

    /// What was inferred and not taken back.
    pub fn insights(&self) -> impl Iterator<Item = &Arc<Insight>> {
        self.insights.values().filter(|insight| !insight.retracted)
    }

    fn join(&mut self, who: &Arc<Participant>) {
        self.members.entry(who.id).or_insert_with(|| Arc::clone(who));
    }
}

impl<'a> FromIterator<&'a Entry> for Conversation {
    fn from_iter<I: IntoIterator<Item = &'a Entry>>(entries: I) -> Self {
        let mut conversation = Self::default();
        for entry in entries {
            conversation.apply(entry);
        }
        conversation
    }
}

#[cfg(test)]
mod tests {
    use hearsay_protocol::{
        PublisherId, StreamId, StreamTime, UtteranceId,
        event::{Ended, InsightBody, SpokenWord, Started},
    };
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    pub(crate) fn spoken(n: u64, start: u64, text: &str) -> Final {
        let stream = StreamId(Uuid::from_u128(1));
        let words: Vec<_> = text.split(' ').collect();
        let at = |index: usize| StreamTime(start + 1_000 * index as u64);
        Final {
            sentiment: Vec::new(),
            trace: None,
            stream,
            utterance: UtteranceId::after_cut(stream, StreamTime(n)),
            participant: Arc::new(Participant {
                id: ParticipantId(Uuid::from_u128(u128::from(n % 3))),
                user_id: None,
                name: Some(format!("speaker {}", n % 3)),
                email: None,
            }),
            origin: Timestamp(1_000_000),
            start: at(0),
            end: at(words.len()),
            text: text.to_owned(),
            language: "en-US".to_owned(),
            confidence: 0.5,
            words: words
                .iter()
                .enumerate()
                .map(|(index, text)| SpokenWord {
                    text: (*text).to_owned(),
                    start: at(index),
                    end: at(index + 1),
                    confidence: 1.0,
                })
                .collect(),
        }
    }

    fn event(kind: u8, n: u64) -> Event {
        match kind {
            0 => Event::Started(Started { at: Timestamp(n), title: format!("meeting {n}") }),
            1 => Event::Ended(Ended { at: Timestamp(n), reason: EndReason::Stopped }),
            2 => Event::Insight(Arc::new(Insight {
                id: EventId(Uuid::from_u128(u128::from(n % 4))),
                revision: (n / 4 % 3) as u32,
                retracted: n.is_multiple_of(5),
                confidence: 1.0,
                text: format!("insight {n}"),
                from: None,
                evidence: Vec::new(),
                body: InsightBody::Question,
            })),
            _ => Event::Final(Arc::new(spoken(n, n * 7 % 50, "Well. Is it? Yes."))),
        }
    }

    fn log(events: Vec<(u8, u64)>) -> Vec<Entry> {
        events
            .into_iter()
            .enumerate()
            .map(|(index, (kind, n))| Entry {
                offset: Offset(index as u64 + 1),
                check: 0,
                at: Timestamp::ZERO,
                id: EventId(Uuid::from_u128(1_000 + index as u128)),
                sequence: 0,
                publisher: PublisherId::Analyst,
                body: Body::Event(event(kind, n)),
            })
            .collect()
    }

    proptest! {
        #[test]
        fn replays_change_nothing(events in prop::collection::vec((0u8..5, 0u64..60), 0..40), cut in 0usize..40) {
            let log = log(events);
            let whole: Conversation = log.iter().collect();
            let cut = cut.min(log.len());
            let again: Conversation = log[..cut].iter().chain(log.iter()).collect();
            prop_assert_eq!(&whole, &again);
            let record = Record::of(&whole);
            prop_assert_eq!(Record::parse(&record.to_bytes()).unwrap(), record);
        }
    }

    #[test]
    fn the_newest_revision_of_an_insight_counts() {
        let mut conversation = Conversation::default();
        for entry in log(vec![(2, 4), (2, 1), (2, 8)]) {
            conversation.apply(&entry);
        }
        let texts: Vec<_> = conversation.insights().map(|insight| insight.text.clone()).collect();
        // 4 and 8 are revisions 1 and 2 of one insight; 1 is revision 0 of another.
        assert_eq!(texts, ["insight 8", "insight 1"]);
    }
}
