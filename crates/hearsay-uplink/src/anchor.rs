//! Notices that a live client sent nothing for a while, so that its audio clock fell behind the wall.
//!
//! Muted clients send nothing; their stream's clock must then jump, or everything they say later is dated too early. A
//! network that stalled and then delivers in a burst looks the same for a moment, so every chunk that arrives within a
//! second must be late, and no less late at its end: who catches up, as after a lost connection, is no muted client. A
//! state machine without a clock.

use std::time::Duration;

use hearsay_protocol::StreamTime;

/// Lag that no jitter explains.
const LAG: Duration = Duration::from_secs(1);
/// How long chunks must arrive late, without a punctual one between them.
const WINDOW: Duration = Duration::from_secs(1);

/// A lag that shrinks by more than this in a window is one that its client works off.
const CATCHING_UP: Duration = Duration::from_millis(100);

/// A stream's audio clock beside the wall.
#[derive(Debug, Default)]
pub(crate) struct Anchor {
    /// The clock after the last chunk.
    clock: StreamTime,
    /// When the first chunk of the present run of late ones arrived, since the origin, and how late it was.
    late_since: Option<(Duration, Duration)>,
    heard_any: bool,
}

impl Anchor {
    /// Of a stream that goes on at this place of its clock.
    pub(crate) fn going_on(clock: StreamTime) -> Self {
        Self { clock, late_since: None, heard_any: true }
    }

    /// A chunk of `length` arrived `since_origin` after the stream's origin. Says where the clock should jump to before
    /// this chunk, if it should.
    pub(crate) fn chunk(&mut self, since_origin: Duration, length: Duration) -> Option<StreamTime> {
        let end = self.clock + length;
        let lag = since_origin.saturating_sub(Duration::from_micros(end.micros()));
        let first = !std::mem::replace(&mut self.heard_any, true);
        if lag <= LAG {
            self.late_since = None;
        } else {
            let (since, lag_then) = *self.late_since.get_or_insert((since_origin, lag));
            let over = since_origin.saturating_sub(since) >= WINDOW;
            // Before anything was heard there is no utterance to cut, so the first chunk decides alone.
            if over && !first && lag + CATCHING_UP < lag_then {
                self.late_since = Some((since_origin, lag));
            } else if first || over {
                let start = StreamTime::ZERO + since_origin.saturating_sub(length);
                self.clock = start + length;
                self.late_since = None;
                return Some(start);
            }
        }
        self.clock = end;
        None
    }

    /// The clock after the last chunk.
    pub(crate) fn clock(&self) -> StreamTime {
        self.clock
    }

    /// A chunk arrived of which nobody here can tell how long it lasts: only the first one can be late.
    pub(crate) fn unmeasured(&mut self, since_origin: Duration) -> Option<StreamTime> {
        if self.heard_any {
            self.clock = self.clock.max(StreamTime::ZERO + since_origin);
            self.late_since = None;
            return None;
        }
        self.chunk(since_origin, Duration::ZERO)
    }

    /// Reading the socket had been stopped: the lags seen say nothing about the client.
    pub(crate) fn paused(&mut self) {
        self.late_since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: Duration = Duration::from_millis(100);

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn steady_audio_never_jumps() {
        let mut anchor = Anchor::default();
        for n in 1..1_000 {
            assert_eq!(anchor.chunk(at(n * 100 + 30), CHUNK), None);
        }
    }

    #[test]
    fn a_muted_client_jumps_once_when_a_second_of_audio_agrees() {
        let mut anchor = Anchor::default();
        for n in 1..=20 {
            assert_eq!(anchor.chunk(at(n * 100), CHUNK), None);
        }
        let jumps: Vec<_> = (1..=40).filter_map(|n| anchor.chunk(at(7_000 + n * 100), CHUNK)).collect();
        assert_eq!(jumps, [StreamTime(8_000_000)], "a second after the first late chunk");
    }

    #[test]
    fn a_burst_after_a_stall_does_not_jump() {
        let mut anchor = Anchor::default();
        for n in 1..=20 {
            anchor.chunk(at(n * 100), CHUNK);
        }
        for n in 21..=60 {
            // Three seconds of nothing, then everything owed within 40 ms, then steady again.
            let arrival = if n <= 50 { 5_000 + n } else { n * 100 };
            assert_eq!(anchor.chunk(at(arrival), CHUNK), None, "chunk {n}");
        }
    }

    #[test]
    fn a_client_that_catches_up_does_not_jump_and_one_that_lost_audio_does() {
        // The connection broke at 2 s of audio and came back 10 s later, with all of them, three times as fast as spoken.
        let mut anchor = Anchor::going_on(StreamTime(2_000_000));
        let mut arrival = 12_000;
        for n in 21.. {
            arrival = (arrival + 33).max(n * 100);
            assert_eq!(anchor.chunk(at(arrival), CHUNK), None, "chunk {n}");
            if arrival == n * 100 {
                break;
            }
        }
        // Another one sent nothing meanwhile, and kept nothing.
        let mut anchor = Anchor::going_on(StreamTime(2_000_000));
        let jumps: Vec<_> = (1..=30).filter_map(|n| anchor.chunk(at(12_000 + n * 100), CHUNK)).collect();
        assert_eq!(jumps, [StreamTime(13_000_000)]);
    }

    #[test]
    fn a_late_first_chunk_sets_the_clock_at_once() {
        let mut anchor = Anchor::default();
        assert_eq!(anchor.chunk(at(3_100), CHUNK), Some(StreamTime(3_000_000)));
        assert_eq!(anchor.chunk(at(3_200), CHUNK), None);
    }

    #[test]
    fn chunks_of_unknown_length_jump_only_at_first() {
        let mut anchor = Anchor::default();
        assert_eq!(anchor.unmeasured(at(3_000)), Some(StreamTime(3_000_000)));
        for n in 0..100 {
            assert_eq!(anchor.unmeasured(at(4_000 + n * 1_000)), None);
        }
        // What can be measured goes on from there.
        for n in 0..40 {
            assert_eq!(anchor.chunk(at(103_100 + n * 100), CHUNK), None);
        }
    }

    #[test]
    fn lags_from_before_a_pause_of_ours_are_forgotten() {
        let mut anchor = Anchor::default();
        anchor.chunk(at(100), CHUNK);
        for n in 1..=9 {
            assert_eq!(anchor.chunk(at(4_000 + n * 100), CHUNK), None);
        }
        anchor.paused();
        assert_eq!(anchor.chunk(at(5_000), CHUNK), None);
    }
}
