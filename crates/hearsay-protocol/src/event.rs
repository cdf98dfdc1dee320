//! What happens in a conversation.
//!
//! [`Event`]s are durable: each takes an offset in the log. [`Ephemeral`]s are announced only, and whoever misses one
//! is not worse off after the next.

use std::{sync::Arc, time::Duration};

use uuid::Uuid;

use crate::{
    AudioFormat, ConversationId, EventId, GatewayId, ParticipantId, StreamId, StreamTime, Timestamp, TraceContext,
    UtteranceId,
};

/// A durable event. Cheap to clone where it is large.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The first event of every conversation.
    Started(Started),
    /// The participant's first stream opened. Appended by the log itself beside [`Event::StreamStarted`].
    Joined(Arc<Participant>),
    /// The participant's last stream ended. Appended by the log itself beside [`Event::StreamEnded`].
    Left(Arc<Participant>),
    /// A speaker's audio begins, or goes on from another connection (same stream id).
    StreamStarted(Arc<StreamStarted>),
    /// A speaker changed what it asked for in mid-stream.
    ConfigChanged(Arc<ConfigChanged>),
    /// A speaker's audio is over.
    StreamEnded(StreamEnded),
    /// What was said in one utterance: its last word.
    Final(Arc<Final>),
    /// Something inferred from finals.
    Insight(Arc<Insight>),
    /// The last event of every conversation that ended.
    Ended(Ended),
}

/// The kinds of [`Event`], for metrics labels, filters and the `kind` of `{"type":"event"}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventKind {
    Started,
    Joined,
    Left,
    StreamStarted,
    ConfigChanged,
    StreamEnded,
    Final,
    Insight,
    Ended,
}

impl EventKind {
    pub const ALL: [Self; 9] = [
        Self::Started,
        Self::Joined,
        Self::Left,
        Self::StreamStarted,
        Self::ConfigChanged,
        Self::StreamEnded,
        Self::Final,
        Self::Insight,
        Self::Ended,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Joined => "joined",
            Self::Left => "left",
            Self::StreamStarted => "stream_started",
            Self::ConfigChanged => "config_changed",
            Self::StreamEnded => "stream_ended",
            Self::Final => "final",
            Self::Insight => "insight",
            Self::Ended => "ended",
        }
    }
}

/// What clients number separately (`sequenceNumber`): one counter per class and conversation, from 0, assigned by the
/// log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    Message,
    Insight,
    Topic,
    Tracker,
    Entity,
    /// Events clients do not number.
    Other,
}

impl Class {
    pub const COUNT: usize = 6;

    pub fn index(self) -> usize {
        match self {
            Self::Message => 0,
            Self::Insight => 1,
            Self::Topic => 2,
            Self::Tracker => 3,
            Self::Entity => 4,
            Self::Other => 5,
        }
    }
}

impl Event {
    pub fn kind(&self) -> EventKind {
        match self {
            Self::Started(_) => EventKind::Started,
            Self::Joined(_) => EventKind::Joined,
            Self::Left(_) => EventKind::Left,
            Self::StreamStarted(_) => EventKind::StreamStarted,
            Self::ConfigChanged(_) => EventKind::ConfigChanged,
            Self::StreamEnded(_) => EventKind::StreamEnded,
            Self::Final(_) => EventKind::Final,
            Self::Insight(_) => EventKind::Insight,
            Self::Ended(_) => EventKind::Ended,
        }
    }

    pub fn class(&self) -> Class {
        match self {
            Self::Final(_) => Class::Message,
            Self::Insight(insight) => match insight.body {
                InsightBody::Question | InsightBody::ActionItem { .. } | InsightBody::FollowUp { .. } => Class::Insight,
                InsightBody::Topic { .. } => Class::Topic,
                InsightBody::Tracker { .. } => Class::Tracker,
                InsightBody::Entity { .. } => Class::Entity,
                InsightBody::Intent { .. } => Class::Other,
            },
            _ => Class::Other,
        }
    }

    /// The stream this event is about, if it is about one.
    pub fn stream(&self) -> Option<StreamId> {
        match self {
            Self::StreamStarted(started) => Some(started.stream),
            Self::ConfigChanged(changed) => Some(changed.stream),
            Self::StreamEnded(ended) => Some(ended.stream),
            Self::Final(spoken) => Some(spoken.stream),
            _ => None,
        }
    }
}

/// A person in a conversation, as its clients describe them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Participant {
    pub id: ParticipantId,
    /// The client's own stable key of this person, if it gave one.
    pub user_id: Option<String>,
    pub name: Option<String>,
    pub email: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    pub at: Timestamp,
    /// Shown as the conversation's name.
    pub title: String,
}

