//! Every metric of this crate.

use std::time::Duration;

use hearsay_runtime::GaugeGuard;
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

const STREAMS: &str = "hearsay_recognizer_streams";
const LANES: &str = "hearsay_recognizer_lanes";
const RATED: &str = "hearsay_recognizer_streams_rated";
const MEASURED: &str = "hearsay_recognizer_measured_seconds";
const PROBES: &str = "hearsay_recognizer_probes_total";
const CONNECTIONS: &str = "hearsay_recognizer_connections";
const NOT_CONNECTED: &str = "hearsay_recognizer_connections_refused_total";
const REFUSED: &str = "hearsay_recognizer_refused_total";
const ENDED: &str = "hearsay_recognizer_streams_ended_total";
const HEARD: &str = "hearsay_recognizer_audio_milliseconds_total";
const LOST: &str = "hearsay_recognizer_audio_lost_milliseconds_total";
const QUEUED: &str = "hearsay_recognizer_queue_depth";
const WAITED: &str = "hearsay_recognizer_queue_wait_seconds";
const DECODED: &str = "hearsay_recognizer_decode_seconds";
const DECODED_AUDIO: &str = "hearsay_recognizer_decoded_audio_seconds";
const FAILED: &str = "hearsay_recognizer_decode_failures_total";
const INAUDIBLE: &str = "hearsay_recognizer_inaudible_total";
const PANICKED: &str = "hearsay_recognizer_lane_panics_total";
const EARLY: &str = "hearsay_recognizer_early_decodes_total";
const EARLY_WASTED: &str = "hearsay_recognizer_early_decodes_wasted_total";
const PARTIALS: &str = "hearsay_recognizer_partials_total";
const FINALS: &str = "hearsay_recognizer_finals_total";
const LADDER: &str = "hearsay_recognizer_ladder_step";
const SPOKEN_TO_PUBLISHED: &str = "hearsay_recognizer_final_seconds";
const PUBLISH: &str = "hearsay_recognizer_publish_seconds";
const OUT_OF_REACH: &str = "hearsay_recognizer_log_out_of_reach_total";
const PUBLISH_BUGS: &str = "hearsay_recognizer_publish_refused_total";
const ANALYSTS: &str = "hearsay_recognizer_analysts";
const INFERRED: &str = "hearsay_recognizer_insights_total";
const ANALYSED: &str = "hearsay_recognizer_analysis_seconds";
const ANALYST_LAG: &str = "hearsay_recognizer_analyst_lag_seconds";
const INSIGHT: &str = "hearsay_recognizer_insight_seconds";
const UNWEIGHED: &str = "hearsay_recognizer_analysis_unweighed_total";
const NOT_LOOKED_FOR: &str = "hearsay_recognizer_not_looked_for_total";

/// Whose audio a decode is, and whether it is needed.
pub(crate) type DecodeKind = &'static str;

pub(crate) fn describe() {
    describe_gauge!(STREAMS, "Streams this recognizer hears.");
    describe_gauge!(LANES, "Lanes on listening threads, by kind: live, recorded.");
    describe_gauge!(RATED, "Streams it can hear well, as measured at start or configured.");
    describe_gauge!(
        MEASURED,
        "Seconds of a core, as measured at start, by what: final (a second of speech), partial (one), listening (a second \
         of audio)."
    );
    describe_counter!(PROBES, "Recordings decoded to prove that speech is heard, by outcome: heard, failed, late.");
    describe_gauge!(CONNECTIONS, "Gateways' connections that are open.");
    describe_counter!(NOT_CONNECTED, "Connections that were not taken, by why: full, tls.");
    describe_counter!(REFUSED, "Streams refused, by why: full, overloaded, draining, unsupported, malformed.");
    describe_counter!(ENDED, "Stays ended, by how: complete, gone, moved, fenced, refused, unsupported, failed.");
    describe_counter!(HEARD, "Milliseconds of audio taken from uplinks.");
    describe_counter!(LOST, "Milliseconds of audio that packets were missing or damaged for: heard as silence.");
    describe_gauge!(QUEUED, "Decodes that wait for an engine thread, by kind: final, partial.");
    describe_histogram!(WAITED, "Seconds a decode waited for an engine thread, by kind.");
    describe_histogram!(DECODED, "Seconds an engine thread took for a decode, by kind: final, partial.");
    describe_histogram!(DECODED_AUDIO, "Seconds of audio in one decode, by kind.");
    describe_counter!(FAILED, "Decodes that failed, by kind.");
    describe_counter!(INAUDIBLE, "Utterances the engine failed on twice: [inaudible] on the log.");
    describe_counter!(PANICKED, "Streams given up because hearing them panicked: a bug.");
    describe_counter!(EARLY, "Finals begun at a short pause.");
    describe_counter!(EARLY_WASTED, "Finals begun at a short pause after which speech went on.");
    describe_counter!(PARTIALS, "Partials, by what became of them: announced, replaced, late, full.");
    describe_counter!(FINALS, "Finals on the log.");
    describe_gauge!(LADDER, "Step of the degrade ladder: 0 none, 1 slower partials, 2 no partials, 3 no new streams.");
    describe_histogram!(
        SPOKEN_TO_PUBLISHED,
        "Seconds from the arrival of an utterance's last speech to its final on the log."
    );
    describe_histogram!(PUBLISH, "Seconds the log took to accept a commit.");
    describe_counter!(OUT_OF_REACH, "Stays that ended because the log was out of reach for too long.");
    describe_counter!(PUBLISH_BUGS, "Commits the log refused as overlap, hole or invalid: a bug.");
    describe_gauge!(ANALYSTS, "Conversations this process is the analyst of.");
    describe_counter!(
        INFERRED,
        "Insights found, by kind: question, action_item, follow_up, topic, tracker, entity, intent."
    );
    describe_histogram!(ANALYSED, "Seconds to find what follows from one entry of the log.");
    describe_histogram!(
        ANALYST_LAG,
        "Seconds from an entry's time on the log until its analyst has taken it up, by the clocks of log and recognizer."
    );
    describe_histogram!(
        INSIGHT,
        "Seconds from an entry's time on the log, mostly a final's, until what follows from it is on the log."
    );
    describe_counter!(UNWEIGHED, "Entries whose meaning was left out because all processors were busy with others.");
    describe_counter!(
        NOT_LOOKED_FOR,
        "What is not looked for, because its conversation has as many as there is room for, by what: tracker, entity."
    );
    // What an alert counts the rise of is there before it rises: a series that begins at 1 has not risen.
    for why in ["full", "overloaded"] {
        counter!(REFUSED, "why" => why).increment(0);
    }
    for kind in ["final", "partial"] {
        counter!(FAILED, "kind" => kind).increment(0);
    }
    counter!(PANICKED).increment(0);
    counter!(PUBLISH_BUGS).increment(0);
}

