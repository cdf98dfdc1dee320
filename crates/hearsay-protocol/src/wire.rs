//! What clients read: the exact JSON of every message a server sends.
//!
//! Stock clients are the specification, so shapes are theirs: numbers as strings where a strict decoder wants strings,
//! `metadata.words` as JSON inside a string, `data` only where it carries a conversation id, `user` never null. Field
//! names and their order are part of the golden tests below. Nothing here decides what is sent to whom.

use std::{borrow::Cow, fmt::Display};

use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    ChunkNumber, ConversationId, Iso8601, Position, StreamId, StreamTime, Timestamp,
    client::ErrorCode,
    event::{Analytics, Earlier, Evidence, History, InsightBody, OpenTask, Participant, Talked, Tracked},
};

/// What every client-facing `type:"message"` frame is: something in an object `message`.
#[derive(Debug, Serialize)]
struct Wrapped<M> {
    #[serde(rename = "type")]
    kind: &'static str,
    message: M,
}

fn wrapped<M: Serialize>(message: M) -> String {
    json(&Wrapped { kind: "message", message })
}

/// The JSON of a message of this module; these have no failing case.
pub fn json<T: Serialize>(message: &T) -> String {
    serde_json::to_string(message).unwrap_or_else(|_| unreachable!("maps with string keys only"))
}

fn text<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn maybe_text<T: Display, S: Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

/// Answers the keep-alive `__PING__`. Bare text, the only frame that is not JSON.
pub const PONG: &str = "__PONG__";
/// The keep-alive of clients that reconnect. Bare text.
pub const PING: &str = "__PING__";

// Control: wrapped, to one socket.

/// The message on which `start()` resolves.
pub fn started_listening() -> &'static str {
    r#"{"type":"message","message":{"type":"started_listening"}}"#
}

pub fn recognition_stopped() -> &'static str {
    r#"{"type":"message","message":{"type":"recognition_stopped"}}"#
}

pub fn conversation_created(conversation: ConversationId) -> String {
    with_conversation("conversation_created", conversation)
}

pub fn recognition_started(conversation: ConversationId) -> String {
    with_conversation("recognition_started", conversation)
}

#[derive(Debug, Serialize)]
struct ConversationData {
    #[serde(rename = "conversationId", serialize_with = "text")]
    conversation: ConversationId,
}

fn with_conversation(kind: &'static str, conversation: ConversationId) -> String {
    #[derive(Serialize)]
    struct Message {
        #[serde(rename = "type")]
        kind: &'static str,
        data: ConversationData,
    }
    wrapped(Message { kind, data: ConversationData { conversation } })
}

/// `position` when the end itself is what the frame stands for; none as the answer to one socket's stop.
pub fn conversation_completed(conversation: ConversationId, position: Option<Position>) -> String {
    #[derive(Serialize)]
    struct Message {
        #[serde(rename = "type")]
        kind: &'static str,
        #[serde(rename = "conversationId", serialize_with = "text")]
        conversation: ConversationId,
        #[serde(rename = "summaryUrl")]
        summary_url: &'static str,
        data: ConversationData,
    }
    #[derive(Serialize)]
    struct Frame {
        #[serde(rename = "type")]
        kind: &'static str,
        message: Message,
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "maybe_text")]
        position: Option<Position>,
    }
    let message = Message {
        kind: "conversation_completed",
        conversation,
        summary_url: "",
        data: ConversationData { conversation },
    };
    json(&Frame { kind: "message", message, position })
}

/// The answer to `modify_request`.
pub fn session_modified(encoding: &str, sample_rate_hz: u32) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Recognition<'a> {
        encoding: &'a str,
        sample_rate_hertz: u32,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Message<'a> {
        #[serde(rename = "type")]
        kind: &'static str,
        speech_recognition: Recognition<'a>,
    }
    wrapped(Message {
        kind: "session_modified",
        speech_recognition: Recognition { encoding, sample_rate_hertz: sample_rate_hz },
    })
}

/// `details` names the field, what came and what is accepted. Always the wrapped form: the only one that makes a
/// pending start fail and harms nobody.
pub fn error(code: ErrorCode, details: &str, retry_after_ms: Option<u64>) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Message<'a> {
        #[serde(rename = "type")]
        kind: &'static str,
        code: &'static str,
        details: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
    }
    wrapped(Message { kind: "error", code: code.name(), details, retry_after_ms })
}

// Results: the same bytes for everybody who sees them the same way.

/// A participant as `user` and `from`: absent parts are empty strings, never null.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct User<'a> {
    #[serde(serialize_with = "maybe_uuid")]
    pub id: Option<Uuid>,
    pub name: &'a str,
    #[serde(rename = "userId")]
    pub user_id: &'a str,
}

fn maybe_uuid<S: Serializer>(id: &Option<Uuid>, serializer: S) -> Result<S::Ok, S::Error> {
    match id {
        Some(id) => serializer.collect_str(id),
        None => serializer.serialize_str(""),
    }
}

impl User<'static> {
    pub const NOBODY: Self = Self { id: None, name: "", user_id: "" };
}

impl<'a> From<&'a Participant> for User<'a> {
    fn from(participant: &'a Participant) -> Self {
        Self {
            id: Some(participant.id.0),
            name: participant.name.as_deref().unwrap_or_default(),
            user_id: participant.user_id.as_deref().unwrap_or_default(),
        }
    }
}

/// A caption: of an utterance so far, or its last word.
#[derive(Debug, Clone)]
pub struct RecognitionResult<'a> {
    pub is_final: bool,
    pub text: &'a str,
    pub confidence: f32,
    /// Each with its place on the stream's clock.
    pub words: Vec<RawWord<'a>>,
    pub user: User<'a>,
    /// Where the utterance starts on the stream's clock.
    pub start: StreamTime,
    /// The newest durable event before this frame.
    pub follows: Position,
}

