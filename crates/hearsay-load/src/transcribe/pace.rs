//! When the next message may go. No clock and no socket.

use std::time::Duration;

/// Audio in one message.
pub(super) const CHUNK_MS: u64 = 100;

/// Recorded audio that may wait for its acknowledgement. The server acknowledges at the end of an utterance, ten seconds
/// at most, so twice that keeps it busy; it also is below the thirty seconds after which the server stops reading.
pub(super) const WINDOW_MS: u64 = 20_000;

/// One stream's place in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Pace {
    sent_ms: u64,
}

impl Pace {
    /// Behind this much of the stream.
    pub(super) fn after(sent_ms: u64) -> Self {
        Self { sent_ms }
    }

    /// When a message of `ms` is due at the pace of speech: when its last sample would have been spoken.
    pub(super) fn due(self, ms: u64) -> Duration {
        Duration::from_millis(self.sent_ms + ms)
    }

    /// Whether a message of `ms` still fits the window, with audio up to `acknowledged_ms` on the log.
    pub(super) fn fits(self, ms: u64, acknowledged_ms: u64) -> bool {
        self.sent_ms + ms <= acknowledged_ms.saturating_add(WINDOW_MS)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_are_due_when_their_last_sample_is_spoken() {
        assert_eq!(Pace::default().due(100), Duration::from_millis(100));
        assert_eq!(Pace::after(100).due(40), Duration::from_millis(140));
    }

    #[test]
    fn a_full_window_waits_for_the_acknowledgement() {
        let pace = Pace::after(WINDOW_MS);
        assert!(!pace.fits(CHUNK_MS, 0));
        assert!(pace.fits(CHUNK_MS, CHUNK_MS));
        assert!(pace.fits(CHUNK_MS, u64::MAX), "a strange acknowledgement does no harm");
    }

    proptest! {
        #[test]
        fn never_more_than_the_window_is_unacknowledged(steps in proptest::collection::vec((1..=CHUNK_MS, 0..500_u64), 1..500)) {
            let (mut pace, mut acknowledged) = (Pace::default(), 0);
            for (ms, more) in steps {
                if pace.fits(ms, acknowledged) {
                    pace = Pace::after(pace.sent_ms + ms);
                } else {
                    acknowledged = pace.sent_ms.min(acknowledged + more);
                }
                prop_assert!(pace.sent_ms - acknowledged <= WINDOW_MS);
            }
        }
    }
}
