//! The words of hearsay: ids, positions, audio formats, events, client messages, close codes.
//!
//! Everything a stranger sends is parsed here, once, into types that cannot be wrong. No I/O, no clock, no randomness.

pub mod audio;
pub mod client;
pub mod close;
pub mod event;
pub mod ids;
pub mod position;
mod sentences;
pub mod time;
pub mod trace;
pub mod wire;

pub use audio::{AudioFormat, ChunkNumber, Encoding, Meter, Restart, SampleRate};
pub use close::CloseCode;
pub use event::Event;
pub use ids::{
    AccountId, ConversationId, ConversationKey, EventId, GatewayId, Generation, MeetingId, MeetingKey, ParticipantId,
    PublisherId, StreamId, UtteranceId,
};
pub use position::{Epoch, Offset, Position, Seen};
pub use sentences::{Sentence, sentences};
pub use time::{Iso8601, StreamTime, Timestamp};
pub use trace::{SpanId, TraceContext, TraceId};
