//! All metrics of this crate. Labels are words of this code: their number is fixed.

use std::{sync::OnceLock, time::Duration};

use hearsay_protocol::Timestamp;
use hearsay_runtime::GaugeGuard;
use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

const DELIVERED: &str = "hearsay_fanout_delivered_total";
const DELIVERED_BYTES: &str = "hearsay_fanout_delivered_bytes_total";
const EVENTS: &str = "hearsay_fanout_events_delivered_total";
const FINAL_TO_SOCKET: &str = "hearsay_fanout_final_seconds";
const LOG_TO_SOCKET: &str = "hearsay_fanout_log_seconds";
const BEHIND: &str = "hearsay_fanout_feeds_behind";
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
    describe_counter!(
        EVENTS,
        "Events written or queued, counted once for each socket, by kind of socket and of event: durable, ephemeral. \
         History for who joins late is not counted."
    );
    describe_histogram!(
        FINAL_TO_SOCKET,
        "Seconds from the end of an utterance's speech to its final's bytes on the sockets of one flush, by kind of \
         socket; by the clocks of the speaker's gateway and of this one. Only of live audio."
    );
    describe_histogram!(
        LOG_TO_SOCKET,
        "Seconds from an event's time on the log to its bytes on the sockets of one flush, by kind of socket; by the \
         clocks of the log and of this gateway."
    );
    describe_gauge!(BEHIND, "Conversations whose log this gateway has to read before it can go on.");
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
    // What an alert counts the rise of is there before it rises: a series that begins at 1 has not risen.
    for reason in ["slow", "overloaded"] {
        counter!(CUT, "reason" => reason).increment(0);
    }
    gauge!(BEHIND).increment(0.0);
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

pub(crate) fn events_to_outboxes(durable: usize, ephemeral: usize) {
    static HANDLES: OnceLock<[Counter; 2]> = OnceLock::new();
    let [durables, ephemerals] = HANDLES.get_or_init(|| events("outbox"));
    durables.increment(durable as u64);
    ephemerals.increment(ephemeral as u64);
}

fn events(socket: &'static str) -> [Counter; 2] {
    ["durable", "ephemeral"].map(|kind| counter!(EVENTS, "socket" => socket, "kind" => kind))
}

/// A socket has what was written to it.
pub(crate) fn reached_outbox(since: Since, now: Timestamp) {
    static HANDLES: OnceLock<Reached> = OnceLock::new();
    HANDLES.get_or_init(|| Reached::new("outbox")).record(since, now);
}

/// Of the oldest event in something that is written: when it was put on the log, and when it was spoken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Since {
    pub(crate) appended: Option<Timestamp>,
    /// The end of a final's speech.
    pub(crate) spoken: Option<Timestamp>,
}

impl Since {
    pub(crate) fn older(self, other: Self) -> Self {
        let older = |one: Option<Timestamp>, other: Option<Timestamp>| one.into_iter().chain(other).min();
        Self { appended: older(self.appended, other.appended), spoken: older(self.spoken, other.spoken) }
    }
}

struct Reached {
    final_to_socket: metrics::Histogram,
    log_to_socket: metrics::Histogram,
}

impl Reached {
    fn new(socket: &'static str) -> Self {
        Self {
            final_to_socket: histogram!(FINAL_TO_SOCKET, "socket" => socket),
            log_to_socket: histogram!(LOG_TO_SOCKET, "socket" => socket),
        }
    }

    fn record(&self, since: Since, now: Timestamp) {
        if let Some(appended) = since.appended {
            self.log_to_socket.record(now.since(appended));
        }
        // What is sent faster than it was spoken is ahead of its own time.
        if let Some(spoken) = since.spoken.filter(|spoken| *spoken <= now) {
            self.final_to_socket.record(now.since(spoken));
        }
    }
}

pub(crate) fn feed_behind() -> GaugeGuard {
    GaugeGuard::rise(gauge!(BEHIND))
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
    events: [Counter; 2],
    reached: Reached,
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
            events: events("row"),
            reached: Reached::new("row"),
        }
    }

    /// All members have what their sockets took of a flush.
    pub(crate) fn reached(&self, members: usize, [durable, ephemeral]: [usize; 2], since: Since, now: Timestamp) {
        self.events[0].increment((members * durable) as u64);
        self.events[1].increment((members * ephemeral) as u64);
        if members > 0 {
            self.reached.record(since, now);
        }
    }

    pub(crate) fn flushed(&self, members: usize, bytes: usize, took: Duration) {
        self.delivered.increment(members as u64);
        self.delivered_bytes.increment((members * bytes) as u64);
        self.flush.record(took);
        self.members.record(members as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_event_of_a_flush_counts() {
        let at = |appended, spoken| Since { appended: Some(Timestamp(appended)), spoken };
        let both = at(20, Some(Timestamp(5))).older(at(10, None)).older(Since::default());
        assert_eq!(both, at(10, Some(Timestamp(5))));
    }
}
