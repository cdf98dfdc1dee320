//! Readers and decoders under streams of every encoding, cut anywhere, entered anywhere, damaged and made up.

use proptest::{collection::vec, prelude::*};

use super::{encode::Opus, *};

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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Linear16,
    Mulaw,
    Flac { block: usize, rate: u32 },
    Raw { frame_ms: u32, bits: u32 },
    Ogg { page: usize, frame_ms: u32 },
    WebM { cluster: usize },
}

const KINDS: [Kind; 12] = [
    Kind::Linear16,
    Kind::Mulaw,
    Kind::Flac { block: 1_024, rate: 16_000 },
    Kind::Flac { block: 4_096, rate: 44_100 },
    Kind::Raw { frame_ms: 20, bits: 24_000 },
    Kind::Raw { frame_ms: 60, bits: 12_000 },
    Kind::Raw { frame_ms: 10, bits: 96_000 },
    Kind::Ogg { page: 1, frame_ms: 20 },
    Kind::Ogg { page: 50, frame_ms: 20 },
    Kind::Ogg { page: 7, frame_ms: 60 },
    Kind::WebM { cluster: 5 },
    Kind::WebM { cluster: 1_000 },
];

impl Kind {
    fn format(self) -> AudioFormat {
        let (encoding, rate) = match self {
            Self::Linear16 => (Encoding::Linear16, 16_000),
            Self::Mulaw => (Encoding::Mulaw, 8_000),
            // Not the stream's own: that one counts.
            Self::Flac { .. } => (Encoding::Flac, 22_050),
            Self::Raw { .. } | Self::Ogg { .. } | Self::WebM { .. } => (Encoding::Opus, 48_000),
        };
        AudioFormat::new(encoding, rate).unwrap()
    }

    /// The stream's messages if it has any, or else its bytes.
    fn stream(self, ms: u32) -> Vec<Vec<u8>> {
        let opus = |frame_ms, bits_per_second| {
            encode::opus(&sound(48_000, ms), &Opus { frame_ms, bits_per_second, ..Opus::default() }).unwrap()
        };
        match self {
            Self::Linear16 => vec![sound(16_000, ms).iter().flat_map(|sample| sample.to_le_bytes()).collect()],
            Self::Mulaw => vec![encode::mulaw(&sound(8_000, ms))],
            Self::Flac { block, rate } => {
                let samples: Vec<i32> = sound(rate, ms).into_iter().map(i32::from).collect();
                vec![encode::flac(&samples, 1, 16, rate, block).unwrap()]
            }
            Self::Raw { frame_ms, bits } => opus(frame_ms, bits).0,
            Self::Ogg { page, frame_ms } => {
                let (packets, skip) = opus(frame_ms, 32_000);
                vec![encode::ogg(&packets, skip, page, 9).unwrap()]
            }
            Self::WebM { cluster } => {
                let (packets, skip) = opus(20, 32_000);
                vec![encode::webm(&packets, skip, cluster)]
            }
        }
    }

    /// Cut at `cuts` (sizes, repeated), but for messages, which are what they are.
    fn chunks(self, ms: u32, cuts: &[usize]) -> Vec<Bytes> {
        let stream = self.stream(ms);
        if matches!(self, Self::Raw { .. }) {
            return stream.into_iter().map(Bytes::from).collect();
        }
        chunked(&stream.concat(), cuts)
    }

    fn rate(self) -> u32 {
        match self {
            Self::Linear16 | Self::Raw { .. } | Self::Ogg { .. } | Self::WebM { .. } => 16_000,
            Self::Mulaw => 8_000,
            Self::Flac { rate, .. } => rate,
        }
    }
}

fn chunked(bytes: &[u8], cuts: &[usize]) -> Vec<Bytes> {
    let mut rest = Bytes::copy_from_slice(bytes);
    let mut chunks = Vec::new();
    for size in cuts.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        chunks.push(rest.split_to((*size).clamp(1, rest.len())));
    }
    chunks
}

/// All packets of a reader and what it said at the end.
fn packets(mut reader: Reader, chunks: &[Bytes]) -> (Vec<Packet>, Result<(), Fault>) {
    let mut packets = Vec::new();
    for chunk in chunks {
        let taken = reader.push(chunk.clone());
        packets.extend(std::iter::from_fn(|| reader.packet()));
        if taken.is_err() {
            return (packets, taken);
        }
    }
    (packets, Ok(()))
}

