//! Renders an event once per kind of reader: every subscriber of an [`Audience`] receives the same bytes.
//!
//! **Positions.** A durable event's `position` stands on the *last* frame it renders to; frames before that, and partials,
//! say what they `follow`. With `view=all` every durable position appears exactly once: on the result the event renders
//! to for this reader, or, when it renders to none, as `{"type":"event","kind":…,"position":…}`. So a reader that asked for
//! everything can check that offsets are contiguous, and what it can also see as a result is not told twice.
//!
//! Cost: one JSON encoding per (event, audience), into one buffer of finished WebSocket frames; nothing per subscriber.

use bytes::Bytes;
use hearsay_bus::{Body, Entry};
use hearsay_protocol::{
    ConversationId, Epoch, Event, Offset, Position, Sentence,
    client::ErrorCode,
    event::{Ephemeral, Final, Insight, InsightBody, Partial, Participant, SpeakerConfig, Warning},
    sentences,
    wire::{self, InsightType, Place, User},
};

use crate::frame;

/// The protocol a reader expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Dialect {
    #[default]
    Standard,
    /// Path `/session/subscribe/`: each caption also as a `transcript_response`.
    Telephony,
}

/// Which insights a reader wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct InsightTypes(u8);

impl InsightTypes {
    pub const NONE: Self = Self(0);
    pub const QUESTION: Self = Self(1);
    pub const ACTION_ITEM: Self = Self(2);
    pub const FOLLOW_UP: Self = Self(4);
    pub const TOPIC: Self = Self(8);
    /// Of these clients know no message but that of the telephony dialect.
    pub const INTENT: Self = Self(16);
    /// All that stock clients have events for.
    pub const ALL: Self = Self(15);

    /// By the names clients give them; unknown ones are left out. Topics come with any other, for the clients written in
    /// JavaScript have events for them and refuse to ask for them.
    pub fn named<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Self {
        let asked = names.into_iter().fold(0, |set, name| {
            set | match name.as_ref() {
                "question" => Self::QUESTION.0,
                "action_item" => Self::ACTION_ITEM.0,
                "follow_up" => Self::FOLLOW_UP.0,
                "topic" => Self::TOPIC.0,
                "intent" => Self::INTENT.0,
                _ => 0,
            }
        });
        Self(if asked == 0 { 0 } else { asked | Self::TOPIC.0 })
    }

