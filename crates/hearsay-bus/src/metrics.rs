//! All metrics of this crate. Labels are words of this code: their number is fixed.

use std::time::Duration;

use hearsay_protocol::Event;
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::Refusal;

const CONVERSATIONS: &str = "hearsay_log_conversations";
const APPENDED: &str = "hearsay_log_events_appended_total";
const DUPLICATES: &str = "hearsay_log_duplicates_total";
const REFUSED: &str = "hearsay_log_refused_total";
const BRANCHES: &str = "hearsay_log_branches_total";
const MISSED: &str = "hearsay_log_deliveries_missed_total";
const SKIPPED: &str = "hearsay_log_ephemerals_skipped_total";
const COMPACTED: &str = "hearsay_log_compacted_total";
const ROUND: &str = "hearsay_log_round_seconds";
const VISITED: &str = "hearsay_log_visited_total";
const RETRIED: &str = "hearsay_log_append_retries_total";
const REAPPENDED: &str = "hearsay_log_reappended_total";
const UNRECOVERABLE: &str = "hearsay_log_unrecoverable_total";
const TOMBSTONES: &str = "hearsay_log_tombstones_total";

/// Explains every name to whoever scrapes.
pub fn describe() {
    describe_gauge!(CONVERSATIONS, "Conversations whose log or record is held in this process.");
    describe_counter!(APPENDED, "Events appended, by kind.");
    describe_counter!(DUPLICATES, "Batches that were on the log already.");
    describe_counter!(
        REFUSED,
        "Batches refused, by why: fenced, overlap, hole, reclaim, held, ended, gone, full, invalid. Overlap, hole and \
         invalid are bugs."
    );
    describe_counter!(BRANCHES, "Times history was found to be lost: a new epoch began.");
    describe_counter!(MISSED, "Times a subscriber fell so far behind that it has to read the log.");
    describe_counter!(SKIPPED, "Ephemeral announcements that a subscriber had no room for.");
    describe_counter!(COMPACTED, "Ended conversations whose entries became one record.");
    describe_histogram!(ROUND, "Time to visit the conversations whose deadlines have passed.");
    describe_counter!(VISITED, "Conversations visited because a deadline had passed.");
    describe_counter!(RETRIED, "Appends repeated because the log did not answer.");
    describe_counter!(REAPPENDED, "Batches appended again because a failover had lost them.");
    describe_counter!(
        UNRECOVERABLE,
        "Stretches that a failover had lost and nobody kept any more: their events are gone."
    );
    describe_counter!(TOMBSTONES, "Entries read that this version cannot understand.");
    // What an alert counts the rise of is there before it rises: a series that begins at 1 has not risen.
    counter!(BRANCHES).increment(0);
    for why in ["overlap", "hole", "invalid"] {
        counter!(REFUSED, "why" => why).increment(0);
    }
}

pub(crate) fn conversations(count: usize) {
    gauge!(CONVERSATIONS).set(count as f64);
}

pub(crate) fn appended(event: &Event) {
    counter!(APPENDED, "kind" => event.kind().name()).increment(1);
}

pub(crate) fn duplicate() {
    counter!(DUPLICATES).increment(1);
}

pub(crate) fn refused(refusal: &Refusal) {
    let why = match refusal {
        Refusal::Fenced { .. } => "fenced",
        Refusal::Overlap { .. } => "overlap",
        Refusal::Hole { .. } => "hole",
        Refusal::Reclaim => "reclaim",
        Refusal::Held { .. } => "held",
        Refusal::Ended => "ended",
        Refusal::Gone => "gone",
        Refusal::Full { .. } => "full",
        Refusal::Invalid(_) => "invalid",
    };
    counter!(REFUSED, "why" => why).increment(1);
}

pub(crate) fn branched() {
    counter!(BRANCHES).increment(1);
}

pub(crate) fn missed() {
    counter!(MISSED).increment(1);
}

pub(crate) fn skipped() {
    counter!(SKIPPED).increment(1);
}

pub(crate) fn compacted() {
    counter!(COMPACTED).increment(1);
}

pub(crate) fn round(visited: usize, took: Duration) {
    counter!(VISITED).increment(visited as u64);
    histogram!(ROUND).record(took.as_secs_f64());
}

pub(crate) fn retried() {
    counter!(RETRIED).increment(1);
}

pub(crate) fn unrecoverable() {
    counter!(UNRECOVERABLE).increment(1);
}

pub(crate) fn reappended(batches: usize) {
    counter!(REAPPENDED).increment(batches as u64);
}

pub(crate) fn tombstone() {
    counter!(TOMBSTONES).increment(1);
}