/// What a speaker asked for, as far as recognizer, analyst and other gateways need it.
#[derive(Debug, Clone, PartialEq)]
pub struct SpeakerConfig {
    pub format: AudioFormat,
    /// BCP 47, for instance `en-US`.
    pub language: String,
    pub vocabulary: Vec<String>,
    /// Insight types as the client named them, unknown ones too.
    pub insight_types: Vec<String>,
    /// Insights below are not shown to this speaker, 0 to 1.
    pub confidence_threshold: f32,
    /// Minutes east of UTC.
    pub timezone_offset_min: i32,
    /// An IANA name, which tells more than an offset does.
    pub time_zone: Option<String>,
    pub sentiment: bool,
    pub detect_entities: bool,
    pub entities: Vec<CustomEntity>,
    pub trackers: Vec<Tracker>,
    pub tracker_interim_results: bool,
    pub enable_all_trackers: bool,
    pub redaction: Option<Redaction>,
}

impl Default for SpeakerConfig {
    fn default() -> Self {
        Self {
            format: AudioFormat::default(),
            language: "en-US".to_owned(),
            vocabulary: Vec::new(),
            insight_types: Vec::new(),
            confidence_threshold: 0.5,
            timezone_offset_min: 0,
            time_zone: None,
            sentiment: false,
            detect_entities: false,
            entities: Vec::new(),
            trackers: Vec::new(),
            tracker_interim_results: false,
            enable_all_trackers: false,
            redaction: None,
        }
    }
}

/// Words and phrases a client wants to hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracker {
    pub id: Option<String>,
    pub name: String,
    pub vocabulary: Vec<String>,
}

/// A thing a client wants to hear of by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CustomEntity {
    /// What kind of thing it is, as its owner calls it.
    pub custom_type: String,
    /// What it is called, whatever words were said.
    pub value: String,
    /// The words that name it.
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redaction {
    pub identify: bool,
    pub redact: bool,
    /// What stands in place of redacted words, 1 to 16 characters.
    pub replacement: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct StreamStarted {
    pub stream: StreamId,
    pub participant: Arc<Participant>,
    /// Whose lease keeps this stream alive.
    pub gateway: GatewayId,
    pub config: SpeakerConfig,
    /// The wall time of the stream's audio clock at zero.
    pub origin: Timestamp,
    /// A file sent as fast as it goes, not live speech.
    pub recorded: bool,
    /// How long the conversation outlives an unclean loss of its last speaker.
    pub no_connection_timeout: Duration,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ConfigChanged {
    pub stream: StreamId,
    pub config: SpeakerConfig,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamEnded {
    pub stream: StreamId,
    pub how: StreamEnd,
}

/// How a stream ended; decides what becomes of the conversation when it was the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamEnd {
    /// The client stopped, or closed with 1000. The conversation ends when `linger` has passed without a speaker; zero
    /// unless the client asked to stay connected after its stop.
    Stopped { linger: Duration },
    /// The connection was lost, or closed by us with anything but 1000: the speaker may return.
    Lost,
}

/// Why a conversation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// The last speaker stopped.
    Stopped,
    /// The last speaker was lost and nobody returned in time.
    Abandoned,
    /// Nobody said anything for too long.
    Silence,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub at: Timestamp,
    pub reason: EndReason,
}

/// One utterance's last word.
#[derive(Debug, Clone, PartialEq)]
pub struct Final {
    pub stream: StreamId,
    pub utterance: UtteranceId,
    pub participant: Arc<Participant>,
    /// The wall time of the stream's audio clock at zero.
    pub origin: Timestamp,
    /// First and after the last sample of speech.
    pub start: StreamTime,
    pub end: StreamTime,
    /// Punctuated. Never empty. Sentences joined by single spaces.
    pub text: String,
    /// BCP 47.
    pub language: String,
    /// 0 to 1.
    pub confidence: f32,
    /// The space-separated words of `text`, in order.
    pub words: Vec<SpokenWord>,
    /// Of each sentence of `text`, from -1, negative, to 1, positive. Empty: not weighed.
    pub sentiment: Vec<f32>,
    /// Where its way to listeners is told, if it is.
    pub trace: Option<TraceContext>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct SpokenWord {
    pub text: String,
    pub start: StreamTime,
    pub end: StreamTime,
    /// 0 to 1.
    pub confidence: f32,
}

/// Something inferred from finals.
#[derive(Debug, Clone, PartialEq)]
pub struct Insight {
    /// A function of kind and evidence, so a replay repeats it.
    pub id: EventId,
    /// From 0; a higher revision of the same id replaces a lower one.
    pub revision: u32,
    pub retracted: bool,
    /// 0 to 1.
    pub confidence: f32,
    pub text: String,
    pub from: Option<Arc<Participant>>,
    pub evidence: Vec<Evidence>,
    pub body: InsightBody,
}

/// The words an insight came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The sentence ([`UtteranceId::sentence`]).
    pub message: Uuid,
    /// Characters of the sentence: first and after the last.
    pub start: u32,
    pub end: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub enum InsightBody {
    Question,
    ActionItem {
        assignee: Option<Arc<Participant>>,
        due: Option<String>,
    },
    FollowUp {
        assignee: Option<Arc<Participant>>,
        due: Option<String>,
    },
    Topic {
        phrase: String,
        root_words: Vec<String>,
    },
    Tracker {
        tracker: String,
        value: String,
    },
    /// Of one a client named, the kind is [`InsightBody::CUSTOM`] and what the client calls it.
    Entity {
        kind: String,
        value: String,
    },
    /// What a sentence is said for: to ask, to promise, to direct, to suggest.
    Intent {
        intent: String,
    },
}

impl InsightBody {
    /// What the kind of a custom entity begins with.
    pub const CUSTOM: &str = "custom:";

    /// What a client calls the kind of an entity, if it is one that a client named.
    pub fn custom_type(kind: &str) -> Option<&str> {
        kind.strip_prefix(Self::CUSTOM)
    }

    /// Its name on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Question => "question",
            Self::ActionItem { .. } => "action_item",
            Self::FollowUp { .. } => "follow_up",
            Self::Topic { .. } => "topic",
            Self::Tracker { .. } => "tracker",
            Self::Entity { .. } => "entity",
            Self::Intent { .. } => "intent",
        }
    }
}

