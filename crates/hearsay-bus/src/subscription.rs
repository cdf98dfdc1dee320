//! The receiving ends a bus hands out.

use hearsay_protocol::ConversationKey;
use tokio::sync::mpsc;

use crate::{Delivery, metrics};

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

/// A bus's end of a subscription.
pub(crate) struct Subscriber {
    deliveries: mpsc::Sender<Delivery>,
    /// [`Delivery::Missed`] is the last thing in the channel; until it was taken nothing may follow it.
    missed: bool,
}

impl Subscriber {
    pub(crate) fn new(deliveries: mpsc::Sender<Delivery>) -> Self {
        Self { deliveries, missed: false }
    }

    /// The subscription was dropped.
    pub(crate) fn is_gone(&self) -> bool {
        self.deliveries.is_closed()
    }

    /// False when nobody is there any more.
    pub(crate) fn offer(&mut self, delivery: &Delivery) -> bool {
        if self.deliveries.is_closed() {
            return false;
        }
        let (room, all) = (self.deliveries.capacity(), self.deliveries.max_capacity());
        if self.missed {
            if room < all {
                // Whoever takes `Missed` reads from the log and finds this there.
                return true;
            }
            self.missed = false;
        }
        if matches!(delivery, Delivery::Ephemeral { .. }) && room <= all / 2 {
            metrics::skipped();
            return true;
        }
        let delivery = if room <= 1 {
            self.missed = true;
            metrics::missed();
            Delivery::Missed
        } else {
            delivery.clone()
        };
        // There is room: only this, under the lock, sends.
        self.deliveries.try_send(delivery).is_ok()
    }
}
