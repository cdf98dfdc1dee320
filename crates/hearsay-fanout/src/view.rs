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
    ConversationId, Epoch, Event, Offset, Position,
    event::{Ephemeral, Final, Insight, InsightBody, Partial, Participant, SpeakerConfig},
    wire::{self, InsightType, Place, User},
};

use crate::{
    frame,
    sentences::{Sentence, sentences},
};

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
    pub const ALL: Self = Self(15);

    /// By the names clients give them; unknown ones are left out.
    pub fn named<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Self {
        Self(names.into_iter().fold(0, |set, name| {
            set | match name.as_ref() {
                "question" => Self::QUESTION.0,
                "action_item" => Self::ACTION_ITEM.0,
                "follow_up" => Self::FOLLOW_UP.0,
                "topic" => Self::TOPIC.0,
                _ => 0,
            }
        }))
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
        let wanted = match insight.body {
            InsightBody::Question => self.insights.holds(InsightTypes::QUESTION),
            InsightBody::ActionItem { .. } => self.insights.holds(InsightTypes::ACTION_ITEM),
            InsightBody::FollowUp { .. } => self.insights.holds(InsightTypes::FOLLOW_UP),
            InsightBody::Topic { .. } => self.insights.holds(InsightTypes::TOPIC),
            InsightBody::Entity { .. } => self.entities,
            InsightBody::Tracker { .. } => true,
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
    for Sentence { id, text, start, end, words } in sentences(spoken) {
        let words = words.iter().map(raw_word).collect();
        messages.push(wire::Message { id, from: who, text, origin: spoken.origin, start, end, words, sentiment: None });
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
        Ephemeral::Speaking { .. } | Ephemeral::Listeners { .. } => (),
    }
    (!out.is_empty()).then(|| out.into())
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
