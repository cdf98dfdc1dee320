//! Bytes of a stream into packets of audio that are decoded each at once, and packets into samples.
//!
//! A [`Reader`] takes a stream's chunks, cut anywhere, and finds the packets in them, with where each stands in the stream's
//! samples; a [`Decoder`] makes samples of them. Both are synchronous state machines. Nothing panics on any bytes; what
//! claims to be huge is refused ([`Fault`]) or skipped, so at most [`MAX_HELD`] bytes wait for their end.
//!
//! **Going on elsewhere.** Each packet knows from where a fresh reader finds it again ([`Resume`]): the byte and what must be
//! known there, a few numbers of the codec's headers, which a [`Restart`] carries as its `headers`. A fresh decoder must
//! hear [`preroll`] before its samples are those of the one it replaces; whoever goes on, here or elsewhere, does it from the same
//! packet, so its samples are the same to the last bit.
//!
//! | encoding | rate of the samples | lost or damaged |
//! | --- | --- | --- |
//! | LINEAR16, MULAW | as announced | |
//! | FLAC | the stream's own, 8 to 48 kHz, whatever was announced | silence, as long as frame numbers say |
//! | Opus, raw | 16 kHz, whatever was announced | a message that is no packet: silence, as long as the one before |
//! | Opus in Ogg or WebM | 16 kHz, whatever was announced | silence, as long as positions or times of what follows say |
//!
//! All channels are mixed into one. What is lost counts as silence of its length; Opus pre-skip is dropped.

#[cfg(any(test, feature = "encode"))]
pub mod encode;
mod flac;
mod ogg;
mod opus;
mod pcm;
mod resume;
mod webm;

use std::{collections::VecDeque, fmt::Write as _, ops::Range};

use bytes::{Buf as _, Bytes, BytesMut};
use hearsay_protocol::{AudioFormat, Encoding, Restart};

use self::resume::{Raw, State};
pub use self::resume::{Resume, Unreadable};

/// The most that waits for the rest of a page, block or frame, in bytes. An Ogg page has at most 65,307.
pub const MAX_HELD: usize = 512 * 1024;

/// Rate of samples decoded from Opus, Hz: the engine's own, which the decoder gives directly.
const OPUS_RATE: u32 = 16_000;

/// A hole in a container's times is filled with at most this much silence, s; a longer one is a clock that was set anew.
const LONGEST_HOLE: u64 = 60;

/// Bytes in a row in which nothing of the format was found, after which it is not that format.
const MAX_JUNK: usize = 256 * 1024;

/// The same where what was found is of the format but not the audio: another track, pictures, what nobody knows.
const MAX_BARREN: usize = 2 * 1024 * 1024;

/// How messages that are no Opus packets count: each one this much, each good one takes 1 away.
const BAD_PACKET: u32 = 3;
/// Where that ends: eight bad ones in a row, or half of them bad for half a second.
const BAD_LIMIT: u32 = 24;

/// Samples a fresh decoder hears before what is wanted, at the reader's rate. In Opus, whose decoder predicts, twice the 80 ms
/// that RFC 7845 asks for: what it gives then differs by 40 dB or more from what one gives that heard everything, in
/// most sounds (a pure tone at a low bit rate takes longer). Nothing depends on that bound, because nobody goes on with a
/// decoder that heard everything: lanes begin a fresh one at every cut. In the other encodings every packet stands alone.
pub fn preroll(encoding: Encoding) -> u64 {
    match encoding {
        Encoding::Opus => u64::from(OPUS_RATE) * 160 / 1_000,
        Encoding::Linear16 | Encoding::Mulaw | Encoding::Flac => 0,
    }
}

/// Bytes of one sample where every sample has as many, so that a stream can be entered at any of them.
pub fn width(encoding: Encoding) -> Option<u64> {
    match encoding {
        Encoding::Linear16 => Some(2),
        Encoding::Mulaw => Some(1),
        Encoding::Flac | Encoding::Opus => None,
    }
}

/// The bytes are not what was announced: no audio follows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("audio is not {}: {found}; {}", .encoding.name(), wanted(*.encoding))]
pub struct Fault {
    pub encoding: Encoding,
    /// What came.
    pub found: String,
}

fn wanted(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Linear16 => "signed 16-bit little-endian samples without a header are expected",
        Encoding::Mulaw => "G.711 bytes without a header are expected",
        Encoding::Flac => {
            "a native FLAC stream of 8000 to 48000 Hz, from its \"fLaC\" marker or a frame on, is expected"
        }
        Encoding::Opus => {
            "one Opus packet a binary message, or an Ogg or WebM stream with Opus of one or two channels, is expected"
        }
    }
}

