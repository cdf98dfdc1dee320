//! Files that `transcribe` is given.

use hearsay_load::transcribe::Wav;

pub(crate) const WORDS: &[&str] = &[
    "RIFF",
    "WAVE",
    "fmt ",
    "data",
    "LIST",
    "fact",
    "\u{0}\u{0}\u{0}\u{0}",
    "\u{1}\u{0}\u{1}\u{0}",
    "\u{3}\u{0}\u{1}\u{0}",
    "\u{10}\u{0}",
    "\u{18}\u{0}",
    "\u{20}\u{0}",
];

/// A chunk has no more than was asked for, nothing comes that the header does not announce, and the samples are the same in
/// pieces of any size.
pub(crate) fn run(data: &[u8]) {
    let by_few = read(data, 7);
    assert_eq!(by_few, read(data, 1_000), "samples depend on how they are asked for");
}

/// The samples, and what was wrong with the rest; or why there are none.
fn read(data: &[u8], frames: usize) -> Result<(Vec<u8>, Option<String>), String> {
    let mut wav = Wav::of(data.to_vec()).map_err(|error| error.to_string())?;
    assert!((8_000..=48_000).contains(&wav.rate()));
    let announced = (wav.duration_ms() + 1) * u64::from(wav.rate()) / 1_000 + 1;
    let mut samples = Vec::new();
    loop {
        match wav.next(frames) {
            Ok(Some(chunk)) => {
                assert!(!chunk.is_empty() && chunk.len() % 2 == 0 && chunk.len() <= 2 * frames, "{}", chunk.len());
                samples.extend_from_slice(&chunk);
                assert!(samples.len() as u64 / 2 <= announced, "more than the header says");
            }
            Ok(None) => return Ok((samples, None)),
            Err(error) => return Ok((samples, Some(error.to_string()))),
        }
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (form, channels, rate, bits) in [(1, 1, 16_000, 16), (1, 2, 44_100, 24), (3, 1, 48_000, 32), (1, 1, 8_000, 8)] {
        for size in [480, 0, u32::MAX] {
            seeds.push(file(form, channels, rate, bits, size));
        }
    }
    seeds
}

/// `size`: what the header says of the samples, of which there are 480 bytes.
fn file(form: u16, channels: u16, rate: u32, bits: u16, size: u32) -> Vec<u8> {
    let align = channels * bits / 8;
    let mut file = Vec::new();
    file.extend_from_slice(b"RIFF");
    file.extend_from_slice(&size.saturating_add(36).to_le_bytes());
    file.extend_from_slice(b"WAVEfmt ");
    file.extend_from_slice(&16_u32.to_le_bytes());
    file.extend_from_slice(&form.to_le_bytes());
    file.extend_from_slice(&channels.to_le_bytes());
    file.extend_from_slice(&rate.to_le_bytes());
    file.extend_from_slice(&(rate * u32::from(align)).to_le_bytes());
    file.extend_from_slice(&align.to_le_bytes());
    file.extend_from_slice(&bits.to_le_bytes());
    file.extend_from_slice(b"data");
    file.extend_from_slice(&size.to_le_bytes());
    file.extend((0..480_u32).map(|at| (at * 37) as u8));
    file
}
