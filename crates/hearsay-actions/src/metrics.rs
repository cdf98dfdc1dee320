//! Every metric of this crate.

use std::time::Duration;

use hearsay_conversation::Way;
use hearsay_runtime::GaugeGuard;
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

const FOLLOWED: &str = "hearsay_actions_conversations";
const LISTED: &str = "hearsay_actions_listed";
const IN_FLIGHT: &str = "hearsay_actions_in_flight";
const PUT: &str = "hearsay_actions_put_total";
const DROPPED: &str = "hearsay_actions_dropped_total";
const HELD_BACK: &str = "hearsay_actions_held_back_total";
const NO_ROOM: &str = "hearsay_actions_no_room_total";
const ATTEMPTS: &str = "hearsay_actions_attempts_total";
const ATTEMPT: &str = "hearsay_actions_attempt_seconds";
const DELIVERED: &str = "hearsay_actions_delivered_seconds";
const GIVEN_UP: &str = "hearsay_actions_given_up_total";

pub(crate) fn describe() {
    describe_gauge!(FOLLOWED, "Conversations this process follows for its rules.");
    describe_gauge!(
        LISTED,
        "Errands on the list of all processes: one a live conversation, one a message not delivered."
    );
    describe_gauge!(IN_FLIGHT, "Messages being sent, by way: webhook, mail.");
    describe_counter!(PUT, "Messages that rules asked for, by way.");
    describe_counter!(DROPPED, "Messages left out because a conversation had as many as it may have.");
    describe_counter!(HELD_BACK, "Times following waited because as many errands were listed as may be.");
    describe_counter!(NO_ROOM, "Errands given back because this process was busy, by what: following, sending, rule.");
    describe_counter!(ATTEMPTS, "Attempts to send, by way and outcome: delivered, answered, unreachable, refused.");
    describe_histogram!(ATTEMPT, "Seconds of one attempt, by way.");
    describe_histogram!(DELIVERED, "Seconds from a message's cause to its delivery, by way.");
    describe_counter!(GIVEN_UP, "Messages that nothing more is tried of, by way.");
    // What an alert counts the rise of is there before it rises: a series that begins at 1 has not risen.
    for way in [Way::Webhook, Way::Mail] {
        counter!(GIVEN_UP, "way" => way.name()).increment(0);
    }
    for what in ["following", "sending", "rule"] {
        counter!(NO_ROOM, "what" => what).increment(0);
    }
}

pub(crate) fn following() -> GaugeGuard {
    GaugeGuard::rise(gauge!(FOLLOWED))
}

pub(crate) fn listed(count: usize) {
    gauge!(LISTED).set(count as f64);
}

pub(crate) fn sending(way: Way) -> GaugeGuard {
    GaugeGuard::rise(gauge!(IN_FLIGHT, "way" => way.name()))
}

pub(crate) fn put(way: Way) {
    counter!(PUT, "way" => way.name()).increment(1);
}

pub(crate) fn dropped() {
    counter!(DROPPED).increment(1);
}

pub(crate) fn held_back() {
    counter!(HELD_BACK).increment(1);
}

pub(crate) fn no_room(what: &'static str) {
    counter!(NO_ROOM, "what" => what).increment(1);
}

pub(crate) fn tried(way: Way, outcome: &'static str, took: Duration) {
    counter!(ATTEMPTS, "way" => way.name(), "outcome" => outcome).increment(1);
    histogram!(ATTEMPT, "way" => way.name()).record(took.as_secs_f64());
}

pub(crate) fn delivered(way: Way, after: Duration) {
    histogram!(DELIVERED, "way" => way.name()).record(after.as_secs_f64());
}

pub(crate) fn given_up(way: Way) {
    counter!(GIVEN_UP, "way" => way.name()).increment(1);
}
