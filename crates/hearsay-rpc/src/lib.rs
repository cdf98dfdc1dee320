//! The messages between gateway, recognizer and log: code generated from `proto/`, and conversions to and from the
//! protocol's own types. No decisions.
//!
//! Everything that arrives is checked on the way in ([`Malformed`] names the field); everything that leaves is written
//! by `From`. A log entry is [`encode`]d and [`decode`]d here too.

mod event;
mod field;
mod recognize;

pub use event::{decode, encode};
pub use field::Malformed;
pub use recognize::{Ack, Health, Marker, MarkerKind, Open, Request, Response, Signal, SignalKind};

/// `hearsay.v1`, as generated.
#[allow(clippy::all, unreachable_pub, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("hearsay.v1");

    /// The compiled descriptors, for gRPC reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}
