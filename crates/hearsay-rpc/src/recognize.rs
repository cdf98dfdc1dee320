//! The call between a gateway's uplink and a recognizer, as both sides think of it.

use std::sync::Arc;

use bytes::Bytes;
use hearsay_protocol::{
    AccountId, ChunkNumber, ConversationId, ConversationKey, Epoch, Event, Generation, MeetingId, MeetingKey, Offset,
    Position, Restart, Seen, StreamId, StreamTime, Timestamp, UtteranceId,
    event::{Participant, SpeakerConfig},
};

use crate::{
    Malformed,
    field::{bytes, fraction, malformed, required, uuid},
    v1,
};

/// Latest stream or wall time that means something, µs: later ones would overflow sums.
const LATEST_US: u64 = 1 << 60;

/// Ids of markers are at most this long.
const MAX_MARKER_ID: usize = 1024;

/// Uplink to recognizer.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    Open(Box<Open>),
    Chunk { number: ChunkNumber, data: Bytes },
    Marker(Marker),
}

/// The first request of a call.
#[derive(Debug, Clone, PartialEq)]
pub struct Open {
    pub key: ConversationKey,
    pub stream: StreamId,
    pub participant: Arc<Participant>,
    pub config: SpeakerConfig,
    /// The uplink's claim on the stream.
    pub generation: Generation,
    /// How far the log covers the stream.
    pub watermark: StreamTime,
    /// None: chunk 0 at time 0, in the format of `config`.
    pub restart: Option<Restart>,
    /// The wall time of stream time zero.
    pub origin: Timestamp,
    pub recorded: bool,
    /// Nobody has heard any of it: it may be refused for the sake of those who are heard.
    pub first: bool,
    /// The newest log entry the claim saw.
    pub seen: Seen,
}

/// Something that happens at a place in the audio.
#[derive(Debug, Clone, PartialEq)]
pub struct Marker {
    /// Before this chunk.
    pub chunk: ChunkNumber,
    pub kind: MarkerKind,
}

#[derive(Debug, Clone, PartialEq)]
pub enum MarkerKind {
    /// All audio before it is to be on the log; answered with this id.
    Finalize(String),
    Config(Box<SpeakerConfig>),
    /// The stream's clock jumps to this time.
    Reanchor(StreamTime),
    End,
}

/// Recognizer to uplink.
#[derive(Debug, Clone, PartialEq)]
pub enum Response {
    Opened,
    Ack(Ack),
    Finalized {
        id: String,
        position: Position,
    },
    /// Everything is on the log; `position` is that of the stream's last event.
    Ended {
        position: Position,
    },
    Health(Health),
    Signal(Signal),
}

/// The log covers the audio up to here.
#[derive(Debug, Clone, PartialEq)]
pub struct Ack {
    /// All chunks before this one are covered.
    pub through_chunk: ChunkNumber,
    pub through: StreamTime,
    pub restart: Restart,
    pub top: Seen,
    /// Finals that this stay has put on the log.
    pub finals: u64,
    /// What was put on the log for the audio from here up to `through`. None: an older recognizer does not say.
    pub from: Option<StreamTime>,
    pub events: Vec<Event>,
}

