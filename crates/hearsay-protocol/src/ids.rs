//! Names of things. Each is parsed once and then known to be well-formed.

use std::{fmt, str::FromStr, sync::Arc};

use uuid::Uuid;

use crate::event::EventKind;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    #[error("{what} is empty; 1 to {max} characters are accepted")]
    Empty { what: &'static str, max: usize },
    #[error("{what} has {got} characters; 1 to {max} are accepted")]
    TooLong { what: &'static str, got: usize, max: usize },
    #[error("{what} contains a control character; printable characters are accepted")]
    Control { what: &'static str },
    #[error("conversation id {got:?} is not a decimal number of 16 digits")]
    Conversation { got: String },
}

fn checked(what: &'static str, max: usize, text: &str) -> Result<Arc<str>, InvalidId> {
    let got = text.chars().count();
    if got == 0 {
        Err(InvalidId::Empty { what, max })
    } else if got > max {
        Err(InvalidId::TooLong { what, got, max })
    } else if text.chars().any(char::is_control) {
        Err(InvalidId::Control { what })
    } else {
        Ok(text.into())
    }
}

/// Who pays for and owns meetings. Two accounts never share one, whatever names they choose.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountId(Arc<str>);

impl AccountId {
    /// Longest accepted, in characters.
    pub const MAX: usize = 128;

    pub fn new(text: &str) -> Result<Self, InvalidId> {
        checked("account id", Self::MAX, text).map(Self)
    }

    /// The account of development set-ups.
    pub fn dev() -> Self {
        Self("dev".into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name clients give a gathering; points to its open conversation, if any.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MeetingId(Arc<str>);

impl MeetingId {
    /// Longest accepted, in characters.
    pub const MAX: usize = 256;

    pub fn new(text: &str) -> Result<Self, InvalidId> {
        checked("meeting id", Self::MAX, text).map(Self)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

macro_rules! display_text {
    ($($name:ident),*) => { $(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
    )* };
}
display_text!(AccountId, MeetingId);

/// A conversation's name: a decimal number of exactly 16 digits, always written as a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConversationId(u64);

impl ConversationId {
    const LOWEST: u64 = 1_000_000_000_000_000;
    const COUNT: u64 = 9 * Self::LOWEST;

    /// Any 64 random bits give a valid id.
    pub fn from_random(bits: u64) -> Self {
        Self(Self::LOWEST + bits % Self::COUNT)
    }

    pub fn get(self) -> u64 {
        self.0
    }
}

impl TryFrom<u64> for ConversationId {
    type Error = InvalidId;

    fn try_from(number: u64) -> Result<Self, InvalidId> {
        if (Self::LOWEST..Self::LOWEST + Self::COUNT).contains(&number) {
            Ok(Self(number))
        } else {
            Err(InvalidId::Conversation { got: number.to_string() })
        }
    }
}

impl fmt::Display for ConversationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016}", self.0)
    }
}

impl FromStr for ConversationId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let wrong = || InvalidId::Conversation { got: text.chars().take(32).collect() };
        if text.len() != 16 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong());
        }
        text.parse::<u64>().map_err(|_| wrong())?.try_into()
    }
}

/// A meeting of an account.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MeetingKey {
    pub account: AccountId,
    pub meeting: MeetingId,
}

impl fmt::Display for MeetingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.account, self.meeting)
    }
}

/// One conversation of a meeting: what every call to the log names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConversationKey {
    pub meeting: MeetingKey,
    pub conversation: ConversationId,
}

impl fmt::Display for ConversationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.meeting, self.conversation)
    }
}

macro_rules! uuid_id {
    ($($(#[$doc:meta])* $name:ident),*) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.fmt(f) }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, uuid::Error> { text.parse().map(Self) }
        }
    )* };
}
uuid_id!(
    /// One participant's audio on one connection (and on the next one, when the client resumes).
    StreamId,
    /// A person in a conversation; several streams may be theirs.
    ParticipantId,
    /// One stretch of speech.
    UtteranceId,
    /// What a durable event is, wherever it stands in the log: a function of its input, so a replay repeats it.
    EventId,
    /// One gateway process, from start to exit.
    GatewayId
);

impl ParticipantId {
    /// The participant behind a client's `userId`: the same person on every connection of a conversation.
    pub fn of_user(conversation: ConversationId, user_id: &str) -> Self {
        Self(derive(Uuid::NAMESPACE_OID, &[b"participant", conversation.to_string().as_bytes(), user_id.as_bytes()]))
    }

    /// A participant without a `userId`: one per stream.
    pub fn of_stream(conversation: ConversationId, stream: StreamId) -> Self {
        Self(derive(stream.0, &[b"participant", conversation.to_string().as_bytes()]))
    }
}

impl UtteranceId {
    /// The utterance that follows the cut at `from` of `stream`. There is at most one, so a replay names it the same.
    pub fn after_cut(stream: StreamId, from: crate::StreamTime) -> Self {
        Self(derive(stream.0, &[b"utterance", &from.micros().to_be_bytes()]))
    }

    /// The id of the sentence `index` of this utterance.
    pub fn sentence(self, index: usize) -> Uuid {
        derive(self.0, &[b"sentence", &(index as u64).to_be_bytes()])
    }
}

impl EventId {
    /// The id of event `index` of the batch that moves `publisher`'s watermark to `through`.
    pub fn of_input(publisher: &PublisherId, through: u64, index: usize) -> Self {
        let name = publisher.to_string();
        Self(derive(
            Uuid::NAMESPACE_OID,
            &[b"event", name.as_bytes(), &through.to_be_bytes(), &(index as u64).to_be_bytes()],
        ))
    }
}