/// Audio that is decoded at once.
#[derive(Debug, Clone, PartialEq)]
pub struct Packet {
    /// Samples before it, since its format began.
    pub start: u64,
    /// Samples it gives.
    pub samples: u64,
    /// Samples per second.
    pub rate: u32,
    /// From where a fresh reader finds it.
    pub resume: Resume,
    pub(crate) body: Body,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Body {
    /// Whole samples of a fixed width.
    Pcm(Bytes),
    /// `drop`: samples at its beginning that are not to be heard. `gain`: in 1/256 dB.
    Opus {
        data: Bytes,
        drop: usize,
        gain: i16,
    },
    Flac(Bytes),
    /// Audio that was lost.
    Silence,
}

impl Packet {
    /// The first sample after it.
    pub fn end(&self) -> u64 {
        self.start + self.samples
    }

    /// Any part of it can be decoded by itself.
    pub(crate) fn divides(&self) -> bool {
        matches!(self.body, Body::Pcm(_) | Body::Silence)
    }
}

/// What a format's parser found in the bytes held.
enum Step {
    /// Nothing: more bytes are needed.
    More,
    /// A unit of this many bytes.
    Unit(usize),
    /// This many bytes are nothing of the format.
    Junk(usize),
}

/// What is in a unit, in order.
enum Found {
    /// Samples lost, at the codec's own rate: 48 kHz for Opus.
    Hole(u64),
    Opus(OpusFound),
    Flac {
        data: Bytes,
        samples: u64,
    },
}

/// A packet in a container. Lengths are samples at 48 kHz.
struct OpusFound {
    data: Bytes,
    samples: u64,
    /// None of it is a packet.
    bad: bool,
    /// Not to be heard: at its beginning (pre-skip), and at its end.
    drop: u64,
    trim: u64,
    gain: i16,
    /// It began in an earlier unit, the one that [`Carry::open`] remembers: what a reader that begins with this unit, and
    /// so does not know the packet, must know instead.
    after: Option<State>,
}

/// What parsers keep beside their state; a fresh reader that begins where a unit begins finds it again.
#[derive(Debug, Default)]
struct Carry {
    /// Beginning of an Ogg packet that goes on on the next page.
    partial: Vec<u8>,
    /// From where that packet is found.
    open: Option<Resume>,
    scan: flac::Scan,
    /// What a container holds that is not Opus.
    other: String,
}

/// Finds packets in a stream's bytes.
#[derive(Debug)]
pub struct Reader {
    format: AudioFormat,
    state: State,
    /// Bytes not yet understood, the first of which is the format's byte `at`.
    held: BytesMut,
    at: u64,
    /// Bytes before this one are not looked at.
    begin: u64,
    /// Samples found.
    samples: u64,
    carry: Carry,
    packets: VecDeque<Packet>,
    /// Something of the format was found.
    known: bool,
    /// Bytes since the last packet: that were nothing, and all.
    junk: usize,
    barren: usize,
    bad: u32,
    /// Samples that were lost.
    lost: u64,
    broken: bool,
}

impl Reader {
    /// At the beginning of a format.
    pub fn new(format: AudioFormat) -> Self {
        Self {
            format,
            state: State::Start,
            held: BytesMut::new(),
            at: 0,
            begin: 0,
            samples: 0,
            carry: Carry::default(),
            packets: VecDeque::new(),
            known: false,
            junk: 0,
            barren: 0,
            bad: 0,
            lost: 0,
            broken: false,
        }
    }

    /// At the beginning of `restart`'s chunk. Answers, beside the reader, the first sample of the clock that `restart.at` is of.
    ///
    /// # Errors
    /// When the headers are not ones this version writes.
    pub fn resume(restart: &Restart) -> Result<(Self, u64), Unreadable> {
        let mut reader = Self { at: restart.bytes_before, ..Self::new(restart.format) };
        if let Some(width) = width(restart.format.encoding) {
            reader.begin = restart.bytes_before.next_multiple_of(width);
            reader.samples = reader.begin / width;
            reader.known = restart.bytes_before > 0;
            return Ok((reader, 0));
        }
        if restart.headers.is_empty() && restart.bytes_before == 0 {
            return Ok((reader, 0));
        }
        let (resume, first) = Resume::read(&restart.headers)?;
        if resume.byte < restart.bytes_before || !resume.state.is_of(restart.format.encoding) {
            return Err(Unreadable);
        }
        (reader.begin, reader.samples, reader.state) = (resume.byte, resume.sample, resume.state);
        reader.known = resume.state != State::Start;
        Ok((reader, first))
    }

