//! A stream's own place among the log's publishers: says that it began, changed and ended, each once.
//!
//! The place is `gateway:<stream>`, one for each stream, so connections of one meeting need no order among them; whose
//! lease keeps the stream alive is [`StreamStarted::gateway`](hearsay_protocol::event::StreamStarted::gateway). Its input
//! is the count of its events: a repeated publish after a lost answer is a duplicate, not a second event.

use std::{sync::Arc, time::Duration};

use hearsay_bus::{Bus, Error, Published, append::Appender, publisher::AfterBranch};
use hearsay_protocol::{ConversationKey, Event, GatewayId, Generation, PublisherId, StreamId};

pub(crate) struct StreamPublisher {
    appender: Appender,
    stream: StreamId,
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
        let id = PublisherId::Gateway(GatewayId(stream.0));
        let (appender, _) = Appender::claim(Arc::clone(bus), key.clone(), id, AfterBranch::Reappend, patience).await?;
        Ok(Self { appender, stream, patience })
    }

    /// Who publishes, to announce something.
    pub(crate) fn place(&self) -> (PublisherId, Generation) {
        (PublisherId::Gateway(GatewayId(self.stream.0)), self.appender.generation())
    }

    /// # Errors
    /// As [`StreamPublisher::claim`]; the event then goes out with the next one.
    pub(crate) async fn publish(&mut self, event: Event) -> Result<Published, Error> {
        self.appender.append_event(event, self.patience).await
    }

    /// Appends again what a failover of the log lost: nobody else would say that the stream began.
    ///
    /// # Errors
    /// As [`StreamPublisher::claim`].
    pub(crate) async fn check(&mut self) -> Result<(), Error> {
        self.appender.check(self.patience).await
    }
}
