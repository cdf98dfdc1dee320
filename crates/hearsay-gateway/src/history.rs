//! What is known of a participant from earlier conversations of the account: its topics, its summary, what was left to do.
//!
//! A user is told apart by the account and the `userId` that clients give. Who may see it may read those conversations
//! over REST, too: an account's token that is good for every meeting and permits to read conversations.

use std::{sync::Arc, time::Duration};

use hearsay_auth::{Claims, Permission};
use hearsay_bus::{Bus, Error};
use hearsay_conversation::{Record, RecordedInsight, summary};
use hearsay_protocol::{
    ConversationKey, Generation, PublisherId, Timestamp,
    event::{Earlier, Ephemeral, History, OpenTask, Participant},
};
use tokio::time::timeout;

use crate::{metrics, records, shared::Shared};

/// Conversations that are told of; a user's latest are looked through until so many are found.
const TOLD: usize = 5;
/// Of each: topics, tasks.
const TOPICS: usize = 8;
const TASKS: usize = 10;
/// Words of its summary.
const SUMMARY: usize = 60;
/// Characters of any text.
const LONG: usize = 400;
/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether this token's holder may see what was said in any meeting of the account.
pub(crate) fn allowed(claims: &Claims) -> bool {
    claims.meeting.is_none() && claims.permissions.contains(Permission::Conversations)
}

/// Remembers that the participant came, and announces what is known of it, if anything is.
pub(crate) fn tell(
    shared: &Arc<Shared>,
    key: &ConversationKey,
    participant: &Arc<Participant>,
    publisher: PublisherId,
    generation: Generation,
) {
    let Some(user) = participant.user_id.clone().filter(|_| shared.config.caller_history) else { return };
    let (shared, key, participant) = (Arc::clone(shared), key.clone(), Arc::clone(participant));
    let tasks = shared.tasks.clone();
    drop(tasks.spawn_background("history", async move {
        let told = async {
            let known = of(&shared, &key, &participant, &user).await?;
            shared.bus.visit(&key, &user).await?;
            if !known.conversations.is_empty() {
                let told = vec![Ephemeral::History(Arc::new(known))];
                shared.bus.announce(&key, &publisher, generation, told).await?;
                metrics::history_told();
            }
            Ok::<_, Error>(())
        };
        let drain = shared.tasks.drain();
        let outcome = tokio::select! {
            outcome = timeout(PATIENCE, told) => outcome,
            () = drain.finished() => return,
        };
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%key, %error, "what is known of a participant could not be told"),
            Err(_) => tracing::debug!(%key, "what is known of a participant took longer than {PATIENCE:?}"),
        }
    }));
}

/// The user's conversations but this one, latest first.
///
/// # Errors
/// When the log does not answer.
pub(crate) async fn of(
    shared: &Shared,
    but: &ConversationKey,
    participant: &Arc<Participant>,
    user: &str,
) -> Result<History, Error> {
    let bus: &dyn Bus = &*shared.bus;
    let visits = bus.visits(&but.meeting.account, user).await?;
    let mut conversations = Vec::new();
    for key in visits.iter().filter(|key| *key != but) {
        // Never closed while conversations are served.
        let Ok(_turn) = shared.readers.acquire().await else { break };
        if let Some(record) = records::load(bus, key).await?
            && !record.messages.is_empty()
        {
            conversations.push(earlier(key, &record));
            if conversations.len() == TOLD {
                break;
            }
        }
    }
    Ok(History { participant: Arc::clone(participant), conversations })
}

fn earlier(key: &ConversationKey, record: &Record) -> Earlier {
    let mut topics: Vec<_> = record.insights.iter().filter(|it| it.kind == "topic").collect();
    topics.sort_by_key(|it| std::cmp::Reverse(it.confidence));
    let tasks = record.insights.iter().filter(|it| matches!(it.kind.as_str(), "action_item" | "follow_up"));
    let name = |it: &RecordedInsight| {
        let who = it.assignee.and_then(|id| record.members.iter().find(|member| member.id == id))?;
        who.name.clone()
    };
    let task = |it: &RecordedInsight| OpenTask { text: short(&it.text), assignee: name(it), due: it.due.clone() };
    Earlier {
        conversation: key.conversation,
        title: short(&record.title),
        started: Timestamp(record.started_us),
        topics: topics.into_iter().take(TOPICS).map(|it| short(&it.text)).collect(),
        summary: summary(record, SUMMARY).into_iter().map(|at| short(&record.messages[at].text)).collect(),
        open: tasks.take(TASKS).map(task).collect(),
    }
}

fn short(text: &str) -> String {
    match text.char_indices().nth(LONG) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}
