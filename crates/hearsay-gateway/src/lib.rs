//! The edge: HTTP and WebSocket in, audio to the recognizers, the meeting's events back.
//!
//! ```text
//! accept ── permit, HTTP ──┬─ http_api (the page, tokens, operators, handshakes; refusals are held)
//!                          ├─ connection ── Session ──┬─ Uplink: audio to a recognizer
//!                          │   (a speaker's task)     ├─ StreamPublisher: began, changed, ended
//!                          │                          └─ Hub: the meeting's events into its Outbox
//!                          ├─ Hub::listen (a listener's row)
//!                          └─ echo (for conformance suites, where configured)
//! ```
//!
//! Holds no meeting state that another gateway cannot rebuild from the log.

mod accept;
mod answer;
mod assets;
mod config;
mod connection;
mod echo;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod history;
mod http_api;
mod listener;
mod metrics;
mod origin;
mod publisher;
mod records;
mod refusal;
mod renewals;
mod reply;
mod request;
mod resume;
mod session;
mod shared;
mod socket;
mod streams;
mod summarizer;
mod tls;
mod transport;

pub use accept::{Gateway, Parts, Running, StartError};
pub use config::{AccountTracker, Config};
pub use summarizer::SummaryConfig;
pub use tls::{TlsError, TlsFiles};