/// An announcement that takes no offset.
#[derive(Debug, Clone, PartialEq)]
pub enum Ephemeral {
    Partial(Arc<Partial>),
    /// Somebody began or ceased to speak.
    Speaking {
        participant: Arc<Participant>,
        stream: StreamId,
        speaking: bool,
    },
    /// How many listen at one gateway.
    Listeners {
        gateway: GatewayId,
        count: u32,
    },
    /// Who spoke how long so far; the latest counts.
    Analytics(Arc<Analytics>),
    /// Somebody came who was in earlier conversations.
    History(Arc<History>),
    /// A tracker found its words in an utterance that still goes on.
    Tracked(Arc<Tracked>),
    /// Something somebody asked for is not done.
    Warning(Arc<Warning>),
}

/// What a tracker found in an utterance so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracked {
    pub utterance: UtteranceId,
    pub tracker: String,
    /// The phrase, as it is looked for.
    pub value: String,
    /// The utterance so far, and where the phrase stands: characters, first and after the last.
    pub text: String,
    pub start: u32,
    pub end: u32,
}

/// What is not done of what a speaker asked for, for want of room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Who asked.
    pub participant: ParticipantId,
    /// A sentence for people: what came, and what is accepted.
    pub details: String,
}

/// Who spoke how long, up to the last word that was said.
#[derive(Debug, Clone, PartialEq)]
pub struct Analytics {
    pub speakers: Vec<Talked>,
    /// Milliseconds in which nobody spoke, and in which at least two did.
    pub silence_ms: u64,
    pub overlap_ms: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Talked {
    pub participant: Arc<Participant>,
    pub talk_ms: u64,
    /// Of all speech, 0 to 1.
    pub ratio: f32,
    /// Words a minute of own speech.
    pub wpm: f32,
    /// How often it began while somebody else spoke.
    pub interruptions: u32,
}

/// What is known of somebody from earlier conversations, latest first.
#[derive(Debug, Clone, PartialEq)]
pub struct History {
    pub participant: Arc<Participant>,
    pub conversations: Vec<Earlier>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Earlier {
    pub conversation: ConversationId,
    pub title: String,
    pub started: Timestamp,
    pub topics: Vec<String>,
    /// Sentences that stand for the whole.
    pub summary: Vec<String>,
    /// Action items and follow-ups.
    pub open: Vec<OpenTask>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct OpenTask {
    pub text: String,
    /// By name.
    pub assignee: Option<String>,
    /// RFC 3339.
    pub due: Option<String>,
}

/// An utterance so far. A later revision replaces it; its final ends it.
#[derive(Debug, Clone, PartialEq)]
pub struct Partial {
    pub stream: StreamId,
    pub utterance: UtteranceId,
    /// Counts up from 1 within the utterance.
    pub revision: u32,
    pub participant: Arc<Participant>,
    pub origin: Timestamp,
    pub start: StreamTime,
    /// How far the stream had been heard.
    pub end: StreamTime,
    /// Never empty.
    pub text: String,
    /// The first this many bytes of `text` will not change before the final.
    pub stable: usize,
    /// 0 to 1.
    pub confidence: f32,
}
