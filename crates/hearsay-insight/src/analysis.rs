//! One conversation, understood as it goes: a fold of its log's events that answers each final with insights.
//!
//! Who is there, what they asked for and where their clocks hang is taken from the log alone, so whoever reads the same
//! log makes the same insights, with the same ids.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use hearsay_protocol::{
    EventId, StreamId,
    event::{Event, Evidence, Final, Insight, InsightBody, Participant, SpeakerConfig, Tracker},
    sentences,
};
use uuid::Uuid;

use crate::{
    grammar::{self, Assignee, Context, Entity, Hint, Kind, Names, Task, Value, Zone},
    trackers::{Phrases, Spoken},
};

/// People looked for by name; who comes later is not.
const ROSTER: usize = 256;
/// Entities of one sentence.
const ENTITIES: usize = 32;
/// Tracker matches of one sentence.
const MATCHES: usize = 32;
/// Sentences that a tracker added later is held against, and their characters together.
const SAID: (usize, usize) = (4_096, 512 * 1024);
/// Trackers of a conversation, of all speakers together.
const TRACKERS: usize = 1_024;
/// How sure a rule is of what it found.
const BY_RULE: f32 = 0.8;

/// What is known of a conversation. Bounded: a long one forgets its oldest sentences, never what it has told.
#[derive(Default)]
pub struct Analysis {
    people: Vec<Arc<Participant>>,
    names: Names,
    streams: HashMap<StreamId, SpeakerConfig>,
    /// What any speaker asked for.
    wanted: Wanted,
    trackers: Vec<Watched>,
    said: VecDeque<Said>,
    /// Characters of `said`.
    characters: usize,
}

#[derive(Default, Clone, Copy)]
struct Wanted {
    questions: bool,
    actions: bool,
    follow_ups: bool,
    entities: bool,
}

struct Watched {
    name: String,
    phrases: Phrases,
}

struct Said {
    message: Uuid,
    from: Arc<Participant>,
    text: String,
}

impl Analysis {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What follows from the next event of the log, in order.
    pub fn apply(&mut self, event: &Event) -> Vec<Event> {
        let found = match event {
            Event::StreamStarted(started) => {
                self.meet(&started.participant);
                self.configure(started.stream, started.config.clone())
            }
            Event::ConfigChanged(changed) => self.configure(changed.stream, changed.config.clone()),
            Event::StreamEnded(ended) => {
                self.streams.remove(&ended.stream);
                self.reckon();
                Vec::new()
            }
            Event::Final(spoken) => self.hear(spoken),
            Event::Started(_) | Event::Joined(_) | Event::Left(_) | Event::Insight(_) | Event::Ended(_) => Vec::new(),
        };
        found.into_iter().map(|insight| Event::Insight(Arc::new(insight))).collect()
    }

    fn meet(&mut self, who: &Arc<Participant>) {
        let many = self.people.len() >= ROSTER;
        match self.people.iter_mut().find(|known| known.id == who.id) {
            Some(known) if known == who => return,
            Some(known) => *known = Arc::clone(who),
            None if many => return,
            None => self.people.push(Arc::clone(who)),
        }
        self.names = Names::new(self.people.iter().map(|it| it.name.as_deref().unwrap_or_default()), &[]);
    }

    fn configure(&mut self, stream: StreamId, config: SpeakerConfig) -> Vec<Insight> {
        let fresh: Vec<Tracker> =
            config.trackers.iter().filter(|it| !self.trackers.iter().any(|known| known.is(it))).cloned().collect();
        self.streams.insert(stream, config);
        self.reckon();
        let before = self.trackers.len();
        for tracker in fresh {
            // Two of one configuration may be alike.
            if self.trackers.len() < TRACKERS && !self.trackers.iter().any(|known| known.is(&tracker)) {
                self.trackers.push(Watched { phrases: Phrases::new(&tracker.vocabulary), name: tracker.name });
            }
        }
        // Trackers stay with the conversation: what they have found was told, and others may look at it.
        let fresh = &self.trackers[before..];
        self.said.iter().flat_map(|said| matches(fresh, said.message, &said.from, &said.text)).collect()
    }

    fn reckon(&mut self) {
        let asks = |kind: &str| self.streams.values().any(|it| it.insight_types.iter().any(|it| it == kind));
        self.wanted = Wanted {
            questions: asks("question"),
            actions: asks("action_item"),
            follow_ups: asks("follow_up"),
            entities: self.streams.values().any(|it| it.detect_entities),
        };
    }

