//! Every metric of this crate.

use std::sync::OnceLock;

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

const RECEIVED: &str = "hearsay_uplink_audio_received_bytes_total";
const ACKNOWLEDGED: &str = "hearsay_uplink_audio_acknowledged_bytes_total";
const REPLAYED: &str = "hearsay_uplink_audio_replayed_bytes_total";
const RING: &str = "hearsay_uplink_ring_bytes";
const RING_LIMIT: &str = "hearsay_uplink_ring_limit_bytes";
const STREAMS: &str = "hearsay_uplink_streams";
const PLACEMENTS: &str = "hearsay_uplink_placements_total";
const ENDED: &str = "hearsay_uplink_streams_ended_total";
const REANCHORED: &str = "hearsay_uplink_reanchored_total";
const PLACING: &str = "hearsay_uplink_placing_seconds";
const WORKERS: &str = "hearsay_uplink_recognizers";
const PROBES: &str = "hearsay_uplink_probes_total";
const POOL_STREAMS: &str = "hearsay_uplink_pool_streams";
const POOL_RATED: &str = "hearsay_uplink_pool_streams_rated";

pub(crate) fn describe() {
    describe_counter!(RECEIVED, "Bytes of audio taken from clients.");
    describe_counter!(ACKNOWLEDGED, "Bytes of audio forgotten because the log covers what was said in them.");
    describe_counter!(REPLAYED, "Bytes of audio sent to a recognizer again.");
    describe_gauge!(RING, "Bytes of audio held because the log does not cover them yet.");
    describe_gauge!(RING_LIMIT, "Bytes of audio that may be held; at nine tenths no new stream is taken.");
    describe_gauge!(STREAMS, "Streams under way to a recognizer.");
    describe_counter!(PLACEMENTS, "Streams placed on a recognizer, by why: first, moved.");
    describe_counter!(ENDED, "Streams ended, by how: complete, stalled, fenced, refused, unsupported, broken.");
    describe_counter!(REANCHORED, "Jumps of a stream's clock after its client had sent nothing.");
    describe_histogram!(PLACING, "Seconds from the loss of a recognizer, or the start, to the next one's acceptance.");
    describe_gauge!(WORKERS, "Recognizers, by state: up, down.");
    describe_counter!(PROBES, "Recordings sent to recognizers that had failed a stream, by outcome: heard, failed.");
    describe_gauge!(POOL_STREAMS, "Streams that recognizers which are up say they hear, for all gateways.");
    describe_gauge!(POOL_RATED, "Streams that recognizers which are up say they hear at most.");
}

pub(crate) fn received(bytes: usize) {
    static HANDLE: OnceLock<Counter> = OnceLock::new();
    HANDLE.get_or_init(|| counter!(RECEIVED)).increment(bytes as u64);
}

pub(crate) fn acknowledged(bytes: usize) {
    static HANDLE: OnceLock<Counter> = OnceLock::new();
    HANDLE.get_or_init(|| counter!(ACKNOWLEDGED)).increment(bytes as u64);
}

pub(crate) fn replayed(bytes: usize) {
    counter!(REPLAYED).increment(bytes as u64);
}

pub(crate) fn ring_bytes(bytes: usize) {
    static HANDLE: OnceLock<Gauge> = OnceLock::new();
    HANDLE.get_or_init(|| gauge!(RING)).set(bytes as f64);
}

pub(crate) fn ring_limit(bytes: usize) {
    gauge!(RING_LIMIT).set(bytes as f64);
}

pub(crate) fn placed(first: bool, after: std::time::Duration) {
    counter!(PLACEMENTS, "why" => if first { "first" } else { "moved" }).increment(1);
    histogram!(PLACING).record(after.as_secs_f64());
}

pub(crate) fn ended(how: &'static str) {
    counter!(ENDED, "how" => how).increment(1);
}

pub(crate) fn reanchored() {
    counter!(REANCHORED).increment(1);
}

pub(crate) fn workers(up: usize, down: usize) {
    gauge!(WORKERS, "state" => "up").set(up as f64);
    gauge!(WORKERS, "state" => "down").set(down as f64);
}

pub(crate) fn probed(heard: bool) {
    counter!(PROBES, "outcome" => if heard { "heard" } else { "failed" }).increment(1);
}

pub(crate) fn load(streams: u64, rated: u64) {
    gauge!(POOL_STREAMS).set(streams as f64);
    gauge!(POOL_RATED).set(rated as f64);
}

/// Counts an open stream until dropped.
#[derive(Debug)]
pub(crate) struct OpenStream(());

impl OpenStream {
    pub(crate) fn new() -> Self {
        gauge!(STREAMS).increment(1.0);
        Self(())
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        gauge!(STREAMS).decrement(1.0);
    }
}
