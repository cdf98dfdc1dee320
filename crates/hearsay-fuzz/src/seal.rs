//! Checksums made right, so that what is behind them is reached.

/// Of every page in these bytes that is complete.
pub(crate) fn ogg(bytes: &mut [u8]) {
    let mut at = 0;
    while let Some(page) = bytes.get_mut(at..) {
        if page.len() < 27 || !page.starts_with(b"OggS") {
            return;
        }
        let segments = usize::from(page[26]);
        let Some(table) = page.get(27..27 + segments) else { return };
        let length = 27 + segments + table.iter().map(|size| usize::from(*size)).sum::<usize>();
        let Some(page) = page.get_mut(..length) else { return };
        page[22..26].fill(0);
        let sum = page.iter().fold(0_u32, |sum, byte| {
            (0..8)
                .fold(sum ^ u32::from(*byte) << 24, |sum, _| (sum << 1) ^ if sum >> 31 == 1 { 0x04c1_1db7 } else { 0 })
        });
        page[22..26].copy_from_slice(&sum.to_le_bytes());
        at += length;
    }
}

/// Of the one frame that these bytes are.
pub(crate) fn flac(frame: &mut [u8]) {
    let Some(header) = header(frame) else { return };
    if frame.len() < header + 3 {
        return;
    }
    frame[header] = crc8(&frame[..header]);
    let end = frame.len() - 2;
    let sum = frame[..end].iter().fold(0_u16, |sum, byte| {
        (0..8).fold(sum ^ u16::from(*byte) << 8, |sum, _| (sum << 1) ^ if sum >> 15 == 1 { 0x8005 } else { 0 })
    });
    frame[end..].copy_from_slice(&sum.to_be_bytes());
}

/// Whether a frame begins here: the header's checksum says so.
pub(crate) fn is_frame(bytes: &[u8]) -> bool {
    header(bytes).is_some_and(|header| bytes.get(header).is_some_and(|sum| *sum == crc8(&bytes[..header])))
}

/// Bytes before the header's checksum.
fn header(frame: &[u8]) -> Option<usize> {
    let [0xff, 0xf8 | 0xf9, sizes, _, number, ..] = frame else { return None };
    let number = (number.leading_ones() as usize).max(1);
    let block = match sizes >> 4 {
        6 => 1,
        7 => 2,
        _ => 0,
    };
    let rate = match sizes & 15 {
        12 => 1,
        13 | 14 => 2,
        _ => 0,
    };
    let length = 4 + number + block + rate;
    (length < frame.len()).then_some(length)
}

fn crc8(bytes: &[u8]) -> u8 {
    bytes
        .iter()
        .fold(0_u8, |sum, byte| (0..8).fold(sum ^ byte, |sum, _| (sum << 1) ^ if sum >> 7 == 1 { 0x07 } else { 0 }))
}
