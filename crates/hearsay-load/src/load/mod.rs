//! Load and what came of it: [`events`] publishes as recognizers do, straight to the log; [`listen`] receives as clients do,
//! over real sockets, and counts what is missing, and cuts all off at once where that is asked; [`sockets`] are idle ones,
//! and [`meetings`] have speakers with real audio.
//!
//! Every event says in its own words when it was handed to the log, in nanoseconds of the wall clock ([`stamp`]), so a
//! listener on the same machine measures the whole way: the call, the log, a gateway, a socket.

mod door;
pub mod events;
pub mod listen;
pub mod meetings;
mod report;
mod run;
pub mod sockets;

pub use report::{Limits, Report};

use std::time::{SystemTime, UNIX_EPOCH};

/// What stands before a stamp.
const MARK: &[u8] = b"sent at ";

/// Nanoseconds of the wall clock.
pub(crate) fn nanos() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// Words that say when they were said, filled up to `bytes` bytes at least.
pub(crate) fn stamp(nanos: u64, bytes: usize) -> String {
    const FILL: &str = " and so on";
    let mut text = format!("This was sent at {nanos}");
    while text.len() < bytes {
        text.push_str(FILL);
    }
    text.push('.');
    text
}

/// The stamp in a frame, if there is one.
pub(crate) fn stamped(frame: &[u8]) -> Option<u64> {
    let from = memchr::memmem::find(frame, MARK)? + MARK.len();
    let digits = frame[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&frame[from..from + digits]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_found_in_what_it_was_written_into() {
        let text = stamp(1_732_361_234_567_890_123, 200);
        assert!((200..220).contains(&text.len()), "{}", text.len());
        let frame = serde_json::json!({"type": "message_response", "messages": [{"payload": {"content": text}}]});
        assert_eq!(stamped(frame.to_string().as_bytes()), Some(1_732_361_234_567_890_123));
        for none in ["", "sent at ", "sent at x", "{\"type\":\"message\"}"] {
            assert_eq!(stamped(none.as_bytes()), None, "{none}");
        }
    }
}