fn decoded(encoding: Encoding, packets: &[Packet]) -> Vec<f32> {
    let mut decoder = Decoder::new(encoding);
    let mut samples = Vec::new();
    for packet in packets {
        assert_eq!(decoder.decode(packet, &mut samples), 0, "{packet:?}");
    }
    samples
}

fn whole(kind: Kind, ms: u32, cuts: &[usize]) -> Vec<f32> {
    let (packets, end) = packets(Reader::new(kind.format()), &kind.chunks(ms, cuts));
    end.unwrap();
    assert!(packets.windows(2).all(|pair| pair[0].end() == pair[1].start));
    assert!(packets.iter().all(|packet| packet.rate == kind.rate()));
    decoded(kind.format().encoding, &packets)
}

/// Level of the difference below the level of the original, dB, at the best shift of up to `shifts` samples.
fn likeness(original: &[f32], heard: &[f32], shifts: usize) -> (f32, isize) {
    let level = |samples: &mut dyn Iterator<Item = f32>| samples.map(|sample| sample * sample).sum::<f32>();
    let end = original.len().min(heard.len()) - 2 * shifts;
    (0..=2 * shifts)
        .map(|shift| {
            let pairs = || (shifts..end).map(|at| (original[at], heard[at + shift - shifts]));
            let wanted = level(&mut pairs().map(|(original, _)| original));
            let wrong = level(&mut pairs().map(|(original, heard)| original - heard));
            (10.0 * (wanted / wrong.max(1e-9)).log10(), shift as isize - shifts as isize)
        })
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .unwrap()
}

fn original(rate: u32, ms: u32) -> Vec<f32> {
    sound(rate, ms).into_iter().map(|sample| f32::from(sample) / 32_768.0).collect()
}

