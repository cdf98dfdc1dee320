//! When a traced stream's audio came and went: kept for what the log does not cover, told with the utterance it became.
//!
//! Cost: 40 bytes a chunk that the log does not cover, of traced streams only.

use std::{collections::VecDeque, time::Duration};

use hearsay_protocol::{ChunkNumber, Event, SpanId, StreamId, StreamTime, TraceContext, TraceId, event::Final};
use hearsay_runtime::trace::{self, Span};
use tokio::time::Instant;
use uuid::Uuid;

/// The trace a stream is told in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamTrace {
    pub trace: TraceId,
    /// Of its client, when it told one.
    pub parent: Option<SpanId>,
}

pub(crate) struct Tracing {
    of: StreamTrace,
    stream: StreamId,
    /// The stream's own, at this gateway.
    span: SpanId,
    began: Instant,
    chunks: VecDeque<Passed>,
    /// Some of its utterances were told.
    told: bool,
}

struct Passed {
    number: ChunkNumber,
    arrived: Instant,
    sent: Option<Instant>,
}

impl Tracing {
    pub(crate) fn new(of: StreamTrace, stream: StreamId) -> Self {
        let span = SpanId::of(Uuid::new_v4());
        Self { of, stream, span, began: Instant::now(), chunks: VecDeque::new(), told: false }
    }

    /// What the recognizer is told.
    pub(crate) fn context(&self) -> TraceContext {
        TraceContext { trace: self.of.trace, span: self.span }
    }

    pub(crate) fn arrived(&mut self, number: ChunkNumber, arrived: Instant) {
        self.chunks.push_back(Passed { number, arrived, sent: None });
    }

    pub(crate) fn sent(&mut self, number: ChunkNumber) {
        let Some(first) = self.chunks.front().map(|passed| passed.number) else { return };
        let index = number.0.checked_sub(first.0).and_then(|index| usize::try_from(index).ok());
        if let Some(passed) = index.and_then(|index| self.chunks.get_mut(index)) {
            // Of a replay, the first way counts.
            passed.sent.get_or_insert_with(Instant::now);
        }
    }

    /// The log covers all chunks before `chunk`, by these events. `clock` is the moment of a stream time.
    pub(crate) fn acknowledged(
        &mut self,
        chunk: ChunkNumber,
        events: &[Event],
        clock: impl Fn(StreamTime) -> Option<Instant>,
    ) {
        for event in events {
            if let Event::Final(said) = event
                && let Some(context) = said.trace
                && context.trace == self.of.trace
            {
                self.tell(said, context, chunk, clock(said.start));
            }
        }
        while self.chunks.front().is_some_and(|passed| passed.number < chunk) {
            self.chunks.pop_front();
        }
    }

    fn tell(&mut self, said: &Final, context: TraceContext, through: ChunkNumber, spoken: Option<Instant>) {
        self.told = true;
        let now = Instant::now();
        let covered = || self.chunks.iter().take_while(|passed| passed.number < through);
        // Where a recording is sent at once, its clock says nothing.
        let first = covered().find(|passed| spoken.is_none_or(|spoken| passed.arrived >= spoken));
        let began = first.or_else(|| covered().next()).map_or(now, |passed| passed.arrived);
        let sent = covered().filter_map(|passed| passed.sent).max().unwrap_or(now);
        let chunks = covered().filter(|passed| passed.arrived >= began).count();
        let TraceContext { trace, span } = context;
        trace::tell(Span {
            trace: trace.0,
            id: span.0,
            parent: Some(self.span.0),
            name: "utterance",
            began: began.into_std(),
            ended: now.into_std(),
            attributes: vec![
                ("hearsay.stream", self.stream.to_string().into()),
                ("hearsay.utterance", said.utterance.to_string().into()),
            ],
        });
        trace::tell(Span {
            trace: trace.0,
            id: SpanId::of(Uuid::new_v4()).0,
            parent: Some(span.0),
            name: "audio",
            began: began.into_std(),
            ended: sent.into_std(),
            attributes: vec![("hearsay.chunks", chunks.into())],
        });
    }
}

impl Drop for Tracing {
    fn drop(&mut self) {
        if self.told {
            trace::tell(Span {
                trace: self.of.trace.0,
                id: self.span.0,
                parent: self.of.parent.map(|parent| parent.0),
                name: "stream",
                began: self.began.into_std(),
                ended: Instant::now().into_std(),
                attributes: vec![("hearsay.stream", self.stream.to_string().into())],
            });
        }
    }
}

/// The moment of a stream time, when its clock is at `gone` at `at`.
pub(crate) fn moment(at: Instant, gone: Duration, time: StreamTime) -> Option<Instant> {
    (at + Duration::from_micros(time.micros())).checked_sub(gone)
}
