//! Opus in WebM (Matroska), as browsers' recorders write it: elements one after the other, of sizes known or not.
//!
//! No crate of the registry reads Matroska in pieces *and* goes on in the middle on another machine, so this one does, and
//! only what a recorder writes: masters are entered, blocks of the Opus track are packets, all else is passed over. An
//! element that is no element is skipped up to the next cluster. Files may follow each other in one stream (a recorder
//! that was started anew).

use bytes::{Bytes, BytesMut};

use super::{
    Carry, Found, LONGEST_HOLE, OpusFound, Step,
    opus::{self, CLOCK, Head, MAX_PACKET},
};

pub(super) const MAGIC: [u8; 4] = [0x1a, 0x45, 0xdf, 0xa3];

const EBML: u32 = 0x1a45_dfa3;
const SEGMENT: u32 = 0x1853_8067;
const CLUSTER: u32 = 0x1f43_b675;
const INFO: u32 = 0x1549_a966;
const TRACKS: u32 = 0x1654_ae6b;
const BLOCK_GROUP: u32 = 0xa0;
const TIMESTAMP_SCALE: u32 = 0x2a_d7b1;
const TRACK_ENTRY: u32 = 0xae;
const TIMESTAMP: u32 = 0xe7;
const SIMPLE_BLOCK: u32 = 0xa3;
const BLOCK: u32 = 0xa1;
const TRACK_NUMBER: u32 = 0xd7;
const CODEC_ID: u32 = 0x86;
const CODEC_PRIVATE: u32 = 0x63a2;
const CONTENT_ENCODINGS: u32 = 0x6d80;

/// Elements that may be long and are none of ours: SeekHead, Cues, Tags, Chapters, Attachments.
const LONG: [u32; 5] = [0x114d_9b74, 0x1c53_bb6b, 0x1254_c367, 0x1043_a770, 0x1941_a469];

/// The most that is read of an element, in bytes.
const MOST: u64 = 64 * 1024;
/// The most that is passed over of those that may be long, and of another track's block.
const LONGEST: u64 = 16 * 1024 * 1024;
/// The same of all others: where bytes were lost, anything looks like an element, and must not swallow what follows.
const SHORT: u64 = 1024;

/// Times of blocks are those of their capture, in milliseconds: less than this apart from the sum of packets is jitter.
const JITTER: u64 = CLOCK / 2;

/// What must be known at an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Webm {
    /// The number of the Opus track; 0: it was not seen.
    pub(super) track: u64,
    /// All tracks' numbers below 64, a bit each.
    pub(super) tracks: u64,
    /// Nanoseconds of a tick.
    pub(super) scale: u64,
    /// The cluster's time, ticks.
    pub(super) cluster: u64,
    /// Samples of 48 kHz still to be dropped.
    pub(super) skip: u64,
    pub(super) gain: i16,
    /// Samples of the last packet.
    pub(super) last: u64,
    /// When the next block is due, in samples of 48 kHz; none: it says so itself.
    pub(super) due: Option<u64>,
    /// Bytes of an element to be passed over.
    pub(super) pass: u64,
    /// What came last was no element: nothing is one before the next cluster or file.
    pub(super) astray: bool,
}

impl Default for Webm {
    fn default() -> Self {
        Self {
            track: 0,
            tracks: 0,
            scale: 1_000_000,
            cluster: 0,
            skip: 0,
            gain: 0,
            last: 0,
            due: None,
            pass: 0,
            astray: false,
        }
    }
}

impl Webm {
    pub(super) fn step(&mut self, held: &BytesMut, carry: &mut Carry, found: &mut Vec<Found>) -> Result<Step, String> {
        let found_again = held.starts_with(&CLUSTER.to_be_bytes()) || held.starts_with(&MAGIC);
        let step = match self.astray {
            true if !found_again && may_begin(held) => Step::More,
            true if !found_again => junk(held),
            _ => self.element(held, carry, found)?,
        };
        // Remembered, or else where a chunk ends would decide what is taken for an element.
        match step {
            Step::Junk(_) => self.astray = true,
            Step::Unit(_) => self.astray = false,
            Step::More => {}
        }
        Ok(step)
    }

