//! From the bus to sockets: gives each conversation with members at this gateway one feed, renders each event once per
//! kind of reader, and writes the same bytes to everybody of that kind.
//!
//! ```text
//! bus ── Feed (one task a conversation) ──┬─ Outbox (speakers, listeners behind TLS) ── their own task
//!          order, merge, repair, render   └─ Core (one post an event) ── rows (listeners: no task, no buffer, no timer)
//! ```
//!
//! * [`Hub`] decides which feed a conversation has, and the races between join and leave.
//! * [`CoreSet`] owns the threads, and each core the rows of who only listens.
//! * Positions reach each subscriber contiguously, or it is told of a `gap`.
//!
//! Never parses start requests, never touches audio or recognizers.

mod config;
mod cores;
mod feed;
pub mod frame;
mod hub;
mod inbox;
mod listeners;
mod lobby;
mod metrics;
mod outbox;
mod registry;
mod snapshot;
mod trace;
mod view;

pub use config::{FanoutConfig, InvalidConfig};
pub use cores::{Core, CoreSet};
pub use hub::{Hub, Join, Listen, ListenOutbox, Listening, Member};
pub use inbox::{History, JoinError};
pub use listeners::{Renewals, Reply as ListenerReply, reply as listener_reply};
pub use metrics::describe as describe_metrics;
pub use outbox::{Broken, Class, Offer, Outbox, OutboxLimits, Outgoing};
pub use view::{Audience, Dialect, InsightTypes, Opted, Rendered, Scene, View, render, render_ephemeral};
