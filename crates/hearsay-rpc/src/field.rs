//! What a field must be, and the error that says which one was not.

use std::time::Duration;

use uuid::Uuid;

/// A message that does not mean anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("field {field} {reason}")]
pub struct Malformed {
    /// As in the .proto file, with the message it is in: `Final.text`.
    pub field: &'static str,
    /// Follows the field's name in a sentence.
    pub reason: String,
}

pub(crate) fn malformed(field: &'static str, reason: impl ToString) -> Malformed {
    Malformed { field, reason: reason.to_string() }
}

pub(crate) fn required<T>(field: &'static str, value: Option<T>) -> Result<T, Malformed> {
    value.ok_or_else(|| malformed(field, "is missing, or of a kind this version does not know"))
}

pub(crate) fn uuid(field: &'static str, bytes: &[u8]) -> Result<Uuid, Malformed> {
    Uuid::from_slice(bytes).map_err(|_| malformed(field, format!("has {} bytes; a UUID has 16", bytes.len())))
}

pub(crate) fn bytes(id: Uuid) -> Vec<u8> {
    id.as_bytes().to_vec()
}

/// A probability or a confidence.
pub(crate) fn fraction(field: &'static str, value: f32) -> Result<f32, Malformed> {
    if (0.0..=1.0).contains(&value) {
        Ok(value)
    } else {
        Err(malformed(field, format!("is {value}, not within 0 to 1")))
    }
}

pub(crate) fn spoken(field: &'static str, text: String) -> Result<String, Malformed> {
    if text.is_empty() { Err(malformed(field, "is empty")) } else { Ok(text) }
}

/// Saturates: 584 thousand years.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A length within a text. Texts are far below 4 GiB.
pub(crate) fn short(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
