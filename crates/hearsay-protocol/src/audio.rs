//! What the bytes of a stream mean.

use std::{fmt, time::Duration};

use bytes::Bytes;

use crate::StreamTime;

/// Which piece of a stream's audio: counts a stream's binary messages from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ChunkNumber(pub u64);

impl ChunkNumber {
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Signed 16-bit little-endian samples, mono, no header, cut anywhere. 8000 to 48000 Hz.
    Linear16,
    /// G.711 µ-law, mono, no header, cut anywhere. 8000 Hz.
    Mulaw,
    /// A native FLAC stream, cut anywhere, from its `fLaC` marker on; channels are mixed. 8000 to 48000 Hz: the stream's own
    /// rate counts, whatever was announced.
    Flac,
    /// Opus packets, one a binary message; or, when the first message begins with `OggS` or an EBML header, an Ogg or WebM
    /// stream cut anywhere. One or two channels, which are mixed. 8000 to 48000 Hz may be announced and mean nothing: Opus
    /// packets say what they are.
    Opus,
}

impl Encoding {
    pub const ALL: [Self; 4] = [Self::Linear16, Self::Mulaw, Self::Flac, Self::Opus];

    pub fn name(self) -> &'static str {
        match self {
            Self::Linear16 => "LINEAR16",
            Self::Mulaw => "MULAW",
            Self::Flac => "FLAC",
            Self::Opus => "OPUS",
        }
    }

    /// Sample rates accepted, lowest and highest, in Hz.
    pub fn rates(self) -> (u32, u32) {
        match self {
            Self::Linear16 | Self::Flac | Self::Opus => (8_000, 48_000),
            Self::Mulaw => (8_000, 8_000),
        }
    }
}

/// Samples per second. Known to be one the encoding accepts when inside an [`AudioFormat`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SampleRate(u32);

impl SampleRate {
    /// The nearest to `hz` that is heard in any encoding: 8 to 48 kHz.
    pub fn nearest(hz: u32) -> Self {
        Self(hz.clamp(8_000, 48_000))
    }

    pub fn get(self) -> u32 {
        self.0
    }
}

/// How a stream's bytes become samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AudioFormat {
    pub encoding: Encoding,
    pub rate: SampleRate,
}

impl Default for AudioFormat {
    /// What a client means that says nothing: LINEAR16 at 16 kHz.
    fn default() -> Self {
        Self { encoding: Encoding::Linear16, rate: SampleRate(16_000) }
    }
}

/// Tells how long a stream's chunks last, from the chunks alone, where they say so: samples do, and so do Opus packets that come
/// one a message. Given every chunk from the beginning of a format on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meter {
    format: AudioFormat,
    /// What the first bytes say an Opus stream is.
    messages: Option<bool>,
    last: Duration,
}

impl Meter {
    pub fn new(format: AudioFormat) -> Self {
        Self { format, messages: None, last: Duration::ZERO }
    }

    /// In the middle of a format, where streams of Opus cannot be told from packets.
    pub fn in_the_middle(format: AudioFormat) -> Self {
        Self { messages: Some(false), ..Self::new(format) }
    }

    /// How long the next chunk lasts; none where only a decoder can tell.
    pub fn chunk(&mut self, data: &[u8]) -> Option<Duration> {
        let rate = u64::from(self.format.rate.get());
        let bytes_per_second = match self.format.encoding {
            Encoding::Linear16 => 2 * rate,
            Encoding::Mulaw => rate,
            Encoding::Flac => return None,
            Encoding::Opus => return self.packet(data),
        };
        Some(Duration::from_micros(data.len() as u64 * 1_000_000 / bytes_per_second))
    }

    fn packet(&mut self, data: &[u8]) -> Option<Duration> {
        let Some(first) = data.first() else { return Some(Duration::ZERO) };
        // Neither beginning is one of a packet.
        let stream =
            || [&b"OggS"[..], b"\x1a\x45\xdf\xa3"].iter().any(|magic| data.iter().zip(*magic).all(|(a, b)| a == b));
        if !*self.messages.get_or_insert_with(|| !stream()) {
            return None;
        }
        // RFC 6716, 3.1: a frame's length by its configuration, and how many there are.
        let frame_us = match first >> 3 {
            config @ 0..=11 => [10_000, 20_000, 40_000, 60_000][usize::from(config & 3)],
            config @ 12..=15 => [10_000, 20_000][usize::from(config & 1)],
            config => [2_500, 5_000, 10_000, 20_000][usize::from(config & 3)],
        };
        let frames = match first & 3 {
            0 => 1,
            1 | 2 => 2,
            _ => u64::from(data.get(1).copied().unwrap_or(0) & 0x3f),
        };
        // Longer ones than 120 ms are no packets, and are taken to be as long as the one before.
        if (1..=120_000).contains(&(frames * frame_us)) {
            self.last = Duration::from_micros(frames * frame_us);
        }
        Some(self.last)
    }
}

