//! The audio of one stream that the log does not cover yet, and what was asked for at places in it.
//!
//! A state machine without I/O or clock. Chunks and markers stand in one order; each is sent once to every recognizer the
//! stream moves to, from that recognizer's restart point on, and forgotten when no fresh decoder can need it any more.
//! Two bounds: what is not sent yet (a recognizer or link that does not keep up) and what is not acknowledged yet (memory).

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use hearsay_bus::Restart;
use hearsay_protocol::{AudioFormat, ChunkNumber, Encoding, event::SpeakerConfig};
use hearsay_rpc::MarkerKind;

/// One thing in the stream's order.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    Chunk { number: ChunkNumber, data: Bytes },
    Marker { chunk: ChunkNumber, marker: MarkerKind },
}

impl Item {
    /// The chunk this is, or stands before.
    fn chunk(&self) -> ChunkNumber {
        match self {
            Self::Chunk { number, .. } => *number,
            Self::Marker { chunk, .. } => *chunk,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Chunk { data, .. } => data.len(),
            Self::Marker { .. } => 0,
        }
    }
}

/// What an item takes beside its audio, in bytes.
const ITEM: usize = 64;

/// How much audio may wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Audio that has not been handed to a recognizer.
    pub unsent: Duration,
    /// Audio that the log does not cover.
    pub unacknowledged: Duration,
    pub unacknowledged_bytes: usize,
    /// Finalize requests without an answer.
    pub finalizes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            unsent: Duration::from_secs(2),
            unacknowledged: Duration::from_secs(30),
            unacknowledged_bytes: 3_000_000,
            finalizes: 64,
        }
    }
}

/// What an acknowledgement settled.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Settled {
    /// Bytes of audio forgotten.
    pub bytes: usize,
    /// Finalize requests whose place the log has passed but whose own answer never came.
    pub finalized: Vec<String>,
    /// The newest configuration that begins before what is held: the next recognizer starts with it.
    pub config: Option<Box<SpeakerConfig>>,
}

/// Chunks and markers from the restart point to the newest.
#[derive(Debug)]
pub struct Ring {
    limits: Limits,
    items: VecDeque<Item>,
    /// How many of `items` the present recognizer was sent.
    sent: usize,
    next: ChunkNumber,
    /// The first chunk the log does not cover.
    covered: ChunkNumber,
    format: AudioFormat,
    bytes: usize,
    unsent_bytes: usize,
    finalizes: usize,
}

impl Ring {
    pub fn new(limits: Limits, format: AudioFormat) -> Self {
        Self {
            limits,
            items: VecDeque::new(),
            sent: 0,
            next: ChunkNumber::default(),
            covered: ChunkNumber::default(),
            format,
            bytes: 0,
            unsent_bytes: 0,
            finalizes: 0,
        }
    }

    /// Of a stream that goes on: chunks before `next` came over another connection, and none of them is needed.
    pub fn going_on(limits: Limits, format: AudioFormat, next: ChunkNumber) -> Self {
        Self { next, covered: next, ..Self::new(limits, format) }
    }

    /// There is room for another chunk. One chunk may pass a bound; the next one may not.
    pub fn has_room(&self) -> bool {
        // However small its chunks are, a client has no more memory here than any other.
        self.bytes + self.items.len() * ITEM < self.limits.unacknowledged_bytes
            && self.duration(self.bytes) < self.limits.unacknowledged
            && self.duration(self.unsent_bytes) < self.limits.unsent
    }

    /// The next chunk's number, which is also how many there were.
    pub fn next_chunk(&self) -> ChunkNumber {
        self.next
    }

    /// The first chunk the log does not cover.
    pub fn covered(&self) -> ChunkNumber {
        self.covered
    }

