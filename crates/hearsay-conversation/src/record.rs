//! What a finished conversation becomes when its log is compacted: one JSON document, versioned, compressed.
//!
//! An hour of one speaker is 9,000 words, of which each would take 50 bytes by itself: words that stand in their
//! message's text are not repeated, and their times are columns of differences ([`Columns`]).

use std::io::{Read as _, Write as _};

use flate2::{Compression, read::ZlibDecoder, write::ZlibEncoder};
use hearsay_protocol::{
    event::{EndReason, InsightBody, Participant},
    time::Timestamp,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::{Conversation, sentences};

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
}

/// A word with its times and its confidence in thousandths.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedWord(pub String, pub u64, pub u64, pub u16);

/// A message as it is stored.
#[derive(Serialize, Deserialize)]
struct StoredMessage {
    id: Uuid,
    from: Uuid,
    text: String,
    start_us: u64,
    end_us: u64,
    /// None: they are the text's, between its spaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    words: Option<Vec<String>>,
    times: Columns,
}

/// Times of words, in units that divide them all.
#[derive(Serialize, Deserialize)]
struct Columns {
    unit_us: i64,
    /// Each from the start of the word before, the first from the message's.
    starts: Vec<i64>,
    lengths: Vec<i64>,
    /// Thousandths.
    confidences: Vec<u16>,
}

impl Serialize for RecordedMessage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut before = self.start_us;
        let mut columns = Columns { unit_us: 0, starts: Vec::new(), lengths: Vec::new(), confidences: Vec::new() };
        for RecordedWord(_, start, end, confidence) in &self.words {
            columns.starts.push(start.wrapping_sub(before).cast_signed());
            columns.lengths.push(end.wrapping_sub(*start).cast_signed());
            columns.confidences.push(*confidence);
            before = *start;
        }
        let all = columns.starts.iter().chain(&columns.lengths);
        columns.unit_us = all.fold(0, |unit, &time| divisor(unit, time.saturating_abs())).max(1);
        for time in columns.starts.iter_mut().chain(&mut columns.lengths) {
            *time /= columns.unit_us;
        }
        let same = self.words.iter().map(|word| word.0.as_str()).eq(self.text.split(' '));
        StoredMessage {
            id: self.id,
            from: self.from,
            text: self.text.clone(),
            start_us: self.start_us,
            end_us: self.end_us,
            words: (!same).then(|| self.words.iter().map(|word| word.0.clone()).collect()),
            times: columns,
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RecordedMessage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stored = StoredMessage::deserialize(deserializer)?;
        let texts = stored.words.unwrap_or_else(|| stored.text.split(' ').map(str::to_owned).collect());
        let Columns { unit_us, starts, lengths, confidences } = stored.times;
        if [starts.len(), lengths.len(), confidences.len()] != [texts.len(); 3] {
            return Err(serde::de::Error::custom("a message has words without times, or times without words"));
        }
        let mut before = stored.start_us;
        let times = starts.into_iter().zip(lengths).zip(confidences);
        let words = texts.into_iter().zip(times).map(|(text, ((start, length), confidence))| {
            let start = before.wrapping_add_signed(start.wrapping_mul(unit_us));
            before = start;
            RecordedWord(text, start, start.wrapping_add_signed(length.wrapping_mul(unit_us)), confidence)
        });
        Ok(Self {
            id: stored.id,
            from: stored.from,
            start_us: stored.start_us,
            end_us: stored.end_us,
            words: words.collect(),
            text: stored.text,
        })
    }
}

/// The greatest that divides both.
fn divisor(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { divisor(b, a % b) }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordedInsight {
    pub id: Uuid,
    pub kind: String,
    pub text: String,
    /// In thousandths.
    pub confidence: u16,
    pub from: Option<Uuid>,
    pub assignee: Option<Uuid>,
    pub due: Option<String>,
    pub messages: Vec<Uuid>,
}

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
            for sentence in sentences(spoken) {
                let words = sentence.words.iter().map(|word| {
                    let (start, end) = (wall(spoken.origin, word.start), wall(spoken.origin, word.end));
                    RecordedWord(word.text.clone(), start, end, thousandths(word.confidence))
                });
                messages.push(RecordedMessage {
                    id: sentence.id,
                    from: spoken.participant.id.0,
                    text: sentence.text.to_owned(),
                    start_us: wall(spoken.origin, sentence.start),
                    end_us: wall(spoken.origin, sentence.end),
                    words: words.collect(),
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
        let (kind, assignee, due) = match &insight.body {
            InsightBody::Question => ("question", None, None),
            InsightBody::ActionItem { assignee, due } => ("action_item", assignee.as_ref(), due.clone()),
            InsightBody::FollowUp { assignee, due } => ("follow_up", assignee.as_ref(), due.clone()),
            InsightBody::Topic { .. } => ("topic", None, None),
            InsightBody::Tracker { .. } => ("tracker", None, None),
            InsightBody::Entity { .. } => ("entity", None, None),
        };
        Self {
            id: insight.id.0,
            kind: kind.to_owned(),
            text: insight.text.clone(),
            confidence: thousandths(insight.confidence),
            from: insight.from.as_ref().map(|who| who.id.0),
            assignee: assignee.map(|who| who.id.0),
            due,
            messages: insight.evidence.iter().map(|evidence| evidence.message).collect(),
        }
    }
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
        let word = |text: &str, start, end| RecordedWord(text.to_owned(), start, end, 900);
        let message = |text: &str, words| RecordedMessage {
            id: Uuid::from_u128(1),
            from: Uuid::from_u128(2),
            text: text.to_owned(),
            start_us: 1_000,
            end_us: 9_000,
            words,
        };
        for message in [
            message("a b", vec![word("a", 1_000, 2_000), word("b", 3_000, 9_000)]),
            message("a b", vec![word("a", 1_001, 2_007), word("b", 500, 400)]),
            message("*** b", vec![word("a", 1_000, 2_000)]),
            message("nothing timed", Vec::new()),
        ] {
            let stored = serde_json::to_string(&message).unwrap();
            assert_eq!(serde_json::from_str::<RecordedMessage>(&stored).unwrap(), message, "{stored}");
        }
        let torn = r#"{"id":"00000000-0000-0000-0000-000000000001","from":"00000000-0000-0000-0000-000000000002",
            "text":"a b","start_us":0,"end_us":1,"times":{"unit_us":1,"starts":[1],"lengths":[1],"confidences":[1]}}"#;
        assert!(serde_json::from_str::<RecordedMessage>(torn).is_err());
    }
}
