//! Trackers against utterances that mean what one of them looks for, through the analysis that runs in meetings.

use std::{collections::HashSet, sync::Arc, time::Duration};

use hearsay_insight::{analysis::Analysis, labelled::Tracked, meaning::Meaning};
use hearsay_protocol::{
    GatewayId, ParticipantId, StreamId, StreamTime, Timestamp, UtteranceId,
    event::{Event, Final, InsightBody, Participant, SpeakerConfig, StreamStarted, Tracker},
};
use uuid::Uuid;

use super::Counts;

/// One meeting in which somebody asked for the trackers.
pub(super) struct Meeting<'a> {
    analysis: Analysis,
    meaning: Option<&'a dyn Meaning>,
    speaker: Arc<Participant>,
    stream: StreamId,
    at: u64,
}

impl<'a> Meeting<'a> {
    pub(super) fn new(tracked: &Tracked, meaning: Option<&'a dyn Meaning>) -> Self {
        let stream = StreamId(Uuid::from_u128(1));
        let speaker =
            Arc::new(Participant { id: ParticipantId(Uuid::from_u128(1)), user_id: None, name: None, email: None });
        let trackers = tracked.trackers.iter().map(|(name, vocabulary)| Tracker {
            id: None,
            name: name.clone(),
            vocabulary: vocabulary.clone(),
        });
        let config = SpeakerConfig { trackers: trackers.collect(), ..SpeakerConfig::default() };
        let mut analysis = Analysis::new();
        let started = StreamStarted {
            stream,
            participant: Arc::clone(&speaker),
            gateway: GatewayId(Uuid::from_u128(1)),
            config,
            origin: Timestamp(0),
            recorded: false,
            no_connection_timeout: Duration::ZERO,
        };
        analysis.apply(&Event::StreamStarted(Arc::new(started)), meaning);
        Self { analysis, meaning, speaker, stream, at: 0 }
    }

    /// The trackers that find something in it.
    pub(super) fn say(&mut self, text: &str) -> HashSet<String> {
        self.at += 10;
        let spoken = Final {
            sentiment: Vec::new(),
            trace: None,
            stream: self.stream,
            utterance: UtteranceId::after_cut(self.stream, StreamTime(self.at)),
            participant: Arc::clone(&self.speaker),
            origin: Timestamp(0),
            start: StreamTime(self.at),
            end: StreamTime(self.at + 1),
            text: text.to_owned(),
            language: "en-US".to_owned(),
            confidence: 1.0,
            words: Vec::new(),
        };
        let found = self.analysis.apply(&Event::Final(Arc::new(spoken)), self.meaning).into_iter();
        let tracker = |event| match event {
            Event::Insight(it) => match &it.body {
                InsightBody::Tracker { tracker, .. } => Some(tracker.clone()),
                _ => None,
            },
            _ => None,
        };
        found.filter_map(tracker).collect()
    }
}

/// What was found in each utterance.
pub(super) fn of(tracked: &Tracked, meeting: &mut Meeting<'_>, read: impl Fn(&str) -> String) -> Vec<Counts> {
    let counted = tracked.utterances.iter().map(|(text, tracker)| {
        let said = meeting.say(&read(text));
        let right = tracker.as_ref().is_some_and(|it| said.contains(it));
        (said.len(), usize::from(right), usize::from(tracker.is_some()))
    });
    counted.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_trackers_find_is_counted() {
        let trackers = vec![("Price".to_owned(), vec!["price".to_owned()])];
        let said = |text: &str, tracker: Option<&str>| (text.to_owned(), tracker.map(str::to_owned));
        let utterances = vec![said("The price?", Some("Price")), said("A price!", None), said("Cost?", Some("Price"))];
        let tracked = Tracked { trackers, utterances };
        let mut meeting = Meeting::new(&tracked, None);
        assert_eq!(of(&tracked, &mut meeting, str::to_owned), [(1, 1, 1), (1, 0, 0), (0, 0, 1)]);
    }
}
