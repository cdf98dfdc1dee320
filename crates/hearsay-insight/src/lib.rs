//! What was said, understood: questions, tasks, topics, trackers, entities and sentiment of a conversation's finals.
//!
//! Synchronous and pure: text and times in, insights out. Knows no network, no clock, no task.

pub mod acts;
pub mod analysis;
mod deeds;
pub mod grammar;
pub mod heads;
#[cfg(feature = "labelled")]
pub mod labelled;
pub mod meaning;
pub mod redact;
mod reply;
pub mod sentiment;
pub mod text;
pub mod topics;
pub mod trackers;
mod watch;
