//! The conversation as it is at one position, for joiners that want to begin with a whole picture.
//!
//! A pure fold of entries. Kept by a feed only once somebody asked, moved on with every entry, written once per view and
//! position. Bounded: the last [`Picture::MESSAGES`] messages that can be asked for, and as many insights.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use hearsay_bus::{Body, Entry, Seen};
use hearsay_protocol::{
    ConversationId, EventId, ParticipantId, Position, StreamTime, Timestamp,
    event::{Event, Final, Insight, InsightBody, Partial, Participant, SpokenWord},
    wire::{self, User},
};
use serde::Serialize;
use std::sync::Arc;

use crate::{Audience, frame, sentences::sentences};

/// A fold of the log up to [`Picture::at`].
#[derive(Default)]
pub(crate) struct Picture {
    pub(crate) at: Option<Seen>,
    title: String,
    started: Timestamp,
    ended: Option<Timestamp>,
    members: BTreeMap<ParticipantId, Arc<Participant>>,
    finals: VecDeque<Arc<Final>>,
    /// Sentences in `finals`.
    kept: usize,
    /// Sentences there were.
    messages: usize,
    insights: VecDeque<EventId>,
    newest: BTreeMap<EventId, Arc<Insight>>,
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
struct Conversation<'a> {
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
    partials: Vec<OpenPartial<'a>>,
}

impl Picture {
    /// Most that is kept of messages, and of insights.
    pub(crate) const MESSAGES: usize = 1_000;

    pub(crate) fn apply(&mut self, entry: &Entry, at: Seen) {
        self.at = Some(at);
        let Body::Event(event) = &entry.body else { return };
        match event {
            Event::Started(started) => {
                self.started = started.at;
                self.title.clone_from(&started.title);
            }
            Event::Joined(who) => {
                self.members.insert(who.id, Arc::clone(who));
            }
            Event::StreamStarted(started) => {
                self.members.insert(started.participant.id, Arc::clone(&started.participant));
            }
            Event::Final(spoken) => {
                self.finals.push_back(Arc::clone(spoken));
                let added = sentences(spoken).len();
                self.kept += added;
                self.messages += added;
                while self.kept > Self::MESSAGES
                    && let Some(first) = self.finals.front()
                {
                    self.kept -= sentences(first).len();
                    self.finals.pop_front();
                }
            }
            Event::Insight(insight) => {
                match self.newest.get_mut(&insight.id) {
                    Some(newest) if newest.revision <= insight.revision => *newest = Arc::clone(insight),
                    Some(_) => (),
                    None => {
                        self.newest.insert(insight.id, Arc::clone(insight));
                        self.insights.push_back(insight.id);
                    }
                }
                if self.insights.len() > Self::MESSAGES
                    && let Some(oldest) = self.insights.pop_front()
                {
                    self.newest.remove(&oldest);
                }
            }
            Event::Ended(ended) => self.ended = Some(ended.at),
            Event::Left(_) | Event::ConfigChanged(_) | Event::StreamEnded(_) => (),
        }
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
        let mut messages = Vec::new();
        let place = |origin: Timestamp, time: StreamTime| time.at(origin).iso8601();
        for spoken in &self.finals {
            let word = |word: &'_ SpokenWord| (place(spoken.origin, word.start), place(spoken.origin, word.end));
            for sentence in sentences(spoken) {
                let words = sentence.words.iter().map(|spoken| {
                    let (start_time, end_time) = word(spoken);
                    Word { word: &spoken.text, start_time, end_time, score: spoken.confidence }
                });
                messages.push(Message {
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
            }
        }
        let shown = messages.split_off(messages.len().saturating_sub(limit));
        let truncated = shown.len() < self.messages;
        let (mut insights, mut topics) = (Vec::new(), Vec::new());
        let seen = self.insights.iter().filter_map(|id| self.newest.get(id));
        for insight in seen.filter(|insight| !insight.retracted && !audience.view.hides(insight)) {
            let (list, kind, assignee, due) = match &insight.body {
                InsightBody::Question => (&mut insights, "question", None, None),
                InsightBody::ActionItem { assignee, due } => {
                    (&mut insights, "action_item", assignee.as_ref(), due.as_deref())
                }
                InsightBody::FollowUp { assignee, due } => {
                    (&mut insights, "follow_up", assignee.as_ref(), due.as_deref())
                }
                InsightBody::Topic { .. } => (&mut topics, "topic", None, None),
                InsightBody::Tracker { .. } | InsightBody::Entity { .. } => continue,
            };
            let text = match &insight.body {
                InsightBody::Topic { phrase, .. } => phrase,
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
            });
        }
        let partials = partials.map(|partial| OpenPartial {
            utterance: partial.utterance.0,
            text: &partial.text,
            user: User::from(&*partial.participant),
            time_offset: partial.start.millis(),
        });
        let conversation = Conversation {
            id: conversation.to_string(),
            r#type: "meeting",
            name: &self.title,
            start_time: self.started.iso8601(),
            end_time: self.ended.map(Timestamp::iso8601),
            members: self.members.values().map(|who| Member::from(&**who)).collect(),
            messages: shown,
            insights,
            topics,
            partials: partials.collect(),
        };
        frame::text(&wire::snapshot(position, &conversation, truncated))
    }
}
