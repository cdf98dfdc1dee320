//! What the bytes of a stream mean.

use std::fmt;

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
    /// Signed 16-bit little-endian samples, mono, no header.
    Linear16,
    /// G.711 µ-law, mono.
    Mulaw,
    Flac,
    /// Raw Opus packets, one a message, or an Ogg or WebM stream, told apart by its first bytes.
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
            Self::Linear16 | Self::Opus => (8_000, 48_000),
            Self::Mulaw => (8_000, 8_000),
            Self::Flac => (8_000, 48_000),
        }
    }
}

/// Samples per second. Known to be one the encoding accepts when inside an [`AudioFormat`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SampleRate(u32);

impl SampleRate {
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

/// Where a fresh decoder of a stream begins so that it goes on exactly as the old one would have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restart {
    /// The first chunk it needs.
    pub chunk: ChunkNumber,
    /// The stream time of that chunk's first sample.
    pub at: StreamTime,
    /// Bytes of audio since the format began, before that chunk: where its samples are aligned.
    pub bytes_before: u64,
    /// What that chunk's bytes are.
    pub format: AudioFormat,
    /// Codec headers a decoder needs first; at most [`Restart::MAX_HEADERS`] bytes.
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
    fn encodings_are_named_in_any_case() {
        assert_eq!(AudioFormat::encoding_named("Opus"), Ok(Encoding::Opus));
        assert!(AudioFormat::encoding_named("mp3").is_err());
    }
}
