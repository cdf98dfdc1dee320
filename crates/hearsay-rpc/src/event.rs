//! Events of a conversation.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use hearsay_protocol::{
    AudioFormat, ConversationId, Encoding, Event, GatewayId, ParticipantId, StreamId, StreamTime, Timestamp,
    TraceContext, UtteranceId,
    event::{
        Analytics, ConfigChanged, CustomEntity, Earlier, EndReason, Ended, Ephemeral, Evidence, Final, History,
        Insight, InsightBody, OpenTask, Partial, Participant, Redaction, SpeakerConfig, SpokenWord, Started, StreamEnd,
        StreamEnded, StreamStarted, Talked, Tracked, Tracker, Warning,
    },
};
use prost::Message as _;

use crate::{
    Malformed,
    field::{bytes, fraction, malformed, micros, required, short, spoken, uuid},
    v1,
};

/// A durable event as the log stores it.
pub fn encode(event: &Event) -> Bytes {
    v1::LogEvent::from(event).encode_to_vec().into()
}

/// # Errors
/// For bytes that are not an event, or one that this version cannot read: the log shows a tombstone in its place.
pub fn decode(stored: &[u8]) -> Result<Event, Malformed> {
    v1::LogEvent::decode(stored).map_err(|error| malformed("LogEvent", format!("does not decode: {error}")))?.try_into()
}

impl From<&Event> for v1::LogEvent {
    fn from(event: &Event) -> Self {
        use v1::log_event::Event as Kind;
        let kind = match event {
            Event::Started(it) => Kind::Started(v1::Started { at_us: it.at.0, title: it.title.clone() }),
            Event::Joined(it) => Kind::Joined((&**it).into()),
            Event::Left(it) => Kind::Left((&**it).into()),
            Event::StreamStarted(it) => Kind::StreamStarted((&**it).into()),
            Event::ConfigChanged(it) => {
                Kind::ConfigChanged(v1::ConfigChanged { stream: bytes(it.stream.0), config: Some((&it.config).into()) })
            }
            Event::StreamEnded(it) => Kind::StreamEnded(it.into()),
            Event::Final(it) => Kind::Final((&**it).into()),
            Event::Insight(it) => Kind::Insight((&**it).into()),
            Event::Ended(it) => Kind::Ended(it.into()),
        };
        Self { event: Some(kind) }
    }
}

impl TryFrom<v1::LogEvent> for Event {
    type Error = Malformed;

    fn try_from(event: v1::LogEvent) -> Result<Self, Malformed> {
        use v1::log_event::Event as Kind;
        Ok(match required("LogEvent.event", event.event)? {
            Kind::Started(it) => Self::Started(Started { at: Timestamp(it.at_us), title: it.title }),
            Kind::Joined(it) => Self::Joined(Arc::new(it.try_into()?)),
            Kind::Left(it) => Self::Left(Arc::new(it.try_into()?)),
            Kind::StreamStarted(it) => Self::StreamStarted(Arc::new(it.try_into()?)),
            Kind::ConfigChanged(it) => Self::ConfigChanged(Arc::new(ConfigChanged {
                stream: StreamId(uuid("ConfigChanged.stream", &it.stream)?),
                config: required("ConfigChanged.config", it.config)?.try_into()?,
            })),
            Kind::StreamEnded(it) => Self::StreamEnded(it.try_into()?),
            Kind::Final(it) => Self::Final(Arc::new(it.try_into()?)),
            Kind::Insight(it) => Self::Insight(Arc::new(it.try_into()?)),
            Kind::Ended(it) => Self::Ended(it.try_into()?),
        })
    }
}

impl From<&Ephemeral> for v1::EphemeralEvent {
    fn from(ephemeral: &Ephemeral) -> Self {
        use v1::ephemeral_event::Event as Kind;
        let kind = match ephemeral {
            Ephemeral::Partial(it) => Kind::Partial((&**it).into()),
            Ephemeral::Speaking { participant, stream, speaking } => Kind::Speaking(v1::Speaking {
                participant: Some((&**participant).into()),
                stream: bytes(stream.0),
                speaking: *speaking,
            }),
            Ephemeral::Listeners { gateway, count } => {
                Kind::Listeners(v1::Listeners { gateway: bytes(gateway.0), count: *count })
            }
            Ephemeral::Analytics(it) => Kind::Analytics((&**it).into()),
            Ephemeral::History(it) => Kind::History((&**it).into()),
            Ephemeral::Tracked(it) => Kind::Tracked(v1::Tracked {
                utterance: bytes(it.utterance.0),
                tracker: it.tracker.clone(),
                value: it.value.clone(),
                text: it.text.clone(),
                start: it.start,
                end: it.end,
            }),
            Ephemeral::Warning(it) => {
                Kind::Warning(v1::Warning { participant: bytes(it.participant.0), details: it.details.clone() })
            }
        };
        Self { event: Some(kind) }
    }
}

