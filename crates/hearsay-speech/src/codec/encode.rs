//! Streams in every encoding, made of samples: for tests and tools.

use ogg::writing::{PacketWriteEndInfo, PacketWriter};
use ropus::{Application, Bitrate, Channels, Encoder, FrameDuration};

/// Why a stream could not be made.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct EncodeError(String);

fn error(error: impl std::fmt::Debug) -> EncodeError {
    EncodeError(format!("{error:?}"))
}

/// How Opus is made.
#[derive(Debug, Clone, Copy)]
pub struct Opus {
    /// Hz: 8, 12, 16, 24 or 48 kHz.
    pub rate: u32,
    /// Samples of several channels are interleaved.
    pub stereo: bool,
    pub bits_per_second: u32,
    /// Ten, twenty, forty or sixty.
    pub frame_ms: u32,
    pub voice: bool,
}

impl Default for Opus {
    /// About what a browser sends.
    fn default() -> Self {
        Self { rate: 48_000, stereo: false, bits_per_second: 32_000, frame_ms: 20, voice: true }
    }
}

/// G.711 µ-law.
pub fn mulaw(samples: &[i16]) -> Vec<u8> {
    let byte = |sample: &i16| {
        let sign = if *sample < 0 { 0x80_u8 } else { 0 };
        let magnitude = i32::from(*sample).abs().min(32_635) + 0x84;
        let exponent = (24 - magnitude.leading_zeros()).min(7);
        let mantissa = (magnitude >> (exponent + 3)) & 0x0f;
        !(sign | (exponent << 4) as u8 | mantissa as u8)
    };
    samples.iter().map(byte).collect()
}

/// A FLAC stream with frames of `block` samples. Samples of several channels are interleaved.
///
/// # Errors
/// When the encoder refuses.
pub fn flac(samples: &[i32], channels: usize, bits: usize, rate: u32, block: usize) -> Result<Vec<u8>, EncodeError> {
    use flacenc::{bitsink::ByteSink, component::BitRepr as _, error::Verify as _, source::MemSource};
    let config = flacenc::config::Encoder::default().into_verified().map_err(|(_, refused)| error(refused))?;
    let source = MemSource::from_samples(samples, channels, bits, rate as usize);
    let stream = flacenc::encode_with_fixed_block_size(&config, source, block).map_err(error)?;
    let mut sink = ByteSink::new();
    stream.write(&mut sink).map_err(error)?;
    Ok(sink.as_slice().to_vec())
}

/// Opus packets, each as it is sent, and how many samples at 48 kHz at their beginning are not to be heard. The last one is
/// filled with silence.
///
/// # Errors
/// When the encoder refuses.
pub fn opus(samples: &[i16], opus: &Opus) -> Result<(Vec<Vec<u8>>, u16), EncodeError> {
    let (channels, count) = if opus.stereo { (Channels::Stereo, 2) } else { (Channels::Mono, 1) };
    let duration = match opus.frame_ms {
        10 => FrameDuration::Ms10,
        20 => FrameDuration::Ms20,
        40 => FrameDuration::Ms40,
        60 => FrameDuration::Ms60,
        other => return Err(EncodeError(format!("frames of {other} ms are not made"))),
    };
    let application = if opus.voice { Application::Voip } else { Application::Audio };
    let bitrate = Bitrate::Bits(opus.bits_per_second);
    let builder = Encoder::builder(opus.rate, channels, application).bitrate(bitrate).frame_duration(duration);
    let mut encoder = builder.build().map_err(error)?;
    let frame = (opus.rate * opus.frame_ms / 1_000) as usize * count;
    let mut packets = Vec::new();
    for samples in samples.chunks(frame) {
        let mut frame_of = samples.to_vec();
        frame_of.resize(frame, 0);
        let mut packet = vec![0; 4_000];
        let length = encoder.encode(&frame_of, &mut packet).map_err(error)?;
        packet.truncate(length);
        packets.push(packet);
    }
    let skip = encoder.lookahead() * 48_000 / opus.rate;
    Ok((packets, u16::try_from(skip).map_err(error)?))
}

fn head(skip: u16, channels: u8) -> Vec<u8> {
    let mut head = b"OpusHead\x01".to_vec();
    head.push(channels);
    head.extend(skip.to_le_bytes());
    head.extend(48_000_u32.to_le_bytes());
    head.extend([0, 0, 0]);
    head
}

/// Samples of a packet at 48 kHz.
fn length(packet: &[u8]) -> u64 {
    super::opus::samples(packet).unwrap_or(0)
}

/// Packets in Ogg, `page` of them on a page.
///
/// # Errors
/// None in practice: nothing is written but memory.
pub fn ogg(packets: &[Vec<u8>], skip: u16, page: usize, serial: u32) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = Vec::new();
    let mut writer = PacketWriter::new(&mut bytes);
    writer.write_packet(head(skip, 1), serial, PacketWriteEndInfo::EndPage, 0).map_err(error)?;
    let tags = b"OpusTags\x07\0\0\0hearsay\0\0\0\0".to_vec();
    writer.write_packet(tags, serial, PacketWriteEndInfo::EndPage, 0).map_err(error)?;
    let mut granule = 0;
    for (index, packet) in packets.iter().enumerate() {
        granule += length(packet);
        let end = if index + 1 == packets.len() {
            PacketWriteEndInfo::EndStream
        } else if (index + 1) % page == 0 {
            PacketWriteEndInfo::EndPage
        } else {
            PacketWriteEndInfo::NormalPacket
        };
        writer.write_packet(packet.clone(), serial, end, granule).map_err(error)?;
    }
    drop(writer);
    Ok(bytes)
}

/// Packets in WebM as a recorder streams it: open-ended segment and clusters, a cluster of `cluster` packets, times in ms.
pub fn webm(packets: &[Vec<u8>], skip: u16, cluster: usize) -> Vec<u8> {
    fn element(id: u32, body: &[u8]) -> Vec<u8> {
        let bytes = id.to_be_bytes();
        let mut out = bytes[bytes.iter().take_while(|byte| **byte == 0).count()..].to_vec();
        out.extend((body.len() as u32 | 0x1000_0000).to_be_bytes());
        out.extend(body);
        out
    }
    let open = |id: u32| [&id.to_be_bytes()[..], &[0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]].concat();
    let mut out = element(0x1a45_dfa3, &element(0x4282, b"webm"));
    out.extend(open(0x1853_8067));
    out.extend(element(0x1549_a966, &element(0x2a_d7b1, &1_000_000_u32.to_be_bytes())));
    let track = [
        element(0xd7, &[1]),
        element(0x83, &[2]),
        element(0x86, b"A_OPUS"),
        element(0x63a2, &head(skip, 1)),
        element(0xe1, &element(0x9f, &[1])),
    ];
    out.extend(element(0x1654_ae6b, &element(0xae, &track.concat())));
    let (mut at, mut begun) = (0_u64, 0);
    for (index, packet) in packets.iter().enumerate() {
        let ms = at / 48;
        if index % cluster == 0 {
            out.extend(open(0x1f43_b675));
            out.extend(element(0xe7, &ms.to_be_bytes()));
            begun = ms;
        }
        let mut block = vec![0x81];
        block.extend(((ms - begun) as u16).to_be_bytes());
        block.push(0x80);
        block.extend(packet);
        out.extend(element(0xa3, &block));
        at += length(packet);
    }
    out
}