    /// Bytes of audio held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Share of the unacknowledged bound in use, 0 to 1 and a little more.
    pub fn fill(&self) -> f64 {
        let by_time = self.duration(self.bytes).as_secs_f64() / self.limits.unacknowledged.as_secs_f64();
        let by_bytes = self.bytes as f64 / self.limits.unacknowledged_bytes as f64;
        by_time.max(by_bytes)
    }

    pub fn push(&mut self, data: Bytes) -> ChunkNumber {
        let number = self.next;
        self.next = number.next();
        self.bytes += data.len();
        self.unsent_bytes += data.len();
        self.items.push_back(Item::Chunk { number, data });
        number
    }

    /// Puts a marker behind everything so far. Refused (false) only for a finalize beyond the bound.
    pub fn mark(&mut self, marker: MarkerKind) -> bool {
        match &marker {
            MarkerKind::Finalize(_) if self.finalizes >= self.limits.finalizes => return false,
            MarkerKind::Finalize(_) => self.finalizes += 1,
            MarkerKind::Config(config) => self.format = config.format,
            MarkerKind::Reanchor(_) | MarkerKind::End => {}
        }
        self.items.push_back(Item::Marker { chunk: self.next, marker });
        true
    }

    /// The next thing the present recognizer was not sent.
    pub fn unsent(&self) -> Option<&Item> {
        self.items.get(self.sent)
    }

    /// What [`Ring::unsent`] gave was handed over.
    pub fn sent(&mut self) {
        if let Some(item) = self.items.get(self.sent) {
            self.unsent_bytes -= item.bytes();
            self.sent += 1;
        }
    }

    /// Another recognizer goes on from `restart`: everything it needs is unsent again. Absent: from the beginning.
    ///
    /// # Errors
    /// When the ring no longer holds (or never held) that chunk: audio would be missing.
    pub fn rewind(&mut self, restart: Option<&Restart>) -> Result<(), Forgotten> {
        let chunk = restart.map_or(ChunkNumber(0), |restart| restart.chunk);
        let oldest = self.items.front().map_or(self.next, Item::chunk);
        if chunk > self.next || (chunk < oldest) {
            return Err(Forgotten { asked: chunk, oldest, next: self.next });
        }
        self.sent = self.items.partition_point(|item| item.chunk() < chunk);
        self.unsent_bytes = self.items.iter().skip(self.sent).map(Item::bytes).sum();
        Ok(())
    }

    /// The log covers all chunks before `through`; a fresh decoder needs nothing before `restart`. What a fresh decoder
    /// cannot need is forgotten. A marker that stands before `restart` itself is kept: it is played again there.
    pub fn acknowledge(&mut self, through: ChunkNumber, restart: ChunkNumber) -> Settled {
        let mut settled = Settled::default();
        self.covered = self.covered.max(through.min(self.next));
        while let Some(item) = self.items.front() {
            // What was not sent cannot be covered, whatever the acknowledgement says.
            if item.chunk() >= restart || self.sent == 0 {
                break;
            }
            if let Some(item) = self.items.pop_front() {
                self.sent -= 1;
                self.bytes -= item.bytes();
                settled.bytes += item.bytes();
                match item {
                    Item::Marker { marker: MarkerKind::Finalize(id), .. } => {
                        self.finalizes -= 1;
                        settled.finalized.push(id);
                    }
                    Item::Marker { marker: MarkerKind::Config(config), .. } => settled.config = Some(config),
                    Item::Marker { .. } | Item::Chunk { .. } => {}
                }
            }
        }
        settled
    }

    /// The recognizer answered this finalize: it need not be asked again. False when nobody waits for it.
    pub fn finalized(&mut self, id: &str) -> bool {
        let found = self
            .items
            .iter()
            .position(|item| matches!(item, Item::Marker { marker: MarkerKind::Finalize(asked), .. } if asked == id));
        let Some(index) = found else { return false };
        self.items.remove(index);
        self.finalizes -= 1;
        if index < self.sent {
            self.sent -= 1;
        }
        true
    }

