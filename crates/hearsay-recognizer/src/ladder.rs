//! How much is left out under load: a state machine over how long live decodes waited.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use hearsay_speech::lane::Degrade;

use crate::{config::LadderConfig, metrics};

/// How long a step is kept at least before a higher and a lower one.
const UP: Duration = Duration::from_millis(500);
const DOWN: Duration = Duration::from_secs(3);

/// Weight of the newest wait.
const WEIGHT: f64 = 0.2;

/// Without any decode the wait is forgotten by half in this time.
const HALF_LIFE: Duration = Duration::from_secs(1);

/// How loaded the engine is, for everybody to look at.
pub(crate) struct Load {
    ladder: Mutex<Ladder>,
    step: AtomicU32,
    /// Bits of an `f32`: seconds of audio decoded in a second of engine time, smoothed.
    factor: AtomicU32,
    /// How long live decodes wait, smoothed, in milliseconds.
    behind: AtomicU32,
}

impl Load {
    pub(crate) fn new(config: &LadderConfig) -> Self {
        let ladder = Mutex::new(Ladder::new(config, Instant::now()));
        Self { ladder, step: AtomicU32::new(0), factor: AtomicU32::new(0), behind: AtomicU32::new(0) }
    }

    /// Step of the ladder: 0 nothing is left out, 1 slower partials, 2 no partials, 3 no new streams.
    pub(crate) fn step(&self) -> u32 {
        self.step.load(Ordering::Relaxed)
    }

    /// Seconds of audio decoded in a second of engine time; 0 when not known.
    pub(crate) fn factor(&self) -> f32 {
        f32::from_bits(self.factor.load(Ordering::Relaxed))
    }

    /// How long live decodes wait for the engine, smoothed, in milliseconds.
    pub(crate) fn behind_ms(&self) -> u32 {
        self.behind.load(Ordering::Relaxed)
    }

    /// A live decode waited this long.
    pub(crate) fn waited(&self, wait: Duration) {
        self.update(|ladder, now| ladder.waited(wait, now));
    }

    /// Time passed.
    pub(crate) fn tick(&self) {
        self.update(|_, _| ());
    }

    pub(crate) fn decoded(&self, took: Duration, audio: Duration) {
        let now = (audio.as_secs_f64() / took.as_secs_f64().max(1e-6)) as f32;
        let before = self.factor();
        let smoothed = if before == 0.0 { now } else { before + 0.1 * (now - before) };
        self.factor.store(smoothed.to_bits(), Ordering::Relaxed);
    }

    fn update(&self, change: impl FnOnce(&mut Ladder, Instant)) {
        let now = Instant::now();
        let mut ladder = self.ladder.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut ladder, now);
        let step = ladder.step(now);
        self.behind.store((ladder.wait * 1e3) as u32, Ordering::Relaxed);
        drop(ladder);
        let before = self.step.swap(step, Ordering::Relaxed);
        if step != before {
            metrics::ladder(step);
            tracing::warn!(step, before, "the engine's load moved the degrade ladder");
        }
    }
}

#[derive(Debug)]
struct Ladder {
    thresholds: [f64; 3],
    /// Smoothed, in seconds.
    wait: f64,
    seen: Instant,
    step: usize,
    since: Instant,
}

impl Ladder {
    fn new(config: &LadderConfig, now: Instant) -> Self {
        let thresholds =
            [config.slow_partials, config.no_partials, config.refuse].map(|threshold| threshold.get().as_secs_f64());
        Self { thresholds, wait: 0.0, seen: now, step: 0, since: now }
    }

    /// A live decode waited this long for an engine thread.
    fn waited(&mut self, wait: Duration, now: Instant) {
        self.forget(now);
        self.wait += WEIGHT * (wait.as_secs_f64() - self.wait);
        self.decide(now);
    }

    /// Time passed. Answers the step: 0 nothing is left out, 3 new streams are refused.
    fn step(&mut self, now: Instant) -> u32 {
        self.forget(now);
        self.decide(now);
        self.step as u32
    }

    fn forget(&mut self, now: Instant) {
        let idle = now.saturating_duration_since(self.seen);
        self.wait *= 0.5_f64.powf(idle.as_secs_f64() / HALF_LIFE.as_secs_f64());
        self.seen = now;
    }

    fn decide(&mut self, now: Instant) {
        let kept = now.saturating_duration_since(self.since);
        let up = self.step < 3 && self.wait > self.thresholds[self.step] && (self.step == 0 || kept >= UP);
        let down = self.step > 0 && self.wait < self.thresholds[self.step - 1] / 2.0 && kept >= DOWN;
        if up || down {
            self.step = if up { self.step + 1 } else { self.step - 1 };
            self.since = now;
        }
    }
}

/// What lanes leave out at a step.
pub(crate) fn degrade(step: u32) -> Degrade {
    match step {
        0 => Degrade::None,
        1 => Degrade::SlowPartials,
        _ => Degrade::NoPartials,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_raise_it_step_by_step_and_calm_lowers_it_slowly() {
        let mut now = Instant::now();
        let mut ladder = Ladder::new(&LadderConfig::default(), now);
        let mut steps = vec![0];
        let mut note = |step| {
            if steps.last() != Some(&step) {
                steps.push(step);
            }
        };
        for _ in 0..40 {
            now += Duration::from_millis(100);
            ladder.waited(Duration::from_secs(1), now);
            note(ladder.step(now));
        }
        for _ in 0..30 {
            now += Duration::from_millis(500);
            note(ladder.step(now));
        }
        assert_eq!(steps, [0, 1, 2, 3, 2, 1, 0]);
    }

    #[test]
    fn one_slow_decode_changes_nothing() {
        let now = Instant::now();
        let mut ladder = Ladder::new(&LadderConfig::default(), now);
        ladder.waited(Duration::from_millis(700), now);
        assert_eq!(ladder.step(now), 0);
    }
}
