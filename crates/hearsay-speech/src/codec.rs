//! Bytes of a stream into samples.

use hearsay_protocol::{AudioFormat, Encoding};

/// Decodes one run of bytes. Remembers what of a sample has arrived; is given bytes in order, cut anywhere.
pub trait Codec: Send {
    /// Appends the samples that `data` completes, -1 to 1.
    fn decode(&mut self, data: &[u8], samples: &mut Vec<f32>);
}

/// Audio this build cannot hear.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} audio cannot be recognized yet; LINEAR16 and MULAW can", .format.encoding.name())]
pub struct Unsupported {
    pub format: AudioFormat,
}

/// Bytes of one sample, for encodings in which every sample has the same: a decoder may begin at any of them.
///
/// # Errors
/// For encodings that are not decoded.
pub fn width(format: AudioFormat) -> Result<u64, Unsupported> {
    match format.encoding {
        Encoding::Linear16 => Ok(2),
        Encoding::Mulaw => Ok(1),
        Encoding::Flac | Encoding::Opus => Err(Unsupported { format }),
    }
}

/// A decoder whose first byte is the first of a sample.
///
/// # Errors
/// For encodings that are not decoded.
pub fn open(format: AudioFormat) -> Result<Box<dyn Codec>, Unsupported> {
    match format.encoding {
        Encoding::Linear16 => Ok(Box::new(Linear16 { low: None })),
        Encoding::Mulaw => Ok(Box::new(Mulaw)),
        Encoding::Flac | Encoding::Opus => Err(Unsupported { format }),
    }
}

struct Linear16 {
    /// The first byte of a sample whose second has not arrived.
    low: Option<u8>,
}

impl Codec for Linear16 {
    fn decode(&mut self, mut data: &[u8], samples: &mut Vec<f32>) {
        let sample = |bytes: [u8; 2]| f32::from(i16::from_le_bytes(bytes)) / 32_768.0;
        if let Some(low) = self.low
            && let Some((&high, rest)) = data.split_first()
        {
            samples.push(sample([low, high]));
            self.low = None;
            data = rest;
        }
        let (whole, rest) = data.as_chunks::<2>();
        samples.extend(whole.iter().map(|bytes| sample(*bytes)));
        if let [low] = rest {
            self.low = Some(*low);
        }
    }
}

struct Mulaw;

impl Codec for Mulaw {
    fn decode(&mut self, data: &[u8], samples: &mut Vec<f32>) {
        samples.extend(data.iter().map(|byte| f32::from(expand(*byte)) / 32_768.0));
    }
}

/// G.711: sign, three bits of exponent, four of mantissa, all inverted.
fn expand(byte: u8) -> i16 {
    let byte = !byte;
    let magnitude = ((i16::from(byte & 0x0f) << 3) + 0x84) << ((byte >> 4) & 0x07);
    if byte & 0x80 == 0 { magnitude - 0x84 } else { 0x84 - magnitude }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn format(encoding: Encoding) -> AudioFormat {
        AudioFormat::new(encoding, 8_000).unwrap()
    }

    proptest! {
        #[test]
        fn linear16_does_not_depend_on_where_its_bytes_are_cut(
            bytes in prop::collection::vec(any::<u8>(), 0..64),
            cuts in prop::collection::vec(0..9_usize, 0..32),
        ) {
            let mut whole = Vec::new();
            open(format(Encoding::Linear16)).unwrap().decode(&bytes, &mut whole);
            prop_assert_eq!(whole.len(), bytes.len() / 2);
            let mut pieces = Vec::new();
            let mut codec = open(format(Encoding::Linear16)).unwrap();
            let mut rest = &bytes[..];
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                codec.decode(piece, &mut pieces);
                rest = after;
            }
            codec.decode(rest, &mut pieces);
            prop_assert_eq!(pieces, whole);
        }
    }

    #[test]
    fn mulaw_expands_as_the_standard_says() {
        for (byte, value) in [(0x00, -32_124), (0x80, 32_124), (0x7f, 0), (0xff, 0), (0xfe, 8), (0x7e, -8)] {
            assert_eq!(expand(byte), value, "{byte:#x}");
        }
    }

    #[test]
    fn what_cannot_be_decoded_is_named() {
        let refused = open(format(Encoding::Opus)).err().unwrap();
        assert_eq!(refused.to_string(), "OPUS audio cannot be recognized yet; LINEAR16 and MULAW can");
        assert!(width(format(Encoding::Flac)).is_err());
    }
}
