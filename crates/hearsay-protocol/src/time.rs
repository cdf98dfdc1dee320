//! Two clocks that are never mixed: the wall (the bus's own) and a stream's audio.

use std::{
    fmt,
    ops::{Add, Sub},
    time::Duration,
};

/// Wall time by the bus's clock, in µs since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp(pub u64);

/// Time on a stream's audio clock, in µs since the stream's origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct StreamTime(pub u64);

macro_rules! micros {
    ($($name:ident),*) => { $(
        impl $name {
            pub const ZERO: Self = Self(0);

            pub const fn micros(self) -> u64 { self.0 }

            pub const fn millis(self) -> u64 { self.0 / 1_000 }

            /// The time from `earlier` to this one; zero when `earlier` is later.
            pub fn since(self, earlier: Self) -> Duration {
                Duration::from_micros(self.0.saturating_sub(earlier.0))
            }
        }

        impl Add<Duration> for $name {
            type Output = Self;
            fn add(self, by: Duration) -> Self { Self(self.0.saturating_add(micros_of(by))) }
        }

        impl Sub<Duration> for $name {
            type Output = Self;
            /// Stops at zero.
            fn sub(self, by: Duration) -> Self { Self(self.0.saturating_sub(micros_of(by))) }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{}us", self.0) }
        }
    )* };
}
micros!(Timestamp, StreamTime);

fn micros_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl StreamTime {
    /// When `samples` samples at `rate` per second have been heard. Rounds down; exact for whole µs.
    pub fn of_samples(samples: u64, rate: u32) -> Self {
        Self((u128::from(samples) * 1_000_000 / u128::from(rate)).try_into().unwrap_or(u64::MAX))
    }

    /// The wall time of this moment in a stream that began at `origin`.
    pub fn at(self, origin: Timestamp) -> Timestamp {
        Timestamp(origin.0.saturating_add(self.0))
    }
}

impl Timestamp {
    /// ISO 8601 in UTC with milliseconds: `2030-03-04T09:00:12.400Z`.
    pub fn iso8601(self) -> String {
        Iso8601::from(self).as_str().to_owned()
    }
}

/// A wall time in ISO 8601, in UTC with milliseconds, written without allocating: every word of a final has two. Times after
/// the year 9999 are written in that year.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Iso8601([u8; 24]);

impl Iso8601 {
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_else(|_| unreachable!("digits and what stands between them"))
    }
}

impl From<Timestamp> for Iso8601 {
    fn from(at: Timestamp) -> Self {
        let seconds = at.0 / 1_000_000;
        let (year, month, day) = civil(seconds / 86_400);
        let of_day = seconds % 86_400;
        let mut text = *b"0000-00-00T00:00:00.000Z";
        digits(&mut text[..4], year.min(9_999));
        digits(&mut text[5..7], month);
        digits(&mut text[8..10], day);
        digits(&mut text[11..13], of_day / 3_600);
        digits(&mut text[14..16], of_day / 60 % 60);
        digits(&mut text[17..19], of_day % 60);
        digits(&mut text[20..23], at.0 / 1_000 % 1_000);
        Self(text)
    }
}

impl serde::Serialize for Iso8601 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The last digits of `number`, as many as there is room for.
fn digits(room: &mut [u8], mut number: u64) {
    for digit in room.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Days since 1970-01-01 to (year, month, day) in the Gregorian calendar, counting years from March so that leap days
/// come last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iso8601_matches_known_dates() {
        for (micros, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00.000Z"),
            (1_898_845_212_400_999, "2030-03-04T09:00:12.400Z"),
            (1_735_689_599_999_000, "2024-12-31T23:59:59.999Z"),
            (253_402_300_799_999_999, "9999-12-31T23:59:59.999Z"),
            (253_402_300_800_000_000, "9999-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(Timestamp(micros).iso8601(), text);
        }
    }

    #[test]
    fn samples_become_microseconds() {
        assert_eq!(StreamTime::of_samples(16_000, 16_000).micros(), 1_000_000);
        assert_eq!(StreamTime::of_samples(1, 44_100).micros(), 22);
        assert_eq!(StreamTime::of_samples(u64::MAX, 1), StreamTime(u64::MAX));
    }
}