    pub fn holds(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What a reader gets to see, and how it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct View {
    pub dialect: Dialect,
    pub insights: InsightTypes,
    /// Thousandths: equal views must compare equal.
    threshold: u16,
    pub sentiment: bool,
    pub entities: bool,
    /// Entities that speakers named, also without all others.
    things: bool,
    /// Minutes east of UTC.
    timezone_offset: i16,
    /// Also what trackers find in utterances that still go on.
    interim_trackers: bool,
    /// `view=all`: every durable position, also of internal and filtered events.
    pub unfiltered: bool,
}

impl View {
    /// Who only listens sees all results.
    pub fn listener() -> Self {
        Self {
            dialect: Dialect::Standard,
            insights: InsightTypes::ALL,
            threshold: 0,
            sentiment: false,
            entities: true,
            things: true,
            timezone_offset: 0,
            interim_trackers: false,
            unfiltered: false,
        }
    }

    /// What a speaker asked for.
    pub fn speaker(config: &SpeakerConfig) -> Self {
        Self {
            dialect: Dialect::Standard,
            insights: InsightTypes::named(&config.insight_types),
            threshold: 0,
            sentiment: config.sentiment,
            entities: config.detect_entities,
            things: !config.entities.is_empty(),
            timezone_offset: config.timezone_offset_min.clamp(-1_440, 1_440) as i16,
            interim_trackers: config.tracker_interim_results,
            unfiltered: false,
        }
        .with_threshold(config.confidence_threshold)
    }

    /// Insights of less confidence (0 to 1) are not shown.
    pub fn with_threshold(self, threshold: f32) -> Self {
        Self { threshold: (threshold.clamp(0.0, 1.0) * 1_000.0).round() as u16, ..self }
    }

    pub fn unfiltered(self, unfiltered: bool) -> Self {
        Self { unfiltered, ..self }
    }

    pub fn dialect(self, dialect: Dialect) -> Self {
        Self { dialect, ..self }
    }

    /// Hidden from this reader. A revision or retraction is shown whatever its confidence: an earlier one may stand on
    /// the reader's screen.
    pub(crate) fn hides(&self, insight: &Insight) -> bool {
        let wanted = match &insight.body {
            InsightBody::Question => self.insights.holds(InsightTypes::QUESTION),
            InsightBody::ActionItem { .. } => self.insights.holds(InsightTypes::ACTION_ITEM),
            InsightBody::FollowUp { .. } => self.insights.holds(InsightTypes::FOLLOW_UP),
            InsightBody::Topic { .. } => self.insights.holds(InsightTypes::TOPIC),
            InsightBody::Entity { kind, .. } => {
                self.entities || self.things && InsightBody::custom_type(kind).is_some()
            }
            InsightBody::Tracker { .. } => true,
            InsightBody::Intent { .. } => {
                self.dialect == Dialect::Telephony || self.insights.holds(InsightTypes::INTENT)
            }
        };
        let confident = insight.confidence * 1_000.0 >= f32::from(self.threshold) - 0.5;
        !wanted || !(confident || insight.revision > 0 || insight.retracted)
    }
}

/// Additions a client opted into; stock clients never see them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Opted {
    /// Who joins, leaves, speaks; how many listen.
    pub presence: bool,
    /// Resumed or asked for positions: hears how far it is when long nothing was shown, and of a degraded log.
    pub positions: bool,
    /// Who spoke how long so far.
    pub analytics: bool,
    /// What is known of who returns.
    pub history: bool,
}

/// Readers who receive the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Audience {
    pub view: View,
    pub opted: Opted,
    /// Subscribed to the meeting, not speaking in it: hears that the conversation is complete, and is closed then.
    pub listens: bool,
}

/// What is rendered for whom belongs to a conversation and an epoch.
#[derive(Debug, Clone, Copy)]
pub struct Scene {
    pub conversation: ConversationId,
    pub epoch: Epoch,
}

impl Scene {
    pub fn position(&self, offset: Offset) -> Position {
        Position { epoch: self.epoch, offset }
    }
}

/// Finished frames, contiguous.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    pub bytes: Bytes,
    /// The reader sees nothing of this position.
    pub filtered: bool,
}

impl Rendered {
    fn of(out: Vec<u8>) -> Self {
        Self { filtered: out.is_empty(), bytes: out.into() }
    }
}

/// A durable event as `audience` sees it.
pub fn render(entry: &Entry, scene: &Scene, audience: &Audience) -> Rendered {
    let mut out = Vec::new();
    put(entry, scene, audience, &mut out);
    Rendered::of(out)
}

/// As [`render`], behind what `out` already holds. Answers whether the reader sees anything of it.
pub(crate) fn put(entry: &Entry, scene: &Scene, audience: &Audience, out: &mut Vec<u8>) -> bool {
    let before = out.len();
    let position = scene.position(entry.offset);
    let kind = match &entry.body {
        Body::Event(event) => {
            put_event(event, entry, scene, audience, out);
            event.kind().name()
        }
        Body::Tombstone => "unknown",
    };
    if out.len() == before && audience.view.unfiltered {
        frame::put_text(&wire::event(kind, position), out);
    }
    out.len() > before
}

/// An event whose id was delivered before history branched: its new position is shown to `view=all` only.
pub(crate) fn put_reappended(offset: Offset, scene: &Scene, audience: &Audience, out: &mut Vec<u8>) -> bool {
    if audience.view.unfiltered {
        frame::put_text(&wire::event("reappended", scene.position(offset)), out);
    }
    audience.view.unfiltered
}

