//! Opus in Ogg (RFC 3533, RFC 7845): pages with packets and with how many samples there were so far.
//!
//! A stream is entered at a page. Pages that are damaged are skipped; those lost show in what the next one counts. Streams
//! may follow each other in one (a recorder that was started anew).

use bytes::{Bytes, BytesMut};
use ogg::reading::PageParser;

use super::{
    Carry, Found, LONGEST_HOLE, OpusFound, Step, describe,
    opus::{self, CLOCK, Head, MAX_PACKET},
    resume::State,
};

pub(super) const MAGIC: [u8; 4] = *b"OggS";

/// Differences below are rounding of whoever wrote the pages: 20 ms.
const ROUNDING: u64 = CLOCK / 50;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Phase {
    /// No stream with Opus was seen.
    #[default]
    Head,
    /// The comments, of any length, are passed over.
    Tags,
    Audio,
}

/// What must be known at a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Ogg {
    pub(super) phase: Phase,
    pub(super) serial: u32,
    /// Samples of 48 kHz still to be dropped.
    pub(super) skip: u64,
    pub(super) gain: i16,
    /// Samples of the last packet.
    pub(super) last: u64,
    /// Samples at the end of the last packet, as pages count them.
    pub(super) granule: Option<u64>,
    /// The last packet of the page before goes on.
    pub(super) open: bool,
}

impl Ogg {
    /// A packet of audio goes on on the next page.
    pub(super) fn is_open(self) -> bool {
        self.open && self.phase == Phase::Audio
    }

    pub(super) fn step(&mut self, held: &BytesMut, carry: &mut Carry, found: &mut Vec<Found>) -> Result<Step, String> {
        let Some(header) = held.first_chunk::<27>() else {
            let begins = held.len() < 4 && MAGIC.starts_with(held) || held.starts_with(&MAGIC);
            return Ok(if held.is_empty() || begins { Step::More } else { junk(held) });
        };
        if !header.starts_with(&MAGIC) {
            return Ok(junk(held));
        }
        let segments = usize::from(header[26]);
        let Some(lacing) = held.get(27..27 + segments) else { return Ok(Step::More) };
        let body = 27 + segments;
        let length = body + lacing.iter().map(|length| usize::from(*length)).sum::<usize>();
        let Some(data) = held.get(body..length) else { return Ok(Step::More) };
        let sound = PageParser::new(*header).and_then(|(mut page, _)| {
            page.parse_segments(lacing.to_vec());
            page.parse_packet_data(data.to_vec())
        });
        if sound.is_err() {
            // As a whole: looking for pages inside would read the same bytes again and again.
            return Ok(Step::Junk(length));
        }
        let flags = header[5];
        let granule = u64::from_le_bytes([
            header[6], header[7], header[8], header[9], header[10], header[11], header[12], header[13],
        ]);
        let serial = u32::from_le_bytes([header[14], header[15], header[16], header[17]]);
        if flags & 2 != 0 {
            self.begin(serial, data, carry)?;
        } else if self.phase == Phase::Head {
            return Err(format!("an Ogg stream without Opus came ({})", carry.other));
        } else if serial == self.serial {
            // No position (-1) is one that nobody can reach.
            let granule = (granule >> 62 == 0).then_some(granule);
            self.page(lacing, data, flags, granule, carry, found);
        }
        Ok(Step::Unit(length))
    }

    /// The first page of a logical stream.
    fn begin(&mut self, serial: u32, data: &[u8], carry: &mut Carry) -> Result<(), String> {
        if data.starts_with(&Head::MAGIC) {
            let Head { skip, gain } = Head::parse(data)?;
            *self = Self { phase: Phase::Tags, serial, skip, gain, ..Self::default() };
            carry.partial.clear();
            carry.open = None;
        } else if carry.other.len() < 100 {
            carry.other += &format!("a stream that begins with {} ", describe(data.get(..8).unwrap_or(data)));
        }
        Ok(())
    }

