//! Utterances that are traced, on their way from the log to sockets.

use std::{sync::Arc, time::Instant};

use hearsay_bus::{Body, Entry};
use hearsay_protocol::{Event, SpanId, TraceContext};
use hearsay_runtime::trace::{self, Span, Value};
use uuid::Uuid;

/// An utterance between its feed and its listeners.
#[derive(Debug, Clone)]
pub(crate) struct Passing {
    /// With the span of its delivery here.
    context: TraceContext,
    utterance: SpanId,
    came: Instant,
}

impl Passing {
    /// Where anything is traced here, and this is.
    pub(crate) fn of(entry: &Entry) -> Option<Self> {
        let Body::Event(Event::Final(said)) = &entry.body else { return None };
        let TraceContext { trace, span } = said.trace.filter(|_| trace::is_on())?;
        let context = TraceContext { trace, span: SpanId::of(Uuid::new_v4()) };
        Some(Self { context, utterance: span, came: Instant::now() })
    }

    /// It was rendered, and handed to outboxes and cores.
    pub(crate) fn delivered(&self) {
        let TraceContext { trace, span } = self.context;
        trace::tell(Span {
            trace: trace.0,
            id: span.0,
            parent: Some(self.utterance.0),
            name: "deliver",
            began: self.came,
            ended: Instant::now(),
            attributes: Vec::new(),
        });
    }

    /// It was written to the sockets of a group.
    pub(crate) fn flushed(&self, began: Instant, core: u32, sockets: usize) {
        let attributes: Vec<(&str, Value)> =
            vec![("hearsay.core", u64::from(core).into()), ("hearsay.sockets", sockets.into())];
        trace::tell(Span {
            trace: self.context.trace.0,
            id: SpanId::of(Uuid::new_v4()).0,
            parent: Some(self.context.span.0),
            name: "flush",
            began,
            ended: Instant::now(),
            attributes,
        });
    }
}

/// Those of one pass; nearly always none, and then nothing is allocated.
pub(crate) type Passed = Option<Arc<[Passing]>>;
