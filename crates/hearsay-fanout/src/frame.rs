//! WebSocket frames: written once and shared, and read from a buffer that belongs to the core.
//!
//! A connection owns bytes only while a frame or a fragmented message is incomplete ([`Parser`] is one pointer), and
//! never more than [`Limits::message`] and a frame header. What is ignored anyway (binary) is skipped, not stored.

use bytes::Bytes;
use hearsay_protocol::CloseCode;
use serde::Serialize;

/// Frames that one message may come in, here and on speakers' sockets: more than any client or proxy makes of one, few enough
/// that frames without anything in them cannot go on for ever.
pub const MAX_FRAGMENTS: u16 = 1_024;

/// Most a control frame may carry.
const MAX_CONTROL: usize = 125;
/// Longest header of a server's frame.
const MAX_HEADER: usize = 10;

const FIN: u8 = 0x80;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

fn header(opcode: u8, length: usize, out: &mut Vec<u8>) {
    out.push(FIN | opcode);
    match length {
        0..=125 => out.push(length as u8),
        126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// Appends a text frame.
pub fn put_text(text: &str, out: &mut Vec<u8>) {
    out.reserve(text.len() + MAX_HEADER);
    header(TEXT, text.len(), out);
    out.extend_from_slice(text.as_bytes());
}

/// Appends a text frame holding `message` as JSON, written in place.
pub fn put_json<M: Serialize + ?Sized>(message: &M, out: &mut Vec<u8>) {
    // Most frames have a header of this length; the others move once.
    const USUAL: usize = 4;
    let start = out.len();
    out.resize(start + USUAL, 0);
    serde_json::to_writer(&mut *out, message).unwrap_or_else(|_| unreachable!("maps with string keys only"));
    let length = out.len() - start - USUAL;
    let mut head = Vec::with_capacity(MAX_HEADER);
    header(TEXT, length, &mut head);
    out.splice(start..start + USUAL, head);
}

pub fn text(text: &str) -> Bytes {
    let mut out = Vec::with_capacity(text.len() + MAX_HEADER);
    put_text(text, &mut out);
    out.into()
}

pub fn binary(payload: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(payload.len() + MAX_HEADER);
    header(BINARY, payload.len(), &mut out);
    out.extend_from_slice(payload);
    out.into()
}

fn control(opcode: u8, payload: &[u8]) -> Bytes {
    let payload = &payload[..payload.len().min(MAX_CONTROL)];
    let mut out = Vec::with_capacity(payload.len() + 2);
    header(opcode, payload.len(), &mut out);
    out.extend_from_slice(payload);
    out.into()
}

pub fn pong(payload: &[u8]) -> Bytes {
    control(PONG, payload)
}

pub fn ping() -> Bytes {
    Bytes::from_static(&[FIN | PING, 0])
}

/// A close frame; a reason is cut to what fits, and dropped where the frame is empty.
pub fn close(code: CloseCode, reason: &str) -> Bytes {
    close_raw(code.code(), reason)
}

/// A close frame with a code of the WebSocket protocol itself, or the peer's own code sent back.
pub(crate) fn close_raw(code: Option<u16>, reason: &str) -> Bytes {
    let Some(code) = code else { return control(CLOSE, &[]) };
    let mut end = reason.len().min(MAX_CONTROL - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(&reason.as_bytes()[..end]);
    control(CLOSE, &payload)
}

/// What a peer may send.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of one text message, fragments together.
    pub message: usize,
    /// Bytes of one binary frame, which is skipped.
    pub binary: u64,
    /// Frames that one message may come in.
    pub fragments: u16,
}

impl Default for Limits {
    fn default() -> Self {
        // A token is the longest text a listener has a reason to send; audio is at most 64 KiB everywhere.
        Self { message: 16 * 1024, binary: 64 * 1024, fragments: MAX_FRAGMENTS }
    }
}

/// What a peer sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    Text(&'a str),
    /// A binary message, not kept.
    Binary,
    Ping(&'a [u8]),
    Pong,
    Close {
        code: Option<u16>,
    },
}

/// Why a peer cannot be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Violation {
    #[error("the frame breaks the WebSocket protocol: {0}")]
    Protocol(&'static str),
    #[error("text is not UTF-8")]
    Utf8,
    #[error("the message is larger than accepted")]
    TooLarge,
    #[error("the message comes in more frames than accepted")]
    TooManyFragments,
}

impl Violation {
    pub fn code(self) -> u16 {
        match self {
            Self::Protocol(_) => 1002,
            Self::Utf8 => 1007,
            Self::TooLarge => 1009,
            Self::TooManyFragments => 1008,
        }
    }
}

/// Reads one peer's frames. Holds nothing between complete messages.
#[derive(Debug, Default)]
pub struct Parser {
    held: Option<Box<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    /// The beginning of a frame, as it came.
    frame: Vec<u8>,
    /// The fragments of a message so far, and how many there were.
    message: Option<Message>,
    fragments: u16,
    /// Payload that is still to come and ignored.
    skip: u64,
}

#[derive(Debug)]
enum Message {
    Text(Vec<u8>),
    Binary,
}

impl Held {
    fn is_empty(&self) -> bool {
        self.frame.is_empty() && self.message.is_none() && self.skip == 0
    }
}

/// The header of a client's frame.
struct Head {
    fin: bool,
    opcode: u8,
    length: u64,
    mask: [u8; 4],
    /// Its own length.
    size: usize,
}

impl Head {
    /// None: not all there yet.
    fn read(bytes: &[u8]) -> Result<Option<Self>, Violation> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(Violation::Protocol("a reserved bit is set"));
        }
        if second & 0x80 == 0 {
            return Err(Violation::Protocol("a client's frame is not masked"));
        }
        let (fin, opcode) = (first & FIN != 0, first & 0x0f);
        let (length, extended) = match second & 0x7f {
            126 => match rest.first_chunk() {
                Some(length) => (u64::from(u16::from_be_bytes(*length)), 2),
                None => return Ok(None),
            },
            127 => match rest.first_chunk() {
                Some(length) => (u64::from_be_bytes(*length), 8),
                None => return Ok(None),
            },
            length => (u64::from(length), 0),
        };
        if opcode >= CLOSE && (!fin || length > MAX_CONTROL as u64) {
            return Err(Violation::Protocol("a control frame is fragmented or too long"));
        }
        let Some(&mask) = rest.get(extended..).and_then(|rest| rest.first_chunk()) else { return Ok(None) };
        Ok(Some(Self { fin, opcode, length, mask, size: 2 + extended + 4 }))
    }
}