fn put_event(event: &Event, entry: &Entry, scene: &Scene, audience: &Audience, out: &mut Vec<u8>) {
    let position = scene.position(entry.offset);
    match event {
        Event::Final(spoken) => put_final(spoken, entry, scene, audience, out),
        Event::Insight(insight) if !audience.view.hides(insight) => {
            frame::put_text(&insight_text(insight, entry.sequence, position), out);
        }
        Event::Joined(who) if audience.opted.presence => {
            frame::put_text(&wire::presence("joined", user(Some(who)), Place::At(position)), out);
        }
        Event::Left(who) if audience.opted.presence => {
            frame::put_text(&wire::presence("left", user(Some(who)), Place::At(position)), out);
        }
        // A speaker's own connection tells it of the end, in the order its client needs.
        Event::Ended(_) if audience.listens => {
            frame::put_text(&wire::conversation_completed(scene.conversation, Some(position)), out);
        }
        _ => (),
    }
}

fn user(participant: Option<&Participant>) -> User<'_> {
    participant.map_or(User::NOBODY, User::from)
}

fn put_final(spoken: &Final, entry: &Entry, scene: &Scene, audience: &Audience, out: &mut Vec<u8>) {
    let who = user(Some(&spoken.participant));
    let follows = scene.position(Offset(entry.offset.0.saturating_sub(1)));
    // About what both frames take, so that the buffer does not grow by steps: the words stand in each of them.
    out.reserve(1_024 + 3 * spoken.text.len() + 200 * spoken.words.len());
    let words: Vec<_> = spoken.words.iter().map(raw_word).collect();
    frame::put_json(
        &wire::RecognitionResult {
            is_final: true,
            text: &spoken.text,
            confidence: spoken.confidence,
            words,
            user: who,
            start: spoken.start,
            follows,
        },
        out,
    );
    if audience.view.dialect == Dialect::Telephony {
        frame::put_text(&wire::transcript_response(&spoken.text, true, who, follows), out);
    }
    let mut messages = Vec::new();
    for (at, Sentence { id, text, start, end, words }) in sentences(spoken).into_iter().enumerate() {
        let words = words.iter().map(raw_word).collect();
        let sentiment = spoken.sentiment.get(at).copied().filter(|_| audience.view.sentiment);
        let timezone_offset = audience.view.timezone_offset;
        let origin = spoken.origin;
        messages.push(wire::Message { id, from: who, text, origin, start, end, words, sentiment, timezone_offset });
    }
    let position = scene.position(entry.offset);
    frame::put_json(&wire::MessageResponse { messages, sequence: entry.sequence, position }, out);
}

fn raw_word(word: &hearsay_protocol::event::SpokenWord) -> wire::RawWord<'_> {
    wire::RawWord { text: &word.text, start: word.start, end: word.end }
}

fn insight_text(insight: &Insight, sequence: u64, position: Position) -> String {
    let inferred = wire::Inferred {
        id: insight.id.0,
        revision: insight.revision,
        retracted: insight.retracted,
        confidence: insight.confidence,
        text: &insight.text,
        evidence: &insight.evidence,
        sequence,
        position,
    };
    let from = user(insight.from.as_deref());
    match &insight.body {
        InsightBody::Question => wire::insight_response(InsightType::Question, inferred, from, None, None),
        InsightBody::ActionItem { assignee, due } => wire::insight_response(
            InsightType::ActionItem,
            inferred,
            from,
            assignee.as_deref().map(User::from),
            due.as_deref(),
        ),
        InsightBody::FollowUp { assignee, due } => wire::insight_response(
            InsightType::FollowUp,
            inferred,
            from,
            assignee.as_deref().map(User::from),
            due.as_deref(),
        ),
        InsightBody::Topic { phrase, root_words } => wire::topic_response(inferred, phrase, root_words),
        InsightBody::Tracker { tracker, value } => wire::tracker_response(inferred, tracker, value),
        InsightBody::Entity { kind, value } => wire::entity_response(inferred, kind, value),
        InsightBody::Intent { intent } => wire::intent_response(inferred, intent, from),
    }
}

