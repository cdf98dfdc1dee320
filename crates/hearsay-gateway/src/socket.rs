//! The only file that knows fastwebsockets: bytes of an upgraded connection become messages.
//!
//! Only the reading half is used. What goes out is encoded elsewhere, once for all readers, and written as it is; pongs
//! and close frames join that queue, so nothing overtakes.
//!
//! Audio is not copied: unmasked in place, it stays in the buffer it was read into.

use std::io;

use bytes::{Bytes, BytesMut};
use fastwebsockets::{
    Frame, OpCode, Payload, Role, WebSocketError, WebSocketRead, after_handshake_split,
    upgrade::{UpgradeFut, is_upgrade_request, upgrade},
};
use futures::{Stream, stream};
use hearsay_fanout::frame::MAX_FRAGMENTS;
use hearsay_protocol::{
    CloseCode,
    client::{ClientError, ErrorCode},
};
use http::Request;
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, sink};

use crate::{answer::Answer, transport::Transport};

/// Largest message, in bytes. Clients send audio in 2 to 8 KiB; a start request with all its trackers may be longer.
pub(crate) const MAX_MESSAGE: usize = 64 * 1024;

/// Largest payload of a control frame, in bytes: RFC 6455, section 5.5.
const MAX_CONTROL: usize = 125;

/// Close codes of the WebSocket protocol itself.
const NOT_WEBSOCKET: CloseCode = CloseCode::Other(1002);
const NOT_TEXT: CloseCode = CloseCode::Other(1007);

/// What a client sent.
#[derive(Debug)]
pub(crate) enum Message {
    Text(String),
    Binary(Bytes),
    /// To be answered with a pong of the same bytes.
    Ping(Bytes),
    Pong,
    /// The code, if there was one. Nothing follows.
    Close(Option<u16>),
    /// Not a WebSocket message, or one we do not take. Nothing follows.
    Violation(CloseCode, ClientError),
    /// The connection is gone. Nothing follows.
    Lost,
}

/// The messages of a connection, in order. The stream may be dropped between messages, and its `next` may be dropped
/// while it waits: what was read is kept inside.
pub(crate) fn messages<R: AsyncRead + Unpin + Send>(read: R) -> impl Stream<Item = Message> + Send {
    let (mut frames, _) = after_handshake_split(read, sink(), Role::Server);
    // Pongs and close frames are queued behind what is on its way out, by whoever reads this.
    frames.set_auto_pong(false);
    frames.set_auto_close(false);
    // The limit is exclusive there.
    frames.set_max_message_size(MAX_MESSAGE + 1);
    let reader = Reader { frames, fragments: None };
    stream::unfold(Some(reader), |reader| async {
        let mut reader = reader?;
        let message = reader.next().await;
        let last = matches!(message, Message::Close(_) | Message::Violation(..) | Message::Lost);
        Some((message, (!last).then_some(reader)))
    })
}

struct Reader<R> {
    frames: WebSocketRead<R>,
    fragments: Option<Fragments>,
}

/// A message under way.
struct Fragments {
    text: bool,
    message: BytesMut,
    frames: u16,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    async fn next(&mut self) -> Message {
        loop {
            // Nothing is ever sent from there: both automatic answers are off.
            let read = self.frames.read_frame(&mut |_| async { Ok::<(), io::Error>(()) }).await;
            let message = match read {
                Ok(frame) => take(&mut self.fragments, frame),
                Err(error) => Err(error),
            };
            match message {
                Ok(Some(message)) => return message,
                Ok(None) if self.fragments.as_ref().is_some_and(|begun| begun.frames >= MAX_FRAGMENTS) => {
                    let details = format!(
                        "a message comes in more than {MAX_FRAGMENTS} frames; up to {MAX_FRAGMENTS} are accepted"
                    );
                    return Message::Violation(CloseCode::Policy, ClientError::new(ErrorCode::TooLarge, details));
                }
                Ok(None) => {}
                Err(error) => return refused(&error),
            }
        }
    }
}