    fn page(
        &mut self,
        lacing: &[u8],
        data: &[u8],
        flags: u8,
        granule: Option<u64>,
        carry: &mut Carry,
        found: &mut Vec<Found>,
    ) {
        let (packets, rest) = packets(lacing, data);
        let continued = flags & 1 != 0;
        let known = self.open && continued;
        if !known {
            carry.partial.clear();
            carry.open = None;
        }
        let mut packets = packets.into_iter().enumerate().filter_map(|(index, packet)| match index {
            // The end of a packet whose beginning is not known is nobody's.
            0 if continued && !known => None,
            0 if continued => {
                let mut whole = std::mem::take(&mut carry.partial);
                whole.extend_from_slice(packet);
                Some((whole, true))
            }
            _ => Some((packet.to_vec(), false)),
        });
        if self.phase == Phase::Tags && packets.next().is_some() {
            self.phase = Phase::Audio;
        }
        let packets: Vec<(Vec<u8>, bool)> = packets.collect();
        let ended = lacing.iter().any(|length| *length < 255);
        // The middle of a packet whose beginning is not known is nobody's either.
        self.open = lacing.last() == Some(&255) && (ended || known || !continued);
        if self.open && self.phase == Phase::Audio && (carry.partial.len() + rest.len()) <= MAX_PACKET {
            carry.partial.extend_from_slice(rest);
        } else if self.open {
            // Comments, or more than a packet can be: it is passed over.
            carry.partial.clear();
            self.open = self.phase != Phase::Audio;
        }
        if self.phase == Phase::Audio {
            self.audio(packets, flags & 4 != 0, granule, found);
        }
    }

    fn audio(&mut self, packets: Vec<(Vec<u8>, bool)>, last: bool, granule: Option<u64>, found: &mut Vec<Found>) {
        let open = self.open;
        let mut sizes = Vec::with_capacity(packets.len());
        for (packet, _) in &packets {
            let samples = opus::samples(packet);
            self.last = samples.unwrap_or(self.last);
            sizes.push((self.last, samples.is_none()));
        }
        let sum: u64 = sizes.iter().map(|(samples, _)| samples).sum();
        let mut trim = 0;
        if !packets.is_empty() {
            let expected = match (self.granule, granule) {
                (Some(before), _) => before.saturating_add(sum),
                // The first page says where its count begins; only one that is the last too may count less than it holds.
                (None, Some(granule)) if !last => granule.max(sum),
                (None, _) => sum,
            };
            let ends = granule.unwrap_or(expected);
            let hole = ends.saturating_sub(expected);
            if self.granule.is_some() && hole > ROUNDING && hole <= LONGEST_HOLE * CLOCK {
                found.push(Found::Hole(hole));
            }
            if last {
                trim = expected.saturating_sub(ends).min(sizes.last().map_or(0, |(samples, _)| *samples));
            }
            self.granule = Some(ends);
        }
        let count = packets.len();
        // What a reader that begins with this page counts from: everything after its first whole packet.
        let mut left = sum;
        for (index, ((data, continued), (samples, bad))) in packets.into_iter().zip(sizes).enumerate() {
            let drop = self.skip.min(samples);
            self.skip -= drop;
            left -= samples;
            let trim = if index + 1 == count { trim.min(samples - drop) } else { 0 };
            let after = continued.then(|| {
                let granule = self.granule.map(|granule| granule.saturating_sub(left));
                State::Ogg(Self { granule, last: samples, open: false, ..*self })
            });
            let data = Bytes::from(data);
            found.push(Found::Opus(OpusFound { data, samples, bad, drop, trim, gain: self.gain, after }));
        }
        self.open = open;
    }
}

/// A page's packets, and what of the last one is not complete.
fn packets<'a>(lacing: &[u8], data: &'a [u8]) -> (Vec<&'a [u8]>, &'a [u8]) {
    let mut packets = Vec::new();
    let (mut begin, mut end) = (0, 0);
    for length in lacing {
        end += usize::from(*length);
        if *length < 255 {
            packets.push(data.get(begin..end).unwrap_or_default());
            begin = end;
        }
    }
    (packets, data.get(begin..end).unwrap_or_default())
}

/// What is no page goes as far as one may begin.
fn junk(held: &[u8]) -> Step {
    let begin = (1..held.len()).find(|at| MAGIC.starts_with(&held[*at..held.len().min(at + 4)]));
    Step::Junk(begin.unwrap_or(held.len()))
}
