//! What is said of an insight, and of a conversation that is over: the same whether it comes from the log or from the
//! record that the log became.

use std::sync::Arc;

use hearsay_conversation::{Record, RecordedInsight, RecordedMember, Talk};
use hearsay_protocol::{
    ConversationKey, EventId, Timestamp,
    event::{Insight, InsightBody, Participant},
};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

/// Of each kind in the word on a conversation.
const MOST: usize = 100;
/// Characters of one text.
const TEXT: usize = 2_000;
/// Names ids of what has none.
const NAMESPACE: Uuid = Uuid::from_u128(0x0c2d_6f0a_6a3e_4b1f_9a57_0d6e_51f3_77b4);

/// Something that happened, as receivers are told of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Happened {
    /// The same for everybody who tells of it.
    pub(crate) id: Uuid,
    pub(crate) kind: &'static str,
    pub(crate) body: String,
}

fn happened(id: Uuid, kind: &'static str, at: Timestamp, data: &Value) -> Happened {
    let body = json!({ "type": kind, "timestamp": at.iso8601(), "data": data }).to_string();
    Happened { id, kind, body }
}

/// One message's id: of something that happened, by one rule, to one receiver.
pub(crate) fn errand(event: Uuid, rule: &str, to: &str) -> Uuid {
    Uuid::new_v5(&event, format!("{rule}\0{to}").as_bytes())
}

/// The id of a conversation's end.
pub(crate) fn end_of(key: &ConversationKey) -> Uuid {
    let name = format!("{}\0{}\0{}\0ended", key.meeting.account, key.meeting.meeting, key.conversation);
    Uuid::new_v5(&NAMESPACE, name.as_bytes())
}

/// Whoever is named.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Person {
    pub(crate) id: Uuid,
    pub(crate) name: String,
    pub(crate) user_id: Option<String>,
}

impl Person {
    fn of(who: &Participant) -> Self {
        Self { id: who.id.0, name: who.name.clone().unwrap_or_default(), user_id: who.user_id.clone() }
    }

    fn recorded(record: &Record, id: Uuid) -> Self {
        let known = record.members.iter().find(|it| it.id == id);
        let name = known.and_then(|it| it.name.clone()).unwrap_or_default();
        Self { id, name, user_id: known.and_then(|it| it.user_id.clone()) }
    }
}

/// An insight, wherever it was read.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Inferred {
    pub(crate) id: Uuid,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) revision: u32,
    pub(crate) retracted: bool,
    pub(crate) text: String,
    /// 0 to 1, in thousandths.
    pub(crate) confidence: f64,
    pub(crate) from: Option<Person>,
    pub(crate) assignee: Option<Person>,
    #[serde(rename = "dueBy")]
    pub(crate) due: Option<String>,
    /// A tracker's name, an entity's kind.
    pub(crate) name: Option<String>,
    pub(crate) value: Option<String>,
    pub(crate) message_ids: Vec<Uuid>,
}

impl Inferred {
    pub(crate) fn of(insight: &Insight) -> Self {
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
        let person = |who: &Arc<Participant>| Person::of(who);
        Self {
            id: insight.id.0,
            kind: insight.body.name().to_owned(),
            revision: insight.revision,
            retracted: insight.retracted,
            text: short(&insight.text),
            confidence: thousandths(insight.confidence),
            from: insight.from.as_ref().map(person),
            assignee: assignee.map(person),
            due,
            name,
            value,
            message_ids: messages(insight.evidence.iter().map(|it| it.message)),
        }
    }

    pub(crate) fn recorded(record: &Record, it: &RecordedInsight) -> Self {
        Self {
            id: it.id,
            kind: it.kind.clone(),
            revision: it.revision,
            retracted: false,
            text: short(&it.text),
            confidence: f64::from(it.confidence) / 1_000.0,
            from: it.from.map(|id| Person::recorded(record, id)),
            assignee: it.assignee.map(|id| Person::recorded(record, id)),
            due: it.due.clone(),
            name: it.name.clone(),
            value: it.value.clone(),
            message_ids: messages(it.evidence.iter().map(|it| it.0)),
        }
    }