#[derive(Debug, Clone, Copy)]
pub struct RawWord<'a> {
    pub text: &'a str,
    pub start: StreamTime,
    pub end: StreamTime,
}

/// A word without case and without the punctuation around it.
fn raw(word: &str) -> Cow<'_, str> {
    let bare = word.trim_matches(|c: char| matches!(c, '.' | ',' | '?' | '!' | ';' | ':' | '"' | '…'));
    let is_plain = bare.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase());
    if is_plain { bare.into() } else { bare.to_lowercase().into() }
}

impl Serialize for RecognitionResult<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Moment {
            #[serde(serialize_with = "text")]
            seconds: u64,
            #[serde(serialize_with = "text")]
            nanos: u64,
        }
        impl From<StreamTime> for Moment {
            fn from(time: StreamTime) -> Self {
                Self { seconds: time.micros() / 1_000_000, nanos: time.micros() % 1_000_000 * 1_000 }
            }
        }
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Word<'a> {
            word: Cow<'a, str>,
            start_time: Moment,
            end_time: Moment,
        }
        #[derive(Serialize)]
        struct Alternative<'a> {
            transcript: String,
            confidence: f32,
            words: Vec<Word<'a>>,
        }
        #[derive(Serialize)]
        struct Raw<'a> {
            alternatives: [Alternative<'a>; 1],
        }
        #[derive(Serialize)]
        struct Payload<'a> {
            raw: Raw<'a>,
        }
        #[derive(Serialize)]
        struct Punctuated<'a> {
            transcript: &'a str,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Message<'a> {
            r#type: &'static str,
            is_final: bool,
            payload: Payload<'a>,
            punctuated: Punctuated<'a>,
            user: User<'a>,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Frame<'a> {
            r#type: &'static str,
            message: Message<'a>,
            time_offset: u64,
            #[serde(serialize_with = "text")]
            follows: Position,
        }
        let words = self.words.iter().map(|word| Word {
            word: raw(word.text),
            start_time: word.start.into(),
            end_time: word.end.into(),
        });
        let mut transcript = String::with_capacity(self.text.len());
        for word in self.text.split_whitespace().map(raw).filter(|word| !word.is_empty()) {
            if !transcript.is_empty() {
                transcript.push(' ');
            }
            transcript.push_str(&word);
        }
        Frame {
            r#type: "message",
            message: Message {
                r#type: "recognition_result",
                is_final: self.is_final,
                payload: Payload {
                    raw: Raw {
                        alternatives: [Alternative { transcript, confidence: self.confidence, words: words.collect() }],
                    },
                },
                punctuated: Punctuated { transcript: self.text },
                user: self.user,
            },
            time_offset: self.start.millis(),
            follows: self.follows,
        }
        .serialize(serializer)
    }
}

/// The older telephony form of a caption.
pub fn transcript_response(content: &str, is_final: bool, from: User<'_>, follows: Position) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Frame<'a> {
        r#type: &'static str,
        payload: Content<'a>,
        is_final: bool,
        from: User<'a>,
        #[serde(serialize_with = "text")]
        follows: Position,
    }
    json(&Frame { r#type: "transcript_response", payload: Content::of(content), is_final, from, follows })
}

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
struct Content<'a> {
    content: &'a str,
    content_type: &'static str,
}

impl<'a> Content<'a> {
    fn of(content: &'a str) -> Self {
        Self { content, content_type: "text/plain" }
    }
}

/// One sentence of a finished utterance.
#[derive(Debug, Clone)]
pub struct Message<'a> {
    pub id: Uuid,
    pub from: User<'a>,
    pub text: &'a str,
    /// The wall time of the stream's audio clock at zero; the times below are on that clock.
    pub origin: Timestamp,
    pub start: StreamTime,
    pub end: StreamTime,
    pub words: Vec<RawWord<'a>>,
    /// From -1 to 1; none: not asked for.
    pub sentiment: Option<f32>,
    /// Minutes east of UTC, as the reader has them. Times are written in UTC all the same.
    pub timezone_offset: i16,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Polarity {
    score: f32,
}

/// How a sentence feels, as clients are told.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sentiment {
    polarity: Polarity,
    suggested: &'static str,
}

impl Sentiment {
    /// Closer to zero than this is neutral.
    const NEUTRAL: f32 = 0.3;

    /// Of a score from -1 to 1.
    pub fn of(score: f32) -> Self {
        let suggested = match score {
            score if score >= Self::NEUTRAL => "positive",
            score if score <= -Self::NEUTRAL => "negative",
            _ => "neutral",
        };
        Self { polarity: Polarity { score }, suggested }
    }
}

/// Seconds with millisecond precision.
fn seconds(millis: u64) -> f64 {
    millis as f64 / 1_000.0
}