impl TryFrom<v1::EphemeralEvent> for Ephemeral {
    type Error = Malformed;

    fn try_from(event: v1::EphemeralEvent) -> Result<Self, Malformed> {
        use v1::ephemeral_event::Event as Kind;
        Ok(match required("EphemeralEvent.event", event.event)? {
            Kind::Partial(it) => Self::Partial(Arc::new(it.try_into()?)),
            Kind::Speaking(it) => Self::Speaking {
                participant: Arc::new(required("Speaking.participant", it.participant)?.try_into()?),
                stream: StreamId(uuid("Speaking.stream", &it.stream)?),
                speaking: it.speaking,
            },
            Kind::Listeners(it) => {
                Self::Listeners { gateway: GatewayId(uuid("Listeners.gateway", &it.gateway)?), count: it.count }
            }
            Kind::Analytics(it) => Self::Analytics(Arc::new(it.try_into()?)),
            Kind::History(it) => Self::History(Arc::new(it.try_into()?)),
            Kind::Tracked(it) => Self::Tracked(Arc::new(Tracked {
                utterance: UtteranceId(uuid("Tracked.utterance", &it.utterance)?),
                tracker: it.tracker,
                value: it.value,
                text: it.text,
                start: it.start,
                end: it.end,
            })),
            Kind::Warning(it) => Self::Warning(Arc::new(Warning {
                participant: ParticipantId(uuid("Warning.participant", &it.participant)?),
                details: it.details,
            })),
        })
    }
}

impl From<&Analytics> for v1::Analytics {
    fn from(it: &Analytics) -> Self {
        let talked = |it: &Talked| v1::Talked {
            participant: Some((&*it.participant).into()),
            talk_ms: it.talk_ms,
            ratio: it.ratio,
            words_a_minute: it.wpm,
            interruptions: it.interruptions,
        };
        Self {
            speakers: it.speakers.iter().map(talked).collect(),
            silence_ms: it.silence_ms,
            overlap_ms: it.overlap_ms,
        }
    }
}

impl TryFrom<v1::Analytics> for Analytics {
    type Error = Malformed;

    fn try_from(it: v1::Analytics) -> Result<Self, Malformed> {
        let talked = |it: v1::Talked| {
            Ok(Talked {
                participant: Arc::new(required("Talked.participant", it.participant)?.try_into()?),
                talk_ms: it.talk_ms,
                ratio: it.ratio,
                wpm: it.words_a_minute,
                interruptions: it.interruptions,
            })
        };
        Ok(Self {
            speakers: it.speakers.into_iter().map(talked).collect::<Result<_, Malformed>>()?,
            silence_ms: it.silence_ms,
            overlap_ms: it.overlap_ms,
        })
    }
}

impl From<&History> for v1::History {
    fn from(it: &History) -> Self {
        let task =
            |it: &OpenTask| v1::OpenTask { text: it.text.clone(), assignee: it.assignee.clone(), due: it.due.clone() };
        let earlier = |it: &Earlier| v1::Earlier {
            conversation: it.conversation.get(),
            title: it.title.clone(),
            started_us: it.started.micros(),
            topics: it.topics.clone(),
            summary: it.summary.clone(),
            open: it.open.iter().map(task).collect(),
        };
        Self {
            participant: Some((&*it.participant).into()),
            conversations: it.conversations.iter().map(earlier).collect(),
        }
    }
}

impl TryFrom<v1::History> for History {
    type Error = Malformed;

