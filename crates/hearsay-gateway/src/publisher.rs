//! A stream's own place among the log's publishers: says that it began, changed and ended, each once.
//!
//! The place is `gateway:<stream>`, one for each stream, so connections of one meeting need no order among them; whose
//! lease keeps the stream alive is [`StreamStarted::gateway`](hearsay_protocol::event::StreamStarted::gateway). Its input
//! is the count of its operations: a repeated publish after a lost answer is a duplicate, not a second event.

use std::{future::Future, sync::Arc, time::Duration};

use hearsay_bus::{Batch, Bus, Error, Published, Refusal};
use hearsay_protocol::{ConversationKey, Event, GatewayId, Generation, PublisherId, Seen, StreamId};
use tokio::time::Instant;

/// Between tries while the log is out of reach; doubles up to the last.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LAST: Duration = Duration::from_secs(1);

pub(crate) struct StreamPublisher {
    bus: Arc<dyn Bus>,
    key: ConversationKey,
    publisher: PublisherId,
    generation: Generation,
    operations: u64,
    seen: Seen,
    patience: Duration,
}

impl StreamPublisher {
    /// # Errors
    /// What the log says, after `patience` when it says nothing.
    pub(crate) async fn claim(
        bus: &Arc<dyn Bus>,
        key: &ConversationKey,
        stream: StreamId,
        patience: Duration,
    ) -> Result<Self, Error> {
        let publisher = PublisherId::Gateway(GatewayId(stream.0));
        let claim = patiently(patience, || bus.claim(key, &publisher)).await?;
        Ok(Self {
            bus: Arc::clone(bus),
            key: key.clone(),
            publisher,
            generation: claim.generation,
            operations: claim.watermark,
            seen: claim.top,
            patience,
        })
    }

    /// # Errors
    /// As [`StreamPublisher::claim`].
    pub(crate) async fn publish(&mut self, event: Event) -> Result<Published, Error> {
        let through = self.operations + 1;
        loop {
            let batch = Batch {
                publisher: self.publisher.clone(),
                generation: self.generation,
                from: self.operations,
                through,
                events: vec![event.clone()],
                restart: None,
                seen: self.seen,
            };
            match patiently(self.patience, || self.bus.publish(&self.key, batch.clone())).await {
                Ok(published) => {
                    self.operations = through;
                    self.seen = published.top;
                    return Ok(published);
                }
                // History branched: the count goes on from what the log still knows.
                Err(Error::Refused(Refusal::Reclaim)) => {
                    let claim = patiently(self.patience, || self.bus.claim(&self.key, &self.publisher)).await?;
                    self.generation = claim.generation;
                    self.operations = claim.watermark.min(self.operations);
                    self.seen = claim.top;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Repeats a call until the log answers, at most for `patience`.
pub(crate) async fn patiently<T, F>(patience: Duration, mut call: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let give_up = Instant::now() + patience;
    let mut pause = RETRY_FIRST;
    loop {
        match call().await {
            Err(error) if error.is_transient() && Instant::now() + pause < give_up => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_LAST);
            }
            answer => return answer,
        }
    }
}