impl Serialize for Message<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Channel {
            id: &'static str,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Word<'a> {
            word: &'a str,
            start_time: Iso8601,
            end_time: Iso8601,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Metadata<'a> {
            disable_punctuation: bool,
            timezone_offset: i16,
            original_content: &'a str,
            words: String,
            original_message_id: Uuid,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Span {
            start_time: Iso8601,
            end_time: Iso8601,
            time_offset: f64,
            duration: f64,
        }
        #[derive(Serialize)]
        struct Shape<'a> {
            id: Uuid,
            from: User<'a>,
            payload: Content<'a>,
            channel: Channel,
            metadata: Metadata<'a>,
            dismissed: bool,
            duration: Span,
            entities: [(); 0],
            #[serde(skip_serializing_if = "Option::is_none")]
            sentiment: Option<Sentiment>,
        }
        let at = |time: StreamTime| Iso8601::from(time.at(self.origin));
        let words: Vec<_> = self
            .words
            .iter()
            .map(|word| Word { word: word.text, start_time: at(word.start), end_time: at(word.end) })
            .collect();
        Shape {
            id: self.id,
            from: self.from,
            payload: Content::of(self.text),
            channel: Channel { id: "realtime-api" },
            metadata: Metadata {
                disable_punctuation: true,
                timezone_offset: self.timezone_offset,
                original_content: self.text,
                words: json(&words),
                original_message_id: self.id,
            },
            dismissed: false,
            duration: Span {
                start_time: at(self.start),
                end_time: at(self.end),
                time_offset: seconds(self.start.millis()),
                duration: seconds(self.end.millis().saturating_sub(self.start.millis())),
            },
            entities: [],
            sentiment: self.sentiment.map(Sentiment::of),
        }
        .serialize(serializer)
    }
}

/// A finished utterance, one element of `messages` per sentence.
#[derive(Debug, Clone)]
pub struct MessageResponse<'a> {
    pub messages: Vec<Message<'a>>,
    pub sequence: u64,
    pub position: Position,
}

impl Serialize for MessageResponse<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Frame<'a> {
            r#type: &'static str,
            messages: &'a [Message<'a>],
            sequence_number: u64,
            #[serde(serialize_with = "text")]
            position: Position,
        }
        Frame {
            r#type: "message_response",
            messages: &self.messages,
            sequence_number: self.sequence,
            position: self.position,
        }
        .serialize(serializer)
    }
}

/// What all insights have in common.
#[derive(Debug, Clone, Copy)]
pub struct Inferred<'a> {
    pub id: Uuid,
    pub revision: u32,
    pub retracted: bool,
    pub confidence: f32,
    pub text: &'a str,
    pub evidence: &'a [Evidence],
    pub sequence: u64,
    pub position: Position,
}

impl Inferred<'_> {
    fn evidence(&self) -> Vec<EvidenceShape> {
        self.evidence.iter().map(EvidenceShape::from).collect()
    }

    fn revision(&self) -> Revision {
        Revision { revision: self.revision, retracted: self.retracted, evidence: self.evidence() }
    }
}

/// Where the words of an insight stand.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EvidenceShape {
    message_id: Uuid,
    start: u32,
    end: u32,
}

impl From<&Evidence> for EvidenceShape {
    fn from(it: &Evidence) -> Self {
        Self { message_id: it.message, start: it.start, end: it.end }
    }
}

/// Ours, on every insight: a higher revision of the same id replaces a lower one.
#[derive(Serialize)]
struct Revision {
    revision: u32,
    retracted: bool,
    evidence: Vec<EvidenceShape>,
}

#[derive(Serialize)]
struct MessageReference {
    id: Uuid,
}

/// `type` of an element of `insights`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InsightType {
    Question,
    ActionItem,
    FollowUp,
}

impl InsightType {
    pub fn name(self) -> &'static str {
        match self {
            Self::Question => "question",
            Self::ActionItem => "action_item",
            Self::FollowUp => "follow_up",
        }
    }
}

/// A question, an action item or a follow-up: one insight a frame.
pub fn insight_response(
    kind: InsightType,
    insight: Inferred<'_>,
    from: User<'_>,
    assignee: Option<User<'_>>,
    due: Option<&str>,
) -> String {
    #[derive(Serialize)]
    struct Hint {
        key: &'static str,
        value: String,
    }
    #[derive(Serialize)]
    struct Due<'a> {
        value: &'a str,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Insight<'a> {
        id: Uuid,
        r#type: &'static str,
        confidence: f32,
        #[serde(skip_serializing_if = "Option::is_none")]
        message_reference: Option<MessageReference>,
        hints: [Hint; 1],
        #[serde(skip_serializing_if = "Option::is_none")]
        assignee: Option<User<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        due_by: Option<Due<'a>>,
        tags: [(); 0],
        dismissed: bool,
        text: &'a str,
        payload: Content<'a>,
        from: User<'a>,
        entities: Option<()>,
        #[serde(flatten)]
        revision: Revision,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Frame<'a> {
        r#type: &'static str,
        insights: [Insight<'a>; 1],
        sequence_number: u64,
        #[serde(serialize_with = "text")]
        position: Position,
    }
    json(&Frame {
        r#type: "insight_response",
        insights: [Insight {
            id: insight.id,
            r#type: kind.name(),
            confidence: insight.confidence,
            message_reference: insight.evidence.first().map(|part| MessageReference { id: part.message }),
            hints: [Hint { key: "confidenceScore", value: insight.confidence.to_string() }],
            assignee,
            due_by: due.map(|value| Due { value }),
            tags: [],
            dismissed: insight.retracted,
            text: insight.text,
            payload: Content::of(insight.text),
            from,
            entities: None,
            revision: insight.revision(),
        }],
        sequence_number: insight.sequence,
        position: insight.position,
    })
}

pub fn topic_response(topic: Inferred<'_>, phrase: &str, root_words: &[String]) -> String {
    #[derive(Serialize)]
    struct Reference {
        id: Uuid,
        relation: &'static str,
    }
    #[derive(Serialize)]
    struct Root<'a> {
        text: &'a str,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Topic<'a> {
        id: Uuid,
        r#type: &'static str,
        phrases: &'a str,
        score: f32,
        message_references: Vec<Reference>,
        root_words: Vec<Root<'a>>,
        message_index: u32,
        #[serde(flatten)]
        revision: Revision,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Frame<'a> {
        r#type: &'static str,
        topics: [Topic<'a>; 1],
        sequence_number: u64,
        #[serde(serialize_with = "text")]
        position: Position,
    }
    json(&Frame {
        r#type: "topic_response",
        topics: [Topic {
            id: topic.id,
            r#type: "topic",
            phrases: phrase,
            score: topic.confidence,
            message_references: topic
                .evidence
                .iter()
                .map(|part| Reference { id: part.message, relation: "text instance" })
                .collect(),
            root_words: root_words.iter().map(|text| Root { text }).collect(),
            message_index: 0,
            revision: topic.revision(),
        }],
        sequence_number: topic.sequence,
        position: topic.position,
    })
}

/// What a sentence is said for.
pub fn intent_response(found: Inferred<'_>, intent: &str, from: User<'_>) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Intent<'a> {
        id: Uuid,
        intent: &'a str,
        score: f32,
        text: &'a str,
        from: User<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        message_reference: Option<MessageReference>,
        #[serde(flatten)]
        revision: Revision,
    }
    #[derive(Serialize)]
    struct Frame<'a> {
        r#type: &'static str,
        intents: [Intent<'a>; 1],
        #[serde(serialize_with = "text")]
        position: Position,
    }
    json(&Frame {
        r#type: "intent_response",
        intents: [Intent {
            id: found.id,
            intent,
            score: found.confidence,
            text: found.text,
            from,
            message_reference: found.evidence.first().map(|part| MessageReference { id: part.message }),
            revision: found.revision(),
        }],
        position: found.position,
    })
}

