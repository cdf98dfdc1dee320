//! WAV files, streamed from disk as 16-bit mono: memory stays flat whatever the length.

use std::{
    fs::File,
    io::{self, BufReader, Chain, Cursor, Read},
    path::{Path, PathBuf},
};

use bytes::{BufMut, Bytes, BytesMut};
use hound::{SampleFormat, WavReader};

/// What the server takes.
const RATES: std::ops::RangeInclusive<u32> = 8_000..=48_000;

#[derive(Debug, thiserror::Error)]
pub enum WavError {
    #[error("{}: {error}", path.display())]
    Open { path: PathBuf, error: std::io::Error },
    #[error(
        "{}: not a WAV file that can be read ({reason}); convert it first, for instance: \
         ffmpeg -i {} -ar 16000 -ac 1 -c:a pcm_s16le speech.wav", path.display(), path.display()
    )]
    Unreadable { path: PathBuf, reason: String },
    #[error("{}: {got} Hz; sample rates from 8000 to 48000 Hz are accepted", path.display())]
    Rate { path: PathBuf, got: u32 },
    #[error("{}: holds no audio", path.display())]
    Empty { path: PathBuf },
    #[error("{}: the file ends before its header says ({reason}); what it holds was transcribed", path.display())]
    Short { path: PathBuf, reason: String },
}

/// The header, put right, and the rest of the file.
type Source = Chain<Cursor<Vec<u8>>, Box<dyn Read + Send>>;

/// A header is found within this many bytes.
const HEADER: u64 = 64 << 10;

/// Opens a file whose header may not know how long it is: programs that write into pipes say 0 or the largest length there
/// is, and mean "to the end".
fn source(mut file: Box<dyn Read + Send>, length: u64) -> io::Result<Source> {
    let mut header = Vec::new();
    (&mut file).take(HEADER).read_to_end(&mut header)?;
    let field = |header: &[u8], at: usize| {
        header.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes)
    };
    let mut align = 1;
    // Behind "RIFF", its length, and "WAVE".
    let mut at = 12;
    while let Some(size) = field(&header, at + 4) {
        match &header[at..at + 4] {
            b"fmt " => align = field(&header, at + 20).map_or(1, |found| (found & 0xffff).max(1)),
            b"data" => {
                let rest = u32::try_from(length.saturating_sub(at as u64 + 8)).unwrap_or(u32::MAX);
                if matches!(size, 0 | u32::MAX) {
                    let whole = rest - rest % align;
                    header[at + 4..at + 8].copy_from_slice(&whole.to_le_bytes());
                }
                break;
            }
            _ => {}
        }
        // Chunks begin at even places.
        at = at.saturating_add(8 + size as usize + (size as usize & 1));
    }
    Ok(Cursor::new(header).chain(file))
}

/// A WAV file being read.
pub struct Wav {
    path: PathBuf,
    reader: WavReader<Source>,
    /// Said after what was read before it.
    failed: Option<WavError>,
    rate: u32,
    channels: u16,
    /// Frames: one sample of every channel.
    total: u64,
}