    fn hear(&mut self, spoken: &Final) -> Vec<Insight> {
        let east = self.streams.get(&spoken.stream).map_or(0, |it| it.timezone_offset_min);
        let zone = Zone::minutes(east).unwrap_or_default();
        let mut found = Vec::new();
        for sentence in sentences(spoken) {
            let at = spoken.origin.0.saturating_add(sentence.start.0);
            let context = Context { now: zone.civil(at), names: &self.names };
            let one = One { message: sentence.id, from: &spoken.participant, text: sentence.text };
            let speaker = self.people.iter().position(|it| it.id == spoken.participant.id);
            let task = grammar::task(sentence.text, speaker, &context);
            found.extend(self.act(&one, &task, &zone));
            if self.wanted.entities {
                let entities = grammar::entities(sentence.text, &context).into_iter();
                // Bare numbers and "now" are everywhere, and tell nobody anything.
                let told = entities.filter(|it| it.kind != Kind::Number && !it.text.eq_ignore_ascii_case("now"));
                found.extend(told.take(ENTITIES).map(|it| self.entity(&one, &it)));
            }
            found.extend(matches(&self.trackers, sentence.id, &spoken.participant, sentence.text));
            self.keep(sentence.id, &spoken.participant, sentence.text);
        }
        found
    }

    /// Remembered for trackers that come later.
    fn keep(&mut self, message: Uuid, from: &Arc<Participant>, text: &str) {
        if text.len() > SAID.1 {
            return;
        }
        self.characters += text.len();
        self.said.push_back(Said { message, from: Arc::clone(from), text: text.to_owned() });
        while (self.said.len() > SAID.0 || self.characters > SAID.1)
            && let Some(oldest) = self.said.pop_front()
        {
            self.characters -= oldest.text.len();
        }
    }

    /// What a sentence does: asks, promises, asks to be done.
    fn act(&self, one: &One<'_>, task: &Task, zone: &Zone) -> Option<Insight> {
        let assignee = || match task.assignees.first() {
            Some(Assignee::Person(index)) => self.people.get(*index).cloned(),
            _ => None,
        };
        let due = || task.due.as_ref().and_then(|due| zone.rfc3339(due.moment()));
        // The recognizer writes how it was said; "And now?" asks by its tone alone.
        let asked = task.hint == Hint::None && one.text.trim_end().ends_with('?');
        let (kind, body) = match if asked { Hint::Question } else { task.hint } {
            Hint::Question if self.wanted.questions => ("question", InsightBody::Question),
            Hint::Action if self.wanted.actions => {
                ("action_item", InsightBody::ActionItem { assignee: assignee(), due: due() })
            }
            Hint::FollowUp if self.wanted.follow_ups => {
                ("follow_up", InsightBody::FollowUp { assignee: assignee(), due: due() })
            }
            _ => return None,
        };
        Some(one.insight(kind, 0, BY_RULE, one.text.to_owned(), (0, one.text.len()), body))
    }

    fn entity(&self, one: &One<'_>, entity: &Entity) -> Insight {
        let value = match entity.value() {
            Value::Person(index) => self.names.people().get(*index).cloned().unwrap_or_default(),
            value => value.to_string(),
        };
        let kind = entity.kind.name();
        let body = InsightBody::Entity { kind: kind.to_owned(), value };
        one.insight(kind, entity.start, BY_RULE, entity.text.clone(), (entity.start, entity.end), body)
    }
}

impl Watched {
    fn is(&self, tracker: &Tracker) -> bool {
        self.name == tracker.name && self.phrases.are(&tracker.vocabulary)
    }
}

/// The sentence that something was found in.
struct One<'a> {
    message: Uuid,
    from: &'a Arc<Participant>,
    text: &'a str,
}

impl One<'_> {
    /// `at` tells apart what one sentence has several of; `span` is in bytes of the sentence.
    fn insight(
        &self,
        kind: &str,
        at: usize,
        confidence: f32,
        text: String,
        span: (usize, usize),
        body: InsightBody,
    ) -> Insight {
        let character = |byte: usize| self.text.get(..byte).unwrap_or(self.text).chars().count() as u32;
        Insight {
            id: EventId::of_insight(self.message, kind, at as u64),
            revision: 0,
            retracted: false,
            confidence,
            text,
            from: Some(Arc::clone(self.from)),
            evidence: vec![Evidence { message: self.message, start: character(span.0), end: character(span.1) }],
            body,
        }
    }
}

