//! One conversation, understood as it goes: a fold of its log's events that answers each final with insights.
//!
//! Who is there, what they asked for and where their clocks hang is taken from the log alone, so whoever reads the same
//! log makes the same insights, with the same ids.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use hearsay_protocol::{
    EventId, Sentence, StreamId,
    event::{
        CustomEntity, Event, Evidence, Final, Insight, InsightBody, Partial, Participant, SpeakerConfig, Tracked,
        Tracker,
    },
    sentences,
};
use uuid::Uuid;

use crate::{
    acts::Neighbour,
    deeds::{BY_RULE, Deed, Deeds, Wanted},
    grammar::{self, Assignee, Context, Entity, Kind, Names, Value, Zone},
    meaning::{Meaning, Vector},
    text,
    topics::{Topic, Topics},
    watch::{self, Hit, How, Watch},
};

/// People looked for by name; who comes later is not.
const ROSTER: usize = 256;
/// Things looked for by name, of all speakers together.
pub const MOST_ENTITIES: usize = 2_048;
/// Trackers of a conversation, of all speakers together.
pub const MOST_TRACKERS: usize = watch::TRACKERS;
/// Entities of one sentence.
const ENTITIES: usize = 32;
/// Tracker matches of one sentence.
const MATCHES: usize = 32;
/// Sentences that a tracker added later is held against, and their characters together.
const SAID: (usize, usize) = (4_096, 512 * 1024);
/// How near a sentence must be to a tracker to mean what it looks for: chosen on training meetings so that 75 trackers
/// together cry wolf at fewer than 1 of 100 utterances.
const MEANT: f32 = 0.55;
/// Of several trackers, those that are as near as the nearest but for this.
const AS_NEAR: f32 = 0.03;
/// Words of a sentence that is weighed by its meaning; shorter ones mean little by themselves.
const MEANING_WORDS: usize = 4;
/// Sentences that a tracker added later is held against by its meaning: the latest. Matches that are told then, of the
/// latest, too.
const LOOK_BACK: usize = 128;
const FOUND_BACK: usize = 256;

/// Topics of a conversation, and sentences with content that each takes at least.
const TOPICS: (usize, usize) = (10, 5);
/// Topics are looked for every so many of those sentences.
const TOPICS_EVERY: usize = 12;
/// A topic that was told is taken back when so many others weigh more.
const FALLEN: usize = 30;
/// Sentences that a topic refers to: the latest.
const MENTIONS: usize = 8;

/// What is known of a conversation. Bounded: a long one forgets its oldest sentences, never what it has told.
#[derive(Default)]
pub struct Analysis {
    people: Vec<Arc<Participant>>,
    names: Names,
    streams: HashMap<StreamId, SpeakerConfig>,
    /// What any speaker asked for.
    wanted: Wanted,
    /// Somebody asked for all that is named, not only for things of their own.
    detects: bool,
    deeds: Deeds,
    watch: Watch,
    things: Vec<CustomEntity>,
    refused: Refused,
    said: VecDeque<Said>,
    /// Characters of `said`.
    characters: usize,
    /// Sentences so far.
    sentences: u64,
    topics: Topics,
    /// Those that were told and not taken back, by their stems.
    told: Vec<(Vec<String>, Insight)>,
    /// Sentences with content: all, and those since topics were looked for.
    counted: (usize, usize),
    /// Somebody asked for insights of any kind: those who do are told topics, too.
    topical: bool,
    /// Somebody asked for what a sentence is said for, in one way or another: not for topics alone.
    intents: bool,
}

