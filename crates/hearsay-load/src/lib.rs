//! Clients of a running server, over real sockets and without shortcuts into it: [`transcribe`] streams recordings,
//! [`load::listen`] subscribes by the thousands. [`load::events`] alone goes to the log directly, as a recognizer does.
//!
//! The WebSocket client is tokio-tungstenite and not fastwebsockets, which the server uses: two implementations that must
//! agree find what one would excuse in itself.

pub mod load;
pub mod transcribe;
