//! Metrics of the log's Redis. Labels are words of this code.

use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

const CALLS: &str = "hearsay_redis_call_seconds";
const FAILED: &str = "hearsay_redis_calls_failed_total";
const REDIRECTED: &str = "hearsay_redis_calls_repeated_total";
const CONNECTED: &str = "hearsay_redis_connects_total";
const BROKEN: &str = "hearsay_redis_connections_broken_total";
const CANARY: &str = "hearsay_redis_canary_age_seconds";
const FULLNESS: &str = "hearsay_redis_memory_used_percent";
const SUBSCRIPTIONS: &str = "hearsay_redis_subscriptions";
const REPAIRED: &str = "hearsay_redis_subscriptions_repaired_total";
const CONTENDED: &str = "hearsay_redis_contended_total";

pub(super) fn describe() {
    describe_histogram!(CALLS, "Time a script takes, there and back, by script.");
    describe_counter!(FAILED, "Calls that failed: not reached, or no answer in time.");
    describe_counter!(REDIRECTED, "Calls repeated because a node sent them elsewhere or was not ready, by its word.");
    describe_counter!(CONNECTED, "Nodes connected to.");
    describe_counter!(BROKEN, "Connections given up.");
    describe_gauge!(CANARY, "Age of the oldest canary: how long a dead subscription may have gone unnoticed.");
    describe_gauge!(FULLNESS, "Memory in use of the fullest node, percent of its limit; 0 without a limit.");
    describe_gauge!(SUBSCRIPTIONS, "Channels this process is subscribed to.");
    describe_counter!(REPAIRED, "Channels subscribed to anew after a connection broke or a slot moved.");
    describe_counter!(CONTENDED, "Changes of a conversation's life repeated because another came first.");
    counter!(FAILED).increment(0);
    for why in ["moved", "broken"] {
        counter!(REDIRECTED, "why" => why).increment(0);
    }
}

pub(super) fn call(script: &'static str, took: Duration) {
    histogram!(CALLS, "script" => script).record(took.as_secs_f64());
}

pub(super) fn failed() {
    counter!(FAILED).increment(1);
}

pub(super) fn repeated(why: &'static str) {
    counter!(REDIRECTED, "why" => why).increment(1);
}

pub(super) fn connected() {
    counter!(CONNECTED).increment(1);
}

pub(super) fn broken() {
    counter!(BROKEN).increment(1);
}

pub(super) fn canary(age: Duration) {
    gauge!(CANARY).set(age.as_secs_f64());
}

pub(super) fn fullness(percent: u8) {
    gauge!(FULLNESS).set(f64::from(percent));
}

pub(super) fn subscriptions(count: usize) {
    gauge!(SUBSCRIPTIONS).set(count as f64);
}

pub(super) fn repaired(count: usize) {
    counter!(REPAIRED).increment(count as u64);
}

pub(super) fn contended() {
    counter!(CONTENDED).increment(1);
}
