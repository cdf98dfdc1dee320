//! A listener behind TLS: a task of its own, where others are rows of a core (`hearsay_fanout`), to the same rules.

use std::{pin::pin, sync::Arc};

use bytes::Bytes;
use futures::StreamExt;
use hearsay_fanout::{Class, ListenOutbox, ListenerReply, Outbox, frame, listener_reply};
use hearsay_protocol::{
    CloseCode,
    client::{ClientError, ErrorCode},
    wire,
};
use tokio::{
    io::AsyncReadExt,
    time::{Instant, sleep_until, timeout},
};
use uuid::Uuid;

use crate::{
    connection::{GOODBYE, random_fraction, write_loop},
    renewals::good_for,
    shared::Shared,
    socket::{Message, messages},
    transport::Transport,
};

/// `listen` without its outbox, which is made here.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    listen: impl FnOnce(Outbox) -> ListenOutbox,
    expires: Instant,
    socket: Transport,
    leftover: Bytes,
) {
    let begun = Instant::now();
    let config = shared.hub.config();
    let (round, most) = (config.ping_every.get(), config.listener_messages.get());
    let (outbox, outgoing) = Outbox::new(config.outbox_limits());
    let listen = listen(outbox.clone());
    let meeting = listen.meeting.clone();
    // Dropped at the end, which is how the feed hears of it.
    let listening = shared.hub.listen_outbox(listen);
    let (read, write) = socket.split();
    let mut incoming = pin!(messages(std::io::Cursor::new(leftover).chain(read)));
    let reading = async {
        let drain = shared.tasks.drain();
        let mut draining = pin!(async {
            drain.cancelled().await;
            tokio::time::sleep(shared.spread().mul_f64(random_fraction())).await;
        });
        let tell = |error: &ClientError| {
            outbox.offer(frame::text(&wire::error(error.code, &error.details, None)), Class::Control);
        };
        let (mut expires, mut expired) = (expires, false);
        let (mut look, mut heard, mut asked, mut count) = (Instant::now() + round, false, false, 0_u16);
        let reason = loop {
            let message = tokio::select! {
                message = incoming.next() => message.unwrap_or(Message::Lost),
                () = sleep_until(look) => {
                    if asked && !heard {
                        outbox.close(CloseCode::Return, "");
                        break "dead";
                    }
                    if !heard {
                        outbox.offer(frame::ping(), Class::Control);
                    }
                    (look, asked, heard, count) = (look + round, !heard, false, 0);
                    continue;
                }
                () = sleep_until(expires) => {
                    if expired {
                        outbox.close(CloseCode::Policy, "token_expired");
                        break "token expired";
                    }
                    (expired, expires) = (true, expires + round);
                    let details = format!(
                        "access_token has expired; a good one in {{\"type\":\"token\",\"access_token\":…}} is accepted for {round:?} more"
                    );
                    tell(&ClientError::new(ErrorCode::TokenExpired, details));
                    continue;
                }
                () = &mut draining => {
                    outbox.close(CloseCode::Return, "");
                    break "draining";
                }
                // The meeting ended, or the reader was too slow: it has been told.
                _ = outbox.broken() => break "closed",
            };
            heard = true;
            count = count.saturating_add(1);
            if count > most {
                let details = format!("more than {most} messages in {round:?}; fewer are accepted");
                tell(&ClientError::new(ErrorCode::TooFast, details));
                outbox.close(CloseCode::Policy, "too_fast");
                break "flood";
            }
            match message {
                Message::Text(text) => match listener_reply(&text) {
                    ListenerReply::Text(text) => {
                        outbox.offer(frame::text(&text), Class::Control);
                    }
                    ListenerReply::Token(token) => match good_for(&shared.auth, &meeting, &token) {
                        Ok(good_for) => (expires, expired) = (Instant::now() + good_for, false),
                        Err(error) => tell(&error),
                    },
                    ListenerReply::Stop => {
                        outbox.close(CloseCode::Normal, "");
                        break "stopped";
                    }
                },
                Message::Ping(payload) => {
                    outbox.offer(frame::pong(&payload), Class::Control);
                }
                Message::Binary(_) | Message::Pong => {}
                Message::Close(code) => {
                    outbox.close(code.map_or(CloseCode::Return, CloseCode::Other), "");
                    break "left";
                }
                Message::Violation(code, error) => {
                    outbox.close(code, &error.details);
                    break "violation";
                }
                Message::Lost => {
                    outbox.close(CloseCode::Return, "");
                    break "lost";
                }
            }
        };
        let _ = timeout(GOODBYE, async { while incoming.next().await.is_some() {} }).await;
        reason
    };
    let (reason, ()) = tokio::join!(reading, write_loop(outgoing, write, shared.config.silence.get()));
    drop(listening);
    let session = Uuid::new_v4().as_u64_pair().1 as u32;
    tracing::info!(session, seconds = begun.elapsed().as_secs(), reason, "listener gone");
}
