//! The edge: HTTP and WebSocket in, audio to the recognizers, the meeting's events back.

mod answer;
mod config;
mod metrics;
mod publisher;
mod refusal;
mod request;
mod session;
mod socket;

pub use config::Config;