impl EventId {
    /// The id of an event that the log itself adds behind a publisher's, about a stream or participant.
    pub fn of_added(publisher: &PublisherId, through: u64, kind: EventKind, about: Uuid) -> Self {
        let name = publisher.to_string();
        let kind = kind.name();
        Self(derive(
            Uuid::NAMESPACE_OID,
            &[b"added", name.as_bytes(), &through.to_be_bytes(), kind.as_bytes(), about.as_bytes()],
        ))
    }

    /// The id of what was inferred from a sentence: `at` tells apart what one sentence has several of.
    pub fn of_insight(message: Uuid, kind: &str, at: u64) -> Self {
        Self(derive(message, &[b"insight", kind.as_bytes(), &at.to_be_bytes()]))
    }

    /// The id of one revision of an insight: each is an event of its own.
    pub fn of_revision(insight: Self, revision: u32) -> Self {
        Self(derive(insight.0, &[b"revision", &revision.to_be_bytes()]))
    }
}

/// A version-5 UUID of length-prefixed parts, so that no two lists of parts collide by concatenation.
fn derive(namespace: Uuid, parts: &[&[u8]]) -> Uuid {
    let mut name = Vec::with_capacity(64);
    for part in parts {
        name.extend_from_slice(&(part.len() as u32).to_be_bytes());
        name.extend_from_slice(part);
    }
    Uuid::new_v5(&namespace, &name)
}

/// How often a publisher's place in a conversation was claimed. The highest one may publish; all others are fenced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who appends to a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PublisherId {
    /// The recognizer of a stream; its input is stream time in µs.
    Stream(StreamId),
    /// Reads finals and appends insights; its input is log offsets.
    Analyst,
    /// Runs automated actions; its input is log offsets.
    Actions,
    /// A gateway's own events; its input is a counter of its operations.
    Gateway(GatewayId),
    /// One REST request's edits; its input is a counter.
    Rest(Uuid),
    /// The log itself, in `tick`. Never claims.
    Clock,
}

impl PublisherId {
    /// Claims of these are refused while the holder's lease lives; all others are always granted.
    pub fn is_leased(&self) -> bool {
        matches!(self, Self::Analyst | Self::Actions)
    }
}

impl fmt::Display for PublisherId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream(id) => write!(f, "stream:{id}"),
            Self::Analyst => f.write_str("analyst"),
            Self::Actions => f.write_str("actions"),
            Self::Gateway(id) => write!(f, "gateway:{id}"),
            Self::Rest(id) => write!(f, "rest:{id}"),
            Self::Clock => f.write_str("clock"),
        }
    }
}

impl FromStr for PublisherId {
    type Err = InvalidPublisher;

    fn from_str(text: &str) -> Result<Self, InvalidPublisher> {
        let wrong = || InvalidPublisher { got: text.chars().take(64).collect() };
        Ok(match text.split_once(':') {
            None if text == "analyst" => Self::Analyst,
            None if text == "actions" => Self::Actions,
            None if text == "clock" => Self::Clock,
            Some(("stream", id)) => Self::Stream(id.parse().map_err(|_| wrong())?),
            Some(("gateway", id)) => Self::Gateway(id.parse().map_err(|_| wrong())?),
            Some(("rest", id)) => Self::Rest(id.parse().map_err(|_| wrong())?),
            _ => return Err(wrong()),
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("publisher {got:?} is none of stream:UUID, analyst, actions, gateway:UUID, rest:UUID, clock")]
pub struct InvalidPublisher {
    pub got: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversation_ids_are_sixteen_digits() {
        for bits in [0, 1, u64::MAX, 8_999_999_999_999_999] {
            let id = ConversationId::from_random(bits);
            assert_eq!(id.to_string().len(), 16);
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        for text in ["", "123", "0123456789012345", "12345678901234567", "123456789012345x", "+234567890123456"] {
            assert!(text.parse::<ConversationId>().is_err(), "{text}");
        }
    }

    #[test]
    fn meeting_ids_are_bounded_printable_text() {
        assert!(MeetingId::new("dXNlckBleGFtcGxlLmNvbQ==").is_ok());
        assert!(MeetingId::new(&"é".repeat(256)).is_ok());
        assert_eq!(MeetingId::new(""), Err(InvalidId::Empty { what: "meeting id", max: 256 }));
        assert!(MeetingId::new(&"x".repeat(257)).is_err());
        assert!(MeetingId::new("a\nb").is_err());
    }

    #[test]
    fn publishers_survive_their_text_form() {
        let id = Uuid::from_u128(7);
        for publisher in [
            PublisherId::Stream(StreamId(id)),
            PublisherId::Analyst,
            PublisherId::Actions,
            PublisherId::Gateway(GatewayId(id)),
            PublisherId::Rest(id),
            PublisherId::Clock,
        ] {
            assert_eq!(publisher.to_string().parse(), Ok(publisher));
        }
        assert!("stream:x".parse::<PublisherId>().is_err());
        assert!("analyst:1".parse::<PublisherId>().is_err());
    }

    #[test]
    fn derived_ids_depend_on_every_part() {
        let publisher = PublisherId::Stream(StreamId(Uuid::from_u128(1)));
        let id = EventId::of_input(&publisher, 5, 0);
        assert_eq!(id, EventId::of_input(&publisher, 5, 0));
        assert_ne!(id, EventId::of_input(&publisher, 5, 1));
        assert_ne!(id, EventId::of_input(&publisher, 6, 0));
        assert_ne!(id, EventId::of_input(&PublisherId::Analyst, 5, 0));
    }
}
