//! Conversations over REST: the record of a finished one, or the log of a live one folded into the same.
//!
//! Cost: a live conversation is read whole, in pages; at most [`MAX_READERS`] at once on a gateway.

use std::time::Duration;

use hearsay_bus::{Bus, Error, Read, Refusal};
use hearsay_conversation::{Conversation, Record, RecordedMember, RecordedMessage};
use hearsay_protocol::{ConversationId, ConversationKey, Seen, Timestamp};
use serde_json::{Value, json};

/// Conversations read at once; more wait their turn.
pub(crate) const MAX_READERS: usize = 8;
/// Entries in one read.
const PAGE: usize = 500;

/// What was said and inferred so far. None: the conversation was deleted.
///
/// # Errors
/// When the log does not answer.
pub(crate) async fn load(bus: &dyn Bus, key: &ConversationKey) -> Result<Option<Record>, Error> {
    match read(bus, key).await {
        Err(Error::Refused(Refusal::Gone)) => Ok(None),
        answer => answer.map(Some),
    }
}

async fn read(bus: &dyn Bus, key: &ConversationKey) -> Result<Record, Error> {
    if let Some(bytes) = bus.record(key).await? {
        return Record::parse(&bytes).map_err(|error| Error::Unavailable(error.to_string()));
    }
    let mut conversation = Conversation::default();
    let mut after = Seen::NOTHING;
    loop {
        match bus.read(key, after, PAGE).await? {
            Read::Page(page) => {
                for entry in &page.entries {
                    conversation.apply(entry);
                    after = Seen { epoch: Some(page.epoch), offset: entry.offset, check: Some(entry.check) };
                }
                if page.entries.is_empty() || after.offset >= page.top.offset {
                    return Ok(Record::of(&conversation));
                }
            }
            // Compacted meanwhile, or beyond its retention: what can still be given is.
            Read::Gap { resume, .. } if resume.offset > after.offset => after = resume,
            Read::Gap { .. } => return Ok(Record::of(&conversation)),
        }
    }
}

/// `GET /v1/conversations/{id}`.
pub(crate) fn metadata(id: ConversationId, record: &Record) -> Value {
    let mut metadata = json!({
        "id": id.to_string(),
        "type": "meeting",
        "name": record.title,
        "startTime": iso(record.started_us),
        "members": record.members.iter().map(member).collect::<Vec<_>>(),
        "metadata": {},
    });
    // Absent rather than null while it goes on: strict decoders parse what is there as a time.
    if let Some(ended) = record.ended_us {
        metadata["endTime"] = iso(ended).into();
    }
    metadata
}

/// `GET /v1/conversations/{id}/messages`.
pub(crate) fn messages(id: ConversationId, record: &Record, verbose: bool) -> Value {
    let messages: Vec<_> = record.messages.iter().map(|said| message(id, record, said, verbose)).collect();
    json!({ "messages": messages })
}

fn message(id: ConversationId, record: &Record, said: &RecordedMessage, verbose: bool) -> Value {
    let from = record.members.iter().find(|member| member.id == said.from);
    let mut message = json!({
        "id": said.id,
        "text": said.text,
        "from": from.map_or_else(|| json!({ "id": said.from, "name": "" }), member),
        "startTime": iso(said.start_us),
        "endTime": iso(said.end_us),
        "timeOffset": seconds(record.started_us, said.start_us),
        "duration": seconds(said.start_us, said.end_us),
        "conversationId": id.to_string(),
        "phrases": [],
    });
    if verbose {
        let words = said.words.iter().map(|word| {
            json!({
                "word": word.0,
                "startTime": iso(word.1),
                "endTime": iso(word.2),
                "score": f64::from(word.3) / 100.0,
                "timeOffset": seconds(record.started_us, word.1),
                "duration": seconds(word.1, word.2),
            })
        });
        message["words"] = words.collect();
    }
    message
}

fn member(member: &RecordedMember) -> Value {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    json!({
        "id": member.id,
        "name": text(&member.name),
        "email": text(&member.email),
        "userId": text(&member.user_id),
    })
}

fn iso(micros: u64) -> String {
    Timestamp(micros).iso8601()
}

fn seconds(from_us: u64, to_us: u64) -> f64 {
    Duration::from_micros(to_us.saturating_sub(from_us)).as_secs_f64()
}
