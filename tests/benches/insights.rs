//! The insight figures of BENCHMARKS.md that need more than labelled text: sound, processor time, a running server.
//!
//! `cargo bench -p hearsay-tests --bench insights -- spoken` has utterances of meetings spoken by two synthetic voices and
//! judges questions by what the recognizer makes of them; `-- cost` weighs the processor time of a final; `-- latency` speaks
//! a meeting live and measures from a final at a subscriber to the insights that follow from it. `spoken` and `cost` take the
//! folder of labelled data as their argument.

#![expect(clippy::disallowed_methods, reason = "a client's task ends with the measurement")]

#[path = "insights/cost.rs"]
mod cost;
#[path = "insights/figures.rs"]
mod figures;
#[path = "insights/latency.rs"]
mod latency;
#[path = "insights/spoken.rs"]
mod spoken;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use hearsay_insight::labelled::{self, Spoken};
use hearsay_protocol::{
    GatewayId, ParticipantId, StreamId, StreamTime, Timestamp, UtteranceId,
    event::{Event, Final, Participant, SpeakerConfig, StreamStarted},
};
use uuid::Uuid;

/// Labelled data, as `cargo xtask train` has it; none of it was trained on.
const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/insights");

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let what = arguments.next();
    let data = arguments.next().map_or_else(|| PathBuf::from(DATA), PathBuf::from);
    match what.as_deref() {
        Some("spoken") => spoken::run(&data),
        Some("cost") => cost::run(&data),
        Some("latency") => latency::run(),
        Some(other) => bail!("say `spoken`, `cost` or `latency`, not {other:?}"),
        // As `cargo test --all-targets` calls it.
        None => {
            println!("nothing measured: say `spoken`, `cost` or `latency`");
            Ok(())
        }
    }
}

/// The utterances of twelve meetings that nothing was trained on.
fn utterances(data: &Path) -> Result<Vec<Spoken>> {
    let path = data.join("mrda_val.tsv");
    let text = fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    labelled::spoken(&text).with_context(|| path.display().to_string())
}

/// A speaker of a conversation whose events are made here.
struct Speaker {
    who: Arc<Participant>,
    stream: StreamId,
}

/// 2026-03-11, a Wednesday, 10:00 UTC.
const ORIGIN: Timestamp = Timestamp(1_773_223_200_000_000);

impl Speaker {
    fn new(number: u128, name: &str) -> Self {
        let id = ParticipantId(Uuid::from_u128(number));
        let who = Participant { id, user_id: None, name: Some(name.to_owned()), email: None };
        Self { who: Arc::new(who), stream: StreamId(Uuid::from_u128(number)) }
    }

    fn joins(&self, config: SpeakerConfig) -> Event {
        Event::StreamStarted(Arc::new(StreamStarted {
            stream: self.stream,
            participant: Arc::clone(&self.who),
            gateway: GatewayId(Uuid::from_u128(1)),
            config,
            origin: ORIGIN,
            recorded: false,
            no_connection_timeout: Duration::ZERO,
        }))
    }

    fn says(&self, from: f64, to: f64, text: &str) -> Arc<Final> {
        let at = |seconds: f64| StreamTime((seconds * 1e6) as u64);
        Arc::new(Final {
            stream: self.stream,
            utterance: UtteranceId::after_cut(self.stream, at(from)),
            participant: Arc::clone(&self.who),
            origin: ORIGIN,
            start: at(from),
            end: at(to),
            text: text.split_whitespace().collect::<Vec<_>>().join(" "),
            language: "en-US".to_owned(),
            confidence: 0.9,
            words: Vec::new(),
            sentiment: Vec::new(),
            trace: None,
        })
    }
}
