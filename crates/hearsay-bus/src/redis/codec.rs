//! What the scripts take and give, byte for byte. All numbers are big-endian.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use hearsay_protocol::{
    Epoch, Event, EventId, GatewayId, Generation, Offset, Position, PublisherId, Seen, StreamId, Timestamp,
    event::{Class, Ephemeral},
};
use prost::Message as _;
use uuid::Uuid;

use crate::{Body, Delivery, Entry, Error, GapReason, State, lifecycle::StoredLease};

/// An answer that does not mean anything: another program wrote into this database, or a newer version.
#[derive(Debug, thiserror::Error)]
#[error("the log's answer makes no sense: {0}")]
pub(super) struct Nonsense(pub(super) &'static str);

impl From<Nonsense> for Error {
    fn from(nonsense: Nonsense) -> Self {
        Self::Unavailable(nonsense.to_string())
    }
}

/// What every script answers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    pub(super) code: Code,
    /// This call found that history was lost.
    pub(super) branched: bool,
    pub(super) position: Position,
    pub(super) aux: u64,
    pub(super) top: Seen,
    pub(super) now: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    Done,
    Duplicate,
    Gone,
    Ended,
    Reclaim,
    Fenced,
    Overlap,
    Hole,
    Unclaimed,
    Held,
    Full,
    /// What the call was decided by has changed.
    Again,
    /// The conversation's life has to be looked at.
    Life,
    Invalid,
}

const ANSWER: usize = 2 + 4 + 8 + 8 + 4 + 8 + 8 + 8;

impl Answer {
    pub(super) fn decode(mut raw: &[u8]) -> Result<Self, Nonsense> {
        if raw.len() != ANSWER {
            return Err(Nonsense("an answer of another length"));
        }
        let code = match raw.get_u8() {
            1 => Code::Done,
            2 => Code::Duplicate,
            3 => Code::Gone,
            4 => Code::Ended,
            5 => Code::Reclaim,
            6 => Code::Fenced,
            7 => Code::Overlap,
            8 => Code::Hole,
            9 => Code::Unclaimed,
            10 => Code::Held,
            11 => Code::Full,
            12 => Code::Again,
            13 => Code::Life,
            14 => Code::Invalid,
            _ => return Err(Nonsense("an unknown code")),
        };
        let branched = raw.get_u8() == 1;
        let position = Position { epoch: Epoch(raw.get_u32()), offset: Offset(raw.get_u64()) };
        let aux = raw.get_u64();
        let epoch = Epoch(raw.get_u32());
        let offset = Offset(raw.get_u64());
        let check = raw.get_u64();
        let top = Seen { epoch: Some(epoch), offset, check: (offset > Offset::START).then_some(check) };
        Ok(Self { code, branched, position, aux, top, now: Timestamp(raw.get_u64()) })
    }
}

/// A conversation's head, as far as anybody but the scripts needs it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) state: State,
    pub(super) dropped: bool,
    pub(super) life: u32,
    pub(super) heard: Timestamp,
    pub(super) streams: usize,
}

const HEAD: usize = 4 + 12 + 8 + 8 + 8 + 8 + 24 + 2;
/// Flags of the head; `dropped` is the script's own business.
pub(super) const ENDING: u8 = 1;
pub(super) const LOST: u8 = 2;
const DROPPED: u8 = 4;

impl Head {
    pub(super) fn decode(mut raw: &[u8]) -> Result<Self, Nonsense> {
        if raw.len() != HEAD {
            return Err(Nonsense("a head of another length"));
        }
        raw.advance(1);
        let state = state(raw.get_u8())?;
        let flags = raw.get_u8();
        raw.advance(1 + 4 + 4);
        let life = raw.get_u32();
        raw.advance(8 + 8 + 8);
        let heard = Timestamp(raw.get_u64());
        raw.advance(24);
        Ok(Self { state, dropped: flags & DROPPED != 0, life, heard, streams: raw.get_u16().into() })
    }
}