/// An announcement as `audience` sees it; none: not at all.
pub fn render_ephemeral(ephemeral: &Ephemeral, follows: Position, audience: &Audience) -> Option<Bytes> {
    let mut out = Vec::new();
    match ephemeral {
        Ephemeral::Partial(partial) => put_partial(partial, follows, audience, &mut out),
        Ephemeral::Speaking { participant, speaking, .. } if audience.opted.presence => {
            let kind = if *speaking { "speaking" } else { "silent" };
            let text = wire::presence(kind, user(Some(participant)), Place::Follows(follows));
            frame::put_text(&text, &mut out);
        }
        Ephemeral::Analytics(found) if audience.opted.analytics => {
            frame::put_text(&wire::analytics(found, follows), &mut out);
        }
        Ephemeral::History(known) if audience.opted.history => {
            frame::put_text(&wire::history(known, follows), &mut out);
        }
        Ephemeral::Tracked(found) if audience.view.interim_trackers => {
            frame::put_text(&wire::tracker_so_far(found, follows), &mut out);
        }
        Ephemeral::Speaking { .. }
        | Ephemeral::Listeners { .. }
        | Ephemeral::Analytics(_)
        | Ephemeral::History(_)
        | Ephemeral::Tracked(_)
        // Only whom it concerns is told, see [`render_warning`].
        | Ephemeral::Warning(_) => {}
    }
    (!out.is_empty()).then(|| out.into())
}

/// What one member alone is told.
pub(crate) fn render_warning(it: &Warning) -> Bytes {
    let mut out = Vec::new();
    frame::put_text(&wire::error(ErrorCode::TooLarge, &it.details, None), &mut out);
    out.into()
}

