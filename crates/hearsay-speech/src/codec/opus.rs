//! Opus packets (RFC 6716), and the header they have in containers (RFC 7845).

use ropus::{Channels, DecodeMode, opus::decoder as packets};

use super::OPUS_RATE;

/// Rate of Opus' own clock, Hz. All lengths of packets are whole multiples of 120 of its samples.
pub(super) const CLOCK: u64 = 48_000;

/// The longest packet that can mean anything, bytes: 48 frames of 1,275 bytes with their lengths.
pub(super) const MAX_PACKET: usize = 61_298;

/// Samples of the longest packet: 120 ms.
const MOST_SAMPLES: usize = OPUS_RATE as usize * 120 / 1_000;

/// Samples that `clock` samples of 48 kHz give at the rate we decode at.
pub(super) fn heard(clock: u64) -> u64 {
    clock * u64::from(OPUS_RATE) / CLOCK
}

/// How many samples of 48 kHz a packet has; none if it is no packet.
pub(super) fn samples(packet: &[u8]) -> Option<u64> {
    if packet.len() > MAX_PACKET {
        return None;
    }
    let (mut toc, mut sizes, mut payload) = (0, [0; 48], 0);
    let length = i32::try_from(packet.len()).ok()?;
    let frames = packets::opus_packet_parse_impl(packet, length, false, &mut toc, &mut sizes, &mut payload, None);
    if frames <= 0 {
        return None;
    }
    let samples = packets::opus_packet_get_nb_samples(packet, CLOCK as i32).ok()?;
    u64::try_from(samples).ok().filter(|samples| *samples > 0)
}

/// What `OpusHead` says that matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Samples of 48 kHz before the first that is to be heard.
    pub(super) skip: u64,
    /// In 1/256 dB.
    pub(super) gain: i16,
}

impl Head {
    pub(super) const MAGIC: [u8; 8] = *b"OpusHead";

    /// # Errors
    /// Says what was found.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let (magic, fields) = bytes.split_at_checked(8).unwrap_or_default();
        let Some(&[version, channels, skip_low, skip_high, _, _, _, _, gain_low, gain_high, mapping]) =
            fields.first_chunk::<11>()
        else {
            return Err("an OpusHead that is cut short".to_owned());
        };
        if magic != Self::MAGIC || version >= 16 {
            return Err(format!("an OpusHead of version {version}"));
        }
        if !(1..=2).contains(&channels) || mapping > 1 {
            return Err(format!("Opus with {channels} channels in mapping {mapping}"));
        }
        Ok(Self {
            skip: u64::from(u16::from_le_bytes([skip_low, skip_high])),
            gain: i16::from_le_bytes([gain_low, gain_high]),
        })
    }
}

/// One stream's decoder, mixing what it hears into one channel.
#[derive(Default)]
pub(super) struct Decoder {
    /// Made with the first packet.
    inner: Option<Box<ropus::Decoder>>,
    gain: i16,
}

impl Decoder {
    /// Appends the packet's samples. None: it cannot be decoded.
    pub(super) fn decode(&mut self, packet: &[u8], gain: i16, samples: &mut Vec<f32>) -> Option<()> {
        let inner = match &mut self.inner {
            Some(inner) => inner,
            none => none.insert(Box::new(ropus::Decoder::new(OPUS_RATE, Channels::Mono).ok()?)),
        };
        if gain != self.gain {
            inner.set_gain(i32::from(gain)).ok()?;
            self.gain = gain;
        }
        let before = samples.len();
        samples.resize(before + MOST_SAMPLES, 0.0);
        let made = inner.decode_float(packet, &mut samples[before..], DecodeMode::Normal);
        samples.truncate(before + made.as_ref().map_or(0, |made| (*made).min(MOST_SAMPLES)));
        made.ok().map(drop)
    }
}