fn state(byte: u8) -> Result<State, Nonsense> {
    Ok(match byte {
        1 => State::Open,
        2 => State::Lingering,
        3 => State::Ended,
        4 => State::Compacted,
        5 => State::Deleted,
        _ => return Err(Nonsense("an unknown state")),
    })
}

pub(super) fn state_byte(state: State) -> u8 {
    match state {
        State::Open => 1,
        State::Lingering => 2,
        State::Ended => 3,
        State::Compacted => 4,
        State::Deleted => 5,
    }
}

/// `known, epoch, offset, check`: how much of it is known is the first byte.
pub(super) fn put_seen(out: &mut Vec<u8>, seen: Seen) {
    let known = match (seen.epoch, seen.check) {
        (None, _) => 0,
        (Some(_), None) => 1,
        (Some(_), Some(_)) => 2,
    };
    out.put_u8(known);
    out.put_u32(seen.epoch.map_or(0, |epoch| epoch.0));
    out.put_u64(seen.offset.0);
    out.put_u64(seen.check.unwrap_or(0));
}

const LEASE: usize = 28;

pub(super) fn put_lease(out: &mut Vec<u8>, (gateway, until, listeners): StoredLease) {
    out.put_slice(gateway.0.as_bytes());
    out.put_u64(until.micros());
    out.put_u32(listeners);
}

pub(super) fn leases(raw: &[u8]) -> impl Iterator<Item = StoredLease> {
    raw.chunks_exact(LEASE).map(|mut lease| {
        let gateway = GatewayId(Uuid::from_u128(lease.get_u128()));
        (gateway, Timestamp(lease.get_u64()), lease.get_u32())
    })
}

/// How far a publisher is, and until when its lease holds.
pub(super) fn holder(mut raw: &[u8]) -> Option<(u64, Timestamp)> {
    if raw.len() < 36 {
        return None;
    }
    raw.advance(12);
    let watermark = raw.get_u64();
    raw.advance(8);
    Some((watermark, Timestamp(raw.get_u64())))
}

/// What of a claim stands beside its answer.
pub(super) fn claimed(mut raw: &[u8]) -> Result<(Generation, u64, Timestamp), Nonsense> {
    if raw.len() != 24 {
        return Err(Nonsense("a claim of another length"));
    }
    Ok((Generation(raw.get_u64()), raw.get_u64(), Timestamp(raw.get_u64())))
}

/// What of a read stands beside its answer: a gap and where to go on, or the offset after which the entries begin.
pub(super) fn read(mut raw: &[u8], epoch: Option<Epoch>) -> Result<(Option<GapReason>, Seen), Nonsense> {
    if raw.len() != 18 {
        return Err(Nonsense("a read of another length"));
    }
    let reason = match raw.get_u8() {
        0 => None,
        1 => Some(GapReason::Retention),
        2 => Some(GapReason::Branch),
        3 => Some(GapReason::Lost),
        _ => return Err(Nonsense("an unknown gap")),
    };
    let offset = Offset(raw.get_u64());
    let known = raw.get_u8() == 1;
    let check = raw.get_u64();
    Ok((reason, Seen { epoch, offset, check: known.then_some(check) }))
}

/// Entries on their way to the log: what the scripts store unchanged, and what they have to know of it.
#[derive(Default)]
pub(super) struct Entries {
    /// Of each its length, its check, its class and the rest: id, publisher, event.
    pub(super) bytes: Vec<u8>,
    pub(super) count: u16,
    /// How many there are of each class.
    classes: [u16; Class::COUNT],
    /// The last one's.
    check: u64,
}

