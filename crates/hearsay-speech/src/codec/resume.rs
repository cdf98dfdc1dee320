//! From where a fresh reader goes on, and what it must know there: what a restart point carries as its headers.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use hearsay_protocol::Encoding;

use super::{
    flac::Flac,
    ogg::{Ogg, Phase},
    webm::Webm,
};

/// Changes with what is written: a recognizer of another version refuses the stream, and one of this version takes it.
const VERSION: u8 = 2;

/// A place in a stream's bytes, and what is known there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resume {
    /// Bytes of the format before it.
    pub byte: u64,
    /// Samples of the format before what is found there.
    pub sample: u64,
    pub(super) state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing is known, or there is nothing to know.
    Start,
    Raw(Raw),
    Ogg(Ogg),
    Webm(Webm),
    Flac(Flac),
}

/// One Opus packet a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Raw {
    /// Samples of 48 kHz of the last packet.
    pub(super) last: u64,
}

/// Codec headers that this version did not write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the restart point's codec headers are not of this version")]
pub struct Unreadable;

impl State {
    pub(super) fn is_of(self, encoding: Encoding) -> bool {
        match self {
            Self::Start => true,
            Self::Raw(_) | Self::Ogg(_) | Self::Webm(_) => encoding == Encoding::Opus,
            Self::Flac(_) => encoding == Encoding::Flac,
        }
    }
}

impl Resume {
    /// As a restart point carries it, with the first sample of its clock. At most 100 bytes; empty where nothing need be known.
    pub fn write(&self, first: u64) -> Bytes {
        let mut out = BytesMut::with_capacity(100);
        let tag = match self.state {
            State::Start => return Bytes::new(),
            State::Raw(_) => 1,
            State::Ogg(_) => 2,
            State::Webm(_) => 3,
            State::Flac(_) => 4,
        };
        out.put_slice(&[VERSION, tag]);
        for number in [self.byte, self.sample, first] {
            out.put_u64_le(number);
        }
        match self.state {
            State::Start => {}
            State::Raw(Raw { last }) => out.put_u64_le(last),
            State::Ogg(Ogg { phase, serial, skip, gain, last, granule, open }) => {
                let phase = match phase {
                    Phase::Head => 0,
                    Phase::Tags => 1,
                    Phase::Audio => 2,
                };
                out.put_slice(&[phase, u8::from(open)]);
                out.put_u32_le(serial);
                out.put_i16_le(gain);
                put(&mut out, granule);
                out.put_u64_le(skip);
                out.put_u64_le(last);
            }
            State::Webm(Webm { track, tracks, scale, cluster, skip, gain, last, due, pass, astray }) => {
                out.put_i16_le(gain);
                put(&mut out, due);
                for number in [track, tracks, scale, cluster, skip, last, pass] {
                    out.put_u64_le(number);
                }
                out.put_u8(u8::from(astray));
            }
            State::Flac(Flac { rate, block, next }) => {
                out.put_u32_le(rate);
                out.put_u32_le(block);
                put(&mut out, next);
            }
        }
        out.freeze()
    }

    /// # Errors
    /// When this version would not write it.
    pub fn read(bytes: &[u8]) -> Result<(Self, u64), Unreadable> {
        read(bytes).ok().flatten().ok_or(Unreadable)
    }
}

fn read(mut bytes: &[u8]) -> Result<Option<(Resume, u64)>, bytes::TryGetError> {
    let rest = &mut bytes;
    let (version, tag) = (rest.try_get_u8()?, rest.try_get_u8()?);
    let (byte, sample, first) = (rest.try_get_u64_le()?, rest.try_get_u64_le()?, rest.try_get_u64_le()?);
    let state = match tag {
        1 => State::Raw(Raw { last: rest.try_get_u64_le()? }),
        2 => {
            let phase = match rest.try_get_u8()? {
                0 => Phase::Head,
                1 => Phase::Tags,
                2 => Phase::Audio,
                _ => return Ok(None),
            };
            let open = rest.try_get_u8()? != 0;
            let (serial, gain, granule) = (rest.try_get_u32_le()?, rest.try_get_i16_le()?, get(rest)?);
            let (skip, last) = (rest.try_get_u64_le()?, rest.try_get_u64_le()?);
            State::Ogg(Ogg { phase, serial, skip, gain, last, granule, open })
        }
        3 => {
            let (gain, due) = (rest.try_get_i16_le()?, get(rest)?);
            let (track, tracks) = (rest.try_get_u64_le()?, rest.try_get_u64_le()?);
            let (scale, cluster) = (rest.try_get_u64_le()?, rest.try_get_u64_le()?);
            let (skip, last, pass) = (rest.try_get_u64_le()?, rest.try_get_u64_le()?, rest.try_get_u64_le()?);
            let astray = rest.try_get_u8()? != 0;
            State::Webm(Webm { track, tracks, scale, cluster, skip, gain, last, due, pass, astray })
        }
        4 => State::Flac(Flac { rate: rest.try_get_u32_le()?, block: rest.try_get_u32_le()?, next: get(rest)? }),
        _ => return Ok(None),
    };
    // Sums of what is read must mean something.
    let sound = [byte, sample, first].iter().all(|number| number >> 60 == 0) && state.is_sound();
    Ok((version == VERSION && rest.is_empty() && sound).then_some((Resume { byte, sample, state }, first)))
}

impl State {
    /// Within what readers themselves reach.
    fn is_sound(self) -> bool {
        let small = |numbers: &[u64]| numbers.iter().all(|number| number >> 62 == 0);
        match self {
            Self::Start => true,
            Self::Raw(Raw { last }) => last <= 5_760,
            Self::Ogg(Ogg { skip, last, granule, .. }) => {
                skip <= 65_535 && last <= 5_760 && small(&[granule.unwrap_or(0)])
            }
            Self::Webm(Webm { scale, cluster, skip, last, due, pass, .. }) => {
                skip <= 65_535
                    && last <= 5_760
                    && (1..=1_000_000_000).contains(&scale)
                    && cluster <= 1 << 40
                    && small(&[due.unwrap_or(0), pass])
            }
            Self::Flac(Flac { rate, block, next }) => {
                (rate == 0 || (8_000..=48_000).contains(&rate)) && block <= 65_535 && small(&[next.unwrap_or(0)])
            }
        }
    }
}

fn put(out: &mut BytesMut, number: Option<u64>) {
    out.put_u8(u8::from(number.is_some()));
    out.put_u64_le(number.unwrap_or(0));
}

fn get(bytes: &mut &[u8]) -> Result<Option<u64>, bytes::TryGetError> {
    let known = bytes.try_get_u8()? != 0;
    let number = bytes.try_get_u64_le()?;
    Ok(known.then_some(number))
}