    /// How long this many bytes last: exact for samples; at least, for compressed audio, whatever its bit rate. Too long would
    /// stop a stream whose utterance does not end yet.
    fn duration(&self, bytes: usize) -> Duration {
        let rate = u64::from(self.format.rate.get());
        let per_second = match self.format.encoding {
            Encoding::Linear16 => 2 * rate,
            Encoding::Mulaw => rate,
            // Two channels of 16 bits, or three of an announced rate that is too low.
            Encoding::Flac => 4 * rate.max(16_000),
            // Browsers record 128 kbit/s at most.
            Encoding::Opus => 24_000,
        };
        Duration::from_micros(bytes as u64 * 1_000_000 / per_second)
    }
}

/// The log's restart point lies outside what the ring holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the stream goes on at chunk {}, but chunks {} to {} are held", .asked.0, .oldest.0, .next.0)]
pub struct Forgotten {
    pub asked: ChunkNumber,
    pub oldest: ChunkNumber,
    pub next: ChunkNumber,
}

#[cfg(test)]
mod tests {
    use hearsay_protocol::StreamTime;
    use proptest::prelude::*;

    use super::*;

    fn restart(chunk: u64) -> Restart {
        Restart {
            chunk: ChunkNumber(chunk),
            at: StreamTime::ZERO,
            bytes_before: 0,
            format: AudioFormat::default(),
            headers: Bytes::new(),
        }
    }

    fn chunk(bytes: usize) -> Bytes {
        vec![0; bytes].into()
    }

    fn drain(ring: &mut Ring) -> Vec<Item> {
        let mut out = Vec::new();
        while let Some(item) = ring.unsent().cloned() {
            out.push(item);
            ring.sent();
        }
        out
    }

    #[test]
    fn unsent_audio_is_bounded_by_time() {
        let mut ring = Ring::new(Limits::default(), AudioFormat::default());
        for _ in 0..20 {
            assert!(ring.has_room());
            ring.push(chunk(3_200));
        }
        assert!(!ring.has_room(), "2 s of 16 kHz audio wait");
        drain(&mut ring);
        assert!(ring.has_room());
    }

    #[test]
    fn unacknowledged_audio_is_bounded_even_when_all_was_sent() {
        let mut ring = Ring::new(Limits::default(), AudioFormat::default());
        let mut pushed = 0;
        while ring.has_room() {
            ring.push(chunk(3_200));
            drain(&mut ring);
            pushed += 1;
        }
        assert_eq!(pushed, 300, "30 s of 100 ms chunks");
        ring.acknowledge(ChunkNumber(100), ChunkNumber(98));
        assert!(ring.has_room());
        assert_eq!(ring.bytes(), (300 - 98) * 3_200);
    }

    #[test]
    fn tiny_chunks_are_bounded_by_what_they_take() {
        let mut ring = Ring::new(Limits { unacknowledged_bytes: 64_000, ..Limits::default() }, AudioFormat::default());
        let mut pushed = 0;
        while ring.has_room() {
            ring.push(chunk(1));
            drain(&mut ring);
            pushed += 1;
        }
        assert_eq!(pushed, 985, "65 bytes each");
    }

    #[test]
    fn a_stream_that_goes_on_keeps_its_numbers() {
        let mut ring = Ring::going_on(Limits::default(), AudioFormat::default(), ChunkNumber(7));
        ring.rewind(Some(&restart(7))).unwrap();
        assert_eq!(ring.push(chunk(2)), ChunkNumber(7));
        drain(&mut ring);
        ring.acknowledge(ChunkNumber(5), ChunkNumber(5));
        assert_eq!(ring.covered(), ChunkNumber(7), "what was covered stays so");
        assert!(ring.rewind(Some(&restart(6))).is_err());
    }

