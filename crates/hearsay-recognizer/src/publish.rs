//! A stream's commits on their way to the log: one at a time, in order, each until the log has answered.

use std::{future::Future, sync::Arc, time::Duration};

use hearsay_bus::{Batch, Bus, Error, Published, Refusal};
use hearsay_protocol::{ConversationKey, Event, Generation, PublisherId, Restart, Seen, StreamTime, event::Ephemeral};
use tokio::time::{Instant, sleep};
use tonic::Status;

use crate::metrics;

/// Between tries while the log is out of reach; doubles up to the last.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LAST: Duration = Duration::from_secs(1);

/// A stream's place among the log's publishers, as its uplink claimed it.
#[derive(Clone)]
pub(crate) struct Publisher {
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) key: ConversationKey,
    pub(crate) publisher: PublisherId,
    pub(crate) generation: Generation,
    /// How long the log may be out of reach.
    pub(crate) patience: Duration,
}

impl Publisher {
    /// Appends what was made of `from..through`.
    pub(crate) fn publish(
        &self,
        from: StreamTime,
        through: StreamTime,
        events: Vec<Event>,
        restart: Restart,
        seen: Seen,
    ) -> impl Future<Output = Result<Published, Status>> + Send + 'static {
        let this = self.clone();
        let batch = Batch {
            publisher: self.publisher.clone(),
            generation: self.generation,
            from: from.0,
            through: through.0,
            events,
            restart: Some(restart),
            seen,
        };
        async move {
            let begun = Instant::now();
            let mut pause = RETRY_FIRST;
            loop {
                match this.bus.publish(&this.key, batch.clone()).await {
                    Ok(published) => {
                        metrics::published(begun.elapsed());
                        return Ok(published);
                    }
                    Err(Error::Refused(refusal)) => return Err(status(&refusal)),
                    Err(error @ Error::Unavailable(_)) if begun.elapsed() >= this.patience => {
                        return Err(Status::unavailable(error.to_string()));
                    }
                    Err(Error::Unavailable(_)) => {
                        metrics::publish_retried();
                        sleep(pause).await;
                        pause = (2 * pause).min(RETRY_LAST);
                    }
                }
            }
        }
    }

    /// Announces; only being superseded matters.
    pub(crate) fn announce(
        &self,
        ephemerals: Vec<Ephemeral>,
    ) -> impl Future<Output = Result<(), Status>> + Send + 'static {
        let this = self.clone();
        async move {
            match this.bus.announce(&this.key, &this.publisher, this.generation, ephemerals).await {
                Err(Error::Refused(refusal @ Refusal::Fenced { .. })) => Err(status(&refusal)),
                // The next one says more.
                Ok(()) | Err(_) => Ok(()),
            }
        }
    }

    /// The newest entry, for who has published nothing yet and was not told.
    pub(crate) async fn top(&self) -> Result<Seen, Status> {
        match self.bus.meta(&self.key).await {
            Ok(meta) => Ok(meta.top),
            Err(Error::Refused(refusal)) => Err(status(&refusal)),
            Err(error @ Error::Unavailable(_)) => Err(Status::unavailable(error.to_string())),
        }
    }
}

/// What the uplink hears (`recognizer.proto` lists the codes).
fn status(refusal: &Refusal) -> Status {
    let message = refusal.to_string();
    match refusal {
        Refusal::Fenced { .. } => Status::aborted(message),
        Refusal::Ended => Status::failed_precondition(message),
        Refusal::Gone => Status::not_found(message),
        // The uplink claims again, learns how far the log still covers the stream, and replays the rest.
        Refusal::Reclaim | Refusal::Held { .. } => Status::unavailable(message),
        Refusal::Full { .. } => Status::out_of_range(message),
        Refusal::Overlap { .. } | Refusal::Hole { .. } | Refusal::Invalid(_) => {
            metrics::publish_refused();
            tracing::error!(%refusal, "the log refused a commit: a bug");
            Status::internal(message)
        }
    }
}
