//! Streams of every encoding, in the messages they come in.
//!
//! An input is a byte of [`Flags`], then records: a length of two bytes, little-endian, and as many bytes of a stream. One record
//! is one message.

use bytes::Bytes;
use hearsay_protocol::{AudioFormat, ChunkNumber, Encoding, Meter, Restart, StreamTime};
use hearsay_speech::codec::{Decoder, MAX_HELD, Packet, Reader, encode};

use crate::seal;

pub(crate) const WORDS: &[&str] =
    &["OggS", "OpusHead", "OpusTags", "fLaC", "A_OPUS", "RIFF", "ID3", "ftyp", "\u{0}\u{0}", "\u{7f}", "\u{1}"];

/// Samples decoded of one input: what is silence by the minute is counted, not made.
const MOST_SAMPLES: u64 = 1 << 20;

/// How an input is to be taken.
#[derive(Clone, Copy)]
struct Flags(u8);

impl Flags {
    /// Checksums are made right first: no fuzzer guesses them.
    const SEALED: u8 = 1;
    /// The first record is the codec headers of a restart point, of whoever wrote them.
    const HEADERS: u8 = 2;

    fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }

    /// The announced rate.
    fn format(self, encoding: Encoding) -> AudioFormat {
        let (low, high) = encoding.rates();
        let rate = [low, high, 16_000, 44_100][usize::from(self.0 >> 6)].clamp(low, high);
        AudioFormat::new(encoding, rate).unwrap_or_else(|error| panic!("a rate within the encoding's: {error}"))
    }
}

/// Records of an input, empty ones too.
fn records(mut data: &[u8]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    while let Some((length, rest)) = data.split_first_chunk::<2>() {
        let (record, rest) = rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
        records.push(record.to_vec());
        data = rest;
    }
    records
}

fn input(flags: u8, records: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut input = vec![flags];
    for record in records {
        for part in record.chunks(usize::from(u16::MAX)) {
            input.extend((part.len() as u16).to_le_bytes());
            input.extend(part);
        }
    }
    input
}

pub(crate) fn linear16(data: &[u8]) {
    run(Encoding::Linear16, data, |_| {}, false);
}

pub(crate) fn mulaw(data: &[u8]) {
    run(Encoding::Mulaw, data, |_| {}, false);
}

pub(crate) fn flac(data: &[u8]) {
    run(Encoding::Flac, data, seal::flac, true);
}

pub(crate) fn opus(data: &[u8]) {
    run(Encoding::Opus, data, |_| {}, false);
}

pub(crate) fn ogg(data: &[u8]) {
    run(Encoding::Opus, data, seal::ogg, true);
}

pub(crate) fn webm(data: &[u8]) {
    run(Encoding::Opus, data, |_| {}, true);
}

fn run(encoding: Encoding, data: &[u8], seal: fn(&mut [u8]), is_stream: bool) {
    let Some((flags, rest)) = data.split_first() else { return };
    let flags = Flags(*flags);
    let format = flags.format(encoding);
    let mut records = records(rest);
    let mut restart =
        Restart { chunk: ChunkNumber(0), at: StreamTime(0), bytes_before: 0, format, headers: Bytes::new() };
    if flags.has(Flags::HEADERS) && !records.is_empty() {
        restart.headers = records.remove(0).into();
    }
    if flags.has(Flags::SEALED) {
        records.iter_mut().for_each(|record| seal(record));
    }
    let chunks: Vec<Bytes> = records.into_iter().map(Bytes::from).collect();
    let mut meter = Meter::new(format);
    for chunk in &chunks {
        assert!(meter.chunk(chunk).is_none_or(|length| length.as_secs() <= 65), "a message lasts a minute");
    }
    let Ok((reader, _)) = Reader::resume(&restart) else { return };
    let heard = hear(reader, &chunks);
    decode(encoding, &heard.packets);
    if heard.fault || !restart.headers.is_empty() {
        return;
    }
    // Opus in messages is in messages.
    let magic = |first: &Bytes| [&b"OggS"[..], b"\x1a\x45\xdf\xa3"].iter().any(|magic| first.starts_with(magic));
    if is_stream && chunks.first().is_some_and(|first| encoding != Encoding::Opus || magic(first)) {
        let whole: Bytes = chunks.concat().into();
        let whole = hear(Reader::new(format), &[whole]);
        assert!(whole.fault || whole.packets == heard.packets, "cuts change what is heard");
    }
    for at in [0, heard.packets.len() / 2, heard.packets.len().saturating_sub(1)] {
        enter(format, &chunks, &heard.packets, at);
    }
}

