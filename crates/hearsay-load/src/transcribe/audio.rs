//! A file as the numbered messages it is sent in, and those of them that may have to be sent again. No clock and no socket.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{Wav, WavError, pace::CHUNK_MS};

/// Messages kept at most: a minute of audio, twice what a server lets be unacknowledged. With as many nothing more is sent.
const KEPT: usize = 600;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) data: Bytes,
    /// Where its audio begins and ends in the file. Of the whole, so that rates which do not divide evenly do not drift.
    pub(super) start_ms: u64,
    pub(super) end_ms: u64,
}

/// What the server has of the file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Acked {
    /// Audio up to here is on the log.
    pub(super) ms: u64,
    /// No message before this one is ever asked for again.
    pub(super) restart: u64,
}

impl Acked {
    pub(super) fn or_later(&mut self, newer: Self) {
        *self = Self { ms: self.ms.max(newer.ms), restart: self.restart.max(newer.restart) };
    }
}

/// A file being sent.
pub(super) struct Audio {
    wav: Wav,
    /// Samples read.
    read: u64,
    /// What was wrong with the rest of the file.
    short: Option<WavError>,
    over: bool,
    kept: VecDeque<Chunk>,
    /// The number of the first message kept, and of the one that goes next.
    first: u64,
    next: u64,
    /// Messages below went before.
    went: u64,
}

impl Audio {
    pub(super) fn new(wav: Wav) -> Self {
        Self { wav, read: 0, short: None, over: false, kept: VecDeque::new(), first: 0, next: 0, went: 0 }
    }

    /// In Hz.
    pub(super) fn rate(&self) -> u32 {
        self.wav.rate()
    }

    /// The message that goes next; none at the end of the file.
    pub(super) fn next(&mut self) -> Option<Chunk> {
        let at = (self.next - self.first) as usize;
        if at == self.kept.len() {
            let chunk = self.read()?;
            self.kept.push_back(chunk);
        }
        self.kept.get(at).cloned()
    }

    fn read(&mut self) -> Option<Chunk> {
        if self.over {
            return None;
        }
        let rate = u64::from(self.wav.rate());
        match self.wav.next((rate * CHUNK_MS / 1_000) as usize) {
            Ok(Some(data)) => {
                let ms = |samples: u64| samples * 1_000 / rate;
                let start_ms = ms(self.read);
                self.read += data.len() as u64 / 2;
                return Some(Chunk { data, start_ms, end_ms: ms(self.read) });
            }
            Ok(None) => {}
            Err(error) => self.short = Some(error),
        }
        self.over = true;
        None
    }

    /// There is room to keep the message that goes next.
    pub(super) fn has_room(&self, acked: Acked) -> bool {
        self.next.saturating_sub(acked.restart.max(self.first)) < KEPT as u64
    }

    /// The message that goes next went. Answers how much audio went for the first time, in ms.
    pub(super) fn sent(&mut self, chunk: &Chunk) -> u64 {
        self.next += 1;
        if self.next <= self.went {
            return 0;
        }
        self.went = self.next;
        chunk.end_ms - chunk.start_ms
    }

    /// Keeps nothing that is never asked for.
    pub(super) fn forget(&mut self, acked: Acked) {
        while self.first < acked.restart.min(self.next) && self.kept.pop_front().is_some() {
            self.first += 1;
        }
    }

    /// Goes on from this message. False when it is not kept, or was never sent.
    pub(super) fn go_back(&mut self, chunk: u64) -> bool {
        let known = (self.first..=self.went).contains(&chunk);
        if known {
            self.next = chunk;
        }
        known
    }

    /// What was wrong with the rest of the file.
    pub(super) fn into_short(self) -> Option<WavError> {
        self.short
    }
}

#[cfg(test)]
mod tests {
    use hound::{SampleFormat, WavWriter};

    use super::{super::wav::tests::spec, *};

    fn audio(ms: u32) -> Audio {
        let mut bytes = std::io::Cursor::new(Vec::new());
        let mut writer = WavWriter::new(&mut bytes, spec(8_000, 1, 16, SampleFormat::Int)).unwrap();
        for sample in 0..8 * ms {
            writer.write_sample((sample / 800) as i16).unwrap();
        }
        writer.finalize().unwrap();
        Audio::new(Wav::of(bytes.into_inner()).unwrap())
    }

    fn send(audio: &mut Audio) -> Option<(i16, u64)> {
        let chunk = audio.next()?;
        let ms = audio.sent(&chunk);
        Some((i16::from_le_bytes([chunk.data[0], chunk.data[1]]), ms))
    }

    #[test]
    fn what_may_be_asked_for_is_sent_again_and_counted_once() {
        let mut audio = audio(1_050);
        let whole: Vec<_> = std::iter::from_fn(|| send(&mut audio)).collect();
        let each: Vec<_> = (0..10).map(|number| (number, 100)).chain([(10, 50)]).collect();
        assert_eq!(whole, each);
        audio.forget(Acked { ms: 700, restart: 6 });
        assert!(!audio.go_back(5), "it is kept no longer");
        assert!(!audio.go_back(12), "it was never sent");
        assert!(audio.go_back(6));
        let again: Vec<_> = std::iter::from_fn(|| send(&mut audio)).collect();
        assert_eq!(again, (6..11).map(|number| (number, 0)).collect::<Vec<_>>());
        assert!(audio.go_back(11), "nothing is missing");
        assert_eq!(send(&mut audio), None);
        assert!(audio.into_short().is_none());
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut audio = audio(70_000);
        let nothing = Acked::default();
        let mut sent = 0;
        while audio.has_room(nothing) {
            assert!(send(&mut audio).is_some());
            sent += 1;
        }
        assert_eq!((sent, audio.kept.len()), (KEPT, KEPT));
        let acked = Acked { ms: 1_000, restart: 10 };
        assert!(audio.has_room(acked));
        audio.forget(acked);
        assert_eq!(audio.kept.len(), KEPT - 10);
    }
}
