//! What keeps conversations' lives going: visits those whose deadlines have passed.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use hearsay_protocol::ConversationKey;
use tokio::time::{Instant, timeout};

use crate::{Bus, Entry, Error, Read, Seen, metrics};

/// Visited in one round at most; the rest wait a second.
const ROUND: usize = 1_024;
/// How long one call may take.
const CALL: Duration = Duration::from_secs(5);
/// Entries read at a time for a record.
const PAGE: usize = 1_000;

/// Makes the record that an ended conversation's entries become.
pub type Compactor = Arc<dyn Fn(&ConversationKey, &[Entry]) -> Bytes + Send + Sync>;

/// Does what the deadlines of all conversations ask for by now. Call it every second, in any number of processes.
///
/// # Errors
/// When the log cannot be reached; what was not done is done in the next round.
pub async fn round(bus: &dyn Bus, compactor: &Compactor) -> Result<usize, Error> {
    let begun = Instant::now();
    let due = bounded(bus.due(ROUND)).await?;
    let visited = due.len();
    for key in due {
        match bounded(bus.tick(&key)).await {
            Ok(ticked) if ticked.compact => compact(bus, &key, compactor).await?,
            Ok(_) => {}
            // Another process forgot it first.
            Err(Error::Refused(_)) => {}
            Err(error @ Error::Unavailable(_)) => return Err(error),
        }
    }
    metrics::round(visited, begun.elapsed());
    Ok(visited)
}

async fn compact(bus: &dyn Bus, key: &ConversationKey, compactor: &Compactor) -> Result<(), Error> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut after = Seen::NOTHING;
    loop {
        let page = match bounded(bus.read(key, after, PAGE)).await {
            Ok(Read::Page(page)) => page,
            // Dropped meanwhile, or deleted.
            Ok(Read::Gap { .. }) | Err(Error::Refused(_)) => return Ok(()),
            Err(error @ Error::Unavailable(_)) => return Err(error),
        };
        entries.extend(page.entries);
        let Some(last) = entries.last() else { break };
        after = Seen { epoch: Some(page.epoch), offset: last.offset, check: Some(last.check) };
        if last.offset >= page.top.offset {
            break;
        }
    }
    let record = compactor(key, &entries);
    match bounded(bus.compact(key, after.offset, record)).await {
        Ok(()) => {
            metrics::compacted();
            Ok(())
        }
        // Something was appended meanwhile: the next round folds it in.
        Err(Error::Refused(_)) => Ok(()),
        Err(error @ Error::Unavailable(_)) => Err(error),
    }
}

async fn bounded<T>(call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    timeout(CALL, call).await.unwrap_or_else(|_| Err(Error::Unavailable(format!("no answer within {CALL:?}"))))
}
