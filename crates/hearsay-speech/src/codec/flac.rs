//! FLAC (RFC 9639): frames, which do not say how long they are, found in a stream cut anywhere.
//!
//! A frame ends where its checksum comes out even and it decodes to exactly there, so it is heard as soon as it is complete.
//! Frames stand alone, so a stream is entered at any of them; one that is damaged shows in the next one's number.

use std::io::Cursor;

use bytes::{Bytes, BytesMut};
use claxon::frame::FrameReader;

use super::{Found, LONGEST_HOLE, Step};

pub(super) const MAGIC: [u8; 4] = *b"fLaC";

/// Metadata before the first frame that is passed over at most, bytes and blocks: pictures are no part of a live stream.
const MAX_HEADER: usize = 256 * 1024;
const MAX_BLOCKS: usize = 128;

/// The most a frame may have, bytes.
const MAX_FRAME: usize = 400 * 1024;

/// How often a frame's checksum may come out even before its end: once in 65,536 bytes by chance.
const MAX_TRIES: u32 = 24;

/// Rates that are heard, Hz.
const RATES: std::ops::RangeInclusive<u32> = 8_000..=48_000;

/// What must be known at a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Flac {
    /// Hz; 0: the stream has not said so.
    pub(super) rate: u32,
    /// Samples of every frame but the last, where all are the same; 0: not known.
    pub(super) block: u32,
    /// The next frame's first sample as frames count them.
    pub(super) next: Option<u64>,
}

/// How far the frame at the beginning of what is held was looked at.
#[derive(Debug, Default)]
pub(super) struct Scan {
    at: usize,
    checksum: u16,
    tries: u32,
}

impl Flac {
    pub(super) fn rate(self) -> Option<u32> {
        (self.rate > 0).then_some(self.rate)
    }

    pub(super) fn step(&mut self, held: &BytesMut, scan: &mut Scan, found: &mut Vec<Found>) -> Result<Step, String> {
        let beginning = &held[..held.len().min(4)];
        if beginning.len() < 4 && (beginning.is_empty() || MAGIC.starts_with(beginning) || beginning[0] == 0xff) {
            return Ok(Step::More);
        }
        if beginning == MAGIC {
            return self.metadata(held);
        }
        let header = match Header::parse(held) {
            Ok(Some(header)) => header,
            Ok(None) => return Ok(Step::More),
            Err(()) => return Ok(junk(held)),
        };
        let rate = if header.rate == 0 { self.rate } else { header.rate };
        if rate == 0 {
            return Err("FLAC frames came that do not say their rate, without the stream's beginning".to_owned());
        }
        if self.rate != 0 && rate != self.rate {
            // Audio that looks like a frame.
            return Ok(junk(held));
        }
        if header.bits == 0 && self.next.is_some() {
            return Ok(junk(held));
        }
        if header.bits == 0 {
            return Err("FLAC frames came that do not say how many bits a sample has".to_owned());
        }
        rate_is_heard(rate)?;
        let most = header.longest();
        while scan.at < held.len().min(most) {
            scan.checksum = CRC16[usize::from((scan.checksum >> 8) as u8 ^ held[scan.at])] ^ scan.checksum << 8;
            scan.at += 1;
            if scan.checksum == 0 && scan.at >= header.length + 3 {
                let data = &held[..scan.at];
                if read(data, Vec::new()).is_some() {
                    self.frame(&header, rate, Bytes::copy_from_slice(data), found);
                    return Ok(Step::Unit(scan.at));
                }
                scan.tries += 1;
                if scan.tries > MAX_TRIES {
                    return Ok(junk(held));
                }
            }
        }
        Ok(if scan.at >= most { junk(held) } else { Step::More })
    }

    /// A stream's beginning: marker and metadata, of which the first block matters.
    fn metadata(&mut self, held: &[u8]) -> Result<Step, String> {
        let mut at = MAGIC.len();
        let mut rate = 0;
        for _ in 0..MAX_BLOCKS {
            let Some(&[kind, high, middle, low]) = held.get(at..).and_then(<[u8]>::first_chunk) else {
                return Ok(Step::More);
            };
            let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
            let end = at + 4 + length;
            if end > MAX_HEADER {
                return Err(format!("FLAC metadata of {end} bytes came, and {MAX_HEADER} are passed over at most"));
            }
            let Some(body) = held.get(at + 4..end) else { return Ok(Step::More) };
            if kind & 0x7f == 0
                && let Some(&[_, _, _, _, _, _, _, _, _, _, high, middle, low]) = body.first_chunk()
            {
                rate = u32::from(high) << 12 | u32::from(middle) << 4 | u32::from(low) >> 4;
            }
            at = end;
            if kind & 0x80 != 0 {
                if rate == 0 {
                    return Err("a FLAC stream came that does not say its rate".to_owned());
                }
                rate_is_heard(rate)?;
                if self.rate != 0 && self.rate != rate {
                    return Err(format!("the rate changed from {} to {rate} Hz without a modify_request", self.rate));
                }
                *self = Self { rate, block: 0, next: None };
                return Ok(Step::Unit(at));
            }
        }
        Err(format!("a FLAC stream with more than {MAX_BLOCKS} blocks of metadata came"))
    }

    fn frame(&mut self, header: &Header, rate: u32, data: Bytes, found: &mut Vec<Found>) {
        self.rate = rate;
        let samples = u64::from(header.block);
        let at = if header.numbers_samples {
            header.number
        } else {
            if self.block == 0 {
                self.block = header.block;
            }
            header.number * u64::from(self.block)
        };
        if let Some(next) = self.next {
            let hole = at.saturating_sub(next);
            if hole > 0 && hole <= LONGEST_HOLE * u64::from(rate) {
                found.push(Found::Hole(hole));
            }
        }
        self.next = Some(at + samples);
        found.push(Found::Flac { data, samples });
    }
}

