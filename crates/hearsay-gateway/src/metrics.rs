//! The list of this crate's metrics. Labels are bounded: sources, reasons and outcomes are enums.

use std::time::Duration;

use hearsay_protocol::client::ErrorCode;
use hearsay_runtime::GaugeGuard;
use http::StatusCode;
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::{
    request::Source,
    session::{Handover, Story},
};

const CONNECTIONS: &str = "hearsay_gateway_connections";
const CONNECTIONS_REFUSED: &str = "hearsay_gateway_connections_refused_total";
const HANDSHAKES_FAILED: &str = "hearsay_gateway_tls_handshakes_failed_total";
const REQUESTS: &str = "hearsay_gateway_requests_total";
const TOKENS_REFUSED: &str = "hearsay_gateway_tokens_refused_total";
const SESSIONS: &str = "hearsay_gateway_sessions";
const SESSIONS_ENDED: &str = "hearsay_gateway_sessions_ended_total";
const SESSION_LENGTH: &str = "hearsay_gateway_session_seconds";
const STARTS: &str = "hearsay_gateway_starts_total";
const START_TIME: &str = "hearsay_gateway_start_seconds";
const ORIGINS_REFUSED: &str = "hearsay_gateway_origins_refused_total";
const RESUMES: &str = "hearsay_gateway_resumes_total";
const FLUSH_TIME: &str = "hearsay_gateway_flush_seconds";
const AUDIO: &str = "hearsay_gateway_audio_bytes_total";
const CHUNKS_DROPPED: &str = "hearsay_gateway_chunks_dropped_total";
const SUMMARIES: &str = "hearsay_gateway_summaries_asked_total";
const HISTORIES: &str = "hearsay_gateway_histories_total";
const DRAIN_SPREAD: &str = "hearsay_gateway_drain_spread_seconds";
const HANDED_OVER: &str = "hearsay_gateway_handed_over_total";
const MESSAGES_REFUSED: &str = "hearsay_gateway_messages_refused_total";

pub(crate) fn describe() {
    describe_counter!(SUMMARIES, "Summaries asked of a model elsewhere, by what was told: external, fallback.");
    describe_counter!(HISTORIES, "Participants of whom earlier conversations were told.");
    describe_gauge!(CONNECTIONS, "Connections that are open: sockets and requests.");
    describe_counter!(
        CONNECTIONS_REFUSED,
        "Connections refused because all permits were taken, by reason: full, draining."
    );
    describe_counter!(HANDSHAKES_FAILED, "TLS handshakes that failed or took too long.");
    describe_counter!(REQUESTS, "HTTP requests, handshakes too, by status.");
    describe_counter!(TOKENS_REFUSED, "Requests refused for their token, by reason.");
    describe_gauge!(SESSIONS, "Speakers' sockets that are open, by source.");
    describe_counter!(SESSIONS_ENDED, "Speakers' sockets that ended, by reason and whose fault it was.");
    describe_histogram!(SESSION_LENGTH, Unit::Seconds, "Life of a speaker's socket.");
    describe_counter!(STARTS, "Start requests, by outcome.");
    describe_histogram!(START_TIME, Unit::Seconds, "From a start request to its three answers.");
    describe_counter!(ORIGINS_REFUSED, "Requests of web pages whose origin is not accepted.");
    describe_counter!(RESUMES, "Start requests that go on with a stream of another connection.");
    describe_histogram!(FLUSH_TIME, Unit::Seconds, "From a stop to the last words having passed the feed.");
    describe_counter!(AUDIO, Unit::Bytes, "Audio taken from speakers.");
    describe_counter!(CHUNKS_DROPPED, "Chunks that came when nothing listened.");
    describe_gauge!(DRAIN_SPREAD, Unit::Seconds, "Over how long the drain under way closes sockets.");
    describe_counter!(
        HANDED_OVER,
        "Streams whose clients a drain asked to return, by where it found them: in a silence, at an utterance_end, in a \
         pause, or in a word when time was up."
    );
    describe_counter!(MESSAGES_REFUSED, "Errors told to speakers, by code.");
    // What an alert counts the rise of is there before it rises: a series that begins at 1 has not risen.
    for reason in ["full", "draining"] {
        counter!(CONNECTIONS_REFUSED, "reason" => reason).increment(0);
    }
    for reason in ["missing", "signature", "expired", "credentials"] {
        counter!(TOKENS_REFUSED, "reason" => reason).increment(0);
    }
    counter!(MESSAGES_REFUSED, "code" => ErrorCode::Overloaded.name()).increment(0);
}

pub(crate) fn summarized(told: &'static str) {
    counter!(SUMMARIES, "told" => told).increment(1);
}

pub(crate) fn connection_opened() -> GaugeGuard {
    GaugeGuard::rise(gauge!(CONNECTIONS))
}

pub(crate) fn connection_refused(reason: &'static str) {
    counter!(CONNECTIONS_REFUSED, "reason" => reason).increment(1);
}

pub(crate) fn handshake_failed() {
    counter!(HANDSHAKES_FAILED).increment(1);
}

pub(crate) fn request_answered(status: StatusCode) {
    counter!(REQUESTS, "status" => status.as_u16().to_string()).increment(1);
}

pub(crate) fn token_refused(reason: &'static str) {
    counter!(TOKENS_REFUSED, "reason" => reason).increment(1);
}

pub(crate) fn session_opened(source: Source) -> GaugeGuard {
    GaugeGuard::rise(gauge!(SESSIONS, "source" => source.name()))
}

pub(crate) fn session_ended(story: &Story, lasted: Duration) {
    counter!(SESSIONS_ENDED, "reason" => story.reason.name(), "blame" => story.reason.blame().name()).increment(1);
    if let Some(at) = story.handover {
        handed_over(at);
    }
    histogram!(SESSION_LENGTH).record(lasted);
    counter!(AUDIO).increment(story.bytes);
    counter!(CHUNKS_DROPPED).increment(story.dropped);
}

pub(crate) fn message_refused(code: ErrorCode) {
    counter!(MESSAGES_REFUSED, "code" => code.name()).increment(1);
}

pub(crate) fn start_answered(outcome: &'static str, took: Duration) {
    counter!(STARTS, "outcome" => outcome).increment(1);
    histogram!(START_TIME).record(took);
}

pub(crate) fn origin_refused() {
    counter!(ORIGINS_REFUSED).increment(1);
}

pub(crate) fn resumed() {
    counter!(RESUMES).increment(1);
}

pub(crate) fn draining(spread: Duration) {
    gauge!(DRAIN_SPREAD).set(spread.as_secs_f64());
}

fn handed_over(at: Handover) {
    counter!(HANDED_OVER, "at" => at.name()).increment(1);
}

pub(crate) fn flushed(took: Duration) {
    histogram!(FLUSH_TIME).record(took);
}

pub(crate) fn history_told() {
    counter!(HISTORIES).increment(1);
}
