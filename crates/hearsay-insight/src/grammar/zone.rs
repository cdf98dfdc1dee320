//! Time zones by name or by offset.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};

/// Where a conversation's clock hangs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

/// No such zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownZone(String);

impl fmt::Display for UnknownZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "time zone {:?} is not known; accepted are IANA names such as \"Europe/Berlin\" and offsets such as \"+05:30\"",
            self.0
        )
    }
}

impl std::error::Error for UnknownZone {}

impl Default for Zone {
    fn default() -> Self {
        Self(TimeZone::UTC)
    }
}

impl Zone {
    /// An IANA name ("Europe/Berlin"), "UTC", or an offset ("+05:30", "-8").
    ///
    /// # Errors
    /// When there is no such zone.
    pub fn parse(name: &str) -> Result<Self, UnknownZone> {
        let unknown = || UnknownZone(name.chars().take(64).collect());
        if name.len() > 64 {
            return Err(unknown());
        }
        if let Some((sign, rest)) =
            name.strip_prefix('+').map(|it| (1, it)).or(name.strip_prefix('-').map(|it| (-1, it)))
        {
            let (hours, minutes) = rest.split_once(':').unwrap_or((rest, "0"));
            let number = |it: &str| -> Option<i32> {
                (!it.is_empty() && it.len() <= 2 && it.bytes().all(|it| it.is_ascii_digit()))
                    .then(|| it.parse().ok())?
            };
            let minutes = number(minutes).filter(|it| *it < 60).ok_or_else(unknown)?;
            let hours = number(hours).ok_or_else(unknown)?;
            return Self::minutes(sign * (hours * 60 + minutes)).ok_or_else(unknown);
        }
        TimeZone::get(name).map(Self).map_err(|_| unknown())
    }

    /// So many minutes east of UTC, at most a day.
    #[must_use]
    pub fn minutes(east: i32) -> Option<Self> {
        if east.abs() > 24 * 60 {
            return None;
        }
        Some(Self(TimeZone::fixed(Offset::from_seconds(east * 60).ok()?)))
    }

    /// What a clock there shows at that time, in microseconds since 1970.
    #[must_use]
    pub fn civil(&self, at_us: u64) -> DateTime {
        let at =
            i64::try_from(at_us).ok().and_then(|it| Timestamp::from_microsecond(it).ok()).unwrap_or(Timestamp::MAX);
        self.0.to_datetime(at)
    }

    /// The moment a clock there shows that, in RFC 3339 with the offset; a time that the clock skips is taken after
    /// the gap.
    #[must_use]
    pub fn rfc3339(&self, at: DateTime) -> Option<String> {
        let zoned = at.to_zoned_datetime(self.0.clone()).ok()?;
        Some(format!("{}", zoned.timestamp().display_with_offset(zoned.offset())))
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::datetime;

    use super::*;

    #[test]
    fn zones_by_name_and_offset() {
        let berlin = Zone::parse("Europe/Berlin").unwrap();
        assert_eq!(berlin.civil(1_773_223_200_000_000), datetime(2026, 3, 11, 11, 0, 0, 0));
        assert_eq!(berlin.rfc3339(datetime(2026, 7, 1, 0, 0, 0, 0)).unwrap(), "2026-07-01T00:00:00+02:00");
        assert_eq!(Zone::parse("-7").unwrap(), Zone::minutes(-420).unwrap());
        assert_eq!(Zone::parse("+05:30").unwrap(), Zone::minutes(330).unwrap());
        assert_eq!(Zone::parse("UTC").unwrap().civil(0), datetime(1970, 1, 1, 0, 0, 0, 0));
    }

    #[test]
    fn a_zone_that_is_not_there_is_named() {
        for name in ["Mars/Phobos", "", "+99", "+1:60", "+-5", "../etc/passwd", "+05:30:10", "\u{0}"] {
            let refused = Zone::parse(name).unwrap_err().to_string();
            assert!(refused.contains("is not known"), "{refused}");
        }
        assert!(Zone::parse(&"x".repeat(100_000)).unwrap_err().to_string().len() < 300);
        assert_eq!(Zone::minutes(i32::MAX / 2), None);
    }
}