    pub(crate) fn happened(&self, key: &ConversationKey, at: Timestamp) -> Happened {
        let kind = match (self.retracted, self.revision) {
            (true, _) => "insight.retracted",
            (false, 0) => "insight.created",
            (false, _) => "insight.updated",
        };
        let id = EventId::of_revision(EventId(self.id), self.revision).0;
        happened(id, kind, at, &json!({ "conversation": conversation(key), "insight": self }))
    }
}

fn messages(ids: impl Iterator<Item = Uuid>) -> Vec<Uuid> {
    let mut ids: Vec<_> = ids.take(MOST).collect();
    ids.dedup();
    ids
}

fn thousandths(confidence: f32) -> f64 {
    f64::from((confidence.clamp(0.0, 1.0) * 1_000.0).round()) / 1_000.0
}

fn short(text: &str) -> String {
    text.chars().take(TEXT).collect()
}

fn conversation(key: &ConversationKey) -> Value {
    json!({
        "id": key.conversation.to_string(),
        "meeting": key.meeting.meeting.as_str(),
        "account": key.meeting.account.as_str(),
    })
}

/// A conversation that is over, as far as others are told of it: lists end after the first hundred.
pub(crate) struct Minutes {
    pub(crate) title: String,
    pub(crate) started: Timestamp,
    pub(crate) ended: Timestamp,
    pub(crate) summary: Vec<String>,
    pub(crate) tasks: Vec<Inferred>,
    pub(crate) follow_ups: Vec<Inferred>,
    pub(crate) questions: Vec<Inferred>,
    pub(crate) topics: Vec<String>,
    pub(crate) speakers: Vec<Speaker>,
    pub(crate) members: Vec<RecordedMember>,
}

pub(crate) struct Speaker {
    pub(crate) name: String,
    pub(crate) id: Uuid,
    pub(crate) talk_us: u64,
    /// Of all speech, 0 to 1.
    pub(crate) ratio: f64,
}

impl Minutes {
    pub(crate) fn of(key: &ConversationKey, record: &Record) -> Self {
        let last = record.messages.iter().map(|said| said.end_us).max().unwrap_or(record.started_us);
        let (started, ended) = (Timestamp(record.started_us), Timestamp(record.ended_us.unwrap_or(last)));
        let of_kind = |kind: &str| -> Vec<Inferred> {
            let place = |it: &RecordedInsight| {
                it.evidence.first().map(|it| (record.messages.iter().position(|said| said.id == it.0), it.1))
            };
            let mut found: Vec<_> = record.insights.iter().filter(|it| it.kind == kind).collect();
            found.sort_by_cached_key(|it| (place(it), it.id));
            found.into_iter().take(MOST).map(|it| Inferred::recorded(record, it)).collect()
        };
        let talk = Talk::of(record).analytics(started, Some(ended));
        let speakers = talk.speakers.iter().take(MOST).map(|it| Speaker {
            name: Person::recorded(record, it.id).name,
            id: it.id,
            talk_us: it.talk_us,
            ratio: it.ratio(&talk),
        });
        let title = if record.title.trim().is_empty() { key.meeting.meeting.as_str() } else { record.title.as_str() };
        Self {
            title: short(title),
            started,
            ended,
            summary: summary(record),
            tasks: of_kind("action_item"),
            follow_ups: of_kind("follow_up"),
            questions: of_kind("question"),
            topics: of_kind("topic").into_iter().map(|it| it.text).collect(),
            speakers: speakers.collect(),
            members: record.members.iter().take(MOST).cloned().collect(),
        }
    }