    fn try_from(it: v1::History) -> Result<Self, Malformed> {
        let task = |it: v1::OpenTask| OpenTask { text: it.text, assignee: it.assignee, due: it.due };
        let earlier = |it: v1::Earlier| {
            Ok(Earlier {
                conversation: ConversationId::try_from(it.conversation)
                    .map_err(|error| malformed("Earlier.conversation", format!("is wrong: {error}")))?,
                title: it.title,
                started: Timestamp(it.started_us),
                topics: it.topics,
                summary: it.summary,
                open: it.open.into_iter().map(task).collect(),
            })
        };
        Ok(Self {
            participant: Arc::new(required("History.participant", it.participant)?.try_into()?),
            conversations: it.conversations.into_iter().map(earlier).collect::<Result<_, Malformed>>()?,
        })
    }
}

impl From<&Participant> for v1::Participant {
    fn from(it: &Participant) -> Self {
        Self { id: bytes(it.id.0), user_id: it.user_id.clone(), name: it.name.clone(), email: it.email.clone() }
    }
}

impl TryFrom<v1::Participant> for Participant {
    type Error = Malformed;

    fn try_from(it: v1::Participant) -> Result<Self, Malformed> {
        let id = ParticipantId(uuid("Participant.id", &it.id)?);
        Ok(Self { id, user_id: it.user_id, name: it.name, email: it.email })
    }
}

impl From<AudioFormat> for v1::AudioFormat {
    fn from(it: AudioFormat) -> Self {
        use v1::audio_format::Encoding as Wire;
        let encoding = match it.encoding {
            Encoding::Linear16 => Wire::Linear16,
            Encoding::Mulaw => Wire::Mulaw,
            Encoding::Flac => Wire::Flac,
            Encoding::Opus => Wire::Opus,
        };
        Self { encoding: encoding.into(), sample_rate_hz: it.rate.get() }
    }
}

impl TryFrom<v1::AudioFormat> for AudioFormat {
    type Error = Malformed;

    fn try_from(it: v1::AudioFormat) -> Result<Self, Malformed> {
        use v1::audio_format::Encoding as Wire;
        let encoding = match Wire::try_from(it.encoding) {
            Ok(Wire::Linear16) => Encoding::Linear16,
            Ok(Wire::Mulaw) => Encoding::Mulaw,
            Ok(Wire::Flac) => Encoding::Flac,
            Ok(Wire::Opus) => Encoding::Opus,
            Ok(Wire::Unspecified) | Err(_) => {
                return Err(malformed("AudioFormat.encoding", format!("is {}, which is not known", it.encoding)));
            }
        };
        Self::new(encoding, it.sample_rate_hz)
            .map_err(|error| malformed("AudioFormat.sample_rate_hz", format!("is wrong: {error}")))
    }
}

impl From<&SpeakerConfig> for v1::SpeakerConfig {
    fn from(it: &SpeakerConfig) -> Self {
        Self {
            format: Some(it.format.into()),
            language: it.language.clone(),
            vocabulary: it.vocabulary.clone(),
            insight_types: it.insight_types.clone(),
            confidence_threshold: it.confidence_threshold,
            timezone_offset_min: it.timezone_offset_min,
            sentiment: it.sentiment,
            detect_entities: it.detect_entities,
            trackers: it
                .trackers
                .iter()
                .map(|it| v1::Tracker { id: it.id.clone(), name: it.name.clone(), vocabulary: it.vocabulary.clone() })
                .collect(),
            tracker_interim_results: it.tracker_interim_results,
            enable_all_trackers: it.enable_all_trackers,
            redaction: it.redaction.as_ref().map(|it| v1::Redaction {
                identify: it.identify,
                redact: it.redact,
                replacement: it.replacement.clone(),
            }),
            time_zone: it.time_zone.clone(),
            entities: it
                .entities
                .iter()
                .map(|it| v1::CustomEntity {
                    custom_type: it.custom_type.clone(),
                    value: it.value.clone(),
                    text: it.text.clone(),
                })
                .collect(),
        }
    }
}

impl TryFrom<v1::SpeakerConfig> for SpeakerConfig {
    type Error = Malformed;