    /// For samples of a fixed width: one that begins behind the sample that is divided here, with its counts begun anew.
    pub fn realigned(&self) -> Option<Self> {
        let width = width(self.format.encoding)?;
        let divided = self.taken() % width;
        let begin = divided.next_multiple_of(width);
        Some(Self { at: divided, begin, samples: begin / width, known: true, ..Self::new(self.format) })
    }

    /// Bytes taken since the format began.
    pub fn taken(&self) -> u64 {
        self.at + self.held.len() as u64
    }

    /// Samples found since the format began.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Samples per second; none until the stream has said so.
    pub fn rate(&self) -> Option<u32> {
        match (self.format.encoding, &self.state) {
            (Encoding::Linear16 | Encoding::Mulaw, _) => Some(self.format.rate.get()),
            (Encoding::Opus, _) => Some(OPUS_RATE),
            (_, State::Flac(flac)) => flac.rate(),
            _ => None,
        }
    }

    /// From where a fresh reader finds the packet after those found.
    pub fn here(&self) -> Resume {
        let begin = if width(self.format.encoding).is_some() { 0 } else { self.begin };
        self.carry.open.unwrap_or(Resume { byte: self.at.max(begin), sample: self.samples, state: self.state })
    }

    /// Samples lost since this was last asked.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// The next packet found.
    pub fn packet(&mut self) -> Option<Packet> {
        self.packets.pop_front()
    }

    /// Takes the next chunk: of any size for streams, one packet for raw Opus.
    ///
    /// # Errors
    /// When it is not what the format says. What was found before stays to be taken; what follows is not looked at.
    pub fn push(&mut self, mut data: Bytes) -> Result<(), Fault> {
        if self.broken {
            return Ok(());
        }
        let before = usize::try_from(self.begin.saturating_sub(self.taken())).unwrap_or(usize::MAX).min(data.len());
        self.at += before as u64;
        data.advance(before);
        let taken = match (self.format.encoding, self.state) {
            (Encoding::Linear16 | Encoding::Mulaw, _) => self.pcm(data),
            (Encoding::Opus, State::Start) => self.sniff(data),
            (_, State::Raw(raw)) => self.raw(raw, data),
            _ => {
                self.held.extend_from_slice(&data);
                self.units()
            }
        };
        self.broken = taken.is_err();
        taken
    }

    fn fault(&self, found: impl Into<String>) -> Fault {
        Fault { encoding: self.format.encoding, found: found.into() }
    }

    fn pcm(&mut self, mut data: Bytes) -> Result<(), Fault> {
        if !self.known && !data.is_empty() {
            // A WAV file's header is a click that clients have always sent; the others would be noise from end to end.
            if let Some(name) = file(&data).filter(|name| *name != WAV) {
                return Err(self.fault(format!("{name} came")));
            }
            self.known = true;
        }
        let width = if self.format.encoding == Encoding::Linear16 { 2 } else { 1 };
        if !self.held.is_empty() {
            let missing = (width - self.held.len()).min(data.len());
            self.held.extend_from_slice(&data.split_to(missing));
            if self.held.len() < width {
                return Ok(());
            }
            let sample = self.held.split().freeze();
            self.whole(sample, width);
        }
        let rest = data.split_off(data.len() - data.len() % width);
        self.whole(data, width);
        self.held.extend_from_slice(&rest);
        Ok(())
    }

    /// Whole samples of a fixed width.
    fn whole(&mut self, data: Bytes, width: usize) {
        let resume = Resume { byte: self.at, sample: self.samples, state: State::Start };
        self.at += data.len() as u64;
        self.emit(resume, (data.len() / width) as u64, Body::Pcm(data));
    }

    /// What kind of Opus stream this is.
    fn sniff(&mut self, data: Bytes) -> Result<(), Fault> {
        if data.is_empty() {
            return Ok(());
        }
        let first = self.held.is_empty();
        self.held.extend_from_slice(&data);
        let containers =
            [(ogg::MAGIC, State::Ogg(ogg::Ogg::default())), (webm::MAGIC, State::Webm(webm::Webm::default()))];
        for (magic, state) in containers {
            if self.held.starts_with(&magic) {
                self.state = state;
                return self.units();
            }
            // No beginning of either is an Opus packet by itself.
            if magic.starts_with(&self.held) {
                return Ok(());
            }
        }
        if !first {
            return Err(self.fault(format!("it begins with {}", describe(&self.held))));
        }
        self.held.clear();
        if let Some(name) = file(&data) {
            return Err(self.fault(format!("{name} came")));
        }
        self.raw(Raw::default(), data)
    }

