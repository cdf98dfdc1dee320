//! The streams of this gateway's connections, so that one that goes on here over another connection tells the one it left.
//! At most one entry a connection.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use hearsay_protocol::StreamId;
use tokio::sync::Notify;

#[derive(Clone, Default)]
pub(crate) struct Streams {
    places: Arc<Mutex<HashMap<StreamId, Arc<Notify>>>>,
}

/// A connection's hold on its stream; given back when dropped.
pub(crate) struct Place {
    streams: Streams,
    stream: StreamId,
    taken: Arc<Notify>,
}

impl Streams {
    /// From here on the stream is the caller's; whoever had it is told.
    pub(crate) fn take(&self, stream: StreamId) -> Place {
        let taken = Arc::new(Notify::new());
        if let Some(former) = self.lock().insert(stream, Arc::clone(&taken)) {
            former.notify_one();
        }
        Place { streams: self.clone(), stream, taken }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StreamId, Arc<Notify>>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits until another connection has the stream. Tells so once.
    pub(crate) async fn taken(&self) {
        self.taken.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.streams.lock();
        if places.get(&self.stream).is_some_and(|present| Arc::ptr_eq(present, &self.taken)) {
            places.remove(&self.stream);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn who_goes_on_with_a_stream_tells_who_had_it() {
        let streams = Streams::default();
        let stream = StreamId(Uuid::from_u128(1));
        let first = streams.take(stream);
        let other = streams.take(StreamId(Uuid::from_u128(2)));
        assert!(first.taken().now_or_never().is_none());
        let second = streams.take(stream);
        assert!(first.taken().now_or_never().is_some());
        drop(first);
        assert_eq!(streams.lock().len(), 2, "the second still has it");
        assert!(second.taken().now_or_never().is_none() && other.taken().now_or_never().is_none());
        drop((second, other));
        assert!(streams.lock().is_empty());
    }
}