    fn try_from(it: v1::SpeakerConfig) -> Result<Self, Malformed> {
        Ok(Self {
            format: required("SpeakerConfig.format", it.format)?.try_into()?,
            language: it.language,
            vocabulary: it.vocabulary,
            insight_types: it.insight_types,
            confidence_threshold: fraction("SpeakerConfig.confidence_threshold", it.confidence_threshold)?,
            timezone_offset_min: it.timezone_offset_min,
            time_zone: it.time_zone,
            sentiment: it.sentiment,
            detect_entities: it.detect_entities,
            entities: it
                .entities
                .into_iter()
                .map(|it| CustomEntity { custom_type: it.custom_type, value: it.value, text: it.text })
                .collect(),
            trackers: it
                .trackers
                .into_iter()
                .map(|it| Tracker { id: it.id, name: it.name, vocabulary: it.vocabulary })
                .collect(),
            tracker_interim_results: it.tracker_interim_results,
            enable_all_trackers: it.enable_all_trackers,
            redaction: it.redaction.map(|it| Redaction {
                identify: it.identify,
                redact: it.redact,
                replacement: it.replacement,
            }),
        })
    }
}

impl From<&StreamStarted> for v1::StreamStarted {
    fn from(it: &StreamStarted) -> Self {
        Self {
            stream: bytes(it.stream.0),
            participant: Some((&*it.participant).into()),
            gateway: bytes(it.gateway.0),
            config: Some((&it.config).into()),
            origin_us: it.origin.0,
            recorded: it.recorded,
            no_connection_timeout_us: micros(it.no_connection_timeout),
        }
    }
}

impl TryFrom<v1::StreamStarted> for StreamStarted {
    type Error = Malformed;

    fn try_from(it: v1::StreamStarted) -> Result<Self, Malformed> {
        Ok(Self {
            stream: StreamId(uuid("StreamStarted.stream", &it.stream)?),
            participant: Arc::new(required("StreamStarted.participant", it.participant)?.try_into()?),
            gateway: GatewayId(uuid("StreamStarted.gateway", &it.gateway)?),
            config: required("StreamStarted.config", it.config)?.try_into()?,
            origin: Timestamp(it.origin_us),
            recorded: it.recorded,
            no_connection_timeout: Duration::from_micros(it.no_connection_timeout_us),
        })
    }
}

impl From<&StreamEnded> for v1::StreamEnded {
    fn from(it: &StreamEnded) -> Self {
        use v1::stream_ended::How;
        let how = match it.how {
            StreamEnd::Stopped { linger } => How::StoppedLingerUs(micros(linger)),
            StreamEnd::Lost => How::Lost(true),
        };
        Self { stream: bytes(it.stream.0), how: Some(how) }
    }
}

impl TryFrom<v1::StreamEnded> for StreamEnded {
    type Error = Malformed;

    fn try_from(it: v1::StreamEnded) -> Result<Self, Malformed> {
        use v1::stream_ended::How;
        let how = match required("StreamEnded.how", it.how)? {
            How::StoppedLingerUs(linger) => StreamEnd::Stopped { linger: Duration::from_micros(linger) },
            How::Lost(true) => StreamEnd::Lost,
            How::Lost(false) => return Err(malformed("StreamEnded.lost", "is false")),
        };
        Ok(Self { stream: StreamId(uuid("StreamEnded.stream", &it.stream)?), how })
    }
}

impl From<&Ended> for v1::Ended {
    fn from(it: &Ended) -> Self {
        use v1::ended::Reason;
        let reason = match it.reason {
            EndReason::Stopped => Reason::Stopped,
            EndReason::Abandoned => Reason::Abandoned,
            EndReason::Silence => Reason::Silence,
        };
        Self { at_us: it.at.0, reason: reason.into() }
    }
}

impl TryFrom<v1::Ended> for Ended {
    type Error = Malformed;

    fn try_from(it: v1::Ended) -> Result<Self, Malformed> {
        use v1::ended::Reason;
        let reason = match Reason::try_from(it.reason) {
            Ok(Reason::Stopped) => EndReason::Stopped,
            Ok(Reason::Abandoned) => EndReason::Abandoned,
            Ok(Reason::Silence) => EndReason::Silence,
            Ok(Reason::Unspecified) | Err(_) => {
                return Err(malformed("Ended.reason", format!("is {}, which is not known", it.reason)));
            }
        };
        Ok(Self { at: Timestamp(it.at_us), reason })
    }
}

