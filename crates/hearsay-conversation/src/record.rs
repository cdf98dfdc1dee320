//! What a finished conversation becomes when its log is compacted: one JSON document, versioned.

use hearsay_protocol::{
    event::{EndReason, InsightBody, Participant},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Conversation, sentences};

/// The layout this version writes.
const VERSION: u32 = 1;

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

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordedWord(pub String, pub u64, pub u64, pub u16);

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
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// # Errors
    /// When the bytes are not a record, or one of a later version.
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version } = serde_json::from_slice(bytes)?;
        if version > VERSION {
            return Err(RecordError::Newer { got: version });
        }
        Ok(serde_json::from_slice(bytes)?)
    }
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
        let error = Record::parse(br#"{"version":99,"anything":1}"#).unwrap_err();
        assert_eq!(error.to_string(), "the record has layout 99; up to 1 is known");
        assert!(Record::parse(b"{}").is_err());
        assert!(Record::parse(b"\xff").is_err());
    }
}