impl Parser {
    /// Heap bytes held for an incomplete message.
    pub fn held_bytes(&self) -> usize {
        self.held.as_ref().map_or(0, |held| {
            let message = match &held.message {
                Some(Message::Text(text)) => text.capacity(),
                _ => 0,
            };
            size_of::<Held>() + held.frame.capacity() + message
        })
    }

    /// Takes what was read from the socket; the bytes are unmasked in place. `heard` is told each message in order, and
    /// answers whether to go on.
    ///
    /// # Errors
    /// The peer cannot be understood any more; nothing that follows has a meaning.
    pub fn feed(
        &mut self,
        bytes: &mut [u8],
        limits: Limits,
        mut heard: impl FnMut(Incoming<'_>) -> bool,
    ) -> Result<(), Violation> {
        let mut held = self.held.take().unwrap_or_default();
        let used = if held.frame.is_empty() {
            let used = held.take_in(bytes, limits, &mut heard)?;
            if let Some(used) = used {
                held.frame.extend_from_slice(&bytes[used..]);
            }
            used
        } else {
            let mut frame = std::mem::take(&mut held.frame);
            frame.extend_from_slice(bytes);
            let used = held.take_in(&mut frame, limits, &mut heard)?;
            if let Some(used) = used {
                frame.drain(..used);
                held.frame = frame;
            }
            used
        };
        if used.is_some() && !held.is_empty() {
            self.held = Some(held);
        }
        Ok(())
    }
}

impl Held {
    /// How many bytes were consumed; none when `heard` had enough.
    fn take_in(
        &mut self,
        bytes: &mut [u8],
        limits: Limits,
        heard: &mut impl FnMut(Incoming<'_>) -> bool,
    ) -> Result<Option<usize>, Violation> {
        let mut at = 0;
        loop {
            if self.skip > 0 {
                let skipped = self.skip.min((bytes.len() - at) as u64);
                self.skip -= skipped;
                at += skipped as usize;
            }
            let Some(head) = Head::read(&bytes[at..])? else { return Ok(Some(at)) };
            if head.opcode == 0 && self.fragments >= limits.fragments {
                return Err(Violation::TooManyFragments);
            }
            if matches!(head.opcode, BINARY) || (head.opcode == 0 && matches!(self.message, Some(Message::Binary))) {
                if head.opcode == BINARY && self.message.is_some() {
                    return Err(Violation::Protocol("a message begins inside another"));
                }
                if head.length > limits.binary {
                    return Err(Violation::TooLarge);
                }
                self.fragments = if head.opcode == BINARY { 1 } else { self.fragments + 1 };
                self.message = (!head.fin).then_some(Message::Binary);
                self.skip = head.length;
                at += head.size;
                if head.fin && !heard(Incoming::Binary) {
                    return Ok(None);
                }
                continue;
            }
            let gathered = match &self.message {
                Some(Message::Text(text)) => text.len() as u64,
                _ => 0,
            };
            if head.opcode < CLOSE && head.length.saturating_add(gathered) > limits.message as u64 {
                return Err(Violation::TooLarge);
            }
            // Bounded above: fits.
            let length = head.length as usize;
            let Some(payload) = bytes.get_mut(at + head.size..at + head.size + length) else { return Ok(Some(at)) };
            for (index, byte) in payload.iter_mut().enumerate() {
                *byte ^= head.mask[index % 4];
            }
            at += head.size + length;
            let go_on = match head.opcode {
                TEXT if self.message.is_some() => {
                    return Err(Violation::Protocol("a message begins inside another"));
                }
                TEXT if head.fin => heard(Incoming::Text(utf8(payload)?)),
                TEXT => {
                    self.fragments = 1;
                    self.message = Some(Message::Text(payload.to_vec()));
                    true
                }
                0 => match &mut self.message {
                    Some(Message::Text(text)) => {
                        self.fragments += 1;
                        text.extend_from_slice(payload);
                        if head.fin {
                            let text = std::mem::take(text);
                            self.message = None;
                            heard(Incoming::Text(utf8(&text)?))
                        } else {
                            true
                        }
                    }
                    _ => return Err(Violation::Protocol("nothing to continue")),
                },
                PING => heard(Incoming::Ping(payload)),
                PONG => heard(Incoming::Pong),
                CLOSE => {
                    let code = match payload {
                        [] => None,
                        [_] => return Err(Violation::Protocol("a close code has two bytes")),
                        [high, low, reason @ ..] => {
                            utf8(reason)?;
                            Some(u16::from_be_bytes([*high, *low]))
                        }
                    };
                    heard(Incoming::Close { code });
                    return Ok(None);
                }
                _ => return Err(Violation::Protocol("an unknown kind of frame")),
            };
            if !go_on {
                return Ok(None);
            }
        }
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, Violation> {
    std::str::from_utf8(bytes).map_err(|_| Violation::Utf8)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A client's frame.
    pub(crate) fn masked(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        header(opcode, payload.len(), &mut out);
        if !fin {
            out[0] &= !FIN;
        }
        out[1] |= 0x80;
        let mask = [1, 2, 3, 250];
        out.extend_from_slice(&mask);
        out.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ mask[index % 4]));
        out
    }

    /// Everything heard from `bytes` given in pieces ending at `cuts`, and what stays held.
    fn heard(bytes: &[u8], cuts: &[usize]) -> (Vec<String>, Result<usize, Violation>) {
        let limits = Limits { message: 1_000, binary: 1_000, ..Limits::default() };
        let (mut parser, mut out, mut at) = (Parser::default(), Vec::new(), 0);
        for cut in cuts.iter().copied().chain([bytes.len()]) {
            let mut piece = bytes[at..cut].to_vec();
            at = cut;
            let mut open = true;
            let fed = parser.feed(&mut piece, limits, |message| {
                open = !matches!(message, Incoming::Close { .. });
                out.push(format!("{message:?}"));
                open
            });
            match fed {
                Ok(()) if open => (),
                Ok(()) => break,
                Err(violation) => return (out, Err(violation)),
            }
            assert!(parser.held_bytes() < 8_192, "{}", parser.held_bytes());
        }
        (out, Ok(parser.held_bytes()))
    }

    #[test]
    fn server_frames_have_the_header_their_length_asks_for() {
        for (length, head) in [
            (0, vec![0x81, 0]),
            (125, vec![0x81, 125]),
            (126, vec![0x81, 126, 0, 126]),
            (65_536, { vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0] }),
        ] {
            let payload = "x".repeat(length);
            let framed = text(&payload);
            assert_eq!(framed[..head.len()], head);
            assert_eq!(&framed[head.len()..], payload.as_bytes());
            if length > 2 {
                let mut json = vec![7];
                put_json(&payload[2..], &mut json);
                assert_eq!(json[1..][..head.len()], head, "a JSON string has two quotes more");
                assert_eq!(json.len(), 1 + framed.len());
            }
        }
        assert_eq!(&pong(b"ab")[..], &[0x8a, 2, b'a', b'b']);
        assert_eq!(&close(CloseCode::Return, "dropped")[..], &[0x88, 0]);
        assert_eq!(&close(CloseCode::Normal, "ok")[..], &[0x88, 4, 0x03, 0xe8, b'o', b'k']);
        assert_eq!(close(CloseCode::Policy, &"é".repeat(100)).len(), 2 + 2 + 122);
    }