/// What was asked for, and for which there was no room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Refused {
    pub trackers: usize,
    pub entities: usize,
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

    /// Texts whose meaning the next event asks for, each of which takes milliseconds to weigh.
    #[must_use]
    pub fn asks(&self, event: &Event) -> Vec<String> {
        let list = match event {
            Event::StreamStarted(started) => &started.config.trackers,
            Event::ConfigChanged(changed) => &changed.config.trackers,
            Event::Final(spoken) => {
                let mut texts = self.watch.asks(&[]);
                if !self.watch.is_empty() {
                    texts.extend(
                        sentences(spoken).into_iter().filter(|it| is_long(it.text)).map(|it| it.text.to_owned()),
                    );
                }
                return texts;
            }
            _ => return Vec::new(),
        };
        let mut texts = self.watch.asks(list);
        if !texts.is_empty() {
            let recent = self.said.iter().rev().take(LOOK_BACK).filter(|it| is_long(&it.text));
            texts.extend(recent.map(|it| it.text.clone()));
        }
        texts
    }

    /// For what there was no room, since this was last asked.
    pub fn refused(&mut self) -> Refused {
        std::mem::take(&mut self.refused)
    }

    /// What trackers find by their words in an utterance that still goes on; nothing when nobody asked for that.
    #[must_use]
    pub fn so_far(&self, partial: &Partial) -> Vec<Tracked> {
        if !self.streams.values().any(|it| it.tracker_interim_results) {
            return Vec::new();
        }
        let of = hearsay_protocol::UtteranceId::sentence;
        let one = One { message: of(partial.utterance, 0), from: &partial.participant, text: &partial.text };
        let found = one.matches(self.watch.find_all(&partial.text, None, MEANT, AS_NEAR, None)).into_iter();
        let tracked = |it: Insight| {
            let InsightBody::Tracker { tracker, value } = it.body else { return None };
            let at = it.evidence.first()?;
            let (utterance, text) = (partial.utterance, partial.text.clone());
            Some(Tracked { utterance, tracker, value, text, start: at.start, end: at.end })
        };
        found.filter_map(tracked).take(MATCHES).collect()
    }

    /// What follows from the next event of the log, in order. Without `meaning`, trackers find their words only: do so for
    /// what was told before.
    pub fn apply(&mut self, event: &Event, meaning: Option<&dyn Meaning>) -> Vec<Event> {
        let found = match event {
            Event::StreamStarted(started) => {
                self.meet(&started.participant);
                self.configure(started.stream, started.config.clone(), meaning)
            }
            Event::ConfigChanged(changed) => self.configure(changed.stream, changed.config.clone(), meaning),
            Event::StreamEnded(ended) => {
                let gone = self.streams.remove(&ended.stream);
                if gone.is_some_and(|it| !it.entities.is_empty()) {
                    self.collect();
                }
                self.watch.ask(ended.stream, &[], self.sentences);
                self.reckon();
                Vec::new()
            }
            Event::Final(spoken) => self.hear(spoken, meaning),
            Event::Ended(_) => self.look(),
            Event::Started(_) | Event::Joined(_) | Event::Left(_) | Event::Insight(_) => Vec::new(),
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
        self.name();
    }

    fn name(&mut self) {
        self.names = Names::new(self.people.iter().map(|it| it.name.as_deref().unwrap_or_default()), &self.things);
    }

    /// The things that anybody asks for, each once: those that are looked for stay, others come while there is room.
    fn collect(&mut self) {
        let mut streams: Vec<_> = self.streams.iter().filter(|it| !it.1.entities.is_empty()).collect();
        streams.sort_by_key(|it| it.0.0);
        let mut asked: HashSet<&CustomEntity> = streams.iter().flat_map(|it| &it.1.entities).collect();
        let before = self.things.len();
        self.things.retain(|it| asked.remove(it));
        let mut news = before != self.things.len();
        for thing in streams.into_iter().flat_map(|it| &it.1.entities) {
            if self.things.len() < MOST_ENTITIES && asked.remove(thing) {
                self.things.push(thing.clone());
                news = true;
            }
        }
        if news {
            self.name();
        }
    }

    fn configure(
        &mut self,
        stream: StreamId,
        mut config: SpeakerConfig,
        meaning: Option<&dyn Meaning>,
    ) -> Vec<Insight> {
        let list: Vec<Tracker> = std::mem::take(&mut config.trackers);
        let things = config.entities.clone();
        let before = self.streams.insert(stream, config);
        if before.map(|it| it.entities).unwrap_or_default() != things {
            self.collect();
            let looked_for: HashSet<&CustomEntity> = self.things.iter().collect();
            let asked: HashSet<&CustomEntity> = things.iter().collect();
            self.refused.entities += asked.difference(&looked_for).count();
        }
        self.reckon();
        let taken = self.watch.ask(stream, &list, self.sentences);
        self.refused.trackers += taken.refused;
        if taken.fresh.is_empty() {
            return Vec::new();
        }
        if let Some(meaning) = meaning {
            self.watch.understand(meaning);
        }
        let mut found = Vec::new();
        for (back, said) in self.said.iter().rev().enumerate() {
            let number = self.sentences - 1 - back as u64;
            let vector = meaning.filter(|_| back < LOOK_BACK).and_then(|it| meant(&said.text, it));
            let hits = self.watch.find_all(&said.text, vector.as_ref(), MEANT, AS_NEAR, Some((&taken.fresh, number)));
            let mut of_one = One { message: said.message, from: &said.from, text: &said.text }.matches(hits);
            of_one.reverse();
            found.append(&mut of_one);
            if found.len() >= FOUND_BACK {
                break;
            }
        }
        found.reverse();
        found
    }

    fn reckon(&mut self) {
        let asks = |kind: &str| self.streams.values().any(|it| it.insight_types.iter().any(|it| it == kind));
        self.topical |= self.streams.values().any(|it| !it.insight_types.is_empty());
        self.intents |= ["intent", "question", "action_item", "follow_up"].into_iter().any(asks);
        self.wanted = Wanted {
            questions: asks("question"),
            actions: asks("action_item"),
            follow_ups: asks("follow_up"),
            intents: self.intents,
        };
        self.detects = self.streams.values().any(|it| it.detect_entities);
    }

    fn hear(&mut self, spoken: &Final, meaning: Option<&dyn Meaning>) -> Vec<Insight> {
        let mut found = Vec::new();
        let meaning = meaning.filter(|_| !self.watch.is_empty());
        if let Some(meaning) = meaning {
            self.watch.understand(meaning);
        }
        let all = sentences(spoken);
        for (at, sentence) in all.iter().enumerate() {
            let one = One { message: sentence.id, from: &spoken.participant, text: sentence.text };
            let next = all.get(at + 1).map(|it| Neighbour { text: it.text, same_speaker: true });
            found.extend(self.read(&one, spoken, sentence, next));
            let vector = meaning.and_then(|it| meant(sentence.text, it));
            found.extend(one.matches(self.watch.find_all(sentence.text, vector.as_ref(), MEANT, AS_NEAR, None)));
            self.keep(sentence.id, &spoken.participant, sentence.text);
            if self.topics.hear(sentence.text) {
                self.counted = (self.counted.0 + 1, self.counted.1 + 1);
            }
        }
        if self.counted.1 >= TOPICS_EVERY {
            found.extend(self.look());
        }
        found
    }

    /// What a sentence does, to those before it too, and what it names.
    fn read(
        &mut self,
        one: &One<'_>,
        spoken: &Final,
        sentence: &Sentence<'_>,
        next: Option<Neighbour<'_>>,
    ) -> Vec<Insight> {
        let zone = self.streams.get(&spoken.stream).and_then(|it| {
            let named = it.time_zone.as_deref().and_then(|name| Zone::parse(name).ok());
            named.or_else(|| Zone::minutes(it.timezone_offset_min))
        });
        let zone = zone.unwrap_or_default();
        let at = spoken.origin.0.saturating_add(sentence.start.0);
        let context = Context { now: zone.civil(at), names: &self.names };
        let speaker = self.people.iter().position(|it| it.id == spoken.participant.id);
        let task = grammar::task(one.text, speaker, &context);
        let assignee = match task.assignees.first() {
            Some(Assignee::Person(index)) => self.people.get(*index).cloned(),
            _ => None,
        };
        let mut entities = grammar::entities(one.text, &context);
        // Bare numbers and "now" are everywhere, and tell nobody anything.
        entities.retain(|it| it.kind != Kind::Number && !it.text.eq_ignore_ascii_case("now"));
        let is_date =
            |it: &Entity| matches!(it.kind, Kind::Date | Kind::DateTime | Kind::DateRange | Kind::DateTimeRange);
        let date = entities.iter().rposition(is_date);
        let dated = date.and_then(|it| one.text.get(entities[it].start..)).and_then(|rest| {
            let rest = ["by ", "on ", "before "].iter().find_map(|it| rest.strip_prefix(it)).unwrap_or(rest);
            let by = grammar::task(&format!("I will do it by {rest}"), speaker, &context);
            zone.rfc3339(by.due?.moment())
        });
        let deed = Deed {
            message: one.message,
            from: Arc::clone(one.from),
            text: one.text.to_owned(),
            hint: task.hint,
            assignee,
            due: task.due.as_ref().and_then(|due| zone.rfc3339(due.moment())),
            date: date.filter(|_| self.detects).map(|it| self.entity(one, &entities[it])),
            dated,
        };
        let told = self.deeds.hear(deed, next, self.wanted);
        if told.corrected
            && let Some(date) = date
        {
            entities.remove(date);
        }
        if !self.detects {
            // Dates were read for what is to be done by them; nobody asked to be told of them.
            entities.retain(|it| it.kind == Kind::Custom);
        }
        let mut found = told.insights;
        found.extend(entities.iter().take(ENTITIES).map(|it| self.entity(one, it)));
        found
    }

    /// What it is about by now, where that has changed.
    fn look(&mut self) -> Vec<Insight> {
        self.counted.1 = 0;
        if !self.topical {
            return Vec::new();
        }
        let most = TOPICS.0.min(self.counted.0 / TOPICS.1);
        let best = self.topics.best(most.max(FALLEN));
        let mut found = Vec::new();
        self.told.retain_mut(|(stems, insight)| {
            let stays = best.iter().any(|it| it.stems == *stems);
            if !stays {
                insight.revision += 1;
                insight.retracted = true;
                found.push(insight.clone());
            }
            stays
        });
        for topic in best.into_iter().take(most) {
            // Part of one that was told says nothing new.
            let known = |told: &Vec<String>| topic.stems.iter().all(|stem| told.contains(stem));
            if self.told.iter().any(|it| known(&it.0)) {
                continue;
            }
            if let Some(insight) = self.topic(&topic) {
                found.push(insight.clone());
                self.told.push((topic.stems, insight));
            }
        }
        found
    }

    /// With the latest sentences that have its words; none when they are forgotten.
    fn topic(&self, topic: &Topic) -> Option<Insight> {
        let mention = |said: &Said| {
            let at = find(&said.text, &topic.phrase)?;
            let character = |byte: usize| said.text.get(..byte).map_or(0, |it| it.chars().count() as u32);
            Some(Evidence { message: said.message, start: character(at), end: character(at + topic.phrase.len()) })
        };
        let mut evidence: Vec<Evidence> = self.said.iter().rev().filter_map(mention).take(MENTIONS).collect();
        evidence.reverse();
        let kind = format!("topic {}", topic.stems.join(" "));
        Some(Insight {
            id: EventId::of_insight(evidence.first()?.message, &kind, 0),
            revision: 0,
            retracted: false,
            confidence: f32::midpoint(1.0, topic.score),
            text: topic.phrase.clone(),
            from: None,
            evidence,
            body: InsightBody::Topic { phrase: topic.phrase.clone(), root_words: topic.stems.clone() },
        })
    }

    /// Remembered for trackers that come later.
    fn keep(&mut self, message: Uuid, from: &Arc<Participant>, text: &str) {
        self.sentences += 1;
        // One that is too long keeps its place.
        let text = if text.len() > SAID.1 { "" } else { text };
        self.characters += text.len();
        self.said.push_back(Said { message, from: Arc::clone(from), text: text.to_owned() });
        while (self.said.len() > SAID.0 || self.characters > SAID.1)
            && let Some(oldest) = self.said.pop_front()
        {
            self.characters -= oldest.text.len();
        }
    }

    fn entity(&self, one: &One<'_>, entity: &Entity) -> Insight {
        let value = match entity.value() {
            Value::Person(index) => self.names.people().get(*index).cloned().unwrap_or_default(),
            Value::Custom(index) => self.things.get(*index).map(|it| it.value.clone()).unwrap_or_default(),
            value => value.to_string(),
        };
        let kind = match entity.value() {
            Value::Custom(index) => {
                let of = self.things.get(*index).map_or("", |it| &it.custom_type);
                format!("{}{of}", InsightBody::CUSTOM)
            }
            _ => entity.kind.name().to_owned(),
        };
        let body = InsightBody::Entity { kind: kind.clone(), value };
        one.insight(&kind, entity.start, BY_RULE, entity.text.clone(), (entity.start, entity.end), body)
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

    /// What trackers find: each phrase of each tracker once, or, where none was said, that the like is meant.
    fn matches(&self, hits: Vec<Hit<'_>>) -> Vec<Insight> {
        let mut found = Vec::new();
        for Hit { tracker, how } in hits {
            let mut seen = HashSet::new();
            let mut put = |phrase: usize, confidence: f32, words: &str, span: (usize, usize)| {
                if found.len() < MATCHES && seen.insert(phrase) {
                    let value = tracker.phrases.phrase(phrase).to_owned();
                    let body = InsightBody::Tracker { tracker: tracker.name.clone(), value };
                    let kind = format!("tracker {}", tracker.name);
                    found.push(self.insight(&kind, phrase, confidence, words.to_owned(), span, body));
                }
            };
            match how {
                How::Said(said) => {
                    for it in said {
                        put(it.phrase, 1.0, self.text.get(it.start..it.end).unwrap_or_default(), (it.start, it.end));
                    }
                }
                // Without extent: no words of it were said.
                How::Meant { near, phrase } => put(phrase, near.min(1.0), self.text, (0, 0)),
            }
        }
        found
    }
}

/// Where a phrase in lower case stands in a text, whatever its case: bytes. Texts that grow in lower case have none.
fn find(text: &str, phrase: &str) -> Option<usize> {
    let lower = text.to_lowercase().replace('’', "'");
    let at = lower.find(phrase)?;
    (lower.len() == text.len() && text.is_char_boundary(at) && text.is_char_boundary(at + phrase.len())).then_some(at)
}

/// It says enough to mean something by itself.
fn is_long(text: &str) -> bool {
    text::words(text).nth(MEANING_WORDS - 1).is_some()
}

fn meant(text: &str, meaning: &dyn Meaning) -> Option<Vector> {
    is_long(text).then(|| meaning.of(text))?
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
            sentiment: Vec::new(),
            trace: None,
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

    fn all(events: Vec<Event>) -> Vec<Insight> {
        let insight = |event| match event {
            Event::Insight(insight) => Arc::unwrap_or_clone(insight),
            other => panic!("not an insight: {other:?}"),
        };
        events.into_iter().map(insight).collect()
    }

    /// But for what sentences are said for, which most are for something.
    fn told(events: Vec<Event>) -> Vec<Insight> {
        all(events).into_iter().filter(|it| !matches!(it.body, InsightBody::Intent { .. })).collect()
    }

    #[test]
    fn who_does_what_by_when() {
        let mut analysis = Analysis::new();
        let everything =
            SpeakerConfig { timezone_offset_min: -420, ..wants(&["question", "action_item", "follow_up"]) };
        analysis.apply(&joins(1, "Anna Kim", everything), None);
        analysis.apply(&joins(2, "Bob Reyes", wants(&[])), None);
        let found = told(
            analysis.apply(&says(1, "Anna Kim", 5, "Bob, please send the report by Friday. Shall we start?"), None),
        );
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
    fn a_question_needs_no_question_mark() {
        let mut analysis = Analysis::new();
        analysis.apply(&joins(1, "Anna Kim", wants(&["question"])), None);
        let found = told(analysis.apply(&says(1, "Anna Kim", 5, "So do you know when they are coming."), None));
        assert!(found[0].confidence >= 0.5 && found[0].body == InsightBody::Question, "{found:?}");
        assert_eq!(told(analysis.apply(&says(1, "Anna Kim", 9, "They come when they like."), None)), []);
    }

    #[test]
    fn a_question_may_be_one_by_its_tone() {
        let mut analysis = Analysis::new();
        analysis.apply(&joins(1, "Anna Kim", wants(&["question"])), None);
        assert_eq!(told(analysis.apply(&says(1, "Anna Kim", 5, "And now? And now."), None)).len(), 1);
    }

    #[test]
    fn nobody_is_told_what_nobody_asked_for() {
        let mut analysis = Analysis::new();
        analysis.apply(&joins(1, "Anna Kim", wants(&["topic"])), None);
        assert_eq!(
            told(analysis.apply(&says(1, "Anna Kim", 5, "Can you call me on Friday at 555-123-4567?"), None)),
            []
        );
    }

    fn thing(custom_type: &str, value: &str, text: &str) -> CustomEntity {
        CustomEntity { custom_type: custom_type.to_owned(), value: value.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn things_are_found_by_the_names_they_were_given() {
        let mut analysis = Analysis::new();
        let config = SpeakerConfig { entities: vec![thing("Project", "Hearsay", "the gateway")], ..wants(&[]) };
        analysis.apply(&joins(1, "Anna", config), None);
        analysis
            .apply(&joins(2, "Bob", SpeakerConfig { entities: vec![thing("Ship", "Ada", "Ada")], ..wants(&[]) }), None);
        let value = |it: &Insight| match &it.body {
            InsightBody::Entity { kind, value } => (kind.clone(), value.clone()),
            other => panic!("{other:?}"),
        };
        let say =
            |analysis: &mut Analysis, at| told(analysis.apply(&says(1, "Anna", at, "So Ada has the gateway."), None));
        let found: Vec<_> = say(&mut analysis, 5).iter().map(value).collect();
        let of = |kind: &str, value: &str| (kind.to_owned(), value.to_owned());
        assert_eq!(found, [of("custom:Ship", "Ada"), of("custom:Project", "Hearsay")]);
        // Other things take their place.
        let many = (0..3_000).map(|it| thing("Part", &format!("{it}"), &format!("part {it}")));
        let config = SpeakerConfig { entities: many.collect(), ..wants(&[]) };
        let changed = ConfigChanged { stream: StreamId(Uuid::from_u128(1)), config };
        analysis.apply(&Event::ConfigChanged(Arc::new(changed)), None);
        assert_eq!(analysis.refused(), Refused { trackers: 0, entities: 3_001 - MOST_ENTITIES });
        assert_eq!(say(&mut analysis, 15).iter().map(value).filter(|it| it.0 == "custom:Project").count(), 0);
        // Who comes then is told of its own alone.
        let config = SpeakerConfig { entities: vec![thing("Shop", "Bea", "Bea")], ..wants(&[]) };
        analysis.apply(&joins(3, "Cleo", config), None);
        assert_eq!(analysis.refused(), Refused { trackers: 0, entities: 1 });
    }

    #[test]
    fn days_are_those_of_the_speakers_clock() {
        let mut analysis = Analysis::new();
        let config = SpeakerConfig { time_zone: Some("Pacific/Auckland".to_owned()), ..wants(&["action_item"]) };
        analysis.apply(&joins(1, "Anna Kim", config), None);
        // 10:00 UTC on a Wednesday is 23:00 there, in summer.
        let found = told(analysis.apply(&says(1, "Anna Kim", 3_600_000_000, "I'll send the report tomorrow."), None));
        let task = found.iter().find(|it| matches!(it.body, InsightBody::ActionItem { .. })).unwrap();
        assert_eq!(body_of(task).1, Some("2026-03-13T00:00:00+13:00"));
    }

    #[test]
    fn sentences_are_said_for_something() {
        let mut analysis = Analysis::new();
        analysis.apply(&joins(1, "Anna Kim", wants(&["question"])), None);
        let intents = |found: Vec<Insight>| -> Vec<String> {
            let intent = |it: Insight| match it.body {
                InsightBody::Intent { intent } => Some(intent),
                _ => None,
            };
            found.into_iter().filter_map(intent).collect()
        };
        let found = all(analysis.apply(&says(1, "Anna Kim", 5, "Do you know when they are coming?"), None));
        assert_eq!(intents(found), ["question"]);
        let found = all(analysis.apply(&says(1, "Anna Kim", 15, "I'll send the report by Friday."), None));
        assert_eq!(intents(found), ["commitment"]);
        let found = all(analysis.apply(&says(1, "Anna Kim", 25, "Please send me the report by Friday."), None));
        assert_eq!(intents(found), ["directive"]);
    }

    #[test]
    fn trackers_are_told_of_what_is_still_said() {
        let mut analysis = Analysis::new();
        let boat = vec![tracker("Boat", &["boat"])];
        let quiet = SpeakerConfig { trackers: boat.clone(), ..SpeakerConfig::default() };
        analysis.apply(&joins(1, "Anna", quiet.clone()), None);
        let partial = Partial {
            stream: StreamId(Uuid::from_u128(1)),
            utterance: UtteranceId(Uuid::from_u128(6)),
            revision: 1,
            participant: person(1, "Anna"),
            origin: WEDNESDAY,
            start: StreamTime(0),
            end: StreamTime(1),
            text: "So a boat".to_owned(),
            stable: 0,
            confidence: 0.5,
        };
        assert_eq!(analysis.so_far(&partial), []);
        analysis.apply(&joins(2, "Bob", SpeakerConfig { tracker_interim_results: true, ..wants(&[]) }), None);
        let found = analysis.so_far(&partial);
        assert!(matches!(&found[..], [it] if (it.start, it.end, it.tracker.as_str()) == (5, 9, "Boat")), "{found:?}");
    }

    #[test]
    fn entities_stand_with_their_value_and_their_place() {
        let mut analysis = Analysis::new();
        analysis.apply(&joins(1, "Zoë Kim", SpeakerConfig { detect_entities: true, ..SpeakerConfig::default() }), None);
        let found = told(analysis.apply(&says(1, "Zoë Kim", 5, "Größe: 3 now cost 20 dollars, Zoë."), None));
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
        analysis.apply(
            &joins(1, "Anna", SpeakerConfig { trackers: vec![price.clone()], ..SpeakerConfig::default() }),
            None,
        );
        let first = told(analysis.apply(&says(1, "Anna", 5, "The price, the price! And how much is the boat?"), None));
        assert_eq!(first.len(), 2, "each phrase once: {first:?}");
        let boat = tracker("Boat", &["boat"]);
        let config = SpeakerConfig { trackers: vec![price, boat.clone(), boat], ..SpeakerConfig::default() };
        let stream = StreamId(Uuid::from_u128(1));
        let later = Event::ConfigChanged(Arc::new(ConfigChanged { stream, config }));
        let late = told(analysis.apply(&later, None));
        assert_eq!(late.len(), 1, "only what is new looks back: {late:?}");
        assert_eq!(late[0].body, InsightBody::Tracker { tracker: "Boat".to_owned(), value: "boat".to_owned() });
        assert_eq!(late[0].evidence[0].message, first[1].evidence[0].message);
        assert_eq!(analysis.apply(&later, None), []);
    }

    fn asks_for(trackers: Vec<Tracker>) -> Event {
        let config = SpeakerConfig { trackers, ..SpeakerConfig::default() };
        Event::ConfigChanged(Arc::new(ConfigChanged { stream: StreamId(Uuid::from_u128(1)), config }))
    }

    #[test]
    fn a_new_list_of_trackers_takes_the_place_of_the_old() {
        let mut analysis = Analysis::new();
        let (boat, ship) = (tracker("Boat", &["boat"]), tracker("Ship", &["ship"]));
        let config = SpeakerConfig { trackers: vec![boat.clone()], ..SpeakerConfig::default() };
        analysis.apply(&joins(1, "Anna", config), None);
        assert_eq!(analysis.apply(&asks_for(vec![ship.clone()]), None), []);
        let found = told(analysis.apply(&says(1, "Anna", 5, "A boat and a ship."), None));
        assert_eq!(found.iter().map(|it| it.text.as_str()).collect::<Vec<_>>(), ["ship"]);
        // Who asks for it again is told what was missed, and nothing twice.
        let late = told(analysis.apply(&asks_for(vec![ship, boat]), None));
        assert_eq!(late.iter().map(|it| it.text.as_str()).collect::<Vec<_>>(), ["boat"]);
        analysis.apply(&asks_for(Vec::new()), None);
        assert_eq!(analysis.apply(&says(1, "Anna", 15, "A boat and a ship."), None), []);
    }

    #[test]
    fn a_thousand_trackers_look_back_in_bounded_time() {
        let mut analysis = Analysis::new();
        analysis.apply(&joins(1, "Anna", wants(&[])), None);
        for at in 0..5_000 {
            let text = format!("a b c number {} of many things that were said here.", at % 50);
            analysis.apply(&says(1, "Anna", at * 10, &text), None);
        }
        // One letter, what reads like a pattern, and numbers.
        let vocabulary = |it: u64| match it % 4 {
            0 => vec!["a".to_owned()],
            1 => vec!["(a|b)*".to_owned(), ".*".to_owned(), "^$".to_owned(), "[".to_owned()],
            2 => vec![format!("a b c number {it} of many things")],
            _ => vec![format!("number {it}")],
        };
        let name = |it| Tracker { id: None, name: format!("Tracker {it}"), vocabulary: vocabulary(it) };
        let begun = std::time::Instant::now();
        let found = told(analysis.apply(&asks_for((0..1_100).map(name).collect()), None));
        assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
        assert!((FOUND_BACK..FOUND_BACK + MATCHES).contains(&found.len()), "{}", found.len());
        assert_eq!((analysis.refused().trackers, analysis.refused().trackers), (76, 0));
    }

    #[test]
    fn topics_are_told_and_taken_back() {
        let mut analysis = Analysis::new();
        analysis.apply(&joins(1, "Anna", wants(&["topic"])), None);
        let mut found = Vec::new();
        for at in 0..12 {
            found.extend(told(analysis.apply(&says(1, "Anna", at, "The Marketing Budget is what it is."), None)));
        }
        let [budget] = &found[..] else { panic!("{found:?}") };
        let root_words = vec!["market".to_owned(), "budget".to_owned()];
        assert_eq!(budget.body, InsightBody::Topic { phrase: "marketing budget".to_owned(), root_words });
        assert_eq!((budget.evidence.len(), budget.from.is_none()), (MENTIONS, true));
        assert_eq!((budget.evidence[0].start, budget.evidence[0].end), (4, 20));
        let mut later = Vec::new();
        for at in 0..4_000_u64 {
            let text = format!("Turnip{0:x} soup and parsnip{0:x} pie.", at % 40);
            later.extend(told(analysis.apply(&says(1, "Anna", 100 + at, &text), None)));
        }
        let back: Vec<_> = later.iter().filter(|it| it.id == budget.id).collect();
        assert!(matches!(back[..], [it] if it.retracted && it.revision == 1), "{back:?}");
        assert!(analysis.told.len() <= FALLEN);
    }

    #[test]
    fn at_the_end_a_short_meeting_has_topics_too() {
        let mut analysis = Analysis::new();
        analysis.apply(&joins(1, "Anna", wants(&["question"])), None);
        for at in 0..5 {
            assert_eq!(analysis.apply(&says(1, "Anna", at, "The turnip soup is hot."), None), []);
        }
        let ended =
            hearsay_protocol::event::Ended { at: WEDNESDAY, reason: hearsay_protocol::event::EndReason::Stopped };
        assert_eq!(told(analysis.apply(&Event::Ended(ended), None))[0].text, "turnip soup");
    }

    fn body_of(insight: &Insight) -> (Option<&str>, Option<&str>) {
        match &insight.body {
            InsightBody::ActionItem { assignee, due } => {
                (assignee.as_ref().and_then(|it| it.name.as_deref()), due.as_deref())
            }
            other => panic!("{other:?}"),
        }
    }

    fn both() -> Analysis {
        let mut analysis = Analysis::new();
        let config = SpeakerConfig { detect_entities: true, ..wants(&["question", "action_item", "follow_up"]) };
        analysis.apply(&joins(1, "Anna Kim", config), None);
        analysis.apply(&joins(2, "Bob Reyes", wants(&[])), None);
        analysis
    }

    fn is_entity(it: &Insight) -> bool {
        matches!(it.body, InsightBody::Entity { .. })
    }

    #[test]
    fn a_date_is_put_right() {
        let mut analysis = both();
        let said = told(analysis.apply(&says(1, "Anna Kim", 5, "I'll send the report by Thursday."), None));
        let (date, task): (Vec<_>, Vec<_>) = said.into_iter().partition(is_entity);
        assert_eq!(body_of(&task[0]), (Some("Anna Kim"), Some("2026-03-12T00:00:00+00:00")));
        let said = told(analysis.apply(&says(1, "Anna Kim", 15, "No, Friday."), None));
        let (dates, tasks): (Vec<_>, Vec<_>) = said.into_iter().partition(is_entity);
        assert_eq!((tasks[0].id, tasks[0].revision, tasks[0].retracted), (task[0].id, 1, false));
        assert_eq!(body_of(&tasks[0]), (Some("Anna Kim"), Some("2026-03-13T00:00:00+00:00")));
        assert_eq!(tasks[0].evidence.len(), 2, "its words, and those that changed it");
        let [right] = &dates[..] else { panic!("{dates:?}") };
        assert_eq!((right.id, right.revision, right.text.as_str()), (date[0].id, 1, "Friday"));
        assert!(matches!(&right.body, InsightBody::Entity { value, .. } if value == "2026-03-13"), "{right:?}");
    }

    #[test]
    fn a_date_is_put_right_for_who_asks_for_tasks_alone() {
        let mut analysis = Analysis::new();
        analysis.apply(&joins(1, "Anna Kim", wants(&["action_item"])), None);
        let said = told(analysis.apply(&says(1, "Anna Kim", 5, "I'll send the report by Thursday."), None));
        assert_eq!(body_of(&said[0]), (Some("Anna Kim"), Some("2026-03-12T00:00:00+00:00")));
        let right = told(analysis.apply(&says(1, "Anna Kim", 15, "No, Friday."), None));
        let [right] = &right[..] else { panic!("{right:?}") };
        assert_eq!((right.id, right.revision), (said[0].id, 1));
        assert_eq!(body_of(right), (Some("Anna Kim"), Some("2026-03-13T00:00:00+00:00")));
    }

    #[test]
    fn who_agrees_is_to_do_it() {
        let mut analysis = both();
        let task = told(analysis.apply(&says(1, "Anna Kim", 5, "Somebody needs to send the report by Friday."), None));
        let task: Vec<_> = task.into_iter().filter(|it| !is_entity(it)).collect();
        assert_eq!(body_of(&task[0]), (None, Some("2026-03-13T00:00:00+00:00")));
        let said = told(analysis.apply(&says(2, "Bob Reyes", 15, "Okay, I'll do that."), None));
        let [taken] = &said[..] else { panic!("{said:?}") };
        assert_eq!((taken.id, taken.revision, taken.evidence.len()), (task[0].id, 1, 2));
        assert_eq!(body_of(taken), (Some("Bob Reyes"), Some("2026-03-13T00:00:00+00:00")));
        // And need not, after all.
        let said = told(analysis.apply(&says(1, "Anna Kim", 25, "Never mind."), None));
        let [back] = &said[..] else { panic!("{said:?}") };
        assert_eq!((back.id, back.revision, back.retracted), (task[0].id, 2, true));
    }

    #[test]
    fn a_suggestion_that_is_taken_is_a_task() {
        let mut analysis = both();
        let said = told(analysis.apply(&says(1, "Anna Kim", 5, "A new logo could be nice."), None));
        let taken = told(analysis.apply(&says(2, "Bob Reyes", 15, "Sure, I can do that."), None));
        let [task] = &taken[..] else { panic!("{said:?} {taken:?}") };
        assert_eq!((task.text.as_str(), body_of(task).0), ("A new logo could be nice.", Some("Bob Reyes")));
        assert_eq!((task.revision, task.evidence.len()), (0, 2));
    }

    /// Knows two things: money, and everything else.
    struct Money;

    impl Meaning for Money {
        fn of(&self, text: &str) -> Option<Vector> {
            let money = ["price", "cost", "pay", "dollars"].iter().any(|it| text.contains(it));
            let mut vector = [0.0; crate::meaning::DIMENSIONS];
            vector[usize::from(money)] = 1.0;
            Some(vector)
        }
    }

    #[test]
    fn a_tracker_finds_what_means_the_like() {
        let mut analysis = Analysis::new();
        let said = |at, text| says(1, "Anna", at, text);
        let price = tracker("Price", &["...", "the price of it"]);
        let config = SpeakerConfig { trackers: vec![price.clone()], ..SpeakerConfig::default() };
        assert_eq!(analysis.asks(&joins(1, "Anna", config.clone())), ["the price of it"]);
        assert!(analysis.asks(&said(1, "What would I have to pay?")).is_empty());
        analysis.apply(&joins(1, "Anna", config.clone()), Some(&Money));
        let found = told(analysis.apply(&said(5, "What would I have to pay? It is so late. Why pay?"), Some(&Money)));
        let [like] = &found[..] else { panic!("{found:?}") };
        assert_eq!(
            like.body,
            InsightBody::Tracker { tracker: "Price".to_owned(), value: "the price of it".to_owned() }
        );
        assert_eq!((like.evidence[0].start, like.evidence[0].end), (0, 0), "no words of it were said");
        assert_eq!((like.text.as_str(), like.confidence), ("What would I have to pay?", 1.0));
        // Its words are more than its meaning, and without a model they are all there is.
        let exact = told(analysis.apply(&said(9, "So the price of it is what you pay."), Some(&Money)));
        assert_eq!(exact.len(), 1);
        assert_eq!((exact[0].evidence[0].start, exact[0].evidence[0].end), (3, 18));
        assert_eq!(told(analysis.apply(&said(12, "What would I have to pay?"), None)), []);
        // One that comes late looks back; the nearest two are told, the other is not.
        let cost = tracker("Cost", &["what does it cost us"]);
        let night = tracker("Night", &["in the middle of the night"]);
        let config = SpeakerConfig { trackers: vec![price, cost, night], ..SpeakerConfig::default() };
        let stream = StreamId(Uuid::from_u128(1));
        let later = Event::ConfigChanged(Arc::new(ConfigChanged { stream, config }));
        let late = told(analysis.apply(&later, Some(&Money)));
        let of = |name: &str| {
            late.iter().filter(|it| matches!(&it.body, InsightBody::Tracker { tracker, .. } if tracker == name)).count()
        };
        assert_eq!((of("Cost"), of("Night"), of("Price")), (3, 1, 0), "{late:?}");
        let both = told(analysis.apply(&said(20, "I can pay 20 dollars for it."), Some(&Money)));
        assert_eq!(both.len(), 2, "{both:?}");
    }

    #[test]
    fn phrases_that_are_weighed_are_bounded() {
        let mut analysis = Analysis::new();
        let phrases: Vec<String> = (0..100).map(|it| format!("phrase {it}")).collect();
        let phrases: Vec<&str> = phrases.iter().map(String::as_str).collect();
        let trackers = (0..1_000).map(|it| tracker(&format!("Tracker {it}"), &phrases)).collect();
        analysis.apply(&joins(1, "Anna", SpeakerConfig { trackers, ..SpeakerConfig::default() }), Some(&Money));
        assert_eq!(analysis.watch.meant(), 2_048);
        let found = told(analysis.apply(&says(1, "Anna", 5, "This is phrase 7 of many."), Some(&Money)));
        assert_eq!(found.len(), MATCHES);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut analysis = Analysis::new();
        for number in 0..20_000 {
            analysis.apply(&says(1, "Anna", number, "Some words that are said again and again, as it happens."), None);
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
                let mut found = all(analysis.apply(&joins(1, "Anna", config.clone()), None));
                for (number, text) in texts.iter().enumerate() {
                    found.extend(all(analysis.apply(&says(1, "Anna", number as u64 * 10, text), None)));
                }
                found
            };
            let (first, second) = (run(), run());
            let ids: HashSet<_> = first.iter().map(|it| (it.id, it.revision)).collect();
            prop_assert_eq!(ids.len(), first.len());
            prop_assert_eq!(first, second);
        }
    }
}