    /// One message, one packet.
    fn raw(&mut self, mut raw: Raw, data: Bytes) -> Result<(), Fault> {
        let resume = Resume { byte: self.at, sample: self.samples, state: self.state };
        self.at += data.len() as u64;
        if data.is_empty() {
            return Ok(());
        }
        if let Some(samples) = opus::samples(&data) {
            self.good();
            raw.last = samples;
            self.state = State::Raw(raw);
            self.emit(resume, opus::heard(samples), Body::Opus { data, drop: 0, gain: 0 });
        } else {
            let (length, begins) = (data.len(), describe(&data));
            self.bad(|| format!("a message of {length} bytes that begins with {begins} is no Opus packet"))?;
            self.hole(resume, opus::heard(raw.last));
        }
        Ok(())
    }

    fn good(&mut self) {
        self.known = true;
        self.bad = self.bad.saturating_sub(1);
    }

    /// Something was no packet. A few are lost audio; many are something else than was announced.
    fn bad(&mut self, what: impl FnOnce() -> String) -> Result<(), Fault> {
        self.bad += BAD_PACKET;
        if !self.known {
            return Err(self.fault(what()));
        }
        if self.bad >= BAD_LIMIT { Err(self.fault(what() + ", like many before it")) } else { Ok(()) }
    }

    /// Everything that the bytes held complete.
    fn units(&mut self) -> Result<(), Fault> {
        if self.state == State::Start {
            self.state = State::Flac(flac::Flac::default());
        }
        loop {
            let before = Resume { byte: self.at, sample: self.samples, state: self.state };
            let mut found = Vec::new();
            let Self { state, held, carry, .. } = self;
            let step = match state {
                State::Ogg(ogg) => ogg.step(held, carry, &mut found),
                State::Webm(webm) => webm.step(held, carry, &mut found),
                State::Flac(flac) => flac.step(held, &mut carry.scan, &mut found),
                State::Start | State::Raw(_) => Ok(Step::More),
            };
            match step.map_err(|found| self.fault(found))? {
                Step::More if self.held.len() >= MAX_HELD => {
                    return Err(self.fault(format!("a piece of it has more than {MAX_HELD} bytes")));
                }
                Step::More => return Ok(()),
                Step::Unit(bytes) => {
                    self.consume(bytes);
                    self.barren += bytes;
                    self.unit(before, found)?;
                }
                Step::Junk(bytes) => {
                    if !self.known {
                        return Err(self.fault(format!("it begins with {}", describe(&self.held))));
                    }
                    self.consume(bytes);
                    self.junk += bytes;
                    self.barren += bytes;
                }
            }
            if self.junk > MAX_JUNK || self.barren > MAX_BARREN {
                return Err(self.fault(format!("no audio was found in {} bytes", self.barren)));
            }
        }
    }

    fn consume(&mut self, bytes: usize) {
        let bytes = bytes.min(self.held.len());
        self.at += bytes as u64;
        self.held.advance(bytes);
        self.carry.scan = flac::Scan::default();
    }

    /// What a unit that began at `begin` holds.
    fn unit(&mut self, mut begin: Resume, found: Vec<Found>) -> Result<(), Fault> {
        self.known = true;
        let timed = !found.is_empty();
        if timed {
            (self.junk, self.barren) = (0, 0);
        }
        let continues = found.iter().any(|found| matches!(found, Found::Opus(opus) if opus.after.is_some()));
        // Until a packet from an earlier unit is complete, everything is found from there.
        let mut open = self.carry.open.filter(|_| continues);
        for found in found {
            let resume = open.unwrap_or(begin);
            match found {
                Found::Hole(samples) if self.format.encoding == Encoding::Opus => {
                    self.hole(resume, opus::heard(samples));
                }
                Found::Hole(samples) => self.hole(resume, samples),
                Found::Flac { data, samples } => self.emit(resume, samples, Body::Flac(data)),
                Found::Opus(OpusFound { data, samples, bad, drop, trim, gain, after }) => {
                    let heard = opus::heard(samples.saturating_sub(drop + trim));
                    if bad {
                        self.bad(|| "packets in it are not Opus".to_owned())?;
                        self.hole(resume, heard);
                    } else {
                        self.bad = self.bad.saturating_sub(1);
                        let drop = usize::try_from(opus::heard(drop)).unwrap_or(0);
                        self.emit(resume, heard, Body::Opus { data, drop, gain });
                    }
                    if let Some(state) = after {
                        begin = Resume { byte: begin.byte, sample: self.samples, state };
                        open = None;
                    }
                }
            }
        }
        self.carry.open = match self.state {
            State::Ogg(ogg) if ogg.is_open() => Some(self.carry.open.filter(|_| !timed).unwrap_or(begin)),
            _ => None,
        };
        Ok(())
    }