struct Heard {
    packets: Vec<Packet>,
    fault: bool,
}

fn hear(mut reader: Reader, chunks: &[Bytes]) -> Heard {
    let mut packets: Vec<Packet> = Vec::new();
    let mut at = reader.samples();
    for chunk in chunks {
        let before = reader.taken();
        let taken = reader.push(chunk.clone());
        while let Some(packet) = reader.packet() {
            assert!(packet.start == at, "{packet:?} follows {at}");
            at = packet.end();
            packets.push(packet);
        }
        assert_eq!(reader.samples(), at);
        if let Err(fault) = taken {
            let fault = fault.to_string();
            assert!(fault.starts_with("audio is not ") && fault.len() < 512, "{fault}");
            return Heard { packets, fault: true };
        }
        assert!(reader.taken() >= before + chunk.len() as u64, "bytes are lost");
        assert!(reader.here().byte + MAX_HELD as u64 * 4 >= reader.taken(), "more is held than is allowed");
    }
    Heard { packets, fault: false }
}

fn decode(encoding: Encoding, packets: &[Packet]) {
    let mut decoder = Decoder::new(encoding);
    let mut samples = Vec::new();
    let mut total = 0;
    for packet in packets {
        total += packet.samples;
        if total > MOST_SAMPLES {
            return;
        }
        samples.clear();
        let lost = decoder.decode(packet, &mut samples);
        assert_eq!(samples.len() as u64, packet.samples, "{packet:?}");
        assert!(lost == 0 || lost == packet.samples, "{packet:?}");
        assert!(samples.iter().all(|sample| sample.is_finite() && sample.abs() < 64.0), "{packet:?}");
    }
}

/// From the place that a packet names, a fresh reader finds it and all that follow, whatever came before.
fn enter(format: AudioFormat, chunks: &[Bytes], all: &[Packet], at: usize) {
    let Some(entered) = all.get(at) else { return };
    let mut bytes_before = 0;
    let passed = |chunk: &&Bytes| {
        let passed = bytes_before + chunk.len() as u64 <= entered.resume.byte;
        bytes_before += if passed { chunk.len() as u64 } else { 0 };
        passed
    };
    let skipped = chunks.iter().take_while(passed).count();
    let headers = entered.resume.write(0);
    assert!(headers.len() <= 100);
    let restart = Restart { chunk: ChunkNumber(skipped as u64), at: StreamTime(0), bytes_before, format, headers };
    let (reader, _) = Reader::resume(&restart).unwrap_or_else(|error| panic!("{error}: {:?}", entered.resume));
    let again = hear(reader, &chunks[skipped..]);
    let from = again.packets.iter().position(|packet| packet == entered);
    let same = from.is_some_and(|from| again.packets[from..] == all[at..]);
    assert!(same, "entered at {entered:?}, found {:?}", again.packets.first());
}

/// A sound with something in every band, about -12 dB.
fn sound(rate: u32, ms: u32) -> Vec<i16> {
    let mut state = 7_u32;
    (0..rate * ms / 1_000)
        .map(|n| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let t = n as f32 / rate as f32;
            let tone = (1_400.0 * t).sin() * 0.1 + (700.0 * t * (1.0 + t)).sin() * 0.12;
            ((tone + (state >> 16) as i16 as f32 / 32_768.0 * 0.03) * 32_767.0) as i16
        })
        .collect()
}

fn cut(stream: &[u8], size: usize) -> Vec<Vec<u8>> {
    stream.chunks(size).map(<[u8]>::to_vec).collect()
}

pub(crate) fn linear16_seeds() -> Vec<Vec<u8>> {
    let stream: Vec<u8> = sound(16_000, 60).iter().flat_map(|sample| sample.to_le_bytes()).collect();
    vec![
        input(0x80, cut(&stream, 640)),
        input(0x40, cut(&stream, 333)),
        input(0, [b"RIFF\x24\x10\0\0WAVEfmt ".to_vec(), stream]),
    ]
}