pub(crate) fn stream_opened() -> GaugeGuard {
    GaugeGuard::rise(gauge!(STREAMS))
}

pub(crate) fn lane_opened(recorded: bool) -> GaugeGuard {
    GaugeGuard::rise(gauge!(LANES, "kind" => if recorded { "recorded" } else { "live" }))
}

pub(crate) fn rated(streams: usize) {
    gauge!(RATED).set(streams as f64);
}

pub(crate) fn measured(benchmark: &crate::Benchmark) {
    gauge!(MEASURED, "what" => "final").set(benchmark.last.as_secs_f64());
    gauge!(MEASURED, "what" => "partial").set(benchmark.partial.as_secs_f64());
    gauge!(MEASURED, "what" => "listening").set(benchmark.listening.as_secs_f64());
}

pub(crate) fn probed(outcome: &'static str) {
    counter!(PROBES, "outcome" => outcome).increment(1);
}

pub(crate) fn connection_opened() -> GaugeGuard {
    GaugeGuard::rise(gauge!(CONNECTIONS))
}

pub(crate) fn not_connected(why: &'static str) {
    counter!(NOT_CONNECTED, "why" => why).increment(1);
}

pub(crate) fn refused(why: &'static str) {
    counter!(REFUSED, "why" => why).increment(1);
}

pub(crate) fn ended(how: &'static str) {
    counter!(ENDED, "how" => how).increment(1);
}

pub(crate) fn heard(audio: Duration) {
    counter!(HEARD).increment(audio.as_millis() as u64);
}

pub(crate) fn lost(audio: Duration) {
    if !audio.is_zero() {
        counter!(LOST).increment(audio.as_millis() as u64);
    }
}

pub(crate) fn queued(kind: DecodeKind, depth: usize) {
    gauge!(QUEUED, "kind" => kind).set(depth as f64);
}

pub(crate) fn waited(kind: DecodeKind, wait: Duration) {
    histogram!(WAITED, "kind" => kind).record(wait.as_secs_f64());
}

pub(crate) fn decoded(kind: DecodeKind, took: Duration, audio: Duration) {
    histogram!(DECODED, "kind" => kind).record(took.as_secs_f64());
    histogram!(DECODED_AUDIO, "kind" => kind).record(audio.as_secs_f64());
}

pub(crate) fn failed(kind: DecodeKind) {
    counter!(FAILED, "kind" => kind).increment(1);
}

pub(crate) fn inaudible() {
    counter!(INAUDIBLE).increment(1);
}

pub(crate) fn panicked() {
    counter!(PANICKED).increment(1);
}

pub(crate) fn begun_early() {
    counter!(EARLY).increment(1);
}

pub(crate) fn begun_in_vain() {
    counter!(EARLY_WASTED).increment(1);
}

pub(crate) fn partial(became: &'static str) {
    counter!(PARTIALS, "became" => became).increment(1);
}

pub(crate) fn final_published(since_spoken: Option<Duration>) {
    counter!(FINALS).increment(1);
    if let Some(since) = since_spoken {
        histogram!(SPOKEN_TO_PUBLISHED).record(since.as_secs_f64());
    }
}

pub(crate) fn ladder(step: u32) {
    gauge!(LADDER).set(f64::from(step));
}

pub(crate) fn published(took: Duration) {
    histogram!(PUBLISH).record(took.as_secs_f64());
}

pub(crate) fn log_out_of_reach() {
    counter!(OUT_OF_REACH).increment(1);
}

pub(crate) fn publish_refused() {
    counter!(PUBLISH_BUGS).increment(1);
}

pub(crate) fn analysing() -> GaugeGuard {
    GaugeGuard::rise(gauge!(ANALYSTS))
}

pub(crate) fn inferred(kind: &'static str) {
    counter!(INFERRED, "kind" => kind).increment(1);
}

pub(crate) fn analysed(took: Duration) {
    histogram!(ANALYSED).record(took);
}

pub(crate) fn taken_up(after: Duration) {
    histogram!(ANALYST_LAG).record(after);
}

pub(crate) fn insight_told(after: Duration) {
    histogram!(INSIGHT).record(after);
}

pub(crate) fn unweighed() {
    counter!(UNWEIGHED).increment(1);
}

pub(crate) fn refused_to_look_for(refused: hearsay_insight::analysis::Refused) {
    for (what, count) in [("tracker", refused.trackers), ("entity", refused.entities)] {
        if count > 0 {
            counter!(NOT_LOOKED_FOR, "what" => what).increment(count as u64);
        }
    }
}