/// What a tracker found in an utterance that still goes on.
pub fn tracker_so_far(found: &Tracked, follows: Position) -> String {
    let message = found.utterance.sentence(0);
    let reference = json!({ "id": message, "text": found.text, "offset": found.start });
    let matched = json!({ "type": "vocabulary", "value": found.value, "messageRefs": [reference], "insightRefs": [] });
    json!({
        "type": "tracker_response",
        "isFinal": false,
        "trackers": [{ "name": found.tracker, "matches": [matched] }],
        "follows": follows.to_string(),
    })
    .to_string()
}

pub fn tracker_response(found: Inferred<'_>, tracker: &str, value: &str) -> String {
    #[derive(Serialize)]
    struct Reference<'a> {
        id: Uuid,
        text: &'a str,
        offset: i64,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Match<'a> {
        r#type: &'static str,
        value: &'a str,
        message_refs: Vec<Reference<'a>>,
        insight_refs: [(); 0],
    }
    #[derive(Serialize)]
    struct Tracker<'a> {
        id: Uuid,
        name: &'a str,
        matches: [Match<'a>; 1],
        #[serde(flatten)]
        revision: Revision,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Frame<'a> {
        r#type: &'static str,
        is_final: bool,
        trackers: [Tracker<'a>; 1],
        sequence_number: u64,
        #[serde(serialize_with = "text")]
        position: Position,
    }
    let reference = |part: &Evidence| Reference {
        id: part.message,
        text: found.text,
        // A stretch without extent is similar in meaning, not a match of characters.
        offset: if part.start < part.end { i64::from(part.start) } else { -1 },
    };
    json(&Frame {
        r#type: "tracker_response",
        is_final: true,
        trackers: [Tracker {
            id: found.id,
            name: tracker,
            matches: [Match {
                r#type: "vocabulary",
                value,
                message_refs: found.evidence.iter().map(reference).collect(),
                insight_refs: [],
            }],
            revision: found.revision(),
        }],
        sequence_number: found.sequence,
        position: found.position,
    })
}