    #[test]
    fn messages_are_heard_and_nothing_is_held_after() {
        let mut bytes = masked(true, TEXT, b"__PING__");
        bytes.extend(masked(false, TEXT, b"{\"a\":"));
        bytes.extend(masked(true, PING, b"in between"));
        bytes.extend(masked(true, 0, b"1}"));
        bytes.extend(masked(true, BINARY, &[0; 900]));
        bytes.extend(masked(false, BINARY, &[0; 900]));
        bytes.extend(masked(true, 0, &[0; 900]));
        bytes.extend(masked(true, PONG, b""));
        let expected = [
            r#"Text("__PING__")"#,
            "Ping([105, 110, 32, 98, 101, 116, 119, 101, 101, 110])",
            r#"Text("{\"a\":1}")"#,
            "Binary",
            "Binary",
            "Pong",
        ];
        assert_eq!(heard(&bytes, &[]), (expected.map(str::to_owned).to_vec(), Ok(0)));
        bytes.extend(masked(true, CLOSE, &[0x03, 0xe8]));
        bytes.extend(masked(true, TEXT, b"after the close"));
        assert_eq!(heard(&bytes, &[]).0.last().unwrap(), "Close { code: Some(1000) }");
    }

    #[test]
    fn what_breaks_the_protocol_is_named() {
        let unmasked = vec![0x81, 1, b'a'];
        let cases: [(Vec<u8>, u16); 11] = [
            (unmasked, 1002),
            (masked(true, TEXT, b"\xff"), 1007),
            (masked(true, TEXT, &[b'a'; 1_001]), 1009),
            (masked(true, BINARY, &[0; 1_001]), 1009),
            ([masked(false, TEXT, &[b'a'; 600]), masked(true, 0, &[b'a'; 600])].concat(), 1009),
            (masked(true, 0, b"a"), 1002),
            (masked(false, PING, b"a"), 1002),
            (masked(true, CLOSE, b"a"), 1002),
            (masked(true, 3, b"a"), 1002),
            ([masked(false, TEXT, b"a"), masked(true, TEXT, b"b")].concat(), 1002),
            (vec![0xc1, 0x81, 0, 0, 0, 0, 0], 1002),
        ];
        for (bytes, code) in cases {
            assert_eq!(heard(&bytes, &[]).1.unwrap_err().code(), code, "{bytes:?}");
        }
        // Refused by its header alone: no gigabyte is waited for.
        assert_eq!(heard(&[0x81, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0, 1, 2, 3, 4], &[]).1, Err(Violation::TooLarge));
        assert_eq!(
            heard(&[0x81, 0xff, 255, 255, 255, 255, 255, 255, 255, 255, 1, 2, 3, 4], &[]).1,
            Err(Violation::TooLarge)
        );
    }

    fn messages() -> impl Strategy<Value = Vec<u8>> {
        let frame = (any::<bool>(), prop::sample::select(vec![0, TEXT, BINARY, CLOSE, PING, PONG, 5]), 0..400_usize)
            .prop_map(|(fin, opcode, length)| masked(fin, opcode, &"aé".repeat(length).as_bytes()[..length / 3 * 3]));
        prop::collection::vec(frame, 0..8).prop_map(|frames| frames.concat())
    }

    proptest! {
        #[test]
        fn any_split_is_heard_alike(bytes in messages(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12)) {
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            let (whole, outcome) = heard(&bytes, &[]);
            let (split, split_outcome) = heard(&bytes, &cuts);
            prop_assert_eq!(whole, split);
            prop_assert_eq!(outcome.is_ok(), split_outcome.is_ok());
        }

        #[test]
        fn garbage_is_refused_or_waited_for(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = heard(&bytes, &[]);
        }
    }
}