/// Events of one acknowledgement: a recognizer appends one final at a time.
const MAX_ACKED_EVENTS: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Health {
    pub heard: StreamTime,
    pub covered: StreamTime,
    /// Speech probability of the last frame, 0 to 1.
    pub speech: f32,
    /// Step of the degrade ladder: 0 none, 1 slower partials, 2 no partials.
    pub ladder: u32,
    /// Seconds of audio decoded in a second of engine time; 0 when not known.
    pub realtime_factor: f32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal {
    pub kind: SignalKind,
    pub at: StreamTime,
    pub utterance: UtteranceId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SignalKind {
    /// The utterance's text so far will not change.
    Stable,
    /// A short pause.
    Pause,
    UtteranceEnd,
    SpeechStart,
}

fn time(field: &'static str, micros: u64) -> Result<u64, Malformed> {
    if micros < LATEST_US { Ok(micros) } else { Err(malformed(field, format!("is {micros}, which no clock shows"))) }
}

impl From<Request> for v1::RecognizeRequest {
    fn from(request: Request) -> Self {
        use v1::recognize_request::Request as Kind;
        let kind = match request {
            Request::Open(open) => Kind::Open((*open).into()),
            Request::Chunk { number, data } => Kind::Chunk(v1::Chunk { number: number.0, data }),
            Request::Marker(marker) => Kind::Marker(marker.into()),
        };
        Self { request: Some(kind) }
    }
}

impl TryFrom<v1::RecognizeRequest> for Request {
    type Error = Malformed;

    fn try_from(request: v1::RecognizeRequest) -> Result<Self, Malformed> {
        use v1::recognize_request::Request as Kind;
        Ok(match required("RecognizeRequest.request", request.request)? {
            Kind::Open(open) => Self::Open(Box::new(open.try_into()?)),
            Kind::Chunk(chunk) => Self::Chunk { number: ChunkNumber(chunk.number), data: chunk.data },
            Kind::Marker(marker) => Self::Marker(marker.try_into()?),
        })
    }
}

impl From<Open> for v1::Open {
    fn from(it: Open) -> Self {
        Self {
            account: it.key.meeting.account.as_str().to_owned(),
            meeting: it.key.meeting.meeting.as_str().to_owned(),
            conversation: it.key.conversation.get(),
            stream: bytes(it.stream.0),
            participant: Some((&*it.participant).into()),
            config: Some((&it.config).into()),
            generation: it.generation.0,
            watermark_us: it.watermark.0,
            restart: it.restart.map(Into::into),
            origin_us: it.origin.0,
            recorded: it.recorded,
            first: it.first,
            seen: Some(it.seen.into()),
        }
    }
}

impl TryFrom<v1::Open> for Open {
    type Error = Malformed;

    fn try_from(it: v1::Open) -> Result<Self, Malformed> {
        let wrong = |field| move |error| malformed(field, format!("is wrong: {error}"));
        let meeting = MeetingKey {
            account: AccountId::new(&it.account).map_err(wrong("Open.account"))?,
            meeting: MeetingId::new(&it.meeting).map_err(wrong("Open.meeting"))?,
        };
        let conversation = ConversationId::try_from(it.conversation).map_err(wrong("Open.conversation"))?;
        Ok(Self {
            key: ConversationKey { meeting, conversation },
            stream: StreamId(uuid("Open.stream", &it.stream)?),
            participant: Arc::new(required("Open.participant", it.participant)?.try_into()?),
            config: required("Open.config", it.config)?.try_into()?,
            generation: Generation(it.generation),
            watermark: StreamTime(time("Open.watermark_us", it.watermark_us)?),
            restart: it.restart.map(TryInto::try_into).transpose()?,
            origin: Timestamp(time("Open.origin_us", it.origin_us)?),
            recorded: it.recorded,
            first: it.first,
            seen: it.seen.map_or(Seen::NOTHING, Into::into),
        })
    }
}

impl From<Restart> for v1::Restart {
    fn from(it: Restart) -> Self {
        Self {
            chunk: it.chunk.0,
            at_us: it.at.0,
            bytes_before: it.bytes_before,
            format: Some(it.format.into()),
            headers: it.headers,
        }
    }
}

impl TryFrom<v1::Restart> for Restart {
    type Error = Malformed;

    fn try_from(it: v1::Restart) -> Result<Self, Malformed> {
        if it.headers.len() > Restart::MAX_HEADERS {
            let reason = format!("has {} bytes; at most {} are accepted", it.headers.len(), Restart::MAX_HEADERS);
            return Err(malformed("Restart.headers", reason));
        }
        if it.bytes_before >= LATEST_US {
            return Err(malformed("Restart.bytes_before", format!("is {}, more than any stream has", it.bytes_before)));
        }
        Ok(Self {
            chunk: ChunkNumber(it.chunk),
            at: StreamTime(time("Restart.at_us", it.at_us)?),
            bytes_before: it.bytes_before,
            format: required("Restart.format", it.format)?.try_into()?,
            headers: it.headers,
        })
    }
}

impl From<Seen> for v1::Seen {
    fn from(it: Seen) -> Self {
        Self { epoch: it.epoch.map(|epoch| epoch.0), offset: it.offset.0, check: it.check }
    }
}

impl From<v1::Seen> for Seen {
    fn from(it: v1::Seen) -> Self {
        Self { epoch: it.epoch.map(Epoch), offset: Offset(it.offset), check: it.check }
    }
}

impl From<Marker> for v1::Marker {
    fn from(it: Marker) -> Self {
        use v1::marker::Marker as Kind;
        let kind = match it.kind {
            MarkerKind::Finalize(id) => Kind::Finalize(id),
            MarkerKind::Config(config) => Kind::Config((&*config).into()),
            MarkerKind::Reanchor(at) => Kind::ReanchorUs(at.0),
            MarkerKind::End => Kind::End(true),
        };
        Self { chunk: it.chunk.0, marker: Some(kind) }
    }
}

impl TryFrom<v1::Marker> for Marker {
    type Error = Malformed;

    fn try_from(it: v1::Marker) -> Result<Self, Malformed> {
        use v1::marker::Marker as Kind;
        let kind = match required("Marker.marker", it.marker)? {
            Kind::Finalize(id) if id.len() > MAX_MARKER_ID => {
                let reason = format!("has {} bytes; at most {MAX_MARKER_ID} are accepted", id.len());
                return Err(malformed("Marker.finalize", reason));
            }
            Kind::Finalize(id) => MarkerKind::Finalize(id),
            Kind::Config(config) => MarkerKind::Config(Box::new(config.try_into()?)),
            Kind::ReanchorUs(at) => MarkerKind::Reanchor(StreamTime(time("Marker.reanchor_us", at)?)),
            Kind::End(true) => MarkerKind::End,
            Kind::End(false) => return Err(malformed("Marker.end", "is false")),
        };
        Ok(Self { chunk: ChunkNumber(it.chunk), kind })
    }
}

impl From<Response> for v1::RecognizeResponse {
    fn from(response: Response) -> Self {
        use v1::recognize_response::Response as Kind;
        let kind = match response {
            Response::Opened => Kind::Opened(v1::Opened {}),
            Response::Ack(it) => Kind::Ack(v1::Ack {
                through_chunk: it.through_chunk.0,
                through_us: it.through.0,
                restart: Some(it.restart.into()),
                top: Some(it.top.into()),
                finals: it.finals,
                from_us: it.from.map(|from| from.0),
                events: it.events.iter().map(Into::into).collect(),
            }),
            Response::Finalized { id, position } => {
                Kind::Finalized(v1::Finalized { id, epoch: position.epoch.0, offset: position.offset.0 })
            }
            Response::Ended { position } => {
                Kind::Ended(v1::StreamOver { epoch: position.epoch.0, offset: position.offset.0 })
            }
            Response::Health(it) => Kind::Health(v1::Health {
                heard_us: it.heard.0,
                covered_us: it.covered.0,
                speech: it.speech,
                ladder: it.ladder,
                realtime_factor: it.realtime_factor,
            }),
            Response::Signal(it) => {
                use v1::signal::Kind as Wire;
                let kind = match it.kind {
                    SignalKind::Stable => Wire::Stable,
                    SignalKind::Pause => Wire::Pause,
                    SignalKind::UtteranceEnd => Wire::UtteranceEnd,
                    SignalKind::SpeechStart => Wire::SpeechStart,
                };
                Kind::Signal(v1::Signal { kind: kind.into(), at_us: it.at.0, utterance: bytes(it.utterance.0) })
            }
        };
        Self { response: Some(kind) }
    }
}

impl TryFrom<v1::RecognizeResponse> for Response {
    type Error = Malformed;

    fn try_from(response: v1::RecognizeResponse) -> Result<Self, Malformed> {
        use v1::recognize_response::Response as Kind;
        let position = |epoch, offset| Position { epoch: Epoch(epoch), offset: Offset(offset) };
        Ok(match required("RecognizeResponse.response", response.response)? {
            Kind::Opened(v1::Opened {}) => Self::Opened,
            Kind::Ack(it) if it.events.len() > MAX_ACKED_EVENTS => {
                let reason = format!("has {} entries; at most {MAX_ACKED_EVENTS} are accepted", it.events.len());
                return Err(malformed("Ack.events", reason));
            }
            Kind::Ack(it) => Self::Ack(Ack {
                through_chunk: ChunkNumber(it.through_chunk),
                through: StreamTime(time("Ack.through_us", it.through_us)?),
                restart: required("Ack.restart", it.restart)?.try_into()?,
                top: required("Ack.top", it.top)?.into(),
                finals: it.finals,
                from: it.from_us.map(|from| time("Ack.from_us", from).map(StreamTime)).transpose()?,
                events: it.events.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            }),
            Kind::Finalized(it) => Self::Finalized { id: it.id, position: position(it.epoch, it.offset) },
            Kind::Ended(it) => Self::Ended { position: position(it.epoch, it.offset) },
            Kind::Health(it) => Self::Health(Health {
                heard: StreamTime(time("Health.heard_us", it.heard_us)?),
                covered: StreamTime(time("Health.covered_us", it.covered_us)?),
                speech: fraction("Health.speech", it.speech)?,
                ladder: it.ladder,
                realtime_factor: it.realtime_factor,
            }),
            Kind::Signal(it) => {
                use v1::signal::Kind as Wire;
                let kind = match Wire::try_from(it.kind) {
                    Ok(Wire::Stable) => SignalKind::Stable,
                    Ok(Wire::Pause) => SignalKind::Pause,
                    Ok(Wire::UtteranceEnd) => SignalKind::UtteranceEnd,
                    Ok(Wire::SpeechStart) => SignalKind::SpeechStart,
                    Ok(Wire::Unspecified) | Err(_) => {
                        return Err(malformed("Signal.kind", format!("is {}, which is not known", it.kind)));
                    }
                };
                let utterance = UtteranceId(uuid("Signal.utterance", &it.utterance)?);
                Self::Signal(Signal { kind, at: StreamTime(time("Signal.at_us", it.at_us)?), utterance })
            }
        })
    }
}