impl Entries {
    pub(super) fn push(&mut self, publisher: &PublisherId, id: EventId, event: &Event) {
        let payload = hearsay_rpc::encode(event);
        let (kind, uuid) = match publisher {
            // As the event itself says.
            PublisherId::Stream(id) if event.stream() == Some(*id) => (7, None),
            PublisherId::Stream(id) => (1, Some(id.0)),
            PublisherId::Analyst => (2, None),
            PublisherId::Actions => (3, None),
            PublisherId::Gateway(id) => (4, Some(id.0)),
            PublisherId::Rest(id) => (5, Some(*id)),
            PublisherId::Clock => (6, None),
        };
        let length = 8 + 1 + 16 + 1 + if uuid.is_some() { 16 } else { 0 } + payload.len();
        let class = event.class().index();
        self.check = rand::random();
        self.bytes.reserve(4 + length);
        self.bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        self.bytes.put_u64(self.check);
        self.bytes.put_u8(class as u8);
        self.bytes.put_slice(id.0.as_bytes());
        self.bytes.put_u8(kind);
        if let Some(uuid) = uuid {
            self.bytes.put_slice(uuid.as_bytes());
        }
        self.bytes.put_slice(&payload);
        self.classes[class] += 1;
        self.count += 1;
    }

    pub(super) fn put_classes(&self, out: &mut Vec<u8>) {
        for count in self.classes {
            out.put_u16(count);
        }
    }

    pub(super) fn put_check(&self, out: &mut Vec<u8>) {
        out.put_u64(self.check);
    }
}

const BATCH: usize = 2 + 8 + 1;

/// A batch as it is stored. None for bytes that are none.
pub(super) fn batch(first: Offset, mut raw: Bytes) -> Option<Vec<Entry>> {
    if raw.len() < BATCH {
        return None;
    }
    let count = raw.get_u16();
    let at = Timestamp(raw.get_u64());
    let classes = raw.get_u8();
    let mut next = [0; Class::COUNT];
    for (class, next) in next.iter_mut().enumerate() {
        if classes & (1 << class) != 0 {
            *next = raw.try_get_u32().ok()?;
        }
    }
    let mut entries = Vec::with_capacity(count.into());
    for index in 0..u64::from(count) {
        let stored = part(&mut raw)?;
        entries.push(entry(Offset(first.0 + index), at, &mut next, &stored));
    }
    Some(entries)
}

/// One that cannot be read keeps its place as a tombstone.
fn entry(offset: Offset, at: Timestamp, next: &mut [u32; Class::COUNT], mut raw: &[u8]) -> Entry {
    let tombstone = |check| {
        crate::metrics::tombstone();
        let (id, publisher) = (EventId(Uuid::nil()), PublisherId::Clock);
        Entry { offset, check, at, id, sequence: 0, publisher, body: Body::Tombstone }
    };
    if raw.len() < 8 + 1 + 16 + 1 {
        return tombstone(0);
    }
    let check = raw.get_u64();
    let sequence = match next.get_mut(usize::from(raw.get_u8())) {
        Some(next) => {
            *next += 1;
            u64::from(*next - 1)
        }
        None => 0,
    };
    let id = EventId(Uuid::from_u128(raw.get_u128()));
    let kind = raw.get_u8();
    let mut uuid = || (raw.len() >= 16).then(|| Uuid::from_u128(raw.get_u128()));
    let mut of_event = false;
    let publisher = match kind {
        1 => uuid().map(|id| PublisherId::Stream(StreamId(id))),
        2 => Some(PublisherId::Analyst),
        3 => Some(PublisherId::Actions),
        4 => uuid().map(|id| PublisherId::Gateway(GatewayId(id))),
        5 => uuid().map(PublisherId::Rest),
        6 => Some(PublisherId::Clock),
        7 => {
            of_event = true;
            Some(PublisherId::Clock)
        }
        _ => None,
    };
    let Some(mut publisher) = publisher else { return tombstone(check) };
    match hearsay_rpc::decode(raw) {
        Ok(event) => {
            if of_event && let Some(stream) = event.stream() {
                publisher = PublisherId::Stream(stream);
            }
            Entry { offset, check, at, id, sequence, publisher, body: Body::Event(event) }
        }
        Err(error) => {
            tracing::warn!(%offset, %error, "an entry of the log cannot be read");
            Entry { id, sequence, publisher, ..tombstone(check) }
        }
    }
}

/// Ephemerals as they are announced, behind the kind and position that the script adds.
pub(super) fn ephemerals(ephemerals: &[Ephemeral]) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 * ephemerals.len());
    for ephemeral in ephemerals {
        let encoded = hearsay_rpc::v1::EphemeralEvent::from(ephemeral).encode_to_vec();
        out.put_u32(u32::try_from(encoded.len()).unwrap_or(u32::MAX));
        out.put_slice(&encoded);
    }
    out
}