impl From<&Final> for v1::Final {
    fn from(it: &Final) -> Self {
        let mut encoded = Self {
            stream: bytes(it.stream.0),
            utterance: bytes(it.utterance.0),
            participant: Some((&*it.participant).into()),
            origin_us: it.origin.0,
            start_us: it.start.0,
            end_us: it.end.0,
            text: it.text.clone(),
            language: it.language.clone(),
            confidence: it.confidence,
            words: Vec::new(),
            word_starts_us: Vec::new(),
            word_lengths_us: Vec::new(),
            word_confidences: Vec::new(),
            sentiment: it.sentiment.clone(),
            trace: it.trace.map(|trace| trace.to_bytes().to_vec()),
        };
        let of_text = it.words.iter().map(|word| word.text.as_str()).eq(it.text.split(' '));
        if of_text && it.words.iter().all(|word| word.start <= word.end) {
            let mut before = it.start.0;
            for word in &it.words {
                encoded.word_starts_us.push(word.start.0.wrapping_sub(before).cast_signed());
                encoded.word_lengths_us.push(word.end.0 - word.start.0);
                encoded.word_confidences.push(word.confidence);
                before = word.start.0;
            }
        } else {
            encoded.words = it.words.iter().map(v1::Word::from).collect();
        }
        encoded
    }
}

/// # Errors
/// When it is not from -1 to 1.
fn sentiment(it: f32) -> Result<f32, Malformed> {
    fraction("Final.sentiment", it.abs()).map(|_| it)
}

impl From<&SpokenWord> for v1::Word {
    fn from(it: &SpokenWord) -> Self {
        Self { text: it.text.clone(), start_us: it.start.0, end_us: it.end.0, confidence: it.confidence }
    }
}

impl TryFrom<v1::Final> for Final {
    type Error = Malformed;

    fn try_from(it: v1::Final) -> Result<Self, Malformed> {
        let text = spoken("Final.text", it.text)?;
        let words = if it.word_starts_us.is_empty() {
            it.words.into_iter().map(SpokenWord::try_from).collect::<Result<_, Malformed>>()?
        } else {
            columns(&text, it.start_us, &it.word_starts_us, &it.word_lengths_us, &it.word_confidences)?
        };
        Ok(Self {
            stream: StreamId(uuid("Final.stream", &it.stream)?),
            utterance: UtteranceId(uuid("Final.utterance", &it.utterance)?),
            participant: Arc::new(required("Final.participant", it.participant)?.try_into()?),
            origin: Timestamp(it.origin_us),
            start: StreamTime(it.start_us),
            end: StreamTime(it.end_us),
            text,
            language: it.language,
            confidence: fraction("Final.confidence", it.confidence)?,
            words,
            sentiment: it.sentiment.into_iter().map(sentiment).collect::<Result<_, Malformed>>()?,
            // No reason to lose words over.
            trace: it.trace.as_deref().and_then(TraceContext::of_bytes),
        })
    }
}

impl TryFrom<v1::Word> for SpokenWord {
    type Error = Malformed;

    fn try_from(it: v1::Word) -> Result<Self, Malformed> {
        Ok(Self {
            text: it.text,
            start: StreamTime(it.start_us),
            end: StreamTime(it.end_us),
            confidence: fraction("Word.confidence", it.confidence)?,
        })
    }
}

/// The words of a text with their times.
fn columns(
    text: &str,
    mut before: u64,
    starts: &[i64],
    lengths: &[u64],
    confidences: &[f32],
) -> Result<Vec<SpokenWord>, Malformed> {
    let count = text.split(' ').count();
    if [starts.len(), lengths.len(), confidences.len()] != [count; 3] {
        let reason = format!(
            "has {} entries, with {} lengths and {} confidences, for {count} words",
            starts.len(),
            lengths.len(),
            confidences.len()
        );
        return Err(malformed("Final.word_starts_us", reason));
    }
    let outside = || malformed("Final.word_starts_us", "leads out of the range of times");
    let columns = starts.iter().zip(lengths).zip(confidences);
    text.split(' ')
        .zip(columns)
        .map(|(text, ((start, length), confidence))| {
            let start = before.checked_add_signed(*start).ok_or_else(outside)?;
            before = start;
            Ok(SpokenWord {
                text: text.to_owned(),
                start: StreamTime(start),
                end: StreamTime(start.checked_add(*length).ok_or_else(outside)?),
                confidence: fraction("Final.word_confidences", *confidence)?,
            })
        })
        .collect()
}

impl From<&Partial> for v1::Partial {
    fn from(it: &Partial) -> Self {
        Self {
            stream: bytes(it.stream.0),
            utterance: bytes(it.utterance.0),
            revision: it.revision,
            participant: Some((&*it.participant).into()),
            origin_us: it.origin.0,
            start_us: it.start.0,
            end_us: it.end.0,
            text: it.text.clone(),
            stable_bytes: short(it.stable),
            confidence: it.confidence,
        }
    }
}

