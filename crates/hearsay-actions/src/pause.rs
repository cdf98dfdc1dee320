//! When something is tried again, as a function of what is known. No clock.

use std::time::Duration;

use hearsay_protocol::Timestamp;

/// A receiver may ask for no longer a pause.
const ASKED: Duration = Duration::from_secs(24 * 3_600);

pub(crate) struct Patience {
    pub(crate) first: Duration,
    pub(crate) longest: Duration,
    pub(crate) give_up: Duration,
}

impl Patience {
    /// How long to wait after the `attempts`th attempt, which failed: doubling, spread by `jitter` (0 to 1) over its upper
    /// half, and no shorter than the receiver asked for. None: nothing more is tried of what was put at `put`.
    pub(crate) fn after(
        &self,
        attempts: u32,
        asked: Option<Duration>,
        put: Timestamp,
        now: Timestamp,
        jitter: f64,
    ) -> Option<Duration> {
        let doubled = self.first.saturating_mul(2_u32.saturating_pow(attempts.saturating_sub(1)));
        let spread = doubled.min(self.longest).mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0);
        let pause = spread.max(asked.unwrap_or_default().min(ASKED));
        (now + pause <= put + self.give_up).then_some(pause)
    }
}

/// What `Retry-After` says: seconds, or a date.
pub(crate) fn asked(header: &str, now: Timestamp) -> Option<Duration> {
    let header = header.trim();
    if let Ok(seconds) = header.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(header).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(at.saturating_sub(Duration::from_micros(now.micros())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATIENCE: Patience = Patience {
        first: Duration::from_secs(5),
        longest: Duration::from_secs(3_600),
        give_up: Duration::from_secs(3 * 86_400),
    };
    const PUT: Timestamp = Timestamp(1_900_000_000_000_000);

    #[test]
    fn pauses_double_up_to_the_longest_until_it_is_given_up() {
        let pause = |attempts, jitter| PATIENCE.after(attempts, None, PUT, PUT, jitter).unwrap();
        assert_eq!(pause(1, 1.0), Duration::from_secs(5));
        assert_eq!(pause(1, 0.0), Duration::from_millis(2_500));
        assert_eq!(pause(4, 1.0), Duration::from_secs(40));
        assert_eq!(pause(11, 1.0), Duration::from_secs(3_600));
        assert_eq!(pause(u32::MAX, 1.0), Duration::from_secs(3_600));
        let late = PUT + Duration::from_secs(3 * 86_400 - 3_000);
        assert_eq!(PATIENCE.after(50, None, PUT, late, 1.0), None);
        assert!(PATIENCE.after(1, None, PUT, late, 1.0).is_some());
    }

    #[test]
    fn a_receiver_is_left_alone_for_as_long_as_it_asks() {
        let asked_for = |seconds| PATIENCE.after(1, Some(Duration::from_secs(seconds)), PUT, PUT, 1.0).unwrap();
        assert_eq!(asked_for(2), Duration::from_secs(5));
        assert_eq!(asked_for(120), Duration::from_secs(120));
        assert_eq!(asked_for(u64::MAX), ASKED);
        assert_eq!(asked(" 120 ", PUT), Some(Duration::from_secs(120)));
        assert_eq!(asked("Wed, 21 Oct 2015 07:28:00 GMT", PUT), Some(Duration::ZERO), "is over");
        let before = Timestamp(1_445_412_420_000_000);
        assert_eq!(asked("Wed, 21 Oct 2015 07:28:00 GMT", before), Some(Duration::from_secs(60)));
        assert_eq!(asked("-1", PUT), None);
        assert_eq!(asked("soon", PUT), None);
    }

    proptest! {
        #[test]
        fn no_pause_is_below_half_the_first(attempts: u32, asked in proptest::option::of(0u64..1 << 40), jitter: f64) {
            let asked = asked.map(Duration::from_secs);
            let jitter = if jitter.is_nan() { 0.0 } else { jitter };
            if let Some(pause) = PATIENCE.after(attempts, asked, PUT, PUT, jitter) {
                prop_assert!(pause >= PATIENCE.first / 2 && pause <= ASKED);
            }
        }
    }
}