/// Where a fresh decoder of a stream begins so that it goes on exactly as the old one would have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restart {
    /// The first chunk it needs.
    pub chunk: ChunkNumber,
    /// The stream time of the first sample that a decoder finds from there on.
    pub at: StreamTime,
    /// Bytes of audio since the format began, before that chunk: where its samples are aligned.
    pub bytes_before: u64,
    /// What that chunk's bytes are.
    pub format: AudioFormat,
    /// What a decoder must know that begins in the middle: of compressed audio, the byte of the chunk at which it begins
    /// and what the codec's headers said; empty for samples. Read by recognizers only. At most [`Restart::MAX_HEADERS`] bytes.
    pub headers: Bytes,
}

impl Restart {
    pub const MAX_HEADERS: usize = 16 * 1024;
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFormat {
    #[error("encoding {got:?} is not known; LINEAR16, MULAW, FLAC and OPUS are accepted")]
    Encoding { got: String },
    #[error("sampleRateHertz {got} is not supported for {}; {low} to {high} are accepted", .encoding.name())]
    Rate { encoding: Encoding, got: String, low: u32, high: u32 },
}

impl AudioFormat {
    /// # Errors
    /// When `rate` (Hz) is outside what `encoding` accepts.
    pub fn new(encoding: Encoding, rate: u32) -> Result<Self, InvalidFormat> {
        let (low, high) = encoding.rates();
        if (low..=high).contains(&rate) {
            Ok(Self { encoding, rate: SampleRate(rate) })
        } else {
            Err(InvalidFormat::Rate { encoding, got: rate.to_string(), low, high })
        }
    }

    /// Reads an encoding's name as clients write it, in any case.
    pub fn encoding_named(name: &str) -> Result<Encoding, InvalidFormat> {
        Encoding::ALL
            .into_iter()
            .find(|encoding| encoding.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| InvalidFormat::Encoding { got: name.chars().take(40).collect() })
    }
}

impl fmt::Display for AudioFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.encoding.name(), self.rate.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_outside_an_encoding_are_refused_with_what_is_accepted() {
        assert!(AudioFormat::new(Encoding::Linear16, 44_100).is_ok());
        let refused = AudioFormat::new(Encoding::Linear16, 7).unwrap_err();
        assert_eq!(refused.to_string(), "sampleRateHertz 7 is not supported for LINEAR16; 8000 to 48000 are accepted");
        assert!(AudioFormat::new(Encoding::Mulaw, 16_000).is_err());
    }

    #[test]
    fn chunks_are_as_long_as_they_say() {
        let ms = |ms| Some(Duration::from_millis(ms));
        let of = |encoding, rate| Meter::new(AudioFormat::new(encoding, rate).unwrap());
        assert_eq!(of(Encoding::Linear16, 16_000).chunk(&[0; 640]), ms(20));
        assert_eq!(of(Encoding::Mulaw, 8_000).chunk(&[0; 160]), ms(20));
        assert_eq!(of(Encoding::Flac, 16_000).chunk(b"fLaC"), None);
        let mut packets = of(Encoding::Opus, 48_000);
        // CELT 20 ms; two of SILK 20 ms; three of hybrid 10 ms; too many; nothing.
        for (packet, length) in [
            (&[0xf8, 1][..], 20),
            (&[0x09, 1, 1], 40),
            (&[0x63, 3, 1], 30),
            (&[0x1b, 0x3f], 30),
            (&[], 0),
            (&[0x80], 2),
        ] {
            let length = if length == 2 { Some(Duration::from_micros(2_500)) } else { ms(length) };
            assert_eq!(packets.chunk(packet), length, "{packet:x?}");
        }
        let mut stream = of(Encoding::Opus, 48_000);
        assert_eq!(stream.chunk(b"Og"), None);
        assert_eq!(stream.chunk(&[0xf8, 1]), None, "a stream is cut anywhere");
    }

    #[test]
    fn encodings_are_named_in_any_case() {
        assert_eq!(AudioFormat::encoding_named("Opus"), Ok(Encoding::Opus));
        assert!(AudioFormat::encoding_named("mp3").is_err());
    }
}
