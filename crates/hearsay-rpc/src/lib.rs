//! The messages between gateway, recognizer and log: code generated from `proto/`, and conversions to and from the
//! protocol's own types. No decisions.

mod convert;

pub use convert::Malformed;

/// `hearsay.v1`, as generated.
#[allow(clippy::all, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("hearsay.v1");

    /// The compiled descriptors, for gRPC reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}