    fn element(&mut self, held: &BytesMut, carry: &mut Carry, found: &mut Vec<Found>) -> Result<Step, String> {
        if held.is_empty() {
            return Ok(Step::More);
        }
        if self.pass > 0 {
            let passed = self.pass.min(held.len() as u64);
            self.pass -= passed;
            return Ok(Step::Unit(usize::try_from(passed).unwrap_or(held.len())));
        }
        let Element { id, size, header } = match element(held) {
            Parsed::Element(element) => element,
            Parsed::More => return Ok(Step::More),
            Parsed::Nothing => return Ok(junk(held)),
        };
        if let SEGMENT | CLUSTER | INFO | TRACKS | BLOCK_GROUP = id {
            match id {
                CLUSTER if self.track == 0 => {
                    return Err(format!(
                        "a WebM or Matroska stream without Opus came (it has {:?})",
                        carry.other.trim()
                    ));
                }
                CLUSTER => self.cluster = 0,
                _ => {}
            }
            return Ok(Step::Unit(header));
        }
        let Some(size) = size else { return Ok(junk(held)) };
        let body = |most: u64| -> Result<Option<&[u8]>, ()> {
            let length = usize::try_from(size).ok().filter(|_| size <= most).ok_or(())?;
            Ok(held.get(header..header + length))
        };
        match id {
            EBML | TIMESTAMP_SCALE | TRACK_ENTRY | TIMESTAMP => {
                let body = match body(MOST) {
                    Ok(Some(body)) => body,
                    Ok(None) => return Ok(Step::More),
                    Err(()) => return Ok(junk(held)),
                };
                match id {
                    EBML => *self = Self::default(),
                    TIMESTAMP_SCALE => self.scale = number(body).clamp(1, 1_000_000_000),
                    TIMESTAMP => self.cluster = number(body).min(1 << 40),
                    _ => self.track_entry(body, carry)?,
                }
                Ok(Step::Unit(header + body.len()))
            }
            SIMPLE_BLOCK | BLOCK => self.block(held, header, size, found),
            _ if size <= if LONG.contains(&id) { LONGEST } else { SHORT } => {
                self.pass = size;
                Ok(Step::Unit(header))
            }
            _ => Ok(junk(held)),
        }
    }

    fn track_entry(&mut self, mut body: &[u8], carry: &mut Carry) -> Result<(), String> {
        let (mut track, mut codec, mut private, mut encoded) = (0, &[][..], &[][..], false);
        while let Parsed::Element(Element { id, size: Some(size), header }) = element(body) {
            let end = usize::try_from(size).unwrap_or(usize::MAX).saturating_add(header);
            let Some(value) = body.get(header..end) else { break };
            match id {
                TRACK_NUMBER => track = number(value),
                CODEC_ID => codec = value,
                CODEC_PRIVATE => private = value,
                CONTENT_ENCODINGS => encoded = true,
                _ => {}
            }
            body = &body[end..];
        }
        if (1..64).contains(&track) {
            self.tracks |= 1 << track;
        }
        if codec.trim_ascii_end() != b"A_OPUS" {
            if carry.other.len() < 100 {
                carry.other += &format!("{} ", codec.escape_ascii().to_string().chars().take(40).collect::<String>());
            }
            return Ok(());
        }
        if self.track != 0 || !(1..64).contains(&track) {
            return Ok(());
        }
        if encoded {
            return Err("an encrypted or compressed WebM track".to_owned());
        }
        if !private.is_empty() {
            Head { skip: self.skip, gain: self.gain } = Head::parse(private)?;
        }
        self.track = track;
        Ok(())
    }