impl Wav {
    /// # Errors
    /// Tells what is wrong with the file, and what would be right.
    pub fn open(path: &Path) -> Result<Self, WavError> {
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), BufReader::new(file))));
        let (length, file) = opened.map_err(|error| WavError::Open { path: path.to_owned(), error })?;
        Self::read(path, Box::new(file), length)
    }

    /// A file that is in memory.
    ///
    /// # Errors
    /// As [`Wav::open`].
    pub fn of(bytes: Vec<u8>) -> Result<Self, WavError> {
        let length = bytes.len() as u64;
        Self::read(Path::new("memory"), Box::new(Cursor::new(bytes)), length)
    }

    fn read(path: &Path, file: Box<dyn Read + Send>, length: u64) -> Result<Self, WavError> {
        let source = source(file, length).map_err(|error| WavError::Open { path: path.to_owned(), error })?;
        let unreadable = |reason: String| WavError::Unreadable { path: path.to_owned(), reason };
        let reader = WavReader::new(source).map_err(|error| unreadable(error.to_string()))?;
        let spec = reader.spec();
        if !RATES.contains(&spec.sample_rate) {
            return Err(WavError::Rate { path: path.to_owned(), got: spec.sample_rate });
        }
        match (spec.sample_format, spec.bits_per_sample) {
            (SampleFormat::Int, 8 | 16 | 24 | 32) | (SampleFormat::Float, 32) => {}
            (format, bits) => return Err(unreadable(format!("{bits}-bit {format:?} samples"))),
        }
        if spec.channels == 0 {
            return Err(unreadable("no channels".to_owned()));
        }
        let total = u64::from(reader.duration());
        if total == 0 {
            return Err(WavError::Empty { path: path.to_owned() });
        }
        Ok(Self { path: path.to_owned(), rate: spec.sample_rate, channels: spec.channels, total, reader, failed: None })
    }

    /// In Hz.
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// In milliseconds.
    pub fn duration_ms(&self) -> u64 {
        self.total * 1_000 / u64::from(self.rate)
    }

    /// The next `frames` samples or fewer, LINEAR16 mono, little-endian; None at the end.
    ///
    /// # Errors
    /// When the file ends before its header says, or cannot be read; what was there came before.
    pub fn next(&mut self, frames: usize) -> Result<Option<Bytes>, WavError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let mut chunk = BytesMut::with_capacity(frames * 2);
        let spec = self.reader.spec();
        let mixed = match spec.sample_format {
            SampleFormat::Int => {
                let down = spec.bits_per_sample.saturating_sub(16);
                let up = 16_u16.saturating_sub(spec.bits_per_sample);
                let samples = self.reader.samples::<i32>().map(|sample| sample.map(|s| f64::from((s >> down) << up)));
                mix(samples, self.channels, frames, &mut chunk)
            }
            SampleFormat::Float => {
                // Full scale is 1.0; 32768 would be the first value that does not fit.
                let samples =
                    self.reader.samples::<f32>().map(|sample| sample.map(|s| f64::from(s) * f64::from(i16::MAX)));
                mix(samples, self.channels, frames, &mut chunk)
            }
        };
        if let Err(error) = mixed {
            let error = WavError::Short { path: self.path.clone(), reason: error.to_string() };
            if chunk.is_empty() {
                return Err(error);
            }
            self.failed = Some(error);
        }
        Ok(if chunk.is_empty() { None } else { Some(chunk.freeze()) })
    }
}