pub fn entity_response(found: Inferred<'_>, kind: &str, value: &str) -> String {
    #[derive(Serialize)]
    struct Reference<'a> {
        id: Uuid,
        text: &'a str,
        offset: u32,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Match<'a> {
        detected_value: &'a str,
        message_refs: Vec<Reference<'a>>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Entity<'a> {
        r#type: &'a str,
        sub_type: &'a str,
        category: &'static str,
        matches: [Match<'a>; 1],
        id: Uuid,
        #[serde(flatten)]
        revision: Revision,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Frame<'a> {
        r#type: &'static str,
        sequence_number: u64,
        entities: [Entity<'a>; 1],
        #[serde(serialize_with = "text")]
        position: Position,
    }
    let custom = InsightBody::custom_type(kind);
    let reference = |part: &Evidence| Reference { id: part.message, text: found.text, offset: part.start };
    json(&Frame {
        r#type: "entity_response",
        sequence_number: found.sequence,
        entities: [Entity {
            r#type: if custom.is_some() { "custom" } else { kind },
            sub_type: custom.unwrap_or_default(),
            category: if custom.is_some() { "custom" } else { "builtin" },
            matches: [Match { detected_value: value, message_refs: found.evidence.iter().map(reference).collect() }],
            id: found.id,
            revision: found.revision(),
        }],
        position: found.position,
    })
}

// Ours: only to sockets that asked for them or that resume.

/// A durable position that renders to nothing else: `kind` says what stands there.
pub fn event(kind: &str, position: Position) -> String {
    #[derive(Serialize)]
    struct Frame<'a> {
        r#type: &'static str,
        kind: &'a str,
        #[serde(serialize_with = "text")]
        position: Position,
    }
    json(&Frame { r#type: "event", kind, position })
}

/// How far the socket is, when long nothing was shown on it.
pub fn position(position: Position) -> String {
    event("position", position)
}

/// The conversation as it was exactly at `position`, in the REST shapes.
pub fn snapshot<C: Serialize>(position: Position, conversation: &C, truncated: bool) -> String {
    #[derive(Serialize)]
    struct Frame<'a, C> {
        r#type: &'static str,
        #[serde(serialize_with = "text")]
        position: Position,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        truncated: bool,
        conversation: &'a C,
    }
    json(&Frame { r#type: "snapshot", position, truncated, conversation })
}

/// Why the log cannot give what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Gap {
    Retention,
    Branch,
    Lost,
    /// The position is of another conversation.
    Conversation,
}

impl Gap {
    pub const ALL: [Self; 4] = [Self::Retention, Self::Branch, Self::Lost, Self::Conversation];

    pub fn name(self) -> &'static str {
        match self {
            Self::Retention => "retention",
            Self::Branch => "branch",
            Self::Lost => "lost",
            Self::Conversation => "conversation",
        }
    }
}

/// Nothing between `from` and `to` will come; what follows `to` does.
pub fn gap(from: Position, to: Position, reason: Gap) -> String {
    #[derive(Serialize)]
    struct Frame {
        r#type: &'static str,
        #[serde(serialize_with = "text")]
        from: Position,
        #[serde(serialize_with = "text")]
        to: Position,
        reason: &'static str,
    }
    json(&Frame { r#type: "gap", from, to, reason: reason.name() })
}

/// The gateway has lost its view of the log.
pub fn degraded(since: Timestamp, reason: &str) -> String {
    health_of_log("degraded", since, reason)
}

/// The gateway has its view of the log again.
pub fn recovered(since: Timestamp, reason: &str) -> String {
    health_of_log("recovered", since, reason)
}

fn health_of_log(kind: &'static str, since: Timestamp, reason: &str) -> String {
    #[derive(Serialize)]
    struct Frame<'a> {
        r#type: &'static str,
        since: String,
        reason: &'a str,
    }
    json(&Frame { r#type: kind, since: since.iso8601(), reason })
}

/// Where a frame of a durable event, or one between two, stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    At(Position),
    Follows(Position),
}

/// Somebody `joined`, `left`, began `speaking` or fell `silent`.
pub fn presence(kind: &str, user: User<'_>, place: Place) -> String {
    #[derive(Serialize)]
    struct Frame<'a> {
        r#type: &'static str,
        kind: &'a str,
        user: User<'a>,
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "maybe_text")]
        position: Option<Position>,
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "maybe_text")]
        follows: Option<Position>,
    }
    let (position, follows) = match place {
        Place::At(position) => (Some(position), None),
        Place::Follows(position) => (None, Some(position)),
    };
    json(&Frame { r#type: "presence", kind, user, position, follows })
}

/// Who spoke how long so far; the latest counts.
pub fn analytics(found: &Analytics, follows: Position) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Speaker<'a> {
        user: User<'a>,
        talk_ms: u64,
        ratio: f32,
        wpm: f32,
        interruptions: u32,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Frame<'a> {
        r#type: &'static str,
        speakers: Vec<Speaker<'a>>,
        silence_ms: u64,
        overlap_ms: u64,
        #[serde(serialize_with = "text")]
        follows: Position,
    }
    fn speaker(it: &Talked) -> Speaker<'_> {
        Speaker {
            user: User::from(&*it.participant),
            talk_ms: it.talk_ms,
            ratio: it.ratio,
            wpm: it.wpm,
            interruptions: it.interruptions,
        }
    }
    json(&Frame {
        r#type: "analytics",
        speakers: found.speakers.iter().map(speaker).collect(),
        silence_ms: found.silence_ms,
        overlap_ms: found.overlap_ms,
        follows,
    })
}

/// What is known of somebody from earlier conversations.
pub fn history(known: &History, follows: Position) -> String {
    let mut frame = earlier_conversations(known);
    frame["type"] = "history".into();
    frame["follows"] = follows.to_string().into();
    frame.to_string()
}

/// The same, as REST answers it.
pub fn earlier_conversations(known: &History) -> Value {
    let task = |it: &OpenTask| {
        let mut task = json!({ "text": it.text });
        // Absent rather than null: strict decoders parse what is there.
        for (key, value) in [("assignee", &it.assignee), ("dueBy", &it.due)] {
            if let Some(value) = value {
                task[key] = value.clone().into();
            }
        }
        task
    };
    let earlier = |it: &Earlier| {
        json!({
            "id": it.conversation.to_string(),
            "name": it.title,
            "startTime": it.started.iso8601(),
            "topics": it.topics,
            "summary": it.summary,
            "actionItems": it.open.iter().map(task).collect::<Vec<_>>(),
        })
    };
    json!({
        "participant": User::from(&*known.participant),
        "conversations": known.conversations.iter().map(earlier).collect::<Vec<_>>(),
    })
}