    fn block(&mut self, held: &[u8], header: usize, size: u64, found: &mut Vec<Found>) -> Result<Step, String> {
        let (size, begin) = (usize::try_from(size).unwrap_or(usize::MAX), held.get(header..).unwrap_or_default());
        let Some((track, length)) = (match vint(begin) {
            Parsed::Element(track) => Some(track),
            Parsed::More => return Ok(Step::More),
            Parsed::Nothing => None,
        }) else {
            return Ok(junk(held));
        };
        if size < length + 3 || size as u64 > LONGEST {
            return Ok(junk(held));
        }
        let Some(track) = track.filter(|track| *track < 64 && self.tracks >> track & 1 == 1) else {
            return Ok(junk(held));
        };
        if track != self.track {
            self.pass = size as u64;
            return Ok(Step::Unit(header));
        }
        if size > length + 3 + MAX_PACKET {
            return Ok(junk(held));
        }
        let Some(&[high, low, flags]) = begin.get(length..).and_then(<[u8]>::first_chunk) else {
            return Ok(Step::More);
        };
        if flags & 0x06 != 0 {
            return Err("a WebM stream with several packets in a block (lacing) came".to_owned());
        }
        let Some(data) = begin.get(length + 3..size) else { return Ok(Step::More) };
        self.packet(Bytes::copy_from_slice(data), i16::from_be_bytes([high, low]), found);
        Ok(Step::Unit(header + size))
    }

    fn packet(&mut self, data: Bytes, ticks: i16, found: &mut Vec<Found>) {
        let samples = opus::samples(&data);
        let bad = samples.is_none();
        let samples = samples.unwrap_or(self.last);
        self.last = samples;
        let ticks = self.cluster.saturating_add_signed(i64::from(ticks));
        let at = u128::from(ticks) * u128::from(self.scale) * u128::from(CLOCK) / 1_000_000_000;
        let at = u64::try_from(at).unwrap_or(u64::MAX / 2).min(u64::MAX / 2);
        let due = self.due.unwrap_or(at);
        let hole = at.saturating_sub(due);
        let rebased = hole > JITTER || due - at.min(due) > JITTER;
        if hole > JITTER && hole <= LONGEST_HOLE * CLOCK {
            found.push(Found::Hole(hole));
        }
        self.due = Some(if rebased { at } else { due }.saturating_add(samples));
        let drop = self.skip.min(samples);
        self.skip -= drop;
        found.push(Found::Opus(OpusFound { data, samples, bad, drop, trim: 0, gain: self.gain, after: None }));
    }
}

struct Element {
    id: u32,
    /// None: it goes on until its parent ends.
    size: Option<u64>,
    /// Bytes of id and size.
    header: usize,
}

enum Parsed<T> {
    Element(T),
    /// More bytes are needed.
    More,
    /// It is none.
    Nothing,
}

fn element(bytes: &[u8]) -> Parsed<Element> {
    let Some(first) = bytes.first() else { return Parsed::More };
    let length = first.leading_zeros() as usize + 1;
    if length > 4 {
        return Parsed::Nothing;
    }
    let Some(id) = bytes.get(..length) else { return Parsed::More };
    let id = id.iter().fold(0, |id, byte| id << 8 | u32::from(*byte));
    match vint(&bytes[length..]) {
        // Only these two may be open-ended.
        Parsed::Element((None, _)) if !matches!(id, SEGMENT | CLUSTER) => Parsed::Nothing,
        Parsed::Element((size, more)) => Parsed::Element(Element { id, size, header: length + more }),
        Parsed::More => Parsed::More,
        Parsed::Nothing => Parsed::Nothing,
    }
}

/// A number that says its own length, and that length; none: all its bits are set.
fn vint(bytes: &[u8]) -> Parsed<(Option<u64>, usize)> {
    let Some(first) = bytes.first() else { return Parsed::More };
    let length = first.leading_zeros() as usize + 1;
    if length > 8 {
        return Parsed::Nothing;
    }
    let Some(bytes) = bytes.get(..length) else { return Parsed::More };
    let mask = (1_u64 << (7 * length)) - 1;
    let value = number(bytes) & mask;
    Parsed::Element(((value != mask).then_some(value), length))
}

/// An unsigned number of up to eight bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Whether a cluster, or another file, may begin with these bytes.
fn may_begin(held: &[u8]) -> bool {
    let first = &held[..held.len().min(4)];
    CLUSTER.to_be_bytes().starts_with(first) || MAGIC.starts_with(first)
}

/// What is no element goes as far as a cluster, or another file, may begin.
fn junk(held: &[u8]) -> Step {
    Step::Junk((1..held.len()).find(|at| may_begin(&held[*at..])).unwrap_or(held.len()))
}