/// What comes out is what went in, at its time.
#[test]
fn every_encoding_gives_its_sound() {
    for kind in KINDS {
        let heard = whole(kind, 2_000, &[997]);
        let ms = heard.len() as f32 * 1_000.0 / kind.rate() as f32;
        let wanted = original(kind.rate(), 2_000);
        let (db, shift) = likeness(&wanted, &heard, kind.rate() as usize / 100);
        match kind {
            Kind::Linear16 | Kind::Flac { .. } => assert_eq!(heard, wanted, "{kind:?}"),
            Kind::Mulaw => {
                assert!(db > 30.0 && shift == 0 && heard.len() == wanted.len(), "{kind:?}: {db} dB, {shift}")
            }
            _ => {
                // The 48 kHz original has noise that 16 kHz cannot hold.
                assert!(db > 6.0, "{kind:?}: {db} dB");
                // Raw packets do not say their pre-skip: 6.5 ms late, and the decoder's own resampling.
                let late = shift as f32 / 16.0;
                assert!((-0.2..7.5).contains(&late), "{kind:?}: {late} ms late");
                assert!((1_980.0..=2_060.0).contains(&ms), "{kind:?}: {ms} ms");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn cuts_change_nothing(kind in prop::sample::select(&KINDS[..]), cuts in vec(1..3_000_usize, 1..12)) {
        prop_assert_eq!(whole(kind, 700, &cuts), whole(kind, 700, &[usize::MAX]));
    }

    /// From the place that any packet names, in the chunk that holds it, a fresh reader finds that packet and all that follow;
    /// with the pre-roll before it, a fresh decoder gives the samples that any other fresh one does.
    #[test]
    fn a_stream_is_entered_at_any_packet(
        kind in prop::sample::select(&KINDS[..]), cuts in vec(1..3_000_usize, 1..12), at in any::<prop::sample::Index>(),
        first in 0..99_u64,
    ) {
        let chunks = kind.chunks(700, &cuts);
        let format = kind.format();
        let (all, end) = packets(Reader::new(format), &chunks);
        end.unwrap();
        let index = at.index(all.len());
        let entered = &all[index];
        let mut before = 0;
        let skipped = chunks.iter().take_while(|chunk| {
            let passed = before + chunk.len() as u64 <= entered.resume.byte;
            before += if passed { chunk.len() as u64 } else { 0 };
            passed
        }).count();
        let restart = Restart {
            chunk: hearsay_protocol::ChunkNumber(skipped as u64),
            at: hearsay_protocol::StreamTime(0),
            bytes_before: before,
            format,
            headers: entered.resume.write(first),
        };
        prop_assert!(restart.headers.len() <= 100);
        let (reader, clock) = Reader::resume(&restart).unwrap();
        prop_assert_eq!(clock, if restart.headers.is_empty() { 0 } else { first });
        prop_assert!(reader.samples() <= entered.start);
        let (again, end) = packets(reader, &chunks[skipped..]);
        end.unwrap();
        let from = again.iter().position(|packet| packet == entered);
        prop_assert_eq!(from.map(|from| &again[from..]), Some(&all[index..]), "{:?}", again.first());
    }

    /// Nothing panics, nothing is made up: samples are those that packets say, whatever the bytes.
    #[test]
    fn any_bytes_are_survived(
        format in prop::sample::select(&[Kind::Linear16, Kind::Mulaw, KINDS[2], KINDS[4]][..]),
        magic in prop::sample::select(BEGINNINGS),
        chunks in vec(vec(any::<u8>(), 0..600), 0..24),
    ) {
        let mut chunks: Vec<Bytes> = chunks.into_iter().map(Bytes::from).collect();
        chunks.insert(0, Bytes::from(magic.to_vec()));
        let format = format.format();
        let (packets, _) = packets(Reader::new(format), &chunks);
        survive(format, &packets);
    }

    /// Damaged streams of every kind: bytes changed, lost and doubled.
    #[test]
    fn damage_is_survived(
        kind in prop::sample::select(&KINDS[..]),
        cuts in vec(1..900_usize, 1..12),
        damage in vec((any::<prop::sample::Index>(), 0..4_u8, any::<u8>()), 1..12),
    ) {
        let mut chunks = kind.chunks(400, &cuts);
        for (at, what, byte) in damage {
            let index = at.index(chunks.len());
            match what {
                0 => drop(chunks.remove(index)),
                1 => chunks.insert(index, chunks[index].clone()),
                _ => {
                    let mut bytes = chunks[index].to_vec();
                    let at = usize::from(byte) % bytes.len();
                    bytes[at] = byte.wrapping_mul(31);
                    chunks[index] = bytes.into();
                }
            }
            if chunks.is_empty() {
                return Ok(());
            }
        }
        let (packets, _) = packets(Reader::new(kind.format()), &chunks);
        survive(kind.format(), &packets);
    }

    #[test]
    fn restart_headers_of_strangers_are_refused_or_work(
        headers in vec(any::<u8>(), 0..100), tag in 0..6_u8, bytes_before in 0..1_000_u64,
        chunks in vec(vec(any::<u8>(), 0..300), 0..8),
    ) {
        let headers: Vec<u8> = [2, tag].into_iter().chain(headers).collect();
        for kind in [KINDS[2], KINDS[4]] {
            let restart = Restart {
                chunk: hearsay_protocol::ChunkNumber(0),
                at: hearsay_protocol::StreamTime(0),
                bytes_before,
                format: kind.format(),
                headers: headers.clone().into(),
            };
            if let Ok((reader, _)) = Reader::resume(&restart) {
                let chunks: Vec<Bytes> = chunks.iter().cloned().map(Bytes::from).collect();
                survive(kind.format(), &packets(reader, &chunks).0);
            }
        }
    }
}

const BEGINNINGS: &[&[u8]] = &[b"", b"OggS\0\x02", b"\x1a\x45\xdf\xa3\x84", b"fLaC\x80\0\0\x22", b"\xff\xf8\xc9\x08"];

fn survive(format: AudioFormat, packets: &[Packet]) {
    let mut decoder = Decoder::new(format.encoding);
    for packet in packets.iter().filter(|packet| packet.samples < 1 << 20) {
        let mut samples = Vec::new();
        decoder.decode(packet, &mut samples);
        assert_eq!(samples.len() as u64, packet.samples, "{packet:?}");
        assert!(samples.iter().all(|sample| sample.is_finite()));
    }
}

/// How far a decoder that begins with the pre-roll is from one that heard everything, in the 100 ms that follow.
#[test]
fn opus_converges_within_the_preroll() {
    for kind in &KINDS[4..7] {
        let (all, _) = packets(Reader::new(kind.format()), &kind.chunks(3_000, &[1]));
        let whole = decoded(Encoding::Opus, &all);
        let apart = |preroll: u64| {
            let mut levels: Vec<f32> = (30..all.len() - 10)
                .step_by(3)
                .map(|index| {
                    let wanted = all[index].start;
                    let begin = all.iter().position(|packet| packet.end() + preroll > wanted).unwrap();
                    let fresh = decoded(Encoding::Opus, &all[begin..index + 10]);
                    let heard = &fresh[(wanted - all[begin].start) as usize..][..1_600];
                    let level = |samples: &mut dyn Iterator<Item = f32>| samples.map(|it| it * it).sum::<f32>();
                    let pairs = || whole[wanted as usize..].iter().zip(heard);
                    let apart = level(&mut pairs().map(|(whole, heard)| whole - heard)).max(1e-12);
                    10.0 * (level(&mut pairs().map(|(whole, _)| *whole)) / apart).log10()
                })
                .collect();
            levels.sort_by(f32::total_cmp);
            levels[levels.len() / 2]
        };
        let (with, without) = (apart(preroll(Encoding::Opus)), apart(0));
        assert!(with > 40.0 && without < 15.0, "{kind:?}: {with} dB, without a pre-roll {without} dB");
    }
}

/// What a stream that is not what it says is answered with.
#[test]
fn other_streams_are_named() {
    let wav = b"RIFF\x24\x10\0\0WAVEfmt \x10\0\0\0".repeat(20);
    let linear16 = Kind::Linear16.stream(1_000).concat();
    let mp3 = b"ID3\x04\0\0\0\0\0\0".to_vec();
    let flac = KINDS[2].stream(300).concat();
    let ogg = KINDS[7].stream(300).concat();
    let webm = KINDS[10].stream(300).concat();
    let vorbis = {
        let mut head = encode::ogg(&[], 0, 1, 1).unwrap();
        let at = head.windows(8).position(|bytes| bytes == b"OpusHead").unwrap();
        head[at..at + 8].copy_from_slice(b"\x01vorbis\0");
        // Its checksum.
        let mut page = head.clone();
        page[22..26].fill(0);
        let end = at + 19;
        let sum = page[..end].iter().fold(0_u32, |sum, byte| {
            (0..8).fold(sum ^ u32::from(*byte) << 24, |sum, _| sum << 1 ^ if sum >> 31 == 1 { 0x04c1_1db7 } else { 0 })
        });
        head[22..26].copy_from_slice(&sum.to_le_bytes());
        head
    };
    let mut fast = flac.clone();
    // 96 kHz: the rate is 20 bits at byte 18.
    (fast[18], fast[19], fast[20]) = (0x17, 0x70, fast[20] & 0x0f);
    for (format, stream, found) in [
        (KINDS[2], &wav, "it begins with 52 49 46 46 24 10 00 00 (a WAV file)"),
        (KINDS[2], &linear16, "it begins with"),
        (KINDS[2], &ogg, "(an Ogg stream)"),
        (KINDS[2], &mp3, "(an MP3 file)"),
        (KINDS[2], &fast, "a FLAC stream of 96000 Hz came"),
        (KINDS[4], &wav, "a WAV file came"),
        (KINDS[4], &flac, "a FLAC stream came"),
        (KINDS[4], &linear16, "a message of 420 bytes that begins with"),
        (KINDS[4], &vorbis, "an Ogg stream without Opus came (a stream that begins with 01 76 6f 72"),
        (Kind::Linear16, &ogg, "an Ogg stream came"),
        (Kind::Linear16, &webm, "a WebM or Matroska stream came"),
        (Kind::Mulaw, &flac, "a FLAC stream came"),
    ] {
        let chunks = if *stream == vorbis { chunked(stream, &[40]) } else { chunked(stream, &[420]) };
        let (_, end) = packets(Reader::new(format.format()), &chunks);
        let fault = end.expect_err(found).to_string();
        assert!(fault.contains(found), "{fault}");
        assert!(fault.starts_with("audio is not ") && fault.len() < 400, "{fault}");
    }
    // WAV files are sent as LINEAR16 by many: a click of 1.4 ms.
    packets(Reader::new(Kind::Linear16.format()), &chunked(&wav, &[420])).1.unwrap();
}

/// Audio of another encoding in small messages looks like Opus now and then, but not for long.
#[test]
fn samples_sent_as_opus_are_noticed_within_seconds() {
    let linear16 = Kind::Linear16.stream(5_000).concat();
    let (_, end) = packets(Reader::new(KINDS[4].format()), &chunked(&linear16, &[640]));
    assert!(end.is_err());
}

#[test]
fn what_is_lost_lasts_as_long_as_it_would_have() {
    for kind in [KINDS[2], KINDS[4], KINDS[7], KINDS[10]] {
        let unharmed = packets(Reader::new(kind.format()), &kind.chunks(3_000, &[400])).0;
        let length = unharmed.last().unwrap().end();
        let mut chunks = kind.chunks(3_000, &[400]);
        let middle = chunks.len() / 2;
        if matches!(kind, Kind::Raw { .. }) {
            chunks[middle] = Bytes::from_static(&[0xff, 0xff, 0xff]);
        } else {
            // Ten pieces for Ogg and FLAC, three seconds' third for WebM, whose times are not exact.
            let pieces = if matches!(kind, Kind::WebM { .. }) { chunks.len() / 3 } else { 10 };
            chunks.drain(middle - pieces / 2..middle + pieces / 2);
        }
        let mut reader = Reader::new(kind.format());
        for chunk in chunks {
            reader.push(chunk).unwrap();
        }
        let lost = reader.take_lost();
        let off = reader.samples().abs_diff(length);
        assert!(lost > 0 && off <= u64::from(kind.rate()) / 50, "{kind:?}: {lost} lost, {off} off");
    }
}

/// Where a chunk ends has no say in what damaged bytes are taken for.
#[test]
fn damage_at_the_end_of_a_chunk_is_damage() {
    let clean = KINDS[10].stream(500).concat();
    // Looks like the beginning of a cluster, then like an element that swallows the next one.
    let damage = [&[0, 0x1f][..], &[0x10, 0x10, 0x10, 0x8a]];
    let second = clean.windows(4).rposition(|bytes| bytes == [0x1f, 0x43, 0xb6, 0x75]).unwrap();
    let cut = [[&clean[..second], damage[0]].concat(), [damage[1], &clean[second..]].concat()];
    let heard = |chunks: &[Vec<u8>]| {
        let chunks: Vec<Bytes> = chunks.iter().cloned().map(Bytes::from).collect();
        let (packets, end) = packets(Reader::new(KINDS[10].format()), &chunks);
        end.unwrap();
        packets
    };
    assert_eq!(heard(&cut), heard(&[cut.concat()]));
}

/// A recorder that is started anew on the same socket.
#[test]
fn streams_follow_each_other() {
    for kind in [KINDS[2], KINDS[7], KINDS[10]] {
        let twice = [kind.stream(500).concat(), kind.stream(500).concat()].concat();
        let one = whole(kind, 500, &[usize::MAX]).len();
        let (packets, end) = packets(Reader::new(kind.format()), &chunked(&twice, &[333]));
        end.unwrap();
        assert_eq!(packets.last().unwrap().end(), 2 * one as u64, "{kind:?}");
    }
}

#[test]
fn channels_are_mixed() {
    let mono = sound(48_000, 1_000);
    let both: Vec<i16> = mono.iter().flat_map(|sample| [*sample, *sample]).collect();
    let (packets, skip) = encode::opus(&both, &Opus { stereo: true, voice: false, ..Opus::default() }).unwrap();
    let stream = encode::ogg(&packets, skip, 10, 1).unwrap();
    let (packets, end) = super::tests::packets(Reader::new(KINDS[4].format()), &chunked(&stream, &[500]));
    end.unwrap();
    let (db, _) = likeness(&original(16_000, 1_000), &decoded(Encoding::Opus, &packets), 160);
    assert!(db > 6.0, "{db} dB");
    // One side only, 24 bits: half as loud, exactly.
    let left: Vec<i32> = sound(16_000, 500).into_iter().flat_map(|sample| [i32::from(sample) << 8, 0]).collect();
    let stream = encode::flac(&left, 2, 24, 16_000, 4_096).unwrap();
    let (packets, end) = super::tests::packets(Reader::new(KINDS[2].format()), &chunked(&stream, &[500]));
    end.unwrap();
    let wanted: Vec<f32> = original(16_000, 500).into_iter().map(|sample| sample / 2.0).collect();
    assert_eq!(decoded(Encoding::Flac, &packets), wanted);
}

/// What claims to be huge is refused or passed over, and never held.
#[test]
fn nothing_huge_is_held() {
    let picture = [b"fLaC\0\0\0\x22".to_vec(), vec![0; 34], b"\x86\xff\xff\xff".to_vec()].concat();
    let (_, end) = packets(Reader::new(KINDS[2].format()), &[picture.into()]);
    assert!(end.unwrap_err().to_string().contains("metadata"));
    let mut webm = encode::webm(&[], 0, 1);
    webm.extend([0xa3, 0x01, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x81, 0, 0, 0x80]);
    let mut reader = Reader::new(KINDS[10].format());
    reader.push(webm.into()).unwrap();
    let pushed = (0..64).map(|_| reader.push(vec![0x55; 60_000].into())).find(Result::is_err);
    assert!(pushed.is_some(), "a block of petabytes");
    assert!(reader.held.len() < MAX_HELD);
}
