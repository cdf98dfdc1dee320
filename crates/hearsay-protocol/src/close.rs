//! Why a socket is closed, as its client hears it. Which code brings which client back is known from running them.

/// How the server ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// A normal stop, an idle time-out, the meeting's end: nobody returns.
    Normal,
    /// A close frame without a code: the only clean close after which every stock client that asked to reconnect does.
    Return,
    /// Token expired or refused after the upgrade, or a limit was passed.
    Policy,
    /// A message larger than accepted.
    TooLarge,
    /// A fault of ours.
    Internal,
    /// No capacity.
    Overloaded,
    /// A code of the WebSocket protocol itself, or the peer's own sent back.
    Other(u16),
}

impl CloseCode {
    /// The code in the close frame; none for an empty frame.
    pub fn code(self) -> Option<u16> {
        match self {
            Self::Normal => Some(1000),
            Self::Return => None,
            Self::Policy => Some(1008),
            Self::TooLarge => Some(1009),
            Self::Internal => Some(1011),
            Self::Overloaded => Some(1013),
            Self::Other(code) => Some(code),
        }
    }
}