impl TryFrom<v1::Partial> for Partial {
    type Error = Malformed;

    fn try_from(it: v1::Partial) -> Result<Self, Malformed> {
        let text = spoken("Partial.text", it.text)?;
        let stable = it.stable_bytes as usize;
        if !text.is_char_boundary(stable) {
            return Err(malformed("Partial.stable_bytes", format!("is {stable}, which does not divide the text")));
        }
        Ok(Self {
            stream: StreamId(uuid("Partial.stream", &it.stream)?),
            utterance: UtteranceId(uuid("Partial.utterance", &it.utterance)?),
            revision: it.revision,
            participant: Arc::new(required("Partial.participant", it.participant)?.try_into()?),
            origin: Timestamp(it.origin_us),
            start: StreamTime(it.start_us),
            end: StreamTime(it.end_us),
            text,
            stable,
            confidence: fraction("Partial.confidence", it.confidence)?,
        })
    }
}

impl From<&Insight> for v1::Insight {
    fn from(it: &Insight) -> Self {
        use v1::insight::Body;
        let person = |it: &Option<Arc<Participant>>| it.as_deref().map(v1::Participant::from);
        let task = |assignee, due: &Option<String>| v1::Task { assignee: person(assignee), due: due.clone() };
        let body = match &it.body {
            InsightBody::Question => Body::Question(v1::Question {}),
            InsightBody::ActionItem { assignee, due } => Body::ActionItem(task(assignee, due)),
            InsightBody::FollowUp { assignee, due } => Body::FollowUp(task(assignee, due)),
            InsightBody::Topic { phrase, root_words } => {
                Body::Topic(v1::Topic { phrase: phrase.clone(), root_words: root_words.clone() })
            }
            InsightBody::Tracker { tracker, value } => {
                Body::Tracker(v1::TrackerMatch { tracker: tracker.clone(), value: value.clone() })
            }
            InsightBody::Entity { kind, value } => {
                Body::Entity(v1::Entity { kind: kind.clone(), value: value.clone() })
            }
            InsightBody::Intent { intent } => Body::Intent(v1::Intent { intent: intent.clone() }),
        };
        Self {
            id: bytes(it.id.0),
            revision: it.revision,
            retracted: it.retracted,
            confidence: it.confidence,
            text: it.text.clone(),
            from: person(&it.from),
            evidence: it
                .evidence
                .iter()
                .map(|it| v1::Evidence { message: bytes(it.message), start: it.start, end: it.end })
                .collect(),
            body: Some(body),
        }
    }
}

impl TryFrom<v1::Insight> for Insight {
    type Error = Malformed;

    fn try_from(it: v1::Insight) -> Result<Self, Malformed> {
        use v1::insight::Body;
        let person = |it: Option<v1::Participant>| it.map(|it| Participant::try_from(it).map(Arc::new)).transpose();
        let body = match required("Insight.body", it.body)? {
            Body::Question(v1::Question {}) => InsightBody::Question,
            Body::ActionItem(it) => InsightBody::ActionItem { assignee: person(it.assignee)?, due: it.due },
            Body::FollowUp(it) => InsightBody::FollowUp { assignee: person(it.assignee)?, due: it.due },
            Body::Topic(it) => InsightBody::Topic { phrase: it.phrase, root_words: it.root_words },
            Body::Tracker(it) => InsightBody::Tracker { tracker: it.tracker, value: it.value },
            Body::Entity(it) => InsightBody::Entity { kind: it.kind, value: it.value },
            Body::Intent(it) => InsightBody::Intent { intent: it.intent },
        };
        Ok(Self {
            id: hearsay_protocol::EventId(uuid("Insight.id", &it.id)?),
            revision: it.revision,
            retracted: it.retracted,
            confidence: fraction("Insight.confidence", it.confidence)?,
            text: it.text,
            from: person(it.from)?,
            evidence: it
                .evidence
                .into_iter()
                .map(|it| {
                    let message = uuid("Evidence.message", &it.message)?;
                    Ok(Evidence { message, start: it.start, end: it.end })
                })
                .collect::<Result<_, Malformed>>()?,
            body,
        })
    }
}