    pub(crate) fn happened(&self, key: &ConversationKey) -> Happened {
        let speakers = self.speakers.iter().map(
            |it| json!({ "id": it.id, "name": it.name, "talkSeconds": it.talk_us as f64 / 1e6, "ratio": it.ratio }),
        );
        let members = self
            .members
            .iter()
            .map(|it| json!({ "id": it.id, "name": it.name, "userId": it.user_id, "email": it.email }));
        let data = json!({
            "conversation": conversation(key),
            "title": self.title,
            "startTime": self.started.iso8601(),
            "endTime": self.ended.iso8601(),
            "members": members.collect::<Vec<_>>(),
            "speakers": speakers.collect::<Vec<_>>(),
            "summary": self.summary,
            "actionItems": self.tasks,
            "followUps": self.follow_ups,
            "questions": self.questions,
            "topics": self.topics,
        });
        happened(end_of(key), "conversation.ended", self.ended, &data)
    }
}

/// Sentences that stand for the whole.
fn summary(_record: &Record) -> Vec<String> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use hearsay_conversation::Conversation;
    use hearsay_protocol::{
        AccountId, ConversationId, MeetingId, MeetingKey, Offset, ParticipantId, PublisherId,
        event::{Event, Evidence},
    };

    use super::*;

    fn key() -> ConversationKey {
        ConversationKey {
            meeting: MeetingKey { account: AccountId::dev(), meeting: MeetingId::new("m").unwrap() },
            conversation: ConversationId::from_random(1),
        }
    }

    #[test]
    fn an_insight_of_the_log_and_of_the_record_is_one() {
        let anna = Arc::new(Participant {
            id: ParticipantId(Uuid::from_u128(1)),
            user_id: Some("anna".to_owned()),
            name: Some("Anna".to_owned()),
            email: None,
        });
        let bodies = [
            InsightBody::ActionItem { assignee: Some(Arc::clone(&anna)), due: Some("2026-03-13T00:00:00Z".to_owned()) },
            InsightBody::Tracker { tracker: "price".to_owned(), value: "cost".to_owned() },
            InsightBody::Question,
        ];
        for (n, body) in bodies.into_iter().enumerate() {
            let insight = Arc::new(Insight {
                id: EventId(Uuid::from_u128(n as u128 + 5)),
                revision: 3,
                retracted: false,
                confidence: 0.123_456,
                text: "Send it.".to_owned(),
                from: Some(Arc::clone(&anna)),
                evidence: vec![Evidence { message: Uuid::from_u128(9), start: 0, end: 4 }],
                body,
            });
            let mut conversation = Conversation::default();
            for (offset, event) in
                [Event::Joined(Arc::clone(&anna)), Event::Insight(Arc::clone(&insight))].into_iter().enumerate()
            {
                conversation.apply(&hearsay_bus::Entry {
                    offset: Offset(offset as u64 + 1),
                    check: 0,
                    at: Timestamp::ZERO,
                    id: EventId(Uuid::from_u128(100 + offset as u128)),
                    sequence: 0,
                    publisher: PublisherId::Analyst,
                    body: hearsay_bus::Body::Event(event),
                });
            }
            let record = Record::of(&conversation);
            let record = Record::parse(&record.to_bytes()).unwrap();
            let (read, recorded) = (Inferred::of(&insight), Inferred::recorded(&record, &record.insights[0]));
            assert_eq!(read, recorded);
            let told = read.happened(&key(), Timestamp(1));
            assert_eq!((told.id, told.kind), (EventId::of_revision(insight.id, 3).0, "insight.updated"));
            let body: Value = serde_json::from_str(&told.body).unwrap();
            assert_eq!(body["type"], "insight.updated");
            assert_eq!(body["data"]["insight"]["from"]["name"], "Anna");
            assert_eq!(body["data"]["conversation"]["meeting"], "m");
        }
    }

    #[test]
    fn ids_differ_by_cause_rule_and_receiver() {
        let (a, b) = (end_of(&key()), Uuid::from_u128(1));
        let ids = [errand(a, "x", "y"), errand(b, "x", "y"), errand(a, "xy", ""), errand(a, "x", "z")];
        for (n, id) in ids.iter().enumerate() {
            assert!(!ids[n + 1..].contains(id));
        }
        assert_eq!(errand(a, "x", "y"), errand(a, "x", "y"));
    }
}
