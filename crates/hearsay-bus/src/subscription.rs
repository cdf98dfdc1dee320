//! The receiving ends a bus hands out.

use hearsay_protocol::ConversationKey;
use tokio::sync::mpsc;

use crate::Delivery;

/// Deliveries of one conversation, in the order they were announced. Dropping it unsubscribes.
pub struct Subscription {
    deliveries: mpsc::Receiver<Delivery>,
    /// Dropped with the subscription: whatever the bus does to end it.
    _guard: Box<dyn Send + Sync>,
}

impl Subscription {
    /// The bus keeps the sender; `guard` is dropped when the subscriber goes. When the channel is full the bus remembers
    /// that, and sends [`Delivery::Missed`] as soon as there is room.
    pub fn new(deliveries: mpsc::Receiver<Delivery>, guard: Box<dyn Send + Sync>) -> Self {
        Self { deliveries, _guard: guard }
    }

    /// The next delivery; none when the bus shut down. Safe to drop between deliveries.
    pub async fn next(&mut self) -> Option<Delivery> {
        self.deliveries.recv().await
    }
}

/// Which conversation a meeting has open. Dropping it ends the watch.
pub struct Watch {
    opened: mpsc::Receiver<ConversationKey>,
    _guard: Box<dyn Send + Sync>,
}

impl Watch {
    pub fn new(opened: mpsc::Receiver<ConversationKey>, guard: Box<dyn Send + Sync>) -> Self {
        Self { opened, _guard: guard }
    }

    /// The next conversation opened under the meeting's name; none when the bus shut down. Safe to drop.
    pub async fn next(&mut self) -> Option<ConversationKey> {
        self.opened.recv().await
    }
}
