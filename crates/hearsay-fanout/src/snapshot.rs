//! The conversation as it is at one position, for joiners that want to begin with a whole picture.
//!
//! Kept by a feed only once somebody asked, moved on with every entry, written once per view and position. The shapes are
//! those of REST.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use hearsay_bus::{Entry, Seen};
use hearsay_conversation::Conversation;
use hearsay_protocol::{
    ConversationId, Position, StreamTime, Timestamp,
    event::{InsightBody, Partial, Participant, SpokenWord},
    sentences,
    wire::{self, User},
};
use serde::Serialize;

use crate::{Audience, frame};

/// The fold of the log up to [`Picture::at`].
#[derive(Default)]
pub(crate) struct Picture {
    pub(crate) at: Option<Seen>,
    fold: Conversation,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Member<'a> {
    id: uuid::Uuid,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
    user_id: &'a str,
}

impl<'a> From<&'a Participant> for Member<'a> {
    fn from(who: &'a Participant) -> Self {
        Self {
            id: who.id.0,
            name: who.name.as_deref().unwrap_or_default(),
            email: who.email.as_deref(),
            user_id: who.user_id.as_deref().unwrap_or_default(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Word<'a> {
    word: &'a str,
    start_time: String,
    end_time: String,
    score: f32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Message<'a> {
    id: uuid::Uuid,
    text: &'a str,
    from: Member<'a>,
    start_time: String,
    end_time: String,
    time_offset: f64,
    duration: f64,
    conversation_id: String,
    words: Vec<Word<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Inferred<'a> {
    id: uuid::Uuid,
    text: &'a str,
    r#type: &'static str,
    score: f32,
    message_ids: Vec<uuid::Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<Member<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    assignee: Option<Member<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    due_by: Option<&'a str>,
    revision: u32,
    evidence: Vec<wire::EvidenceShape>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OpenPartial<'a> {
    utterance: uuid::Uuid,
    text: &'a str,
    user: User<'a>,
    time_offset: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shape<'a> {
    id: String,
    r#type: &'static str,
    name: &'a str,
    start_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_time: Option<String>,
    members: Vec<Member<'a>>,
    messages: Vec<Message<'a>>,
    insights: Vec<Inferred<'a>>,
    topics: Vec<Inferred<'a>>,
    trackers: Vec<Inferred<'a>>,
    partials: Vec<OpenPartial<'a>>,
}

impl Picture {
    pub(crate) fn apply(&mut self, entry: &Entry, at: Seen) {
        self.at = Some(at);
        self.fold.apply(entry);
    }

    /// One `snapshot` frame.
    pub(crate) fn render<'a>(
        &self,
        conversation: ConversationId,
        position: Position,
        audience: &Audience,
        partials: impl Iterator<Item = &'a Arc<Partial>>,
        limit: usize,
    ) -> Bytes {
        let (mut messages, mut truncated) = (VecDeque::new(), false);
        let place = |origin: Timestamp, time: StreamTime| time.at(origin).iso8601();
        for spoken in self.fold.finals() {
            let word = |word: &'_ SpokenWord| (place(spoken.origin, word.start), place(spoken.origin, word.end));
            for sentence in sentences(spoken) {
                let words = sentence.words.iter().map(|spoken| {
                    let (start_time, end_time) = word(spoken);
                    Word { word: &spoken.text, start_time, end_time, score: spoken.confidence }
                });
                messages.push_back(Message {
                    id: sentence.id,
                    text: sentence.text,
                    from: Member::from(&*spoken.participant),
                    start_time: place(spoken.origin, sentence.start),
                    end_time: place(spoken.origin, sentence.end),
                    time_offset: sentence.start.millis() as f64 / 1_000.0,
                    duration: sentence.end.since(sentence.start).as_millis() as f64 / 1_000.0,
                    conversation_id: conversation.to_string(),
                    words: words.collect(),
                });
                if messages.len() > limit {
                    messages.pop_front();
                    truncated = true;
                }
            }
        }
        let (mut insights, mut topics, mut trackers) = (Vec::new(), Vec::new(), Vec::new());
        for insight in self.fold.insights().filter(|insight| !audience.view.hides(insight)) {
            let (list, kind, assignee, due) = match &insight.body {
                InsightBody::Question => (&mut insights, "question", None, None),
                InsightBody::ActionItem { assignee, due } => {
                    (&mut insights, "action_item", assignee.as_ref(), due.as_deref())
                }
                InsightBody::FollowUp { assignee, due } => {
                    (&mut insights, "follow_up", assignee.as_ref(), due.as_deref())
                }
                InsightBody::Topic { .. } => (&mut topics, "topic", None, None),
                InsightBody::Tracker { .. } => (&mut trackers, "tracker", None, None),
                InsightBody::Entity { .. } | InsightBody::Intent { .. } => continue,
            };
            let text = match &insight.body {
                InsightBody::Topic { phrase: name, .. } | InsightBody::Tracker { tracker: name, .. } => name,
                _ => &insight.text,
            };
            list.push(Inferred {
                id: insight.id.0,
                text,
                r#type: kind,
                score: insight.confidence,
                message_ids: insight.evidence.iter().map(|part| part.message).collect(),
                from: insight.from.as_deref().map(Member::from),
                assignee: assignee.map(|who| Member::from(&**who)),
                due_by: due,
                revision: insight.revision,
                evidence: insight.evidence.iter().map(wire::EvidenceShape::from).collect(),
            });
        }
        let partials = partials.map(|partial| OpenPartial {
            utterance: partial.utterance.0,
            text: &partial.text,
            user: User::from(&*partial.participant),
            time_offset: partial.start.millis(),
        });
        let conversation = Shape {
            id: conversation.to_string(),
            r#type: "meeting",
            name: &self.fold.title,
            start_time: self.fold.started.iso8601(),
            end_time: self.fold.ended.map(|(at, _)| at.iso8601()),
            members: self.fold.members.values().map(|who| Member::from(&**who)).collect(),
            messages: messages.into(),
            insights,
            topics,
            trackers,
            partials: partials.collect(),
        };
        frame::text(&wire::snapshot(position, &conversation, truncated))
    }
}