/// Takes one frame; none while a message is incomplete.
fn take(fragments: &mut Option<Fragments>, frame: Frame<'_>) -> Result<Option<Message>, WebSocketError> {
    let Frame { fin, opcode, payload, .. } = frame;
    Ok(Some(match opcode {
        // The crate looks at those of pings only.
        OpCode::Ping | OpCode::Pong | OpCode::Close if payload.len() > MAX_CONTROL => {
            return Err(WebSocketError::PingFrameTooLarge);
        }
        OpCode::Ping => Message::Ping(owned(payload).freeze()),
        OpCode::Pong => Message::Pong,
        OpCode::Close => Message::Close(close_code(&payload)?),
        OpCode::Text | OpCode::Binary if fragments.is_some() => return Err(WebSocketError::InvalidFragment),
        OpCode::Text | OpCode::Binary if fin => complete(opcode == OpCode::Text, owned(payload))?,
        OpCode::Text | OpCode::Binary => {
            *fragments = Some(Fragments { text: opcode == OpCode::Text, message: owned(payload), frames: 1 });
            return Ok(None);
        }
        OpCode::Continuation => {
            let Some(Fragments { text, mut message, frames }) = fragments.take() else {
                return Err(WebSocketError::InvalidContinuationFrame);
            };
            if message.len() + payload.len() > MAX_MESSAGE {
                return Err(WebSocketError::FrameTooLarge);
            }
            message.extend_from_slice(&payload);
            if !fin {
                *fragments = Some(Fragments { text, message, frames: frames + 1 });
                return Ok(None);
            }
            complete(text, message)?
        }
    }))
}

fn complete(text: bool, message: BytesMut) -> Result<Message, WebSocketError> {
    if !text {
        return Ok(Message::Binary(message.freeze()));
    }
    String::from_utf8(message.into()).map(Message::Text).map_err(|_| WebSocketError::InvalidUTF8)
}

fn owned(payload: Payload<'_>) -> BytesMut {
    match payload {
        Payload::Bytes(bytes) => bytes,
        other => BytesMut::from(&other[..]),
    }
}

fn close_code(payload: &[u8]) -> Result<Option<u16>, WebSocketError> {
    match payload {
        [] => Ok(None),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !fastwebsockets::CloseCode::from(code).is_allowed() {
                Err(WebSocketError::InvalidCloseCode)
            } else if std::str::from_utf8(reason).is_err() {
                Err(WebSocketError::InvalidUTF8)
            } else {
                Ok(Some(code))
            }
        }
        [_] => Err(WebSocketError::InvalidCloseFrame),
    }
}

fn refused(error: &WebSocketError) -> Message {
    let details = match error {
        WebSocketError::IoError(_) | WebSocketError::UnexpectedEOF | WebSocketError::ConnectionClosed => {
            return Message::Lost;
        }
        WebSocketError::FrameTooLarge => {
            let details = format!("a message is larger than {MAX_MESSAGE} bytes; up to {MAX_MESSAGE} are accepted");
            return Message::Violation(CloseCode::TooLarge, ClientError::new(ErrorCode::TooLarge, details));
        }
        WebSocketError::InvalidUTF8 => {
            let details = "a text message is not UTF-8; UTF-8 is accepted";
            return Message::Violation(NOT_TEXT, ClientError::new(ErrorCode::InvalidRequest, details));
        }
        WebSocketError::PingFrameTooLarge => {
            format!("a control frame is larger than {MAX_CONTROL} bytes; up to {MAX_CONTROL} are accepted")
        }
        other => format!("{other}; WebSocket frames as of RFC 6455 are accepted"),
    };
    Message::Violation(NOT_WEBSOCKET, ClientError::new(ErrorCode::InvalidRequest, details))
}

/// Answers a WebSocket handshake, and gives what the connection becomes once the answer is on its way.
///
/// # Errors
/// What is missing.
pub(crate) fn handshake<B>(request: &mut Request<B>) -> Result<(Answer, Upgrading), &'static str> {
    if !is_upgrade_request(request) {
        return Err("this path is a WebSocket: Connection: Upgrade and Upgrade: websocket are needed");
    }
    let (answer, upgrading) =
        upgrade(request).map_err(|_| "Sec-WebSocket-Key and Sec-WebSocket-Version: 13 are needed")?;
    Ok((answer.map(|_| Full::default()), Upgrading { upgrading }))
}

/// A connection between its handshake and its first frame.
pub(crate) struct Upgrading {
    upgrading: UpgradeFut,
}

impl Upgrading {
    /// The connection, and what was read of it beyond the handshake. None: it broke.
    pub(crate) async fn connection(self) -> Option<(Transport, Bytes)> {
        // Nothing has been read through it: it only carries the connection here.
        let upgraded = self.upgrading.await.ok()?.into_inner().into_inner();
        let parts = upgraded.downcast::<TokioIo<Transport>>().ok()?;
        Some((parts.io.into_inner(), parts.read_buf))
    }
}