    fn hole(&mut self, resume: Resume, samples: u64) {
        self.lost += samples;
        self.emit(resume, samples, Body::Silence);
    }

    fn emit(&mut self, resume: Resume, samples: u64, body: Body) {
        let start = self.samples;
        // Opus packets that are pre-skip through and through give no samples, but bring the decoder on.
        if samples > 0 || matches!(body, Body::Opus { .. }) {
            self.samples += samples;
            let rate = self.rate().unwrap_or(self.format.rate.get());
            self.packets.push_back(Packet { start, samples, rate, resume, body });
        }
    }
}

const WAV: &str = "a WAV file";

/// What kind of file begins like this.
fn file(bytes: &[u8]) -> Option<&'static str> {
    let kinds: [(&[u8], &str); 7] = [
        (b"RIFF", WAV),
        (&flac::MAGIC, "a FLAC stream"),
        (&ogg::MAGIC, "an Ogg stream"),
        (&webm::MAGIC, "a WebM or Matroska stream"),
        (b"ID3", "an MP3 file"),
        (b"FORM", "an AIFF file"),
        (b"caff", "a CAF file"),
    ];
    let kind = kinds.into_iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, kind)| kind);
    kind.or_else(|| (bytes.get(4..8) == Some(b"ftyp")).then_some("an MP4 file"))
}

/// The first bytes, as a person can compare them.
fn describe(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (index, byte) in bytes.iter().take(8).enumerate() {
        // Writing to a string does not fail.
        let _ = write!(text, "{}{byte:02x}", if index == 0 { "" } else { " " });
    }
    file(bytes).map_or(text.clone(), |kind| format!("{text} ({kind})"))
}

/// Makes samples of packets, each of which follows the one before.
pub struct Decoder {
    opus: Option<opus::Decoder>,
    block: Vec<i32>,
}

impl Decoder {
    pub fn new(encoding: Encoding) -> Self {
        Self { opus: (encoding == Encoding::Opus).then(opus::Decoder::default), block: Vec::new() }
    }

    /// Hears nothing of what came before.
    pub fn reset(&mut self) {
        if let Some(opus) = &mut self.opus {
            *opus = opus::Decoder::default();
        }
    }

    /// Appends the packet's samples, -1 to 1. Answers how many of them could not be decoded, and are silence.
    pub fn decode(&mut self, packet: &Packet, samples: &mut Vec<f32>) -> u64 {
        let count = usize::try_from(packet.samples).unwrap_or(usize::MAX);
        self.part(packet, 0..count, samples)
    }

    /// The same of a part of a packet that can be divided; of one that cannot, all but what is outside the part is decoded
    /// and dropped.
    pub(crate) fn part(&mut self, packet: &Packet, part: Range<usize>, samples: &mut Vec<f32>) -> u64 {
        let before = samples.len();
        let count = usize::try_from(packet.samples).unwrap_or(usize::MAX);
        let part = part.start.min(count)..part.end.min(count);
        let decoded = match &packet.body {
            Body::Pcm(data) => {
                pcm::decode(data, count, part.clone(), samples);
                return 0;
            }
            Body::Silence => {
                samples.resize(before + part.len(), 0.0);
                return 0;
            }
            Body::Opus { data, drop, gain } => {
                let opus = self.opus.get_or_insert_default();
                opus.decode(data, *gain, samples).map(|()| *drop)
            }
            Body::Flac(data) => flac::decode(data, &mut self.block, samples).map(|()| 0),
        };
        match decoded {
            Some(drop) => {
                let end = (before + drop + part.end).min(samples.len());
                samples.truncate(end);
                samples.drain(before..(before + drop + part.start).min(end));
                samples.resize(before + part.len(), 0.0);
                0
            }
            None => {
                samples.truncate(before);
                samples.resize(before + part.len(), 0.0);
                packet.samples
            }
        }
    }
}

#[cfg(test)]
mod tests;
