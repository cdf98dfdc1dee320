//! How much of everything, and what it is for. The only place with defaults.

use std::{
    num::{NonZeroU16, NonZeroUsize},
    time::Duration,
};

use hearsay_runtime::{HumanBytes, HumanDuration};
use serde::{Deserialize, Serialize};

use crate::{OutboxLimits, frame};

/// Limits and times of the fan-out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FanoutConfig {
    /// Bytes queued to one listener whose socket takes no more, before it is cut.
    pub listener_queue: HumanBytes,
    /// Bytes queued to one speaker (or listener behind TLS) before it is cut.
    pub outbox: HumanBytes,
    /// Of these, kept free of partials.
    pub outbox_reserved: HumanBytes,
    /// Longest text a listener may send.
    pub listener_message: HumanBytes,
    /// Messages, pings among them, that a listener may send in `ping_every`.
    pub listener_messages: NonZeroU16,
    /// A listener that was silent this long is asked for a sign of life; one that gives none within the same time again
    /// is dead. Also the longest a blocked listener may take nothing at all, and how long a listener whose token has expired
    /// may take to send a new one.
    pub ping_every: HumanDuration,
    /// How long a closed listener's last words may take to leave.
    pub close_linger: HumanDuration,
    /// How long a listener waits for somebody to open its meeting.
    pub wait_for_meeting: HumanDuration,
    /// Rooms flushed less than this ago wait until it has passed: several messages in one write. Zero: never.
    pub hold: HumanDuration,
    /// Rooms with fewer listeners on a core are never held.
    pub hold_members: NonZeroUsize,
    /// How often the log is asked, in one call for all conversations, whether an announcement was lost.
    pub tail_check: HumanDuration,
    /// Joiners reading history at the same time; more wait their turn.
    pub catchups: NonZeroUsize,
    /// Messages in a snapshot; earlier ones are read over REST.
    pub snapshot_messages: NonZeroUsize,
    /// Opted-in sockets hear their position after this many events that were not shown to them…
    pub position_every_events: u32,
    /// …or this long after the last one.
    pub position_every: HumanDuration,
}

impl Default for FanoutConfig {
    fn default() -> Self {
        let outbox = OutboxLimits::default();
        Self {
            listener_queue: HumanBytes::new(256 * 1024),
            outbox: HumanBytes::new(outbox.bytes as u64),
            outbox_reserved: HumanBytes::new(outbox.reserved as u64),
            listener_message: HumanBytes::new(frame::Limits::default().message as u64),
            listener_messages: NonZeroU16::new(256).unwrap_or(NonZeroU16::MIN),
            ping_every: HumanDuration::from_secs(30),
            close_linger: HumanDuration::from_secs(5),
            wait_for_meeting: HumanDuration::from_secs(30 * 60),
            hold: HumanDuration::from_millis(3),
            hold_members: NonZeroUsize::new(64).unwrap_or(NonZeroUsize::MIN),
            tail_check: HumanDuration::from_secs(2),
            catchups: NonZeroUsize::new(32).unwrap_or(NonZeroUsize::MIN),
            snapshot_messages: NonZeroUsize::new(200).unwrap_or(NonZeroUsize::MIN),
            position_every_events: 256,
            position_every: HumanDuration::from_secs(10),
        }
    }
}

/// Two limits that do not fit each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("fanout.{field} is {got}; {accepted}")]
pub struct InvalidConfig {
    field: &'static str,
    got: String,
    accepted: &'static str,
}

impl FanoutConfig {
    /// Checks what the types cannot.
    ///
    /// # Errors
    /// Names the first field that does not fit.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        let wrong = |field, got: &dyn ToString, accepted| Err(InvalidConfig { field, got: got.to_string(), accepted });
        if self.outbox.get() < 256 * 1024 {
            return wrong("outbox", &self.outbox, "at least 256KiB (a few pages of history) is accepted");
        }
        if self.outbox_reserved >= self.outbox {
            return wrong("outbox_reserved", &self.outbox_reserved, "less than outbox is accepted");
        }
        if self.listener_queue.get() < 64 * 1024 {
            return wrong("listener_queue", &self.listener_queue, "at least 64KiB (one page of history) is accepted");
        }
        if self.ping_every.get() < Duration::from_secs(1) {
            return wrong("ping_every", &self.ping_every, "at least 1s is accepted");
        }
        if self.hold.get() > Duration::from_millis(50) {
            return wrong("hold", &self.hold, "at most 50ms is accepted: it is added to every final");
        }
        Ok(())
    }

    /// For [`crate::Outbox::new`].
    pub fn outbox_limits(&self) -> OutboxLimits {
        OutboxLimits { bytes: self.outbox.as_usize(), reserved: self.outbox_reserved.as_usize() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_fit_each_other() {
        assert_eq!(FanoutConfig::default().validate(), Ok(()));
        let config = FanoutConfig { outbox_reserved: HumanBytes::new(1 << 40), ..FanoutConfig::default() };
        let error = config.validate().unwrap_err().to_string();
        assert!(error.starts_with("fanout.outbox_reserved is "), "{error}");
    }
}