fn put_partial(partial: &Partial, follows: Position, audience: &Audience, out: &mut Vec<u8>) {
    let who = user(Some(&partial.participant));
    frame::put_json(
        &wire::RecognitionResult {
            is_final: false,
            text: &partial.text,
            confidence: partial.confidence,
            words: Vec::new(),
            user: who,
            start: partial.start,
            follows,
        },
        out,
    );
    if audience.view.dialect == Dialect::Telephony {
        frame::put_text(&wire::transcript_response(&partial.text, false, who, follows), out);
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use hearsay_protocol::{
        EventId, GatewayId, ParticipantId, PublisherId, StreamId, StreamTime, Timestamp, UtteranceId,
        event::{
            ConfigChanged, EndReason, Ended, Evidence, SpokenWord, Started, StreamEnd, StreamEnded, StreamStarted,
            Tracked,
        },
    };
    use serde_json::Value;
    use uuid::Uuid;

    use super::*;

    fn scene() -> Scene {
        Scene { conversation: ConversationId::from_random(0), epoch: Epoch(0x0bad_cafe) }
    }

    fn entry(event: Event) -> Entry {
        Entry {
            offset: Offset(17),
            check: 1,
            at: Timestamp(1),
            id: EventId(Uuid::from_u128(3)),
            sequence: 4,
            publisher: PublisherId::Clock,
            body: Body::Event(event),
        }
    }

    fn ana() -> Arc<Participant> {
        let id = ParticipantId(Uuid::from_u128(1));
        Arc::new(Participant { id, user_id: None, name: Some("Ana".to_owned()), email: None })
    }

    fn spoken() -> Final {
        let words = ["Shall", "we?", "Yes."].into_iter().zip(1_u64..).map(|(text, second)| SpokenWord {
            text: text.to_owned(),
            start: StreamTime(second * 1_000_000),
            end: StreamTime(second * 1_000_000 + 500_000),
            confidence: 0.5,
        });
        Final {
            sentiment: Vec::new(),
            trace: None,
            stream: StreamId(Uuid::from_u128(5)),
            utterance: UtteranceId(Uuid::from_u128(6)),
            participant: ana(),
            origin: Timestamp(1_898_845_200_000_000),
            start: StreamTime(900_000),
            end: StreamTime(3_600_000),
            text: "Shall we? Yes.".to_owned(),
            language: "en-US".to_owned(),
            confidence: 0.5,
            words: words.collect(),
        }
    }

    fn insight(body: InsightBody, confidence: f32) -> Insight {
        Insight {
            id: EventId(Uuid::from_u128(8)),
            revision: 0,
            retracted: false,
            confidence,
            text: "Shall we?".to_owned(),
            from: Some(ana()),
            evidence: vec![Evidence { message: Uuid::from_u128(7), start: 0, end: 5 }],
            body,
        }
    }

    fn listener() -> Audience {
        Audience { view: View::listener(), opted: Opted::default(), listens: true }
    }

    fn frames(bytes: &[u8]) -> Vec<Value> {
        let (mut rest, mut frames) = (bytes, Vec::new());
        while let [0x81, length, ..] = *rest {
            let (head, length) = match length {
                126 => (4, usize::from(u16::from_be_bytes([rest[2], rest[3]]))),
                length => (2, usize::from(length)),
            };
            frames.push(serde_json::from_slice(&rest[head..head + length]).unwrap());
            rest = &rest[head + length..];
        }
        assert!(rest.is_empty());
        frames
    }

    /// The types of the frames, with the key that says where they stand.
    fn shown(event: Event, audience: &Audience) -> Vec<String> {
        let rendered = render(&entry(event), &scene(), audience);
        let frames = frames(&rendered.bytes);
        assert_eq!(rendered.filtered, frames.is_empty());
        let name = |frame: &Value| {
            let place = match (frame.get("position"), frame.get("follows")) {
                (Some(position), None) => format!("position {}", position.as_str().unwrap()),
                (None, Some(follows)) => format!("follows {}", follows.as_str().unwrap()),
                other => panic!("{other:?}"),
            };
            let inner = frame["message"]["type"].as_str().or(frame["kind"].as_str()).unwrap_or_default();
            format!("{} {inner} {place}", frame["type"].as_str().unwrap()).replace("0badcafe:", "")
        };
        frames.iter().map(name).collect()
    }

    fn every_event() -> Vec<Event> {
        let config = SpeakerConfig::default();
        let stream = StreamId(Uuid::from_u128(5));
        let started = StreamStarted {
            stream,
            participant: ana(),
            gateway: GatewayId(Uuid::from_u128(9)),
            config: config.clone(),
            origin: Timestamp(1),
            recorded: false,
            no_connection_timeout: Duration::ZERO,
        };
        let bodies = [
            InsightBody::Question,
            InsightBody::ActionItem { assignee: Some(ana()), due: None },
            InsightBody::FollowUp { assignee: None, due: None },
            InsightBody::Topic { phrase: "we".to_owned(), root_words: vec![] },
            InsightBody::Tracker { tracker: "Us".to_owned(), value: "we".to_owned() },
            InsightBody::Entity { kind: "person".to_owned(), value: "we".to_owned() },
            InsightBody::Intent { intent: "question".to_owned() },
        ];
        let mut events = vec![
            Event::Started(Started { at: Timestamp(1), title: "t".to_owned() }),
            Event::Joined(ana()),
            Event::Left(ana()),
            Event::StreamStarted(Arc::new(started)),
            Event::ConfigChanged(Arc::new(ConfigChanged { stream, config })),
            Event::StreamEnded(StreamEnded { stream, how: StreamEnd::Lost }),
            Event::Final(Arc::new(spoken())),
            Event::Ended(Ended { at: Timestamp(1), reason: EndReason::Stopped }),
        ];
        events.extend(bodies.map(|body| Event::Insight(Arc::new(insight(body, 0.6)))));
        events
    }

    #[test]
    fn a_final_is_a_caption_and_then_a_message_with_one_element_per_sentence() {
        let rendered = render(&entry(Event::Final(Arc::new(spoken()))), &scene(), &listener());
        let frames = frames(&rendered.bytes);
        assert_eq!(frames.len(), 2);
        assert_eq!(frames[0]["message"]["isFinal"], true);
        assert_eq!(frames[0]["follows"], "0badcafe:16");
        assert_eq!(frames[0]["message"]["payload"]["raw"]["alternatives"][0]["transcript"], "shall we yes");
        assert_eq!(frames[1]["position"], "0badcafe:17");
        assert_eq!(frames[1]["sequenceNumber"], 4);
        let messages = frames[1]["messages"].as_array().unwrap();
        let texts: Vec<_> = messages.iter().map(|message| message["payload"]["content"].as_str().unwrap()).collect();
        assert_eq!(texts, ["Shall we?", "Yes."]);
        assert_eq!(texts.join(" "), spoken().text);
        for (index, message) in messages.iter().enumerate() {
            assert_eq!(message["id"], spoken().utterance.sentence(index).to_string());
            assert_eq!(message["from"]["name"], "Ana");
            let words: Value = serde_json::from_str(message["metadata"]["words"].as_str().unwrap()).unwrap();
            assert_eq!(words.as_array().unwrap().len(), [2, 1][index]);
        }
        assert_eq!(messages[1]["duration"]["startTime"], "2030-03-04T09:00:03.000Z");
    }

    #[test]
    fn what_each_reader_sees_of_each_event() {
        let presence = Audience { opted: Opted { presence: true, ..Opted::default() }, ..listener() };
        let telephony = Audience { view: View::listener().dialect(Dialect::Telephony), ..listener() };
        let speaker = Audience { view: View::speaker(&SpeakerConfig::default()), listens: false, ..listener() };
        let shown_to = |audience: &Audience| -> Vec<String> {
            every_event().into_iter().flat_map(|event| shown(event, audience)).collect()
        };
        let captions = ["message recognition_result follows 16", "message_response  position 17"];
        let end = ["message conversation_completed position 17"];
        let insights = [
            "insight_response  position 17",
            "insight_response  position 17",
            "insight_response  position 17",
            "topic_response  position 17",
            "tracker_response  position 17",
            "entity_response  position 17",
        ];
        assert_eq!(shown_to(&listener()), [&captions[..], &end, &insights].concat());
        let both = ["presence joined position 17", "presence left position 17"];
        assert_eq!(shown_to(&presence), [&both[..], &captions, &end, &insights].concat());
        let phone = [captions[0], "transcript_response  follows 16", captions[1]];
        let intents = ["intent_response  position 17"];
        assert_eq!(shown_to(&telephony), [&phone[..], &end, &insights, &intents].concat());
        // No insights asked for; trackers are shown to everybody. The end is its connection's to tell.
        assert_eq!(shown_to(&speaker), [&captions[..], &insights[4..5]].concat());
    }

    #[test]
    fn unfiltered_shows_every_position_exactly_once() {
        let all = View::speaker(&SpeakerConfig::default()).unfiltered(true);
        for listens in [false, true] {
            for presence in [false, true] {
                let audience = Audience {
                    view: all,
                    opted: Opted { presence, positions: true, analytics: presence, history: presence },
                    listens,
                };
                for event in every_event() {
                    let kind = event.kind().name();
                    let shown = shown(event, &audience);
                    let positions: Vec<_> = shown.iter().filter(|frame| frame.contains("position")).collect();
                    assert_eq!(positions.len(), 1, "{kind}: {shown:?}");
                    assert!(shown.last().unwrap().ends_with("position 17"), "{kind}: {shown:?}");
                }
                let hidden = shown(Event::Started(Started { at: Timestamp(1), title: String::new() }), &audience);
                assert_eq!(hidden, ["event started position 17"]);
            }
        }
        let tombstone = Entry { body: Body::Tombstone, ..entry(every_event().remove(0)) };
        let audience = Audience { view: all, ..listener() };
        let rendered = render(&tombstone, &scene(), &audience);
        assert_eq!(frames(&rendered.bytes)[0]["kind"], "unknown");
        assert!(render(&tombstone, &scene(), &listener()).filtered);
    }

    #[test]
    fn readers_are_told_of_their_clock_and_of_trackers_as_they_asked() {
        let config =
            SpeakerConfig { timezone_offset_min: -420, tracker_interim_results: true, ..SpeakerConfig::default() };
        let asked = Audience { view: View::speaker(&config), listens: false, ..listener() };
        let offset = |audience: &Audience| {
            let rendered = render(&entry(Event::Final(Arc::new(spoken()))), &scene(), audience);
            frames(&rendered.bytes)[1]["messages"][0]["metadata"]["timezoneOffset"].clone()
        };
        assert_eq!((offset(&asked), offset(&listener())), ((-420).into(), 0.into()));
        let found = Tracked {
            utterance: UtteranceId(Uuid::from_u128(6)),
            tracker: "Boats".to_owned(),
            value: "boat".to_owned(),
            text: "A boat".to_owned(),
            start: 2,
            end: 6,
        };
        let (found, follows) = (Ephemeral::Tracked(Arc::new(found)), scene().position(Offset(3)));
        let frame = &frames(&render_ephemeral(&found, follows, &asked).unwrap())[0];
        assert_eq!((&frame["isFinal"], &frame["trackers"][0]["name"]), (&false.into(), &"Boats".into()));
        assert_eq!(frame["trackers"][0]["matches"][0]["messageRefs"][0]["offset"], 2);
        assert_eq!(render_ephemeral(&found, follows, &listener()), None);
        let warning = Warning { participant: ana().id, details: "too many".to_owned() };
        assert_eq!(frames(&render_warning(&warning))[0]["message"]["details"], "too many");
        assert_eq!(render_ephemeral(&Ephemeral::Warning(Arc::new(warning)), follows, &asked), None);
    }

    #[test]
    fn insights_below_the_threshold_are_hidden_unless_they_correct_an_earlier_one() {
        let view = View::listener().with_threshold(0.7);
        let audience = Audience { view, ..listener() };
        let mut doubtful = insight(InsightBody::Question, 0.6);
        assert!(render(&entry(Event::Insight(Arc::new(doubtful.clone()))), &scene(), &audience).filtered);
        doubtful.retracted = true;
        assert!(!render(&entry(Event::Insight(Arc::new(doubtful))), &scene(), &audience).filtered);
        let sure = insight(InsightBody::Question, 0.7);
        assert!(!render(&entry(Event::Insight(Arc::new(sure))), &scene(), &audience).filtered);
    }

    #[test]
    fn views_are_equal_when_their_readers_see_the_same() {
        assert_eq!(InsightTypes::named(["question", "nonsense", "topic"]), InsightTypes::named(["topic", "question"]));
        assert_eq!(View::listener().with_threshold(0.5), View::listener().with_threshold(0.500_01));
        assert_ne!(View::listener(), View::listener().unfiltered(true));
    }

    #[test]
    fn announcements_follow_and_partials_carry_no_position() {
        let follows = scene().position(Offset(3));
        let partial = Partial {
            stream: StreamId(Uuid::from_u128(5)),
            utterance: UtteranceId(Uuid::from_u128(6)),
            revision: 1,
            participant: ana(),
            origin: Timestamp(1),
            start: StreamTime(0),
            end: StreamTime(1),
            text: "Shall".to_owned(),
            stable: 0,
            confidence: 0.5,
        };
        let bytes = render_ephemeral(&Ephemeral::Partial(Arc::new(partial)), follows, &listener()).unwrap();
        let frame = &frames(&bytes)[0];
        assert_eq!((&frame["message"]["isFinal"], &frame["follows"]), (&Value::Bool(false), &"0badcafe:3".into()));
        let stream = StreamId(Uuid::from_u128(5));
        let speaking = Ephemeral::Speaking { participant: ana(), stream, speaking: true };
        assert_eq!(render_ephemeral(&speaking, follows, &listener()), None);
        let opted = Audience { opted: Opted { presence: true, ..Opted::default() }, ..listener() };
        let bytes = render_ephemeral(&speaking, follows, &opted).unwrap();
        assert_eq!(frames(&bytes)[0]["kind"], "speaking");
    }
}