/// What was announced in a conversation's channel. None for what cannot be read: the subscriber reads the log.
pub(super) fn delivery(mut raw: Bytes) -> Option<Delivery> {
    if raw.is_empty() {
        return None;
    }
    match raw.get_u8() {
        b'A' if raw.len() >= 12 => {
            let (epoch, first) = (Epoch(raw.get_u32()), Offset(raw.get_u64()));
            batch(first, raw).map(|entries| Delivery::Appended { epoch, entries: entries.into() })
        }
        b'E' if raw.len() >= 12 => {
            let follows = Position { epoch: Epoch(raw.get_u32()), offset: Offset(raw.get_u64()) };
            let mut all = Vec::new();
            while !raw.is_empty() {
                let encoded = part(&mut raw)?;
                // One of a kind that this version does not know is nothing to it.
                if let Ok(decoded) = hearsay_rpc::v1::EphemeralEvent::decode(encoded)
                    && let Ok(ephemeral) = Ephemeral::try_from(decoded)
                {
                    all.push(ephemeral);
                }
            }
            Some(Delivery::Ephemeral { follows, ephemerals: Arc::from(all) })
        }
        b'C' => Some(Delivery::Changed),
        _ => None,
    }
}

fn part(raw: &mut Bytes) -> Option<Bytes> {
    if raw.len() < 4 {
        return None;
    }
    let length = raw.get_u32() as usize;
    (raw.len() >= length).then(|| raw.split_to(length))
}

#[cfg(test)]
mod tests {
    use hearsay_protocol::event::{Started, StreamEnd, StreamEnded};

    use super::*;

    fn stored(entries: &Entries) -> Vec<u8> {
        let mut raw = Vec::new();
        raw.put_u16(entries.count);
        raw.put_u64(1_000);
        // Of the first and the last class.
        raw.put_u8(0b10_0001);
        raw.put_u32(3);
        raw.put_u32(7);
        raw.put_slice(&entries.bytes);
        raw
    }

    #[test]
    fn batches_come_back_and_what_cannot_be_read_keeps_its_place() {
        let stream = StreamId(Uuid::from_u128(3));
        let publisher = PublisherId::Stream(stream);
        let event = |title: &str| Event::Started(Started { at: Timestamp(1), title: title.to_owned() });
        let of_stream = Event::StreamEnded(StreamEnded { stream, how: StreamEnd::Lost });
        let mut entries = Entries::default();
        for (n, event) in [event("first"), event("second"), of_stream.clone()].iter().enumerate() {
            entries.push(&publisher, EventId(Uuid::from_u128(n as u128)), event);
        }
        let raw = stored(&entries);
        let back = batch(Offset(41), raw.clone().into()).expect("a batch");
        let numbers: Vec<_> = back.iter().map(|entry| (entry.offset.0, entry.sequence)).collect();
        assert_eq!(numbers, [(41, 7), (42, 8), (43, 9)]);
        assert_eq!(back[2].body, Body::Event(of_stream));
        assert!(back.iter().all(|entry| entry.publisher == publisher && entry.at == Timestamp(1_000)));
        assert_eq!(back[2].check, entries.check);

        // The second event of a kind that nobody knows.
        let at = raw.windows(6).position(|bytes| bytes == b"second").expect("it is there");
        let mut unknown = raw.clone();
        unknown[at - 6] = 0xFA;
        let back = batch(Offset(41), unknown.into()).expect("a batch");
        assert_eq!(back.len(), 3);
        assert_eq!(back[1].body, Body::Tombstone);
        assert_eq!((back[1].offset, back[1].sequence, back[2].sequence), (Offset(42), 8, 9));

        for cut in [0, 10, BATCH, raw.len() - 1] {
            assert_eq!(batch(Offset(41), raw[..cut].to_vec().into()), None, "cut at {cut}");
        }
    }
}