fn rate_is_heard(rate: u32) -> Result<(), String> {
    if RATES.contains(&rate) { Ok(()) } else { Err(format!("a FLAC stream of {rate} Hz came")) }
}

/// A frame's header.
#[derive(Debug, PartialEq, Eq)]
struct Header {
    /// Bytes it takes.
    length: usize,
    /// Samples of each channel.
    block: u32,
    /// Hz; 0: that of the stream.
    rate: u32,
    channels: u32,
    /// Bits of a sample; 0: that of the stream.
    bits: u32,
    /// `number` counts samples, not frames.
    numbers_samples: bool,
    number: u64,
}

impl Header {
    /// None: more bytes are needed.
    fn parse(bytes: &[u8]) -> Result<Option<Self>, ()> {
        let Some(&[0xff, sync, sizes, layout]) = bytes.first_chunk() else {
            return if bytes.len() < 4 { Ok(None) } else { Err(()) };
        };
        if sync & 0xfe != 0xf8 || layout & 1 != 0 {
            return Err(());
        }
        let channels = match layout >> 4 {
            channels @ 0..=7 => u32::from(channels) + 1,
            8..=10 => 2,
            _ => return Err(()),
        };
        let bits = match layout >> 1 & 7 {
            0 => 0,
            1 => 8,
            2 => 12,
            4 => 16,
            5 => 20,
            6 => 24,
            _ => return Err(()),
        };
        let mut rest = bytes[4..].iter().copied();
        let Some(first) = rest.next() else { return Ok(None) };
        let more = match first.leading_ones() {
            0 => 0,
            ones @ 2..=7 => ones - 1,
            _ => return Err(()),
        };
        let mut number = u64::from(first) & if more == 0 { 0x7f } else { 0x3f >> more };
        for _ in 0..more {
            let Some(byte) = rest.next() else { return Ok(None) };
            if byte & 0xc0 != 0x80 {
                return Err(());
            }
            number = number << 6 | u64::from(byte & 0x3f);
        }
        let mut read = |bytes: u32| (0..bytes).try_fold(0, |value, _| Some(value << 8 | u32::from(rest.next()?)));
        let block = match sizes >> 4 {
            0 => return Err(()),
            1 => Some(192),
            size @ 2..=5 => Some(576 << (size - 2)),
            6 => read(1).map(|size| size + 1),
            7 => read(2).map(|size| size + 1),
            size => Some(256 << (size - 8)),
        };
        let rate = match sizes & 15 {
            15 => return Err(()),
            12 => read(1).map(|khz| khz * 1_000),
            13 => read(2),
            14 => read(2).map(|tens| tens * 10),
            code => {
                const RATES: [u32; 12] =
                    [0, 88_200, 176_400, 192_000, 8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000];
                Some(RATES[usize::from(code)])
            }
        };
        let (Some(block), Some(rate), Some(checksum)) = (block, rate, rest.next()) else { return Ok(None) };
        let length = bytes.len() - rest.len();
        if crc8(&bytes[..length - 1]) != checksum || block > 65_535 {
            return Err(());
        }
        Ok(Some(Self { length, block, rate, channels, bits, numbers_samples: sync & 1 == 1, number }))
    }

    /// More bytes than any encoder makes of so many samples: those of the samples themselves, and a quarter.
    fn longest(&self) -> usize {
        let samples = (self.block * self.channels) as usize;
        (self.length + samples * (self.bits as usize + 1) / 8 * 5 / 4 + 128).min(MAX_FRAME)
    }
}

/// Decodes a frame; none unless it is one, from its first byte to its last.
fn read(data: &[u8], buffer: Vec<i32>) -> Option<claxon::Block> {
    let mut reader = FrameReader::new(Cursor::new(data));
    let block = reader.read_next_or_eof(buffer).ok()??;
    (reader.into_inner().position() == data.len() as u64).then_some(block)
}

/// Appends a frame's samples, all channels mixed. None: it is no frame.
pub(super) fn decode(data: &[u8], buffer: &mut Vec<i32>, samples: &mut Vec<f32>) -> Option<()> {
    let bits = Header::parse(data).ok()??.bits;
    let block = read(data, std::mem::take(buffer))?;
    let channels = block.channels();
    let scale = 1.0 / ((1_u64 << (bits - 1)) as f32 * channels as f32);
    samples.extend((0..block.duration()).map(|at| {
        let sum: i64 = (0..channels).map(|channel| i64::from(block.sample(channel, at))).sum();
        sum as f32 * scale
    }));
    *buffer = block.into_buffer();
    Some(())
}

/// What is no frame goes as far as one, or another stream, may begin.
fn junk(held: &[u8]) -> Step {
    let begins = |at: usize| match held[at..] {
        [0xff] => true,
        [0xff, sync, ..] => sync & 0xfe == 0xf8,
        _ => MAGIC.starts_with(&held[at..held.len().min(at + 4)]),
    };
    Step::Junk((1..held.len()).find(|at| begins(*at)).unwrap_or(held.len()))
}

/// Polynomial 0x8005, as frames have it behind them.
const CRC16: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut value = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 0x8000 == 0 { value << 1 } else { value << 1 ^ 0x8005 };
            bit += 1;
        }
        table[byte] = value;
        byte += 1;
    }
    table
};

/// Polynomial 0x07, as headers have it behind them.
fn crc8(bytes: &[u8]) -> u8 {
    bytes
        .iter()
        .fold(0, |sum, byte| (0..8).fold(sum ^ byte, |sum, _| if sum & 0x80 == 0 { sum << 1 } else { sum << 1 ^ 0x07 }))
}
