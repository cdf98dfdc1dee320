//! What a run found, for people and for programs.

use std::{fmt, time::Duration};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Counts of one run; several are added up.
#[derive(Debug, Clone)]
pub struct Report {
    /// Events handed to the log; of listeners, events that should have come.
    pub sent: u64,
    /// Events accepted by the log; of listeners, events received.
    pub delivered: u64,
    /// Missing, and not told as a gap.
    pub lost: u64,
    pub duplicated: u64,
    pub reordered: u64,
    /// Missing, and told as a gap.
    pub told: u64,
    /// Connections or calls that failed, and were tried again.
    pub failed: u64,
    /// Sockets that were cut by the server with a reason, or lost.
    pub disconnected: u64,
    /// Sockets or meetings that took part.
    pub members: u64,
    /// Sockets that were cut off by the run itself and were not back at its end.
    pub missing: u64,
    /// What only some kinds of runs find, by name.
    pub more: Vec<(&'static str, f64)>,
    pub took: Duration,
    pub(super) micros: Histogram<u64>,
}

/// What a run must keep to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    pub lost: Option<u64>,
    pub p99: Option<Duration>,
    pub disconnected: Option<u64>,
}

impl Default for Report {
    fn default() -> Self {
        const HOUR_US: u64 = 3_600_000_000;
        let micros = Histogram::new_with_bounds(1, HOUR_US, 3);
        let micros = micros.unwrap_or_else(|_| unreachable!("an hour in three digits is within what it takes"));
        Self {
            sent: 0,
            delivered: 0,
            lost: 0,
            duplicated: 0,
            reordered: 0,
            told: 0,
            failed: 0,
            disconnected: 0,
            members: 0,
            missing: 0,
            more: Vec::new(),
            took: Duration::ZERO,
            micros,
        }
    }
}

impl Report {
    pub fn latency(&mut self, nanos: u64) {
        self.micros.saturating_record(nanos / 1_000);
    }

    /// Milliseconds; none without any measurement.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        (!self.micros.is_empty()).then(|| self.micros.value_at_quantile(share) as f64 / 1_000.0)
    }

    pub fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.told += other.told;
        self.failed += other.failed;
        self.disconnected += other.disconnected;
        self.members += other.members;
        self.missing += other.missing;
        self.took = self.took.max(other.took);
        self.micros += &other.micros;
    }

    /// What was not kept to, in words.
    pub fn broken(&self, limits: &Limits) -> Vec<String> {
        let mut broken = Vec::new();
        if let Some(most) = limits.lost {
            let wrong = self.lost + self.duplicated + self.reordered;
            if wrong > most {
                broken.push(format!("{wrong} events were lost, doubled or out of order; {most} are accepted"));
            }
        }
        if let Some(most) = limits.p99 {
            let most = most.as_secs_f64() * 1e3;
            match self.quantile(0.99) {
                Some(p99) if p99 > most => {
                    broken.push(format!("the 99th percentile is {p99:.1} ms; {most} ms is accepted"));
                }
                Some(_) => {}
                None => broken.push("no latency was measured".to_owned()),
            }
        }
        if self.missing > 0 {
            broken.push(format!("{} sockets were cut off and are not back", self.missing));
        }
        if let Some(most) = limits.disconnected
            && self.disconnected > most
        {
            broken.push(format!("{} sockets were disconnected; {most} are accepted", self.disconnected));
        }
        broken
    }

    pub fn to_json(&self) -> Value {
        let seconds = self.took.as_secs_f64();
        let ms = |share| self.quantile(share);
        let mut report = json!({
            "sent": self.sent,
            "delivered": self.delivered,
            "lost": self.lost,
            "duplicated": self.duplicated,
            "reordered": self.reordered,
            "gaps_told": self.told,
            "failed": self.failed,
            "disconnected": self.disconnected,
            "members": self.members,
            "seconds": seconds,
            "delivered_per_second": if seconds > 0.0 { self.delivered as f64 / seconds } else { 0.0 },
            "p50_ms": ms(0.5),
            "p99_ms": ms(0.99),
            "p999_ms": ms(0.999),
            "max_ms": (!self.micros.is_empty()).then(|| self.micros.max() as f64 / 1_000.0),
        });
        for (name, value) in self.more.iter().copied().chain([("missing", self.missing as f64)]) {
            report[name] = json!(value);
        }
        report
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.took.as_secs_f64().max(f64::MIN_POSITIVE);
        writeln!(
            f,
            "sent {}, delivered {} ({:.0}/s), lost {}, doubled {}, out of order {}, told as gaps {}",
            self.sent,
            self.delivered,
            self.delivered as f64 / seconds,
            self.lost,
            self.duplicated,
            self.reordered,
            self.told
        )?;
        write!(
            f,
            "{} members, {} disconnected, {} failed, {:.1} s",
            self.members, self.disconnected, self.failed, seconds
        )?;
        if let (Some(p50), Some(p99), Some(p999)) = (self.quantile(0.5), self.quantile(0.99), self.quantile(0.999)) {
            let most = self.micros.max() as f64 / 1_000.0;
            write!(f, "; milliseconds: p50 {p50:.2}, p99 {p99:.2}, p99.9 {p999:.2}, at most {most:.2}")?;
        }
        for (name, value) in &self.more {
            write!(f, "; {name} {value:.0}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_broken_by_what_exceeds_them_and_by_nothing_measured() {
        let mut report = Report { lost: 1, duplicated: 1, disconnected: 2, ..Report::default() };
        report.latency(5_000_000);
        let none = Limits::default();
        assert!(report.broken(&none).is_empty());
        let wide = Limits { lost: Some(2), p99: Some(Duration::from_millis(6)), disconnected: Some(2) };
        assert!(report.broken(&wide).is_empty(), "{:?}", report.broken(&wide));
        let tight = Limits { lost: Some(1), p99: Some(Duration::from_millis(4)), disconnected: Some(1) };
        assert_eq!(report.broken(&tight).len(), 3);
        let unmeasured = Report::default().broken(&Limits { p99: Some(Duration::from_secs(1)), ..none });
        assert_eq!(unmeasured, ["no latency was measured"]);
    }

    #[test]
    fn sums_keep_quantiles() {
        let (mut one, mut two) = (Report { sent: 2, ..Report::default() }, Report { sent: 3, ..Report::default() });
        (1..=50).for_each(|ms| one.latency(ms * 1_000_000));
        (51..=100).for_each(|ms| two.latency(ms * 1_000_000));
        one.add(&two);
        assert_eq!(one.sent, 5);
        let p99 = one.quantile(0.99).unwrap();
        assert!((98.5..=100.0).contains(&p99), "{p99}");
        for key in ["sent", "delivered", "lost", "duplicated", "reordered", "p50_ms", "p99_ms", "p999_ms"] {
            assert!(one.to_json().get(key).is_some_and(Value::is_number), "{key}");
        }
    }
}
