//! Where an event stands in its conversation's log.

use std::{fmt, str::FromStr};

/// Changes when history was lost: entries after the branch point of an older epoch may differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub u32);

/// Counts durable events of a conversation from 1, without holes. 0 stands before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Offset(pub u64);

impl Offset {
    pub const START: Self = Self(0);

    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Written `<epoch, 8 hex digits>:<offset>`, for instance `0badcafe:17`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    pub epoch: Epoch,
    pub offset: Offset,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}:{}", self.epoch.0, self.offset.0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("position {got:?} is not EPOCH:OFFSET (8 hexadecimal digits, a colon, a decimal number)")]
pub struct InvalidPosition {
    pub got: String,
}

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let wrong = || InvalidPosition { got: text.chars().take(40).collect() };
        let (epoch, offset) = text.split_once(':').ok_or_else(wrong)?;
        let digits = |text: &str, radix| !text.is_empty() && text.chars().all(|c| c.is_digit(radix));
        if epoch.len() != 8 || !digits(epoch, 16) || !digits(offset, 10) {
            return Err(wrong());
        }
        Ok(Self {
            epoch: Epoch(u32::from_str_radix(epoch, 16).map_err(|_| wrong())?),
            offset: Offset(offset.parse().map_err(|_| wrong())?),
        })
    }
}

/// How far somebody has read, so that the log can tell whether it still holds the same history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// None: does not know the epoch yet, and accepts any.
    pub epoch: Option<Epoch>,
    pub offset: Offset,
    /// The entry's random check; none: not known (a client's position carries none).
    pub check: Option<u64>,
}

impl Seen {
    /// Has read nothing.
    pub const NOTHING: Self = Self { epoch: None, offset: Offset::START, check: None };

    pub fn position(self) -> Option<Position> {
        self.epoch.map(|epoch| Position { epoch, offset: self.offset })
    }
}

impl From<Position> for Seen {
    fn from(position: Position) -> Self {
        Self { epoch: Some(position.epoch), offset: position.offset, check: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_survive_their_text_form() {
        for (text, epoch, offset) in [("0badcafe:17", 0x0bad_cafe, 17), ("00000000:0", 0, 0)] {
            let position: Position = text.parse().unwrap();
            assert_eq!(position, Position { epoch: Epoch(epoch), offset: Offset(offset) });
            assert_eq!(position.to_string(), text);
        }
        for text in ["", "17", "0badcafe", "badcafe:1", "0badcafe:", "0badcafe:-1", "0badcafe:1x", "+badcafe:1"] {
            assert!(text.parse::<Position>().is_err(), "{text}");
        }
    }
}
