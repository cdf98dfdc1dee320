//! What a finished conversation becomes when its log is compacted: one JSON document, versioned, compressed.
//!
//! An hour of one speaker is 9,000 words, of which each would take 50 bytes by itself: words that stand in their
//! message's text are not repeated, and times are columns of differences ([`Columns`]).

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use flate2::{Compression, read::ZlibDecoder, write::ZlibEncoder};
use hearsay_protocol::{
    event::{EndReason, InsightBody, Participant},
    sentences,
    time::Timestamp,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::Conversation;

/// The layout this version writes.
const VERSION: u32 = 1;
/// A record is at most this large when it is read; the largest conversation there may be has a tenth of it.
const MAX: u64 = 1 << 30;

/// A finished conversation. Times are µs since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    pub title: String,
    pub started_us: u64,
    pub ended_us: Option<u64>,
    pub end_reason: Option<String>,
    pub members: Vec<RecordedMember>,
    /// One a sentence, by start time.
    #[serde(serialize_with = "to_columns", deserialize_with = "from_columns")]
    pub messages: Vec<RecordedMessage>,
    pub insights: Vec<RecordedInsight>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordedMember {
    pub id: Uuid,
    pub user_id: Option<String>,
    pub name: Option<String>,
    pub email: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct RecordedMessage {
    pub id: Uuid,
    /// The member who said it.
    pub from: Uuid,
    pub text: String,
    pub start_us: u64,
    pub end_us: u64,
    pub words: Vec<RecordedWord>,
    /// From -100, negative, to 100, positive; none: not weighed.
    pub sentiment: Option<i8>,
}

/// A word with its times and its confidence in hundredths.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedWord(pub String, pub u64, pub u64, pub u16);

/// Messages as they are stored: columns, because what is alike compresses well side by side.
#[derive(Default, Serialize, Deserialize)]
struct Columns {
    /// 16 bytes each, base64.
    ids: String,
    speakers: Vec<Uuid>,
    /// Which of them.
    from: Vec<usize>,
    texts: Vec<String>,
    /// From the start of the message before; the first from zero.
    starts_us: Vec<i64>,
    lengths_us: Vec<i64>,
    /// By message: words that are not the text's, between its spaces.
    words: BTreeMap<usize, Vec<String>>,
    /// What divides all times of words.
    unit_us: i64,
    /// From the start of the word before, a message's first from the message's, in units.
    word_starts: Vec<i64>,
    word_lengths: Vec<i64>,
    /// Hundredths.
    word_confidences: Vec<u16>,
    /// Of each message, where any has one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    sentiments: Vec<Option<i8>>,
}

fn to_columns<S: Serializer>(messages: &[RecordedMessage], serializer: S) -> Result<S::Ok, S::Error> {
    let mut columns = Columns::default();
    let mut ids = Vec::with_capacity(16 * messages.len());
    let mut last = 0;
    for (index, message) in messages.iter().enumerate() {
        ids.extend_from_slice(message.id.as_bytes());
        let speaker = columns.speakers.iter().position(|id| *id == message.from).unwrap_or_else(|| {
            columns.speakers.push(message.from);
            columns.speakers.len() - 1
        });
        columns.from.push(speaker);
        columns.texts.push(message.text.clone());
        columns.sentiments.push(message.sentiment);
        columns.starts_us.push(difference(message.start_us, last));
        columns.lengths_us.push(difference(message.end_us, message.start_us));
        last = message.start_us;
        let same = message.words.iter().map(|word| word.0.as_str()).eq(message.text.split(' '));
        if !same {
            columns.words.insert(index, message.words.iter().map(|word| word.0.clone()).collect());
        }
        let mut before = message.start_us;
        for RecordedWord(_, start, end, confidence) in &message.words {
            columns.word_starts.push(difference(*start, before));
            columns.word_lengths.push(difference(*end, *start));
            columns.word_confidences.push(*confidence);
            before = *start;
        }
    }
    if columns.sentiments.iter().all(Option::is_none) {
        columns.sentiments.clear();
    }
    columns.ids = STANDARD_NO_PAD.encode(ids);
    let times = columns.word_starts.iter().chain(&columns.word_lengths);
    columns.unit_us = times.fold(0, |unit, &time| divisor(unit, time.saturating_abs())).max(1);
    for time in columns.word_starts.iter_mut().chain(&mut columns.word_lengths) {
        *time /= columns.unit_us;
    }
    columns.serialize(serializer)
}

fn from_columns<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<RecordedMessage>, D::Error> {
    let mut columns = Columns::deserialize(deserializer)?;
    let torn = || serde::de::Error::custom("columns of messages are not of one length");
    let ids = STANDARD_NO_PAD.decode(&columns.ids).map_err(serde::de::Error::custom)?;
    let count = columns.texts.len();
    if ids.len() != 16 * count
        || [columns.from.len(), columns.starts_us.len(), columns.lengths_us.len()] != [count; 3]
        || [columns.word_lengths.len(), columns.word_confidences.len()] != [columns.word_starts.len(); 2]
    {
        return Err(torn());
    }
    let unit = columns.unit_us;
    let times = columns.word_starts.into_iter().zip(columns.word_lengths).zip(columns.word_confidences);
    let mut times =
        times.map(|((start, length), confidence)| (start.wrapping_mul(unit), length.wrapping_mul(unit), confidence));
    let mut messages = Vec::with_capacity(count);
    let mut start_us = 0_u64;
    for (index, text) in columns.texts.into_iter().enumerate() {
        start_us = start_us.wrapping_add_signed(columns.starts_us[index]);
        let own = columns.words.remove(&index);
        let texts = own.unwrap_or_else(|| text.split(' ').map(str::to_owned).collect());
        let mut words = Vec::with_capacity(texts.len());
        let mut before = start_us;
        for text in texts {
            let (start, length, confidence) = times.next().ok_or_else(torn)?;
            before = before.wrapping_add_signed(start);
            words.push(RecordedWord(text, before, before.wrapping_add_signed(length), confidence));
        }
        messages.push(RecordedMessage {
            id: Uuid::from_slice(&ids[16 * index..16 * (index + 1)]).map_err(serde::de::Error::custom)?,
            from: columns.speakers.get(columns.from[index]).copied().ok_or_else(torn)?,
            start_us,
            end_us: start_us.wrapping_add_signed(columns.lengths_us[index]),
            words,
            text,
            sentiment: columns.sentiments.get(index).copied().flatten(),
        });
    }
    if times.next().is_some() { Err(torn()) } else { Ok(messages) }
}

fn difference(time: u64, before: u64) -> i64 {
    time.wrapping_sub(before).cast_signed()
}

/// The greatest that divides both.
fn divisor(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { divisor(b, a % b) }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordedInsight {
    pub id: Uuid,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub revision: u32,
    pub kind: String,
    pub text: String,
    /// In thousandths.
    pub confidence: u16,
    pub from: Option<Uuid>,
    pub assignee: Option<Uuid>,
    pub due: Option<String>,
    /// Of a tracker or an entity: its name, its kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the words mean: an entity's value, a tracker's phrase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    pub evidence: Vec<RecordedEvidence>,
}

/// A sentence's id, and the characters of it: first and after the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedEvidence(pub Uuid, pub u32, pub u32);

#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("the record cannot be uncompressed: {0}")]
    Damaged(#[from] std::io::Error),
    #[error("the record is no JSON of the layout known: {0}")]
    Malformed(#[from] serde_json::Error),
    #[error("the record has layout {got}; up to {VERSION} is known")]
    Newer { got: u32 },
}

impl Record {
    pub fn of(conversation: &Conversation) -> Self {
        let wall = |origin: Timestamp, time: hearsay_protocol::StreamTime| time.at(origin).micros();
        let mut messages = Vec::new();
        for spoken in conversation.finals() {
            for (at, sentence) in sentences(spoken).into_iter().enumerate() {
                let words = sentence.words.iter().map(|word| {
                    let (start, end) = (wall(spoken.origin, word.start), wall(spoken.origin, word.end));
                    RecordedWord(word.text.clone(), start, end, hundredths(word.confidence))
                });
                messages.push(RecordedMessage {
                    id: sentence.id,
                    from: spoken.participant.id.0,
                    text: sentence.text.to_owned(),
                    start_us: wall(spoken.origin, sentence.start),
                    end_us: wall(spoken.origin, sentence.end),
                    words: words.collect(),
                    sentiment: spoken.sentiment.get(at).map(|it| (it * 100.0).round() as i8),
                });
            }
        }
        Self {
            version: VERSION,
            title: conversation.title.clone(),
            started_us: conversation.started.micros(),
            ended_us: conversation.ended.map(|(at, _)| at.micros()),
            end_reason: conversation.ended.map(|(_, reason)| reason_name(reason).to_owned()),
            members: conversation.members.values().map(|who| RecordedMember::from(&**who)).collect(),
            messages,
            insights: conversation.insights().map(|insight| RecordedInsight::from(&**insight)).collect(),
        }
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        // Strings, numbers and lists: nothing here can fail to be JSON.
        compressed(&serde_json::to_vec(self).unwrap_or_default())
    }

    /// # Errors
    /// When the bytes are not a record, or one of a later version.
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let mut json = Vec::new();
        ZlibDecoder::new(bytes).take(MAX).read_to_end(&mut json)?;
        let Versioned { version } = serde_json::from_slice(&json)?;
        if version > VERSION {
            return Err(RecordError::Newer { got: version });
        }
        Ok(serde_json::from_slice(&json)?)
    }
}

fn compressed(json: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::with_capacity(json.len() / 4), Compression::best());
    // Memory takes whatever is written.
    let _ = encoder.write_all(json);
    encoder.finish().unwrap_or_default()
}

impl From<&Participant> for RecordedMember {
    fn from(who: &Participant) -> Self {
        Self { id: who.id.0, user_id: who.user_id.clone(), name: who.name.clone(), email: who.email.clone() }
    }
}

impl From<&hearsay_protocol::event::Insight> for RecordedInsight {
    fn from(insight: &hearsay_protocol::event::Insight) -> Self {
        let (assignee, due) = match &insight.body {
            InsightBody::ActionItem { assignee, due } | InsightBody::FollowUp { assignee, due } => {
                (assignee.as_ref(), due.clone())
            }
            _ => (None, None),
        };
        let (name, value) = match &insight.body {
            InsightBody::Tracker { tracker, value } => (Some(tracker.clone()), Some(value.clone())),
            InsightBody::Entity { kind, value } => (Some(kind.clone()), Some(value.clone())),
            InsightBody::Intent { intent } => (Some(intent.clone()), None),
            _ => (None, None),
        };
        Self {
            id: insight.id.0,
            revision: insight.revision,
            kind: insight.body.name().to_owned(),
            text: insight.text.clone(),
            confidence: thousandths(insight.confidence),
            from: insight.from.as_ref().map(|who| who.id.0),
            assignee: assignee.map(|who| who.id.0),
            due,
            name,
            value,
            evidence: insight.evidence.iter().map(|it| RecordedEvidence(it.message, it.start, it.end)).collect(),
        }
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn hundredths(confidence: f32) -> u16 {
    (confidence.clamp(0.0, 1.0) * 100.0).round() as u16
}

fn thousandths(confidence: f32) -> u16 {
    (confidence.clamp(0.0, 1.0) * 1_000.0).round() as u16
}

fn reason_name(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Stopped => "stopped",
        EndReason::Abandoned => "abandoned",
        EndReason::Silence => "silence",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_layout_is_refused_by_number() {
        let error = Record::parse(&compressed(br#"{"version":99,"anything":1}"#)).unwrap_err();
        assert_eq!(error.to_string(), "the record has layout 99; up to 1 is known");
        assert!(Record::parse(&compressed(b"{}")).is_err());
        assert!(Record::parse(b"\xff").is_err());
        assert!(Record::parse(b"{}").is_err());
    }

    #[test]
    fn words_that_are_not_the_texts_and_odd_times_survive() {
        let word = |text: &str, start, end| RecordedWord(text.to_owned(), start, end, 90);
        let message = |text: &str, words| RecordedMessage {
            id: Uuid::from_u128(1),
            from: Uuid::from_u128(2),
            text: text.to_owned(),
            start_us: 1_000,
            end_us: 9_000,
            words,
            sentiment: text.starts_with('a').then_some(-42),
        };
        let record = Record {
            version: VERSION,
            title: "odd".to_owned(),
            started_us: 1,
            ended_us: None,
            end_reason: None,
            members: Vec::new(),
            messages: vec![
                message("a b", vec![word("a", 1_000, 2_000), word("b", 3_000, 9_000)]),
                message("a b", vec![word("a", 1_001, 2_007), word("b", 500, 400)]),
                message("*** b", vec![word("a", 1_000, 2_000)]),
                message("nothing timed", Vec::new()),
            ],
            insights: Vec::new(),
        };
        assert_eq!(Record::parse(&record.to_bytes()).unwrap(), record);
        let json = serde_json::to_string(&record).unwrap();
        for (from, to) in [("\"from\":[0,", "\"from\":["), ("\"from\":[0,", "\"from\":[9,"), ("[90,", "[90,90,")] {
            let torn = json.replacen(from, to, 1);
            assert_ne!(torn, json);
            assert!(serde_json::from_str::<Record>(&torn).is_err(), "{torn}");
        }
    }
}
