//! All metrics of this crate. Labels are words of this code: their number is fixed.

use std::{sync::OnceLock, time::Duration};

use hearsay_runtime::GaugeGuard;
use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

const DELIVERED: &str = "hearsay_fanout_delivered_total";
const DELIVERED_BYTES: &str = "hearsay_fanout_delivered_bytes_total";
const CONFLATED: &str = "hearsay_fanout_partials_conflated_total";
const CUT: &str = "hearsay_fanout_cut_total";
const REPAIRS: &str = "hearsay_fanout_gap_repairs_total";
const GAPS: &str = "hearsay_fanout_gaps_told_total";
const FEEDS: &str = "hearsay_fanout_feeds";
const ROWS: &str = "hearsay_fanout_listener_rows";
const BLOCKED: &str = "hearsay_fanout_listener_rows_blocked";
const QUEUED: &str = "hearsay_fanout_queued_bytes";
const WAITING: &str = "hearsay_fanout_waiting_listeners";
const CATCHUPS: &str = "hearsay_fanout_catchups";
const FLUSH: &str = "hearsay_fanout_flush_seconds";
const MEMBERS: &str = "hearsay_fanout_flush_members_count";

/// Explains every name to whoever scrapes.
pub fn describe() {
    describe_counter!(DELIVERED, "Flushes written or queued to one socket, by kind of socket (row, outbox).");
    describe_counter!(DELIVERED_BYTES, "Bytes of events written or queued to sockets, by kind of socket.");
    describe_counter!(CONFLATED, "Partials replaced by a newer one or skipped for want of room.");
    describe_counter!(
        CUT,
        "Sockets ended by us, by reason (slow, dead, violation, flood, token_expired, overloaded, drained, waited)."
    );
    describe_counter!(REPAIRS, "Holes in the announcements closed by reading the log.");
    describe_counter!(GAPS, "Gaps subscribers were told of, by reason.");
    describe_gauge!(FEEDS, "Conversations with members at this gateway.");
    describe_gauge!(ROWS, "Listeners' sockets that are rows of a core.");
    describe_gauge!(BLOCKED, "Rows whose socket takes no more bytes for the moment.");
    describe_gauge!(QUEUED, "Bytes queued to rows whose socket takes no more for the moment.");
    describe_gauge!(WAITING, "Listeners of meetings that nobody has opened.");
    describe_gauge!(CATCHUPS, "Joiners that read history.");
    describe_histogram!(FLUSH, "Time a core takes to walk the members of one flush.");
    describe_histogram!(MEMBERS, "Rows of one flush on one core.");
}

pub(crate) fn conflated(partials: u64) {
    static HANDLE: OnceLock<Counter> = OnceLock::new();
    HANDLE.get_or_init(|| counter!(CONFLATED)).increment(partials);
}

pub(crate) fn cut(reason: &'static str) {
    counter!(CUT, "reason" => reason).increment(1);
}

pub(crate) fn repaired() {
    counter!(REPAIRS).increment(1);
}

pub(crate) fn gap_told(reason: &'static str) {
    counter!(GAPS, "reason" => reason).increment(1);
}

pub(crate) fn delivered_to_outbox(bytes: usize) {
    static HANDLES: OnceLock<(Counter, Counter)> = OnceLock::new();
    let (flushes, sent) = HANDLES
        .get_or_init(|| (counter!(DELIVERED, "socket" => "outbox"), counter!(DELIVERED_BYTES, "socket" => "outbox")));
    flushes.increment(1);
    sent.increment(bytes as u64);
}

pub(crate) fn feed_opened() -> GaugeGuard {
    GaugeGuard::rise(gauge!(FEEDS))
}

pub(crate) fn waiting() -> GaugeGuard {
    GaugeGuard::rise(gauge!(WAITING))
}

pub(crate) fn catching_up() -> GaugeGuard {
    GaugeGuard::rise(gauge!(CATCHUPS))
}

/// What a core looks up once.
pub(crate) struct CoreMetrics {
    delivered: Counter,
    delivered_bytes: Counter,
    pub(crate) rows: Gauge,
    pub(crate) blocked: Gauge,
    pub(crate) queued: Gauge,
    flush: metrics::Histogram,
    members: metrics::Histogram,
}

impl CoreMetrics {
    pub(crate) fn new() -> Self {
        Self {
            delivered: counter!(DELIVERED, "socket" => "row"),
            delivered_bytes: counter!(DELIVERED_BYTES, "socket" => "row"),
            rows: gauge!(ROWS),
            blocked: gauge!(BLOCKED),
            queued: gauge!(QUEUED),
            flush: histogram!(FLUSH),
            members: histogram!(MEMBERS),
        }
    }

    pub(crate) fn flushed(&self, members: usize, bytes: usize, took: Duration) {
        self.delivered.increment(members as u64);
        self.delivered_bytes.increment((members * bytes) as u64);
        self.flush.record(took);
        self.members.record(members as f64);
    }
}
