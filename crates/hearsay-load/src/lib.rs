//! Clients of a running server, over real sockets and without shortcuts into it: [`transcribe`] streams recordings,
//! [`load::listen`] subscribes by the thousands. [`load::events`] alone goes to the log directly, as a recognizer does.
//!
//! The WebSocket client is tokio-tungstenite and not fastwebsockets, which the server uses: two implementations that must
//! agree find what one would excuse in itself.

pub mod load;
pub mod transcribe;
pub mod trust;

/// Everything but unreserved characters is escaped, so that any name is one segment of a path.
pub(crate) fn escape(segment: &str) -> String {
    let mut escaped = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}
