//! Which trace an utterance's way through the cluster is told in: W3C trace context, as far as it is ours to carry.

use std::fmt;

use uuid::Uuid;

use crate::{StreamId, UtteranceId};

/// Of a stream, all its utterances together. Never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(pub [u8; 16]);

/// Of one span in a trace. Never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(pub [u8; 8]);

/// A place in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    pub trace: TraceId,
    pub span: SpanId,
}

/// Longest `traceparent` that is looked at: later versions may say more than ours.
const MAX_TRACEPARENT: usize = 256;

impl TraceId {
    /// Of a stream whose client brings none: whoever goes on with the stream finds the same.
    pub fn of_stream(stream: StreamId) -> Self {
        Self(if stream.0.is_nil() { [1; 16] } else { stream.0.into_bytes() })
    }
}

impl SpanId {
    /// Of the span that everything done for an utterance belongs to: everybody finds it without being told.
    pub fn of_utterance(utterance: UtteranceId) -> Self {
        Self::of(utterance.0)
    }

    /// The second half of a random id, which is random but for two bits of it that are never zero.
    pub fn of(id: Uuid) -> Self {
        let (_, low) = id.as_u64_pair();
        Self(low.max(1).to_be_bytes())
    }
}

impl TraceContext {
    /// Reads a `traceparent`, and whether its trace is sampled. None where it is none: it is then as if it had not come, as
    /// the recommendation asks.
    pub fn of_traceparent(text: &str) -> Option<(Self, bool)> {
        if text.len() > MAX_TRACEPARENT {
            return None;
        }
        let mut fields = text.trim().split('-');
        let [version, trace, span, flags] = [fields.next()?, fields.next()?, fields.next()?, fields.next()?];
        let [version] = hex::<1>(version)?;
        if version == 0xff || (version == 0 && fields.next().is_some()) {
            return None;
        }
        let (trace, span, [flags]) = (hex::<16>(trace)?, hex::<8>(span)?, hex::<1>(flags)?);
        let known = trace != [0; 16] && span != [0; 8];
        known.then_some((Self { trace: TraceId(trace), span: SpanId(span) }, flags & 1 == 1))
    }

    /// As a sampled trace is told on.
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-01", self.trace, self.span)
    }

    /// As the log stores it.
    pub fn to_bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..16].copy_from_slice(&self.trace.0);
        bytes[16..].copy_from_slice(&self.span.0);
        bytes
    }

    /// None for what is no place in a trace.
    pub fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let (trace, span) = bytes.split_first_chunk::<16>()?;
        let (trace, span) = (*trace, <[u8; 8]>::try_from(span).ok()?);
        (trace != [0; 16] && span != [0; 8]).then_some(Self { trace: TraceId(trace), span: SpanId(span) })
    }
}

/// Exactly this many bytes, in lower case.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    #[test]
    fn a_traceparent_is_read_and_told_on() {
        let (context, sampled) = TraceContext::of_traceparent(&format!("00-{TRACE}-{SPAN}-01")).unwrap();
        assert_eq!((context.trace.to_string(), context.span.to_string(), sampled), (TRACE.into(), SPAN.into(), true));
        assert_eq!(context.traceparent(), format!("00-{TRACE}-{SPAN}-01"));
        assert!(!TraceContext::of_traceparent(&format!("00-{TRACE}-{SPAN}-00")).unwrap().1);
        // A later version may say more.
        assert!(TraceContext::of_traceparent(&format!("01-{TRACE}-{SPAN}-03-more")).unwrap().1);
        assert_eq!(TraceContext::of_bytes(&context.to_bytes()), Some(context));
    }

    #[test]
    fn what_is_no_traceparent_is_none() {
        let zeros = ["0".repeat(32), "0".repeat(16)];
        for text in [
            "",
            "00",
            &format!("ff-{TRACE}-{SPAN}-01"),
            &format!("00-{TRACE}-{SPAN}-01-more"),
            &format!("00-{}-{SPAN}-01", zeros[0]),
            &format!("00-{TRACE}-{}-01", zeros[1]),
            &format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            &format!("00-{TRACE}0-{SPAN}-01"),
            &format!("00-{TRACE}-{SPAN}-é"),
            &format!("01-{TRACE}-{SPAN}-01-{}", "x".repeat(300)),
        ] {
            assert_eq!(TraceContext::of_traceparent(text), None, "{text}");
        }
        for length in [0, 16, 23, 25] {
            assert_eq!(TraceContext::of_bytes(&vec![1; length]), None);
        }
        assert_eq!(TraceContext::of_bytes(&[0; 24]), None);
    }

    #[test]
    fn ids_made_here_are_never_zero() {
        assert_eq!(TraceId::of_stream(StreamId(Uuid::nil())).0, [1; 16]);
        assert_ne!(SpanId::of_utterance(UtteranceId(Uuid::nil())).0, [0; 8]);
    }
}
