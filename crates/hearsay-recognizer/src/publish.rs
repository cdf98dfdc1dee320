//! A stream's commits on their way to the log: one at a time, in order, each until the log has answered.

use std::{future::Future, sync::Arc, time::Duration};

use hearsay_bus::{Bus, Error, Published, Refusal, append::Appender, publisher::Stretch};
use hearsay_protocol::{ConversationKey, Generation, PublisherId, Seen, event::Ephemeral};
use tokio::time::Instant;
use tonic::Status;

use crate::metrics;

/// A stream's place among the log's publishers, as its uplink claimed it.
#[derive(Clone)]
pub(crate) struct Publisher {
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) key: ConversationKey,
    pub(crate) publisher: PublisherId,
    pub(crate) generation: Generation,
}

/// Appends a commit, and hands the appender back with the log's answer.
///
/// # Errors
/// The refusal, or that the log was out of reach for `patience`.
pub(crate) async fn append(
    mut appender: Box<Appender>,
    stretch: Stretch,
    patience: Duration,
) -> (Box<Appender>, Result<Published, Status>) {
    let begun = Instant::now();
    let published = match appender.append(stretch, patience).await {
        Ok(published) => {
            metrics::published(begun.elapsed());
            Ok(published)
        }
        Err(Error::Refused(refusal)) => Err(status(&refusal)),
        Err(error @ Error::Unavailable(_)) => {
            metrics::log_out_of_reach();
            Err(Status::unavailable(error.to_string()))
        }
    };
    (appender, published)
}

impl Publisher {
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
        // The uplink claims again, appends again what the log lost of what we acknowledged, and replays the rest.
        Refusal::Reclaim => Status::data_loss(message),
        Refusal::Held { .. } => Status::unavailable(message),
        Refusal::Full { .. } => Status::out_of_range(message),
        Refusal::Overlap { .. } | Refusal::Hole { .. } | Refusal::Invalid(_) => {
            metrics::publish_refused();
            tracing::error!(%refusal, "the log refused a commit: a bug");
            Status::internal(message)
        }
    }
}