/// Averages the channels of up to `frames` frames.
fn mix(
    mut samples: impl Iterator<Item = Result<f64, hound::Error>>,
    channels: u16,
    frames: usize,
    chunk: &mut BytesMut,
) -> Result<(), hound::Error> {
    for _ in 0..frames {
        let mut sum = 0.0;
        for channel in 0..channels {
            match samples.next() {
                Some(sample) => sum += sample?,
                None if channel == 0 => return Ok(()),
                None => break,
            }
        }
        let mean = (sum / f64::from(channels)).round();
        // A float that is not a number becomes silence.
        chunk.put_i16_le(mean.clamp(f64::from(i16::MIN), f64::from(i16::MAX)) as i16);
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use hound::{WavSpec, WavWriter};

    use super::*;

    pub(crate) fn spec(rate: u32, channels: u16, bits: u16, format: SampleFormat) -> WavSpec {
        WavSpec { channels, sample_rate: rate, bits_per_sample: bits, sample_format: format }
    }

    fn read(spec: WavSpec, samples: &[i32], frames: usize) -> Vec<Vec<i16>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("speech.wav");
        let mut writer = WavWriter::create(&path, spec).unwrap();
        for &sample in samples {
            match spec.sample_format {
                SampleFormat::Int => writer.write_sample(sample).unwrap(),
                SampleFormat::Float => writer.write_sample(sample as f32 / 100.0).unwrap(),
            }
        }
        writer.finalize().unwrap();
        let mut wav = Wav::open(&path).unwrap();
        let mut chunks = Vec::new();
        while let Some(chunk) = wav.next(frames).unwrap() {
            chunks.push(chunk.chunks(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect());
        }
        chunks
    }

    #[test]
    fn sixteen_bits_come_unchanged_in_chunks_of_the_asked_size() {
        let samples = [0, 1, -1, 32_767, -32_768];
        let chunks = read(spec(16_000, 1, 16, SampleFormat::Int), &samples, 2);
        assert_eq!(chunks, [vec![0, 1], vec![-1, 32_767], vec![-32_768]]);
    }

    #[test]
    fn other_depths_are_scaled() {
        let cases = [
            (8, vec![0, 127, -128], vec![0, 32_512, -32_768]),
            (24, vec![0x7f_ffff, -0x80_0000, 256], vec![32_767, -32_768, 1]),
            (32, vec![i32::MAX, i32::MIN, 65_536], vec![32_767, -32_768, 1]),
        ];
        for (bits, samples, expected) in cases {
            assert_eq!(read(spec(8_000, 1, bits, SampleFormat::Int), &samples, 10), [expected], "{bits} bits");
        }
        // Written as hundredths: full scale, beyond it, half.
        let chunks = read(spec(48_000, 1, 32, SampleFormat::Float), &[100, -500, 50], 10);
        assert_eq!(chunks, [vec![32_767, -32_768, 16_384]]);
    }

    #[test]
    fn channels_are_averaged() {
        let chunks = read(spec(44_100, 2, 16, SampleFormat::Int), &[100, 300, -5, -7], 10);
        assert_eq!(chunks, [vec![200, -6]]);
        let chunks = read(spec(44_100, 3, 16, SampleFormat::Int), &[32_767, 32_767, 32_767], 10);
        assert_eq!(chunks, [vec![32_767]]);
    }

    #[test]
    fn what_cannot_be_read_says_why_and_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let open = |path: &Path| Wav::open(path).err().unwrap().to_string();
        let missing = open(&folder.path().join("missing.wav"));
        assert!(missing.contains("missing.wav") && missing.contains("No such file"), "{missing}");
        let text = open(&write("talk.mp3", b"ID3 and so on"));
        assert!(text.contains("not a WAV file") && text.contains("ffmpeg -i"), "{text}");

        let path = folder.path().join("fast.wav");
        let mut writer = WavWriter::create(&path, spec(96_000, 1, 16, SampleFormat::Int)).unwrap();
        writer.write_sample(1).unwrap();
        writer.finalize().unwrap();
        assert!(open(&path).ends_with("96000 Hz; sample rates from 8000 to 48000 Hz are accepted"));

        let path = folder.path().join("empty.wav");
        WavWriter::create(&path, spec(16_000, 1, 16, SampleFormat::Int)).unwrap().finalize().unwrap();
        assert!(open(&path).ends_with("holds no audio"));
    }

    #[test]
    fn a_file_cut_short_is_told_of() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cut.wav");
        let mut writer = WavWriter::create(&path, spec(16_000, 1, 16, SampleFormat::Int)).unwrap();
        for _ in 0..1_000 {
            writer.write_sample(5).unwrap();
        }
        writer.finalize().unwrap();
        let length = std::fs::metadata(&path).unwrap().len();
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length - 500).unwrap();
        let mut wav = Wav::open(&path).unwrap();
        assert_eq!(wav.next(100).unwrap().map(|chunk| chunk.len()), Some(200));
        assert_eq!(wav.next(1_000).unwrap().map(|chunk| chunk.len()), Some(1_300), "all that is there");
        assert!(matches!(wav.next(1_000), Err(WavError::Short { .. })));
    }

    #[test]
    fn a_header_that_does_not_know_the_length_means_to_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("piped.wav");
        let mut writer = WavWriter::create(&path, spec(16_000, 2, 16, SampleFormat::Int)).unwrap();
        for _ in 0..1_000 {
            writer.write_sample(5).unwrap();
        }
        writer.finalize().unwrap();
        let whole = std::fs::read(&path).unwrap();
        let data = whole.windows(4).position(|four| four == b"data").unwrap();
        for unknown in [0, u32::MAX] {
            let mut piped = whole.clone();
            piped[data + 4..data + 8].copy_from_slice(&unknown.to_le_bytes());
            // Half a frame more, as when the writer was ended.
            piped.push(7);
            std::fs::write(&path, piped).unwrap();
            let mut wav = Wav::open(&path).unwrap();
            assert_eq!(wav.duration_ms(), 31);
            assert_eq!(wav.next(1_000).unwrap().map(|chunk| chunk.len()), Some(1_000));
            assert!(wav.next(1_000).unwrap().is_none());
        }
    }
}