/// How many listen to the conversation, at all gateways together.
pub fn listeners(count: u32) -> String {
    #[derive(Serialize)]
    struct Frame {
        r#type: &'static str,
        kind: &'static str,
        listeners: u32,
    }
    json(&Frame { r#type: "presence", kind: "listeners", listeners: count })
}

/// How many binary messages, and how much stream time, the log covers. A client that returns is asked for none before
/// `restart`.
pub fn audio_ack(chunks: ChunkNumber, restart: ChunkNumber, covered: StreamTime) -> String {
    #[derive(Serialize)]
    struct Frame {
        r#type: &'static str,
        chunk: u64,
        restart: u64,
        ms: u64,
    }
    json(&Frame { r#type: "audio_ack", chunk: chunks.0, restart: restart.0, ms: covered.millis() })
}

pub fn resume_token(token: &str, stream: StreamId) -> String {
    #[derive(Serialize)]
    struct Frame<'a> {
        r#type: &'static str,
        token: &'a str,
        stream: Uuid,
    }
    json(&Frame { r#type: "resume_token", token, stream: stream.0 })
}

/// The client sends its audio again from `chunk`.
pub fn resumed(chunk: ChunkNumber) -> String {
    #[derive(Serialize)]
    struct Frame {
        r#type: &'static str,
        chunk: u64,
    }
    json(&Frame { r#type: "resumed", chunk: chunk.0 })
}

/// All audio before the client's marker `id` is decoded and on the log.
pub fn finalized(id: &str, position: Position) -> String {
    #[derive(Serialize)]
    struct Frame<'a> {
        r#type: &'static str,
        id: &'a str,
        #[serde(serialize_with = "text")]
        position: Position,
    }
    json(&Frame { r#type: "finalized", id, position })
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamHealth<'a> {
    pub received_ms: u64,
    pub acked_ms: u64,
    pub backlog_ms: u64,
    pub realtime_factor: f32,
    /// 0 to 1.
    pub speech: f32,
    pub ladder: Cow<'a, str>,
    pub trace: Cow<'a, str>,
}

pub fn stream_health(health: &StreamHealth<'_>) -> String {
    #[derive(Serialize)]
    struct Frame<'a> {
        r#type: &'static str,
        #[serde(flatten)]
        health: &'a StreamHealth<'a>,
    }
    json(&Frame { r#type: "stream_health", health })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json as value};

    use super::*;
    use crate::{Epoch, Offset, ParticipantId};

    fn at(offset: u64) -> Position {
        Position { epoch: Epoch(0x0bad_cafe), offset: Offset(offset) }
    }

    fn conversation() -> ConversationId {
        "5098141190283264".parse().unwrap()
    }

    fn ana() -> Participant {
        Participant {
            id: ParticipantId("0f4fe2b7-8a44-4d57-9f4e-1f7fb8c0e2aa".parse().unwrap()),
            user_id: Some("ana@example.org".to_owned()),
            name: Some("Ana".to_owned()),
            email: None,
        }
    }

    const ANA: &str = r#"{"id":"0f4fe2b7-8a44-4d57-9f4e-1f7fb8c0e2aa","name":"Ana","userId":"ana@example.org"}"#;
    const ORIGIN: Timestamp = Timestamp(1_898_845_200_000_000);

    fn id(n: u128) -> Uuid {
        Uuid::from_u128(n)
    }

    #[test]
    fn control_messages() {
        let created = r#"{"type":"message","message":{"type":"conversation_created","data":{"conversationId":"5098141190283264"}}}"#;
        let completed = r#"{"type":"message","message":{"type":"conversation_completed","conversationId":"5098141190283264","summaryUrl":"","data":{"conversationId":"5098141190283264"}}}"#;
        let modified = r#"{"type":"message","message":{"type":"session_modified","speechRecognition":{"encoding":"LINEAR16","sampleRateHertz":8000}}}"#;
        assert_eq!(conversation_created(conversation()), created);
        assert_eq!(recognition_started(conversation()), created.replace("conversation_created", "recognition_started"));
        assert_eq!(conversation_completed(conversation(), None), completed);
        let with_position = conversation_completed(conversation(), Some(at(9)));
        assert_eq!(with_position, completed.replace("}}}", r#"}},"position":"0badcafe:9"}"#));
        assert_eq!(session_modified("LINEAR16", 8_000), modified);
        for fixed in [started_listening(), recognition_stopped()] {
            let parsed: Value = serde_json::from_str(fixed).unwrap();
            assert!(parsed["message"]["type"].is_string() && parsed["message"].get("data").is_none(), "{fixed}");
        }
    }

    #[test]
    fn errors_are_wrapped_and_say_when_to_come_again() {
        assert_eq!(
            error(ErrorCode::Overloaded, "no capacity", Some(1_500)),
            r#"{"type":"message","message":{"type":"error","code":"overloaded","details":"no capacity","retryAfterMs":1500}}"#
        );
        assert_eq!(
            error(ErrorCode::InvalidSampleRate, "sampleRateHertz \"7\"", None),
            r#"{"type":"message","message":{"type":"error","code":"invalid_sample_rate","details":"sampleRateHertz \"7\""}}"#
        );
    }

    #[test]
    fn a_caption_writes_times_as_strings_and_its_offset_as_an_integer() {
        let ana = ana();
        let result = RecognitionResult {
            is_final: true,
            text: "Shall we?",
            confidence: 0.87,
            words: vec![RawWord { text: "Shall", start: StreamTime(12_400_000), end: StreamTime(12_700_000) }],
            user: (&ana).into(),
            start: StreamTime(12_400_999),
            follows: at(16),
        };
        let expected = format!(
            r#"{{"type":"message","message":{{"type":"recognition_result","isFinal":true,"payload":{{"raw":{{"alternatives":[{{"transcript":"shall we","confidence":0.87,"words":[{{"word":"shall","startTime":{{"seconds":"12","nanos":"400000000"}},"endTime":{{"seconds":"12","nanos":"700000000"}}}}]}}]}}}},"punctuated":{{"transcript":"Shall we?"}},"user":{ANA}}},"timeOffset":12400,"follows":"0badcafe:16"}}"#
        );
        assert_eq!(json(&result), expected);
        let nobody = RecognitionResult { user: User::NOBODY, is_final: false, words: vec![], ..result };
        assert!(json(&nobody).contains(r#""words":[]"#));
        assert!(json(&nobody).contains(r#""user":{"id":"","name":"","userId":""}"#));
    }

    #[test]
    fn a_message_holds_its_words_as_json_in_a_string() {
        let ana = ana();
        let message = Message {
            id: id(7),
            from: (&ana).into(),
            text: "Shall we?",
            origin: ORIGIN,
            start: StreamTime(12_400_000),
            end: StreamTime(14_150_000),
            words: vec![RawWord { text: "Shall", start: StreamTime(12_400_000), end: StreamTime(12_700_000) }],
            sentiment: None,
            timezone_offset: 60,
        };
        let response = MessageResponse { messages: vec![message.clone()], sequence: 3, position: at(17) };
        let expected = format!(
            r#"{{"type":"message_response","messages":[{{"id":"00000000-0000-0000-0000-000000000007","from":{ANA},"payload":{{"content":"Shall we?","contentType":"text/plain"}},"channel":{{"id":"realtime-api"}},"metadata":{{"disablePunctuation":true,"timezoneOffset":60,"originalContent":"Shall we?","words":"[{{\"word\":\"Shall\",\"startTime\":\"2030-03-04T09:00:12.400Z\",\"endTime\":\"2030-03-04T09:00:12.700Z\"}}]","originalMessageId":"00000000-0000-0000-0000-000000000007"}},"dismissed":false,"duration":{{"startTime":"2030-03-04T09:00:12.400Z","endTime":"2030-03-04T09:00:14.150Z","timeOffset":12.4,"duration":1.75}},"entities":[]}}],"sequenceNumber":3,"position":"0badcafe:17"}}"#
        );
        assert_eq!(json(&response), expected);
        for (score, suggested) in [(0.1, "neutral"), (0.5, "positive"), (-0.5, "negative")] {
            let parsed: Value =
                serde_json::from_str(&json(&Message { sentiment: Some(score), ..message.clone() })).unwrap();
            assert_eq!(parsed["sentiment"]["suggested"], suggested);
        }
    }

    fn inferred(evidence: &[Evidence]) -> Inferred<'_> {
        Inferred {
            id: id(1),
            revision: 2,
            retracted: false,
            confidence: 0.93,
            text: "Ana will send it.",
            evidence,
            sequence: 4,
            position: at(20),
        }
    }

    #[test]
    fn insights_have_the_shapes_clients_iterate() {
        let ana = ana();
        let user: User<'_> = (&ana).into();
        let evidence = [Evidence { message: id(7), start: 4, end: 8 }];
        let extras = value!([{"messageId": id(7), "start": 4, "end": 8}]);
        let parse = |text: String| serde_json::from_str::<Value>(&text).unwrap();
        let user_value = parse(ANA.to_owned());

        let insight = insight_response(
            InsightType::ActionItem,
            inferred(&evidence),
            user,
            Some(user),
            Some("2030-03-05T00:00:00Z"),
        );
        assert_eq!(
            parse(insight),
            value!({"type": "insight_response", "insights": [{
                "id": id(1), "type": "action_item", "confidence": 0.93, "messageReference": {"id": id(7)},
                "hints": [{"key": "confidenceScore", "value": "0.93"}], "assignee": user_value,
                "dueBy": {"value": "2030-03-05T00:00:00Z"}, "tags": [], "dismissed": false, "text": "Ana will send it.",
                "payload": {"content": "Ana will send it.", "contentType": "text/plain"}, "from": user_value,
                "entities": null, "revision": 2, "retracted": false, "evidence": extras,
            }], "sequenceNumber": 4, "position": "0badcafe:20"})
        );
        let question = parse(insight_response(InsightType::Question, inferred(&[]), User::NOBODY, None, None));
        assert_eq!(question["insights"][0]["from"], value!({"id": "", "name": "", "userId": ""}));
        for absent in ["assignee", "dueBy", "messageReference"] {
            assert!(question["insights"][0].get(absent).is_none(), "{absent}");
        }

        let topic = parse(topic_response(inferred(&evidence), "annual budget", &["budget".to_owned()]));
        assert_eq!(
            topic,
            value!({"type": "topic_response", "topics": [{
                "id": id(1), "type": "topic", "phrases": "annual budget", "score": 0.93,
                "messageReferences": [{"id": id(7), "relation": "text instance"}], "rootWords": [{"text": "budget"}],
                "messageIndex": 0, "revision": 2, "retracted": false, "evidence": extras,
            }], "sequenceNumber": 4, "position": "0badcafe:20"})
        );

        let tracker = parse(tracker_response(inferred(&evidence), "Budget", "budget"));
        assert_eq!(
            tracker,
            value!({"type": "tracker_response", "isFinal": true, "trackers": [{
                "id": id(1), "name": "Budget", "matches": [{"type": "vocabulary", "value": "budget",
                    "messageRefs": [{"id": id(7), "text": "Ana will send it.", "offset": 4}], "insightRefs": []}],
                "revision": 2, "retracted": false, "evidence": extras,
            }], "sequenceNumber": 4, "position": "0badcafe:20"})
        );
        let similar = [Evidence { message: id(7), start: 0, end: 0 }];
        let tracker = parse(tracker_response(inferred(&similar), "Budget", "cost"));
        assert_eq!(tracker["trackers"][0]["matches"][0]["messageRefs"][0]["offset"], -1);

        let intent = parse(intent_response(inferred(&evidence), "commitment", user));
        let expected = value!({
            "type": "intent_response", "intents": [{
                "id": id(1), "intent": "commitment", "score": 0.93, "text": "Ana will send it.", "from": user_value,
                "messageReference": {"id": id(7)}, "revision": 2, "retracted": false, "evidence": extras,
            }], "position": "0badcafe:20",
        });
        assert_eq!(intent, expected);

        let custom = parse(entity_response(inferred(&evidence), "custom:Project", "hearsay"));
        let entity = &custom["entities"][0];
        let kind = [&entity["type"], &entity["subType"], &entity["category"]].map(|it| it.as_str().unwrap());
        assert_eq!(kind, ["custom", "Project", "custom"]);
        assert_eq!(entity["evidence"], extras);

        let entity = parse(entity_response(inferred(&evidence), "person", "Ana"));
        assert_eq!(
            entity,
            value!({"type": "entity_response", "sequenceNumber": 4, "entities": [{
                "type": "person", "subType": "", "category": "builtin", "matches": [{"detectedValue": "Ana",
                    "messageRefs": [{"id": id(7), "text": "Ana will send it.", "offset": 4}]}],
                "id": id(1), "revision": 2, "retracted": false, "evidence": extras,
            }], "position": "0badcafe:20"})
        );
    }

    #[test]
    fn what_is_known_of_speakers_has_no_nulls() {
        let participant = std::sync::Arc::new(Participant {
            id: crate::ParticipantId(Uuid::from_u128(1)),
            user_id: Some("ana".to_owned()),
            name: None,
            email: None,
        });
        let at: Position = "0badcafe:17".parse().unwrap();
        let talked =
            Talked { participant: participant.clone(), talk_ms: 900, ratio: 0.75, wpm: 120.0, interruptions: 2 };
        assert_eq!(
            analytics(&Analytics { speakers: vec![talked], silence_ms: 5, overlap_ms: 6 }, at),
            r#"{"type":"analytics","speakers":[{"user":{"id":"00000000-0000-0000-0000-000000000001","name":"","userId":"ana"},"talkMs":900,"ratio":0.75,"wpm":120.0,"interruptions":2}],"silenceMs":5,"overlapMs":6,"follows":"0badcafe:17"}"#
        );
        let open = vec![OpenTask { text: "Call Ben.".to_owned(), assignee: None, due: Some("2030-03-05".to_owned()) }];
        let earlier = Earlier {
            conversation: ConversationId::from_random(7),
            title: "Weekly".to_owned(),
            started: Timestamp(0),
            topics: vec!["boats".to_owned()],
            summary: Vec::new(),
            open,
        };
        let told = history(&History { participant, conversations: vec![earlier] }, at);
        let told: Value = serde_json::from_str(&told).unwrap();
        assert_eq!((told["type"].as_str(), told["participant"]["userId"].as_str()), (Some("history"), Some("ana")));
        let told = &told["conversations"][0];
        assert_eq!(told["actionItems"], json!([{ "text": "Call Ben.", "dueBy": "2030-03-05" }]));
        assert_eq!((&told["topics"], &told["startTime"]), (&json!(["boats"]), &json!("1970-01-01T00:00:00.000Z")));
    }

    #[test]
    fn our_own_messages() {
        let ana = ana();
        let user: User<'_> = (&ana).into();
        let shapes = [
            (event("joined", at(2)), r#"{"type":"event","kind":"joined","position":"0badcafe:2"}"#.to_owned()),
            (position(at(3)), r#"{"type":"event","kind":"position","position":"0badcafe:3"}"#.to_owned()),
            (
                gap(at(2), at(9), Gap::Branch),
                r#"{"type":"gap","from":"0badcafe:2","to":"0badcafe:9","reason":"branch"}"#.to_owned(),
            ),
            (
                degraded(ORIGIN, "log"),
                r#"{"type":"degraded","since":"2030-03-04T09:00:00.000Z","reason":"log"}"#.to_owned(),
            ),
            (
                presence("joined", user, Place::At(at(2))),
                format!(r#"{{"type":"presence","kind":"joined","user":{ANA},"position":"0badcafe:2"}}"#),
            ),
            (
                presence("speaking", user, Place::Follows(at(2))),
                format!(r#"{{"type":"presence","kind":"speaking","user":{ANA},"follows":"0badcafe:2"}}"#),
            ),
            (listeners(7), r#"{"type":"presence","kind":"listeners","listeners":7}"#.to_owned()),
            (
                audio_ack(ChunkNumber(4), ChunkNumber(2), StreamTime(1_234_567)),
                r#"{"type":"audio_ack","chunk":4,"restart":2,"ms":1234}"#.to_owned(),
            ),
            (resumed(ChunkNumber(4)), r#"{"type":"resumed","chunk":4}"#.to_owned()),
            (finalized("a", at(5)), r#"{"type":"finalized","id":"a","position":"0badcafe:5"}"#.to_owned()),
            (
                resume_token("t", StreamId(id(1))),
                r#"{"type":"resume_token","token":"t","stream":"00000000-0000-0000-0000-000000000001"}"#.to_owned(),
            ),
            (
                snapshot(at(5), &value!({"id": "x"}), true),
                r#"{"type":"snapshot","position":"0badcafe:5","truncated":true,"conversation":{"id":"x"}}"#.to_owned(),
            ),
            (
                snapshot(at(5), &value!({}), false),
                r#"{"type":"snapshot","position":"0badcafe:5","conversation":{}}"#.to_owned(),
            ),
            (
                transcript_response("hello", false, user, at(1)),
                format!(
                    r#"{{"type":"transcript_response","payload":{{"content":"hello","contentType":"text/plain"}},"isFinal":false,"from":{ANA},"follows":"0badcafe:1"}}"#
                ),
            ),
            (
                stream_health(&StreamHealth {
                    received_ms: 5,
                    acked_ms: 4,
                    backlog_ms: 1,
                    realtime_factor: 0.5,
                    speech: 1.0,
                    ladder: "full".into(),
                    trace: "t".into(),
                }),
                r#"{"type":"stream_health","receivedMs":5,"ackedMs":4,"backlogMs":1,"realtimeFactor":0.5,"speech":1.0,"ladder":"full","trace":"t"}"#.to_owned(),
            ),
        ];
        for (got, expected) in shapes {
            assert_eq!(got, expected);
        }
    }

    #[test]
    fn every_gap_has_its_own_name() {
        let names: std::collections::HashSet<_> = Gap::ALL.iter().map(|gap| gap.name()).collect();
        assert_eq!(names.len(), Gap::ALL.len());
    }
}
