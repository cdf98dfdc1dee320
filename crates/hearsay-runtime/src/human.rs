//! Durations and sizes as people write them: `"20s"`, `"3MB"`.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A duration, written as `"20s"`, `"1m 30s"`, `"250ms"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct HumanDuration(Duration);

impl HumanDuration {
    pub const fn new(duration: Duration) -> Self {
        Self(duration)
    }

    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    pub const fn get(self) -> Duration {
        self.0
    }
}

/// A number of bytes, written as `"3MB"` (a million) or `"3MiB"` (1024 × 1024), or as a bare number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct HumanBytes(u64);

impl HumanBytes {
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    pub const fn get(self) -> u64 {
        self.0
    }

    /// For sizes of memory.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// Largest first, so that an exact size is written in the largest unit that fits; decimal before binary.
const UNITS: [(&str, u64); 9] = [
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// What is wrong with a duration or a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{got:?} is not {expected}")]
pub struct HumanError {
    got: String,
    expected: &'static str,
}

impl FromStr for HumanDuration {
    type Err = HumanError;

    fn from_str(text: &str) -> Result<Self, HumanError> {
        let expected = r#"a duration such as "20s", "250ms" or "1m 30s""#;
        humantime::parse_duration(text).map(Self).map_err(|_| HumanError { got: text.to_owned(), expected })
    }
}

impl FromStr for HumanBytes {
    type Err = HumanError;

    fn from_str(text: &str) -> Result<Self, HumanError> {
        let error = || HumanError { got: text.to_owned(), expected: r#"a size such as "3MB", "64KiB" or "4096""# };
        let trimmed = text.trim();
        let digits = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(digits);
        let number: u64 = number.parse().map_err(|_| error())?;
        let unit = match unit.trim() {
            "" => 1,
            unit => UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(error)?.1,
        };
        number.checked_mul(unit).map(Self).ok_or_else(error)
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl fmt::Display for HumanBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = |&&(_, unit): &&(&str, u64)| self.0 >= unit && self.0.is_multiple_of(unit);
        let (name, unit) = UNITS.iter().find(exact).unwrap_or(&("B", 1));
        write!(f, "{}{name}", self.0 / unit)
    }
}

impl From<Duration> for HumanDuration {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl From<HumanDuration> for Duration {
    fn from(duration: HumanDuration) -> Self {
        duration.0
    }
}

impl From<u64> for HumanBytes {
    fn from(bytes: u64) -> Self {
        Self(bytes)
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for HumanBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for HumanBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = HumanBytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(r#"a size such as "3MB", or a number of bytes"#)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<HumanBytes, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<HumanBytes, E> {
                Ok(HumanBytes(bytes))
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<HumanBytes, E> {
                u64::try_from(bytes).map(HumanBytes).map_err(|_| E::custom("a size cannot be negative"))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_as_people_write_them() {
        for (text, millis) in [("20s", 20_000), ("250ms", 250), ("1m 30s", 90_000), ("0s", 0), ("24h", 86_400_000)] {
            assert_eq!(text.parse(), Ok(HumanDuration::from_millis(millis)), "{text}");
        }
        let error = serde_json::from_str::<HumanDuration>(r#""twenty""#).unwrap_err().to_string();
        assert!(error.contains(r#""twenty" is not a duration such as "20s""#), "{error}");
        assert!(serde_json::from_str::<HumanDuration>("20").is_err(), "a bare number has no unit");
    }

    #[test]
    fn sizes_as_people_write_them() {
        let cases =
            [("3MB", 3_000_000), ("3 MiB", 3 << 20), ("64KiB", 65_536), ("4096", 4_096), ("1gb", 1_000_000_000)];
        for (text, bytes) in cases {
            assert_eq!(text.parse(), Ok(HumanBytes(bytes)), "{text}");
        }
        for text in ["", "MB", "3.5MB", "-1", "3 horses", "99999999999TB"] {
            assert!(text.parse::<HumanBytes>().is_err(), "{text}");
        }
        assert_eq!(serde_json::from_str::<HumanBytes>("512").unwrap(), HumanBytes(512));
        assert_eq!(HumanBytes(0).to_string(), "0B");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(bytes: u64, millis in 0..u64::MAX / 1_000_000) {
            prop_assert_eq!(HumanBytes(bytes).to_string().parse(), Ok(HumanBytes(bytes)));
            let duration = HumanDuration::from_millis(millis);
            prop_assert_eq!(duration.to_string().parse(), Ok(duration));
        }
    }
}
