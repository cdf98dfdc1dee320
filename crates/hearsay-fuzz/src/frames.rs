//! What a listener's socket brings: frames, as the listeners' own parser reads them, and the texts in them.
//!
//! The first byte of an input says in pieces of how many bytes the rest comes; however it is cut, it means the same.

use hearsay_fanout::{
    ListenerReply,
    frame::{Incoming, Limits, Parser, Violation},
    listener_reply,
};

/// Small, so that bounds are reached.
const LIMITS: Limits = Limits { message: 512, binary: 1_024, fragments: 16 };
/// Most that an incomplete message may take, in bytes: twice its bound for buffers that grow, and a little.
const MOST_HELD: usize = 4 * LIMITS.message + 256;
/// Longest answer to a listener's text, in bytes: it quotes little of what came.
const LONGEST_ANSWER: usize = 4_096;

const FIN: u8 = 0x80;

pub(crate) fn run(data: &[u8]) {
    let Some((&size, stream)) = data.split_first() else { return };
    let whole = read(stream, stream.len().max(1));
    let pieces = read(stream, usize::from(size).max(1));
    assert_eq!(whole, pieces, "in pieces of {size}");
}

/// What is heard, in order, and what it ends with.
fn read(stream: &[u8], size: usize) -> (Vec<String>, Option<Violation>) {
    let mut parser = Parser::default();
    let mut heard = Vec::new();
    let mut closed = false;
    for piece in stream.chunks(size) {
        let fed = parser.feed(&mut piece.to_vec(), LIMITS, |incoming| {
            match incoming {
                Incoming::Text(text) => {
                    assert!(text.len() <= LIMITS.message);
                    if let ListenerReply::Text(answer) = listener_reply(text) {
                        assert!(answer.len() < LONGEST_ANSWER, "{answer}");
                        let json = || serde_json::from_str::<serde_json::Value>(&answer);
                        assert!(answer == "__PONG__" || json().is_ok(), "{answer}");
                    }
                }
                Incoming::Ping(payload) => assert!(payload.len() <= 125),
                Incoming::Binary | Incoming::Pong | Incoming::Close { .. } => {}
            }
            closed |= matches!(incoming, Incoming::Close { .. });
            heard.push(format!("{incoming:?}"));
            !closed
        });
        if let Err(violation) = fed {
            return (heard, Some(violation));
        }
        // Nothing behind it is read.
        if closed {
            break;
        }
        assert!(parser.held_bytes() <= MOST_HELD + stream.len().min(LIMITS.message), "{}", parser.held_bytes());
    }
    (heard, None)
}

/// As a client writes it.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut out = vec![first];
    match u16::try_from(payload.len()) {
        Ok(length @ 0..=125) => out.push(0x80 | length as u8),
        Ok(length) => {
            out.push(0x80 | 126);
            out.extend_from_slice(&length.to_be_bytes());
        }
        Err(_) => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let text = |text: &str| frame(FIN | 0x1, text.as_bytes());
    let streams = [
        [text("__PING__"), text(r#"{"type":"token","access_token":"a.b.c"}"#), text(r#"{"type":"stop_request"}"#)]
            .concat(),
        [frame(0x1, "sm\u{f8}rrebr\u{f8}".as_bytes()), frame(FIN | 0x9, b"ping"), frame(FIN, b"d")].concat(),
        [frame(FIN | 0x2, &[7; 300]), frame(0x2, &[7; 200]), frame(0x0, &[]), frame(FIN, &[7; 9])].concat(),
        [text(&"x".repeat(500)), frame(FIN | 0xa, &[]), frame(FIN | 0x8, &[0x03, 0xe8, b'o', b'k'])].concat(),
        vec![frame(0x1, &[]); 17].concat(),
        [frame(FIN | 0x1, &[0xff, 0xfe]), text("never read")].concat(),
        frame(FIN | 0x1, &[b'x'; 70_000]),
    ];
    let sizes = [1, 3, 7, 64, 255, 2, 100];
    sizes.into_iter().zip(streams).map(|(size, stream)| [vec![size], stream].concat()).collect()
}
