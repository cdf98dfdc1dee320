//! Sends every message back: what conformance suites of the WebSocket protocol talk to. The same frames, limits, outbox
//! and write loop as a speaker's socket, without a session behind them, and so without its limit on messages.
//!
//! A client that sends and does not read is not read either, once half of the outbox is full.

use std::{pin::pin, sync::Arc};

use bytes::Bytes;
use futures::StreamExt;
use hearsay_fanout::{Class, Outbox, frame};
use hearsay_protocol::CloseCode;
use tokio::{
    io::AsyncReadExt,
    time::{Instant, sleep_until, timeout},
};

use crate::{
    connection::{GOODBYE, write_loop},
    shared::Shared,
    socket::{Message, messages},
    transport::Transport,
};

pub(crate) async fn serve(shared: Arc<Shared>, socket: Transport, leftover: Bytes) {
    let limits = shared.hub.config().outbox_limits();
    let silence = shared.config.silence.get();
    let (outbox, outgoing) = Outbox::new(limits);
    let (read, write) = socket.split();
    let mut incoming = pin!(messages(std::io::Cursor::new(leftover).chain(read)));
    let drain = shared.tasks.drain();
    let reading = async {
        loop {
            let deadline = Instant::now() + silence;
            let message = tokio::select! {
                message = async {
                    outbox.room(limits.bytes / 2).await;
                    incoming.next().await
                } => message.unwrap_or(Message::Lost),
                () = drain.cancelled() => break outbox.close(CloseCode::Return, ""),
                () = sleep_until(deadline) => break outbox.close(CloseCode::Normal, ""),
                _ = outbox.broken() => break,
            };
            let answer = match message {
                Message::Text(text) => frame::text(&text),
                Message::Binary(payload) => frame::binary(&payload),
                Message::Ping(payload) => frame::pong(&payload),
                Message::Pong => continue,
                Message::Close(code) => {
                    break outbox.close(code.map_or(CloseCode::Return, CloseCode::Other), "");
                }
                Message::Violation(code, _) => break outbox.close(code, ""),
                Message::Lost => break outbox.close(CloseCode::Return, ""),
            };
            outbox.offer(answer, Class::Control);
        }
        let _ = timeout(GOODBYE, async { while incoming.next().await.is_some() {} }).await;
    };
    tokio::join!(reading, write_loop(outgoing, write, silence));
}
