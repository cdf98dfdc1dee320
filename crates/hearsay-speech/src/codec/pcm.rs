//! Samples of a fixed width.

use std::ops::Range;

/// Appends the part of `count` whole samples that `data` is: two bytes each LINEAR16, one each µ-law.
pub(super) fn decode(data: &[u8], count: usize, part: Range<usize>, samples: &mut Vec<f32>) {
    if data.len() == count {
        let bytes = data.get(part).unwrap_or_default();
        samples.extend(bytes.iter().map(|byte| f32::from(expand(*byte)) / 32_768.0));
    } else {
        let (whole, _) = data.as_chunks::<2>();
        let bytes = whole.get(part).unwrap_or_default();
        samples.extend(bytes.iter().map(|bytes| f32::from(i16::from_le_bytes(*bytes)) / 32_768.0));
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
    use super::*;

    #[test]
    fn mulaw_expands_as_the_standard_says() {
        for (byte, value) in [(0x00, -32_124), (0x80, 32_124), (0x7f, 0), (0xff, 0), (0xfe, 8), (0x7e, -8)] {
            assert_eq!(expand(byte), value, "{byte:#x}");
        }
    }
}
