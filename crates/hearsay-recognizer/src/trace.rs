//! What a recognizer did for an utterance that is traced: listening, the decode, the log.

use std::time::Instant;

use hearsay_protocol::{Position, SpanId, TraceContext, TraceId, UtteranceId};
use hearsay_runtime::trace::{self, Span, Value};
use tonic::metadata::MetadataMap;
use uuid::Uuid;

use crate::lanes::Times;

/// The trace of a call's stream, where anything is traced.
pub(crate) fn traced(metadata: &MetadataMap) -> Option<TraceId> {
    if !trace::is_on() {
        return None;
    }
    let (context, sampled) = TraceContext::of_traceparent(metadata.get("traceparent")?.to_str().ok()?)?;
    sampled.then_some(context.trace)
}

/// An utterance on its way to the log.
pub(crate) struct Traced {
    pub(crate) context: TraceContext,
    times: Times,
    /// Since then on its way to the log.
    began: Instant,
}

impl Traced {
    /// Chosen by its id, so that a replay chooses the same.
    pub(crate) fn of(trace: TraceId, utterance: UtteranceId, times: Times) -> Option<Self> {
        let span = SpanId::of_utterance(utterance);
        // Nobody chooses an utterance's id: its first half is as good as random, but for four bits in the middle.
        let picked = trace::picks(utterance.0.as_u64_pair().0);
        picked.then(|| Self { context: TraceContext { trace, span }, times, began: Instant::now() })
    }

    /// It is on the log.
    pub(crate) fn tell(self, position: Position) {
        let Self { context, times: Times { heard, spoken, decoded }, began } = self;
        let tell = |name, from: Instant, to: Instant, attributes: Vec<(&'static str, Value)>| {
            let id = SpanId::of(Uuid::new_v4()).0;
            let (trace, parent) = (context.trace.0, Some(context.span.0));
            trace::tell(Span { trace, id, parent, name, began: from, ended: to, attributes });
        };
        tell("listen", heard, spoken, Vec::new());
        if let Some((asked, answered)) = decoded {
            tell("decode", asked, answered, Vec::new());
        }
        let on_the_log = vec![("hearsay.position", position.to_string().into())];
        tell("publish", began, Instant::now(), on_the_log);
    }
}