    #[test]
    fn a_rewind_sends_again_from_the_restart_chunk_with_the_marker_before_it() {
        let mut ring = Ring::new(Limits::default(), AudioFormat::default());
        ring.push(chunk(2));
        ring.push(chunk(4));
        ring.mark(MarkerKind::Reanchor(StreamTime(7)));
        ring.push(chunk(6));
        assert_eq!(drain(&mut ring).len(), 4);
        ring.acknowledge(ChunkNumber(2), ChunkNumber(2));
        ring.rewind(Some(&restart(2))).unwrap();
        let again = drain(&mut ring);
        assert_eq!(again.len(), 2);
        assert!(matches!(again[0], Item::Marker { marker: MarkerKind::Reanchor(_), .. }));
        assert!(matches!(again[1], Item::Chunk { number: ChunkNumber(2), .. }));
        assert_eq!(
            ring.rewind(Some(&restart(1))),
            Err(Forgotten { asked: ChunkNumber(1), oldest: ChunkNumber(2), next: ChunkNumber(3) })
        );
        assert!(ring.rewind(Some(&restart(4))).is_err());
    }

    #[test]
    fn a_finalize_is_answered_once() {
        let mut ring = Ring::new(Limits { finalizes: 2, ..Limits::default() }, AudioFormat::default());
        ring.push(chunk(2));
        assert!(ring.mark(MarkerKind::Finalize("a".into())));
        ring.push(chunk(2));
        assert!(ring.mark(MarkerKind::Finalize("b".into())));
        assert!(!ring.mark(MarkerKind::Finalize("c".into())), "bounded");
        ring.push(chunk(2));
        drain(&mut ring);
        assert!(ring.finalized("a"));
        assert!(!ring.finalized("a"));
        // "b" is passed by the log although its answer was lost with its recognizer.
        assert_eq!(ring.acknowledge(ChunkNumber(3), ChunkNumber(3)).finalized, ["b"]);
    }

    #[test]
    fn what_was_not_sent_is_never_forgotten() {
        let mut ring = Ring::new(Limits::default(), AudioFormat::default());
        ring.push(chunk(2));
        assert_eq!(ring.acknowledge(ChunkNumber(9), ChunkNumber(9)), Settled::default());
        assert_eq!(ring.covered(), ChunkNumber(1), "never beyond what exists");
        assert!(ring.unsent().is_some());
    }

    proptest! {
        /// Whatever happens, a recognizer placed after any rewind gets every chunk from its restart point on, once, in
        /// order, and the byte counts are those of what is held.
        #[test]
        fn every_recognizer_hears_everything_from_its_restart_on(
            steps in prop::collection::vec((0u8..5, 0u64..40, 1usize..5_000), 1..200)
        ) {
            let mut ring = Ring::new(Limits::default(), AudioFormat::default());
            let mut expected = 0u64; // the chunk the present recognizer must get next
            let mut low = 0u64;
            for (step, number, size) in steps {
                match step {
                    0 | 1 => { ring.push(chunk(size)); }
                    2 => if let Some(item) = ring.unsent().cloned() {
                        if let Item::Chunk { number, .. } = item {
                            prop_assert_eq!(number.0, expected);
                            expected += 1;
                        }
                        ring.sent();
                    },
                    3 => {
                        let through = number.min(expected);
                        ring.acknowledge(ChunkNumber(through), ChunkNumber(through.saturating_sub(2)));
                        low = low.max(through.saturating_sub(2));
                    }
                    _ => {
                        let target = low.max(number.min(ring.next_chunk().0));
                        if ring.rewind(Some(&restart(target))).is_ok() {
                            expected = target;
                        } else {
                            prop_assert!(false, "held chunks were refused");
                        }
                    }
                }
                let held: usize = ring.items.iter().map(Item::bytes).sum();
                prop_assert_eq!(ring.bytes(), held);
                let unsent: usize = ring.items.iter().skip(ring.sent).map(Item::bytes).sum();
                prop_assert_eq!(ring.unsent_bytes, unsent);
            }
        }
    }
}