/// What trackers find in a sentence: each phrase of each tracker once.
fn matches(trackers: &[Watched], message: Uuid, from: &Arc<Participant>, text: &str) -> Vec<Insight> {
    if trackers.is_empty() {
        return Vec::new();
    }
    let (one, spoken) = (One { message, from, text }, Spoken::new(text));
    let mut found = Vec::new();
    for tracker in trackers {
        let mut seen = HashSet::new();
        for matched in tracker.phrases.find(&spoken) {
            if found.len() >= MATCHES || !seen.insert(matched.phrase) {
                continue;
            }
            let value = tracker.phrases.phrase(matched.phrase).to_owned();
            let body = InsightBody::Tracker { tracker: tracker.name.clone(), value };
            let kind = format!("tracker {}", tracker.name);
            let span = (matched.start, matched.end);
            let words = text.get(matched.start..matched.end).unwrap_or_default().to_owned();
            found.push(one.insight(&kind, matched.phrase, 1.0, words, span, body));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hearsay_protocol::{
        GatewayId, ParticipantId, StreamTime, Timestamp, UtteranceId,
        event::{ConfigChanged, StreamStarted},
    };
    use proptest::prelude::*;

    use super::*;

    /// 2026-03-11, a Wednesday, 10:00 UTC.
    const WEDNESDAY: Timestamp = Timestamp(1_773_223_200_000_000);

    fn person(number: u128, name: &str) -> Arc<Participant> {
        Arc::new(Participant {
            id: ParticipantId(Uuid::from_u128(number)),
            user_id: None,
            name: Some(name.to_owned()),
            email: None,
        })
    }

    fn joins(number: u128, name: &str, config: SpeakerConfig) -> Event {
        Event::StreamStarted(Arc::new(StreamStarted {
            stream: StreamId(Uuid::from_u128(number)),
            participant: person(number, name),
            gateway: GatewayId(Uuid::from_u128(9)),
            config,
            origin: WEDNESDAY,
            recorded: false,
            no_connection_timeout: Duration::ZERO,
        }))
    }

    fn says(number: u128, name: &str, at: u64, text: &str) -> Event {
        let stream = StreamId(Uuid::from_u128(number));
        Event::Final(Arc::new(Final {
            stream,
            utterance: UtteranceId::after_cut(stream, StreamTime(at)),
            participant: person(number, name),
            origin: WEDNESDAY,
            start: StreamTime(at),
            end: StreamTime(at + 1),
            text: text.to_owned(),
            language: "en-US".to_owned(),
            confidence: 0.9,
            words: Vec::new(),
        }))
    }

    fn wants(kinds: &[&str]) -> SpeakerConfig {
        SpeakerConfig { insight_types: kinds.iter().map(|&it| it.to_owned()).collect(), ..SpeakerConfig::default() }
    }

    fn tracker(name: &str, vocabulary: &[&str]) -> Tracker {
        Tracker { id: None, name: name.to_owned(), vocabulary: vocabulary.iter().map(|&it| it.to_owned()).collect() }
    }

    fn told(events: Vec<Event>) -> Vec<Insight> {
        let insight = |event| match event {
            Event::Insight(insight) => Arc::unwrap_or_clone(insight),
            other => panic!("not an insight: {other:?}"),
        };
        events.into_iter().map(insight).collect()
    }

    #[test]
    fn who_does_what_by_when() {
        let mut analysis = Analysis::new();
        let everything =
            SpeakerConfig { timezone_offset_min: -420, ..wants(&["question", "action_item", "follow_up"]) };
        analysis.apply(&joins(1, "Anna Kim", everything));
        analysis.apply(&joins(2, "Bob Reyes", wants(&[])));
        let found =
            told(analysis.apply(&says(1, "Anna Kim", 5, "Bob, please send the report by Friday. Shall we start?")));
        let [task, question] = &found[..] else { panic!("{found:?}") };
        let InsightBody::ActionItem { assignee, due } = &task.body else { panic!("{task:?}") };
        assert_eq!(assignee.as_ref().and_then(|it| it.name.as_deref()), Some("Bob Reyes"));
        assert_eq!(due.as_deref(), Some("2026-03-13T00:00:00-07:00"));
        assert_eq!(task.text, "Bob, please send the report by Friday.");
        assert_eq!(task.from.as_ref().and_then(|it| it.name.as_deref()), Some("Anna Kim"));
        assert_eq!((question.body.clone(), question.text.as_str()), (InsightBody::Question, "Shall we start?"));
        assert_eq!(question.evidence[0].end, 15);
        assert_ne!(task.evidence[0].message, question.evidence[0].message);
    }

    #[test]
    fn a_question_may_be_one_by_its_tone() {
        let mut analysis = Analysis::new();
        analysis.apply(&joins(1, "Anna Kim", wants(&["question"])));
        assert_eq!(told(analysis.apply(&says(1, "Anna Kim", 5, "And now? And now."))).len(), 1);
    }

    #[test]
    fn nobody_is_told_what_nobody_asked_for() {
        let mut analysis = Analysis::new();
        analysis.apply(&joins(1, "Anna Kim", wants(&["topic"])));
        assert_eq!(analysis.apply(&says(1, "Anna Kim", 5, "Can you call me on Friday at 555-123-4567?")), []);
    }

    #[test]
    fn entities_stand_with_their_value_and_their_place() {
        let mut analysis = Analysis::new();
        analysis.apply(&joins(1, "Zoë Kim", SpeakerConfig { detect_entities: true, ..SpeakerConfig::default() }));
        let found = told(analysis.apply(&says(1, "Zoë Kim", 5, "Größe: 3 now cost 20 dollars, Zoë.")));
        let seen: Vec<_> = found
            .iter()
            .map(|it| match &it.body {
                InsightBody::Entity { kind, value } => {
                    (kind.as_str(), value.as_str(), it.text.as_str(), it.evidence[0].start, it.evidence[0].end)
                }
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(seen, [("currency", "20 Dollar", "20 dollars", 18, 28), ("person", "Zoë Kim", "Zoë", 30, 33)]);
    }

    #[test]
    fn a_tracker_that_comes_late_is_held_against_what_was_said() {
        let mut analysis = Analysis::new();
        let price = tracker("Price", &["price", "how much"]);
        analysis.apply(&joins(1, "Anna", SpeakerConfig { trackers: vec![price.clone()], ..SpeakerConfig::default() }));
        let first = told(analysis.apply(&says(1, "Anna", 5, "The price, the price! And how much is the boat?")));
        assert_eq!(first.len(), 2, "each phrase once: {first:?}");
        let boat = tracker("Boat", &["boat"]);
        let config = SpeakerConfig { trackers: vec![price, boat.clone(), boat], ..SpeakerConfig::default() };
        let stream = StreamId(Uuid::from_u128(1));
        let later = Event::ConfigChanged(Arc::new(ConfigChanged { stream, config }));
        let late = told(analysis.apply(&later));
        assert_eq!(late.len(), 1, "only what is new looks back: {late:?}");
        assert_eq!(late[0].body, InsightBody::Tracker { tracker: "Boat".to_owned(), value: "boat".to_owned() });
        assert_eq!(late[0].evidence[0].message, first[1].evidence[0].message);
        assert_eq!(analysis.apply(&later), []);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut analysis = Analysis::new();
        for number in 0..20_000 {
            analysis.apply(&says(1, "Anna", number, "Some words that are said again and again, as it happens."));
        }
        assert!(analysis.said.len() <= SAID.0 && analysis.characters <= SAID.1);
        assert_eq!(analysis.characters, analysis.said.iter().map(|it| it.text.len()).sum::<usize>());
    }

    proptest! {
        /// Ids are a function of the log, and differ where anything else does.
        #[test]
        fn the_same_log_gives_the_same_insights(texts in prop::collection::vec("(the |price |call me |by Friday |\\? |.){1,8}", 1..12)) {
            let config = SpeakerConfig {
                detect_entities: true,
                trackers: vec![tracker("Price", &["price", "the"]), tracker("The", &["the"])],
                ..wants(&["question", "action_item", "follow_up"])
            };
            let run = || {
                let mut analysis = Analysis::new();
                let mut all = told(analysis.apply(&joins(1, "Anna", config.clone())));
                for (number, text) in texts.iter().enumerate() {
                    all.extend(told(analysis.apply(&says(1, "Anna", number as u64 * 10, text))));
                }
                all
            };
            let (first, second) = (run(), run());
            let ids: HashSet<_> = first.iter().map(|it| it.id).collect();
            prop_assert_eq!(ids.len(), first.len());
            prop_assert_eq!(first, second);
        }
    }
}