pub(crate) fn mulaw_seeds() -> Vec<Vec<u8>> {
    let stream = encode::mulaw(&sound(8_000, 60));
    vec![input(0, cut(&stream, 160)), input(0x40, cut(&stream, 77))]
}

pub(crate) fn flac_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (channels, bits, rate, block) in [(1, 16, 16_000, 192), (2, 24, 48_000, 256), (1, 8, 8_000, 64)] {
        let samples: Vec<i32> = sound(rate, 40)
            .into_iter()
            .flat_map(|sample| std::iter::repeat_n(i32::from(sample) << 8 >> (24 - bits), channels))
            .collect();
        let Ok(stream) = encode::flac(&samples, channels, bits, rate, block) else { continue };
        // A record each for the header and for every frame, so that checksums can be made right after a change.
        let mut starts: Vec<usize> = stream
            .windows(2)
            .enumerate()
            .filter(|(_, sync)| sync[0] == 0xff && sync[1] & 0xfe == 0xf8)
            .map(|(at, _)| at)
            .filter(|at| seal::is_frame(&stream[*at..]))
            .collect();
        starts.push(stream.len());
        let frames = starts.windows(2).map(|pair| stream[pair[0]..pair[1]].to_vec());
        let head = stream[..starts[0]].to_vec();
        seeds.push(input(Flags::SEALED, std::iter::once(head).chain(frames)));
        seeds.push(input(0, cut(&stream, 100)));
    }
    seeds.push(entered(&seeds[0], Encoding::Flac));
    seeds
}

fn packets(ms: u32, frame_ms: u32, bits_per_second: u32) -> (Vec<Vec<u8>>, u16) {
    let opus = encode::Opus { frame_ms, bits_per_second, ..encode::Opus::default() };
    encode::opus(&sound(48_000, ms), &opus).unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) fn opus_seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = [(20, 24_000), (60, 12_000), (10, 96_000), (40, 16_000)]
        .into_iter()
        .map(|(frame_ms, bits)| input(0x40, packets(120, frame_ms, bits).0))
        .collect();
    seeds.push(entered(&seeds[0], Encoding::Opus));
    seeds
}

pub(crate) fn ogg_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (page, frame_ms) in [(1, 20), (3, 60), (50, 20)] {
        let (packets, skip) = packets(200, frame_ms, 24_000);
        let Ok(stream) = encode::ogg(&packets, skip, page, 9) else { continue };
        let mut starts: Vec<usize> =
            stream.windows(4).enumerate().filter(|(_, magic)| magic == b"OggS").map(|(at, _)| at).collect();
        starts.push(stream.len());
        let pages = starts.windows(2).map(|pair| stream[pair[0]..pair[1]].to_vec());
        seeds.push(input(Flags::SEALED, pages));
        seeds.push(input(0, cut(&stream, 100)));
    }
    seeds.push(entered(&seeds[0], Encoding::Opus));
    seeds
}

pub(crate) fn webm_seeds() -> Vec<Vec<u8>> {
    let (packets, skip) = packets(200, 20, 24_000);
    let mut seeds: Vec<Vec<u8>> =
        [1, 4, 1_000].map(|cluster| input(0, cut(&encode::webm(&packets, skip, cluster), 150))).into();
    seeds.push(entered(&seeds[0], Encoding::Opus));
    seeds
}

/// The rest of a stream, behind what a restart point says of its beginning.
fn entered(seed: &[u8], encoding: Encoding) -> Vec<u8> {
    let flags = seed[0];
    let mut chunks = records(&seed[1..]);
    let whole: Vec<Bytes> = chunks.iter().cloned().map(Bytes::from).collect();
    let heard = hear(Reader::new(Flags(flags).format(encoding)), &whole);
    let resume = heard.packets[heard.packets.len() / 2].resume;
    let mut before = 0;
    chunks.retain(|chunk| {
        before += chunk.len() as u64;
        before > resume.byte
    });
    // Counted from this chunk on, so that it begins at byte 0.
    chunks.insert(0, resume.write(0).to_vec());
    input(flags | Flags::HEADERS, chunks)
}
